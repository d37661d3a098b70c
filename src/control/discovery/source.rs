//! What every source of backends is.

use std::time::Duration;

use crate::base::time::Instant;
use crate::messages::discovery::SourceReport;

/// Where backends come from by themselves.
pub(in crate::control) trait Source: Send + 'static {
    /// Asks, and returns what has come of it and how long to wait before asking again. It is `now` when the answer is
    /// there.
    ///
    /// Dropped before its end when the source is no longer wanted.
    fn ask(
        &mut self,
        now: impl Fn() -> Instant + Send,
    ) -> impl Future<Output = (SourceReport, Duration)> + Send;
}
