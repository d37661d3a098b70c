//! Backends registered at run time, the holders of their leases, and the end of leases that are not renewed. Only finds
//! the leases that have ended; `requests` has the only way out of a pool.
//!
//! Several holders may share one backend, as both processes of a rolling restart do: it stays for as long as one of
//! them has a lease. Time in which this process stood still does not count, because leases could not be renewed
//! meanwhile.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::base::address::Address;
use crate::base::time::Instant;
use crate::config::discover::host_of;
use crate::config::model::Config;
use crate::control::membership::origin::{Discovery, Origin, Registration, RuntimeOverrides};
use crate::control::membership::placement::Placements;
use crate::control::membership::remembered::{Known, Remembered};
use crate::control::membership::state_file::SavedAuthor;
use crate::pool::{Admin, Backend, BackendId, Snapshot};

/// Every lease lasts at least this long after the process has stood still.
const STALL_GRACE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Registrations {
    known: HashMap<BackendId, Arc<Registration>>,
    discovered: HashMap<BackendId, Discovery>,
    /// The settings that operators have made of discovered backends that are not listed now.
    remembered: Remembered,
    /// The addresses and priorities that operators have set.
    pub(in crate::control) placements: Placements,
    /// The ends of leases, the first in front, and their backends.
    ends: BTreeSet<(Instant, u32)>,
}

impl Registrations {
    /// Returns none, where operators have set these.
    pub(super) fn with(placements: Placements) -> Self {
        Self { placements, ..Self::default() }
    }

    /// Replaces the registration of a backend.
    pub fn put(&mut self, id: BackendId, registration: Registration) {
        self.forget(id);
        self.ends.extend(registration.lease().map(|end| (end, id.0)));
        self.known.insert(id, Arc::new(registration));
    }

    pub fn forget(&mut self, id: BackendId) -> Option<Arc<Registration>> {
        let gone = self.known.remove(&id)?;
        if let Some(end) = gone.lease() {
            self.ends.remove(&(end, id.0));
        }
        Some(gone)
    }

    /// The backend `former` is `next` from now on, at another address: so is what is known of its origin.
    pub(super) fn succeed(&mut self, former: BackendId, next: BackendId) {
        if let Some(known) = self.discovered.remove(&former) {
            self.discovered.insert(next, known);
        }
        if let Some(known) = self.forget(former) {
            self.ends.extend(known.lease().map(|end| (end, next.0)));
            self.known.insert(next, known);
        }
    }

    /// Returns the registration of a backend, if it has one.
    pub fn get(&self, id: BackendId) -> Option<&Registration> {
        self.known.get(&id).map(Arc::as_ref)
    }

    /// Returns the origin of a backend of a pool; the file is the origin of all that were neither registered nor
    /// discovered.
    pub fn origin_of(&self, id: BackendId) -> Origin {
        match (self.known.get(&id), self.discovered.get(&id)) {
            (Some(known), _) => Origin::Registered(Arc::clone(known)),
            (None, Some(known)) => Origin::Discovered(known.clone()),
            (None, None) => Origin::File,
        }
    }

    /// Returns the facts about a backend, if it was discovered.
    pub(in crate::control) fn discovery_of(&self, id: BackendId) -> Option<&Discovery> {
        self.discovered.get(&id)
    }

    pub(in crate::control) fn put_discovery(&mut self, id: BackendId, known: Discovery) {
        self.discovered.insert(id, known);
    }

    /// Its source lists it no more; what operators have set of it is remembered, with the `author` of its administrative
    /// state.
    pub(in crate::control) fn forget_discovery(
        &mut self,
        pool: &str,
        backend: &Backend,
        author: Option<SavedAuthor>,
    ) {
        let Some(known) = self.discovered.remove(&backend.id) else { return };
        // What is set of a host without an address is set of its name.
        if !backend.is_resolved() {
            return;
        }
        let overrides = RuntimeOverrides::of(backend, known.weight);
        let of_host = host_of(&backend.name).and_then(|host| self.set_of_host(pool, host));
        let rules = of_host.map_or_else(RuntimeOverrides::default, |(_, set)| set);
        if overrides == RuntimeOverrides::default() || overrides == rules {
            // Settings from an earlier removal are out of date.
            self.remembered.take(pool, &backend.name);
        } else {
            self.remember(pool, &backend.name, known.weight, overrides, author);
        }
    }

    /// Returns the settings that operators have made of a backend that is not listed.
    pub(in crate::control) fn remember(
        &mut self,
        pool: &str,
        backend: &str,
        said: u16,
        overrides: RuntimeOverrides,
        author: Option<SavedAuthor>,
    ) {
        if overrides != RuntimeOverrides::default() {
            let author = author.filter(|_| overrides.admin != Admin::Ready);
            self.remembered.put(pool, backend, said, overrides, author);
        }
    }

    /// Returns what is remembered of exactly that name, and the weight that was said then.
    pub(super) fn set_of(&self, pool: &str, name: &str) -> Option<(u16, RuntimeOverrides)> {
        self.remembered.get(pool, name)
    }

    /// Replaces what is remembered of that name; its author stays.
    pub(super) fn set_again(&mut self, pool: &str, name: &str, said: u16, set: RuntimeOverrides) {
        let author = self.remembered.author_of(pool, name);
        self.remembered.take(pool, name);
        self.remember(pool, name, said, set, author);
    }

    /// Returns what holds for a backend that comes, and the weight that was said then: what was set of itself before, or
    /// of the host that it is an address of.
    pub(in crate::control) fn set_before(
        &self,
        pool: &str,
        backend: &str,
    ) -> Option<(u16, RuntimeOverrides)> {
        let of_host = || self.set_of_host(pool, host_of(backend)?);
        self.remembered.get(pool, backend).or_else(of_host)
    }

    /// Returns what operators have set of all addresses of a host, present and to come. What is forced of the health of
    /// one address says nothing of another.
    pub(in crate::control) fn set_of_host(&self, pool: &str, host: &str) -> Option<(u16, RuntimeOverrides)> {
        let (said, set) = self.remembered.get(pool, host)?;
        Some((said, RuntimeOverrides { health: None, ..set }))
    }

    /// Changes that, where the file says a weight of `says`, and what is remembered of its addresses that have left.
    pub(in crate::control) fn edit_host(
        &mut self,
        pool: &str,
        host: &str,
        says: u16,
        author: Option<&SavedAuthor>,
        edit: impl Fn(&mut RuntimeOverrides),
    ) {
        for name in self.remembered.addresses_of(pool, host) {
            let before = self.remembered.author_of(pool, &name);
            if let Some((said, mut set)) = self.remembered.take(pool, &name) {
                edit(&mut set);
                self.remember(pool, &name, said, set, author.cloned().or(before));
            }
        }
        let before = self.remembered.author_of(pool, host);
        let mut set = self
            .set_of_host(pool, host)
            .map_or_else(RuntimeOverrides::default, |(said, set)| set.kept(said, says));
        edit(&mut set);
        self.remembered.take(pool, host);
        self.remember(pool, host, says, set, author.cloned().or(before));
    }

    /// Returns the same as [`Registrations::set_before`] and the author of the administrative state, of one that is there
    /// now: nothing more is remembered of it.
    pub(in crate::control) fn recall(
        &mut self,
        pool: &str,
        backend: &Backend,
    ) -> Option<(u16, RuntimeOverrides, Option<SavedAuthor>)> {
        let (said, set) = self.set_before(pool, &backend.name)?;
        let is_its_own = self.remembered.get(pool, &backend.name).is_some();
        let name = if is_its_own { Some(&*backend.name) } else { host_of(&backend.name) };
        let author = name.and_then(|name| self.remembered.author_of(pool, name));
        if backend.is_resolved() {
            self.remembered.take(pool, &backend.name);
        }
        Some((said, set, author))
    }

    /// Forgets what was set of one that is not listed.
    pub(in crate::control) fn forget_remembered(&mut self, pool: &str, backend: &str) {
        self.remembered.take(pool, backend);
    }

    /// All that is remembered: pool, backend, the weight that was said then, what was set, and its author.
    pub(in crate::control) fn all_remembered(&self) -> impl Iterator<Item = Known<'_>> {
        self.remembered.iter()
    }

    /// Returns the backends that were discovered, in no order.
    pub(super) fn discovered(&self) -> impl Iterator<Item = BackendId> {
        self.discovered.keys().copied()
    }

    /// Returns all registrations, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (BackendId, &Registration)> {
        self.known.iter().map(|(id, registration)| (*id, registration.as_ref()))
    }

    /// Returns the end of the next lease.
    pub(in crate::control) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Extends every lease by the time for which this process stood still, and to [`STALL_GRACE`] at least, because a
    /// renewal may wait to be read.
    pub(super) fn credit(&mut self, stall: Duration, now: Instant) {
        for registration in self.known.values_mut() {
            for hold in &mut Arc::make_mut(registration).holds {
                hold.end = (hold.end + stall).max(now + STALL_GRACE);
            }
        }
        self.ends = self.known.iter().filter_map(|(id, known)| Some((known.lease()?, id.0))).collect();
    }

    /// Takes out the registrations without a lease left at `now`.
    pub(super) fn take_ended(&mut self, now: Instant) -> Vec<(BackendId, Arc<Registration>)> {
        let mut ended = Vec::new();
        while let Some(&(end, id)) = self.ends.first()
            && end <= now
        {
            let gone = self.forget(BackendId(id)).expect("a lease that ends is registered");
            ended.push((BackendId(id), gone));
        }
        ended
    }
}

impl Registrations {
    /// Forgets backends that are in no pool any more, and those that the configuration `now` lists and `before` did
    /// not, also what was set of these before they were there.
    pub(super) fn align(&mut self, snapshot: &Snapshot, before: &Config, now: &Config) {
        let (before, now) = (listed_in(before), listed_in(now));
        for (pool, backend, _) in &now {
            self.remembered.take(pool, backend);
        }
        let is_over = |id: &BackendId| match snapshot.backend(*id) {
            None => true,
            Some(backend) => {
                let pool = &snapshot.pool(backend.pool).settings.name;
                let named = (pool.as_str(), backend.name.as_str(), &backend.address);
                now.contains(&named) && !before.contains(&named)
            }
        };
        self.discovered.retain(|id, _| !is_over(id));
        let over: Vec<BackendId> = self.known.keys().copied().filter(is_over).collect();
        over.into_iter().for_each(|id| _ = self.forget(id));
    }
}

/// Returns the backends of a configuration: pool, name and address of each.
fn listed_in(config: &Config) -> HashSet<(&str, &str, &Address)> {
    let pools = config.pools.iter();
    pools
        .flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)))
        .map(|(pool, backend)| (pool.name.as_str(), backend.name.as_str(), &backend.address))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::membership::origin::{HOLDERS_MAX, Hold};
    use crate::control::tests::config;
    use crate::pool::PoolId;

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    fn until(seconds: Option<u64>) -> Registration {
        let holds = seconds.map(|end| held("one", end)).into_iter().collect();
        Registration { who: "somebody".into(), weight: 1, holds }
    }

    fn held(holder: &str, end: u64) -> Hold {
        Hold { holder: holder.into(), is_known: true, weight: 1, priority: 0, end: at(end) }
    }

    fn ended(registrations: &mut Registrations, now: u64) -> Vec<u32> {
        registrations.take_ended(at(now)).iter().map(|(id, _)| id.0).collect()
    }

    #[test]
    fn leases_end_in_their_order_and_once() {
        let mut all = Registrations::default();
        for (id, end) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
            all.put(BackendId(id), until(Some(end)));
        }
        assert_eq!(all.next_end(), Some(at(10)));
        assert!(ended(&mut all, 9).is_empty());
        assert_eq!(ended(&mut all, 20), [2, 4, 3]);
        assert!(ended(&mut all, 20).is_empty());
        assert_eq!((all.next_end(), all.iter().count()), (Some(at(30)), 1));
    }

    #[test]
    fn the_latest_request_decides() {
        let mut all = Registrations::default();
        let id = BackendId(7);
        all.put(id, until(Some(10)));
        all.put(id, until(Some(30)));
        assert!(ended(&mut all, 29).is_empty(), "renewed");
        all.put(id, until(None));
        assert!(ended(&mut all, 1000).is_empty() && all.next_end().is_none(), "for ever");
        all.put(id, until(Some(2000)));
        assert_eq!(ended(&mut all, 2000), [7], "the other way round");
    }

    #[test]
    fn only_a_backend_newly_listed_by_the_file_ends_its_registration() {
        let file = config("");
        let mut backends = file.pools[0].backends.clone();
        backends[0].address = ([127, 0, 0, 1], 3).into();
        let running = Snapshot::new(&file).with_backends(PoolId(0), &backends);
        let id = running.pools[0].backends[0].id;
        let mut all = Registrations::default();
        all.put(id, until(Some(10)));
        all.align(&running, &file, &file);
        assert!(all.get(id).is_some(), "the file lists its name, at another address");
        let mut next = file.clone();
        next.pools[0].backends = backends;
        all.align(&running, &next, &next);
        assert!(all.get(id).is_some(), "removed and registered again");
        all.align(&running, &file, &next);
        assert!(all.get(id).is_none());
    }

    #[test]
    fn a_backend_stays_while_any_holder_has_a_lease() {
        let mut known = until(Some(10));
        assert!(known.hold(held("two", 30), at(5)));
        assert_eq!(known.lease(), Some(at(30)));
        assert_eq!(known.leave("two", at(5)), 1);
        assert_eq!(known.lease(), Some(at(10)), "the other one is as before");
        assert!(known.hold(held("one", 12), at(6)) && known.hold(held("two", 8), at(6)));
        assert!(known.hold_of("two", at(7)).is_some() && known.hold_of("two", at(8)).is_none());
        assert_eq!(known.leave("one", at(8)), 0, "a lease that has ended is not counted");
    }

    #[test]
    fn an_unused_name_is_replaced_by_the_next() {
        let mut known = until(None);
        for number in 0..HOLDERS_MAX as u64 {
            let hold = Hold { is_known: number > 0, ..held(&number.to_string(), 100 + number) };
            assert!(known.hold(hold, at(0)));
        }
        assert!(known.hold(held("more", 50), at(0)), "in place of the unknown holder");
        assert!(known.hold_of("0", at(0)).is_none() && known.hold_of("more", at(0)).is_some());
        assert!(!known.hold(held("too many", 50), at(0)));
        assert!(known.hold(held("more", 60), at(0)), "a renewal always fits");
        assert_eq!(known.holds.len(), HOLDERS_MAX);
    }

    #[test]
    fn no_lease_runs_while_the_process_stands_still() {
        let mut all = Registrations::default();
        all.put(BackendId(1), until(Some(10)));
        all.put(BackendId(2), until(Some(40)));
        all.put(BackendId(3), until(None));
        // Stopped from 9 to 39.
        all.credit(Duration::from_secs(30), at(39));
        assert_eq!((all.next_end(), all.get(BackendId(2)).unwrap().lease()), (Some(at(40)), Some(at(70))));
        assert!(ended(&mut all, 39).is_empty());
        // And again at once: a lease that is about to end leaves time for a renewal that waits to be read.
        all.credit(Duration::ZERO, at(40));
        assert_eq!(all.next_end(), Some(at(40) + STALL_GRACE));
    }

    #[test]
    fn a_removed_backend_has_no_lease_to_end() {
        let mut all = Registrations::default();
        all.put(BackendId(7), until(Some(10)));
        assert!(all.forget(BackendId(7)).is_some() && all.forget(BackendId(7)).is_none());
        assert!(all.next_end().is_none() && ended(&mut all, 10).is_empty());
    }
}
