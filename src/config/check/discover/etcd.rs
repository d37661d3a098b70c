//! Which keys of which cluster a source follows.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Spanned;

use super::super::reader::Reader;
use super::file;
use crate::config::discover::{Etcd, WhenAbsent};
use crate::config::parse::raw::{Key, RawDiscover};
use crate::config::ranges::{ENDPOINTS_MAX, ETCD_TEXT_LEN_MAX};

const WHEN_ABSENT: [(&str, WhenAbsent); 2] = {
    let [a, b] = WhenAbsent::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

/// The keys; `None` if the prefix or the endpoints are missing or wrong.
pub(super) fn check(raw: &RawDiscover, read: &mut Reader<'_>) -> Option<Etcd> {
    let prefix = prefix(raw, read);
    let endpoints = endpoints(read, &raw.endpoints);
    let when_absent = read.choice("when_absent", &raw.when_absent, &WHEN_ABSENT);
    let login = login(raw, read);
    Some(Etcd {
        prefix: prefix?,
        endpoints: endpoints?,
        login,
        when_absent: when_absent.unwrap_or(WhenAbsent::ALL[0]),
    })
}

fn prefix(raw: &RawDiscover, read: &mut Reader<'_>) -> Option<String> {
    const EXAMPLE: &str = "\"/l4lb/web/\"";
    if raw.prefix.is_none() {
        read.wrong("prefix", &raw.prefix, format_args!("missing, write prefix = {EXAMPLE}"));
    }
    let text = read.text("prefix", &raw.prefix)?;
    let got = read.got(&raw.prefix);
    let is_text = is_text(text);
    if is_text && text.ends_with('/') {
        return Some(text.to_owned());
    }
    let what = match is_text {
        // "/l4lb/web" has the keys of "/l4lb/web2" too.
        true => {
            format!("must end with a slash like {EXAMPLE}, or keys of other names begin so too; got {got}")
        }
        false => format!("must be 1..={ETCD_TEXT_LEN_MAX} printable characters like {EXAMPLE}, got {got}"),
    };
    read.wrong("prefix", &raw.prefix, what);
    None
}

/// The user and its password, which go together.
fn login(raw: &RawDiscover, read: &mut Reader<'_>) -> Option<(String, PathBuf)> {
    let file = file::path(read, "password_file", &raw.password_file);
    let user = read.text("user", &raw.user);
    match (&raw.user, &raw.password_file) {
        (Some(_), None) => read.wrong("user", &raw.user, "needs its password: write password_file too"),
        (None, Some(_)) => {
            read.wrong("password_file", &raw.password_file, "needs the name of its user: write user too");
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    if let Some(text) = user.filter(|text| !is_text(text)) {
        let what = format!("must be 1..={ETCD_TEXT_LEN_MAX} printable characters, got {text:?}");
        read.wrong("user", &raw.user, what);
        return None;
    }
    Some((user?.to_owned(), file?))
}

/// Whether it can be part of a message as it is.
fn is_text(text: &str) -> bool {
    (1..=ETCD_TEXT_LEN_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn endpoints(read: &mut Reader<'_>, key: &Key) -> Option<Vec<SocketAddr>> {
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
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        match address.parse::<SocketAddr>() {
            Ok(address) if address.port() > 0 && !found.contains(&address) => found.push(address),
            Ok(address) if address.port() > 0 => {
                read.wrong("endpoints", key, format_args!("{address} is there twice"));
                return None;
            }
            Ok(_) | Err(_) if text.contains('@') => {
                // It is not repeated: there is a password in it.
                read.wrong(
                    "endpoints",
                    key,
                    "must have no user and no password: write user and password_file",
                );
                return None;
            }
            Ok(_) | Err(_) if text.starts_with("https://") => {
                let got = read.got_in(key, value);
                let instead = "name a proxy on this machine that speaks TLS for it";
                let what = format!("no https://, as there is no TLS to etcd in l4lb: {instead}; got {got}");
                read.wrong("endpoints", key, what);
                return None;
            }
            Ok(_) | Err(_) => {
                // A name may be what comes from there.
                let got = read.got_in(key, value);
                read.wrong("endpoints", key, format_args!("{EXPECTED}, IP and port, got {got}"));
                return None;
            }
        }
    }
    Some(found)
}
