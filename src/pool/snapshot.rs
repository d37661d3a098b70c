//! The snapshot that workers run: listeners and pools with their tables, as of one epoch.
//!
//! A snapshot never changes once it is built; the mailboxes hand it over. Workers may run different epochs for a
//! moment, and need not agree: state that all of them must share, the gauge of a listener, the cursor of a pool and the
//! atomics of its backends, is the same object in every epoch. Listeners, pools and backends are added and removed. One
//! that stays, by its name, keeps its id, and no id is ever reused. A session on a removed backend holds it by its
//! lease, and one of a removed or changed listener holds the version that accepted it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Weak};

use crate::config::model::{self, Config, SessionLines};
use crate::pool::tables::{BackendIds, Earlier};
use crate::pool::{Backend, BackendId, Lease, Listener, ListenerId, Pool, PoolId};

/// The listeners and pools of one epoch.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Number of the snapshot; rises with each one published.
    pub epoch: u64,
    /// The latest epoch that was announced, shared by all epochs of the process.
    announced: Arc<AtomicU64>,
    /// Number of serving workers.
    pub workers: usize,
    /// The log lines that sessions have.
    pub lines: SessionLines,
    /// By ascending [`ListenerId`].
    pub listeners: Vec<Arc<Listener>>,
    /// By ascending [`PoolId`].
    pub pools: Vec<Arc<Pool>>,
    /// Removed pools, by ascending id, in their last state. Sessions of former versions of listeners may still have to
    /// find them; their backends are not checked.
    retired: Vec<Arc<Pool>>,
    /// Replaced or removed versions of listeners, as long as they are referenced.
    former: Vec<Weak<Listener>>,
    /// The backends of all pools but the retired ones, by ascending [`BackendId`].
    backends: Arc<[Arc<Backend>]>,
    next: NextIds,
}

/// The next ids. They only rise.
#[derive(Clone, Copy, Default)]
struct NextIds {
    listener: u32,
    pool: u32,
    backends: BackendIds,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot of epoch {}", self.epoch)
    }
}

impl Snapshot {
    /// Returns the first epoch of a configuration.
    pub fn new(config: &Config) -> Self {
        Self { epoch: 0, announced: Arc::default(), ..Self::default().reconfigured(config) }
    }

    /// Returns the next epoch, which runs `config`. Parts that stay are the same object or keep their id: a pool by its
    /// name, a listener by its name and address, a backend by its pool, its name and address. A backend that stays gets
    /// its new weight as by [`Backend::set_weight`].
    #[must_use]
    pub fn reconfigured(&self, config: &Config) -> Self {
        self.reconfigured_back(config, &[])
    }

    /// Same as [`Snapshot::reconfigured`], where backends that were in its pools in an earlier epoch may be `back`.
    #[must_use]
    pub fn reconfigured_back(&self, config: &Config, back: &[Arc<Backend>]) -> Self {
        let mut next = self.begun();
        let workers = config.global.workers.get();
        next.workers = workers;
        next.lines = config.global.session_lines;
        let known: HashMap<&str, &Arc<Pool>> =
            self.pools.iter().map(|pool| (pool.settings.name.as_str(), pool)).collect();
        let named = config.pools.iter().map(|settings| match known.get(settings.name.as_str()) {
            Some(pool) => {
                let earlier = Earlier { back, ..Earlier::default() };
                pool.changed(settings, workers, earlier, &mut next.next.backends)
            }
            None => {
                Pool::first(PoolId(take(&mut next.next.pool)), settings, workers, &mut next.next.backends)
            }
        });
        let named: Vec<Arc<Pool>> = named.collect();

        let known: HashMap<_, _> = self
            .listeners
            .iter()
            .map(|listener| ((listener.settings.name.as_str(), listener.settings.bind), listener))
            .collect();
        let listeners = config.listeners.iter().map(|settings| {
            let mut pools = settings.pools().map(|pool| named[pool].id);
            let pool = pools.next().expect("a listener has a pool");
            let pools = (pool, pools.collect());
            match known.get(&(settings.name.as_str(), settings.bind)) {
                Some(listener) => listener.changed(settings, pools),
                None => Arc::new(Listener::new(
                    ListenerId(take(&mut next.next.listener)),
                    settings.clone(),
                    pools,
                    workers,
                )),
            }
        });
        next.listeners = listeners.collect();
        next.listeners.sort_unstable_by_key(|listener| listener.id.0);
        next.set_pools(named);

        let stays = |old: &Arc<Listener>| next.listener(old.id).is_some_and(|new| Arc::ptr_eq(old, new));
        let former: Vec<_> = self.listeners.iter().filter(|old| !stays(old)).map(Arc::downgrade).collect();
        next.former.extend(former);
        let is_gone = |old: &&Arc<Pool>| place_of(&next.pools, old.id).is_none();
        next.retired.extend(self.pools.iter().filter(is_gone).cloned().inspect(|pool| pool.note_retired()));
        next.retired.sort_unstable_by_key(|pool| pool.id.0);
        next
    }

    /// Returns the next epoch, with tables of the `changed` pools that respect the present health, administrative state
    /// and weight of their backends. A retired pool stays unchanged.
    #[must_use]
    pub fn refreshed(&self, changed: &[PoolId]) -> Self {
        let mut next = self.begun();
        for &id in changed {
            if let Some(place) = place_of(&next.pools, id) {
                next.pools[place] = next.pools[place].refreshed(self.workers);
                next.pools[place].note_serving();
            }
        }
        next
    }

    /// Returns the next epoch, in which `pool` has these backends. One that it has already, by name and address, stays
    /// the same object, and gets its new weight as by [`Backend::set_weight`]. One that is no longer named is in no
    /// pool; its sessions continue.
    #[must_use]
    pub fn with_backends(&self, pool: PoolId, backends: &[model::Backend]) -> Self {
        self.with_backends_back(pool, backends, &[])
    }

    /// Same as [`Snapshot::with_backends`], where backends that the pool had in an earlier epoch are `back`: each is
    /// the same object as then, with its id, its health, its counters and its remaining sessions.
    #[must_use]
    pub fn with_backends_back(
        &self,
        pool: PoolId,
        backends: &[model::Backend],
        back: &[Arc<Backend>],
    ) -> Self {
        self.with_backends_of(pool, backends, Earlier { back, ..Earlier::default() })
    }

    /// Same as [`Snapshot::with_backends_back`], where the backends `former` of the pool have other addresses among
    /// `backends`: there each is another backend, with a health of its own, and with the same counters.
    #[must_use]
    pub fn with_backends_moved(
        &self,
        pool: PoolId,
        backends: &[model::Backend],
        back: &[Arc<Backend>],
        former: &[Arc<Backend>],
    ) -> Self {
        self.with_backends_of(pool, backends, Earlier { back, former })
    }

    fn with_backends_of(&self, pool: PoolId, backends: &[model::Backend], earlier: Earlier<'_>) -> Self {
        let mut next = self.begun();
        let mut pools = self.pools.clone();
        if let Some(place) = place_of(&pools, pool) {
            let mut settings = model::Pool::clone(&pools[place].settings);
            settings.backends = backends.to_vec();
            pools[place] = pools[place].changed(&settings, self.workers, earlier, &mut next.next.backends);
        }
        next.set_pools(pools);
        next
    }

    /// Announces the next epoch, which the caller must publish. Must be called before a change that needs new tables
    /// shows in the state that all epochs share: backends that leave may be drained before a worker has the tables of
    /// those that come, and its clients wait for these instead of being refused.
    pub fn announce(&self) {
        self.announced.fetch_max(self.epoch + 1, Ordering::Relaxed);
        // All accesses of that state are relaxed: a worker that finds it changed must find the epoch announced.
        fence(Ordering::Release);
    }

    /// Returns whether a later epoch was announced: the backends that these tables lack may be in that one.
    pub fn is_outdated(&self) -> bool {
        self.announced() > self.epoch
    }

    /// Returns the latest epoch that was announced.
    pub fn announced(&self) -> u64 {
        fence(Ordering::Acquire);
        self.announced.load(Ordering::Relaxed)
    }

    /// Announces the next epoch and returns it as [`Snapshot::followed`] does.
    fn begun(&self) -> Self {
        self.announce();
        self.followed()
    }

    /// Returns the next epoch, in which nothing has changed except that unreferenced parts are dropped.
    fn followed(&self) -> Self {
        let mut next = Self { epoch: self.epoch + 1, ..self.clone() };
        next.former.retain(|listener| listener.strong_count() > 0);
        let former: Vec<Arc<Listener>> = next.former.iter().filter_map(Weak::upgrade).collect();
        let held: Vec<PoolId> = former.iter().flat_map(|listener| listener.pools()).collect();
        next.retired.retain(|pool| held.contains(&pool.id));
        next
    }

    /// Sets the pools and their backends.
    fn set_pools(&mut self, mut pools: Vec<Arc<Pool>>) {
        pools.sort_unstable_by_key(|pool| pool.id.0);
        pools.iter().for_each(|pool| pool.note_serving());
        let is_same = pools.len() == self.pools.len()
            && pools.iter().zip(&self.pools).all(|(new, old)| Arc::ptr_eq(new, old));
        if is_same {
            return;
        }
        let mut all: Vec<Arc<Backend>> = pools.iter().flat_map(|pool| &pool.backends).cloned().collect();
        all.sort_unstable_by_key(|backend| backend.id.0);
        (self.pools, self.backends) = (pools, all.into());
    }

    /// Returns the pool of that id, which must come from this epoch or from a listener. A retired one is found as long
    /// as a version of a listener that names it is referenced.
    pub fn pool(&self, id: PoolId) -> &Arc<Pool> {
        let find = |pools| place_of(pools, id).map(|place| &pools[place]);
        let pool = find(&self.pools).or_else(|| find(&self.retired));
        pool.expect(
            "the caller holds a version of a listener that names the pool, or a backend of this epoch",
        )
    }

    /// Returns the listener of that id as it is in this epoch, unless it was removed.
    pub fn listener(&self, id: ListenerId) -> Option<&Arc<Listener>> {
        let place = self.listeners.binary_search_by_key(&id.0, |listener| listener.id.0);
        place.ok().map(|place| &self.listeners[place])
    }

    /// Returns the backend of that id, unless it is in no pool of this epoch, or only in a retired one.
    pub fn backend(&self, id: BackendId) -> Option<&Arc<Backend>> {
        let place = self.backends.binary_search_by_key(&id.0, |backend| backend.id.0);
        place.ok().map(|place| &self.backends[place])
    }

    /// Returns whether the backends are known to be those of `other`, with the same settings. May be false though they
    /// are.
    pub fn shares_backends(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.backends, &other.backends)
    }

    /// Ends a lease that a session of `worker` had. Updates the tables of this epoch that need to know.
    pub fn release(&self, lease: Lease, worker: usize) {
        if let Some(place) = place_of(&self.pools, lease.backend().pool) {
            self.pools[place].note_release(lease.backend(), worker);
        }
        lease.release();
    }

    /// Returns the configured pool of that name.
    pub fn pool_named(&self, name: &str) -> Option<&Arc<Pool>> {
        self.pools.iter().find(|pool| pool.settings.name == name)
    }

    /// Returns the backends of all pools, by id.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.backends.iter()
    }

    /// Returns whether the next epoch would hold fewer retired pools: some of them cannot be found any more.
    pub fn can_forget(&self) -> bool {
        !self.retired.is_empty() && self.followed().retired.len() < self.retired.len()
    }

    /// Returns the removed pools that sessions may still have to find.
    pub fn retired(&self) -> &[Arc<Pool>] {
        &self.retired
    }
}

fn place_of(pools: &[Arc<Pool>], id: PoolId) -> Option<usize> {
    pools.binary_search_by_key(&id.0, |pool| pool.id.0).ok()
}

fn take(next: &mut u32) -> u32 {
    let id = *next;
    *next = next.checked_add(1).expect("fewer than 2^32 of them in the life of a process");
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::config::model::HealthState;
    use crate::config::{self, Overrides};
    use crate::pool::{Admin, Chosen, choose};

    const POOL: PoolId = PoolId(0);

    /// `a` and `b` in one pool, `c` in the other.
    const TWO_POOLS: &str = "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:9090\"\npool = \"one\"\n\
        [[listener]]\nname = \"in_two\"\nbind = \"127.0.0.1:9091\"\npool = \"two\"\n\
        [[pool]]\nname = \"one\"\nbackend = [\
        { name = \"a\", address = \"127.0.0.1:1\" }, { name = \"b\", address = \"127.0.0.1:2\" }]\n\
        [[pool]]\nname = \"two\"\nbackend = [{ name = \"c\", address = \"127.0.0.1:3\" }]\n";

    /// One of these pools, and the listener of the other one.
    const ONLY_TWO: &str = "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:9090\"\n\
        [[pool]]\nname = \"two\"\nbackend = [{ name = \"c\", address = \"127.0.0.1:3\" }]\n";

    fn snapshot() -> Snapshot {
        Snapshot::new(&config(TWO_POOLS))
    }

    fn config(text: &str) -> Config {
        let no_names = &mut |_: &str| Ok(Vec::new());
        config::parse(text, "test", &Overrides::default(), no_names).expect("a good config")
    }

    fn named(name: &str, port: u16) -> model::Backend {
        model::Backend {
            name: name.into(),
            address: ([127, 0, 0, 1], port).into(),
            weight: 1,
            priority: 0,
            check: model::BackendCheck::default(),
        }
    }

    fn ids(snapshot: &Snapshot) -> Vec<(u32, &str)> {
        snapshot.backends().map(|backend| (backend.id.0, backend.name.as_str())).collect()
    }

    #[test]
    fn a_backend_that_stays_is_the_same_object_with_its_new_weight_and_priority() {
        let before = snapshot();
        let a = Arc::clone(&before.pool(POOL).backends[0]);
        a.set_health(HealthState::Down);
        a.set_admin(Admin::Drain);
        let lease = a.lease(0);
        let changed = model::Backend { weight: 7, priority: 15, ..named("a", 1) };
        let after = before.with_backends(POOL, &[named("b", 2), changed]);
        let pool = after.pool(POOL);
        assert!(Arc::ptr_eq(&a, &pool.backends[1]) && Arc::ptr_eq(&a, after.backend(a.id).unwrap()));
        assert_eq!((a.health(), a.admin(), a.active(), a.weight()), (HealthState::Down, Admin::Drain, 1, 7));
        assert_eq!(pool.settings.backends[1].priority, 15);
        assert!(Arc::ptr_eq(&pool.cursor, &before.pool(POOL).cursor), "the turn continues");
        lease.release();
    }

    #[test]
    fn an_id_is_never_used_twice() {
        let first = snapshot();
        assert_eq!(ids(&first), [(0, "a"), (1, "b"), (2, "c")]);
        let without = first.with_backends(POOL, &[named("b", 2)]);
        assert_eq!(ids(&without), [(1, "b"), (2, "c")]);
        assert!(without.backend(BackendId(0)).is_none());
        let again = without.with_backends(POOL, &[named("a", 1), named("b", 2)]);
        assert_eq!(ids(&again), [(1, "b"), (2, "c"), (3, "a")]);
        let gone = again.with_backends(POOL, &[named("b", 2)]).refreshed(&[POOL]);
        assert_eq!(ids(&gone.with_backends(POOL, &[named("d", 4)])), [(2, "c"), (4, "d")]);
    }

    #[test]
    fn a_backend_that_returns_keeps_its_identity_and_settings() {
        let first = snapshot();
        let a = Arc::clone(&first.pool(POOL).backends[0]);
        a.set_health(HealthState::Down);
        let lease = a.lease(0);
        let without = first.with_backends(POOL, &[named("b", 2)]);
        let with = |name, port| {
            let back =
                without.with_backends_back(POOL, &[named("b", 2), named(name, port)], &[Arc::clone(&a)]);
            Arc::clone(&back.pool(POOL).backends[1])
        };
        assert!(Arc::ptr_eq(&with("a", 1), &a));
        for (name, port) in [("a", 9), ("c", 1)] {
            assert_eq!(with(name, port).id, BackendId(3), "{name}:{port} is another one");
        }
        let file = config(TWO_POOLS);
        let listed = without.reconfigured_back(&file, &[Arc::clone(&a)]);
        assert_eq!(ids(&listed), [(0, "a"), (1, "b"), (2, "c")]);
        assert!(Arc::ptr_eq(listed.backend(a.id).unwrap(), &a));
        lease.release();
    }

    #[test]
    fn the_same_name_at_another_address_is_another_backend() {
        let after = snapshot().with_backends(POOL, &[named("a", 9), named("b", 2)]);
        assert_eq!(ids(&after), [(1, "b"), (2, "c"), (3, "a")]);
    }

    #[test]
    fn the_other_pools_stay_what_they_were() {
        let before = snapshot();
        let after = before.with_backends(POOL, &[named("z", 9)]);
        assert!(Arc::ptr_eq(&before.pools[1], &after.pools[1]));
        assert_eq!(after.epoch, before.epoch + 1);
        assert!(!after.shares_backends(&before) && after.refreshed(&[POOL]).shares_backends(&after));
    }

    #[test]
    fn a_lease_outlives_its_backend_in_the_pool() {
        let before = snapshot();
        let lease = before.pool(POOL).backends[0].lease(0);
        let after = before.with_backends(POOL, &[named("b", 2)]);
        drop(before);
        assert_eq!((lease.backend().name.as_str(), lease.backend().active()), ("a", 1));
        assert!(after.backend(lease.backend().id).is_none());
        lease.release();
    }

    /// Returns the epoch after `before` with `old` in its configuration replaced by `new`.
    fn with(before: &Snapshot, old: &str, new: &str) -> Snapshot {
        assert_eq!(TWO_POOLS.matches(old).count(), 1, "{old}");
        before.reconfigured(&config(&TWO_POOLS.replace(old, new)))
    }

    fn listeners(snapshot: &Snapshot) -> Vec<(u32, &str, u32)> {
        let listeners = snapshot.listeners.iter();
        listeners.map(|listener| (listener.id.0, listener.settings.name.as_str(), listener.pool.0)).collect()
    }

    #[test]
    fn the_same_configuration_again_changes_nothing() {
        let before = snapshot();
        let after = before.reconfigured(&config(TWO_POOLS));
        assert!(after.shares_backends(&before) && after.former.is_empty() && after.retired.is_empty());
        assert!(before.listeners.iter().zip(&after.listeners).all(|(old, new)| Arc::ptr_eq(old, new)));
        assert!(before.pools.iter().zip(&after.pools).all(|(old, new)| Arc::ptr_eq(old, new)));
    }

    #[test]
    fn the_order_in_the_file_is_no_part_of_what_a_listener_does() {
        let before = snapshot();
        let swapped =
            Config { pools: config(TWO_POOLS).pools.into_iter().rev().collect(), ..config(TWO_POOLS) };
        let turned =
            |listener: &model::Listener| model::Listener { pool: 1 - listener.pool, ..listener.clone() };
        let swapped = Config { listeners: swapped.listeners.iter().rev().map(turned).collect(), ..swapped };
        let after = before.reconfigured(&swapped);
        assert!(before.listeners.iter().zip(&after.listeners).all(|(old, new)| Arc::ptr_eq(old, new)));
        assert!(after.shares_backends(&before));
    }

    #[test]
    fn another_version_of_a_listener_has_its_id_and_its_gauge() {
        let before = snapshot();
        let old = Arc::clone(&before.listeners[0]);
        assert!(old.gauge().enter(old.sessions_max()));
        let after = with(&before, "9090\"\n", "9090\"\nmax_sessions = 1\n");
        let new = after.listener(old.id).unwrap();
        assert!(!Arc::ptr_eq(&old, new) && old.sessions_max() == usize::MAX);
        assert_eq!((new.gauge().count(), new.sessions_max()), (1, 1));
        assert!(Arc::ptr_eq(&before.listeners[1], &after.listeners[1]), "the other one stays what it was");
    }

    #[test]
    fn another_address_or_name_makes_another_listener() {
        let before = snapshot();
        assert_eq!(listeners(&before), [(0, "in", 0), (1, "in_two", 1)]);
        let moved = with(&before, ":9090", ":9092");
        assert_eq!(listeners(&moved), [(1, "in_two", 1), (2, "in", 0)]);
        assert!(moved.listener(ListenerId(0)).is_none());
        let back = moved.reconfigured(&config(TWO_POOLS));
        assert_eq!(listeners(&back), [(1, "in_two", 1), (3, "in", 0)], "no id is used twice");
        assert_eq!(listeners(&with(&before, "\"in\"", "\"new\"")), [(1, "in_two", 1), (2, "new", 0)]);
    }

    #[test]
    fn a_pool_keeps_its_turn_and_its_backends_under_other_settings() {
        let before = snapshot();
        let after = with(&before, "name = \"one\"\nbackend", "name = \"one\"\nretries = 7\nbackend");
        let (old, new) = (before.pool(POOL), after.pool(POOL));
        assert!(new.settings.retries == 7 && Arc::ptr_eq(&old.cursor, &new.cursor));
        assert!(old.backends.iter().zip(&new.backends).all(|(old, new)| Arc::ptr_eq(old, new)));
        assert!(!after.shares_backends(&before), "checks have to look at the settings");
        assert!(Arc::ptr_eq(&before.pools[1], &after.pools[1]));
    }

    #[test]
    fn a_retired_pool_serves_while_a_listener_that_names_it_is_held() {
        let before = snapshot();
        let held = Arc::clone(&before.listeners[0]);
        let backend = before.pool(POOL).backends[0].id;
        let after = before.reconfigured(&config(ONLY_TWO));
        drop(before);
        assert_eq!(listeners(&after), [(0, "in", 1)]);
        assert_eq!((after.pools.len(), after.retired().len()), (1, 1));
        assert!(after.backend(backend).is_none(), "no worker checks it");

        let after = after.refreshed(&[POOL]).refreshed(&[PoolId(1)]);
        let (client, mut rng) = ([10, 0, 0, 1].into(), Rng::new(1));
        let Chosen::Leased(lease, _) = choose(after.pool(held.pool), 0, client, &[], &mut rng) else {
            panic!("it has backends")
        };
        assert_eq!(lease.backend().pool, POOL);
        lease.release();

        drop(held);
        let after = after.refreshed(&[]);
        assert!(after.retired().is_empty() && after.former.is_empty());
        let again = after.reconfigured(&config(TWO_POOLS));
        assert_eq!(
            again.pools.iter().map(|pool| pool.id.0).collect::<Vec<_>>(),
            [1, 2],
            "no id is used twice"
        );
    }

    #[test]
    fn a_pool_is_kept_by_any_former_version_of_a_listener() {
        let first = snapshot();
        let held = Arc::clone(&first.listeners[0]);
        let second = with(&first, "9090\"\n", "9090\"\nmax_sessions = 1\n");
        let third = with(&second, "pool = \"one\"", "pool = \"two\"");
        assert!(third.retired().is_empty(), "it is configured, though no listener names it");
        let fourth = third.reconfigured(&config(ONLY_TWO));
        drop((first, second, third));
        assert_eq!(fourth.refreshed(&[]).retired().len(), 1);
        drop(held);
        assert!(fourth.refreshed(&[]).retired().is_empty());
    }
}
