//! Files that this process makes, and those that it reads.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
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

/// Opens a file to read, unless it is anything but a file: a FIFO that nobody writes would never give an answer.
///
/// open(2): O_NONBLOCK opens a FIFO at once, with or without a writer, and a terminal without a carrier; O_NOCTTY keeps the
/// latter from becoming ours. Neither means anything to a file. What was opened is looked at, not the path once more: that may
/// lead elsewhere by then.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    if kind.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    let what = if kind.is_fifo() { "a FIFO" } else { "a device" };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file")))
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

#[cfg(test)]
mod tests {
    use nix::unistd::mkfifo;

    use super::*;

    /// The first open of a FIFO waited for a writer that never came.
    #[test]
    fn only_a_regular_file_is_opened_and_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let [fifo, file] = ["fifo", "file"].map(|name| folder.path().join(name));
        mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        std::fs::write(&file, "text").unwrap();
        assert_eq!(io::read_to_string(open_regular(&file).unwrap()).unwrap(), "text");
        for (path, expected) in [
            (fifo.as_path(), "it is a FIFO, not a regular file"),
            ("/dev/null".as_ref(), "it is a device, not a regular file"),
            (folder.path(), "Is a directory (os error 21)"),
            ("/none".as_ref(), "No such file or directory (os error 2)"),
        ] {
            assert_eq!(open_regular(path).unwrap_err().to_string(), expected);
        }
    }
}
