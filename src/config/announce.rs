//! `[announce]`: the records by which clients find this process in DNS. A record is a key of etcd, as CoreDNS and SkyDNS
//! read them: the labels of its name in reverse order, and an object with `host`, `port` and `ttl`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::cluster::Cluster;
use super::units::show_duration;

/// Which records are kept, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The cluster that has them.
    pub cluster: Cluster,
    /// What its keys begin with; ends with a slash.
    pub prefix: String,
    /// The name below which clients find all that announce themselves, in lower case.
    pub domain: String,
    /// The label of this process below those of its listeners.
    pub name: String,
    /// What clients dial where a listener accepts at every address of this machine.
    pub addresses: Vec<IpAddr>,
    /// How long resolvers may keep a record.
    pub ttl: Duration,
    /// After this time without a renewal there are no records.
    pub lease: Duration,
    /// A listener has records only while its pool has an eligible backend.
    pub only_with_backends: bool,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// The key.
    pub key: String,
    /// An object in JSON.
    pub value: String,
}

impl Announce {
    /// Returns the records of a listener of that name: one for each address that clients dial, none where there is no such
    /// address.
    pub fn records(&self, listener: &str, bind: SocketAddr) -> Vec<Record> {
        let dialed = self.dialed(bind);
        let labels: Vec<&str> = self.domain.split('.').rev().collect();
        let label = label_of(listener);
        let key = format!("{}{}/{label}/{}", self.prefix, labels.join("/"), self.name);
        let is_only = dialed.len() == 1;
        let records = dialed.into_iter().zip(1..).map(|(ip, number)| Record {
            key: if is_only { key.clone() } else { format!("{key}/{number}") },
            value: serde_json::json!({
                "host": ip.to_string(),
                "port": bind.port(),
                "ttl": self.ttl.as_secs(),
            })
            .to_string(),
        });
        records.collect()
    }

    /// Returns the name of a listener in DNS.
    pub fn name_of(&self, listener: &str) -> String {
        format!("{}.{}", label_of(listener), self.domain)
    }

    /// Returns the addresses at which clients reach a listener that is bound there.
    fn dialed(&self, bind: SocketAddr) -> Vec<IpAddr> {
        match bind.ip() {
            IpAddr::V4(any) if any.is_unspecified() => {
                self.addresses.iter().copied().filter(IpAddr::is_ipv4).collect()
            }
            // It accepts clients of both families.
            IpAddr::V6(any) if any.is_unspecified() => self.addresses.clone(),
            IpAddr::V4(_) | IpAddr::V6(_) => vec![bind.ip().to_canonical()],
        }
    }

    /// Its keys with their values; `None` where one is not set.
    pub(super) fn keys(&self) -> Vec<(&'static str, Option<String>)> {
        let Self { cluster, prefix, domain, name, addresses, ttl, lease, only_with_backends } = self;
        let mut keys = vec![("domain", Some(domain.clone())), ("name", Some(name.clone()))];
        let listed: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        keys.push(("addresses", Some(listed.join(",")).filter(|_| !addresses.is_empty())));
        keys.push(("prefix", Some(prefix.clone())));
        keys.extend(cluster.keys());
        keys.extend([
            ("ttl", Some(show_duration(*ttl))),
            ("lease", Some(show_duration(*lease))),
            ("only_with_backends", Some(only_with_backends.to_string())),
        ]);
        keys
    }
}

impl fmt::Display for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("announce:")?;
        for (key, value) in self.keys() {
            value.map_or(Ok(()), |value| write!(f, " {key}={value}"))?;
        }
        Ok(())
    }
}

/// Returns the name of a listener as a label: "0.0.0.0:80" is "0-0-0-0-80".
pub(super) fn label_of(name: &str) -> String {
    let dashed = |byte: char| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { '-' };
    let label: String = name.chars().map(dashed).collect();
    label.trim_matches('-').to_owned()
}

/// Longest label, and longest name (RFC 1035, 2.3.4).
const LABEL_LEN_MAX: usize = 63;
const DOMAIN_LEN_MAX: usize = 253;

/// Returns whether a host may have this label.
pub(super) fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=LABEL_LEN_MAX).contains(&text.len())
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Returns whether it is a name of such labels, without a dot at its end.
pub(super) fn is_domain(text: &str) -> bool {
    text.len() <= DOMAIN_LEN_MAX && text.split('.').all(is_label)
}
