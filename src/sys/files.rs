//! Creates and opens the files of this process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::fcntl::readlinkat;
use nix::libc;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

/// Opens a log for appending, readable by its group; creates it if it does not exist.
///
/// `/dev/stdout` and `/dev/stderr` are those of the start of the process, whatever they are. A symbolic link is
/// followed once, and only when root or the user of the process has made it: another user of the directory could have
/// put it there.
///
/// open(2): O_APPEND keeps lines whole that several processes write; O_NONBLOCK refuses a FIFO without a reader instead
/// of waiting for one, and has no effect on a file.
pub fn open_log(path: &Path) -> io::Result<File> {
    match path.to_str() {
        Some("/dev/stdout") => return io::stdout().as_fd().try_clone_to_owned().map(File::from),
        Some("/dev/stderr") => return io::stderr().as_fd().try_clone_to_owned().map(File::from),
        Some(_) | None => {}
    }
    match append(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => append(&target_of_own_link(path)?),
        result => result,
    }
}

/// Returns the target of a symbolic link made by root or the user of this process. Fails for any other one.
fn target_of_own_link(path: &Path) -> io::Result<PathBuf> {
    // The link itself is opened, so that its owner and its target are those of one link.
    let link = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    let owner = link.metadata()?.uid();
    if owner != 0 && owner != geteuid().as_raw() {
        let what = "it is a symbolic link that neither root nor this user has made";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    let target = readlinkat(&link, "")?;
    Ok(path.parent().unwrap_or_else(|| "".as_ref()).join(target))
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
}

/// Opens a regular file for reading. Fails for anything else: a FIFO without a writer would block for ever.
///
/// open(2): O_NONBLOCK opens a FIFO at once, with or without a writer, and a terminal without a carrier; O_NOCTTY keeps
/// a terminal from becoming ours. Neither has an effect on a file. The check looks at the open file, not at the path
/// again: that may lead elsewhere by then.
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

/// Opens a file that holds a secret for reading, as [`open_regular`] does. Fails when other users have access to it.
pub fn open_private(path: &Path) -> io::Result<File> {
    let file = open_regular(path)?;
    let mode = file.metadata()?.mode();
    if mode & 0o077 != 0 {
        let what = format!("others may use it (mode {:03o}): chmod 600", mode & 0o777);
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(file)
}

/// Listens on a unix socket at `path` that only this user may connect to, from the first moment on: its file gets the
/// mode of the bound socket, less the umask (unix(7)).
pub fn listen_privately(path: &Path) -> io::Result<UnixListener> {
    const QUEUE_MAX: i32 = 128;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(QUEUE_MAX)?;
    Ok(OwnedFd::from(socket).into())
}

/// Returns whether a log ends within a line; true when that cannot be read: an extra empty line is harmless, while half
/// a line spoils the next one.
pub fn ends_within_line(log: &File) -> bool {
    last_byte(log).map_or(true, |last| last.is_some_and(|last| last != b'\n'))
}

/// Returns `None` when the file is empty or cannot be read.
fn last_byte(log: &File) -> io::Result<Option<u8>> {
    let metadata = log.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(None);
    }
    // It is open for appending only. proc(5): this path is the very same file, also when it is renamed now.
    let again = File::open(format!("/proc/self/fd/{}", log.as_raw_fd()))?;
    let mut last = [0];
    again.read_exact_at(&mut last, metadata.len() - 1)?;
    Ok(Some(last[0]))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use nix::unistd::{Uid, mkfifo};

    use super::*;

    #[test]
    fn a_log_may_be_a_link_that_its_operator_made_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let [log, link, chain] = ["log", "link", "chain"].map(|name| folder.path().join(name));
        symlink("log", &link).unwrap();
        writeln!(open_log(&link).unwrap(), "a line").unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "a line\n");
        symlink("link", &chain).unwrap();
        assert!(open_log(&chain).is_err(), "one link is followed, not two");
        if geteuid().is_root() {
            let stranger = Uid::from_raw(4_242).as_raw();
            std::os::unix::fs::lchown(&link, Some(stranger), None).unwrap();
            let error = open_log(&link).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        }
        assert!(open_log("/dev/stdout".as_ref()).is_ok());
    }

    /// Opening a FIFO used to wait for a writer that never came.
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
