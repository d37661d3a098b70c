//! One session: a client's and a backend's connection, and the next thing to do for them.
//!
//! Contains no socket, no clock, no randomness and no bytes. The machine decides from readiness and outcomes;
//! `worker::relay` acts. So a simulation can run through every order of events.

mod deadlines;
mod endpoint;
mod figures;
mod half;
mod machine;
mod op;
mod phase;
mod summary;
#[cfg(test)]
mod tests;
mod timeouts;

pub use deadlines::Expiry;
pub use machine::Session;
pub use op::{Op, Outcome};
pub use summary::{CloseMode, CloseReason, End, EndCode, Stage, Summary};
pub use timeouts::Timeouts;

/// One of the two connections of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The connection that was accepted.
    Client,
    /// The connection that was dialed.
    Backend,
}

impl Side {
    /// The client first, as arrays indexed by side have it.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Backend];

    /// Returns the side that the bytes of this one are relayed to.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Backend,
            Self::Backend => Self::Client,
        }
    }

    /// Returns the direction in which bytes leave this side.
    pub const fn outward(self) -> Direction {
        match self {
            Self::Client => Direction::ToBackend,
            Self::Backend => Direction::ToClient,
        }
    }

    /// Returns the direction in which bytes arrive at this side.
    pub const fn inward(self) -> Direction {
        self.other().outward()
    }

    /// Returns the word for it in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
        }
    }
}

/// One of the two directions of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Bytes read from the client and written to the backend.
    ToBackend,
    /// Bytes read from the backend and written to the client.
    ToClient,
}

impl Direction {
    /// Towards the backend first, as arrays indexed by direction have it.
    pub const BOTH: [Self; 2] = [Self::ToBackend, Self::ToClient];

    /// Returns the direction whose source is the sink of this one.
    pub const fn reverse(self) -> Self {
        match self {
            Self::ToBackend => Self::ToClient,
            Self::ToClient => Self::ToBackend,
        }
    }

    /// Returns the side that sends the bytes.
    pub const fn source(self) -> Side {
        match self {
            Self::ToBackend => Side::Client,
            Self::ToClient => Side::Backend,
        }
    }

    /// Returns the side that receives the bytes.
    pub const fn sink(self) -> Side {
        self.source().other()
    }
}
