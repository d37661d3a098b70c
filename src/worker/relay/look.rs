//! A look at the first bytes of a client, which stay where they are, in the kernel, until what they begin with is whole.

use std::io;

use crate::preread::Progress;
use crate::session::Outcome;
use crate::sys::Kernel;

/// Where the bytes of a client are looked at, and when.
pub(super) struct Look<'a, S> {
    pub(super) socket: &'a S,
    /// It may have ended its stream.
    pub(super) may_end: bool,
    /// The error that has ended it, if that was taken.
    pub(super) died_of: Option<io::ErrorKind>,
    /// This is the last look.
    pub(super) is_late: bool,
}

impl<S> Look<'_, S> {
    /// Returns what `parse` makes of the bytes that have come.
    pub(super) fn parse<K: Kernel<Socket = S>, T, R>(
        &self,
        kernel: &mut K,
        room: &mut [u8],
        parse: impl FnOnce(&[u8]) -> Progress<T, R>,
    ) -> Result<Progress<T, R>, Outcome> {
        // Asked before the peek, which then returns all that ever comes.
        let has_ended = self.may_end && kernel.has_ended(self.socket);
        let there = match kernel.peek(self.socket, room) {
            // It may have reset behind its end.
            Ok(0) => return Err(self.end(kernel)),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Outcome::WouldBlock),
            Err(error) => return Err(Outcome::Failed(error.kind())),
        };
        match parse(&room[..there]) {
            Progress::More(_) if has_ended => Err(self.end(kernel)),
            Progress::More(_) => Err(Outcome::WouldBlock),
            progress @ (Progress::Done(..) | Progress::Refused(_)) => Ok(progress),
        }
    }

    /// Returns how the stream has ended: a reset is no end of it.
    fn end<K: Kernel<Socket = S>>(&self, kernel: &mut K) -> Outcome {
        let error = || kernel.take_error(self.socket).map(|error| error.kind());
        self.died_of.or_else(error).map_or(Outcome::Eof, Outcome::Failed)
    }
}

/// Reads bytes that a peek has returned.
pub(super) fn take<K: Kernel>(kernel: &mut K, socket: &K::Socket, mut room: &mut [u8]) -> io::Result<()> {
    while !room.is_empty() {
        match kernel.read(socket, room)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => room = &mut room[bytes..],
        }
    }
    Ok(())
}
