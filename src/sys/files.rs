//! Files that this process makes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::libc;
use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

/// Opens a log to append to, and makes it if there is none: for its owner, and for its group to read.
///
/// open(2): O_NOFOLLOW refuses a symbolic link, which another user of the directory could have put there; O_APPEND
/// keeps lines whole that several processes write; O_NONBLOCK refuses a FIFO that nobody reads instead of waiting for
/// a reader, and means nothing to a file.
pub fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
}

/// A unix socket at `path` that only this user may connect to, from the first moment on: unix(7), its file has the mode
/// of the socket that is bound, less the umask.
pub fn listen_privately(path: &Path) -> io::Result<UnixListener> {
    const QUEUE_MAX: i32 = 128;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(QUEUE_MAX)?;
    Ok(OwnedFd::from(socket).into())
}

/// Whether a log ends within a line. It is taken to where that cannot be read: an empty line too many harms nobody, half
/// a line with another one behind it is lost with it.
pub fn ends_within_line(log: &File) -> bool {
    last_byte(log).map_or(true, |last| last.is_some_and(|last| last != b'\n'))
}

/// `None` where nothing is, or nothing can be read again.
fn last_byte(log: &File) -> io::Result<Option<u8>> {
    let metadata = log.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(None);
    }
    // It is open to be appended to. proc(5): this is the very file, also when somebody renames it now.
    let again = File::open(format!("/proc/self/fd/{}", log.as_raw_fd()))?;
    let mut last = [0];
    again.read_exact_at(&mut last, metadata.len() - 1)?;
    Ok(Some(last[0]))
}
