//! What is told of a session when it is over.

use std::time::Duration;

use crate::session::Side;

/// Why a session ended. One word each, the same in logs and metrics.
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
    /// The client reset its connection before a backend was connected.
    ClientGone,
    /// No backend was eligible.
    NoBackend,
    /// The last dial was refused.
    ConnectRefused,
    /// The last dial was not answered in time.
    ConnectTimeout,
    /// The last dial found no way to the backend.
    ConnectUnreachable,
    /// The last dial failed otherwise.
    ConnectFailed,
    /// The dial needed what this machine had run out of: open files, memory or source ports.
    LocalLimit,
    /// No byte in either direction for `idle`.
    IdleTimeout,
    /// No byte for `half_close` after one side had ended.
    HalfCloseTimeout,
    /// Its backend was removed, and it was not to go on there, or not for so long.
    BackendRemoved,
    /// Still there at the end of `drain_timeout`.
    DrainTimeout,
    /// The process was told to stop at once.
    Stopped,
}

impl CloseReason {
    /// All of them, in the order of [`CloseReason::index`].
    pub const ALL: [Self; 17] = [
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
        Self::LocalLimit,
        Self::IdleTimeout,
        Self::HalfCloseTimeout,
        Self::BackendRemoved,
        Self::DrainTimeout,
        Self::Stopped,
    ];

    /// Its place in [`CloseReason::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word for it in logs and metrics.
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
            Self::LocalLimit => "local_limit",
            Self::IdleTimeout => "idle_timeout",
            Self::HalfCloseTimeout => "half_close_timeout",
            Self::BackendRemoved => "backend_removed",
            Self::DrainTimeout => "drain_timeout",
            Self::Stopped => "stopped",
        }
    }
}

/// How a connection is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Plainly: its stream has ended both ways.
    Close,
    /// By a reset: it is dead, or what its peer would take for the whole stream was not the whole.
    Reset,
}

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: CloseReason,
    /// How the client's connection is left.
    pub client: Farewell,
    /// How the backend's connection is left, if there is one.
    pub backend: Farewell,
}

/// What is told of a session when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Why it ended.
    pub reason: CloseReason,
    /// The side whose connection died first, if one did.
    pub reset_by: Option<Side>,
    /// Bytes given to the backend.
    pub to_backend: u64,
    /// Bytes given to the client.
    pub to_client: u64,
    /// Bytes taken from one side that the other could not take any more, by [`Direction`](crate::session::Direction).
    pub discarded: [u64; 2],
    /// From accept to the connected backend, failed dials included; `None` when none connected.
    pub connect_time: Option<Duration>,
    /// From accept to the end.
    pub duration: Duration,
    /// Dials after the first.
    pub retries: u32,
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
}
