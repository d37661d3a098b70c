//! A pipe(7) to splice(2) through: bytes go from socket to socket without a copy into this process.
//!
//! A pipe holds *slots*, not bytes: a segment of the network takes one, whether it has a byte in it or a page, so a
//! pipe can be full with 32 bytes in it and can hold more than its nominal size when segments are large.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::libc;
use nix::unistd::pipe2;

/// A pipe of this process. Dropping it closes it, and what it holds is gone.
#[derive(Debug)]
pub struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

/// A pipe that the kernel may make as large as `capacity` bytes, if it lets this user.
pub(super) fn open(capacity: usize) -> io::Result<Pipe> {
    let (out, into) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
    let capacity = libc::c_int::try_from(capacity).unwrap_or(libc::c_int::MAX);
    // pipe(7), pipe-user-pages-soft: EPERM for a user who has many. A smaller pipe moves the same bytes.
    match fcntl(&into, FcntlArg::F_SETPIPE_SZ(capacity)) {
        Ok(_) | Err(Errno::EPERM | Errno::EBUSY) => Ok(Pipe { out, into }),
        Err(error) => Err(error.into()),
    }
}

/// Moves at most `len` bytes from `source` into the pipe.
pub(super) fn fill(source: impl AsFd, pipe: &Pipe, len: usize) -> io::Result<usize> {
    move_bytes(source, &pipe.into, len)
}

/// Moves at most `len` bytes from the pipe to `sink`. Raises SIGPIPE on a dead one, which this process ignores.
pub(super) fn flush(pipe: &Pipe, sink: impl AsFd, len: usize) -> io::Result<usize> {
    move_bytes(&pipe.out, sink, len)
}

fn move_bytes(from: impl AsFd, to: impl AsFd, len: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    Ok(splice(from, None, to, None, len, flags)?)
}
