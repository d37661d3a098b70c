//! `[pool.agent]`: how the agents of a pool are asked, and what holds without them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use toml::Spanned;

use super::exchange::visible;
use super::health::within;
use super::reader::{Reader, spot_of_table, str_of};
use crate::config::agent::{Agent, AgentQuestion, OnLost};
use crate::config::parse::raw::{Key, RawAgent, Table};
use crate::config::parse::report::{Report, Scope};
use crate::config::ranges::{PAYLOAD_LEN_MAX, TIMEOUT};
use crate::config::units::{parse_duration, show_duration};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Http,
}

const KINDS: [(&str, Kind); 2] = [("tcp", Kind::Tcp), ("http", Kind::Http)];

const KEEP: &str = "keep";
const CLEAR_AFTER: &str = "clear after ";

/// Returns the agents of a pool; `None` when it has none.
pub(super) fn check(
    raw: Option<&Spanned<Table<RawAgent>>>,
    parent: &Scope,
    report: &mut Report,
) -> Option<Agent> {
    let scope = parent.part(spot_of_table(raw), "agent");
    let raw = raw?.get_ref();
    let mut read = Reader { report, scope: &scope };
    if raw.port.is_none() {
        read.wrong("port", &raw.port, "missing, write port = 9707");
    }
    let interval = read.duration("interval", &raw.interval, TIMEOUT, None);
    let interval = interval.unwrap_or(Duration::from_secs(2));
    // Exchanges with one agent never overlap.
    let timeout = within(&mut read, "timeout", &raw.timeout, interval);
    Some(Agent {
        question: question(&mut read, raw),
        written: written(&read, raw),
        address: address(&mut read, &raw.address),
        port: read.whole("port", &raw.port, 1..=u16::MAX).unwrap_or_default(),
        interval,
        timeout: timeout.unwrap_or(Duration::from_secs(1).min(interval)),
        on_lost: on_lost(&mut read, &raw.on_lost).unwrap_or(OnLost::Keep),
    })
}

fn question(read: &mut Reader, raw: &RawAgent) -> AgentQuestion {
    let kind = match raw.kind {
        Some(_) => read.choice("type", &raw.kind, &KINDS),
        None => Some(Kind::Tcp),
    };
    let type_name = str_of(&raw.kind).unwrap_or("tcp");
    let keys = [
        ("send", &raw.send, "tcp", Kind::Tcp),
        ("path", &raw.path, "http", Kind::Http),
        ("host", &raw.host, "http", Kind::Http),
    ];
    // With a wrong type it is unknown which keys belong to it.
    for (name, key, owner_name, owner) in keys {
        if key.is_some() && kind.is_some_and(|kind| kind != owner) {
            read.wrong(
                name,
                key,
                format_args!("belongs to type = {owner_name:?}, but type is {type_name:?}"),
            );
        }
    }
    let send = send(read, &raw.send).unwrap_or_default().to_owned();
    let path = visible(read, "path", &raw.path, PAYLOAD_LEN_MAX).unwrap_or("/agent").to_owned();
    if !path.starts_with('/') {
        let got = read.got(&raw.path);
        read.wrong("path", &raw.path, format_args!("must start with /, got {got}"));
    }
    let host = visible(read, "host", &raw.host, PAYLOAD_LEN_MAX).map(str::to_owned);
    match kind {
        Some(Kind::Tcp) | None => AgentQuestion::Tcp { send },
        Some(Kind::Http) => AgentQuestion::Http { path, host },
    }
}

/// What the file has for what an agent is sent, where that names a variable.
fn written(read: &Reader, raw: &RawAgent) -> BTreeMap<&'static str, String> {
    let keys = [("send", &raw.send), ("path", &raw.path), ("host", &raw.host)];
    keys.into_iter().filter_map(|(name, key)| Some((name, read.written(key)?.to_owned()))).collect()
}

fn send<'k>(read: &mut Reader, key: &'k Key) -> Option<&'k str> {
    let text = read.text("send", key)?;
    if text.len() > PAYLOAD_LEN_MAX {
        let got = text.len();
        read.wrong("send", key, format_args!("must be 0..={PAYLOAD_LEN_MAX} bytes, got {got}"));
    }
    Some(text)
}

fn address(read: &mut Reader, key: &Key) -> Option<IpAddr> {
    let address = read.text("address", key)?.parse().ok();
    if address.is_none() {
        let got = read.got(key);
        read.wrong(
            "address",
            key,
            format_args!("must be an IP address, the port is a key of its own, got {got}"),
        );
    }
    address
}

fn on_lost(read: &mut Reader, key: &Key) -> Option<OnLost> {
    let text = read.text("on_lost", key)?;
    if text == KEEP {
        return Some(OnLost::Keep);
    }
    let after = text.strip_prefix(CLEAR_AFTER).and_then(|after| parse_duration(after).ok());
    let got = read.got(key);
    match after {
        Some(after) if TIMEOUT.contains(&after) => return Some(OnLost::ClearAfter(after)),
        Some(_) => {
            let (min, max) = (show_duration(*TIMEOUT.start()), show_duration(*TIMEOUT.end()));
            read.wrong("on_lost", key, format_args!("must clear after {min}..={max}, got {got}"));
        }
        None => {
            let expected = format!("must be {KEEP:?} or \"{CLEAR_AFTER}30s\"");
            read.wrong("on_lost", key, format_args!("{expected}, got {got}"));
        }
    }
    None
}
