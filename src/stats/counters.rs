//! The kinds of counters.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer that only grows. Readers may see a value that is a moment old; the final one, once its
/// writer has reported that it stopped.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Must only be called by the one thread that writes: a plain load and store, no locked instruction.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
    }

    /// Returns the value; a reader that sees it also sees everything that its writer had counted before.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A number with one writer that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the value. Must only be called by the one thread that writes.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// Returns the last value that the worker has stored.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A number that every thread may add to: a locked instruction, for events that occur a few times per session.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Adds `n`. Zero is not added, which leaves the cache line to others.
    pub fn add(&self, n: u64) {
        if n > 0 {
            self.0.fetch_add(n, Ordering::Release);
        }
    }

    /// Returns the value; a reader that sees it also sees everything that its last writer had counted before.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
