//! The keys that name a cluster of etcd, wherever there are some.

use std::path::PathBuf;

use toml::Spanned;

use super::discover::file;
use super::reader::Reader;
use super::tls::{self, Trust};
use crate::config::cluster::{Cluster, Endpoint, check_user, is_over_tls, parse_endpoint};
use crate::config::error::Invalid;
use crate::config::model::CheckTls;
use crate::config::parse::raw::{Key, RawTls};
use crate::config::ranges::ENDPOINTS_MAX;
use crate::config::server_tls::ServerTls;

/// The cluster; `None` if the endpoints are missing or wrong.
pub(super) fn check(
    read: &mut Reader<'_>,
    endpoints: &Key,
    user: &Key,
    password_file: &Key,
    tls: Option<&Spanned<RawTls>>,
    trust: &mut Trust,
) -> Option<Cluster> {
    let members = members(read, endpoints);
    let login = login(read, user, password_file);
    let over_tls = is_over_tls(members.as_deref().unwrap_or_default(), has_tls(tls));
    if let Err(Invalid(what)) = &over_tls {
        read.wrong("endpoints", endpoints, what);
    }
    let tls = client_tls(read, tls, over_tls.unwrap_or(false), trust);
    let endpoints = members?.into_iter().map(|member| member.address).collect();
    Some(Cluster { endpoints, tls, login })
}

/// Whether there are settings of TLS.
pub(super) fn has_tls(raw: Option<&Spanned<RawTls>>) -> bool {
    !matches!(raw.map(Spanned::get_ref), None | Some(RawTls::Switch(false)))
}

/// How a server is spoken to over TLS, if it `is_needed`.
pub(super) fn client_tls(
    read: &mut Reader<'_>,
    raw: Option<&Spanned<RawTls>>,
    is_needed: bool,
    trust: &mut Trust,
) -> Option<ServerTls> {
    if is_needed && matches!(raw.map(Spanned::get_ref), Some(RawTls::Switch(false))) {
        read.wrong_at("tls", raw, "must not be false with https://");
        return None;
    }
    if let Some(RawTls::Settings(settings)) = raw.map(Spanned::get_ref) {
        for (name, key) in [("tls: alpn", &settings.alpn), ("tls: expires_within", &settings.expires_within)]
        {
            if key.is_some() {
                read.wrong(name, key, "goes with a check only");
            }
        }
    }
    let CheckTls { server_name, ca_file, expires_within: _, client } =
        tls::check(read, raw, is_needed, &[], trust)?;
    Some(ServerTls { server_name, ca_file, client })
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

fn members(read: &mut Reader<'_>, key: &Key) -> Option<Vec<Endpoint>> {
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
    let mut found: Vec<Endpoint> = Vec::new();
    for value in values {
        let text = value.as_str().unwrap_or_default();
        match parse_endpoint(text) {
            Ok(member) if found.iter().any(|other| other.address == member.address) => {
                read.wrong("endpoints", key, format_args!("{} is there twice", member.address));
                return None;
            }
            Ok(member) => found.push(member),
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
