//! The address and the priority that operators have set of backends, over whatever lists them: the file, a request or a
//! source.
//!
//! They are known by the name of the backend, because another address makes another backend. Every list is read through
//! [`Placements`], so that the rest of the membership sees the address that runs. Each holds until it is undone; where
//! the file lists another backend at such an address, the file wins.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;

use crate::base::address::Address;
use crate::config::Config;
use crate::config::discover::{Discover, host_of};
use crate::config::model::{self, OwnSocket, Pool, UNRESOLVED};
use crate::control::circles::{OwnAddresses, circle_at};
use crate::control::membership::listing::Listing;
use crate::control::membership::state_file::{SavedBackend, SavedPlacement};
use crate::messages::discovery::Found;

/// Most backends of which an address or a priority is set.
pub(in crate::control) const PLACEMENTS_MAX: usize = 65_536;

/// Where a backend is, and in which tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct Place {
    pub(in crate::control) address: Address,
    pub(in crate::control) priority: u8,
}

/// The settings that operators have made of one backend, or of all addresses of a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The address to dial.
    pub address: Option<Address>,
    /// Its tier.
    pub priority: Option<u8>,
    /// The last requester.
    pub who: String,
    /// Time of its request.
    pub since: Timestamp,
    /// What the origin of the backend says.
    pub(in crate::control) says: Place,
}

impl Placement {
    /// Returns what runs.
    pub(in crate::control) fn place(&self) -> Place {
        Place {
            address: self.address.clone().unwrap_or_else(|| self.says.address.clone()),
            priority: self.priority.unwrap_or(self.says.priority),
        }
    }

    /// Returns what it sets, in words.
    pub(in crate::control) fn words(&self) -> String {
        let address = self.address.as_ref().map(|address| format!("address {address}"));
        let priority = self.priority.map(|priority| format!("priority {priority}"));
        address.into_iter().chain(priority).collect::<Vec<_>>().join(" and ")
    }

    /// Returns what its origin says of what is set, in words.
    pub(in crate::control) fn says_words(&self) -> String {
        let Place { address, priority } = &self.says;
        let address = self.address.as_ref().map(|_| format!("address {address}"));
        let priority = self.priority.map(|_| format!("priority {priority}"));
        address.into_iter().chain(priority).collect::<Vec<_>>().join(" and ")
    }
}

/// All placements, by pool and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placements {
    pools: HashMap<String, BTreeMap<String, Placement>>,
}

/// A configuration as it runs with placements.
pub(in crate::control) struct Placed<'c> {
    pub(in crate::control) config: Cow<'c, Config>,
    /// What differs from the file, one line each.
    pub(in crate::control) notes: Vec<String>,
    /// Pool and name of those whose address cannot be used.
    refused: Vec<(String, String)>,
}

impl Placements {
    pub(in crate::control) fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    pub(in crate::control) fn len(&self) -> usize {
        self.pools.values().map(BTreeMap::len).sum()
    }

    /// Returns whether anything is set in that pool.
    pub(in crate::control) fn has_any_in(&self, pool: &str) -> bool {
        self.pools.contains_key(pool)
    }

    /// Returns what is set of the backend, or of the host that it is an address of.
    pub(in crate::control) fn of(&self, pool: &str, backend: &str) -> Option<&Placement> {
        let pool = self.pools.get(pool)?;
        pool.get(backend).or_else(|| pool.get(host_of(backend)?))
    }

    /// Returns what is set of exactly that name.
    pub(in crate::control) fn named(&self, pool: &str, name: &str) -> Option<&Placement> {
        self.pools.get(pool)?.get(name)
    }

    /// Sets what holds for that name; one that sets nothing is forgotten.
    pub(in crate::control) fn put(&mut self, pool: &str, name: &str, placement: Placement) {
        if placement.address.is_none() && placement.priority.is_none() {
            return self.forget(pool, name);
        }
        self.pools.entry(pool.to_owned()).or_default().insert(name.to_owned(), placement);
    }

    pub(in crate::control) fn forget(&mut self, pool: &str, name: &str) {
        let Some(of_pool) = self.pools.get_mut(pool) else { return };
        of_pool.remove(name);
        if of_pool.is_empty() {
            self.pools.remove(pool);
        }
    }

    /// Forgets the address that is set of that name.
    pub(in crate::control) fn forget_address(&mut self, pool: &str, name: &str) {
        if let Some(set) = self.named(pool, name).cloned() {
            self.put(pool, name, Placement { address: None, ..set });
        }
    }

    /// Forgets what is set of names that `has` does not have in their pool, but for pools with sources.
    pub(in crate::control) fn forget_gone(&mut self, config: &Config, has: impl Fn(&str, &str) -> bool) {
        for pool in config.pools.iter().filter(|pool| pool.discover.is_empty()) {
            let Some(all) = self.pools.get_mut(&pool.name) else { continue };
            all.retain(|name, _| has(&pool.name, name));
            if all.is_empty() {
                self.pools.remove(&pool.name);
            }
        }
    }

    /// Returns all: pool, name, and what is set; those of a pool by their names.
    pub(in crate::control) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Placement)> {
        let pools = self.pools.iter();
        pools.flat_map(|(pool, all)| {
            all.iter().map(move |(name, placement)| (pool.as_str(), name.as_str(), placement))
        })
    }

    /// Notes what the origin of a backend says of it.
    pub(in crate::control) fn saw(&mut self, pool: &str, name: &str, says: Place) {
        if let Some(placement) = self.pools.get_mut(pool).and_then(|all| all.get_mut(name)) {
            placement.says = says;
        }
    }

    /// Same as [`Placements::saw`], of a source.
    pub(in crate::control) fn saw_found(&mut self, pool: &str, found: &Found) {
        if self.has_any_in(pool) {
            let says = Place { address: found.address.clone(), priority: found.priority };
            self.saw(pool, &found.name, says);
        }
    }

    /// Returns where a backend runs of which its origin says `says`.
    pub(in crate::control) fn place_of(&self, pool: &str, name: &str, says: Place) -> Place {
        // What is set of a host sets no address: it would be that of all its addresses.
        let address = self.named(pool, name).and_then(|set| set.address.clone());
        // A host without an address has none to replace.
        let address = address.filter(|_| says.address != UNRESOLVED);
        let priority = self.of(pool, name).and_then(|set| set.priority);
        Place { address: address.unwrap_or(says.address), priority: priority.unwrap_or(says.priority) }
    }

    /// Returns what a source lists in a pool, with what is set of it.
    pub(in crate::control) fn placed_in(&self, pool: &str, found: Found) -> Found {
        let Found { name, address, weight, priority } = found;
        let Place { address, priority } = self.place_of(pool, &name, Place { address, priority });
        Found { name, address, weight, priority }
    }

    /// Returns the same of whole lists, and notes what they say.
    pub(in crate::control) fn placed_lists<'l>(
        &mut self,
        pool: &str,
        lists: &'l [Listing],
    ) -> Cow<'l, [Listing]> {
        if !self.has_any_in(pool) {
            return Cow::Borrowed(lists);
        }
        let mut placed = lists.to_vec();
        for found in placed.iter_mut().flat_map(|listing| &mut listing.list) {
            self.saw_found(pool, found);
            *found = self.placed_in(pool, found.clone());
        }
        Cow::Owned(placed)
    }

    /// Returns `config` with what is set of the backends that it lists.
    pub(in crate::control) fn placed<'c>(&self, config: &'c Config) -> Placed<'c> {
        let mut placed = Placed { config: Cow::Borrowed(config), notes: Vec::new(), refused: Vec::new() };
        if self.is_empty() {
            return placed;
        }
        let sockets: Vec<OwnSocket> = config.own_sockets().collect();
        let mut runs = config.clone();
        for pool in &mut runs.pools {
            let Some(set) = self.pools.get(&pool.name) else { continue };
            place_pool(pool, set, &sockets, &mut placed);
        }
        placed.config = Cow::Owned(runs);
        placed
    }

    /// Follows the configuration that runs from now on, after `before`: what cannot be used and what was set of
    /// backends that are gone with it is forgotten.
    pub(in crate::control) fn follow(&mut self, placed: &Placed<'_>, before: &Config, now: &Config) {
        for (pool, name) in &placed.refused {
            self.forget_address(pool, name);
        }
        let pools: HashMap<&str, &Pool> = now.pools.iter().map(|pool| (pool.name.as_str(), pool)).collect();
        self.pools.retain(|name, _| pools.contains_key(name.as_str()));
        for before in &before.pools {
            let Some(pool) = pools.get(before.name.as_str()) else { continue };
            if !pool.discover.is_empty() {
                // A source may list it.
                continue;
            }
            let listed: HashSet<&str> = names_in(pool).collect();
            for gone in names_in(before).filter(|name| !listed.contains(name)) {
                self.forget(&pool.name, gone);
            }
        }
        for pool in &now.pools {
            for backend in &pool.backends {
                let says = Place { address: backend.address.clone(), priority: backend.priority };
                self.saw(&pool.name, &backend.name, says);
            }
            for host in pool.discover.iter().filter_map(Discover::as_host) {
                let says = Place { address: UNRESOLVED, priority: host.priority };
                self.saw(&pool.name, &host.backend, says);
            }
        }
    }
}

impl Placed<'_> {
    /// Returns whether the address that is set of that backend cannot be used: it is where the file has it.
    pub(super) fn gives_way(&self, pool: &str, name: &str) -> bool {
        self.refused.iter().any(|(of_pool, refused)| of_pool == pool && refused == name)
    }

    /// Returns those whose address cannot be used, one line each.
    pub(in crate::control) fn refusals(&self) -> impl Iterator<Item = String> {
        let lines = self.refused.iter();
        lines.map(|(pool, name)| {
            format!("pool {pool:?}: backend {name:?}: its address: another is there, or we are")
        })
    }
}

/// Returns the form of placements on the disk.
pub(in crate::control) fn saved_placements(placements: &Placements) -> Vec<SavedPlacement> {
    let saved = placements.iter().map(|(pool, name, placement)| {
        let Placement { address, priority, who, since, says: _ } = placement.clone();
        SavedPlacement { pool: pool.to_owned(), name: name.to_owned(), address, priority, who, since }
    });
    saved.collect()
}

/// Returns what was saved of the backends of `config`, of those that were `registered`, and of pools with sources; and of
/// the others a line each.
pub(in crate::control) fn restored_placements(
    saved: Vec<SavedPlacement>,
    registered: &[SavedBackend],
    config: &Config,
) -> (Placements, Vec<String>) {
    let registered = registered.iter().filter_map(|saved| {
        let known = saved.registered.as_ref()?;
        let says = Place { address: known.address.clone(), priority: known.priority };
        Some(((saved.pool.as_str(), saved.name.as_str()), says))
    });
    let registered: HashMap<(&str, &str), Place> = registered.collect();
    let (mut placements, mut left_out) = (Placements::default(), Vec::new());
    for SavedPlacement { pool, name, address, priority, who, since } in saved {
        let configured = config.pools.iter().find(|configured| configured.name == pool);
        let is_there = configured.is_some_and(|configured| {
            !configured.discover.is_empty() || configured.backends.iter().any(|backend| backend.name == name)
        });
        let says = registered.get(&(pool.as_str(), name.as_str())).cloned();
        if !is_there && (says.is_none() || configured.is_none()) {
            left_out
                .push(format!("pool {pool:?}: backend {name:?}: what was set of it: it is in no such pool"));
            continue;
        }
        // Until a list says more.
        let says = says.unwrap_or(Place { address: UNRESOLVED, priority: 0 });
        placements.put(&pool, &name, Placement { address, priority, who, since, says });
    }
    (placements, left_out)
}

/// Returns the names that the file gives in a pool.
fn names_in(pool: &Pool) -> impl Iterator<Item = &str> {
    let hosts = pool.discover.iter().filter_map(Discover::as_host);
    pool.backends.iter().map(|backend| backend.name.as_str()).chain(hosts.map(|host| host.backend.as_str()))
}

/// Puts what is `set` in `pool`, as far as it fits.
fn place_pool(
    pool: &mut Pool,
    set: &BTreeMap<String, Placement>,
    sockets: &[OwnSocket],
    placed: &mut Placed<'_>,
) {
    let refused = refused_in(pool, set, sockets);
    let mut note = |backend: &str, what: String| {
        placed.notes.push(format!("pool {:?}: backend {backend:?}: {what}", pool.name));
    };
    for backend in &mut pool.backends {
        let Some(set) = set.get(&backend.name) else { continue };
        let says = Place { address: backend.address.clone(), priority: backend.priority };
        let mut set = Placement { says, ..set.clone() };
        if let Some((address, why)) = refused.get(&backend.name) {
            note(&backend.name, format!("address {address} was set at run time, and {why}: file wins"));
            placed.refused.push((pool.name.clone(), backend.name.clone()));
            set.address = None;
        }
        if set.address.is_some() || set.priority.is_some() {
            let (what, says) = (set.words(), set.says_words());
            note(
                &backend.name,
                format!("{what} was set at run time and stays: run-time wins (the file says {says})"),
            );
        }
        Place { address: backend.address, priority: backend.priority } = set.place();
    }
}

/// Returns the backends of `pool` that cannot be where they are `set`, with that address and why not.
fn refused_in(
    pool: &Pool,
    set: &BTreeMap<String, Placement>,
    sockets: &[OwnSocket],
) -> HashMap<String, (Address, String)> {
    let own = OwnAddresses::default();
    let address_of = |backend: &model::Backend| set.get(&backend.name)?.address.clone();
    let mut refused: HashMap<String, (Address, String)> = HashMap::new();
    // One that stays where the file has it may be in the way of another one: as many rounds as backends are moved.
    loop {
        let is_moved =
            |backend: &model::Backend| address_of(backend).is_some() && !refused.contains_key(&backend.name);
        let stay = pool.backends.iter().filter(|backend| !is_moved(backend));
        let mut taken: HashMap<Address, &str> =
            stay.map(|backend| (backend.address.clone(), backend.name.as_str())).collect();
        let mut new = Vec::new();
        for backend in pool.backends.iter().filter(|backend| is_moved(backend)) {
            let Some(address) = address_of(backend) else { continue };
            let circle = || circle_at(&address, sockets.iter().copied(), &own);
            if let Some(other) = taken.get(&address) {
                new.push((backend.name.clone(), (address, format!("{other:?} is there"))));
            } else if let Some(socket) = circle() {
                new.push((backend.name.clone(), (address, format!("that is {socket}"))));
            } else {
                taken.insert(address, &backend.name);
            }
        }
        if new.is_empty() {
            return refused;
        }
        refused.extend(new);
    }
}
