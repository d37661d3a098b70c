//! Counts of what the sessions of a worker hold, and the invariants that are too dear to check in every turn.

use crate::base::slots::Key;
use crate::session::Direction;
use crate::stats::{FdKind, WorkerStats};
use crate::sys::Kernel;
use crate::worker::relay::uncounted::Counting;
use crate::worker::relay::{Relay, Slot};

/// Descriptors of a pipe.
const PIPE_ENDS: u64 = 2;

/// Totals over the sessions between two turns.
#[derive(Default)]
pub(in crate::worker) struct Held {
    pub(in crate::worker) sessions: usize,
    /// Sessions with a client that has yet to send something.
    pub(in crate::worker) opening: usize,
    pub(in crate::worker) leases: usize,
    pub(in crate::worker) backends: usize,
    /// Open pipes, lent or not.
    pub(in crate::worker) pipes: usize,
    pub(in crate::worker) timers: usize,
    /// Bytes taken and not yet written, by [`Direction`].
    pub(in crate::worker) bytes: [u64; 2],
    /// Bytes written and not counted yet, by [`Direction`].
    pub(in crate::worker) uncounted: [u64; 2],
    /// Bytes of headers that are not written yet.
    pub(in crate::worker) of_headers: u64,
}

impl<K: Kernel> Relay<K> {
    /// Reports what the sessions hold.
    pub(in crate::worker) fn set_gauges(&self, stats: &WorkerStats) {
        let pipes = &self.buffers.pipes;
        stats.fds[FdKind::Client.index()].set(self.sessions.len() as u64);
        stats.fds[FdKind::Backend.index()].set(self.dialed);
        stats.fds[FdKind::Pipe.index()].set(PIPE_ENDS * pipes.open() as u64);
        // In this order: a reader never sees more closed than opened.
        stats.pipes_opened.set(pipes.opened());
        stats.pipes_closed.set(pipes.opened() - pipes.open() as u64);
        stats.pipes_pooled.set(pipes.free() as u64);
        stats.buffers_parked.set(self.buffers.buffers.parked() as u64);
    }

    /// Counts what the sessions hold. Panics when an invariant of a turn's end does not hold: a session that could do
    /// something and is not queued would wait for ever, because epoll reports no edge twice.
    pub(in crate::worker) fn audit(&self) -> Held {
        let mut all = Held { sessions: self.sessions.len(), ..Held::default() };
        let (mut parked, mut piped) = (0, 0);
        let (mut queued, mut listed) = (0, 0);
        for key in self.sessions.keys() {
            let slot = self.sessions.get(key).expect("it is among the keys");
            self.audit_session(key, slot);
            parked += slot.conduits.iter().filter(|conduit| conduit.is_parked()).count();
            piped += slot.conduits.iter().filter(|conduit| conduit.is_piped()).count();
            queued += usize::from(slot.queued);
            all.opening += usize::from(slot.session.is_opening());
            listed += usize::from(slot.counting == Counting::Listed);
            for direction in Direction::BOTH {
                all.bytes[direction as usize] += slot.session.unpassed(direction);
                all.uncounted[direction as usize] += slot.session.uncounted(direction);
            }
            all.of_headers += slot.unwritten_header() as u64;
            all.leases += usize::from(slot.lease.is_some());
            all.backends += usize::from(slot.backend.is_some());
        }
        let in_queue = self.ready_queue.iter().filter(|&&key| self.sessions.get(key).is_some()).count();
        assert_eq!(queued, in_queue, "each queued session is in the ready queue once");
        assert_eq!(listed, self.uncounted.len_of(&self.sessions), "each listed session is on the list once");
        let (buffers, pipes) = (&self.buffers.buffers, &self.buffers.pipes);
        assert_eq!(parked, buffers.parked(), "each parked leftover belongs to one conduit");
        assert_eq!(piped, pipes.lent(), "each pipe that is lent belongs to one conduit");
        assert_eq!(all.backends as u64, self.dialed, "each connection to a backend is counted");
        all.pipes = pipes.open();
        all.timers = all.sessions + usize::from(self.waiting.has_timer());
        all.timers += usize::from(self.uncounted.has_timer()) + usize::from(self.sweep.has_timer());
        all
    }

    fn audit_session(&self, key: Key, slot: &Slot<K>) {
        let Slot { session, backend, lease, conduits, timer, queued, .. } = slot;
        assert!(session.end().is_none(), "{key:?}: over, and still there");
        assert!(*queued || session.next_op().is_none(), "{key:?} could do {:?}", session.next_op());
        let (_, armed) = timer.unwrap_or_else(|| panic!("{key:?}: no timer"));
        assert!(armed <= session.deadline(), "{key:?}: its timer fires too late");
        let waits = slot.counting == Counting::Lasting && session.has_uncounted();
        assert!(!waits, "{key:?}: a long session is on the list of those whose bytes are counted");
        let waits = self.waiting.contains(key) || session.is_opening();
        assert_eq!(backend.is_some(), !waits, "{key:?}: dialed, or waiting to be");
        assert_eq!(lease.is_some(), !waits, "{key:?}: a lease while it has a backend");
        for direction in Direction::BOTH {
            let (held, wanted) = (conduits[direction as usize].len(), session.held(direction));
            // Bytes that the machine has given up stay in place until the session is closed.
            assert!(held == wanted || wanted == 0, "{key:?}: {held} bytes held {direction:?}, not {wanted}");
        }
    }
}
