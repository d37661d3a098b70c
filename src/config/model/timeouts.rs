//! The timeouts of the sessions of a listener or of a pool.

use std::time::Duration;

/// How long each phase of a session may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Longest time for one dial, until it is connected.
    pub connect: Duration,
    /// Limit without a byte in either direction.
    pub idle: Duration,
    /// Limit without a byte after one side has ended, unless bytes are in flight to a reader that pauses.
    pub half_close: Duration,
}
