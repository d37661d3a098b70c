//! The end of a run: there are no more faults, so every session must end well and everything must be given back.

use std::sync::Arc;

use l4lb::config::model::{Check, HealthState, WhenAllDown};
use l4lb::pool::Listener;
use l4lb::session::CloseReason;
use l4lb::stats::{self, BackendStats, Totals};
use nix::libc;

use super::{MOMENT, ROUND, Run, STILL_ROUNDS_MAX, World};
use crate::accounting;
use crate::conn::{Answer, Stage};
use crate::faults::Faults;
use crate::network::Mode;
use crate::oracle::{self, StopOrder};
use crate::peer::Peer;
use crate::scenario::slowest_verdict;

/// Rounds in which something moves before a run counts as endless.
const ROUNDS_MAX: u32 = 100_000;
/// How often time stands still, at least, while the health of the backends recovers.
const LOOKS: u64 = 100;
/// Rounds before the health of the backends counts as stuck: more than there are moments in any verdict.
const HEAL_ROUNDS_MAX: u32 = 5_000_000;

impl World {
    /// Stops all faults from now on.
    pub(super) fn stop_faults(&mut self) {
        self.ready_all();
        let net = &mut *self.net.borrow_mut();
        net.faults = Faults::none();
        net.peers_behave = true;
        net.backends.iter_mut().for_each(|backend| backend.mode = Mode::Serving);
        net.stride = ROUND;
        for &id in &net.live {
            let conn = &mut net.conns[id];
            conn.peer.behaves();
            conn.send_buffer = conn.send_buffer.max(1 << 18);
            if conn.vanished.is_some() {
                conn.die(libc::ETIMEDOUT);
            }
            if conn.stage == Stage::Dialing(Answer::Silence) {
                conn.stage = Stage::Dialing(Answer::Accept);
            }
        }
    }

    /// Lets all peers do all they can, and all workers have a turn; returns false when nothing moved.
    pub(super) fn round(&mut self) -> bool {
        let moved = {
            let net = &mut *self.net.borrow_mut();
            net.bury();
            net.happen_all()
        };
        for worker in 0..self.workers.len() {
            self.turn(worker);
        }
        moved
    }

    pub(super) fn come_to_rest(&mut self) {
        let mut still = 0;
        for _ in 0..ROUNDS_MAX {
            let moved = self.round();
            // A pause of accepting may be longer than what a client is given in the end.
            if self.is_at_rest() && !self.is_paused() {
                return;
            }
            still = if moved { 0 } else { still + 1 };
            assert!(still < STILL_ROUNDS_MAX, "a session hangs: {}", self.leftovers());
        }
        panic!("sessions go on for ever: {}", self.leftovers());
    }

    /// Returns whether a listener pauses.
    fn is_paused(&self) -> bool {
        self.workers.iter().flatten().any(|worker| worker.audit().paused_listeners > 0)
    }

    pub(super) fn is_at_rest(&self) -> bool {
        let sessions: usize = self.workers.iter().flatten().map(|worker| worker.audit().sessions).sum();
        sessions + self.on_their_way() == 0
            && self.net.borrow().listeners.iter().all(|listener| listener.queue.is_empty())
    }

    fn leftovers(&self) -> String {
        let net = self.net.borrow();
        let left = net.live.iter().map(|&id| format!("\n#{id} {:?}", net.conns[id]));
        left.chain(net.listeners.iter().map(|listener| format!("\n{listener:?}"))).collect()
    }

    /// Every backend serves, so in the end every check must find that.
    pub(super) fn heal(&mut self) {
        if self.is_draining {
            return;
        }
        let verdict = u64::try_from(slowest_verdict(&self.config()).as_nanos()).expect("short");
        let deadline = self.net.borrow().now + verdict;
        for round in 0.. {
            if self.net.borrow().now >= deadline {
                break;
            }
            assert!(round < HEAL_ROUNDS_MAX, "time stands still");
            self.net.borrow_mut().happen_all();
            for worker in 0..self.workers.len() {
                // The network is much faster than the timeout of any check.
                let is_quiet = self.net.borrow().sockets() == 0;
                self.net.borrow_mut().stride = if is_quiet { verdict / LOOKS } else { MOMENT };
                self.turn(worker);
            }
        }
        for backend in self.snapshot.backends() {
            let is_checked = self.snapshot.pool(backend.pool).settings.health.check != Check::Off;
            assert!(
                !is_checked || backend.health() == HealthState::Up,
                "{} serves, and is down",
                backend.name
            );
        }
        self.net.borrow().roster.check_agents(&self.snapshot);
        self.refresh();
    }

    /// A client of each listener must be served as if nothing had ever happened.
    pub(super) fn serve_the_last(&mut self) {
        if self.is_draining {
            return;
        }
        // A check that timed out in between would turn the client away.
        self.net.borrow_mut().stride = MOMENT;
        for group in 0..self.groups.len() {
            let listener = self.groups[group].id.0 as usize;
            let id = self.net.borrow().conns.len();
            let peer = Peer::well_behaved(3_000);
            assert!(self.net.borrow_mut().connect(listener, peer), "the queues are empty");
            self.come_to_rest_with(group, id);
        }
    }

    fn come_to_rest_with(&mut self, group: usize, id: usize) {
        let mut served = false;
        for _ in 0..STILL_ROUNDS_MAX {
            self.round();
            served = self.done.contains(&id) && self.is_at_rest();
            if served {
                break;
            }
        }
        let name = &self.groups[group].name;
        let is_it = |listener: &&Arc<Listener>| listener.settings.name == *name;
        let listener = self.snapshot.listeners.iter().find(is_it).expect("it listens");
        // It names the server that the first route is for.
        let pool = self.snapshot.pool(listener.routes.first().copied().unwrap_or(listener.pool));
        let tries_anyway = pool.settings.when_all_down == WhenAllDown::TryAnyway;
        let has_backend =
            pool.has_eligible() || tries_anyway && pool.backends.iter().any(|backend| backend.weight() > 0);
        assert_eq!(served, has_backend, "client #{id}: {:?}", self.net.borrow().conns[id]);
    }

    pub(super) fn drain(&mut self) {
        self.net.borrow_mut().stride = ROUND;
        if !self.is_draining {
            self.post_drain();
        }
        for _ in 0..STILL_ROUNDS_MAX {
            self.round();
        }
        assert!(
            self.workers.iter().all(Option::is_none),
            "a worker with nothing to do goes on after a drain"
        );
    }

    pub(super) fn stop_at_once(&mut self) {
        self.post_stop(StopOrder::Stop);
        for worker in 0..self.workers.len() {
            self.turn(worker);
            assert!(self.workers[worker].is_none(), "a worker goes on after a stop");
        }
    }

    pub(super) fn end(mut self) -> Run {
        for _ in 0..STILL_ROUNDS_MAX {
            let net = &mut *self.net.borrow_mut();
            net.bury();
            if !net.happen_all() {
                break;
            }
        }
        let net = self.net.borrow();
        assert_eq!(net.descriptors(), 0, "everything was given back");
        for target in net.roster.iter() {
            assert_eq!(target.backend.active(), 0, "every lease was released: {target:?}");
        }
        for (stats, given) in self.stats.iter().zip(&net.given) {
            assert_eq!(accounting::counted(stats), *given, "bytes counted, and given");
        }
        for (stats, written) in self.stats.iter().zip(&net.header_bytes) {
            let [_, negotiated] = &stats.negotiated_bytes;
            let counted = stats.header_bytes.get() - stats.header_bytes_lost.get() + negotiated.get();
            assert_eq!(counted, *written, "bytes of headers counted, and written");
        }
        let totals = Totals::of(self.stats.iter().map(Arc::as_ref));
        let passed = totals.to_backend + totals.to_client + totals.discarded;
        assert_eq!(passed, net.taken, "bytes given or discarded, and taken");
        assert_eq!(stats::violations_at_rest(&totals), [""; 0]);
        assert_eq!(self.answers.killed, totals.closed_for(CloseReason::Killed), "sessions said to be cut");
        for listener in &self.snapshot.listeners {
            let counts = listener.stats().read();
            assert_eq!((counts.active(), counts.duration.count()), (0, counts.accepted), "each is over");
        }
        let sum = |count: fn(&BackendStats) -> u64| {
            net.roster.iter().map(|target| count(&target.backend.stats)).sum::<u64>()
        };
        let given = sum(|stats| stats.given().into_iter().sum());
        assert_eq!(given, totals.to_backend + totals.to_client, "bytes counted for backends");
        assert_eq!(sum(BackendStats::connected), totals.connected, "dials that connected");
        assert_eq!(sum(BackendStats::retried_away), totals.retries, "dials that went elsewhere");
        let failures = sum(|stats| stats.dial_failures().into_iter().sum());
        assert_eq!(failures, totals.dial_failures, "dials that failed");
        assert_eq!(sum(|stats| stats.checks_passed.get()), totals.checks_passed, "checks that passed");
        assert_eq!(sum(|stats| stats.checks_failed.get()), totals.checks_failed, "checks that failed");
        assert_eq!(sum(|stats| stats.transitions.get()), totals.transitions, "changes of health");
        for &id in &self.done {
            oracle::judge_peers(&net, id);
        }
        self.coverage.add(&net.coverage);
        for stats in &self.stats {
            self.coverage.hit_if(stats.budget_exhausted.get() > 0, "budget exhausted");
            self.coverage.hit_if(stats.stale_events.get() > 0, "stale event");
            self.coverage.hit_if(stats.lost_wakeups.get() > 0, "lost event found");
            self.coverage.hit_if(stats.checks_deferred.get() > 0, "check deferred");
        }
        Run { hash: net.trace.hash(), coverage: self.coverage, sessions: self.sessions_over, steps: 0 }
    }
}
