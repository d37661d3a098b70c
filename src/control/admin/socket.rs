//! The unix socket: where it is, and how its place is taken.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::sys;

/// The name of the socket in the run-time directory.
const NAME: &str = "admin.sock";

/// Where the socket is unless it is configured: in the first run-time directory that there is.
pub fn default_path() -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let of_service = folder("RUNTIME_DIRECTORY");
    let of_user = || folder("XDG_RUNTIME_DIR").map(|folder| folder.join("l4lb"));
    let of_root = || sys::is_root().then(|| PathBuf::from("/run/l4lb"));
    of_service.or_else(of_user).or_else(of_root).map(|folder| folder.join(NAME))
}

/// A socket that nobody is answered on yet. Its file goes with the process, if that ends well; or else is taken over.
pub(super) struct Unix {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Its own, if it was not there before.
    folder: Option<PathBuf>,
}

impl Unix {
    /// A socket at `path`, for this user only. One that a process which has ended left there is taken over.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let listener = match sys::listen_privately(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                refuse_living(path)?;
                fs::remove_file(path)?;
                sys::listen_privately(path)?
            }
            result => result?,
        };
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.to_owned(), folder: None })
    }

    /// The same, in a folder that is made for it.
    pub(super) fn open_with_folder(path: &Path) -> io::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.exists());
        if let Some(folder) = folder {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        Ok(Self { folder: folder.map(Path::to_owned), ..Self::open(path)? })
    }

    /// What was made for it.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.folder.as_deref().into_iter().chain([self.path()])
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// An error unless what is at `path` is a socket that nobody listens on any more.
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

    #[test]
    fn the_socket_is_for_this_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub").join(NAME);
        let unix = Unix::open_with_folder(&path).unwrap();
        assert_eq!(fs::metadata(unix.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_socket_is_taken_over_from_the_dead_and_from_nobody_else() {
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
}
