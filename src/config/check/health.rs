//! `[pool.health]`: the kind of a check, its timing, and how its results count.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;

use super::reader::{Reader, spot_of_table, str_of};
use crate::config::model::{Check, Expect, Health, HealthState};
use crate::config::parse::raw::{Key, RawHealth, Table};
use crate::config::parse::report::{Report, Scope};
use crate::config::ranges::{CHECK_INTERVAL, JITTER_PERCENT_MAX, PAYLOAD_LEN_MAX, TIMEOUT, VERDICTS};
use crate::config::units::show_duration;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Off,
    Tcp,
    SendExpect,
    Http,
}

const KINDS: [(&str, Kind); 4] =
    [("tcp", Kind::Tcp), ("send_expect", Kind::SendExpect), ("http", Kind::Http), ("off", Kind::Off)];

const STATES: [(&str, HealthState); 3] = [
    (HealthState::Unknown.as_str(), HealthState::Unknown),
    (HealthState::Up.as_str(), HealthState::Up),
    (HealthState::Down.as_str(), HealthState::Down),
];

/// Returns the health settings of a pool; `interval` is that of the flag.
pub(super) fn check(
    raw: Option<&Spanned<Table<RawHealth>>>,
    parent: &Scope,
    interval: Option<Duration>,
    report: &mut Report,
) -> Health {
    let absent = RawHealth::default();
    let scope = parent.part(spot_of_table(raw), "health");
    let raw = raw.map_or(&absent, |raw| raw.get_ref());
    let mut read = Reader { report, scope: &scope };
    let (check, written) = (what(&mut read, raw), written(&read, raw));
    let interval_of_file = read.duration("interval", &raw.interval, TIMEOUT, None);
    let interval = interval.or(interval_of_file).unwrap_or(CHECK_INTERVAL);
    let fast_interval = within(&mut read, "fast_interval", &raw.fast_interval, interval);
    // Checks of one backend never overlap.
    let timeout = within(&mut read, "timeout", &raw.timeout, interval);
    Health {
        check,
        written,
        interval,
        fast_interval: fast_interval.unwrap_or(Duration::from_millis(500).min(interval)),
        timeout: timeout.unwrap_or(Duration::from_secs(1).min(interval)),
        rise: read.whole("rise", &raw.rise, VERDICTS).unwrap_or(2),
        fall: read.whole("fall", &raw.fall, VERDICTS).unwrap_or(3),
        jitter_percent: read
            .whole("jitter_percent", &raw.jitter_percent, 0..=JITTER_PERCENT_MAX)
            .unwrap_or(10),
        port: read.whole("port", &raw.port, 1..=u16::MAX),
        initial_state: read
            .choice("initial_state", &raw.initial_state, &STATES)
            .unwrap_or(HealthState::Unknown),
    }
}

/// Returns a duration that is at most the interval.
fn within(read: &mut Reader, name: &str, key: &Key, interval: Duration) -> Option<Duration> {
    let duration = read.duration(name, key, TIMEOUT, None)?;
    if duration > interval {
        let (max, got) = (show_duration(interval), show_duration(duration));
        read.wrong(name, key, format_args!("must be at most the interval, which is {max}, got {got}"));
    }
    Some(duration)
}

/// The kind of a check.
fn what(read: &mut Reader, raw: &RawHealth) -> Check {
    let kind = match raw.kind {
        Some(_) => read.choice("type", &raw.kind, &KINDS),
        None => Some(Kind::Tcp),
    };
    // With a wrong type it is unknown which keys belong to it. A check that is off may keep its keys.
    if let Some(kind) = kind.filter(|kind| *kind != Kind::Off) {
        refuse_foreign_keys(read, raw, kind);
    }
    let send = payload(read, "send", &raw.send, 0).unwrap_or_default();
    let expect = payload(read, "expect", &raw.expect, 1);
    let contains = payload(read, "contains", &raw.contains, 1);
    let path = visible(read, "path", &raw.path).unwrap_or("/health").to_string();
    if !path.starts_with('/') {
        let got = read.got(&raw.path);
        read.wrong("path", &raw.path, format_args!("must start with /, got {got}"));
    }
    let host = visible(read, "host", &raw.host).map(str::to_string);
    let status = read.whole("status", &raw.status, 100..=599).unwrap_or(200);
    match kind {
        Some(Kind::Off) => Check::Off,
        Some(Kind::Tcp) | None => Check::Tcp,
        Some(Kind::Http) => Check::Http { path, host, status },
        Some(Kind::SendExpect) => {
            if raw.expect.is_some() && raw.contains.is_some() {
                read.wrong("contains", &raw.contains, "expect is there too: keep one of them");
            }
            if raw.expect.is_none() && raw.contains.is_none() {
                read.wrong("expect", &raw.kind, "missing: write expect or contains = \"TEXT\"");
            }
            let expect = expect.map(Expect::Prefix).or(contains.map(Expect::Contains));
            Check::SendExpect { send, expect: expect.unwrap_or(Expect::Prefix(Vec::new())) }
        }
    }
}

/// The texts of the file for the keys of a check whose values name a variable.
fn written(read: &Reader, raw: &RawHealth) -> BTreeMap<&'static str, String> {
    let keys = [
        ("send", &raw.send),
        ("expect", &raw.expect),
        ("contains", &raw.contains),
        ("path", &raw.path),
        ("host", &raw.host),
    ];
    keys.into_iter().filter_map(|(name, key)| Some((name, read.written(key)?.to_owned()))).collect()
}

/// Reports keys of another type.
fn refuse_foreign_keys(read: &mut Reader, raw: &RawHealth, kind: Kind) {
    let type_name = str_of(&raw.kind).unwrap_or("tcp");
    let keys = [
        ("send", &raw.send, Kind::SendExpect),
        ("expect", &raw.expect, Kind::SendExpect),
        ("contains", &raw.contains, Kind::SendExpect),
        ("path", &raw.path, Kind::Http),
        ("host", &raw.host, Kind::Http),
        ("status", &raw.status, Kind::Http),
    ];
    for (name, key, owner) in keys {
        if key.is_some() && owner != kind {
            let owner = if owner == Kind::Http { "http" } else { "send_expect" };
            read.wrong(name, key, format_args!("belongs to type = {owner:?}, but type is {type_name:?}"));
        }
    }
}

fn payload(read: &mut Reader, name: &str, key: &Key, min: usize) -> Option<Vec<u8>> {
    let bytes = read.text(name, key)?.as_bytes();
    if !(min..=PAYLOAD_LEN_MAX).contains(&bytes.len()) {
        let got = bytes.len();
        read.wrong(name, key, format_args!("must be {min}..={PAYLOAD_LEN_MAX} bytes, got {got}"));
        return None;
    }
    Some(bytes.to_vec())
}

/// Returns text that fits into a request line or a header.
fn visible<'k>(read: &mut Reader, name: &str, key: &'k Key) -> Option<&'k str> {
    let text = read.text(name, key)?;
    let is_visible =
        (1..=PAYLOAD_LEN_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_visible {
        let expected = format!("must be 1..={PAYLOAD_LEN_MAX} visible ASCII characters");
        let got = read.got(key);
        read.wrong(name, key, format_args!("{expected}, got {got}"));
        return None;
    }
    Some(text)
}
