//! Monotonic time of this machine (CLOCK_MONOTONIC), which setting the wall clock does not move; and the wall clock,
//! for people.

use std::sync::LazyLock;

use jiff::Timestamp;

use crate::base::time::Instant;

/// Starts when the process first asks for its time.
static PROCESS: LazyLock<Clock> = LazyLock::new(Clock::start);

/// Returns the time of day. Must only be shown, never used for a decision.
#[expect(clippy::disallowed_methods, reason = "the one place that reads time")]
pub fn timestamp() -> Timestamp {
    Timestamp::now()
}

/// Counts from when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

impl Clock {
    /// Returns a clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads time")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Returns the one clock of the process: its times can be compared between threads.
    pub fn of_process() -> Self {
        *PROCESS
    }

    /// Returns the time since its start.
    pub fn now(self) -> Instant {
        Instant::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
