//! From flags to the place where the API is asked.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::control::admin;
use crate::ctl::{Client, Failure, Target};

/// What flags say of where the API is.
#[derive(Clone, Debug, Default)]
pub(crate) struct At {
    pub(crate) socket: Option<PathBuf>,
    pub(crate) address: Option<SocketAddr>,
    /// What the flag of `address` is called.
    pub(crate) address_flag: &'static str,
    pub(crate) token_file: Option<PathBuf>,
}

impl At {
    /// What asks there.
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
            (None, Some(address), Some(file)) => {
                let text = fs::read_to_string(&file).map_err(|error| {
                    Failure::Failed(format!("cannot read the token from {}: {error}", file.display()))
                })?;
                let token = text.lines().next().unwrap_or_default().trim().to_owned();
                if token.is_empty() {
                    return Err(Failure::Failed(format!("no token in the first line of {}", file.display())));
                }
                Ok(Target::Tcp { address, token })
            }
            (Some(path), None, None) => Ok(Target::Socket(path)),
            (None, None, None) => admin::default_path().map(Target::Socket).ok_or_else(|| {
                let what = "neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set, and /run/l4lb is root's";
                Failure::Failed(format!("no admin socket: {what}; name it with --socket, or use {flag}"))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
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
}
