//! How many sessions there may be: over all workers together, and per listener.

use crate::base::atomic::{AtomicUsize, Ordering};
use crate::pool::ListenerId;

/// The limits on sessions and what is left of them. One for all workers.
///
/// There are never more sessions than allowed. A refusal may be wrong for a moment: another worker holds a place
/// while it asks its accept queue, or its second limit, and gives it back. So whoever is refused asks again soon.
#[derive(Debug)]
pub struct Admission {
    all: Gauge,
    listeners: Vec<Gauge>,
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) limit: usize,
    pub(super) of_listener: bool,
}

#[derive(Debug)]
struct Gauge {
    active: AtomicUsize,
    limit: usize,
}

impl Gauge {
    fn new(limit: usize) -> Self {
        Self { active: AtomicUsize::new(0), limit }
    }

    /// Who is refused changes nothing: a count that is too high for a moment would hide a place from others.
    /// Relaxed: the count alone is shared, nothing is published through it.
    fn enter(&self) -> bool {
        let one_more = |active| (active < self.limit).then(|| active + 1);
        self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn leave(&self) {
        let before = self.active.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more left than entered");
    }
}

impl Admission {
    /// Nobody in, at most `sessions_max` over all and `listeners[i]` through listener i.
    pub fn new(sessions_max: usize, listeners: impl IntoIterator<Item = Option<usize>>) -> Self {
        let gauge = |limit: Option<usize>| Gauge::new(limit.unwrap_or(usize::MAX));
        Self { all: Gauge::new(sessions_max), listeners: listeners.into_iter().map(gauge).collect() }
    }

    /// Takes a place for one session, to be given back by [`Admission::leave`].
    pub(super) fn enter(&self, listener: ListenerId) -> Result<(), Full> {
        let of_listener = &self.listeners[listener.0 as usize];
        if !of_listener.enter() {
            return Err(Full { limit: of_listener.limit, of_listener: true });
        }
        if !self.all.enter() {
            of_listener.leave();
            return Err(Full { limit: self.all.limit, of_listener: false });
        }
        Ok(())
    }

    pub(super) fn leave(&self, listener: ListenerId) {
        self.listeners[listener.0 as usize].leave();
        self.all.leave();
    }
}
