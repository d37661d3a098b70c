//! The keys that a balancer publishes, and their values in JSON.
//!
//! `balancers/NAME` is a [`Balancer`]; `views/NAME/POOL/PART` is a [`Part`] of how it sees the backends of a pool. A pool of
//! more than [`PART_LEN`] backends is several parts, by the hash of the backend, so that a change writes few of them. A part
//! names only backends that are not as most of it. `wanted/POOL/BACKEND` is what operators want on all balancers.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::hash::hash;

/// Backends of a part, about.
pub const PART_LEN: usize = 1_000;
/// Longest value that is read: that of a part with all backends in it has some hundred KiB.
pub const VALUE_LEN_MAX: usize = 512 << 10;
/// Separates the hash of backends from that of clients.
const SALT: u32 = 0x0f1e_e700;

/// What a balancer says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balancer {
    /// As `l4lb --version` prints it.
    pub version: String,
    /// When the process began to serve.
    pub started: Timestamp,
    /// When this was written, by the clock of the balancer.
    pub written: Timestamp,
    /// `serving`, `draining` or `stopping`.
    pub stage: String,
    /// Why no clients should be sent there, in words; `None` while it is ready.
    pub not_ready: Option<String>,
    /// How its view of the backends contradicts that of most others, in words; `None` while it does not.
    pub alone: Option<String>,
    /// Stands for its settings but those of its machine.
    pub config: String,
    /// Open sessions.
    pub sessions: u64,
    /// New sessions per second.
    pub rate: f64,
    /// The addresses that clients connect to, by the names of the listeners.
    pub listeners: BTreeMap<String, String>,
    /// Its pools, by their names.
    pub pools: BTreeMap<String, Pool>,
}

impl Default for Balancer {
    fn default() -> Self {
        Self {
            version: String::new(),
            started: Timestamp::UNIX_EPOCH,
            written: Timestamp::UNIX_EPOCH,
            stage: String::new(),
            not_ready: None,
            alone: None,
            config: String::new(),
            sessions: 0,
            rate: 0.0,
            listeners: BTreeMap::new(),
            pools: BTreeMap::new(),
        }
    }
}

impl Balancer {
    /// Returns whether more than its load has changed since `before`.
    pub fn is_news(&self, before: &Self) -> bool {
        let without_load = |balancer: &Self| Self {
            written: Timestamp::UNIX_EPOCH,
            sessions: 0,
            rate: 0.0,
            ..balancer.clone()
        };
        without_load(self) != without_load(before)
    }
}

/// The backends of a pool, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pool {
    /// All of them.
    pub backends: u64,
    /// Those that may get new sessions.
    pub eligible: u64,
    /// Those that are up, or not checked.
    pub up: u64,
    /// Parts of the view of them.
    pub parts: u16,
    /// Stands for the set of backends: the same for balancers with the same ones.
    pub set: String,
}

/// How a balancer sees a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its checks pass, or an operator or its agent says so.
    Up,
    /// A check fails, or an operator or its agent says so.
    Down,
    /// It was not checked.
    Unknown,
    /// It gets no new sessions.
    Drain,
    /// Neither sessions nor checks.
    Maint,
}

impl State {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// How a balancer sees some backends of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The state of those that are not named.
    pub rest: State,
    /// The others, by their state: each with the second of its last change, 0 where there was none.
    #[serde(default)]
    pub others: BTreeMap<State, BTreeMap<String, i64>>,
}

impl Part {
    /// Returns the state of a backend that is in this part.
    pub fn state_of(&self, id: &str) -> State {
        let named = self.others.iter().find(|(_, backends)| backends.contains_key(id));
        named.map_or(self.rest, |(state, _)| *state)
    }
}

/// Returns what a backend is called in a view: the same on all balancers that dial it under this name.
pub fn id_of(name: &str, address: &str) -> String {
    if name == address { name.to_owned() } else { format!("{name} {address}") }
}

/// Returns the number of parts of a pool of so many backends: a power of two.
pub fn parts_of(backends: usize) -> u16 {
    u16::try_from(backends.div_ceil(PART_LEN).next_power_of_two()).unwrap_or(u16::MAX)
}

/// Returns the part that a backend is in, of so many.
pub fn part_of(id: &str, parts: u16) -> u16 {
    u16::try_from(hash(id.as_bytes(), SALT) % u64::from(parts.max(1))).unwrap_or(0)
}

/// How a balancer sees a pool.
#[derive(Clone, Debug, Default)]
pub struct Views {
    set: u64,
    backends: u64,
    parts: Vec<BTreeMap<State, BTreeMap<String, i64>>>,
}

impl Views {
    /// Of a pool of so many backends, of which none was added yet.
    pub fn new(backends: usize) -> Self {
        Self { set: 0, backends: 0, parts: vec![BTreeMap::new(); usize::from(parts_of(backends))] }
    }

    /// Adds a backend with its state, and the second of the last change of that.
    pub fn add(&mut self, id: String, state: State, since: i64) {
        // In any order it is the same set.
        self.set = self.set.wrapping_add(hash(id.as_bytes(), SALT));
        self.backends += 1;
        let parts = u16::try_from(self.parts.len()).unwrap_or(u16::MAX);
        let part = part_of(&id, parts);
        self.parts[usize::from(part)].entry(state).or_default().insert(id, since);
    }

    /// Returns the numbers of the pool, with so many that are eligible, and its parts.
    pub fn finish(self, eligible: u64) -> (Pool, Vec<Part>) {
        let in_state = |part: &BTreeMap<State, BTreeMap<String, i64>>, state| {
            part.get(&state).map_or(0, BTreeMap::len) as u64
        };
        let count = |state| self.parts.iter().map(|part| in_state(part, state)).sum::<u64>();
        let pool = Pool {
            backends: self.backends,
            eligible,
            up: count(State::Up) + count(State::Unknown),
            parts: u16::try_from(self.parts.len()).unwrap_or(u16::MAX),
            set: set_of(self.set),
        };
        let parts = self.parts.into_iter().map(|mut others| {
            let most = others.iter().max_by_key(|(_, backends)| backends.len());
            let rest = most.map_or(State::Unknown, |(state, _)| *state);
            others.remove(&rest);
            Part { rest, others }
        });
        (pool, parts.collect())
    }
}

/// Returns what stands for a set of backends.
fn set_of(sum: u64) -> String {
    format!("{sum:016x}")
}

/// Returns what stands for the set of backends with these ids, as [`Pool::set`] has it.
pub fn set_of_ids<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let sum = ids.into_iter().fold(0, |sum: u64, id| sum.wrapping_add(hash(id.as_bytes(), SALT)));
    set_of(sum)
}

/// What an operator wants of a backend on all balancers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The administrative state: `drain` or `maint`.
    pub admin: State,
    /// The requester, and the balancer that was asked.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// What a key is about, behind the prefix of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// A balancer.
    Balancer(&'a str),
    /// A part of how a balancer sees a pool.
    View {
        /// The name of the balancer.
        balancer: &'a str,
        /// The name of the pool.
        pool: &'a str,
        /// The number of the part.
        part: u16,
    },
    /// What is wanted of a backend on all balancers. It has no lease.
    Wanted {
        /// The name of the pool.
        pool: &'a str,
        /// The name of the backend.
        backend: &'a str,
    },
}

impl<'a> Key<'a> {
    /// Returns what `key` is about; `None` if it is none of ours.
    pub fn parse(key: &'a str) -> Option<Self> {
        let words: Vec<&str> = key.split('/').collect();
        match words[..] {
            ["balancers", name] if !name.is_empty() => Some(Self::Balancer(name)),
            ["views", balancer, pool, part] => Some(Self::View { balancer, pool, part: part.parse().ok()? }),
            ["wanted", pool, backend] => Some(Self::Wanted { pool, backend }),
            _ => None,
        }
    }
}

impl std::fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Balancer(name) => write!(f, "balancers/{name}"),
            Self::Wanted { pool, backend } => write!(f, "wanted/{pool}/{backend}"),
            Self::View { balancer, pool, part } => write!(f, "views/{balancer}/{pool}/{part}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATES: [State; 5] = [State::Up, State::Down, State::Unknown, State::Drain, State::Maint];

    fn views(backends: &[(u16, usize)]) -> (Pool, Vec<Part>) {
        let mut views = Views::new(backends.len());
        for (name, state) in backends {
            views.add(format!("b{name} 10.0.0.1:80"), STATES[*state], 7);
        }
        views.finish(0)
    }

    proptest! {
        #[test]
        fn each_backend_is_read_in_the_state_in_which_it_was_written(
            backends in prop::collection::btree_map(any::<u16>(), 0..5_usize, 0..3_000),
        ) {
            let all: Vec<(u16, usize)> = backends.into_iter().collect();
            let (pool, parts) = views(&all);
            prop_assert_eq!(usize::from(pool.parts), parts.len());
            let text: Vec<String> = parts.iter().map(|part| serde_json::to_string(part).unwrap()).collect();
            let parts: Vec<Part> = text.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
            for (name, state) in &all {
                let id = format!("b{name} 10.0.0.1:80");
                let part = &parts[usize::from(part_of(&id, pool.parts))];
                prop_assert_eq!(part.state_of(&id), STATES[*state]);
            }
            let up = all.iter().filter(|(_, state)| [0, 2].contains(state)).count();
            prop_assert_eq!(pool.up, up as u64);
            let mut turned = all.clone();
            turned.reverse();
            prop_assert_eq!(&views(&turned).0.set, &pool.set, "the order makes no difference");
            if let Some((_, fewer)) = all.split_first() {
                prop_assert_ne!(views(fewer).0.set, pool.set);
            }
        }
    }

    #[test]
    fn a_part_of_ten_thousand_healthy_backends_names_none_of_them_and_one_change_writes_one_part() {
        let healthy: Vec<(u16, usize)> = (0..10_000).map(|name| (name, 0)).collect();
        let (pool, before) = views(&healthy);
        assert_eq!((pool.backends, pool.parts), (10_000, 16));
        assert!(before.iter().all(|part| part.others.is_empty()));
        let mut one_down = healthy.clone();
        one_down[5_000].1 = 1;
        let (_, after) = views(&one_down);
        assert_eq!(before.iter().zip(&after).filter(|(before, after)| before != after).count(), 1);
        let mixed: Vec<(u16, usize)> = (0..10_000).map(|name| (name, usize::from(name % 2))).collect();
        let longest = views(&mixed).1.iter().map(|part| serde_json::to_string(part).unwrap().len()).max();
        assert!(longest < Some(VALUE_LEN_MAX / 8), "{longest:?}");
    }

    #[test]
    fn a_key_is_read_as_it_is_written_and_others_are_none_of_ours() {
        for key in [
            Key::Balancer("lb1"),
            Key::View { balancer: "lb1", pool: "web", part: 12 },
            Key::Wanted { pool: "web", backend: "a" },
        ] {
            assert_eq!(Key::parse(&key.to_string()), Some(key));
        }
        for key in
            ["", "balancers/", "balancers/a/b", "views/a/web", "views/a/web/x", "views/a/web/1/2", "wanted/a"]
        {
            assert_eq!(Key::parse(key), None, "{key}");
        }
    }
}
