//! `[admin]`: where operators and Prometheus reach the process.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::{Spanned, Value};

use super::reader::{Reader, spot_of, spot_of_table};
use crate::config::address::parse_bind;
use crate::config::error::Invalid;
use crate::config::model::{Admin, AdminSocket, OwnSocket};
use crate::config::overrides::Overrides;
use crate::config::parse::raw::{Key, RawAdmin, Table};
use crate::config::parse::report::{Report, Scope, Spot};

/// sockaddr_un has room for this many bytes of a path, and needs one of them for its end (unix(7)).
const SOCKET_PATH_LEN_MAX: usize = 107;

/// The name of the socket in the run-time directory.
const SOCKET_NAME: &str = "admin.sock";

/// Why [`default_admin_socket`] returns none.
pub const NO_DEFAULT_ADMIN_SOCKET: &str =
    "neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set, and /run/l4lb is root's";

/// Returns where the socket is unless it is configured: in the first run-time directory that there is.
pub fn default_admin_socket(is_root: bool) -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let of_service = folder("RUNTIME_DIRECTORY");
    let of_user = || folder("XDG_RUNTIME_DIR").map(|folder| folder.join("l4lb"));
    let of_root = || is_root.then(|| PathBuf::from("/run/l4lb"));
    of_service.or_else(of_user).or_else(of_root).map(|folder| folder.join(SOCKET_NAME))
}

/// The table, and where messages about its addresses point.
pub(super) struct AdminDraft {
    pub(super) admin: Admin,
    listen_at: Spot,
    metrics_at: Spot,
}

impl AdminDraft {
    /// The sockets that it opens over TCP.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (OwnSocket, &Spot)> {
        let listen = self.admin.listen.map(|bind| (OwnSocket::Admin(bind), &self.listen_at));
        let metrics = self.admin.metrics.map(|bind| (OwnSocket::Metrics(bind), &self.metrics_at));
        listen.into_iter().chain(metrics)
    }
}

pub(super) fn check(
    raw: Option<&Spanned<Table<RawAdmin>>>,
    overrides: &Overrides,
    report: &mut Report,
) -> AdminDraft {
    let absent = RawAdmin::default();
    let scope = Scope::new(spot_of_table(raw), "admin");
    let raw = raw.map_or(&absent, |raw| raw.get_ref());
    let mut read = Reader { report, scope: &scope };
    let socket = socket(&mut read, &raw.socket);
    let listen = address(&mut read, "listen", &raw.listen);
    let token_file = path(&mut read, "token_file", &raw.token_file);
    let read_token_file = path(&mut read, "read_token_file", &raw.read_token_file);
    let metrics = address(&mut read, "metrics", &raw.metrics);
    let state_file = path(&mut read, "state_file", &raw.state_file);
    if let Some(listen) = listen {
        if !listen.ip().to_canonical().is_loopback() {
            let what = "must be a loopback address: what it lets one do belongs to this machine alone";
            read.wrong("listen", &raw.listen, format_args!("{what}, got {listen}"));
        }
        if raw.token_file.is_none() {
            read.wrong("listen", &raw.listen, "needs token_file: everybody on this machine can connect");
        }
    }
    if read_token_file.is_some() && raw.listen.is_none() {
        read.wrong("read_token_file", &raw.read_token_file, "goes with listen, which is missing");
    }
    if listen.is_some() && listen == metrics {
        read.wrong("metrics", &raw.metrics, "is the address of listen: metrics are served there too");
    }
    let admin = Admin {
        socket: overrides.admin_socket.clone().or(socket).unwrap_or(AdminSocket::Default),
        listen,
        token_file,
        read_token_file,
        metrics: overrides.metrics.or(metrics),
        state_file,
    };
    let listen_at = spot_of(&raw.listen).unwrap_or_else(|| scope.spot.clone());
    let of_flag = overrides.metrics.map(|address| Spot::Flag(format!("--metrics {address}")));
    let metrics_at = of_flag.or_else(|| spot_of(&raw.metrics)).unwrap_or_else(|| scope.spot.clone());
    AdminDraft { admin, listen_at, metrics_at }
}

/// A path, or false.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours")]
fn socket(read: &mut Reader, key: &Key) -> Option<AdminSocket> {
    match key.as_ref()?.get_ref() {
        Value::Boolean(false) => Some(AdminSocket::Off),
        Value::Boolean(true) => Some(AdminSocket::Default),
        _ => {
            let path = path(read, "socket", key)?;
            match check_socket(&path) {
                Ok(()) => Some(AdminSocket::At(path)),
                Err(Invalid(what)) => {
                    read.wrong("socket", key, what);
                    None
                }
            }
        }
    }
}

/// Whether a socket can be at `path`.
pub(in crate::config) fn check_socket(path: &Path) -> Result<(), Invalid> {
    match path.as_os_str().len() {
        0 => Err(Invalid("must not be empty".into())),
        1..=SOCKET_PATH_LEN_MAX => Ok(()),
        len => Err(Invalid(format!("must be at most {SOCKET_PATH_LEN_MAX} bytes long, is {len}"))),
    }
}

fn address(read: &mut Reader, name: &str, key: &Key) -> Option<SocketAddr> {
    match parse_bind(read.text(name, key)?) {
        Ok(address) => Some(address),
        Err(Invalid(what)) => {
            read.wrong(name, key, what);
            None
        }
    }
}

fn path(read: &mut Reader, name: &str, key: &Key) -> Option<PathBuf> {
    let text = read.text(name, key)?;
    if text.is_empty() {
        read.wrong(name, key, "must not be empty");
        return None;
    }
    Some(text.into())
}
