//! Reasons of failures and pauses, and kinds of descriptors: one word each, the same in logs and metrics.

use crate::session::CloseReason;

/// The reason why a dial failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// The backend's machine refused the connection.
    Refused,
    /// No answer came in time.
    Timeout,
    /// There was no route to it.
    Unreachable,
    /// It has refused the TLS that the client was granted.
    TlsRefused,
    /// This machine had run out of open files, memory or source ports: must never be blamed on the backend.
    LocalLimit,
    /// An error without a kind of its own.
    Other,
}

impl DialFailure {
    /// All reasons, in the order of [`DialFailure::index`].
    pub const ALL: [Self; 6] =
        [Self::Refused, Self::Timeout, Self::Unreachable, Self::TlsRefused, Self::LocalLimit, Self::Other];

    /// Returns its place in [`DialFailure::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::TlsRefused => "tls_refused",
            Self::LocalLimit => "local_limit",
            Self::Other => "other",
        }
    }
}

/// The reason why a client was turned away before it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseReason {
    /// The lists of the listener do not admit its address. It was no session.
    Denied,
    /// It is none of the balancers that the listener reads PROXY headers of. It was no session.
    ProxyUntrusted,
    /// It did not begin with a valid PROXY header.
    ProxyBad,
    /// It had not sent its PROXY header in time.
    PrereadTimeout,
    /// It has sent a malformed hello of TLS.
    HelloBad,
    /// It has named no server.
    NoSni,
    /// Too many others had yet to send what their listeners await. It was no session.
    PrereadLimit,
}

impl RefuseReason {
    /// All reasons, in the order of [`RefuseReason::index`].
    pub const ALL: [Self; 7] = [
        Self::Denied,
        Self::ProxyUntrusted,
        Self::ProxyBad,
        Self::PrereadTimeout,
        Self::HelloBad,
        Self::NoSni,
        Self::PrereadLimit,
    ];

    /// Returns its place in [`RefuseReason::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::ProxyUntrusted => "proxy_untrusted",
            Self::ProxyBad => CloseReason::ProxyBad.as_str(),
            Self::PrereadTimeout => CloseReason::PrereadTimeout.as_str(),
            Self::HelloBad => CloseReason::HelloBad.as_str(),
            Self::NoSni => CloseReason::NoSni.as_str(),
            Self::PrereadLimit => "preread_limit",
        }
    }

    /// Returns the reason of a session that ended so, if it was turned away.
    pub fn of(reason: CloseReason) -> Option<Self> {
        match reason {
            CloseReason::ProxyBad => Some(Self::ProxyBad),
            CloseReason::PrereadTimeout => Some(Self::PrereadTimeout),
            CloseReason::HelloBad => Some(Self::HelloBad),
            CloseReason::NoSni => Some(Self::NoSni),
            CloseReason::Done
            | CloseReason::ClientReset
            | CloseReason::BackendReset
            | CloseReason::ClientLost
            | CloseReason::BackendLost
            | CloseReason::ClientGone
            | CloseReason::NoBackend
            | CloseReason::ConnectRefused
            | CloseReason::ConnectTimeout
            | CloseReason::ConnectUnreachable
            | CloseReason::ConnectFailed
            | CloseReason::TlsRefused
            | CloseReason::LocalLimit
            | CloseReason::IdleTimeout
            | CloseReason::HalfCloseTimeout
            | CloseReason::BackendRemoved
            | CloseReason::DrainTimeout
            | CloseReason::Stopped
            | CloseReason::Killed => None,
        }
    }
}

/// The reason why accepting was paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// The listener has as many sessions as its `max_sessions` allows.
    ListenerLimit,
    /// The process has as many sessions as its `max_sessions` allows.
    ProcessLimit,
    /// accept(2) found that this machine had run out of open files or memory.
    Exhausted,
    /// accept(2) failed in a way that it never should.
    Broken,
    /// A dial was put off: an accepted client would use up the descriptor or memory that it lacks.
    DialPutOff,
}

impl PauseReason {
    /// All reasons, in the order of [`PauseReason::index`].
    pub const ALL: [Self; 5] =
        [Self::ListenerLimit, Self::ProcessLimit, Self::Exhausted, Self::Broken, Self::DialPutOff];

    /// Returns its place in [`PauseReason::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ListenerLimit => "listener_limit",
            Self::ProcessLimit => "process_limit",
            Self::Exhausted => "exhausted",
            Self::Broken => "broken",
            Self::DialPutOff => "dial_put_off",
        }
    }
}

/// The purpose of a worker's descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdKind {
    /// A socket that accepts clients.
    Listener,
    /// The connection of a client.
    Client,
    /// A connection to a backend, or a dial.
    Backend,
    /// The connection of a health check.
    Probe,
    /// One end of a pipe.
    Pipe,
    /// A descriptor to wait with: epoll and its waker.
    Event,
}

impl FdKind {
    /// All kinds, in the order of [`FdKind::index`].
    pub const ALL: [Self; 6] =
        [Self::Listener, Self::Client, Self::Backend, Self::Probe, Self::Pipe, Self::Event];

    /// Returns its place in [`FdKind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Probe => "probe",
            Self::Pipe => "pipe",
            Self::Event => "event",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_listed_at_its_index() {
        assert!(DialFailure::ALL.into_iter().enumerate().all(|(index, cause)| cause.index() == index));
        assert!(PauseReason::ALL.into_iter().enumerate().all(|(index, cause)| cause.index() == index));
        assert!(FdKind::ALL.into_iter().enumerate().all(|(index, kind)| kind.index() == index));
    }
}
