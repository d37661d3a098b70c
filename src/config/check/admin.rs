//! `[admin]`: the addresses of the admin API and the metrics.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::{Spanned, Value};

use super::reader::{Reader, spot_of, spot_of_table};
use crate::config::address::parse_bind;
use crate::config::admin_socket::check_socket;
use crate::config::error::Invalid;
use crate::config::model::{Admin, AdminSocket, OwnSocket};
use crate::config::overrides::Overrides;
use crate::config::parse::raw::{Key, RawAdmin, Table};
use crate::config::parse::report::{Report, Scope, Spot};

/// The table, and the places that messages about its addresses point to.
pub(super) struct AdminDraft {
    pub(super) admin: Admin,
    listen_at: Spot,
    metrics_at: Spot,
}

impl AdminDraft {
    /// Returns the TCP sockets that it opens.
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
            read.wrong("listen", &raw.listen, "needs token_file: every user of this machine can connect");
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
