//! Where the socket of the admin API may be, and where it is unless the file or a flag names a path.

use std::env;
use std::path::{Path, PathBuf};

use super::error::Invalid;

/// sockaddr_un has room for this many bytes of a path, and needs one of them for its end (unix(7)).
const SOCKET_PATH_LEN_MAX: usize = 107;

/// The name of the socket in the run-time directory.
const SOCKET_NAME: &str = "admin.sock";

/// Explains why [`default_admin_socket`] returns none.
pub const NO_DEFAULT_ADMIN_SOCKET: &str =
    "neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set, and /run/l4lb is root's";

/// Returns the default path of the socket: in the first run-time directory that exists; `None` without one.
pub fn default_admin_socket(is_root: bool) -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let of_service = folder("RUNTIME_DIRECTORY");
    let of_user = || folder("XDG_RUNTIME_DIR").map(|folder| folder.join("l4lb"));
    let of_root = || is_root.then(|| PathBuf::from("/run/l4lb"));
    of_service.or_else(of_user).or_else(of_root).map(|folder| folder.join(SOCKET_NAME))
}

/// Fails when a socket cannot be at `path`.
pub(super) fn check_socket(path: &Path) -> Result<(), Invalid> {
    match path.as_os_str().len() {
        0 => Err(Invalid("must not be empty".into())),
        1..=SOCKET_PATH_LEN_MAX => Ok(()),
        len => Err(Invalid(format!("must be at most {SOCKET_PATH_LEN_MAX} bytes long, is {len}"))),
    }
}
