//! What a worker holds, counted, and the invariants that are too dear to check in every turn.
//! Reads everything and changes nothing; for tests and simulations, between two turns.

use std::time::Duration;

use crate::base::slots::Key;
use crate::session::Direction;
use crate::stats::Gauge;
use crate::sys::Kernel;
use crate::worker::listen::listening::ListenerSlot;
use crate::worker::relay::byte_accounting::Counting;
use crate::worker::{Slot, Worker};

/// What a worker holds between two turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Sessions that are not over.
    pub sessions: usize,
    /// Leases that they hold.
    pub leases: usize,
    /// Connections of sessions and of checks.
    pub sockets: usize,
    /// Checks that are due and wait for a place.
    pub waiting_checks: usize,
    /// Checks in flight of backends whose last one was slow.
    pub slow_checks: usize,
    /// Listeners that are open.
    pub listeners: usize,
    /// Those of them that accept nothing for a while.
    pub paused_listeners: usize,
    /// Pipes that are open, lent or not.
    pub pipes: usize,
    /// Timers that are armed.
    pub timers: usize,
    /// Whether those that are due wait: until what came in during a stop of the process is known, or for the next turn.
    pub holds_timers_back: bool,
    /// Bytes that were taken and not given, by [`Direction`].
    pub held: [u64; 2],
    /// Bytes that were given and are not counted yet, by [`Direction`].
    pub uncounted: [u64; 2],
}

impl<K: Kernel> Worker<K> {
    /// Counts what the worker holds. Panics when an invariant of a turn's end does not hold: a session that could
    /// do something and is not queued would wait for ever, because no edge is told twice.
    pub fn audit(&self) -> Audit {
        let mut audit = Audit {
            sessions: self.sessions.len(),
            listeners: self.listeners.len(),
            paused_listeners: self.listeners.paused(),
            holds_timers_back: self.gap.is_open(),
            ..Audit::default()
        };
        let (mut parked, mut piped) = (0, 0);
        let (mut queued, mut listed) = (0, 0);
        for key in self.sessions.keys() {
            let slot = self.sessions.get(key).expect("it is among the keys");
            self.audit_session(key, slot);
            parked += slot.conduits.iter().filter(|conduit| conduit.is_parked()).count();
            piped += slot.conduits.iter().filter(|conduit| conduit.is_piped()).count();
            queued += usize::from(slot.queued);
            listed += usize::from(slot.counting == Counting::Listed);
            for direction in Direction::BOTH {
                audit.held[direction as usize] += slot.session.unpassed(direction);
                audit.uncounted[direction as usize] += slot.session.uncounted(direction);
            }
            audit.leases += usize::from(slot.lease.is_some());
            audit.sockets += 1 + usize::from(slot.backend.is_some());
        }
        let in_queue = self.ready_queue.iter().filter(|&&key| self.sessions.get(key).is_some()).count();
        assert_eq!(queued, in_queue, "each queued session is in the ready queue once");
        assert_eq!(listed, self.uncounted.len_of(&self.sessions), "each listed session is on the list once");
        let counted = self.dispatcher.sessions();
        assert!(counted >= audit.sessions, "{counted} sessions counted: the others would give it too many");
        assert_eq!(
            parked,
            self.relay_buffers.buffers.parked(),
            "each parked leftover belongs to one conduit"
        );
        assert_eq!(piped, self.relay_buffers.pipes.lent(), "each pipe that is lent belongs to one conduit");
        audit.pipes = self.relay_buffers.pipes.open();

        self.listeners.audit();
        let (attempts, probe_timers) = self.probes.held();
        [audit.waiting_checks, audit.slow_checks] = self.probes.audit_places();
        let (leaves_timers, leaves_checks) = self.turn.leaves();
        assert!(leaves_checks || !self.probes.may_start(), "places are free, and checks wait");
        let of_listeners: usize = self.listeners.iter().map(ListenerSlot::timers).sum();
        let dialed = audit.sockets - audit.sessions;
        assert_eq!(dialed as u64, self.dialed, "each connection to a backend is counted");
        audit.sockets += attempts;
        audit.timers = audit.sessions + probe_timers + of_listeners;
        audit.timers += usize::from(self.starved.has_timer()) + usize::from(self.uncounted.has_timer());
        audit.timers += usize::from(self.sweep.has_timer()) + usize::from(self.ports.has_timer());
        assert_eq!(audit.timers, self.wheel.len(), "every timer has an owner");
        let is_due = self.wheel.next_timeout(self.now) == Some(Duration::ZERO);
        audit.holds_timers_back |= is_due && leaves_timers;
        assert!(!is_due || audit.holds_timers_back, "a timer is due and has not fired");
        audit
    }

    /// Panics unless what was told at the end of the last turn is what there is. Nothing may have happened since.
    pub fn audit_told(&self) {
        let (audit, (attempts, _)) = (self.audit(), self.probes.held());
        let clients = audit.sessions;
        let backends = audit.sockets - clients - attempts;
        let held = [audit.listeners, clients, backends, attempts, 2 * audit.pipes, 2];
        let told = self.stats.fds.each_ref().map(Gauge::get);
        assert_eq!(told, held.map(|count| count as u64), "descriptors by kind");
        assert_eq!(self.stats.timers.get(), audit.timers as u64, "timers");
    }

    fn audit_session(&self, key: Key, slot: &Slot<K>) {
        let Slot { session, backend, lease, conduits, timer, queued, .. } = slot;
        assert!(session.end().is_none(), "{key:?}: over, and still there");
        assert!(*queued || session.next_op().is_none(), "{key:?} could do {:?}", session.next_op());
        let (_, armed) = timer.unwrap_or_else(|| panic!("{key:?}: no timer"));
        assert!(armed <= session.deadline(), "{key:?}: its timer fires too late");
        let waits = slot.counting == Counting::Lasting && session.has_uncounted();
        assert!(!waits, "{key:?}: it lasts, and nobody will count its bytes before its end");
        let waits = self.starved.contains(key) || self.ports.contains(key);
        assert_eq!(backend.is_some(), !waits, "{key:?}: dialed, or waiting to be");
        assert_eq!(lease.is_some(), !waits, "{key:?}: a lease while it has a backend");
        for direction in Direction::BOTH {
            let (held, wanted) = (conduits[direction as usize].len(), session.held(direction));
            // What the machine has given up on stays where it is until the session is closed.
            assert!(held == wanted || wanted == 0, "{key:?}: {held} bytes held {direction:?}, not {wanted}");
        }
    }
}
