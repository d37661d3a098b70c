//! The unix socket: its file, and taking over an old one.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::sys;

/// Limits for another process to check whether a socket is in use: tries, and the pause between two.
const LOCK_TRIES: usize = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A socket without clients yet. Its file is removed at the end of the process; after a crash the next one takes it
/// over.
pub(super) struct Unix {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
    /// The folder, if it was created for the socket.
    folder: Option<PathBuf>,
}

impl Unix {
    /// Opens a socket at `path`, for this user only. A file left by a process that has ended is taken over; processes
    /// that start together do that one after the other.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let _turn = lock(path.parent().filter(|folder| !folder.as_os_str().is_empty()))?;
        let listener = match sys::listen_privately(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                refuse_living(path)?;
                fs::remove_file(path)?;
                sys::listen_privately(path)?
            }
            result => result?,
        };
        listener.set_nonblocking(true)?;
        Ok(Self { listener, file: SocketFile::at(path)?, folder: None })
    }

    /// Same as [`Unix::open`], in a folder that is created for it.
    pub(super) fn open_with_folder(path: &Path) -> io::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.exists());
        if let Some(folder) = folder {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        Ok(Self { folder: folder.map(Path::to_owned), ..Self::open(path)? })
    }

    /// Returns the files created for it.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.folder.as_deref().into_iter().chain([self.path()])
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }
}

/// The file of a socket, which the next process may replace by its own.
#[derive(Clone, Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), id: id_of(path)? })
    }

    /// Returns whether it is still there: not removed, and not replaced.
    pub(super) fn is_there(&self) -> io::Result<bool> {
        match id_of(&self.path) {
            Ok(id) => Ok(id == self.id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens it again where it was.
    pub(super) fn open_again(&self, with_folder: bool) -> io::Result<Unix> {
        if with_folder { Unix::open_with_folder(&self.path) } else { Unix::open(&self.path) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, unless another one has replaced it. Fails when it cannot be removed; a missing file is no
    /// error.
    pub(super) fn remove(&self) -> io::Result<()> {
        match id_of(&self.path) {
            Ok(id) if id == self.id => fs::remove_file(&self.path),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn id_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Locks the folder of a socket until the result is dropped. Continues without the lock when another process holds it
/// longer than a start takes: any user with access to the folder could hold it for ever.
fn lock(folder: Option<&Path>) -> io::Result<File> {
    let folder = File::open(folder.unwrap_or_else(|| ".".as_ref()))?;
    for _ in 0..LOCK_TRIES {
        match folder.try_lock() {
            Ok(()) => return Ok(folder),
            Err(TryLockError::WouldBlock) => thread::park_timeout(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(folder)
}

/// Fails unless `path` is a socket on which nothing listens any more.
fn refuse_living(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there, and it is no socket"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sys::none_starts;

    const NAME: &str = "admin.sock";

    #[test]
    fn the_socket_is_for_this_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub").join(NAME);
        let unix = Unix::open_with_folder(&path).unwrap();
        assert_eq!(fs::metadata(unix.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_socket_is_taken_over_only_from_a_process_that_has_ended() {
        let _closed_is_closed = none_starts();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let first = Unix::open(&path).unwrap();
        assert_eq!(Unix::open(&path).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(Unix::open(&path).is_ok());
        let file = folder.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(Unix::open(&file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }

    /// A process that ended late removed the socket of its successor.
    #[test]
    fn the_socket_of_a_successor_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        // While it has its socket, no other file gets its inode.
        let Unix { listener: _listener, file, .. } = Unix::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let successor = Unix::open(&path).unwrap();
        file.remove().unwrap();
        assert!(path.exists());
        successor.file.remove().unwrap();
        assert!(!path.exists());
        successor.file.remove().unwrap();
    }

    /// Both found no listener, and one removed the socket that the other had just opened.
    #[test]
    fn one_of_two_processes_that_start_together_has_the_socket() {
        let _closed_is_closed = none_starts();
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join(NAME);
        for _ in 0..50 {
            drop(Unix::open(path).unwrap());
            let opened = thread::scope(|scope| {
                let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| Unix::open(path))).collect();
                starts.into_iter().map(|start| start.join().unwrap()).collect::<Vec<_>>()
            });
            assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 1);
            assert!(UnixStream::connect(path).is_ok());
        }
    }
}
