//! One session: a client's and a backend's connection, and the next thing to do for them.
//!
//! Contains no socket, no clock, no randomness and no bytes. The machine decides from readiness and outcomes;
//! `worker::relay` acts. So a simulation can run through every order of events.

mod deadlines;
mod endpoint;
mod figures;
mod half;
mod machine;
mod phase;
mod summary;
#[cfg(test)]
mod tests;
mod timeouts;

pub use deadlines::Expiry;
pub use machine::Session;
pub use summary::{CloseMode, CloseReason, End, EndCode, Stage, Summary};
pub use timeouts::Timeouts;

use std::io::ErrorKind;
use std::time::Duration;

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

/// The next thing to do for a session: one call of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read from the source into the empty conduit. The sink was writable last: bytes that cannot be passed on wait in
    /// the kernel, where they close the sender's window.
    Fill(Direction),
    /// Write what the conduit holds to the sink.
    Flush(Direction),
    /// Call shutdown(2) for writing: every byte before the FIN has been written.
    ShutdownWrite(Side),
    /// Take the error of a suspect connection where no read or write would meet it.
    TakeError(Side),
    /// Ask whether bytes of this side, which is dead, still wait to be read.
    AskUnread(Side),
    /// Ask how many bytes sent to this side are unacknowledged.
    AskUnacked(Side),
    /// Ask when the peer of this side last accepted bytes.
    AskDelivery(Side),
    /// Ask how long the peer of this side has been silent.
    AskSilence(Side),
}

impl Op {
    /// Returns the side of the socket that the call is made on.
    pub const fn side(self) -> Side {
        match self {
            Self::Fill(direction) => direction.source(),
            Self::Flush(direction) => direction.sink(),
            Self::ShutdownWrite(side)
            | Self::TakeError(side)
            | Self::AskUnread(side)
            | Self::AskUnacked(side)
            | Self::AskDelivery(side)
            | Self::AskSilence(side) => side,
        }
    }
}

/// The outcome of an [`Op`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This many bytes, at least one; there may be more, or room for more.
    Moved(usize),
    /// Fill only: this many bytes, at least one; the source has no more now, and an event will follow.
    Drained(usize),
    /// Fill only: this many bytes, at least one, and behind them the end of the stream, or the error that cut it off.
    Last(usize, Option<ErrorKind>),
    /// Nothing now; an event will follow.
    WouldBlock,
    /// Fill only: the stream has ended.
    Eof,
    /// The call succeeded. AskUnread: nothing waits. AskUnacked, AskSilence: nothing is unacknowledged.
    Done,
    /// AskUnread only: a read would return bytes.
    Unread,
    /// AskUnacked only: this many bytes are unacknowledged, at least one.
    Unacked(u32),
    /// AskDelivery only: nothing was sent to the peer for `quiet`.
    Delivery {
        /// Time since bytes were last sent to it, retransmissions included.
        quiet: Duration,
        /// Bytes sent to it that are unacknowledged.
        unacked: u32,
    },
    /// AskSilence only: bytes are unacknowledged, and the peer has not answered repeated probes for this long; zero
    /// while it answers.
    Silent(Duration),
    /// The connection has died of this error.
    Failed(ErrorKind),
}
