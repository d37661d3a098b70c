//! A pipe(7) to splice(2) through: bytes go from socket to socket without a copy into this process.
//!
//! A pipe holds *slots*, not bytes: a network segment takes one, whether it has one byte or a page. So a pipe can be
//! full with 32 bytes in it, and can hold more than its nominal size when segments are large.

use std::io;
use std::iter;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::libc;
use nix::unistd::{pipe2, read};

/// A pipe of this process. Dropping it closes it and discards the bytes in it.
#[derive(Debug)]
pub struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

/// The requested capacity is divided by this each time the kernel denies it.
const DENIED_STEP: usize = 4;

/// Returns a pipe of `capacity` bytes, or of as many as the kernel grants in steps down to `least`. Fails below that.
///
/// pipe(7): EPERM above pipe-max-size, and for a user whose pipes together have reached pipe-user-pages-soft. The next
/// pipe of such a user has two slots instead of 16, which is worse than none, and cannot grow.
pub(super) fn open(capacity: usize, least: usize) -> io::Result<Pipe> {
    let (out, into) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
    let smaller = |&asked: &usize| (asked > least).then(|| least.max(asked / DENIED_STEP));
    for asked in iter::successors(Some(capacity), smaller) {
        let asked = libc::c_int::try_from(asked).unwrap_or(libc::c_int::MAX);
        match fcntl(&into, FcntlArg::F_SETPIPE_SZ(asked)) {
            Ok(_) => return Ok(Pipe { out, into }),
            Err(Errno::EPERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let what = "its user has too many: raise fs.pipe-user-pages-soft, or grant CAP_SYS_RESOURCE";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
}

/// Moves at most `len` bytes from `source` into the pipe.
pub(super) fn fill(source: impl AsFd, pipe: &Pipe, len: usize) -> io::Result<usize> {
    move_bytes(source, &pipe.into, len)
}

/// Moves at most `len` bytes from the pipe to `sink`. A dead sink raises SIGPIPE, which this process ignores.
pub(super) fn flush(pipe: &Pipe, sink: impl AsFd, len: usize) -> io::Result<usize> {
    move_bytes(&pipe.out, sink, len)
}

/// Reads the bytes out of the pipe: all of them, if there is room (pipe(7)).
pub(super) fn empty(pipe: &Pipe, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(read(&pipe.out, buffer)?)
}

fn move_bytes(from: impl AsFd, to: impl AsFd, len: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    Ok(splice(from, None, to, None, len, flags)?)
}
