//! Monotonic time of this machine (CLOCK_MONOTONIC), which setting the wall clock does not move; and the wall clock, for
//! what people read.

use std::sync::LazyLock;

use jiff::Timestamp;

use crate::base::time::Instant;

/// When the process first asked for its time.
static PROCESS: LazyLock<Clock> = LazyLock::new(Clock::start);

/// The time of day. Only to be shown: nothing is decided by it.
#[expect(clippy::disallowed_methods, reason = "the one place that reads time")]
pub fn timestamp() -> Timestamp {
    Timestamp::now()
}

/// Counts from when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads time")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// The one clock of the process: what one thread reads of it another can compare with.
    pub fn of_process() -> Self {
        *PROCESS
    }

    /// Time since its start.
    pub fn now(self) -> Instant {
        Instant::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
