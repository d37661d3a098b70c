//! The question that a source asks name servers.

use std::net::SocketAddr;

use toml::Spanned;

use super::super::reader::Reader;
use crate::config::discover::{Dns, Prefer, Record};
use crate::config::error::Invalid;
use crate::config::parse::raw::{Key, RawDiscover};
use crate::config::ranges::RESOLVERS_MAX;

const RECORDS: [(&str, bool); 2] = [("a", false), ("srv", true)];
const PREFERENCES: [(&str, Prefer); 3] = {
    let [a, b, c] = Prefer::ALL;
    [(a.as_str(), a), (b.as_str(), b), (c.as_str(), c)]
};

/// The question; `None` if the name or the record is missing or wrong.
pub(super) fn check(raw: &RawDiscover, read: &mut Reader<'_>) -> Option<Dns> {
    let record = record(raw, read);
    let prefer = read.choice("prefer", &raw.prefer, &PREFERENCES);
    let resolvers = resolvers(read, &raw.resolver);
    if raw.name.is_none() {
        read.wrong("name", &raw.name, "missing, write name = \"web.service.local\"");
    }
    let name = read.text("name", &raw.name)?;
    if let Err(Invalid(what)) = check_dns_name(name, &read.got(&raw.name)) {
        read.wrong("name", &raw.name, what);
        return None;
    }
    // Without a search list a dot at its end makes no difference.
    let name = if resolvers.is_empty() { name } else { name.trim_end_matches('.') };
    let default = Dns::new(name.to_ascii_lowercase(), record?);
    Some(Dns { resolvers, prefer: prefer.unwrap_or(default.prefer), ..default })
}

fn record(raw: &RawDiscover, read: &mut Reader<'_>) -> Option<Record> {
    let is_service = match &raw.record {
        None => false,
        key => read.choice("record", key, &RECORDS)?,
    };
    let port = read.whole("port", &raw.port, 1..=u16::MAX);
    match (is_service, &raw.port) {
        (true, None) => Some(Record::Service),
        (true, Some(_)) => {
            read.wrong(
                "port",
                &raw.port,
                "goes with record = \"a\": the records of a service have their own",
            );
            None
        }
        (false, None) => {
            read.wrong("port", &raw.port, "missing: an address has none, write port = 80");
            None
        }
        (false, Some(_)) => port.map(|port| Record::Address { port }),
    }
}

fn resolvers(read: &mut Reader<'_>, key: &Key) -> Vec<SocketAddr> {
    const EXPECTED: &str = "must be a list of addresses like \"127.0.0.1:8600\"";
    let Some(value) = key.as_ref().map(Spanned::get_ref) else { return Vec::new() };
    let Some(values) = value.as_array() else {
        read.wrong("resolver", key, format_args!("{EXPECTED}: write [\"127.0.0.1:53\"]"));
        return Vec::new();
    };
    if values.is_empty() || values.len() > RESOLVERS_MAX {
        let got = values.len();
        read.wrong("resolver", key, format_args!("{EXPECTED}, 1..={RESOLVERS_MAX} of them, got {got}"));
    }
    let mut found = Vec::new();
    for value in values {
        match value.as_str().and_then(|text| text.parse::<SocketAddr>().ok()) {
            Some(address) if address.port() > 0 => found.push(address),
            Some(_) | None => {
                let got = read.got_in(key, value);
                // A name here would have to be asked for by itself.
                read.wrong("resolver", key, format_args!("{EXPECTED}, IP and port, got {got}"));
            }
        }
    }
    found
}

/// Fails unless `text` is a name that a name server can be asked for, RFC 1035, 2.3.4; `_http._tcp.web` is one.
/// Messages repeat it as `got`.
fn check_dns_name(text: &str, got: &str) -> Result<(), Invalid> {
    const NAME_LEN_MAX: usize = 253;
    const LABEL_LEN_MAX: usize = 63;
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=LABEL_LEN_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let is_name = name.len() <= NAME_LEN_MAX && name.split('.').all(is_label);
    if !is_name {
        return Err(Invalid(format!("must be a name like \"web.service.local\", got {got}")));
    }
    if name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(Invalid(format!("an address needs no discovery, write [[pool.backend]]: {got}")));
    }
    Ok(())
}
