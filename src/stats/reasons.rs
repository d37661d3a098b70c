//! Why something failed or waits, and what a descriptor is for: one word each, the same in logs and metrics.

/// Why a dial failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// The backend's machine said no.
    Refused,
    /// Nobody answered in time.
    Timeout,
    /// There was no way to it.
    Unreachable,
    /// This machine had run out of open files, memory or source ports: never blamed on the backend.
    LocalLimit,
    /// Anything else.
    Other,
}

impl DialFailure {
    /// All of them, in the order of [`DialFailure::index`].
    pub const ALL: [Self; 5] =
        [Self::Refused, Self::Timeout, Self::Unreachable, Self::LocalLimit, Self::Other];

    /// Its place in [`DialFailure::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::LocalLimit => "local_limit",
            Self::Other => "other",
        }
    }
}

/// Why accepting was paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// `max_sessions` of the listener.
    ListenerLimit,
    /// `max_sessions` of the process.
    ProcessLimit,
    /// accept(2) found that this machine had run out of open files or memory.
    Exhausted,
    /// accept(2) failed as it never should.
    Broken,
    /// A dial was put off: what it lacks an accepted client would take.
    DialPutOff,
}

impl PauseReason {
    /// All of them, in the order of [`PauseReason::index`].
    pub const ALL: [Self; 5] =
        [Self::ListenerLimit, Self::ProcessLimit, Self::Exhausted, Self::Broken, Self::DialPutOff];

    /// Its place in [`PauseReason::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word for it.
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

/// What a descriptor of a worker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdKind {
    /// A listening socket.
    Listener,
    /// The connection of a client.
    Client,
    /// A connection to a backend, or a dial.
    Backend,
    /// A health check.
    Probe,
    /// One end of a pipe.
    Pipe,
    /// What a worker waits with: epoll and its waker.
    Event,
}

impl FdKind {
    /// All of them, in the order of [`FdKind::index`].
    pub const ALL: [Self; 6] =
        [Self::Listener, Self::Client, Self::Backend, Self::Probe, Self::Pipe, Self::Event];

    /// Its place in [`FdKind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word for it.
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
