//! One direction of a session: source socket -> conduit -> sink socket.
//! Never touches a socket or bytes; it counts them.

/// What is left to do in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HalfState {
    /// Bytes may still come from the source.
    Open,
    /// The source has ended its stream; the end is passed on behind the last byte.
    Ending,
    /// The end has been passed on.
    Ended,
    /// The source was reset; the sink is to be reset behind the last byte.
    Severed,
    /// The sink takes nothing any more; the source is to be reset.
    Refused,
}

/// One direction of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Half {
    pub(super) state: HalfState,
    /// Bytes in the conduit.
    pub(super) buffered: u32,
    /// Bytes ever taken from the source.
    pub(super) filled: u64,
    /// Bytes ever given to the sink.
    pub(super) flushed: u64,
}

impl Half {
    pub(super) const fn new() -> Self {
        Self { state: HalfState::Open, buffered: 0, filled: 0, flushed: 0 }
    }

    pub(super) fn on_filled(&mut self, bytes: usize) {
        self.buffered += u32::try_from(bytes).expect("one read takes less than 4 GiB");
        self.filled += bytes as u64;
    }

    pub(super) fn on_flushed(&mut self, bytes: usize) {
        let rest = u32::try_from(bytes).ok().and_then(|bytes| self.buffered.checked_sub(bytes));
        self.buffered = rest.expect("no more is written than was held");
        self.flushed += bytes as u64;
    }

    /// Gives up on what the conduit holds.
    pub(super) fn refuse(&mut self) {
        if self.state != HalfState::Ended {
            self.state = HalfState::Refused;
            self.buffered = 0;
        }
    }

    /// Whether nothing is left to do in this direction.
    pub(super) fn is_over(&self) -> bool {
        match self.state {
            HalfState::Open | HalfState::Ending => false,
            HalfState::Severed => self.buffered == 0,
            HalfState::Ended | HalfState::Refused => true,
        }
    }

    /// Bytes that were taken from the source and will never reach the sink.
    pub(super) fn discarded(&self) -> u64 {
        self.filled - self.flushed - u64::from(self.buffered)
    }
}
