//! The trait that every source of backends implements.

use super::belief::Answer;

/// Where backends come from by themselves.
pub(super) trait Source: Send + 'static {
    /// Asks, and returns what has come of it. What is to be believed of that is not its concern.
    ///
    /// Dropped before its end when the source is no longer wanted.
    fn ask(&mut self) -> impl Future<Output = Answer> + Send;
}
