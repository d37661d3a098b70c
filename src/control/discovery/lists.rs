//! The lists of sources in their pools: put in, put in once more when something has left, and what was left out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use super::state::Followed;
use crate::base::address::Address;
use crate::config::discover::Discover;
use crate::config::model::{BackendCheck, Pool, UNRESOLVED};
use crate::control::control_loop::ControlLoop;
use crate::control::membership::leases::Registrations;
use crate::control::membership::listing::Listing;
use crate::control::membership::origin::Discovery;
use crate::messages::discovery::Found;
use crate::pool;

/// Backends that get a line of their own of those that one answer newly leaves out; of more there is one with their
/// number.
const LEFT_OUT_EACH: usize = 16;

impl ControlLoop {
    /// Puts what sources have come to list into their pools, and what others list there in place of what has gone with
    /// it. Ten thousand host names may resolve at once: that makes one table, not ten thousand.
    pub(in crate::control) fn apply_lists(&mut self) {
        if self.sources.news.is_empty() || self.is_ending() {
            return;
        }
        let news = mem::take(&mut self.sources.news);
        let mut of_pools: BTreeMap<String, Vec<Listing>> = BTreeMap::new();
        for known in self.sources.all.iter().filter(|known| news.contains(&known.id)) {
            of_pools.entry(known.pool.clone()).or_default().push(known.listing());
        }
        for (pool, lists) in of_pools {
            if self.put(&pool, &lists) {
                self.fill_up(&pool);
            }
        }
    }

    /// Puts these lists into the pool and notes what is left out. Returns true when a backend was removed.
    fn put(&mut self, pool: &str, lists: &[Listing]) -> bool {
        let put = self.put_discovered(pool, lists);
        for (Listing { source, list, .. }, left_out) in lists.iter().zip(&put.left_out) {
            let count = list.iter().filter(|found| found.address != UNRESOLVED).count();
            self.note_left_out(pool, source, count as u64, left_out);
        }
        put.has_removed
    }

    pub(super) fn has_left_out(&self, pool: &str, label: &str) -> bool {
        self.control.view.state().sources.of(pool, label).is_some_and(|row| !row.left_out.is_empty())
    }

    /// Puts into `pool` what sources list there and had to be left out. Must be called when backends have left by
    /// themselves: they may have been in the way.
    pub(in crate::control) fn fill_up(&mut self, pool: &str) {
        let state = self.control.view.state();
        let rows = state.sources.iter().filter(|row| row.pool == pool && !row.left_out.is_empty());
        let labels: HashSet<String> = rows.map(|row| row.source.clone()).collect();
        drop(state);
        if !labels.is_empty() {
            self.reapply_lists(|known| known.pool == pool && labels.contains(&known.label));
        }
    }

    /// Puts what is believed of such sources into their pools once more.
    pub(super) fn reapply_lists(&mut self, is_meant: impl Fn(&Followed) -> bool) {
        if self.is_ending() {
            return;
        }
        let placements = &self.control.kept.registrations.placements;
        // A host without an address is in its pool too.
        let is_any = |known: &Followed| !known.last.is_empty() || known.settings.as_host().is_some();
        let meant = self.sources.all.iter().filter(|known| is_any(known) && is_meant(known));
        let mut present: HashMap<&str, Present> = HashMap::new();
        let mut lists: BTreeMap<String, Vec<Listing>> = BTreeMap::new();
        for known @ Followed { pool, label, settings, last, .. } in meant {
            let Some(runs) = self.control.snapshot.pool_named(pool) else { continue };
            let present = present
                .entry(pool)
                .or_insert_with(|| Present::in_pool(runs, &self.control.kept.registrations));
            let listed = Found::of(settings, last.clone()).into_iter();
            let listed: Vec<Found> = listed.map(|found| placements.placed_in(pool, found)).collect();
            if present.has_all(label, settings, &listed) {
                self.note_left_out(pool, label, last.len() as u64, &[]);
            } else {
                lists.entry(pool.clone()).or_default().push(known.listing());
            }
        }
        for (pool, lists) in lists {
            // A backend removed here is not replaced again: `fill_up` calls this.
            self.put(&pool, &lists);
        }
    }

    /// Returns what the sources of `pool` that run already are believed to have: by address, with the source. Of two
    /// that list an address the first one counts.
    pub(in crate::control) fn believed_in(&self, pool: &Pool) -> HashMap<Address, (Arc<str>, Found)> {
        let of_pool = self.sources.all.iter().filter(|known| known.pool == pool.name);
        let placements = &self.control.kept.registrations.placements;
        let runs: HashMap<&str, &Followed> = of_pool.map(|known| (known.label.as_str(), known)).collect();
        let mut believed = HashMap::new();
        for source in &pool.discover {
            let label: Arc<str> = source.label().into();
            let Some(known) = runs.get(&*label) else { continue };
            for found in
                Found::of(source, known.last.clone()).into_iter().filter(|found| found.address != UNRESOLVED)
            {
                let found = placements.placed_in(&pool.name, found);
                let listed = |found| (Arc::clone(&label), found);
                believed.entry(found.address.clone()).or_insert_with(|| listed(found));
            }
        }
        believed
    }

    /// A line for each that was not left out before.
    fn note_left_out(&self, pool: &str, label: &str, backends: u64, left_out: &[String]) {
        let (mut before, shown) = (Vec::new(), left_out.to_vec());
        self.with_source(pool, label, |row| {
            row.backends = backends;
            before = mem::replace(&mut row.left_out, shown);
        });
        let new = news(&before, left_out);
        for why in new.iter().take(LEFT_OUT_EACH) {
            log::warn!(pool, source = label, why; "discovered, and left out");
        }
        if let Some(count) = new.len().checked_sub(LEFT_OUT_EACH).filter(|&count| count > 0) {
            log::warn!(pool, source = label, count; "more were discovered, and left out");
        }
    }
}

/// What a pool has of its sources: a list that is there as a whole is not put in again, which would cost a look at each
/// backend of the pool for each of ten thousand host names.
#[derive(Default)]
struct Present<'p>(HashMap<Arc<str>, HashMap<&'p str, Member<'p>>>);

/// A backend as its source has listed it.
#[derive(PartialEq)]
struct Member<'p> {
    address: &'p Address,
    weight: u16,
    priority: u8,
    check: BackendCheck,
}

impl<'p> Present<'p> {
    fn in_pool(pool: &'p pool::Pool, registrations: &Registrations) -> Self {
        let mut present = Self::default();
        for (backend, settings) in pool.backends.iter().zip(&pool.settings.backends) {
            let Some(Discovery { source, weight }) = registrations.discovery_of(backend.id) else { continue };
            let member = Member {
                address: &backend.address,
                weight: *weight,
                priority: settings.priority,
                check: settings.check,
            };
            present.0.entry(Arc::clone(source)).or_default().insert(&backend.name, member);
        }
        present
    }

    /// Whether the pool has the backends `list` of the source of that label, and nothing else of it.
    fn has_all(&self, label: &str, settings: &Discover, list: &[Found]) -> bool {
        let Some(members) = self.0.get(label) else { return false };
        let check = settings.as_host().map(|host| host.check).unwrap_or_default();
        let is_there = |Found { name, address, weight, priority }: &Found| {
            let listed = Member { address, weight: *weight, priority: *priority, check };
            members.get(name.as_str()) == Some(&listed)
        };
        members.len() == list.len() && list.iter().all(is_there)
    }
}

/// Returns those of `now` that are not in `before`.
fn news<'now>(before: &[String], now: &'now [String]) -> Vec<&'now str> {
    let before: HashSet<&str> = before.iter().map(String::as_str).collect();
    now.iter().map(String::as_str).filter(|why| !before.contains(why)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_backend_newly_left_out_is_reported() {
        let all = |words: &[&str]| -> Vec<String> { words.iter().map(ToString::to_string).collect() };
        assert_eq!(news(&all(&["a", "b"]), &all(&["b", "c", "a", "d"])), ["c", "d"]);
        assert!(news(&all(&["a"]), &[]).is_empty());
    }
}
