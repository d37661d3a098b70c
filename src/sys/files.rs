//! Files that this process writes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;

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
