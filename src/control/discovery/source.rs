//! The trait that every source of backends implements.

use std::future::pending;

use super::belief::Answer;

/// Where backends come from by themselves.
pub(super) trait Source: Send + 'static {
    /// Asks, and returns the answer. Whether to believe it is decided by the caller.
    ///
    /// Dropped before its end when the source is no longer wanted.
    fn ask(&mut self) -> impl Future<Output = Answer> + Send;

    /// Returns once asking again may have another answer. Never, where only asking shows that.
    ///
    /// Dropped before its end when it is asked again anyway.
    fn changed(&mut self) -> impl Future<Output = ()> + Send {
        pending()
    }
}
