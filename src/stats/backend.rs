//! Counters of one backend, over all workers.

use super::shards::Shards;
use super::{DialFailure, Gauge, Tally};

/// Counters of one backend. Touched when a session opens and closes, at the periods of `worker/byte_accounting.rs`, and by
/// checks.
#[derive(Debug)]
pub struct BackendStats {
    /// 128 bytes for each worker, of at most 16: 2 KiB. 10,000 backends of two workers have 2.5 MB of them.
    sessions: Shards<BackendCounts>,
    /// Health checks that succeeded.
    pub checks_passed: Tally,
    /// Health checks that failed.
    pub checks_failed: Tally,
    /// Changes of what its checks say of its health.
    pub transitions: Tally,
    /// How long the last check took, in nanoseconds; 0 before the first.
    pub last_check_nanos: Gauge,
    /// When its health changed last, as [`Instant`](crate::base::time::Instant) has it; 0 if it never did.
    pub last_transition_nanos: Gauge,
}

/// What one worker counts of the sessions on a backend.
#[derive(Debug, Default)]
pub struct BackendCounts {
    /// Leases that were given.
    pub leases: Tally,
    /// Dials of sessions that connected.
    pub connected: Tally,
    /// Dials of sessions that failed, by [`DialFailure::index`].
    pub dial_failures: [Tally; DialFailure::ALL.len()],
    /// Sessions that were dialed elsewhere because the dial to this backend had failed.
    pub retried_away: Tally,
    /// Bytes given to it and given to its clients, by [`Direction`](crate::session::Direction).
    pub given: [Tally; 2],
}

impl BackendStats {
    /// Nothing counted yet, by so many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            sessions: Shards::new(workers),
            checks_passed: Tally::default(),
            checks_failed: Tally::default(),
            transitions: Tally::default(),
            last_check_nanos: Gauge::default(),
            last_transition_nanos: Gauge::default(),
        }
    }

    /// What a worker counts.
    pub fn of(&self, worker: usize) -> &BackendCounts {
        self.sessions.of(worker)
    }

    /// Leases that all workers have given.
    pub fn leases(&self) -> u64 {
        self.sessions.sum(|counts| counts.leases.get())
    }

    /// Dials of sessions that connected.
    pub fn connected(&self) -> u64 {
        self.sessions.sum(|counts| counts.connected.get())
    }

    /// Dials of sessions that failed, by [`DialFailure::index`].
    pub fn dial_failures(&self) -> [u64; DialFailure::ALL.len()] {
        self.sessions.sums(|counts| counts.dial_failures.each_ref().map(Tally::get))
    }

    /// Sessions that were dialed elsewhere because the dial to this backend had failed.
    pub fn retried_away(&self) -> u64 {
        self.sessions.sum(|counts| counts.retried_away.get())
    }

    /// Bytes given to it and given to its clients, by [`Direction`](crate::session::Direction).
    pub fn given(&self) -> [u64; 2] {
        self.sessions.sums(|counts| counts.given.each_ref().map(Tally::get))
    }
}

impl BackendCounts {
    /// Counts bytes that were given.
    pub fn on_given(&self, bytes: [u64; 2]) {
        self.given.iter().zip(bytes).for_each(|(given, bytes)| given.add(bytes));
    }
}
