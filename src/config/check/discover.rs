//! One `[[pool.discover]]`: a source of backends that come and go by themselves.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use toml::Spanned;

use super::reader::{Reader, quote, str_of};
use crate::config::discover::{Discover, FOREVER, Prefer, Record};
use crate::config::error::Invalid;
use crate::config::parse::raw::{Key, RawDiscover, Table};
use crate::config::parse::report::{Report, Scope, Spot};
use crate::config::ranges::{
    ANSWERS, DISCOVER_INTERVAL, MIN_BACKENDS_MAX, OBSOLETE_MAX, RESOLVERS_MAX, SOURCES_MAX, STALE,
};
use crate::config::units::parse_duration;

const TYPES: [(&str, ()); 1] = [("dns", ())];
const RECORDS: [(&str, bool); 2] = [("a", false), ("srv", true)];
const PREFERENCES: [(&str, Prefer); 3] = {
    let [a, b, c] = Prefer::ALL;
    [(a.as_str(), a), (b.as_str(), b), (c.as_str(), c)]
};

/// The sources of one pool, no two of which ask the same.
pub(super) fn check(raw: &[Spanned<Table<RawDiscover>>], pool: &Scope, report: &mut Report) -> Vec<Discover> {
    let mut labels = BTreeSet::new();
    let mut sources = Vec::new();
    if let Some(one_more) = raw.get(SOURCES_MAX) {
        let spot = Spot::Byte(one_more.span().start);
        report.add(pool, &spot, format_args!("discover: at most {SOURCES_MAX} sources, got {}", raw.len()));
    }
    for (index, raw) in raw.iter().enumerate() {
        let spot = Spot::Byte(raw.span().start);
        let raw = raw.get_ref();
        let written = raw.name.as_ref().and_then(|name| report.written_at(name.span().start));
        let named = written.or_else(|| str_of(&raw.name)).map_or_else(|| format!("#{}", index + 1), quote);
        let scope = pool.part(spot, &format!("discover {named}"));
        let mut read = Reader { report: &mut *report, scope: &scope };
        let Some(source) = source(raw, &mut read) else { continue };
        if labels.insert(source.label()) {
            sources.push(source);
        } else {
            read.wrong("name", &raw.name, "another [[pool.discover]] asks the same");
        }
    }
    sources
}

/// What one table says; `None` if what is asked cannot be known from it.
fn source(raw: &RawDiscover, read: &mut Reader<'_>) -> Option<Discover> {
    if raw.kind.is_none() {
        read.wrong("type", &raw.kind, "missing, write type = \"dns\"");
    }
    read.choice("type", &raw.kind, &TYPES);
    let record = record(raw, read);
    let prefer = read.choice("prefer", &raw.prefer, &PREFERENCES);
    let resolvers = resolvers(read, &raw.resolver);
    let stale = stale(read, &raw.stale);
    let obsolete = read.whole("obsolete", &raw.obsolete, 0..=OBSOLETE_MAX);
    let negatives = read.whole("negatives", &raw.negatives, ANSWERS);
    let min_backends = read.whole("min_backends", &raw.min_backends, 0..=MIN_BACKENDS_MAX);
    let interval = read.duration("interval", &raw.interval, DISCOVER_INTERVAL, None);
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
    let default = Discover::new(name.to_ascii_lowercase(), record?);
    Some(Discover {
        resolvers,
        prefer: prefer.unwrap_or(default.prefer),
        stale,
        obsolete: obsolete.unwrap_or(default.obsolete),
        negatives: negatives.unwrap_or(default.negatives),
        min_backends: min_backends.unwrap_or(default.min_backends),
        interval,
        ..default
    })
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

fn stale(read: &mut Reader<'_>, key: &Key) -> Option<Duration> {
    let text = key.as_ref()?.get_ref().as_str().unwrap_or_default();
    if text == FOREVER {
        return None;
    }
    if parse_duration(text).is_err() {
        read.wrong("stale", key, format_args!("must be \"{FOREVER}\" or a duration like \"1h\""));
        return None;
    }
    read.duration("stale", key, STALE, None)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides};

    fn parse(keys: &str) -> Result<Vec<Discover>, Vec<String>> {
        let text = format!(
            "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\n[[pool.discover]]\n{keys}\n"
        );
        let no_names = &mut |_: &str| Ok(Vec::new());
        match config::parse(&text, "test", &Overrides::default(), no_names) {
            Ok(config) => Ok(config.pools.into_iter().flat_map(|pool| pool.discover).collect()),
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn a_name_and_a_port_are_enough_and_need_no_backend_beside_them() {
        let found = parse("type = \"dns\"\nname = \"Web.Service.Local.\"\nport = 80").unwrap();
        let expected = "type=dns name=web.service.local. record=a port=80 prefer=4 stale=forever obsolete=1 \
                        negatives=3 min_backends=0";
        assert_eq!(found[0].to_string(), expected);
        assert_eq!(found[0].label(), "dns:web.service.local:80");
    }

    /// The dot was dropped, and with it the only way around the search list of resolv.conf(5).
    #[test]
    fn a_dot_at_the_end_is_kept_where_there_is_a_search_list() {
        for (keys, expected) in [
            ("name = \"web.local.\"", "web.local."),
            ("name = \"web.local\"", "web.local"),
            ("name = \"web.local.\"\nresolver = [\"127.0.0.1:53\"]", "web.local"),
        ] {
            let found = parse(&format!("type = \"dns\"\nport = 80\n{keys}")).unwrap();
            assert_eq!((found[0].name.as_str(), found[0].label().as_str()), (expected, "dns:web.local:80"));
        }
    }

    #[test]
    fn all_keys_are_shown_as_they_were_set() {
        let found = parse(
            "type = \"dns\"\nname = \"_http._tcp.web\"\nrecord = \"srv\"\nresolver = [\"127.0.0.1:8600\", \"[::1]:53\"]\n\
             prefer = \"both\"\nstale = \"1h\"\nobsolete = 0\nnegatives = 5\nmin_backends = 2\ninterval = \"100ms\"",
        )
        .unwrap();
        let expected = "type=dns name=_http._tcp.web record=srv resolver=127.0.0.1:8600,[::1]:53 prefer=both stale=1h \
                        obsolete=0 negatives=5 min_backends=2 interval=100ms";
        assert_eq!(found[0].to_string(), expected);
        assert_eq!(found[0].label(), "dns-srv:_http._tcp.web");
    }

    #[test]
    fn every_mistake_is_shown_with_what_would_be_right() {
        let good = "type = \"dns\"\nname = \"web\"\nport = 80\n";
        for (keys, words) in [
            ("name = \"web\"\nport = 80", "type: missing, write type = \"dns\""),
            ("type = \"dsn\"\nname = \"web\"\nport = 80", "must be one of dns, got \"dsn\""),
            ("type = \"dns\"\nport = 80", "name: missing"),
            ("type = \"dns\"\nname = \"web\"", "port: missing"),
            ("type = \"dns\"\nname = \"web\"\nrecord = \"srv\"\nport = 80", "have their own"),
            ("type = \"dns\"\nname = \"10.0.0.1\"\nport = 80", "needs no discovery"),
            ("type = \"dns\"\nname = \"a..b\"\nport = 80", "must be a name like"),
            ("type = \"dns\"\nname = \"web:80\"\nport = 80", "must be a name like"),
            (&format!("{good}resolver = \"127.0.0.1\""), "must be a list of addresses"),
            (&format!("{good}resolver = [\"dns.local:53\"]"), "IP and port, got \"dns.local:53\""),
            (&format!("{good}resolver = []"), "1..=8 of them, got 0"),
            (&format!("{good}stale = \"never\""), "must be \"forever\" or a duration"),
            (&format!("{good}interval = \"50ms\""), "must be 100ms..=1h"),
            (&format!("{good}negatives = 0"), "must be 1..=100"),
            (&format!("{good}[[pool.discover]]\n{good}"), "another [[pool.discover]] asks the same"),
        ] {
            let errors = parse(keys).unwrap_err();
            assert!(errors.iter().any(|error| error.contains(words)), "{keys}: {errors:?}");
        }
    }
}
