//! `proxy_protocol` of a pool and of a listener.

use toml::{Spanned, Value};

use super::reader::{Reader, spot_of_table};
use crate::config::parse::raw::{Key, RawProxyIn, RawProxyOut, RawProxyOutKeys, Table};
use crate::config::parse::report::{Report, Scope};
use crate::config::proxy::{Others, ProxyCheck, ProxyIn, ProxyOut, ProxyVersion, TLVS};
use crate::config::ranges::PROXY_FROM_MAX;

const VERSIONS: [(&str, ProxyVersion); 2] = {
    let [a, b] = ProxyVersion::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

const CHECKS: [(&str, ProxyCheck); 3] = {
    let [a, b, c] = ProxyCheck::ALL;
    [(a.as_str(), a), (b.as_str(), b), (c.as_str(), c)]
};

const OTHERS: [(&str, Others); 2] = {
    let [a, b] = Others::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

/// Returns the headers that a listener reads; `None` when it reads none.
pub(super) fn check_in(
    raw: Option<&Spanned<Table<RawProxyIn>>>,
    parent: &Scope,
    report: &mut Report,
) -> Option<ProxyIn> {
    let scope = parent.part(spot_of_table(raw), "proxy_protocol");
    let raw = raw?.get_ref();
    let mut read = Reader { report, scope: &scope };
    if raw.from.is_none() {
        read.wrong("from", &raw.from, "missing, write from = [\"10.0.0.0/8\"]: the balancers in front");
    }
    let from = read.networks("from", &raw.from, PROXY_FROM_MAX);
    let others = read.choice("others", &raw.others, &OTHERS);
    Some(ProxyIn { from: from?, others: others.unwrap_or(Others::Reject) })
}

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
            Some(ProxyOut::new(version, check))
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
    let [crc32c, unique_id, authority, alpn] = TLVS.map(|tlv| tlvs.contains(&tlv));
    let check = check.unwrap_or(ProxyCheck::default_of(version));
    Some(ProxyOut { version, unique_id, crc32c, authority, alpn, check })
}
