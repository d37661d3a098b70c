//! The reports of sources of backends.

use std::time::Duration;

use crate::base::address::Address;
use crate::config::discover::{Discover, Host};
use crate::config::model::{Resolved, UNRESOLVED};

/// Names one run of a source for the life of the process: what an earlier run reports late is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceId(pub u64);

/// A backend that a source lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name, unique within the pool.
    pub name: String,
    /// The IP address and port that sessions dial.
    pub address: Address,
    /// Share of new sessions, 0..=256.
    pub weight: u16,
    /// Its tier, 0..=15: serves only while no backend of a lower number is eligible.
    pub priority: u8,
}

impl Found {
    /// Returns the backends that a source with these settings makes of `list`. The addresses of a host have the settings
    /// of its `[[pool.backend]]`; without any, that is one backend without an address, so that it is seen.
    pub fn of(settings: &Discover, list: Vec<Self>) -> Vec<Self> {
        let Some(host @ Host { backend, weight, priority, .. }) = settings.as_host() else { return list };
        let (weight, priority) = (*weight, *priority);
        if list.is_empty() {
            return vec![Self { name: backend.clone(), address: UNRESOLVED, weight, priority }];
        }
        let of_host = |Self { address, .. }| Self { name: host.name_at(&address), address, weight, priority };
        list.into_iter().map(of_host).collect()
    }
}

/// What a source listed before it is followed: in an earlier process, or at a first question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The pool that it lists backends for.
    pub pool: String,
    /// What it is called, see [`Discover::label`](crate::config::discover::Discover::label).
    pub source: String,
    /// All its backends.
    pub list: Vec<Found>,
    /// How long ago it answered, of a list that an earlier process has saved.
    pub age: Duration,
}

impl Listed {
    /// Returns what was known of a host name when the configuration was read.
    pub fn of_host(resolved: &Resolved) -> Self {
        let Resolved { pool, source, found } = resolved;
        let addresses = found.iter().flatten().cloned();
        let found = |address: Address| Found { name: address.to_string(), address, weight: 1, priority: 0 };
        Self {
            pool: pool.clone(),
            source: source.clone(),
            list: addresses.map(found).collect(),
            age: Duration::ZERO,
        }
    }

    /// Returns whether it is of the source of that label in that pool.
    pub fn is_of(&self, pool: &str, source: &str) -> bool {
        self.pool == pool && self.source == source
    }
}

/// The result of asking a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceReport {
    /// All backends that there are now, never a part; `None` where that is as it was.
    pub list: Option<Vec<Found>>,
    /// Whether the name server answered, and with any backend.
    pub outcome: Outcome,
    /// A note for the operator about it.
    pub note: Option<String>,
}

/// The result of one round of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer lists at least one backend.
    Found,
    /// The answer is that there is no backend.
    Nothing,
    /// There was no answer, or none that can be used: what was known stays.
    Failed,
}

impl Outcome {
    /// Every outcome, in the order in which they are counted.
    pub const ALL: [Self; 3] = [Self::Found, Self::Nothing, Self::Failed];

    /// The word for it in logs, metrics and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Nothing => "nothing",
            Self::Failed => "failed",
        }
    }
}
