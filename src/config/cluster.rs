//! How a cluster of etcd is named: its members, its keys, and the user that asks.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::error::Invalid;
use super::ranges::ETCD_TEXT_LEN_MAX;

/// A cluster, and the user that asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its members: one of them is asked, and another one where that fails.
    pub endpoints: Vec<SocketAddr>,
    /// Which user asks, with the file of the password, which is its first line.
    pub login: Option<(String, PathBuf)>,
}

impl Cluster {
    /// Its keys with their values; `None` where one is not set.
    pub(super) fn keys(&self) -> Vec<(&'static str, Option<String>)> {
        let Self { endpoints, login } = self;
        let listed: Vec<String> = endpoints.iter().map(SocketAddr::to_string).collect();
        let (user, file) =
            login.as_ref().map(|(user, file)| (user.clone(), file.display().to_string())).unzip();
        vec![("endpoints", Some(listed.join(","))), ("user", user), ("password_file", file)]
    }
}

/// Returns the address of a member. The mistake does not repeat `text`, which may have a password.
pub fn parse_endpoint(text: &str) -> Result<SocketAddr, Invalid> {
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    match address.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => Ok(address),
        Ok(_) | Err(_) if text.contains('@') => {
            Err(Invalid("must have no user and no password, which are given apart".into()))
        }
        Ok(_) | Err(_) if text.starts_with("https://") => {
            let instead = "name a proxy on this machine that speaks TLS for it";
            Err(Invalid(format!("no https://, as there is no TLS to etcd in l4lb: {instead}")))
        }
        // A name may be what comes from there.
        Ok(_) | Err(_) => Err(Invalid("must be an address like 10.0.0.1:2379, IP and port".into())),
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
