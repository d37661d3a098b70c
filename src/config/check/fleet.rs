//! `[fleet]`: where, and under which name.

use std::time::Duration;

use toml::Spanned;

use super::cluster;
use super::reader::{Reader, check_name, spot_of_table};
use super::tls::Trust;
use crate::config::announce::Announce;
use crate::config::cluster::check_prefix;
use crate::config::fleet::Fleet;
use crate::config::parse::raw::{RawFleet, Table};
use crate::config::parse::report::{Report, Scope};
use crate::config::ranges::LEASE;

/// No pool is called so: `l4lb register` puts the backends of a pool below `/l4lb/POOL/`.
const PREFIX: &str = "/l4lb-fleet/";
const DEFAULT_LEASE: Duration = Duration::from_secs(5);

/// The table; `None` where there is none, or a key that must be there is missing or wrong. The cluster and the name are
/// those of `announce` unless they are set.
pub(super) fn check(
    raw: Option<&Spanned<Table<RawFleet>>>,
    announce: Option<&Announce>,
    trust: &mut Trust,
    report: &mut Report,
) -> Option<Fleet> {
    let scope = Scope::new(spot_of_table(raw), "fleet");
    let raw = raw?.get_ref();
    let mut read = Reader { report, scope: &scope };
    let has_own = raw.endpoints.is_some() || raw.tls.is_some() || raw.user.is_some();
    let cluster = match announce {
        Some(announce) if !has_own && raw.password_file.is_none() => Some(announce.cluster.clone()),
        Some(_) | None => {
            cluster::check(&mut read, &raw.endpoints, &raw.user, &raw.password_file, raw.tls.as_ref(), trust)
        }
    };
    let prefix = match &raw.prefix {
        None => Some(PREFIX.to_owned()),
        key => cluster::checked(&mut read, "prefix", key, check_prefix),
    };
    let name = match (&raw.name, announce) {
        (None, Some(announce)) => Some(announce.name.clone()),
        (None, None) => {
            read.wrong("name", &raw.name, "missing, write name = \"lb1\"");
            None
        }
        (key, _) => cluster::checked(&mut read, "name", key, check_name),
    };
    let lease = read.whole_seconds("lease", &raw.lease, LEASE).unwrap_or(DEFAULT_LEASE);
    let leave_when_alone = read.boolean("leave_when_alone", &raw.leave_when_alone).unwrap_or(false);
    if leave_when_alone && announce.is_none() {
        read.wrong("leave_when_alone", &raw.leave_when_alone, "goes with [announce], which it ends");
    }
    Some(Fleet { cluster: cluster?, prefix: prefix?, name: name?, lease, leave_when_alone })
}

#[cfg(test)]
mod tests {
    use crate::config::model::Config;
    use crate::config::{Overrides, parse, system_resolver};

    fn read(text: &str) -> Result<Config, Vec<String>> {
        let text = format!("{text}\n[[pool]]\nbackend = [{{ address = \"127.0.0.1:1\" }}]\n");
        let config = parse(&text, "test.toml", &Overrides::default(), &mut system_resolver);
        config.map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    const HERE: &str = "[[listener]]\nbind = \"10.0.0.1:80\"";
    const MUST: &str = "endpoints = [\"127.0.0.1:2379\"]\nname = \"lb1\"\n";

    #[test]
    fn a_fleet_is_shown_with_its_defaults() {
        let config = read(&format!("[fleet]\n{MUST}{HERE}")).unwrap();
        let expected = "\nfleet: name=lb1 prefix=/l4lb-fleet/ endpoints=127.0.0.1:2379 lease=5s leave_when_alone=false\n";
        assert!(config.to_string().contains(expected), "{config}");
    }

    #[test]
    fn a_fleet_has_the_cluster_and_the_name_of_announce() {
        let announce = format!("[global]\nshutdown_delay = \"5s\"\n[announce]\n{MUST}domain = \"lb.test\"\n");
        let config = read(&format!("{announce}[fleet]\n{HERE}")).unwrap();
        let (announced, fleet) = (config.announce.unwrap(), config.fleet.unwrap());
        assert_eq!((fleet.cluster, fleet.name.as_str()), (announced.cluster, "lb1"));
        let own = "[fleet]\nendpoints = [\"127.0.0.2:2379\"]\nname = \"B\"\n";
        let fleet = read(&format!("{announce}{own}{HERE}")).unwrap().fleet.unwrap();
        assert_eq!(
            (fleet.cluster.endpoints[0].to_string().as_str(), fleet.name.as_str()),
            ("127.0.0.2:2379", "B")
        );
    }

    #[test]
    fn every_mistake_about_a_fleet_is_shown() {
        for (keys, words) in [
            ("", "fleet: endpoints: missing, write endpoints = "),
            ("", "fleet: name: missing, write name = \"lb1\""),
            ("name = \"a/b\"", "fleet: name: "),
            ("prefix = \"/fleet\"", "prefix: must end with a slash"),
            ("lease = \"1500ms\"", "lease: must be 2s..=10m"),
            ("lease = \"2500ms\"", "lease: must be whole seconds, got \"2500ms\""),
            ("leave_when_alone = true", "leave_when_alone: goes with [announce], which it ends"),
            ("user = \"a\"", "user: needs its password: write password_file too"),
        ] {
            let errors = read(&format!("[fleet]\n{keys}\n{HERE}")).unwrap_err();
            assert!(errors.iter().any(|error| error.contains(words)), "{keys}: {words}: {errors:?}");
        }
    }

    #[test]
    fn settings_of_one_machine_do_not_make_another_configuration() {
        let hash = |text: &str| read(text).unwrap().common_hash();
        let first = format!("[fleet]\n{MUST}{HERE}");
        let second = first.replace("lb1", "lb2").replace("10.0.0.1:80", "10.0.0.2:80");
        assert_eq!(
            hash(&first),
            hash(&format!("admin = {{ socket = false }}\nglobal = {{ workers = 3 }}\n{second}"))
        );
        assert_ne!(hash(&first), hash(&first.replace(":80", ":81")));
        assert_ne!(hash(&first), hash(&first.replace("[fleet]", "[fleet]\nprefix = \"/a/\"")));
    }
}
