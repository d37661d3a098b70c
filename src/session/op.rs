//! What a session asks for, one call of the kernel at a time, and what comes of it.

use std::io::ErrorKind;
use std::time::Duration;

use crate::session::{CloseReason, Direction, Side};

/// The next thing to do for a session: one call of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read from the source into the empty conduit. The sink was writable last: bytes that cannot be passed on wait in
    /// the kernel, where they close the sender's window.
    Fill(Direction),
    /// Write what the conduit holds to the sink.
    Flush(Direction),
    /// Look at the first bytes of the client, and take its header once it is complete. What its route depends on stays
    /// where it is.
    Preread,
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
            Self::Preread => Side::Client,
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
    /// Preread only: the client has no room for an answer now; an event will follow.
    NoRoom,
    /// Preread only: the client must be turned away for what it has sent.
    Refused(CloseReason),
    /// The call succeeded. Preread: nothing more is awaited of the client. AskUnread: nothing waits. AskUnacked, AskSilence: nothing is
    /// unacknowledged.
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
