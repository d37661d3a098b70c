//! Counters of one backend, over all workers.

use super::shards::Shards;
use super::{DialFailure, Gauge, Tally};

/// Written when a session opens and closes, at the periods of `worker/relay/byte_accounting.rs`, and by health checks.
#[derive(Debug)]
pub struct BackendStats {
    /// 128 bytes per worker, of at most 16: 2 KiB. 10,000 backends of two workers take 2.5 MB.
    sessions: Shards<BackendCounts>,
    /// Health checks with the expected answer, by any worker.
    pub checks_passed: Tally,
    /// Health checks without the expected answer, by any worker.
    pub checks_failed: Tally,
    /// Changes of its health as seen by its checks.
    pub transitions: Tally,
    /// Lines that its agent has answered with.
    pub agent_answers: Tally,
    /// Exchanges with its agent that have brought no line.
    pub agent_failures: Tally,
    /// Duration of the last check in nanoseconds; 0 before the first.
    pub last_check_nanos: Gauge,
    /// The end of the certificate that its checks were shown, of several the first, in seconds since 1970; 0 without one.
    pub certificate_not_after: Gauge,
    /// When its health last changed, in the nanoseconds of [`Instant`](crate::base::time::Instant); 0 if never.
    pub last_transition_nanos: Gauge,
}

/// One worker's counts of the sessions on a backend.
#[derive(Debug, Default)]
pub struct BackendCounts {
    /// Leases given out since the start, those of failed dials included.
    pub leases: Tally,
    /// Dials of sessions that connected.
    pub connected: Tally,
    /// Dials of sessions that failed, by [`DialFailure::index`].
    pub dial_failures: [Tally; DialFailure::ALL.len()],
    /// Sessions dialed to another backend because the dial to this one had failed.
    pub retried_away: Tally,
    /// Bytes written to it and written to its clients, by [`Direction`](crate::session::Direction).
    pub given: [Tally; 2],
}

impl BackendStats {
    /// Returns counters at zero, for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            sessions: Shards::new(workers),
            checks_passed: Tally::default(),
            checks_failed: Tally::default(),
            transitions: Tally::default(),
            agent_answers: Tally::default(),
            agent_failures: Tally::default(),
            last_check_nanos: Gauge::default(),
            certificate_not_after: Gauge::default(),
            last_transition_nanos: Gauge::default(),
        }
    }

    /// Returns the counts of one worker.
    pub fn of(&self, worker: usize) -> &BackendCounts {
        self.sessions.of(worker)
    }

    /// Returns the leases given by all workers.
    pub fn leases(&self) -> u64 {
        self.sessions.sum(|counts| counts.leases.get())
    }

    /// Returns the dials of sessions that connected.
    pub fn connected(&self) -> u64 {
        self.sessions.sum(|counts| counts.connected.get())
    }

    /// Returns the dials of sessions that failed, by [`DialFailure::index`].
    pub fn dial_failures(&self) -> [u64; DialFailure::ALL.len()] {
        self.sessions.sums(|counts| counts.dial_failures.each_ref().map(Tally::get))
    }

    /// Returns the sessions dialed to another backend because the dial to this one had failed.
    pub fn retried_away(&self) -> u64 {
        self.sessions.sum(|counts| counts.retried_away.get())
    }

    /// Returns the bytes written to it and written to its clients, by [`Direction`](crate::session::Direction).
    pub fn given(&self) -> [u64; 2] {
        self.sessions.sums(|counts| counts.given.each_ref().map(Tally::get))
    }
}

impl BackendCounts {
    /// Counts bytes written.
    pub fn on_given(&self, bytes: [u64; 2]) {
        self.given.iter().zip(bytes).for_each(|(given, bytes)| given.add(bytes));
    }
}
