//! Counts what a worker holds, and checks the invariants that are too expensive for every turn. Changes nothing; for
//! tests and simulations, between two turns.

use std::time::Duration;

use crate::stats::Gauge;
use crate::sys::Kernel;
use crate::worker::Worker;

/// The resources of a worker between two turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Sessions in the slab, whether dialing, relaying or waiting.
    pub sessions: usize,
    /// Those with a client that has yet to send what its listener awaits.
    pub opening: usize,
    /// Leases that sessions hold; at most one each.
    pub leases: usize,
    /// Connections of sessions and of checks.
    pub sockets: usize,
    /// Checks that are due and wait for a place.
    pub waiting_checks: usize,
    /// Checks in flight of backends with a slow last check.
    pub slow_checks: usize,
    /// Listening sockets that this worker accepts from.
    pub listeners: usize,
    /// Listeners whose accepting pauses at a limit.
    pub paused_listeners: usize,
    /// Open pipes, lent or not.
    pub pipes: usize,
    /// Timers armed in the wheel.
    pub timers: usize,
    /// True while due timers are held back: behind events that arrived while the process was stopped, or until the next
    /// turn.
    pub holds_timers_back: bool,
    /// Bytes that were taken and not given, by [`Direction`](crate::session::Direction).
    pub held: [u64; 2],
    /// Bytes that were given and are not counted yet, by [`Direction`](crate::session::Direction).
    pub uncounted: [u64; 2],
    /// Bytes of headers to backends that are not written yet.
    pub of_headers: u64,
}

impl<K: Kernel> Worker<K> {
    /// Returns what the worker holds. Panics when an invariant of a turn's end does not hold: a session with work that
    /// is not queued would wait for ever, because no edge is reported twice.
    pub fn audit(&self) -> Audit {
        let relay = self.relay.audit();
        let mut audit = Audit {
            sessions: relay.sessions,
            opening: relay.opening,
            leases: relay.leases,
            pipes: relay.pipes,
            held: relay.bytes,
            uncounted: relay.uncounted,
            of_headers: relay.of_headers,
            listeners: self.acceptor.listeners().len(),
            paused_listeners: self.acceptor.listeners().paused(),
            holds_timers_back: self.core.gap.is_open(),
            ..Audit::default()
        };
        let counted = self.core.dispatcher.sessions();
        assert!(counted >= audit.sessions, "{counted} sessions counted: the others would give it too many");

        self.acceptor.listeners().audit();
        let (checks, probe_timers) = self.probes.held();
        let (exchanges, agent_timers) = self.agents.held();
        let attempts = checks + exchanges;
        [audit.waiting_checks, audit.slow_checks] = self.probes.audit_places();
        let (leaves_timers, leaves_checks) = self.core.turn.leaves();
        let may_start = self.probes.may_start() || self.agents.may_start();
        assert!(leaves_checks || !may_start, "places are free, and checks wait");
        audit.sockets = relay.sessions + relay.backends + attempts;
        audit.timers = relay.timers + probe_timers + agent_timers + self.acceptor.listeners().timers();
        assert_eq!(audit.timers, self.core.wheel.len(), "every timer has an owner");
        let is_due = self.core.wheel.next_timeout(self.core.now) == Some(Duration::ZERO);
        audit.holds_timers_back |= is_due && leaves_timers;
        assert!(!is_due || audit.holds_timers_back, "a timer is due and has not fired");
        audit
    }

    /// Panics unless the gauges match the state of the worker. Must be called right after a turn.
    pub fn audit_gauges(&self) {
        let (audit, (checks, _), (exchanges, _)) = (self.audit(), self.probes.held(), self.agents.held());
        let attempts = checks + exchanges;
        let clients = audit.sessions;
        let backends = audit.sockets - clients - attempts;
        let held = [audit.listeners, clients, backends, attempts, 2 * audit.pipes, 2];
        let gauges = self.core.stats.fds.each_ref().map(Gauge::get);
        assert_eq!(gauges, held.map(|count| count as u64), "descriptors by kind");
        assert_eq!(self.core.stats.timers.get(), audit.timers as u64, "timers");
    }
}
