//! The state of one of a session's two connections.
//! Readiness must only be cleared by the outcome of a call, because epoll reports each edge once.

use std::io::ErrorKind;

use crate::base::ready::Ready;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Endpoint {
    /// A read may return something.
    pub(super) readable: bool,
    /// A write may take something.
    pub(super) writable: bool,
    /// A short read no longer proves that nothing is left.
    pub(super) closing: bool,
    /// The connection may be dead; no call has confirmed it yet.
    pub(super) suspect: bool,
    /// What it must send first has not come.
    pub(super) is_awaited: bool,
    /// The first error. The kernel reports it once; a read after it looks like a clean end of stream.
    pub(super) error: Option<ErrorKind>,
    /// Bytes that its peer had not acknowledged at the last timeout; `None` when bytes were sent since.
    pub(super) unacked: Option<u32>,
}

impl Endpoint {
    pub(super) fn on_ready(&mut self, ready: Ready) {
        self.readable |= ready.readable;
        self.writable |= ready.writable;
        self.closing |= ready.closing;
        self.suspect |= ready.failing;
    }

    /// Returns whether an end of stream read from here is real.
    ///
    /// EPIPE means that a reset came after the peer's FIN (tcp_reset in CLOSE_WAIT), so the end of stream is real.
    /// After any other error a read returns 0 whether or not all bytes came.
    pub(super) fn eof_is_real(&self) -> bool {
        matches!(self.error, None | Some(ErrorKind::BrokenPipe))
    }
}
