//! What a listener reads of the TLS of its clients, and the pools that it chooses by it.

use std::fmt;

use super::model::timeouts::Timeouts;
use crate::preread::routes::{Conditions, Routes};

/// The routes of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Routing {
    /// What is read of clients; `None` where nothing is.
    pub reads: Option<Reads>,
    /// What each route is for.
    pub table: Routes,
    /// Where each route leads, in the same order.
    pub targets: Vec<Target>,
}

/// What a listener reads of its clients before it chooses a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// What a client begins with.
    pub tls: Tls,
    /// The treatment of clients that name no server.
    pub on_no_sni: OnNoSni,
}

/// How clients come to their hello of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// They begin with it.
    Passthrough,
    /// They ask for TLS first, as PostgreSQL has it, and the balancer grants it.
    Postgres,
}

impl Tls {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Passthrough, Self::Postgres];

    /// Returns the word for it in config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Postgres => "postgres",
        }
    }
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Index into the pools of the configuration.
    pub pool: usize,
    /// Those of the pool, unless the listener has its own.
    pub timeouts: Timeouts,
}

/// The treatment of clients whose first bytes name no server: a hello without a name, no TLS, or silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNoSni {
    /// They take a route that asks for no name, or else go to the pool of the listener.
    Default,
    /// They are reset.
    Reject,
}

impl OnNoSni {
    /// All of them, the default first.
    pub const ALL: [Self; 2] = [Self::Default, Self::Reject];

    /// Returns the word for it in config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Reject => "reject",
        }
    }
}

impl Routing {
    /// Returns the words of `tls` and `on_no_sni` in config; `None` where nothing is read.
    pub fn words(&self) -> Option<(&'static str, &'static str)> {
        self.reads.map(|reads| (reads.tls.as_str(), reads.on_no_sni.as_str()))
    }

    /// Returns the same with other pools, of which only the number counts.
    #[must_use]
    pub fn without_pools(&self) -> Self {
        let targets = self.targets.iter().map(|target| Target { pool: 0, ..*target }).collect();
        Self { targets, ..self.clone() }
    }

    /// Returns the mistakes that are no faults, one line each.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        self.table.never_taken().into_iter().map(|(route, other)| {
            let (route, other) = (route + 1, other + 1);
            format!("route {route} is never taken: route {other} comes first for its clients")
        })
    }

    /// Returns one line for each route; `pool_name` returns the name of a pool.
    pub(super) fn show<'a>(&self, pool_name: impl Fn(usize) -> &'a str) -> Vec<String> {
        let routes = self.table.all().iter().zip(&self.targets);
        let routes = routes
            .map(|(conditions, target)| format!("{}pool={}", Shown(conditions), pool_name(target.pool)));
        routes.collect()
    }
}

/// The conditions as one line.
struct Shown<'a>(&'a Conditions);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, values) in keys_of(self.0).into_iter().filter(|(_, values)| !values.is_empty()) {
            write!(f, "{key}={} ", values.join(","))?;
        }
        Ok(())
    }
}

/// Returns the conditions of a route as they are written, by key.
pub(super) fn keys_of(conditions: &Conditions) -> [(&'static str, Vec<String>); 3] {
    let Conditions { sni, alpn, client } = conditions;
    [
        ("sni", sni.iter().map(ToString::to_string).collect()),
        ("alpn", alpn.iter().map(|protocol| shown(protocol)).collect()),
        ("client", client.iter().map(ToString::to_string).collect()),
    ]
}

/// Returns a protocol escaped, with what separates values and keys too.
fn shown(protocol: &[u8]) -> String {
    protocol.escape_ascii().to_string().replace(',', "\\x2c").replace(' ', "\\x20")
}
