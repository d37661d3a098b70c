//! The keys that name a cluster of etcd, wherever there are some.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Spanned;

use super::discover::file;
use super::reader::Reader;
use crate::config::cluster::{Cluster, check_user, parse_endpoint};
use crate::config::error::Invalid;
use crate::config::parse::raw::Key;
use crate::config::ranges::ENDPOINTS_MAX;

/// The cluster; `None` if the endpoints are missing or wrong.
pub(super) fn check(
    read: &mut Reader<'_>,
    endpoints: &Key,
    user: &Key,
    password_file: &Key,
) -> Option<Cluster> {
    let endpoints = members(read, endpoints);
    let login = login(read, user, password_file);
    Some(Cluster { endpoints: endpoints?, login })
}

/// A text that passes `check`.
pub(super) fn checked(
    read: &mut Reader<'_>,
    name: &str,
    key: &Key,
    check: impl FnOnce(&str) -> Result<(), Invalid>,
) -> Option<String> {
    let text = read.text(name, key)?;
    let Err(Invalid(what)) = check(text) else { return Some(text.to_owned()) };
    let got = read.got(key);
    read.wrong(name, key, format_args!("{what}; got {got}"));
    None
}

/// The user and its password, which go together.
fn login(read: &mut Reader<'_>, user: &Key, password_file: &Key) -> Option<(String, PathBuf)> {
    let file = file::path(read, "password_file", password_file);
    match (user, password_file) {
        (Some(_), None) => read.wrong("user", user, "needs its password: write password_file too"),
        (None, Some(_)) => {
            read.wrong("password_file", password_file, "needs the name of its user: write user too");
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    Some((checked(read, "user", user, check_user)?, file?))
}

fn members(read: &mut Reader<'_>, key: &Key) -> Option<Vec<SocketAddr>> {
    const EXPECTED: &str = "must be a list of addresses like \"10.0.0.1:2379\"";
    let Some(value) = key.as_ref().map(Spanned::get_ref) else {
        read.wrong("endpoints", key, "missing, write endpoints = [\"127.0.0.1:2379\"]");
        return None;
    };
    let Some(values) = value.as_array() else {
        read.wrong("endpoints", key, format_args!("{EXPECTED}: write [\"127.0.0.1:2379\"]"));
        return None;
    };
    if values.is_empty() || values.len() > ENDPOINTS_MAX {
        let got = values.len();
        read.wrong("endpoints", key, format_args!("{EXPECTED}, 1..={ENDPOINTS_MAX} of them, got {got}"));
        return None;
    }
    let mut found = Vec::new();
    for value in values {
        let text = value.as_str().unwrap_or_default();
        match parse_endpoint(text) {
            Ok(address) if found.contains(&address) => {
                read.wrong("endpoints", key, format_args!("{address} is there twice"));
                return None;
            }
            Ok(address) => found.push(address),
            // It is not repeated: there is a password in it.
            Err(Invalid(what)) if text.contains('@') => {
                read.wrong("endpoints", key, format_args!("{what}: write user and password_file"));
                return None;
            }
            Err(Invalid(what)) => {
                let got = read.got_in(key, value);
                read.wrong("endpoints", key, format_args!("{what}, got {got}"));
                return None;
            }
        }
    }
    Some(found)
}
