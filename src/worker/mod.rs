//! One worker: a single-threaded loop over its own listeners, sessions, health checks and timers.
//!
//! In reading order: `assignment` says what a worker is to do. `listen/` is where connections come from: `listening` opens
//! and closes listeners, `listeners` knows which of them is next, `accept` takes a connection, and `dispatch` says which
//! worker is to have it. `relay/` has the sessions: `connect` chooses and dials a backend, for which a session may have to
//! wait in `waiting` or `ports`, `drive` relays, as much in a turn as `budget` allows, `conduit` holds the bytes in
//! between, in `buffers` or `pipes`, `stalled` takes pipes from sinks that have stopped, `byte_accounting` counts the bytes
//! of sessions that last, `close` ends and accounts, `lines` logs, `lost_wakeups` finds sessions whose event was lost.
//! `probes/` checks backends. `inspect/` shows what there is: `query` answers about sessions, `flight_recorder` remembers
//! those that are over, `gauges` reports what the worker holds. `commands` takes commands. Only `close.rs` frees a session.
//! Nothing here waits except [`Kernel::wait`], and nothing loops without a bound that has a name.

mod admission;
mod assignment;
mod budget;
mod commands;
mod dispatch;
mod inspect;
mod listen;
mod probes;
mod relay;
mod stall_guard;
#[cfg(test)]
mod test_worker;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::base::ready::Ready;
use crate::base::rng::Rng;
use crate::base::slots::{Key, Slots};
use crate::base::time::Instant;
use crate::base::timer_wheel::{TimerId, TimerWheel};
use crate::messages::command::Command;
use crate::messages::mailbox::Mailbox;
use crate::messages::report::{Reports, WorkerId};
use crate::pool::{Backend, BackendId, Choice, Lease, Listener, Snapshot};
use crate::session::{CloseReason, Expiry, Session, Side};
use crate::stats::WorkerStats;
use crate::sys::{Event, Kernel, Token};

pub use admission::Admission;
pub use assignment::{Assignment, GroupId, Listening, Peers, WorkerEndpoints, WorkerHandle};
use budget::Turn;
use dispatch::{Arrival, Dispatcher};
pub use dispatch::{HandoffQueue, HandoffQueues};
pub use inspect::audit::Audit;
use inspect::flight_recorder::Recorder;
use inspect::query::Tables;
use listen::listeners::Listeners;
pub use listen::listening::RETIRE_GRACE;
use probes::Probes;
use relay::buffers::Buffers;
use relay::byte_accounting::{Counting, Uncounted};
use relay::conduit::{Conduit, RelayBuffers};
use relay::drive::Driven;
use relay::lines::Round;
use relay::lost_wakeups::Sweep;
use relay::pipes::Pipes;
use relay::ports::Ports;
use relay::waiting::Starved;
use stall_guard::Gap;

/// What a worker shares with the rest of the process, besides what it is assigned.
pub struct Shared {
    /// Its name.
    pub id: WorkerId,
    /// The way to the control thread.
    pub reports: Reports,
    /// The limit on sessions.
    pub admission: Arc<Admission>,
    /// Its counters.
    pub stats: Arc<WorkerStats>,
    /// Decides its random picks and jitter.
    pub seed: u64,
}

/// Whether a worker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// There is more to come.
    Running,
    /// Nothing is left, and nothing will come.
    Stopped,
}

/// One worker. Call [`Worker::turn`] until it has stopped.
pub struct Worker<K: Kernel> {
    kernel: K,
    /// Of this turn: the clock is read once, after the wait.
    now: Instant,
    events: Vec<Event>,
    wheel: TimerWheel<Timer>,
    gap: Gap,
    listeners: Listeners<K>,
    sessions: Slots<Slot<K>>,
    /// Sessions whose dial waits for descriptors or memory.
    starved: Starved,
    /// Sessions whose dial waits for a source port.
    ports: Ports,
    /// What is left of this turn.
    turn: Turn,
    /// Sessions that wait for their share of a turn.
    ready_queue: VecDeque<Key>,
    /// Those that have had one of this turn and have more to do.
    served: Vec<Key>,
    /// Sessions with bytes that are to be counted before they end.
    uncounted: Uncounted,
    relay_buffers: RelayBuffers<K>,
    sweep: Sweep,
    /// Where the next look for lines that are due begins.
    lines: Round,
    probes: Probes<K>,
    /// Sessions that are over.
    recorder: Recorder,
    /// Tables of former epochs.
    tables: Tables,
    /// Why sessions are cut as soon as they are there, once it was told to stop.
    stopping: Option<CloseReason>,
    /// Connections to backends that are open or dialed.
    dialed: u64,
    /// A session has ended: what accepting was paused for may be there again.
    freed: bool,
    rng: Rng,
    mailboxes: Arc<[Mailbox]>,
    inbox: Receiver<Command>,
    id: WorkerId,
    index: usize,
    dispatcher: Dispatcher<K::Socket>,
    arrivals: Receiver<Arrival<K::Socket>>,
    assignments: Receiver<Assignment<K::Listener, K::Socket>>,
    /// It belongs to an epoch that this worker does not run yet.
    assigned: Option<Assignment<K::Listener, K::Socket>>,
    reports: Reports,
    snapshot: Arc<Snapshot>,
    admission: Arc<Admission>,
    stats: Arc<WorkerStats>,
}

/// Everything that a worker holds for one session.
struct Slot<K: Kernel> {
    session: Session,
    client: K::Socket,
    /// Dialing or connected.
    backend: Option<K::Socket>,
    /// On the backend of `backend`.
    lease: Option<Lease>,
    /// Why that lease; left behind where there is none any more, see [`Slot::choice_of_lease`].
    choice: Choice,
    /// By direction.
    conduits: [Conduit<K::Pipe>; 2],
    /// The one timer, and when it fires.
    timer: Option<(TimerId, Instant)>,
    client_address: SocketAddr,
    /// The version that accepted it.
    listener: Arc<Listener>,
    /// Backends that a dial has failed to, and why the last one did. Nearly always none.
    failed: Option<Box<FailedDials>>,
    queued: bool,
    /// Keepalive probes of the backend have been asked for.
    kept_alive: bool,
    counting: Counting,
    /// Seconds from accept to the last line that it has had while it lasts, or was to have.
    line_age: u32,
}

struct FailedDials {
    tried: Vec<BackendId>,
    /// The last of them that is to blame, or the first that is not; it may be in no pool any more.
    last: Arc<Backend>,
    reason: CloseReason,
    /// Those of them that no source port was left for, or that others wait for already.
    portless: Vec<(BackendId, SocketAddr)>,
}

/// What an entry of the wheel is for.
#[derive(Clone, Copy, Debug)]
enum Timer {
    /// The deadline of a session.
    Session(Key),
    /// The next check of a probe, or the end of its patience with the current one.
    Probe(u32),
    /// Dials that were put off are tried again.
    Starved,
    /// And those that found no source port.
    Ports,
    /// Bytes of sessions that last are counted.
    Count,
    /// Some sessions are asked whether they wait for what has come already.
    Sweep,
    /// Accepting goes on.
    Accept(usize),
    /// A listener that is to be closed has waited for handshakes for long enough.
    Retire(usize),
}

impl<K: Kernel> Worker<K> {
    /// A worker that does what `assignment` says as soon as it turns.
    pub fn new(
        mut kernel: K,
        endpoints: WorkerEndpoints<K::Listener, K::Socket>,
        assignment: Assignment<K::Listener, K::Socket>,
        snapshot: Arc<Snapshot>,
        shared: Shared,
    ) -> Self {
        let now = kernel.now();
        let mut rng = Rng::new(shared.seed);
        let mut wheel = TimerWheel::new(now);
        let WorkerEndpoints { index, handoff_queue, inbox, arrivals, assignments } = endpoints;
        let Assignment { listeners, peers, checks_max, pipes_max, pipe_len, .. } = assignment;
        let workers = peers.mailboxes.len();
        let probes = Probes::new(&snapshot, index, workers, checks_max, now, &mut wheel, &mut rng);
        let mut worker = Self {
            kernel,
            now,
            events: Vec::new(),
            wheel,
            gap: Gap::default(),
            listeners: Listeners::default(),
            sessions: Slots::default(),
            starved: Starved::new(now),
            ports: Ports::new(now),
            turn: Turn::new(now),
            ready_queue: VecDeque::new(),
            served: Vec::new(),
            relay_buffers: RelayBuffers {
                buffers: Buffers::new(),
                pipes: Pipes::new(pipes_max, pipe_len, now),
            },
            uncounted: Uncounted::new(),
            sweep: Sweep::new(now),
            lines: Round::default(),
            probes,
            recorder: Recorder::default(),
            tables: Tables::default(),
            stopping: None,
            dialed: 0,
            freed: false,
            rng,
            mailboxes: peers.mailboxes,
            inbox,
            id: shared.id,
            index,
            dispatcher: Dispatcher::new(handoff_queue, peers.handoff_queues),
            arrivals,
            assignments,
            assigned: None,
            reports: shared.reports,
            snapshot,
            admission: shared.admission,
            stats: shared.stats,
        };
        for listening in listeners {
            worker.listen(listening);
        }
        worker.tell_state();
        worker
    }

    /// Turns until the worker has stopped. An error is one of epoll itself: nothing can go on from it.
    pub fn run(mut self) -> io::Result<()> {
        while self.turn()? == Flow::Running {}
        Ok(())
    }

    /// One turn: waits for something to happen and does all that follows from it.
    pub fn turn(&mut self) -> io::Result<Flow> {
        let timeout = self.next_timeout();
        self.kernel.wait(timeout, &mut self.events)?;
        let asked_until = self.now + timeout.unwrap_or(Duration::MAX);
        self.now = self.kernel.now();

        self.turn.begin(self.now);
        self.stats.turns.add(1);
        self.stats.events.add(self.events.len() as u64);
        self.on_events();
        // Whoever is queued has not been heard yet.
        let unheard = self.events.len() + self.ready_queue.len();
        if self.gap.timers_may_fire(asked_until, self.now, unheard) {
            self.fire_timers();
        }
        self.read_mailbox();
        self.adopt();
        // Behind all that ends checks: nobody waits for a place that is free.
        self.start_waiting_probes();
        if let Some(reason) = self.stopping {
            self.cut_all(reason);
        }
        if std::mem::take(&mut self.freed) {
            self.dial_where_freed();
            self.feed_starved();
            self.resume_accepting();
        }
        self.accept_all();
        self.serve_queue();
        self.reclaim_pipes();
        let is_over = self.listeners.is_empty() && self.dispatcher.is_over();
        self.tell_state();
        self.measure_turn();
        Ok(if is_over {
            debug_assert!(self.sessions.is_empty(), "each session is counted");
            Flow::Stopped
        } else {
            Flow::Running
        })
    }

    /// How long the next wait may last.
    fn next_timeout(&self) -> Option<Duration> {
        let accepting = self.starved.is_empty() && self.listeners.has_ready();
        let checks = self.probes.may_start();
        if accepting || checks || self.freed || !self.ready_queue.is_empty() {
            return Some(Duration::ZERO);
        }
        self.wheel.next_timeout(self.now)
    }

    fn on_events(&mut self) {
        let events = std::mem::take(&mut self.events);
        for &Event { token, ready } in &events {
            match token {
                Token::Session(key, side) => match self.sessions.get_mut(key) {
                    Some(slot) => {
                        slot.session.on_ready(side, ready);
                        self.on_session_event(key, side, ready);
                    }
                    // Closed earlier in this batch.
                    None => self.stats.stale_events.add(1),
                },
                Token::Probe(key) => self.on_probe_event(key),
                Token::Listener(index) => self.on_listener_event(index),
                // The mailbox is read every turn.
                Token::Wake => {}
            }
        }
        self.events = events;
    }

    fn on_session_event(&mut self, key: Key, side: Side, ready: Ready) {
        let Some(slot) = self.sessions.get(key) else { return };
        if side == Side::Backend && slot.session.is_dialing() {
            self.turn.note_company();
            return self.on_dial_event(key, ready);
        }
        match self.drive(key) {
            Driven::Idle => self.stats.idle_events.add(1),
            Driven::Queued => {}
            Driven::Moved => self.turn.note_company(),
        }
    }

    fn fire_timers(&mut self) {
        self.wheel.advance(self.now);
        while self.turn.take_timer()
            && let Some(timer) = self.wheel.pop_due()
        {
            match timer {
                Timer::Session(key) => self.on_session_timer(key),
                Timer::Probe(index) => self.on_probe_timer(index),
                Timer::Starved => self.on_starved_timer(),
                Timer::Ports => self.on_ports_timer(),
                Timer::Count => self.on_count_timer(),
                Timer::Sweep => self.on_sweep_timer(),
                Timer::Accept(index) => self.on_accept_timer(index),
                Timer::Retire(index) => self.on_retire_timer(index),
            }
        }
    }

    pub(super) fn on_session_timer(&mut self, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else {
            debug_assert!(false, "close cancels the timer");
            return;
        };
        slot.timer = None;
        slot.lasts(&self.stats, self.index);
        if slot.queued {
            // What it waits for has come, and its share is about to.
            return self.arm(key);
        }
        if !slot.session.is_dialing() {
            self.keep_alive(key);
        }
        let Some(slot) = self.sessions.get_mut(key) else { return };
        match slot.session.on_deadline(self.now) {
            Expiry::Early => self.arm(key),
            Expiry::Dial if slot.backend.is_none() => self.give_up_starved(key),
            Expiry::Dial => self.on_dial_failed(key, &io::ErrorKind::TimedOut.into()),
            Expiry::Drive => _ = self.drive(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Linux;
    use crate::worker::test_worker::Bench;

    /// A hundred thousand idle sessions that time out together made a turn of a second and more.
    #[test]
    fn a_turn_fires_no_more_timers_than_it_may() {
        let mut bench = Bench::new("retries = 1");
        let armed = 1_000;
        let before = bench.worker.wheel.len();
        (0..armed).for_each(|_| _ = bench.worker.wheel.arm(bench.worker.now, Timer::Starved));
        let mut left = before + armed;
        while left > before {
            bench.turn_at_once();
            let fired = left - bench.worker.wheel.len();
            assert!(fired <= 256, "{fired} timers in one turn");
            left -= fired;
            let goes_on = bench.worker.next_timeout() == Some(Duration::ZERO);
            assert!(fired == 0 || left <= before || goes_on, "the rest goes on at once");
        }
    }

    #[test]
    fn an_idle_session_is_small() {
        assert!(size_of::<Slot<Linux>>() <= 352, "{} bytes", size_of::<Slot<Linux>>());
    }
}
