//! One `[[pool.discover]]`: a source of backends that come and go by themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use toml::Spanned;

use super::reader::{Reader, quote, str_of};
use super::tls::Trust;
use crate::config::discover::{Discover, FOREVER, Initial, Kind, WhenAbsent};
use crate::config::parse::raw::{Key, RawDiscover, Table};
use crate::config::parse::report::{Report, Scope, Spot};
use crate::config::ranges::{ANSWERS, DISCOVER_INTERVAL, MIN_BACKENDS_MAX, OBSOLETE_MAX, SOURCES_MAX, STALE};
use crate::config::units::parse_duration;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Dns,
    File,
    Http,
    Etcd,
}

const TYPES: [(&str, Type); 4] =
    [("dns", Type::Dns), ("file", Type::File), ("http", Type::Http), ("etcd", Type::Etcd)];
const INITIALS: [(&str, Initial); 3] = {
    let [a, b, c] = Initial::ALL;
    [(a.as_str(), a), (b.as_str(), b), (c.as_str(), c)]
};

/// The sources of one pool, no two of which ask the same.
pub(super) fn check(
    raw: &[Spanned<Table<RawDiscover>>],
    pool: &Scope,
    trust: &mut Trust,
    report: &mut Report,
) -> Vec<Discover> {
    let mut labels = BTreeSet::new();
    let mut sources = Vec::new();
    if let Some(one_more) = raw.get(SOURCES_MAX) {
        let spot = Spot::Byte(one_more.span().start);
        report.add(pool, &spot, format_args!("discover: at most {SOURCES_MAX} sources, got {}", raw.len()));
    }
    for (index, raw) in raw.iter().enumerate() {
        let scope = scope_of(raw, index, pool, report);
        let raw = raw.get_ref();
        let mut read = Reader { report: &mut *report, scope: &scope };
        let Some(source) = source(raw, &mut read, trust) else { continue };
        if labels.insert(source.label()) {
            sources.push(source);
        } else {
            let (key, value) = match source.kind {
                Kind::Dns(_) => ("name", &raw.name),
                Kind::File(_) => ("path", &raw.path),
                Kind::Http(_) => ("url", &raw.url),
                // Only `address` of a [[pool.backend]] makes one.
                Kind::Host(_) => continue,
                Kind::Etcd(_) => ("prefix", &raw.prefix),
            };
            read.wrong(key, value, "another [[pool.discover]] asks the same");
        }
    }
    sources
}

/// The name of the `index`-th table in messages.
fn scope_of(raw: &Spanned<Table<RawDiscover>>, index: usize, pool: &Scope, report: &Report) -> Scope {
    let table = raw.get_ref();
    let name = [&table.name, &table.path].into_iter().find(|name| name.is_some());
    let name = name.unwrap_or(&table.prefix);
    let written = name.as_ref().and_then(|name| report.written_at(name.span().start));
    let named = written.or_else(|| str_of(name)).map_or_else(|| format!("#{}", index + 1), quote);
    pool.part(Spot::Byte(raw.span().start), &format!("discover {named}"))
}

/// Reports the sources of one pool that need a state file. Must be called where there is none.
pub(super) fn refuse_state_file(raw: &[Spanned<Table<RawDiscover>>], pool: &Scope, report: &mut Report) {
    for (index, raw) in raw.iter().enumerate() {
        let initial = &raw.get_ref().initial;
        if str_of(initial) == Some(Initial::StateFile.as_str()) {
            let scope = scope_of(raw, index, pool, report);
            let mut read = Reader { report: &mut *report, scope: &scope };
            read.wrong("initial", initial, "\"state_file\" needs a file: set state_file in [admin]");
        }
    }
}

/// Reports the sources of one pool that ask its checks. Must be called where there are none.
pub(super) fn refuse_unchecked(raw: &[Spanned<Table<RawDiscover>>], pool: &Scope, report: &mut Report) {
    for (index, raw) in raw.iter().enumerate() {
        let when_absent = &raw.get_ref().when_absent;
        if str_of(when_absent) == Some(WhenAbsent::KeepWhileHealthy.as_str()) {
            let scope = scope_of(raw, index, pool, report);
            let mut read = Reader { report: &mut *report, scope: &scope };
            let what = "\"keep_while_healthy\" needs checks, and [pool.health] has type = \"off\"";
            read.wrong("when_absent", when_absent, what);
        }
    }
}

/// Returns the source of one table; `None` if its question cannot be known from it.
fn source(raw: &RawDiscover, read: &mut Reader<'_>, trust: &mut Trust) -> Option<Discover> {
    if raw.kind.is_none() {
        read.wrong("type", &raw.kind, "missing, write type = \"dns\", \"file\", \"http\" or \"etcd\"");
    }
    let kind = read.choice("type", &raw.kind, &TYPES)?;
    no_others(kind, raw, read);
    let stale = stale(read, &raw.stale);
    let obsolete = read.whole("obsolete", &raw.obsolete, 0..=OBSOLETE_MAX);
    let negatives = read.whole("negatives", &raw.negatives, ANSWERS);
    let min_backends = read.whole("min_backends", &raw.min_backends, 0..=MIN_BACKENDS_MAX);
    let initial = read.choice("initial", &raw.initial, &INITIALS);
    let interval = read.duration("interval", &raw.interval, DISCOVER_INTERVAL, None);
    let default = Discover::new(match kind {
        Type::Dns => Kind::Dns(dns::check(raw, read)?),
        Type::File => Kind::File(file::check(raw, read)?),
        Type::Http => Kind::Http(http::check(raw, read, trust)?),
        Type::Etcd => Kind::Etcd(etcd::check(raw, read, trust)?),
    });
    Some(Discover {
        stale,
        obsolete: obsolete.unwrap_or(default.obsolete),
        negatives: negatives.unwrap_or(default.negatives),
        min_backends: min_backends.unwrap_or(default.min_backends),
        interval: interval.or(default.interval),
        initial: initial.unwrap_or(default.initial),
        ..default
    })
}

/// Reports keys that mean nothing with this type.
fn no_others(kind: Type, raw: &RawDiscover, read: &mut Reader<'_>) {
    const ASKED: &[Type] = &[Type::Dns, Type::Http];
    if raw.tls.is_some() && !matches!(kind, Type::Http | Type::Etcd) {
        read.wrong_at("tls", raw.tls.as_ref(), "goes with type = \"http\" and \"etcd\" only");
    }
    let keys: [(&str, &Key, &[Type]); 15] = [
        ("name", &raw.name, &[Type::Dns]),
        ("record", &raw.record, &[Type::Dns]),
        ("port", &raw.port, &[Type::Dns]),
        ("resolver", &raw.resolver, &[Type::Dns]),
        ("prefer", &raw.prefer, &[Type::Dns]),
        ("path", &raw.path, &[Type::File]),
        ("url", &raw.url, &[Type::Http]),
        ("token_file", &raw.token_file, &[Type::Http]),
        ("prefix", &raw.prefix, &[Type::Etcd]),
        ("endpoints", &raw.endpoints, &[Type::Etcd]),
        ("user", &raw.user, &[Type::Etcd]),
        ("password_file", &raw.password_file, &[Type::Etcd]),
        ("when_absent", &raw.when_absent, &[Type::Etcd]),
        // What a file or etcd lists is all there is.
        ("obsolete", &raw.obsolete, ASKED),
        ("negatives", &raw.negatives, ASKED),
    ];
    for (name, key, types) in keys {
        if key.is_some() && !types.contains(&kind) {
            let word = |kind| TYPES.iter().find(|(_, other)| *other == kind).map_or("", |(word, _)| word);
            let types: Vec<String> = types.iter().map(|kind| format!("{:?}", word(*kind))).collect();
            let (types, got) = (types.join(" and "), word(kind));
            read.wrong(name, key, format_args!("goes with type = {types}, not with {got:?}"));
        }
    }
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

mod dns;
mod etcd;
pub(super) mod file;
mod http;

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

    fn name_of(source: &Discover) -> &str {
        let Kind::Dns(dns) = &source.kind else { panic!("{source}") };
        &dns.name
    }

    #[test]
    fn a_name_and_a_port_are_enough_and_need_no_backend_beside_them() {
        let found = parse("type = \"dns\"\nname = \"Web.Service.Local.\"\nport = 80").unwrap();
        let expected = "type=dns name=web.service.local. record=a port=80 prefer=4 stale=forever obsolete=1 \
                        negatives=3 min_backends=0 initial=empty";
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
            assert_eq!((name_of(&found[0]), found[0].label().as_str()), (expected, "dns:web.local:80"));
        }
    }

    #[test]
    fn all_keys_are_shown_as_they_were_set() {
        let found = parse(
            "type = \"dns\"\nname = \"_http._tcp.web\"\nrecord = \"srv\"\nresolver = [\"127.0.0.1:8600\", \"[::1]:53\"]\n\
             prefer = \"both\"\nstale = \"1h\"\nobsolete = 0\nnegatives = 5\nmin_backends = 2\ninitial = \"fail\"\n\
             interval = \"100ms\"",
        )
        .unwrap();
        let expected = "type=dns name=_http._tcp.web record=srv resolver=127.0.0.1:8600,[::1]:53 prefer=both stale=1h \
                        obsolete=0 negatives=5 min_backends=2 initial=fail interval=100ms";
        assert_eq!(found[0].to_string(), expected);
        assert_eq!(found[0].label(), "dns-srv:_http._tcp.web");
    }

    #[test]
    fn every_mistake_is_shown_with_what_would_be_right() {
        let good = "type = \"dns\"\nname = \"web\"\nport = 80\n";
        for (keys, words) in [
            ("name = \"web\"\nport = 80", "type: missing, write type = \"dns\""),
            (
                "type = \"dsn\"\nname = \"web\"\nport = 80",
                "must be one of dns, file, http, etcd, got \"dsn\"",
            ),
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
            (&format!("{good}initial = \"last\""), "must be one of empty, state_file, fail, got \"last\""),
            (
                &format!("{good}initial = \"state_file\""),
                "initial: \"state_file\" needs a file: set state_file in [admin]",
            ),
            (&format!("{good}[[pool.discover]]\n{good}"), "name: another [[pool.discover]] asks the same"),
            (&format!("{good}path = \"a.json\""), "path: goes with type = \"file\", not with \"dns\""),
            (&format!("{good}token_file = \"a\""), "token_file: goes with type = \"http\", not with \"dns\""),
            ("type = \"file\"", "path: missing, write path = \"backends.json\""),
            ("type = \"file\"\npath = \"a.yml\"", "path: must end with .json or .toml"),
            ("type = \"file\"\npath = \"\"", "path: must be the path of a file, got \"\""),
            ("type = \"file\"\npath = \"a\\nb.json\"", "path: must be the path of a file"),
            (
                "type = \"file\"\npath = \"a.json\"\nport = 80",
                "port: goes with type = \"dns\", not with \"file\"",
            ),
            (
                "type = \"file\"\npath = \"a.json\"\nobsolete = 1",
                "discover \"a.json\": obsolete: goes with type = \"dns\" and \"http\", not with \"file\"",
            ),
            (
                "type = \"file\"\npath = \"a.json\"\n[[pool.discover]]\ntype = \"file\"\npath = \"a.json\"",
                "path: another [[pool.discover]] asks the same",
            ),
            ("type = \"http\"", "url: missing, write url = \"http://127.0.0.1:8080/backends.json\""),
        ] {
            let errors = parse(keys).unwrap_err();
            assert!(errors.iter().any(|error| error.contains(words)), "{keys}: {errors:?}");
        }
    }

    #[test]
    fn a_file_needs_its_path_alone() {
        let found = parse("type = \"file\"\npath = \"/etc/web.json\"").unwrap();
        let expected = "type=file path=/etc/web.json stale=forever min_backends=0 initial=empty interval=10s";
        assert_eq!((found[0].to_string().as_str(), found[0].obsolete), (expected, 0));
        assert_eq!(found[0].label(), "file:/etc/web.json");
        let found = parse(
            "type = \"file\"\npath = \"web.toml\"\nstale = \"1h\"\nmin_backends = 2\ninterval = \"1s\"",
        )
        .unwrap();
        assert_eq!(
            found[0].to_string(),
            "type=file path=web.toml stale=1h min_backends=2 initial=empty interval=1s"
        );
    }

    #[test]
    fn etcd_needs_a_prefix_and_its_members() {
        let found =
            parse("type = \"etcd\"\nprefix = \"/l4lb/web/\"\nendpoints = [\"http://127.0.0.1:2379/\"]")
                .unwrap();
        let expected = "type=etcd prefix=/l4lb/web/ endpoints=127.0.0.1:2379 when_absent=remove stale=forever \
                        min_backends=0 initial=empty interval=5s";
        assert_eq!((found[0].to_string().as_str(), found[0].obsolete), (expected, 0));
        assert_eq!(found[0].label(), "etcd:/l4lb/web/");
        let found = parse(
            "type = \"etcd\"\nprefix = \"/l4lb/web/\"\nendpoints = [\"127.0.0.1:2379\", \"https://[::1]:2379\"]\ntls = { server_name = \"a.test\", verify = \"none\" }\nuser = \"lb\"\n\
             password_file = \"/etc/lb.password\"\nwhen_absent = \"keep_while_healthy\"\nmin_backends = 2\ninterval = \"1s\"",
        )
        .unwrap();
        let expected = "type=etcd prefix=/l4lb/web/ endpoints=127.0.0.1:2379,[::1]:2379 \
                        tls={ verify = none, server_name = \"a.test\" } user=lb \
                        password_file=/etc/lb.password when_absent=keep_while_healthy stale=forever min_backends=2 \
                        initial=empty interval=1s";
        assert_eq!(found[0].to_string(), expected);
    }

    #[test]
    fn every_mistake_about_etcd_is_shown_and_no_password() {
        let with = |prefix: &str, more: &str| format!("type = \"etcd\"\nprefix = \"{prefix}\"\n{more}");
        let members = |list: &str| with("/l4lb/web/", &format!("endpoints = {list}"));
        let good = members("[\"127.0.0.1:2379\"]");
        for (keys, words) in [
            ("type = \"etcd\"".to_owned(), "prefix: missing, write prefix = \"/l4lb/web/\""),
            (with("/l4lb/web", "endpoints = [\"127.0.0.1:2379\"]"), "must end with a slash like"),
            (with("", "endpoints = [\"127.0.0.1:2379\"]"), "must be 1..=256 printable characters"),
            (with("/a b/", "endpoints = [\"127.0.0.1:2379\"]"), "must be 1..=256 printable characters"),
            (with("/l4lb/web/", ""), "discover \"/l4lb/web/\": endpoints: missing, write endpoints = "),
            (members("\"127.0.0.1:2379\""), "must be a list of addresses like"),
            (members("[]"), "1..=8 of them, got 0"),
            (members("[\"etcd.local:2379\"]"), "IP and port, got \"etcd.local:2379\""),
            (members("[\"127.0.0.1:0\"]"), "IP and port, got \"127.0.0.1:0\""),
            (members("[7]"), "IP and port, got 7"),
            (members("[\"127.0.0.1:1\", \"http://127.0.0.1:1\"]"), "127.0.0.1:1 is there twice"),
            (
                members("[\"https://127.0.0.1:1\", \"http://127.0.0.1:2\"]"),
                "must be http:// without TLS, or all https://",
            ),
            (
                format!("{}\ntls = true", members("[\"http://127.0.0.1:2\"]")),
                "must be http:// without TLS, or all https://",
            ),
            (format!("{good}\ntls = {{ alpn = [\"h2\"] }}"), "tls: alpn: goes with a check only"),
            (
                format!("{}\ntls = false", members("[\"https://127.0.0.1:1\"]")),
                "tls: must not be false with https://",
            ),
            (
                "type = \"file\"\npath = \"a.json\"\ntls = true".into(),
                "tls: goes with type = \"http\" and \"etcd\" only",
            ),
            (
                "type = \"http\"\nurl = \"http://a/\"\ntls = true".into(),
                "tls: goes with https://, which the url has not",
            ),
            (members("[\"http://me:secret@127.0.0.1:2379\"]"), "must have no user and no password"),
            (members("[\"https://me:secret@127.0.0.1:2379\"]"), "must have no user and no password"),
            (format!("{good}\nuser = \"lb\""), "user: needs its password: write password_file too"),
            (format!("{good}\npassword_file = \"a\""), "password_file: needs the name of its user"),
            (format!("{good}\nuser = \"a b\"\npassword_file = \"a\""), "user: must be 1..=256 printable"),
            (format!("{good}\nwhen_absent = \"keep\""), "must be one of remove, keep_while_healthy"),
            (
                format!("{good}\nwhen_absent = \"keep_while_healthy\"\n[pool.health]\ntype = \"off\""),
                "when_absent: \"keep_while_healthy\" needs checks",
            ),
            (format!("{good}\nnegatives = 3"), "goes with type = \"dns\" and \"http\", not with \"etcd\""),
            (format!("{good}\n[[pool.discover]]\n{good}"), "prefix: another [[pool.discover]] asks the same"),
            (
                "type = \"file\"\npath = \"a.json\"\nprefix = \"/a/\"".into(),
                "prefix: goes with type = \"etcd\", not with \"file\"",
            ),
        ] {
            let errors = parse(&keys).unwrap_err();
            assert!(errors.iter().any(|error| error.contains(words)), "{keys}: {errors:?}");
            assert!(errors.iter().all(|error| !error.contains("secret")), "{keys}: {errors:?}");
        }
    }

    #[test]
    fn a_url_is_taken_apart_and_shown_as_it_was() {
        let found = parse("type = \"http\"\nurl = \"http://Inventory.local/web?zone=a\"").unwrap();
        let expected = "type=http url=http://inventory.local/web?zone=a stale=forever obsolete=1 negatives=3 \
                        min_backends=0 initial=empty interval=10s";
        assert_eq!(found[0].to_string(), expected);
        assert_eq!(found[0].label(), "http://inventory.local/web?zone=a");
        for (url, address, path) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", "/"),
            ("http://[::1]:8080/a", "[::1]:8080", "/a"),
            ("http://web.local?a", "web.local:80", "/?a"),
            ("HTTP://web.local/", "web.local:80", "/"),
        ] {
            let found = parse(&format!("type = \"http\"\nurl = \"{url}\"")).unwrap();
            let Kind::Http(http) = &found[0].kind else { panic!("{}", found[0]) };
            assert_eq!((http.url.address.to_string().as_str(), http.url.path.as_str()), (address, path));
        }
    }

    /// A password in a message would be in the log.
    #[test]
    fn every_mistake_in_a_url_is_shown_and_no_password() {
        for (url, words) in [
            ("web.local/backends.json", "must be a URL like \"http://127.0.0.1:8080/backends.json\""),
            ("/backends.json", "must be a URL like"),
            ("ftp://web.local/", "must be a URL like"),
            ("http://", "must be a URL like"),
            ("http://web.local:/", "must be a URL like"),
            ("http://web.local:0/", "port must be 1..=65535"),
            ("http://web.local:99999/", "must be"),
            ("http://224.0.0.1/", "must not be a multicast"),
            ("http://web.local/#a", "must have no #"),
            ("ftp://web.local/", "must be a URL like \"http://127.0.0.1:8080/backends.json\""),
            ("http://me:secret@web.local/", "must have no user and no password"),
            ("https://me:secret@web.local/", "must have no user and no password"),
        ] {
            let errors = parse(&format!("type = \"http\"\nurl = \"{url}\"")).unwrap_err();
            assert!(errors.iter().any(|error| error.contains(words)), "{url}: {errors:?}");
            assert!(errors.iter().all(|error| !error.contains("secret")), "{url}: {errors:?}");
        }
    }
}
