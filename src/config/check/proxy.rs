//! `proxy_protocol` of a pool.

use toml::{Spanned, Value};

use super::reader::{Reader, spot_of_table};
use crate::config::parse::raw::{Key, RawProxyOut, RawProxyOutKeys};
use crate::config::parse::report::{Report, Scope};
use crate::config::proxy::{ProxyCheck, ProxyOut, ProxyVersion, TLVS};

const VERSIONS: [(&str, ProxyVersion); 2] = {
    let [a, b] = ProxyVersion::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

const CHECKS: [(&str, ProxyCheck); 3] = {
    let [a, b, c] = ProxyCheck::ALL;
    [(a.as_str(), a), (b.as_str(), b), (c.as_str(), c)]
};

/// Returns the header that a pool writes; `None` when it writes none.
pub(super) fn check(
    raw: Option<&Spanned<RawProxyOut>>,
    parent: &Scope,
    report: &mut Report,
) -> Option<ProxyOut> {
    let spot = spot_of_table(raw);
    match raw?.get_ref() {
        RawProxyOut::Version(word) => {
            let key: Key = raw.map(|raw| Spanned::new(raw.span(), Value::String(word.clone())));
            let version = Reader { report, scope: parent }.choice("proxy_protocol", &key, &VERSIONS)?;
            let check = ProxyCheck::default_of(version);
            Some(ProxyOut { version, unique_id: false, crc32c: false, check })
        }
        RawProxyOut::Keys(keys) => {
            let scope = parent.part(spot, "proxy_protocol");
            of_keys(keys, &mut Reader { report, scope: &scope })
        }
    }
}

fn of_keys(raw: &RawProxyOutKeys, read: &mut Reader<'_>) -> Option<ProxyOut> {
    if raw.version.is_none() {
        read.wrong("version", &raw.version, "missing, write version = \"v1\" or \"v2\"");
    }
    let version = read.choice("version", &raw.version, &VERSIONS);
    let tlvs = read.words("tlvs", &raw.tlvs, &TLVS).unwrap_or_default();
    let check = read.choice("check", &raw.check, &CHECKS);
    let version = version?;
    if version == ProxyVersion::V1 && !tlvs.is_empty() {
        read.wrong("tlvs", &raw.tlvs, "only version \"v2\" has TLVs");
    }
    let [crc32c, unique_id] = TLVS.map(|tlv| tlvs.contains(&tlv));
    Some(ProxyOut { version, unique_id, crc32c, check: check.unwrap_or(ProxyCheck::default_of(version)) })
}
