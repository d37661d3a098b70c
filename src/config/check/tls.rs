//! `tls` of a check: how it verifies the certificate of a backend, and by which authorities.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::reader::{Reader, quote};
use crate::config::model::CheckTls;
use crate::config::parse::raw::{Key, RawTls, RawTlsSettings};
use crate::config::ranges::{ALPN_LEN_MAX, ALPN_MAX, EXPIRES_WITHIN, TIMEOUT};
use crate::tls::{Authorities, Client, ServerName, Verify};

const VERIFY: [(&str, Verify); 3] = {
    let [a, b, c] = Verify::ALL;
    [(a.as_str(), a), (b.as_str(), b), (c.as_str(), c)]
};

/// The authorities of files and of the system, each read once for a configuration, however many checks name it.
pub(super) struct Trust {
    find: fn(Option<&Path>) -> Result<Authorities, String>,
    found: HashMap<Option<PathBuf>, Result<Authorities, String>>,
}

impl Trust {
    pub(super) fn new(find: fn(Option<&Path>) -> Result<Authorities, String>) -> Self {
        Self { find, found: HashMap::new() }
    }

    fn of(&mut self, path: Option<&Path>) -> Result<Authorities, String> {
        let key = path.map(Path::to_owned);
        self.found.entry(key).or_insert_with(|| (self.find)(path)).clone()
    }
}

/// Returns the TLS of a check that `raw` describes; `None` where it has none. `is_needed` for a type of check that is
/// nothing without, `offers` are the protocols that its type wants.
pub(super) fn check(
    read: &mut Reader,
    raw: Option<&Spanned<RawTls>>,
    is_needed: bool,
    offers: &[&str],
    trust: &mut Trust,
) -> Option<CheckTls> {
    let absent = RawTlsSettings::default();
    let settings = match raw.map(Spanned::get_ref) {
        None if !is_needed => return None,
        None | Some(RawTls::Switch(true)) => &absent,
        Some(RawTls::Switch(false)) => {
            if is_needed {
                read.wrong_at("tls", raw, "must not be false: this type of check is over TLS");
            }
            return None;
        }
        Some(RawTls::Settings(settings)) => settings,
    };
    let server_name = server_name(read, &settings.server_name);
    let verify = read.choice("tls: verify", &settings.verify, &VERIFY).unwrap_or(Verify::Full);
    let ca_file = read.text("tls: ca_file", &settings.ca_file);
    let ca_file = ca_file.map(|path| read.folder(&settings.ca_file).join(path));
    let alpn = alpn(read, &settings.alpn);
    let alpn = alpn.unwrap_or_else(|| offers.iter().map(|name| (*name).to_owned()).collect());
    let zero = Some("no warning");
    let expires_within = read.duration("tls: expires_within", &settings.expires_within, TIMEOUT, zero);
    let authorities = match verify {
        Verify::None => {
            if ca_file.is_some() {
                read.wrong("tls: ca_file", &settings.ca_file, "verify = \"none\" trusts every certificate");
            }
            Authorities::nobody()
        }
        Verify::Full | Verify::Chain => trust.of(ca_file.as_deref()).unwrap_or_else(|what| {
            match &ca_file {
                Some(_) => {
                    let got = read.got(&settings.ca_file);
                    read.wrong("tls: ca_file", &settings.ca_file, format_args!("{got}: {what}"));
                }
                None => {
                    let remedy = "install ca-certificates, or write ca_file = \"FILE\" or verify = \"none\"";
                    read.wrong_at("tls", raw, format_args!("{what}: {remedy}"));
                }
            }
            Authorities::nobody()
        }),
    };
    let client = Client::new(authorities, verify, &alpn);
    Some(CheckTls { server_name, ca_file, expires_within: expires_within.unwrap_or(EXPIRES_WITHIN), client })
}

/// Returns the keys that may have a variable in them.
pub(super) fn texts(raw: Option<&Spanned<RawTls>>) -> [(&'static str, &Key); 2] {
    match raw.map(Spanned::get_ref) {
        Some(RawTls::Settings(settings)) => {
            [("tls.server_name", &settings.server_name), ("tls.ca_file", &settings.ca_file)]
        }
        Some(RawTls::Switch(_)) | None => [("tls.server_name", &None), ("tls.ca_file", &None)],
    }
}

fn server_name(read: &mut Reader, key: &Key) -> Option<ServerName<'static>> {
    let name = ServerName::try_from(read.text("tls: server_name", key)?.to_owned());
    if name.is_err() {
        let got = read.got(key);
        read.wrong("tls: server_name", key, format_args!("must be a host name or an IP address, got {got}"));
    }
    name.ok()
}

/// Returns the names of protocols in a list.
fn alpn(read: &mut Reader, key: &Key) -> Option<Vec<String>> {
    let value = key.as_ref()?.get_ref();
    let is_name = |name: &&str| {
        (1..=ALPN_LEN_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let names = value.as_array().filter(|names| names.len() <= ALPN_MAX).and_then(|names| {
        let names = names.iter().map(|name| name.as_str().filter(is_name).map(str::to_owned));
        names.collect::<Option<Vec<String>>>()
    });
    if names.is_none() {
        let example = quote("http/1.1");
        let expected = format!("must be a list of at most {ALPN_MAX} names of protocols, like [{example}]");
        let got = read.got(key);
        read.wrong("tls: alpn", key, format_args!("{expected}, got {got}"));
    }
    names
}
