//! Limits on open sessions: over all workers together, and per listener.

use crate::base::atomic::{AtomicUsize, Ordering};
use crate::pool::{Gauge, Listener};

/// The limit on all sessions and the places left. One for all workers; each listener counts its own sessions.
///
/// There are never more sessions than allowed. A refusal may be wrong for a moment: another worker holds a place while
/// it asks its second limit, and gives it back. So a refused worker must ask again soon.
#[derive(Debug)]
pub struct Admission {
    all: Gauge,
    /// Those of clients that have yet to send what their listeners await.
    opening: Gauge,
    sessions_max: AtomicUsize,
}

/// With so few places left, none must be taken before a client is known to wait: while the queue is checked, another
/// worker would find no place and log that clients wait for one.
const SCARCE: usize = 64;

/// Clients that send nothing could take all places of all listeners. So one place of so many is for them.
const OPENING_SHARE: usize = 4;
/// Of those places, one of so many is for the clients of one listener, so that its silent ones leave room for the
/// clients of another.
const OPENING_SHARE_OF_LISTENER: usize = 2;
/// So many of each listener may wait, whatever the limits are and however many of other listeners wait.
const OPENING_MIN: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) limit: usize,
    pub(super) of_listener: bool,
}

impl Admission {
    /// Returns an admission without sessions, with at most `sessions_max` over all listeners.
    pub fn new(sessions_max: usize) -> Self {
        Self {
            all: Gauge::default(),
            opening: Gauge::default(),
            sessions_max: AtomicUsize::new(sessions_max),
        }
    }

    /// Sets the limit for later sessions; open ones stay, even above it.
    pub fn limit(&self, sessions_max: usize) {
        self.sessions_max.store(sessions_max, Ordering::Relaxed);
    }

    /// Takes a place for one session, which must be given back by [`Admission::leave`]. Fails with the limit that is
    /// reached.
    pub(super) fn enter(&self, listener: &Listener) -> Result<(), Full> {
        let of_listener = listener.sessions_max();
        if !listener.gauge().enter(of_listener) {
            return Err(Full { limit: of_listener, of_listener: true });
        }
        let sessions_max = self.sessions_max.load(Ordering::Relaxed);
        if !self.all.enter(sessions_max) {
            listener.gauge().leave();
            return Err(Full { limit: sessions_max, of_listener: false });
        }
        Ok(())
    }

    /// Takes a place among those of clients that must send something first, which must be given back by
    /// [`Admission::leave_opening`]; returns false when there are too many of this listener or of all.
    pub(super) fn enter_opening(&self, listener: &Listener) -> bool {
        let of_all = self.sessions_max.load(Ordering::Relaxed) / OPENING_SHARE;
        let own = (listener.sessions_max() / OPENING_SHARE).min(of_all / OPENING_SHARE_OF_LISTENER);
        if !listener.opening().enter(own.max(OPENING_MIN)) {
            return false;
        }
        let is_one_of_few = listener.opening().count() <= OPENING_MIN;
        let has_place = self.opening.enter(if is_one_of_few { usize::MAX } else { of_all });
        if !has_place {
            listener.opening().leave();
        }
        has_place
    }

    /// Must be called once a client has sent that, or has ended without.
    pub(super) fn leave_opening(&self, listener: &Listener) {
        listener.opening().leave();
        self.opening.leave();
    }

    /// Returns how many clients have yet to send what their listeners await.
    pub fn opening(&self) -> usize {
        self.opening.count()
    }

    /// Returns whether a place must be taken only for a client known to wait.
    pub(super) fn is_scarce(&self, listener: &Listener) -> bool {
        let few = |taken: usize, limit: usize| taken.saturating_add(SCARCE) >= limit;
        few(listener.gauge().count(), listener.sessions_max())
            || few(self.all.count(), self.sessions_max.load(Ordering::Relaxed))
    }

    pub(super) fn leave(&self, listener: &Listener) {
        listener.gauge().leave();
        self.all.leave();
    }
}
