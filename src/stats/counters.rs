//! The numbers that everything here is made of.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer, which only grows. Readers may see a value that is a moment old; the last one, once its
/// writer has reported that it stopped.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only for the one thread that writes: a plain load and store, without a locked instruction.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
    }

    /// The value, and with it all that its writer had counted before.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A number with one writer, which goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// What it is from now on. Only for the one thread that writes.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A number that every thread may add to: a locked instruction, for what is counted a few times a session.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Adds `n`; nothing is not added, which spares the cache line to others.
    pub fn add(&self, n: u64) {
        if n > 0 {
            self.0.fetch_add(n, Ordering::Release);
        }
    }

    /// The value, and with it all that its last writer had counted before.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
