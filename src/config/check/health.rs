//! `[pool.health]`: the timing of checks, and how their results count.

use std::net::IpAddr;
use std::time::Duration;

use toml::Spanned;

use super::exchange;
use super::reader::{Reader, spot_of_table, str_of};
use super::tls::Trust;
use crate::config::model::{BackendCheck, Check, FIRST_CHECK, FurtherCheck, Health, HealthState};
use crate::config::parse::label::label;
use crate::config::parse::raw::{Key, RawBackendCheck, RawHealth, Sections, Table};
use crate::config::parse::report::{Report, Scope, Spot};
use crate::config::ranges::{CHECK_INTERVAL, CHECKS_MAX, JITTER_PERCENT_MAX, TIMEOUT, VERDICTS};
use crate::config::units::show_duration;

const STATES: [(&str, HealthState); 3] = [
    (HealthState::Unknown.as_str(), HealthState::Unknown),
    (HealthState::Up.as_str(), HealthState::Up),
    (HealthState::Down.as_str(), HealthState::Down),
];

/// Returns the health settings of a pool, with the checks `more`; `interval` is that of the flag.
pub(super) fn check(
    raw: Option<&Spanned<Table<RawHealth>>>,
    more: &Sections<RawHealth>,
    parent: &Scope,
    interval: Option<Duration>,
    trust: &mut Trust,
    report: &mut Report,
) -> Health {
    let absent = RawHealth::default();
    let scope = parent.part(spot_of_table(raw), "health");
    let raw = raw.map_or(&absent, |raw| raw.get_ref());
    let mut read = Reader { report, scope: &scope };
    if raw.name.is_some() {
        read.wrong("name", &raw.name, "belongs to [[pool.check]]");
    }
    let (check, written, secrets) = exchange::check(&mut read, raw, trust);
    // A check that is off may keep the others, as it may keep its keys.
    let mut more = further_checks(more, parent, trust, read.report);
    if check == Check::Off {
        more.clear();
    }
    let interval_of_file = read.duration("interval", &raw.interval, TIMEOUT, None);
    let interval = interval.or(interval_of_file).unwrap_or(CHECK_INTERVAL);
    let fast_interval = within(&mut read, "fast_interval", &raw.fast_interval, interval);
    // Checks of one backend never overlap.
    let timeout = within(&mut read, "timeout", &raw.timeout, interval);
    Health {
        check,
        written,
        secrets,
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
        more,
    }
}

/// Returns the checks of `[[pool.check]]`.
fn further_checks(
    raw: &Sections<RawHealth>,
    parent: &Scope,
    trust: &mut Trust,
    report: &mut Report,
) -> Vec<FurtherCheck> {
    let mut checks: Vec<FurtherCheck> = Vec::new();
    for (index, raw) in raw.iter().enumerate() {
        let (spot, raw) = (Spot::Byte(raw.span().start), raw.get_ref());
        let scope = parent.part(spot, &label("check", str_of(&raw.name), None, index));
        let mut read = Reader { report, scope: &scope };
        if checks.len() == CHECKS_MAX {
            read.wrong("name", &raw.name, format_args!("a pool has at most {CHECKS_MAX} of these"));
            break;
        }
        let (check, written, secrets) = exchange::check(&mut read, raw, trust);
        if check == Check::Off {
            read.wrong("type", &raw.kind, "off belongs to [pool.health]: leave this check out instead");
        }
        for (name, key) in [
            ("interval", &raw.interval),
            ("fast_interval", &raw.fast_interval),
            ("timeout", &raw.timeout),
            ("rise", &raw.rise),
            ("fall", &raw.fall),
            ("jitter_percent", &raw.jitter_percent),
            ("initial_state", &raw.initial_state),
        ] {
            if key.is_some() {
                read.wrong(name, key, "belongs to [pool.health], for all checks of the pool");
            }
        }
        let port = read.whole("port", &raw.port, 1..=u16::MAX);
        let name = match raw.name {
            None => check.type_name().to_owned(),
            Some(_) => read.name(&raw.name).unwrap_or_default().to_owned(),
        };
        if name == FIRST_CHECK || checks.iter().any(|check| check.name == name) {
            read.wrong("name", &raw.name, format_args!("{name:?} is taken, name each check of the pool"));
        }
        checks.push(FurtherCheck { name, check, written, secrets, port });
    }
    checks
}

/// Returns what is special about the checks of one backend.
pub(super) fn check_of_backend(
    raw: Option<&Spanned<Table<RawBackendCheck>>>,
    parent: &Scope,
    report: &mut Report,
) -> BackendCheck {
    let absent = RawBackendCheck::default();
    let scope = parent.part(spot_of_table(raw), "check");
    let raw = raw.map_or(&absent, |raw| raw.get_ref());
    let mut read = Reader { report, scope: &scope };
    let address = read.text("address", &raw.address).map(str::parse::<IpAddr>);
    if let Some(Err(_)) = address {
        let got = read.got(&raw.address);
        read.wrong("address", &raw.address, format_args!("must be an IP address without a port, got {got}"));
    }
    BackendCheck {
        address: address.and_then(Result::ok),
        port: read.whole("port", &raw.port, 1..=u16::MAX),
        interval: read.duration("interval", &raw.interval, TIMEOUT, None),
    }
}

/// Returns a duration that is at most the interval.
pub(super) fn within(read: &mut Reader, name: &str, key: &Key, interval: Duration) -> Option<Duration> {
    let duration = read.duration(name, key, TIMEOUT, None)?;
    if duration > interval {
        let (max, got) = (show_duration(interval), show_duration(duration));
        read.wrong(name, key, format_args!("must be at most the interval, which is {max}, got {got}"));
    }
    Some(duration)
}
