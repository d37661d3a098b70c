//! How many sessions there are of some kind, and the place that one more of them takes.

use crate::base::atomic::{AtomicUsize, Ordering};

/// Counts sessions against a limit that whoever enters brings along: it may be another one for the next.
#[derive(Debug, Default)]
pub struct Gauge(AtomicUsize);

impl Gauge {
    /// Takes a place, to be given back by [`Gauge::leave`]; false when there are `limit` already.
    /// Who is refused changes nothing: a count that is too high for a moment would hide a place from others.
    /// Relaxed: the count alone is shared, nothing is published through it.
    pub fn enter(&self, limit: usize) -> bool {
        let one_more = |active| (active < limit).then(|| active + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Gives a place back.
    pub fn leave(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more left than entered");
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
