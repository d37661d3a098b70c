//! Finds the API from the flags.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::{NO_DEFAULT_ADMIN_SOCKET, default_admin_socket};
use crate::ctl::{Client, Failure, Target};
use crate::sys;

/// The flags that say where the API is.
#[derive(Clone, Debug, Default)]
pub(crate) struct At {
    pub(crate) socket: Option<PathBuf>,
    pub(crate) address: Option<SocketAddr>,
    /// The name of the flag of `address`.
    pub(crate) address_flag: &'static str,
    pub(crate) token_file: Option<PathBuf>,
}

impl At {
    /// Returns a client of that API. Fails when the flags are contradictory or the token cannot be read.
    pub(crate) fn client(self) -> Result<Client, Failure> {
        let target = self.target()?;
        Client::new(target).map_err(|error| Failure::Failed(format!("cannot start: {error}")))
    }

    fn target(self) -> Result<Target, Failure> {
        let flag = self.address_flag;
        match (self.socket, self.address, self.token_file) {
            (Some(_), Some(_), _) => Err(Failure::Usage(format!("--socket: not together with {flag}"))),
            (_, None, Some(_)) => Err(Failure::Usage(format!("--token-file: only together with {flag}"))),
            (None, Some(_), None) => Err(Failure::Usage(format!(
                "{flag}: needs --token-file, the file that token_file of [admin] names"
            ))),
            (None, Some(address), Some(_)) if !address.ip().to_canonical().is_loopback() => {
                Err(Failure::Usage(format!(
                    "{flag} {address}: must be a loopback address: the token would cross the network in clear"
                )))
            }
            (None, Some(address), Some(file)) => {
                let token = read_token(&file).map_err(|error| {
                    Failure::Failed(format!("cannot read the token from {}: {error}", file.display()))
                })?;
                Ok(Target::Tcp { address, token })
            }
            (Some(path), None, None) => Ok(Target::Socket(path)),
            (None, None, None) => default_admin_socket(sys::is_root()).map(Target::Socket).ok_or_else(|| {
                let what = NO_DEFAULT_ADMIN_SOCKET;
                Failure::Failed(format!("no admin socket: {what}; name it with --socket, or use {flag}"))
            }),
        }
    }
}

/// Returns the first line of a file that other users have no access to.
fn read_token(file: &Path) -> io::Result<String> {
    let text = io::read_to_string(sys::open_private(file)?)?;
    match text.lines().next().map(str::trim) {
        Some(token) if !token.is_empty() => Ok(token.to_owned()),
        Some(_) | None => Err(io::Error::new(io::ErrorKind::InvalidData, "its first line is empty")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn flags_that_contradict_each_other_are_a_usage_error() {
        let socket = Some(PathBuf::from("/s"));
        let address = Some(([127, 0, 0, 1], 1).into());
        let token_file = Some(PathBuf::from("/t"));
        let at = |socket, address, token_file| At { socket, address, address_flag: "--address", token_file };
        for at in [
            at(socket.clone(), address, None),
            at(None, address, None),
            at(None, None, token_file.clone()),
            at(socket.clone(), None, token_file),
        ] {
            let target = at.clone().target();
            assert!(matches!(target, Err(Failure::Usage(_))), "{at:?}: {target:?}");
        }
        assert_eq!(at(socket, None, None).target().unwrap(), Target::Socket("/s".into()));
    }

    #[test]
    fn the_token_is_the_first_line_of_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let address = ([127, 0, 0, 1], 1).into();
        let at = At {
            address: Some(address),
            address_flag: "--address",
            token_file: Some(file.path().into()),
            ..At::default()
        };
        assert!(matches!(at.clone().target(), Err(Failure::Failed(_))));
        fs::write(file.path(), "secret \nanything").unwrap();
        assert_eq!(at.target().unwrap(), Target::Tcp { address, token: "secret".into() });
    }

    #[test]
    fn no_token_leaves_this_machine_or_a_file_that_others_may_use() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "secret").unwrap();
        let ask = |address: &str| {
            let token_file = Some(file.path().into());
            let address = Some(address.parse().unwrap());
            At { address, address_flag: "--address", token_file, ..At::default() }.target()
        };
        for address in ["10.0.0.1:9901", "0.0.0.0:9901", "[2001:db8::1]:9901"] {
            assert!(matches!(ask(address), Err(Failure::Usage(_))), "{address}");
        }
        for address in ["127.0.0.9:9901", "[::1]:9901", "[::ffff:127.0.0.1]:9901"] {
            assert!(ask(address).is_ok(), "{address}");
        }
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(ask("127.0.0.1:9901"), Err(Failure::Failed(_))), "{mode:o}");
        }
    }
}
