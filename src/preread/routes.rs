//! Which route a client takes: by the server that it names, the protocols that it offers and its address.
//!
//! A name that is written out goes before one below another, and of those the longest; what names no server comes
//! last. Among equals the order of the file decides.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::alpn::Alpn;
use super::client_hello::ClientHello;
use super::server_name::ServerName;
use crate::base::network::Network;

/// The conditions of one route. All must hold; of the values of each one must. One without values always holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Names of the server.
    pub sni: Vec<ServerName>,
    /// Protocols, of which the client offers one.
    pub alpn: Vec<Box<[u8]>>,
    /// Addresses of the client.
    pub client: Vec<Network>,
}

impl Conditions {
    /// Returns whether all hold but those on the name.
    fn admit(&self, offered: &HashSet<&[u8]>, client: IpAddr) -> bool {
        let is_in = || self.client.iter().any(|network| network.contains(client));
        let offers = || self.alpn.iter().any(|protocol| offered.contains(&**protocol));
        (self.client.is_empty() || is_in()) && (self.alpn.is_empty() || offers())
    }

    /// Returns whether it takes all clients with that protocol and such an address; `None` is any.
    fn covers(&self, alpn: Option<&[u8]>, client: Option<Network>) -> bool {
        let has = |own: &[u8]| alpn.is_some_and(|protocol| *own == *protocol);
        let holds = |own: &Network| client.is_some_and(|network| own.covers(network));
        (self.alpn.is_empty() || self.alpn.iter().any(|own| has(own)))
            && (self.client.is_empty() || self.client.iter().any(holds))
    }
}

/// The routes of a listener, by their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    all: Vec<Conditions>,
    /// Of each name the routes that have it, in the order of the file.
    exact: HashMap<Box<str>, Vec<usize>>,
    below: HashMap<Box<str>, Vec<usize>>,
    /// Those for any name, and for none.
    nameless: Vec<usize>,
    /// The protocols of all of them.
    protocols: HashSet<Box<[u8]>>,
}

impl Routes {
    /// Returns the table of these routes.
    pub fn new(all: Vec<Conditions>) -> Self {
        let mut routes = Self::default();
        for (conditions, index) in all.iter().zip(0..) {
            routes.protocols.extend(conditions.alpn.iter().cloned());
            if conditions.sni.is_empty() {
                routes.nameless.push(index);
            }
            for name in &conditions.sni {
                let (table, name) = match name {
                    ServerName::Exact(name) => (&mut routes.exact, name),
                    ServerName::Below(name) => (&mut routes.below, name),
                };
                let those = table.entry(name.clone()).or_default();
                if those.last() != Some(&index) {
                    those.push(index);
                }
            }
        }
        Self { all, ..routes }
    }

    /// Returns the routes, in the order of the file.
    pub fn all(&self) -> &[Conditions] {
        &self.all
    }

    /// Returns the index of the route that a client takes; `None` when none is for it.
    pub fn find(&self, hello: &ClientHello, client: IpAddr) -> Option<usize> {
        let offered = self.known(&hello.alpn);
        let first =
            |those: &[usize]| those.iter().copied().find(|&index| self.all[index].admit(&offered, client));
        let name = hello.server_name.as_deref().unwrap_or_default();
        let exact = self.exact.get(name).and_then(|those| first(those));
        // From the longest to the shortest: what is behind each dot.
        let mut behind = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
        let below = || behind.find_map(|suffix| first(self.below.get(suffix)?));
        exact.or_else(below).or_else(|| first(&self.nameless))
    }

    /// Returns the protocols that a client offers and some route asks for: a hello has room for thousands of others.
    fn known<'a>(&self, offered: &'a Alpn) -> HashSet<&'a [u8]> {
        if self.protocols.is_empty() {
            return HashSet::new();
        }
        offered.iter().filter(|protocol| self.protocols.contains(*protocol)).collect()
    }

    /// Returns the routes that no client ever takes, because another one takes all of theirs: each with the index of
    /// one of those.
    pub fn never_taken(&self) -> Vec<(usize, usize)> {
        (0..self.all.len()).filter_map(|index| Some((index, self.covering(index)?))).collect()
    }

    /// Returns a route before this one, if those before it take all clients that it is for.
    fn covering(&self, index: usize) -> Option<usize> {
        let Conditions { sni, alpn, client } = &self.all[index];
        let mut before = None;
        let rivals: Vec<&[usize]> = match &sni[..] {
            [] => vec![&self.nameless],
            names => names.iter().map(|name| self.of(name)).collect(),
        };
        for those in rivals {
            for protocol in values(alpn.iter().map(|protocol| &**protocol)) {
                for network in values(client.iter().copied()) {
                    let takes = |&&rival: &&usize| rival < index && self.all[rival].covers(protocol, network);
                    before = Some(*those.iter().find(takes)?);
                }
            }
        }
        before
    }

    fn of(&self, name: &ServerName) -> &[usize] {
        let those = match name {
            ServerName::Exact(name) => self.exact.get(name),
            ServerName::Below(name) => self.below.get(name),
        };
        those.map_or(&[], Vec::as_slice)
    }
}

/// Returns each value; one `None` where there is no value.
fn values<T>(values: impl Iterator<Item = T>) -> Vec<Option<T>> {
    let values: Vec<Option<T>> = values.map(Some).collect();
    if values.is_empty() { vec![None] } else { values }
}
