//! One direction of a session: source socket -> conduit -> sink socket.
//! Never touches a socket or bytes; it counts them.

/// The remaining work of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HalfState {
    /// Bytes may still come from the source.
    Open,
    /// The source has ended its stream; the FIN must follow the last byte.
    Ending,
    /// The FIN has been sent.
    Ended,
    /// The source was reset; the sink must be reset behind the last byte.
    Severed,
    /// The sink accepts nothing any more; the source must be reset.
    Refused,
}

/// One direction of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Half {
    pub(super) state: HalfState,
    /// The header has just been put in front, and no write has been tried: the first bytes of the source may join it.
    is_joinable: bool,
    /// Bytes of a header that the sink gets first. They come from no source, and count nowhere else.
    prefix: u16,
    /// Bytes taken from the source and not yet written to the sink; in a refused half they never will be.
    buffered: u32,
    /// Bytes ever written to the sink.
    pub(super) flushed: u64,
    /// The part of them that [`Half::take_uncounted`] has returned.
    counted: u64,
}

impl Half {
    pub(super) const fn new() -> Self {
        Self { state: HalfState::Open, is_joinable: false, prefix: 0, buffered: 0, flushed: 0, counted: 0 }
    }

    /// A header was put in front of the first byte.
    pub(super) fn put_in_front(&mut self, bytes: u16) {
        debug_assert!(self.state == HalfState::Open && self.buffered == 0 && self.flushed == 0);
        (self.prefix, self.is_joinable) = (bytes, bytes > 0);
    }

    /// Returns whether the header waits alone in the conduit, and bytes of the source may be put behind it.
    pub(super) fn is_joinable(&self) -> bool {
        self.is_joinable && self.buffered == 0 && self.state == HalfState::Open
    }

    /// A write has been tried: from now on the conduit has to be emptied first.
    pub(super) fn on_written(&mut self) {
        self.is_joinable = false;
    }

    pub(super) fn on_filled(&mut self, bytes: usize) {
        self.buffered += u32::try_from(bytes).expect("one read takes less than 4 GiB");
    }

    pub(super) fn on_flushed(&mut self, bytes: usize) {
        let of_prefix = u16::try_from(bytes).map_or(self.prefix, |bytes| bytes.min(self.prefix));
        self.prefix -= of_prefix;
        let bytes = bytes - usize::from(of_prefix);
        let rest = u32::try_from(bytes).ok().and_then(|bytes| self.buffered.checked_sub(bytes));
        self.buffered = rest.expect("at most the held bytes are written");
        self.flushed += bytes as u64;
    }

    /// Gives up the bytes in the conduit.
    pub(super) fn refuse(&mut self) {
        if self.state != HalfState::Ended {
            self.state = HalfState::Refused;
        }
    }

    /// Returns the bytes in the conduit that must still be written to the sink, the header among them.
    pub(super) fn held(&self) -> u32 {
        if self.state == HalfState::Refused { 0 } else { u32::from(self.prefix) + self.buffered }
    }

    /// Returns the bytes of the header that were not written. At the end of a session they never will be.
    pub(super) fn prefix(&self) -> u16 {
        self.prefix
    }

    /// Returns the bytes written to the sink that [`Half::take_uncounted`] has not returned.
    pub(super) fn uncounted(&self) -> u64 {
        self.flushed - self.counted
    }

    /// Returns the bytes written to the sink since the last call.
    pub(super) fn take_uncounted(&mut self) -> u64 {
        self.flushed - std::mem::replace(&mut self.counted, self.flushed)
    }

    /// Returns whether nothing is left to do in this direction.
    pub(super) fn is_over(&self) -> bool {
        match self.state {
            HalfState::Open | HalfState::Ending => false,
            HalfState::Severed => self.held() == 0,
            HalfState::Ended | HalfState::Refused => true,
        }
    }

    /// Returns the bytes taken from the source that have not reached the sink. At the end of a session they are lost.
    pub(super) fn unpassed(&self) -> u64 {
        u64::from(self.buffered)
    }
}
