//! `[announce]`: where, under which name, and for which addresses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use toml::Spanned;

use super::cluster;
use super::reader::{Reader, spot_of_table};
use super::tls::Trust;
use crate::config::announce::{Announce, is_domain, is_label, label_of};
use crate::config::cluster::check_prefix;
use crate::config::error::Invalid;
use crate::config::model::{Global, Listener};
use crate::config::parse::raw::{Key, RawAnnounce, Table};
use crate::config::parse::report::{Placed, Report, Scope};
use crate::config::ranges::{ADDRESSES_MAX, LEASE, RECORD_TTL, RECORDS_MAX};
use crate::config::units::show_duration;

/// Where the etcd plugin of CoreDNS looks unless it has a `path`.
const PREFIX: &str = "/skydns/";
const DEFAULT_TTL: Duration = Duration::from_secs(1);
const DEFAULT_LEASE: Duration = Duration::from_secs(5);

/// The table; `None` where there is none, or a key that must be there is missing or wrong.
pub(super) fn check(
    raw: Option<&Spanned<Table<RawAnnounce>>>,
    global: &Global,
    listeners: &[Placed<Listener>],
    trust: &mut Trust,
    report: &mut Report,
) -> Option<Announce> {
    let scope = Scope::new(spot_of_table(raw), "announce");
    let raw = raw?.get_ref();
    let mut read = Reader { report, scope: &scope };
    let cluster =
        cluster::check(&mut read, &raw.endpoints, &raw.user, &raw.password_file, raw.tls.as_ref(), trust);
    let prefix = match &raw.prefix {
        None => Some(PREFIX.to_owned()),
        key => cluster::checked(&mut read, "prefix", key, check_prefix),
    };
    let domain = name(&mut read, "domain", &raw.domain, "lb.example.org", is_domain);
    let label = name(&mut read, "name", &raw.name, "lb1", is_label);
    let addresses = addresses(&mut read, &raw.addresses);
    let ttl = read.whole_seconds("ttl", &raw.ttl, RECORD_TTL).unwrap_or(DEFAULT_TTL);
    let lease = read.whole_seconds("lease", &raw.lease, LEASE).unwrap_or(DEFAULT_LEASE);
    let only_with_backends = read.boolean("only_with_backends", &raw.only_with_backends).unwrap_or(false);
    if global.shutdown_delay < ttl {
        let (delay, ttl) = (show_duration(global.shutdown_delay), show_duration(ttl));
        let what = format_args!(
            "must be at most the shutdown_delay of [global], which is {delay}: clients dial by a record for {ttl} after \
             it has gone"
        );
        read.wrong("ttl", &raw.ttl, what);
    }
    let announce = Announce {
        cluster: cluster?,
        prefix: prefix?,
        domain: domain?,
        name: label?,
        addresses: addresses?,
        ttl,
        lease,
        only_with_backends,
    };
    of_listeners(&announce, listeners, &mut read, raw);
    Some(announce)
}

/// Every listener has a label of its own, and an address.
fn of_listeners(
    announce: &Announce,
    listeners: &[Placed<Listener>],
    read: &mut Reader<'_>,
    raw: &RawAnnounce,
) {
    let mut labels = HashMap::new();
    let mut count = 0;
    for Placed { item: listener, .. } in listeners {
        let (name, label) = (listener.name.as_str(), label_of(&listener.name));
        // Its own mistake is reported already.
        if name.is_empty() {
            continue;
        }
        if !is_label(&label) {
            let what =
                format_args!("listener {name:?} needs a shorter name, of which {label:?} is the label");
            read.wrong("domain", &raw.domain, what);
        }
        if let Some(other) = labels.insert(label.clone(), name) {
            let what = format_args!("the listeners {other:?} and {name:?} have the same label, {label:?}");
            read.wrong("domain", &raw.domain, what);
        }
        let records = announce.records(name, listener.bind).len();
        if records == 0 {
            let family = if listener.bind.is_ipv4() { "IPv4 " } else { "" };
            let what = format_args!(
                "listener {name:?} accepts at every address: name the {family}addresses of this machine that clients dial, \
                 like [\"10.0.0.1\"]"
            );
            read.wrong("addresses", &raw.addresses, what);
        }
        count += records;
    }
    if count > RECORDS_MAX {
        let what = format_args!("{count} records of all listeners, at most {RECORDS_MAX} can be kept");
        read.wrong("addresses", &raw.addresses, what);
    }
}

fn name(
    read: &mut Reader<'_>,
    key: &str,
    value: &Key,
    example: &str,
    is_good: fn(&str) -> bool,
) -> Option<String> {
    if value.is_none() {
        read.wrong(key, value, format_args!("missing, write {key} = {example:?}"));
    }
    let check = |text: &str| match is_good(text.trim_end_matches('.')) {
        true => Ok(()),
        false => Err(Invalid(format!("must be letters, digits and hyphens like {example:?}"))),
    };
    let text = cluster::checked(read, key, value, check)?;
    Some(text.trim_end_matches('.').to_ascii_lowercase())
}

fn addresses(read: &mut Reader<'_>, key: &Key) -> Option<Vec<IpAddr>> {
    const EXPECTED: &str = "must be a list of addresses like \"10.0.0.1\"";
    let Some(value) = key.as_ref().map(Spanned::get_ref) else { return Some(Vec::new()) };
    let Some(values) = value.as_array() else {
        read.wrong("addresses", key, format_args!("{EXPECTED}: write [\"10.0.0.1\"]"));
        return None;
    };
    if values.len() > ADDRESSES_MAX {
        let got = values.len();
        read.wrong("addresses", key, format_args!("{EXPECTED}, at most {ADDRESSES_MAX} of them, got {got}"));
        return None;
    }
    let mut found = Vec::new();
    for value in values {
        let address = value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
        match address.map(|address| address.to_canonical()) {
            Some(address)
                if address.is_unspecified() || address.is_multicast() || found.contains(&address) =>
            {
                let got = read.got_in(key, value);
                read.wrong(
                    "addresses",
                    key,
                    format_args!("{EXPECTED}, each one that clients dial, once; got {got}"),
                );
                return None;
            }
            Some(address) => found.push(address),
            None => {
                let got = read.got_in(key, value);
                read.wrong("addresses", key, format_args!("{EXPECTED}, without a port, got {got}"));
                return None;
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use crate::config::model::Config;
    use crate::config::{Overrides, parse, system_resolver};

    fn read(listeners: &str, keys: &str) -> Result<Config, Vec<String>> {
        let text = format!(
            "[global]\nshutdown_delay = \"5s\"\n[announce]\n{keys}\n{listeners}\n[[pool]]\n\
             backend = [{{ address = \"127.0.0.1:1\" }}]\n"
        );
        let config = parse(&text, "test.toml", &Overrides::default(), &mut system_resolver);
        config.map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    const HERE: &str = "[[listener]]\nname = \"Web_1\"\nbind = \"10.0.0.1:80\"";
    const MUST: &str = "endpoints = [\"127.0.0.1:2379\"]\ndomain = \"LB.example.org.\"\nname = \"Lb1\"\n";

    /// The records of all listeners.
    fn records(listeners: &str, keys: &str) -> Vec<(String, String)> {
        let config = read(listeners, &format!("{MUST}{keys}")).unwrap();
        let announce = config.announce.unwrap();
        let records = config.listeners.iter();
        let records = records.flat_map(|listener| announce.records(&listener.name, listener.bind));
        records.map(|record| (record.key, record.value)).collect()
    }

    fn record(key: &str, host: &str) -> (String, String) {
        (key.to_owned(), format!("{{\"host\":\"{host}\",\"port\":80,\"ttl\":1}}"))
    }

    #[test]
    fn a_listener_has_a_record_for_each_address_that_clients_dial() {
        let key = "/skydns/org/example/lb/web-1/lb1";
        assert_eq!(records(HERE, ""), [record(key, "10.0.0.1")]);
        let any = HERE.replace("10.0.0.1", "0.0.0.0");
        let addresses = "addresses = [\"10.0.0.2\", \"2001:db8::2\"]";
        assert_eq!(records(&any, addresses), [record(key, "10.0.0.2")]);
        let both = HERE.replace("10.0.0.1", "[::]");
        let [first, second] = [format!("{key}/1"), format!("{key}/2")];
        assert_eq!(records(&both, addresses), [record(&first, "10.0.0.2"), record(&second, "2001:db8::2")]);
        let unnamed = "[[listener]]\nbind = \"[2001:db8::1]:80\"";
        let expected = [record("/dns/org/example/lb/2001-db8--1--80/lb1", "2001:db8::1")];
        assert_eq!(records(unnamed, "prefix = \"/dns/\""), expected);
    }

    #[test]
    fn announce_is_shown_with_its_defaults() {
        let config = read(HERE, MUST).unwrap();
        let expected = "announce: domain=lb.example.org name=lb1 prefix=/skydns/ endpoints=127.0.0.1:2379 ttl=1s lease=5s \
                        only_with_backends=false";
        assert!(config.to_string().contains(&format!("\n{expected}\n")), "{config}");
    }

    #[test]
    fn every_mistake_about_announce_is_shown() {
        let other = format!("{HERE}\n[[listener]]\nname = \"web-1\"\nbind = \"10.0.0.1:81\"");
        let any = HERE.replace("10.0.0.1", "0.0.0.0");
        for (listeners, keys, words) in [
            (HERE, "", "announce: endpoints: missing, write endpoints = "),
            (HERE, "", "announce: domain: missing, write domain = \"lb.example.org\""),
            (HERE, "", "announce: name: missing, write name = \"lb1\""),
            (
                HERE,
                "domain = \"a b\"",
                "domain: must be letters, digits and hyphens like \"lb.example.org\"; got \"a b\"",
            ),
            (HERE, "name = \"a.b\"", "name: must be letters, digits and hyphens like \"lb1\"; got \"a.b\""),
            (HERE, "prefix = \"/skydns\"", "prefix: must end with a slash"),
            (HERE, "ttl = \"6s\"", "ttl: must be at most the shutdown_delay of [global], which is 5s"),
            (HERE, "ttl = \"1500ms\"", "ttl: must be whole seconds, got \"1500ms\""),
            (HERE, "lease = \"1s\"", "lease: must be 2s..=10m"),
            (HERE, "addresses = \"10.0.0.1\"", "addresses: must be a list of addresses like"),
            (HERE, "addresses = [\"10.0.0.1:80\"]", "without a port, got \"10.0.0.1:80\""),
            (HERE, "addresses = [\"0.0.0.0\"]", "each one that clients dial, once; got \"0.0.0.0\""),
            (
                &any,
                MUST,
                "listener \"Web_1\" accepts at every address: name the IPv4 addresses of this machine",
            ),
            (&other, MUST, "the listeners \"Web_1\" and \"web-1\" have the same label, \"web-1\""),
            (HERE, "user = \"a\"", "user: needs its password: write password_file too"),
        ] {
            let errors = read(listeners, keys).unwrap_err();
            assert!(errors.iter().any(|error| error.contains(words)), "{keys}: {words}: {errors:?}");
        }
    }
}
