//! One worker: a single-threaded loop over its own listeners, sessions, health checks and timers.
//!
//! In reading order: `assignment` says what a worker is to do. `listen/` is where connections come from: `listening`
//! opens and closes listeners, `listeners` knows which of them is next, `accept` takes a connection, and `dispatch`
//! says which worker is to have it. `relay/` has the sessions: `connect` chooses and dials a backend, for which a
//! session may have to wait in `waiting`, `drive` relays, as much in a turn as `budget` allows, `conduit` holds the
//! bytes in between, in `buffers` or `pipes`, `stalled` takes pipes from sinks that have stopped, `byte_accounting`
//! counts the bytes of sessions that last, `close` ends and accounts, `lines` logs, `lost_wakeups` finds sessions whose
//! event was lost. `probes/` checks backends, `agents/` asks their agents. `inspect/` shows what there is: `query`
//! answers about sessions, `flight_recorder` remembers those that are over, `gauges` reports what the worker holds.
//! `commands` takes commands. Only `close.rs` frees a session. Nothing here waits except [`Kernel::wait`], and nothing
//! loops without a bound that has a name.

mod admission;
mod agents;
mod assignment;
mod budget;
mod commands;
mod core;
mod dispatch;
mod inspect;
mod listen;
mod probes;
mod proxy_header;
mod relay;
mod stall_guard;
#[cfg(test)]
mod test_worker;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::base::rng::Rng;
use crate::base::timer_wheel::TimerWheel;
use crate::messages::command::Command;
use crate::messages::report::{Reports, WorkerId};
use crate::pool::Snapshot;
use crate::session::CloseReason;
use crate::stats::WorkerStats;
use crate::sys::{Event, Kernel, Token};

use self::core::{Core, Timer};
pub use admission::Admission;
use agents::Agents;
pub use assignment::{Assignment, GroupId, Listening, Peers, WorkerEndpoints, WorkerHandle};
use budget::Turn;
use dispatch::Dispatcher;
pub use dispatch::{HandoffQueue, HandoffQueues};
pub use inspect::audit::Audit;
use inspect::flight_recorder::Recorder;
use inspect::query::Inspection;
use listen::accept::{ACCEPTS_PER_TURN, ADOPTIONS_PER_TURN, Accepted, Acceptor, Taken};
pub use listen::listening::RETIRE_GRACE;
use probes::Probes;
pub use probes::check_now;
use relay::Relay;
use stall_guard::Gap;

/// The parts of the process that a worker shares, besides its assignment.
pub struct Shared {
    /// The id of the worker.
    pub id: WorkerId,
    /// The queue to the control thread.
    pub reports: Reports,
    /// The limit on open sessions.
    pub admission: Arc<Admission>,
    /// The counters, which only this worker writes.
    pub stats: Arc<WorkerStats>,
    /// Seeds its random picks and jitter.
    pub seed: u64,
}

/// The result of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The worker has not stopped: the caller must run another turn.
    Running,
    /// The worker has no work left and will get none.
    Stopped,
}

/// One worker. [`Worker::turn`] must be called until it has stopped.
///
/// Each part has what is its own and works with the core. What concerns two of them is done here.
pub struct Worker<K: Kernel> {
    core: Core<K>,
    acceptor: Acceptor<K>,
    relay: Relay<K>,
    probes: Probes<K>,
    agents: Agents<K>,
    inspection: Inspection,
    events: Vec<Event>,
    inbox: Receiver<Command>,
    assignments: Receiver<Assignment<K::Listener, K::Socket>>,
    /// Belongs to an epoch that this worker does not run yet.
    assigned: Option<Assignment<K::Listener, K::Socket>>,
    /// Once it is stopped, new sessions are cut for this reason.
    stopping: Option<CloseReason>,
}

impl<K: Kernel> Worker<K> {
    /// Returns a worker that carries out `assignment` from its first turn on.
    pub fn new(
        mut kernel: K,
        endpoints: WorkerEndpoints<K::Listener, K::Socket>,
        assignment: Assignment<K::Listener, K::Socket>,
        snapshot: Arc<Snapshot>,
        shared: Shared,
    ) -> Self {
        let now = kernel.now();
        let WorkerEndpoints { index, handoff_queue, inbox, arrivals, assignments } = endpoints;
        let Assignment { listeners, peers, checks_max, pipes_max, pipe_len, .. } = assignment;
        let mut core = Core {
            kernel,
            now,
            wheel: TimerWheel::new(now),
            gap: Gap::default(),
            turn: Turn::new(now),
            rng: Rng::new(shared.seed),
            id: shared.id,
            index,
            mailboxes: peers.mailboxes,
            dispatcher: Dispatcher::new(handoff_queue, peers.handoff_queues),
            reports: shared.reports,
            snapshot,
            admission: shared.admission,
            stats: shared.stats,
            recorder: Recorder::default(),
        };
        let probes = Probes::new(&mut core, checks_max);
        let agents = Agents::new(&mut core, checks_max);
        let relay = Relay::new(&core, pipes_max, pipe_len);
        let mut acceptor = Acceptor::new(arrivals);
        for listening in listeners {
            acceptor.listen(&mut core, listening);
        }
        let worker = Self {
            core,
            acceptor,
            relay,
            probes,
            agents,
            inspection: Inspection::default(),
            events: Vec::new(),
            inbox,
            assignments,
            assigned: None,
            stopping: None,
        };
        worker.publish_gauges();
        worker
    }

    /// Turns until the worker has stopped. Fails with an error of epoll itself, from which it cannot recover.
    pub fn run(mut self) -> io::Result<()> {
        while self.turn()? == Flow::Running {}
        Ok(())
    }

    /// Runs one turn: waits for events and handles all that follow from them. Fails when epoll fails.
    pub fn turn(&mut self) -> io::Result<Flow> {
        let timeout = self.next_timeout();
        self.core.kernel.wait(timeout, &mut self.events)?;
        let asked_until = self.core.now + timeout.unwrap_or(Duration::MAX);
        self.core.now = self.core.kernel.now();

        self.core.turn.begin(self.core.now);
        self.core.stats.turns.add(1);
        self.core.stats.events.add(self.events.len() as u64);
        self.on_events();
        // Queued sessions have not been served yet.
        let unheard = self.events.len() + self.relay.queued();
        if self.core.gap.timers_may_fire(asked_until, self.core.now, unheard) {
            self.fire_timers();
        }
        self.read_mailbox();
        self.adopt();
        // After everything that ends checks: no check waits for a free place.
        self.probes.start_waiting(&mut self.core);
        self.agents.start_waiting(&mut self.core);
        if let Some(reason) = self.stopping {
            self.relay.cut_all(&mut self.core, reason);
        }
        if self.relay.take_freed() {
            self.acceptor.resume_accepting(&mut self.core);
        }
        self.relay.serve_waiting(&mut self.core);
        self.accept_all();
        self.relay.serve_queue(&mut self.core);
        self.relay.reclaim_pipes(&mut self.core);
        let is_over = self.acceptor.listeners().is_empty() && self.core.dispatcher.is_over();
        self.publish_gauges();
        self.measure_turn();
        Ok(if is_over {
            debug_assert!(self.relay.is_empty(), "each session is counted");
            Flow::Stopped
        } else {
            Flow::Running
        })
    }

    /// Returns how long the next wait may last.
    fn next_timeout(&self) -> Option<Duration> {
        let accepting = !self.relay.is_starved() && self.acceptor.listeners().has_ready();
        let checks = self.probes.may_start() || self.agents.may_start();
        if accepting || checks || self.probes.has_postponed() || self.relay.has_work_left() {
            return Some(Duration::ZERO);
        }
        self.core.wheel.next_timeout(self.core.now)
    }

    fn on_events(&mut self) {
        let Self { core, acceptor, relay, probes, agents, events, .. } = self;
        for &Event { token, ready } in &*events {
            match token {
                Token::Session(key, side) => relay.on_event(core, key, side, ready),
                Token::Probe(key) => probes.on_event(core, key),
                Token::Agent(key) => agents.on_event(core, key),
                Token::Listener(index) => acceptor.on_event(core, index),
                // The mailbox is read every turn.
                Token::Wake => {}
            }
        }
    }

    fn fire_timers(&mut self) {
        let Self { core, acceptor, relay, probes, agents, .. } = self;
        core.wheel.advance(core.now);
        while core.turn.take_timer()
            && let Some(timer) = core.wheel.pop_due()
        {
            match timer {
                Timer::Session(key) => relay.on_timer(core, key),
                Timer::Probe(index) => probes.on_timer(core, index),
                Timer::Agent(index) => agents.on_timer(core, index),
                Timer::Waiting => relay.on_waiting_timer(core),
                Timer::Count => relay.on_count_timer(core),
                Timer::Sweep => relay.on_sweep_timer(core),
                Timer::Accept(index) => acceptor.on_timer(core, index),
                Timer::Retire(index) => acceptor.on_retire_timer(index),
            }
        }
    }

    /// Takes what is in the accept queues, up to the bound of a turn: from the listeners in turn, one by one.
    fn accept_all(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            if self.relay.is_starved() {
                return;
            }
            match self.acceptor.accept_next(&mut self.core) {
                Taken::Session(accepted) => self.open(accepted),
                Taken::Nothing => {}
                Taken::NoneReady => return,
            }
        }
    }

    /// Opens the sessions that other workers have handed over.
    fn adopt(&mut self) {
        for _ in 0..ADOPTIONS_PER_TURN {
            let Some((snapshot, accepted)) = self.acceptor.next_arrival(&self.core) else { return };
            self.run_epoch(snapshot);
            self.open(accepted);
        }
    }

    fn open(&mut self, accepted: Accepted<K::Socket>) {
        let Accepted { listener, client, peer } = accepted;
        self.relay.open(&mut self.core, listener, client, peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::test_worker::Bench;

    /// A hundred thousand idle sessions that timed out together made a turn of a second and more.
    #[test]
    fn a_turn_fires_no_more_timers_than_it_may() {
        let mut bench = Bench::new("retries = 1");
        let armed = 1_000;
        let before = bench.worker.core.wheel.len();
        (0..armed).for_each(|_| _ = bench.worker.core.wheel.arm(bench.worker.core.now, Timer::Count));
        let mut left = before + armed;
        while left > before {
            bench.turn_at_once();
            let fired = left - bench.worker.core.wheel.len();
            assert!(fired <= 256, "{fired} timers in one turn");
            left -= fired;
            let has_work_left = bench.worker.next_timeout() == Some(Duration::ZERO);
            assert!(fired == 0 || left <= before || has_work_left, "the rest continues at once");
        }
    }
}
