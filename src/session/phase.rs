//! The phases of a session's life: plain data, which the machine changes and the deadlines read.

use std::time::Duration;

use crate::base::time::Instant;
use crate::session::Side;

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting for a backend's connection since then.
    Dialing { since: Instant },
    /// Passing bytes.
    Relaying,
    /// Bytes have been on their way for the user timeout. Each side is asked whether its peer is still there.
    Asking { ask: Side, silence: Option<Duration> },
    /// A timeout has passed. Before it counts, each side is asked when its peer last took bytes, and whether some still
    /// wait for it.
    Expiring { ask: Side, waiting: bool },
    /// Both halves are over, and this side is reset once its peer has taken what was sent to it.
    Settling { side: Side, since: Instant, poll: Poll },
    /// Nothing is left to do.
    Over,
}

/// When a settling side is asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poll {
    Now { wait: Duration },
    At { when: Instant, wait: Duration },
}
