//! What a check says and what it makes of the answers, apart from the dial and the socket.
//!
//! An exchange has bytes in and bytes out, and no idea of how they travel: `Probe` moves them, and a layer between both
//! may translate them. It must decide by the bytes alone, never by how they were cut into pieces.

use std::fmt::Debug;

use crate::health::cause::{Cause, Place};
use crate::health::expected::Expected;
use crate::tls::Certificate;

/// One conversation with a backend.
pub(super) trait Exchange: Debug + Send {
    /// Must be called once, when the connection is established. Appends the bytes to send to `out`.
    fn start(&mut self, out: &mut Vec<u8>) -> Progress;

    /// Must be called with the next bytes from the backend while the last result was [`Progress::More`]. Appends the
    /// bytes to send to `out`; those of a decided exchange take leave, so that the backend reports no broken
    /// connection.
    fn on_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Progress;

    /// Returns why an exchange that the backend ends here, undecided, is a failure.
    fn on_eof(&self) -> Cause;

    /// Returns the step that waits for an answer, if there are several.
    fn place(&self) -> Option<Place> {
        None
    }

    /// Returns what it waits for, while that is more than the connection.
    fn expected(&self) -> Option<Expected> {
        None
    }

    /// Returns whether its next bytes are expensive to read: with public keys.
    fn is_expensive(&self) -> bool {
        false
    }

    /// Returns the certificate that the backend has shown, once it is verified.
    fn certificate(&self) -> Option<&Certificate> {
        None
    }
}

/// The state of an exchange after some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Undecided: it waits for more bytes.
    More,
    /// The backend answered as expected.
    Passed,
    /// The backend did not answer as expected, for this reason.
    Failed(Cause),
}

impl From<Result<(), Cause>> for Progress {
    fn from(result: Result<(), Cause>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Passed)
    }
}
