//! The summary of a session that has ended.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use crate::session::Side;

/// The reason why a session ended. One word each, the same in logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Both sides ended their streams and every byte was passed on.
    Done,
    /// The client reset its connection.
    ClientReset,
    /// The backend reset its connection.
    BackendReset,
    /// The client's connection died otherwise: keepalive, user timeout, unreachable.
    ClientLost,
    /// The backend's connection died otherwise: keepalive, user timeout, unreachable.
    BackendLost,
    /// The client reset its connection before a backend was connected, and left no bytes to pass on.
    ClientGone,
    /// No backend of the pool was eligible when the client was accepted or retried.
    NoBackend,
    /// The last dial was refused.
    ConnectRefused,
    /// The last dial was not answered in time.
    ConnectTimeout,
    /// The last dial found no way to the backend.
    ConnectUnreachable,
    /// The last dial failed otherwise.
    ConnectFailed,
    /// The last backend that was dialed has refused the TLS that its client was granted.
    TlsRefused,
    /// The dial needed what this machine had run out of: open files, memory or source ports.
    LocalLimit,
    /// No byte in either direction for `idle`.
    IdleTimeout,
    /// No byte for `half_close` after one side had ended.
    HalfCloseTimeout,
    /// Its backend was removed, and the session could not stay there, or not for that long.
    BackendRemoved,
    /// Still open at the end of `drain_timeout`.
    DrainTimeout,
    /// The process was stopped at once.
    Stopped,
    /// An operator cut it by `l4lb ctl kill`.
    Killed,
    /// The client had to begin with a PROXY header, and did not.
    ProxyBad,
    /// The client had not sent its PROXY header, or its hello, in time.
    PrereadTimeout,
    /// The client has sent a hello of TLS that is malformed.
    HelloBad,
    /// The client has named no server, as its listener asks for.
    NoSni,
}

impl CloseReason {
    /// Returns the close reason for an error on one side.
    pub(super) fn lost_by(side: Side, kind: ErrorKind) -> Self {
        let reset =
            matches!(kind, ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe);
        match (side, reset) {
            (Side::Client, true) => Self::ClientReset,
            (Side::Client, false) => Self::ClientLost,
            (Side::Backend, true) => Self::BackendReset,
            (Side::Backend, false) => Self::BackendLost,
        }
    }

    /// All reasons, in the order of [`CloseReason::index`].
    pub const ALL: [Self; 23] = [
        Self::Done,
        Self::ClientReset,
        Self::BackendReset,
        Self::ClientLost,
        Self::BackendLost,
        Self::ClientGone,
        Self::NoBackend,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ConnectUnreachable,
        Self::ConnectFailed,
        Self::TlsRefused,
        Self::LocalLimit,
        Self::IdleTimeout,
        Self::HalfCloseTimeout,
        Self::BackendRemoved,
        Self::DrainTimeout,
        Self::Stopped,
        Self::Killed,
        Self::ProxyBad,
        Self::PrereadTimeout,
        Self::HelloBad,
        Self::NoSni,
    ];

    /// Returns its place in [`CloseReason::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the word for it in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ClientReset => "client_reset",
            Self::BackendReset => "backend_reset",
            Self::ClientLost => "client_lost",
            Self::BackendLost => "backend_lost",
            Self::ClientGone => "client_gone",
            Self::NoBackend => "no_backend",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectUnreachable => "connect_unreachable",
            Self::ConnectFailed => "connect_failed",
            Self::TlsRefused => "tls_refused",
            Self::LocalLimit => "local_limit",
            Self::IdleTimeout => "idle_timeout",
            Self::HalfCloseTimeout => "half_close_timeout",
            Self::BackendRemoved => "backend_removed",
            Self::DrainTimeout => "drain_timeout",
            Self::Stopped => "stopped",
            Self::Killed => "killed",
            Self::ProxyBad => "proxy_bad",
            Self::PrereadTimeout => "preread_timeout",
            Self::HelloBad => "hello_bad",
            Self::NoSni => "no_sni",
        }
    }

    /// Returns whether a client sees it as a failure. An end by a client, a timeout or an operator is none.
    pub const fn is_failure(self) -> bool {
        match self {
            Self::BackendReset
            | Self::BackendLost
            | Self::NoBackend
            | Self::ConnectRefused
            | Self::ConnectTimeout
            | Self::ConnectUnreachable
            | Self::ConnectFailed
            | Self::TlsRefused
            | Self::LocalLimit => true,
            Self::Done
            | Self::ClientReset
            | Self::ClientLost
            | Self::ClientGone
            | Self::IdleTimeout
            | Self::HalfCloseTimeout
            | Self::BackendRemoved
            | Self::DrainTimeout
            | Self::Stopped
            | Self::Killed
            | Self::ProxyBad
            | Self::PrereadTimeout
            | Self::HelloBad
            | Self::NoSni => false,
        }
    }

    /// Returns it in plain words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Done => "both sides ended their streams and every byte was passed on",
            Self::ClientReset => "the client reset its connection",
            Self::BackendReset => "the backend reset its connection",
            Self::ClientLost => "the client's connection died: its machine or the network does not respond",
            Self::BackendLost => "the backend's connection died: its machine or the network does not respond",
            Self::ClientGone => "the client left before a backend was connected",
            Self::NoBackend => "no backend of the pool is eligible",
            Self::ConnectRefused => "the last backend that was dialed refused the connection",
            Self::ConnectTimeout => {
                "the last backend that was dialed did not answer within the connect timeout"
            }
            Self::ConnectUnreachable => "there was no route to the last backend that was dialed",
            Self::ConnectFailed => "the last dial failed for another reason",
            Self::TlsRefused => "the last backend that was dialed refuses TLS",
            Self::LocalLimit => "this machine had no open files, memory or source ports left to dial with",
            Self::IdleTimeout => "no byte moved in either direction for the idle timeout",
            Self::HalfCloseTimeout => "one side had ended, and no byte moved for the half-close timeout",
            Self::BackendRemoved => "its backend was removed, and on_remove of the pool ended the session",
            Self::DrainTimeout => "it was still open at the end of the drain timeout",
            Self::Stopped => "the process was stopped at once",
            Self::Killed => "an operator cut it",
            Self::ProxyBad => "the client did not begin with a valid PROXY header",
            Self::PrereadTimeout => {
                "the client had not sent its PROXY header or its TLS hello within the preread timeout"
            }
            Self::HelloBad => "the client has sent a malformed TLS hello",
            Self::NoSni => "the client has named no server, which its listener asks for",
        }
    }

    /// Returns the cause in one letter: the first of an [`EndCode`].
    const fn letter(self) -> char {
        match self {
            Self::Done => '-',
            Self::ClientReset
            | Self::ClientLost
            | Self::ClientGone
            | Self::ProxyBad
            | Self::HelloBad
            | Self::NoSni => 'C',
            Self::BackendReset
            | Self::BackendLost
            | Self::ConnectRefused
            | Self::ConnectUnreachable
            | Self::ConnectFailed
            | Self::TlsRefused => 'B',
            Self::ConnectTimeout | Self::IdleTimeout | Self::HalfCloseTimeout | Self::PrereadTimeout => 'T',
            Self::NoBackend => 'N',
            Self::LocalLimit => 'R',
            Self::DrainTimeout | Self::Stopped => 'S',
            Self::Killed | Self::BackendRemoved => 'K',
        }
    }
}

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseMode {
    /// With close(2): its stream has ended in both directions.
    Close,
    /// With a reset: it is dead, or its peer would take a part of the stream for the whole.
    Reset,
}

/// How a session ends: why, and how each connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The reason, as the log line of the session names it.
    pub reason: CloseReason,
    /// How the client's connection is closed.
    pub client: CloseMode,
    /// How the backend's connection is closed, if there is one.
    pub backend: CloseMode,
}

/// The figures of a session that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The reason of the end.
    pub reason: CloseReason,
    /// The side that died first, if one did.
    pub reset_by: Option<Side>,
    /// The side that had ended its stream, when the other had not.
    pub half_closed_by: Option<Side>,
    /// Bytes written to the backend.
    pub to_backend: u64,
    /// Bytes written to the client.
    pub to_client: u64,
    /// Bytes taken from one side that the other could not accept any more, by [`Direction`](crate::session::Direction).
    pub discarded: [u64; 2],
    /// From accept, or from what the client had to send first, to the connected backend, failed dials included; `None`
    /// when none connected.
    pub connect_time: Option<Duration>,
    /// From accept to the end.
    pub duration: Duration,
    /// Number of dials after the first.
    pub retries: u32,
    /// The stage in which it ended.
    pub stage: Stage,
}

impl Summary {
    /// Returns the end code: two letters.
    pub fn code(&self) -> EndCode {
        EndCode { by: self.reason.letter(), stage: self.stage }
    }
}

/// The stage of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The first bytes of the client are awaited.
    Preread,
    /// No backend is connected yet.
    Dialing,
    /// Both sides may still send.
    Open,
    /// One side has ended its stream, and the other may still send.
    HalfClosed,
    /// Both sides have ended; the remaining bytes are passed on.
    Ending,
}

impl Stage {
    /// Returns the word for it in logs and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preread => "preread",
            Self::Dialing => "dialing",
            Self::Open => "open",
            Self::HalfClosed => "half_closed",
            Self::Ending => "ending",
        }
    }

    /// Returns the second letter of an [`EndCode`].
    const fn letter(self) -> char {
        match self {
            Self::Preread => 'P',
            Self::Dialing => 'C',
            Self::Open => 'D',
            Self::HalfClosed => 'H',
            Self::Ending => 'L',
        }
    }
}

/// How a session ended, in two letters: the cause, and the stage at that time.
///
/// | first | ended by | second | while |
/// |---|---|---|---|
/// | `-` | both sides, in the end | `P` | the first bytes of the client were awaited |
/// | `C` | the client | `C` | a backend was being connected |
/// | `B` | the backend | `D` | both sides could send |
/// | `T` | a timeout | `H` | one side had ended, the other could send |
/// | `N` | no eligible backend | `L` | the last bytes were passed on |
/// | `R` | a resource that this machine had run out of | | |
/// | `S` | the end of the process, or of a drain | | |
/// | `K` | an operator | | |
///
/// So `-L` is a session that is done, `TH` one that timed out after one side had ended, and `BC` one refused by its
/// backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndCode {
    by: char,
    stage: Stage,
}

impl EndCode {
    /// Returns the stage of its second letter.
    pub fn stage(self) -> Stage {
        self.stage
    }
}

impl fmt::Display for EndCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.by, self.stage.letter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_at_its_index() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index, "{}", reason.as_str());
        }
    }

    #[test]
    fn every_reason_is_in_the_table_of_the_manual() {
        let page = include_str!("../manual/observability.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        for reason in CloseReason::ALL {
            let word = format!("`{}`", reason.as_str());
            let is_named = |row: &&str| row.split('|').nth(1).is_some_and(|cell| cell.contains(&word));
            assert!(rows.iter().any(is_named), "{word}");
        }
    }

    #[test]
    fn an_end_is_two_letters() {
        let code = |reason: CloseReason, stage: Stage| EndCode { by: reason.letter(), stage };
        for (reason, stage, expected) in [
            (CloseReason::Done, Stage::Ending, "-L"),
            (CloseReason::ProxyBad, Stage::Preread, "CP"),
            (CloseReason::ConnectRefused, Stage::Dialing, "BC"),
            (CloseReason::HalfCloseTimeout, Stage::HalfClosed, "TH"),
            (CloseReason::Killed, Stage::Open, "KD"),
        ] {
            assert_eq!(code(reason, stage).to_string(), expected);
        }
    }
}
