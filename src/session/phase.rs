//! The phases of a session: plain data that the machine changes and the deadlines read.

use std::time::Duration;

use crate::base::time::Instant;
use crate::session::Side;

/// The phase of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The client must send a header until then. Nothing else of it is read. It is looked for a last time when the
    /// deadline is over, as an event may have been lost. Where it had no room for an answer, it is looked for only
    /// once there may be some.
    Opening {
        until: Instant,
        is_late: bool,
        lacks_room: bool,
    },
    /// Nothing is dialed since then: the session was accepted, or its last dial ended.
    Waiting {
        since: Instant,
    },
    /// No backend is connected since then, and one is dialed.
    Dialing {
        since: Instant,
    },
    Relaying,
    /// Bytes were in flight for the user timeout. Each side is asked for a sign of life from its peer.
    Asking {
        ask: Side,
        silence: Option<Duration>,
    },
    /// A timeout has passed. Before it counts, each side is asked when its peer last accepted bytes and whether some
    /// still wait for it.
    Expiring {
        ask: Side,
        waiting: bool,
    },
    /// Both halves are over, and this side is reset once its peer has acknowledged everything sent to it.
    Settling {
        side: Side,
        since: Instant,
        poll: Poll,
    },
    /// Nothing is left to do.
    Over,
}

/// The time until a settling side is asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poll {
    Now { wait: Duration },
    At { when: Instant, wait: Duration },
}
