//! The networks of the clients that a listener admits, and of those that it refuses.
//!
//! The longest network that has an address decides about it, and of two equal ones the denied. Where none has it, it is
//! admitted if nothing is allowed in particular.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::prefixes::Prefixes;
use crate::base::hash::hash;
use crate::base::network::Network;

/// The effect of a list on the clients of its networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// They are admitted.
    Allow,
    /// They are refused.
    Deny,
}

impl Rule {
    /// Returns the word for it, the key of its list in config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// How a value names a file, in front of its path.
pub const FILE: &str = "file:";

/// One value of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A network by itself.
    Network(Network),
    /// All networks of a file.
    File(ListFile),
}

/// A file with networks, as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFile {
    /// Where it is.
    pub path: PathBuf,
    networks: Vec<(u32, Network)>,
    /// Stands for the networks, wherever they are in the file.
    digest: u64,
}

impl ListFile {
    /// Returns the file with these networks, each with the number of its line, from 1.
    pub fn new(path: PathBuf, networks: Vec<(u32, Network)>) -> Self {
        let mut text = String::new();
        networks.iter().for_each(|(_, network)| text.extend([network.to_string().as_str(), "\n"]));
        let digest = hash(text.as_bytes(), 0) >> 32;
        Self { path, networks, digest }
    }
}

impl Item {
    /// Returns the value as it is written.
    pub fn written(&self) -> String {
        match self {
            Self::Network(network) => network.to_string(),
            Self::File(file) => format!("{FILE}{}", file.path.display()),
        }
    }

    /// Returns its networks, each with its line if it is in a file.
    fn networks(&self) -> impl Iterator<Item = (Option<u32>, Network)> {
        let (alone, of_file) = match self {
            Self::Network(network) => (Some((None, *network)), &[][..]),
            Self::File(file) => (None, &file.networks[..]),
        };
        alone.into_iter().chain(of_file.iter().map(|&(line, network)| (Some(line), network)))
    }
}

/// A file is shown with the number of its networks, and with a digest of them that is the same wherever they are.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written())?;
        let Self::File(file) = self else { return Ok(()) };
        write!(f, "({}@{:08x})", file.networks.len(), file.digest)
    }
}

/// The lists of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    allow: Vec<Item>,
    deny: Vec<Item>,
    /// The networks of both lists by the index in `places`.
    prefixes: Prefixes,
    places: Vec<Place>,
}

/// Where a network is in the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    rule: Rule,
    network: Network,
    item: u32,
    line: Option<u32>,
}

/// The answer for one client, and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// True when it is admitted.
    pub is_admitted: bool,
    /// The network that decides; `None` when no list has the address.
    pub by: Option<Decider<'a>>,
}

/// A network that decides about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decider<'a> {
    /// Its list.
    pub rule: Rule,
    /// The network as it is written.
    pub network: Network,
    /// The file that has it, and the line there; `None` for one of the configuration itself.
    pub place: Option<(&'a Path, u32)>,
}

impl Access {
    /// Returns the lists with these values. Fails to admit anyone where `allow` has only files without a network.
    pub fn new(allow: Vec<Item>, deny: Vec<Item>) -> Self {
        let of = |rule: Rule, items: &[Item]| -> Vec<Place> {
            let items = items.iter().zip(0..);
            let networks = items.flat_map(|(value, item)| {
                value.networks().map(move |(line, network)| Place { rule, network, item, line })
            });
            networks.collect()
        };
        // Of equal networks the first decides.
        let places = [of(Rule::Deny, &deny), of(Rule::Allow, &allow)].concat();
        let prefixes = Prefixes::new(places.iter().map(|place| place.network).zip(0..));
        Self { allow, deny, prefixes, places }
    }

    /// Returns the values of a list.
    pub fn items(&self, rule: Rule) -> &[Item] {
        match rule {
            Rule::Allow => &self.allow,
            Rule::Deny => &self.deny,
        }
    }

    /// Returns the number of networks in a list.
    pub fn networks(&self, rule: Rule) -> usize {
        self.places.iter().filter(|place| place.rule == rule).count()
    }

    /// Returns whether a client with this address is admitted. An IPv4 address in the form of IPv6 is the IPv4 address.
    pub fn admits(&self, client: IpAddr) -> bool {
        self.find(client).map_or(self.allow.is_empty(), |place| place.rule == Rule::Allow)
    }

    /// Returns the same with what decides.
    pub fn decide(&self, client: IpAddr) -> Decision<'_> {
        let by = self.find(client).map(|Place { rule, network, item, line }| {
            let place = match (self.items(*rule).get(*item as usize), line) {
                (Some(Item::File(file)), Some(line)) => Some((&*file.path, *line)),
                _ => None,
            };
            Decider { rule: *rule, network: *network, place }
        });
        Decision { is_admitted: self.admits(client), by }
    }

    fn find(&self, client: IpAddr) -> Option<&Place> {
        self.places.get(self.prefixes.find(client)? as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(text: &str) -> Item {
        match text.split_once('|') {
            None => Item::Network(text.parse().unwrap()),
            Some((path, networks)) => {
                let networks = networks.split_whitespace().map(|network| network.parse().unwrap());
                Item::File(ListFile::new(path.into(), (1..).zip(networks).collect()))
            }
        }
    }

    fn access(allow: &[&str], deny: &[&str]) -> Access {
        let [allow, deny] = [allow, deny].map(|items| items.iter().map(|text| item(text)).collect());
        Access::new(allow, deny)
    }

    #[test]
    fn the_longest_network_decides_and_of_equal_ones_the_denied() {
        let any: &[&str] = &[];
        for (allow, deny, client, expected) in [
            (any, &["192.0.2.0/24"][..], "192.0.2.1", false),
            (any, &["192.0.2.0/24"], "198.51.100.1", true),
            (&["10.0.0.0/8"], any, "10.9.9.9", true),
            (&["10.0.0.0/8"], any, "11.0.0.1", false),
            (&["10.0.0.0/8"], any, "::1", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", false),
            (&["10.0.0.0/8", "10.1.2.3"], &["10.1.0.0/16"], "10.1.2.3", true),
            (&["10.1.0.0/16"], &["10.1.0.0/16"], "10.1.2.3", false),
            (&["10.1.9.9/16"], &["10.1.0.0/16"], "10.1.2.3", false),
            (&["0.0.0.0/0"], &["0.0.0.0/0"], "1.2.3.4", false),
            (any, &["1.2.3.4"], "::ffff:1.2.3.4", false),
            (&["2001:db8::/32"], &["2001:db8:1::/48"], "2001:db8:1::1", false),
            (&["2001:db8::/32"], &["2001:db8:1::/48"], "2001:db8:2::1", true),
            (any, &["list|10.0.0.1 10.0.0.2"], "10.0.0.2", false),
            (&["empty|"], any, "10.0.0.2", false),
            (any, &["empty|"], "10.0.0.2", true),
            (any, any, "10.0.0.2", true),
        ] {
            let access = access(allow, deny);
            let client = client.parse().unwrap();
            assert_eq!(access.admits(client), expected, "{allow:?} {deny:?} {client}");
            assert_eq!(access.decide(client).is_admitted, expected);
        }
    }

    #[test]
    fn a_decision_names_the_list_the_network_and_its_line() {
        let access = access(&["10.0.0.0/8"], &["192.0.2.0/24", "/etc/deny|10.1.0.0/16 10.2.0.0/16"]);
        let by = |client: &str| access.decide(client.parse().unwrap()).by;
        let network = |text: &str| text.parse::<Network>().unwrap();
        let file = Some((Path::new("/etc/deny"), 2));
        let expected = Decider { rule: Rule::Deny, network: network("10.2.0.0/16"), place: file };
        assert_eq!(by("10.2.0.1"), Some(expected));
        let expected = Decider { rule: Rule::Allow, network: network("10.0.0.0/8"), place: None };
        assert_eq!(by("10.3.0.1"), Some(expected));
        assert_eq!(by("11.0.0.1"), None);
        assert_eq!((access.networks(Rule::Allow), access.networks(Rule::Deny)), (1, 3));
    }

    #[test]
    fn a_file_is_shown_with_a_digest_of_its_networks() {
        let shown = |text: &str| item(text).to_string();
        assert_eq!(shown("10.0.0.0/8"), "10.0.0.0/8");
        let one = shown("/a|10.0.0.0/8 ::1");
        assert!(one.starts_with("file:/a(2@") && one.ends_with(')'), "{one}");
        assert_ne!(one, shown("/a|10.0.0.0/8 ::2"));
        assert_eq!(item("/a|::1").written(), "file:/a");
    }

    fn networks() -> impl Strategy<Value = Vec<Network>> {
        let network = ([9_u8..11, 0..3, 0..3, 0..3], 6..=32_u8).prop_map(|(octets, prefix)| {
            format!("{}/{prefix}", IpAddr::from(octets)).parse().expect("a network")
        });
        prop::collection::vec(network, 0..8)
    }

    proptest! {
        #[test]
        fn lists_decide_as_the_rule_says(
            allow in networks(), deny in networks(), client in [9_u8..11, 0..3, 0..3, 0..3],
        ) {
            let client = IpAddr::from(client);
            let longest = |list: &[Network]| {
                list.iter().filter(|network| network.contains(client)).map(|network| network.prefix()).max()
            };
            let expected = match (longest(&allow), longest(&deny)) {
                (None, None) => allow.is_empty(),
                (allowed, denied) => allowed > denied,
            };
            let [allow, deny] = [allow, deny].map(|list| list.into_iter().map(Item::Network).collect());
            prop_assert_eq!(Access::new(allow, deny).admits(client), expected);
        }
    }
}
