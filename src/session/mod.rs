//! One session: the pair of a client's and a backend's connection, and what is to be done next for it.
//!
//! No socket, no clock, no randomness and no bytes in here. The machine sees readiness and outcomes and decides;
//! `worker::drive` acts. That is what lets a simulation run through every order of events.

mod deadlines;
mod endpoint;
mod half;
mod machine;
mod phase;
mod summary;
#[cfg(test)]
mod tests;

pub use deadlines::{Expiry, Timeouts};
pub use machine::Session;
pub use summary::{CloseReason, End, EndCode, Farewell, Stage, Summary};

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
    /// Both, to go through.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Backend];

    /// The one across.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Backend,
            Self::Backend => Self::Client,
        }
    }

    /// The direction in which bytes leave this side.
    pub const fn outward(self) -> Direction {
        match self {
            Self::Client => Direction::ToBackend,
            Self::Backend => Direction::ToClient,
        }
    }

    /// The direction in which bytes come to this side.
    pub const fn inward(self) -> Direction {
        self.other().outward()
    }

    /// The word for it in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
        }
    }
}

/// One of the two ways that bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What the client sends.
    ToBackend,
    /// What the backend sends.
    ToClient,
}

impl Direction {
    /// Both, to go through.
    pub const BOTH: [Self; 2] = [Self::ToBackend, Self::ToClient];

    /// The other way.
    pub const fn reverse(self) -> Self {
        match self {
            Self::ToBackend => Self::ToClient,
            Self::ToClient => Self::ToBackend,
        }
    }

    /// Where the bytes come from.
    pub const fn source(self) -> Side {
        match self {
            Self::ToBackend => Side::Client,
            Self::ToClient => Side::Backend,
        }
    }

    /// Where the bytes go to.
    pub const fn sink(self) -> Side {
        self.source().other()
    }
}

/// The next thing to do for a session: one call of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read from the source into the empty conduit. The sink was writable last: bytes that could not go on
    /// wait in the kernel, where the window of the sender knows about them.
    Fill(Direction),
    /// Write what the conduit holds to the sink.
    Flush(Direction),
    /// Pass an end of stream on.
    ShutdownWrite(Side),
    /// Ask a suspect connection for its error, where no read or write would meet it.
    TakeError(Side),
    /// Ask whether bytes of this side, which has died, still wait to be read.
    AskUnread(Side),
    /// Ask how many of the bytes sent to this side its peer has not acknowledged.
    AskUnacked(Side),
    /// Ask when its kernel last took something for the peer of this side.
    AskDelivery(Side),
    /// Ask how long the peer of this side has been silent.
    AskSilence(Side),
}

impl Op {
    /// The side whose socket the call is made on.
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

/// What came of an [`Op`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This many bytes, at least one; there may be more, or room for more.
    Moved(usize),
    /// Fill only: this many bytes, at least one, and the source has no more now; an event will tell.
    Drained(usize),
    /// Fill only: this many bytes, at least one, and behind them the end of the stream, or the error that cut it off.
    Last(usize, Option<ErrorKind>),
    /// Nothing now; an event will tell.
    WouldBlock,
    /// Fill only: the source has no more to come.
    Eof,
    /// The call did what it was for. AskUnread: nothing waits. AskUnacked, AskSilence: nothing is unacknowledged.
    Done,
    /// AskUnread only: a read would return bytes.
    Unread,
    /// AskUnacked only: this many bytes are unacknowledged, at least one.
    Unacked(u32),
    /// AskDelivery only: nothing has left for the peer for `quiet`.
    Delivery {
        /// Time since bytes last left for it, perhaps not for the first time.
        quiet: Duration,
        /// How many of those sent to it are unacknowledged.
        unacked: u32,
    },
    /// AskSilence only: bytes are unacknowledged, and the peer has not answered for so long though it was asked again
    /// and again; zero while it answers.
    Silent(Duration),
    /// The connection is dead.
    Failed(ErrorKind),
}
