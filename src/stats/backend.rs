//! Counters of one backend, over all workers.

use super::{DialFailure, Gauge, Tally};

/// Counters of one backend. Touched when a session opens and closes, at the periods of `worker/count.rs`, and by
/// checks.
#[derive(Debug, Default)]
pub struct BackendStats {
    /// Dials of sessions that connected.
    pub connected: Tally,
    /// Dials of sessions that failed, by [`DialFailure::index`].
    pub dial_failures: [Tally; DialFailure::ALL.len()],
    /// Sessions that were dialed elsewhere because the dial to this backend had failed.
    pub retried_away: Tally,
    /// Bytes given to it and given to its clients, by [`Direction`](crate::session::Direction).
    pub given: [Tally; 2],
    /// Health checks that succeeded.
    pub checks_passed: Tally,
    /// Health checks that failed.
    pub checks_failed: Tally,
    /// Changes of its health.
    pub transitions: Tally,
    /// How long the last check took, in nanoseconds; 0 before the first.
    pub last_check_nanos: Gauge,
    /// When its health changed last, as [`Instant`](crate::base::time::Instant) has it; 0 if it never did.
    pub last_transition_nanos: Gauge,
}

impl BackendStats {
    /// Counts bytes that were given.
    pub fn on_given(&self, bytes: [u64; 2]) {
        self.given.iter().zip(bytes).for_each(|(given, bytes)| given.add(bytes));
    }
}
