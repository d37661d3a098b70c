//! Monotonic time of this machine (CLOCK_MONOTONIC): setting the wall clock does not move it.

use crate::base::time::Instant;

/// Counts from when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads time")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Time since its start.
    pub fn now(self) -> Instant {
        Instant::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
