//! Counts sessions of one kind against a limit.

use crate::base::atomic::{AtomicUsize, Ordering};

/// Counts sessions against a limit that the caller passes: it may change from one to the next.
#[derive(Debug, Default)]
pub struct Gauge(AtomicUsize);

impl Gauge {
    /// Takes a place, which must be given back by [`Gauge::leave`]; returns false when there are `limit` already. A
    /// refusal changes nothing: a count that is too high for a moment would hide a place from others. Relaxed: only the
    /// count is shared, nothing is published through it.
    pub fn enter(&self, limit: usize) -> bool {
        let one_more = |active| (active < limit).then(|| active + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Releases a place. Must be called once for each place taken.
    pub fn leave(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more left than entered");
    }

    /// Returns the number of places in use.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
