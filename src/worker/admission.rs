//! How many sessions there may be: over all workers together, and per listener.

use crate::base::atomic::{AtomicUsize, Ordering};
use crate::pool::{Gauge, Listener};

/// The limit on all sessions and what is left of it. One for all workers; what goes through one listener is counted
/// there.
///
/// There are never more sessions than allowed. A refusal may be wrong for a moment: another worker holds a place
/// while it asks its second limit, and gives it back. So whoever is refused asks again soon.
#[derive(Debug)]
pub struct Admission {
    all: Gauge,
    sessions_max: AtomicUsize,
}

/// Places left from which on nobody takes one for a client who may not be there: while it is asked whether there is one,
/// another worker would find no place, and say that clients wait for one.
const SCARCE: usize = 64;

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) limit: usize,
    pub(super) of_listener: bool,
}

impl Admission {
    /// Nobody in, at most `sessions_max` over all listeners.
    pub fn new(sessions_max: usize) -> Self {
        Self { all: Gauge::default(), sessions_max: AtomicUsize::new(sessions_max) }
    }

    /// Another limit for all who come from now on; who is in stays, also above it.
    pub fn limit(&self, sessions_max: usize) {
        self.sessions_max.store(sessions_max, Ordering::Relaxed);
    }

    /// Takes a place for one session, to be given back by [`Admission::leave`].
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

    /// Whether a place is to be taken only for a client who is there.
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
