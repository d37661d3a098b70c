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
    /// Bytes taken from the source and not given to the sink; of a refused half those that never will be.
    buffered: u32,
    /// Bytes ever given to the sink.
    pub(super) flushed: u64,
    /// Those of them that [`Half::take_uncounted`] has told.
    counted: u64,
}

impl Half {
    pub(super) const fn new() -> Self {
        Self { state: HalfState::Open, buffered: 0, flushed: 0, counted: 0 }
    }

    pub(super) fn on_filled(&mut self, bytes: usize) {
        self.buffered += u32::try_from(bytes).expect("one read takes less than 4 GiB");
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
        }
    }

    /// Bytes in the conduit that are still to be given to the sink.
    pub(super) fn held(&self) -> u32 {
        if self.state == HalfState::Refused { 0 } else { self.buffered }
    }

    /// Bytes given to the sink that [`Half::take_uncounted`] has not told.
    pub(super) fn uncounted(&self) -> u64 {
        self.flushed - self.counted
    }

    /// Bytes given to the sink since the last call.
    pub(super) fn take_uncounted(&mut self) -> u64 {
        self.flushed - std::mem::replace(&mut self.counted, self.flushed)
    }

    /// Whether nothing is left to do in this direction.
    pub(super) fn is_over(&self) -> bool {
        match self.state {
            HalfState::Open | HalfState::Ending => false,
            HalfState::Severed => self.held() == 0,
            HalfState::Ended | HalfState::Refused => true,
        }
    }

    /// Bytes that were taken from the source and have not reached the sink. At the end of a session they never will.
    pub(super) fn unpassed(&self) -> u64 {
        u64::from(self.buffered)
    }
}
