//! How a cluster of etcd is named: its members, its keys, and the user that asks.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::error::Invalid;
use super::ranges::ETCD_TEXT_LEN_MAX;
use super::server_tls::ServerTls;

/// A cluster, and the user that asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its members: one of them is asked, and another one where that fails.
    pub endpoints: Vec<SocketAddr>,
    /// How they are spoken to over TLS; without TLS when `None`.
    pub tls: Option<ServerTls>,
    /// Which user asks, with the file of the password, which is its first line.
    pub login: Option<(String, PathBuf)>,
}

impl Cluster {
    /// Its keys with their values; `None` where one is not set.
    pub(super) fn keys(&self) -> Vec<(&'static str, Option<String>)> {
        let Self { endpoints, tls, login } = self;
        let listed: Vec<String> = endpoints.iter().map(SocketAddr::to_string).collect();
        let (user, file) =
            login.as_ref().map(|(user, file)| (user.clone(), file.display().to_string())).unzip();
        let tls = tls.as_ref().map(ServerTls::to_string);
        vec![("endpoints", Some(listed.join(","))), ("tls", tls), ("user", user), ("password_file", file)]
    }
}

/// A member, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: SocketAddr,
    /// Whether `https://` or `http://` is in front of it.
    pub is_https: Option<bool>,
}

/// Returns a member. The mistake does not repeat `text`, which may have a password.
pub fn parse_endpoint(text: &str) -> Result<Endpoint, Invalid> {
    let schemes = [("https://", Some(true)), ("http://", Some(false)), ("", None)];
    let behind = |(scheme, is_https)| Some((text.strip_prefix(scheme)?, is_https));
    let (address, is_https) = schemes.into_iter().find_map(behind).unwrap_or((text, None));
    match address.trim_end_matches('/').parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => Ok(Endpoint { address, is_https }),
        Ok(_) | Err(_) if text.contains('@') => {
            Err(Invalid("must have no user and no password, which are given apart".into()))
        }
        // A name may be what comes from there.
        Ok(_) | Err(_) => Err(Invalid("must be an address like 10.0.0.1:2379, IP and port".into())),
    }
}

/// Returns whether members are spoken to over TLS. Fails when some are and others are not, or when they are not and
/// `has_tls` settings.
pub fn is_over_tls(members: &[Endpoint], has_tls: bool) -> Result<bool, Invalid> {
    let is_any = |wanted: bool| members.iter().any(|member| member.is_https == Some(wanted));
    match (has_tls || is_any(true), is_any(false)) {
        (true, true) => Err(Invalid("must be http:// without TLS, or all https://".into())),
        (is_over_tls, _) => Ok(is_over_tls),
    }
}

/// Fails unless keys may begin with `text`.
pub fn check_prefix(text: &str) -> Result<(), Invalid> {
    const EXAMPLE: &str = "\"/l4lb/web/\"";
    if !is_text(text) {
        let what = format!("must be 1..={ETCD_TEXT_LEN_MAX} printable characters like {EXAMPLE}");
        return Err(Invalid(what));
    }
    // "/l4lb/web" has the keys of "/l4lb/web2" too.
    if !text.ends_with('/') {
        let what = format!("must end with a slash like {EXAMPLE}, or keys of other names begin so too");
        return Err(Invalid(what));
    }
    Ok(())
}

/// Fails unless a user may be called `text`.
pub fn check_user(text: &str) -> Result<(), Invalid> {
    match is_text(text) {
        true => Ok(()),
        false => Err(Invalid(format!("must be 1..={ETCD_TEXT_LEN_MAX} printable characters"))),
    }
}

/// Returns whether it can be part of a message as it is.
fn is_text(text: &str) -> bool {
    (1..=ETCD_TEXT_LEN_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
