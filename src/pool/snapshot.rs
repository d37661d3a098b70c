//! What the workers run: listeners and pools with their tables, as of one epoch.
//!
//! A snapshot never changes once it is built; the mailboxes hand it over. Workers may run different epochs for a moment,
//! and need not agree: what must be one for all of them, the cursor of a pool and the atomics of its backends, is the
//! same object in every epoch. Listeners and pools are the same in all epochs; backends come and go, and a session on
//! one that has gone holds it by its lease.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::balance::{Member, Table};
use crate::base::hash::hash;
use crate::config::model::{self, Config, HealthState, WhenAllDown};
use crate::pool::{Admin, Backend, BackendId};

/// Index into [`Snapshot::listeners`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(pub u32);

/// Index into [`Snapshot::pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolId(pub u32);

/// What the workers run, as of one epoch.
#[derive(Default)]
pub struct Snapshot {
    /// Counts the snapshots that were published.
    pub epoch: u64,
    /// By [`ListenerId`].
    pub listeners: Vec<Arc<Listener>>,
    /// By [`PoolId`].
    pub pools: Vec<Arc<Pool>>,
    /// Those of all pools, by ascending [`BackendId`].
    backends: Arc<[Arc<Backend>]>,
    /// What the next new backend is called. Only rises: an id names one backend, also when that has gone.
    next_id: u32,
}

/// A listener of the configuration.
#[derive(Debug)]
pub struct Listener {
    /// As configured.
    pub settings: model::Listener,
    /// Where its sessions go.
    pub pool: PoolId,
}

/// A pool of one epoch. The cursor, and the backends that stay, are the same objects in every epoch.
pub struct Pool {
    /// Which it is.
    pub id: PoolId,
    /// As configured, with the backends of this epoch.
    pub settings: Arc<model::Pool>,
    /// All its backends, in the order of those in `settings`.
    pub backends: Vec<Arc<Backend>>,
    /// Counts picks over all workers, so that round robin is exact.
    pub cursor: Arc<AtomicU64>,
    /// Of the backends, as the tables were built by them.
    weights: Vec<u16>,
    /// Whom to choose from, most wanted first.
    pub(super) tiers: Vec<Tier>,
}

/// One backend's part of the table of its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Slots of the hash or turns of the schedule.
    pub slots: u64,
    /// By which it was given them; 0 when it is not in the table.
    pub weight: u16,
}

/// Backends that are as good as each other, and the table to pick from them.
pub(super) struct Tier {
    /// Indices into [`Pool::backends`].
    pub(super) members: Vec<usize>,
    pub(super) table: Table,
    /// Whether a member that has gone down since is still skipped.
    pub(super) heeds_health: bool,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot of epoch {}", self.epoch)
    }
}

impl Snapshot {
    /// The first epoch of a configuration.
    pub fn new(config: &Config) -> Self {
        let mut pools = Vec::with_capacity(config.pools.len());
        let mut all: Vec<Arc<Backend>> = Vec::new();
        let mut next_id = 0;
        for (settings, index) in config.pools.iter().zip(0..) {
            let (id, first) = (PoolId(index), all.len());
            all.extend(settings.backends.iter().map(|backend| create(&mut next_id, id, settings, backend)));
            let backends = all[first..].to_vec();
            pools.push(Arc::new(Pool::new(id, Arc::new(settings.clone()), backends, Arc::default())));
        }
        let listeners = config.listeners.iter().map(|settings| {
            let pool = PoolId(u32::try_from(settings.pool).expect("fewer than 2^32 pools"));
            Arc::new(Listener { settings: settings.clone(), pool })
        });
        Self { epoch: 0, listeners: listeners.collect(), pools, backends: all.into(), next_id }
    }

    /// The next epoch, in which the tables of the `changed` pools heed the health, the administrative state and the
    /// weight of their backends as they are now.
    #[must_use]
    pub fn refreshed(&self, changed: &[PoolId]) -> Self {
        let mut pools = self.pools.clone();
        for &id in changed {
            let pool = &mut pools[id.0 as usize];
            if pool.keeps_table() {
                continue;
            }
            let (settings, cursor) = (Arc::clone(&pool.settings), Arc::clone(&pool.cursor));
            *pool = Arc::new(Pool::new(id, settings, pool.backends.clone(), cursor));
        }
        Self {
            epoch: self.epoch + 1,
            listeners: self.listeners.clone(),
            pools,
            backends: Arc::clone(&self.backends),
            next_id: self.next_id,
        }
    }

    /// The next epoch, in which `pool` has these backends. One that it has already, by name and address, stays the
    /// same object, and takes on its new weight as [`Backend::set_weight`] says. One that is not named any more is in
    /// no pool; its sessions go on.
    #[must_use]
    pub fn with_backends(&self, pool: PoolId, backends: &[model::Backend]) -> Self {
        let old = self.pool(pool);
        let mut settings = model::Pool::clone(&old.settings);
        settings.backends = backends.to_vec();
        let known: HashMap<_, _> =
            old.backends.iter().map(|backend| ((backend.name.as_str(), backend.address), backend)).collect();
        let mut next_id = self.next_id;
        let named =
            backends.iter().map(|backend| match known.get(&(backend.name.as_str(), backend.address)) {
                Some(&same) => {
                    same.set_weight(backend.weight);
                    Arc::clone(same)
                }
                None => create(&mut next_id, pool, &settings, backend),
            });
        let named: Vec<Arc<Backend>> = named.collect();
        let others = self.backends.iter().filter(|backend| backend.pool != pool);
        let mut all: Vec<Arc<Backend>> = others.chain(&named).cloned().collect();
        all.sort_unstable_by_key(|backend| backend.id.0);
        let mut pools = self.pools.clone();
        let cursor = Arc::clone(&old.cursor);
        pools[pool.0 as usize] = Arc::new(Pool::new(pool, Arc::new(settings), named, cursor));
        Self {
            epoch: self.epoch + 1,
            listeners: self.listeners.clone(),
            pools,
            backends: all.into(),
            next_id,
        }
    }

    /// The pool of that id.
    pub fn pool(&self, id: PoolId) -> &Arc<Pool> {
        &self.pools[id.0 as usize]
    }

    /// The listener of that id.
    pub fn listener(&self, id: ListenerId) -> &Arc<Listener> {
        &self.listeners[id.0 as usize]
    }

    /// The backend of that id, unless it is in no pool of this epoch.
    pub fn backend(&self, id: BackendId) -> Option<&Arc<Backend>> {
        let place = self.backends.binary_search_by_key(&id.0, |backend| backend.id.0);
        place.ok().map(|place| &self.backends[place])
    }

    /// Whether the backends are known to be those of `other`. May be false though they are.
    pub fn shares_backends(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.backends, &other.backends)
    }

    /// The backends of all pools, by id.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.backends.iter()
    }
}

impl Pool {
    /// Whether a backend is eligible for a new session, as of now.
    pub fn has_eligible(&self) -> bool {
        self.backends.iter().any(|backend| backend.admits() && backend.health() != HealthState::Down)
    }

    /// What part of the new sessions each backend has, by the table that they are picked from now.
    pub fn shares(&self) -> Vec<Share> {
        let mut shares: Vec<Share> = self.backends.iter().map(|_| Share { slots: 0, weight: 0 }).collect();
        if let Some(tier) = self.tiers.first() {
            for (&member, slots) in tier.members.iter().zip(tier.table.owned(tier.members.len())) {
                shares[member] = Share { slots, weight: self.weights[member] };
            }
        }
        shares
    }

    /// Whether a table built now would be the same.
    fn keeps_table(&self) -> bool {
        let has_weights =
            || self.backends.iter().map(|backend| backend.weight()).eq(self.weights.iter().copied());
        !self.settings.balance.table_heeds_health() && has_weights()
    }

    fn new(
        id: PoolId,
        settings: Arc<model::Pool>,
        backends: Vec<Arc<Backend>>,
        cursor: Arc<AtomicU64>,
    ) -> Self {
        let keeps_all = !settings.balance.table_heeds_health();
        // Read once: the tables and what is remembered of them are built by the same weights.
        let weights: Vec<u16> = backends.iter().map(|backend| backend.weight()).collect();
        let ready = |index: usize| keeps_all || backends[index].admin() == Admin::Ready;
        let healthy = |index: usize| keeps_all || backends[index].health() != HealthState::Down;
        let backup = |index: usize| settings.backends[index].backup;
        let tier = |heeds_health: bool, wanted: &dyn Fn(usize) -> bool| {
            let is_member = |&index: &usize| weights[index] > 0 && ready(index) && wanted(index);
            let members: Vec<usize> = (0..backends.len()).filter(is_member).collect();
            let member = |&index: &usize| Member {
                identity: hash(backends[index].name.as_bytes(), 0),
                weight: weights[index],
            };
            let table = Table::build(settings.balance, &members.iter().map(member).collect::<Vec<_>>());
            Tier { table, members, heeds_health }
        };
        let mut tiers =
            vec![tier(true, &|b| !backup(b) && healthy(b)), tier(true, &|b| backup(b) && healthy(b))];
        if settings.when_all_down == WhenAllDown::TryAnyway {
            tiers.push(tier(false, &|_| true));
        }
        tiers.retain(|tier| !tier.members.is_empty());
        Self { id, settings, backends, cursor, weights, tiers }
    }
}

/// A backend that was never there before.
fn create(next_id: &mut u32, pool: PoolId, settings: &model::Pool, backend: &model::Backend) -> Arc<Backend> {
    let id = BackendId(*next_id);
    *next_id = next_id.checked_add(1).expect("fewer than 2^32 backends in the life of a process");
    Arc::new(Backend::new(id, pool, backend, settings.health.initial_state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides};

    const POOL: PoolId = PoolId(0);

    /// Two pools: `a` and `b` in one, `c` in the other.
    fn snapshot() -> Snapshot {
        let text = "[[listener]]\nbind = \"127.0.0.1:9090\"\npool = \"one\"\n\
             [[pool]]\nname = \"one\"\nbackend = [\
             { name = \"a\", address = \"127.0.0.1:1\" }, { name = \"b\", address = \"127.0.0.1:2\" }]\n\
             [[pool]]\nname = \"two\"\nbackend = [{ name = \"c\", address = \"127.0.0.1:3\" }]\n\
             [[listener]]\nbind = \"127.0.0.1:9091\"\npool = \"two\"\n";
        let no_names = &mut |_: &str| Ok(Vec::new());
        Snapshot::new(&config::parse(text, "test", &Overrides::default(), no_names).expect("a good config"))
    }

    fn named(name: &str, port: u16) -> model::Backend {
        model::Backend { name: name.into(), address: ([127, 0, 0, 1], port).into(), weight: 1, backup: false }
    }

    fn ids(snapshot: &Snapshot) -> Vec<(u32, &str)> {
        snapshot.backends().map(|backend| (backend.id.0, backend.name.as_str())).collect()
    }

    #[test]
    fn a_backend_that_stays_is_the_same_object_with_its_new_weight_and_role() {
        let before = snapshot();
        let a = Arc::clone(&before.pool(POOL).backends[0]);
        a.set_health(HealthState::Down);
        a.set_admin(Admin::Drain);
        let lease = a.lease();
        let changed = model::Backend { weight: 7, backup: true, ..named("a", 1) };
        let after = before.with_backends(POOL, &[named("b", 2), changed]);
        let pool = after.pool(POOL);
        assert!(Arc::ptr_eq(&a, &pool.backends[1]) && Arc::ptr_eq(&a, after.backend(a.id).unwrap()));
        assert_eq!((a.health(), a.admin(), a.active(), a.weight()), (HealthState::Down, Admin::Drain, 1, 7));
        assert!(pool.settings.backends[1].backup);
        assert!(Arc::ptr_eq(&pool.cursor, &before.pool(POOL).cursor), "the turn goes on");
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
        let lease = before.pool(POOL).backends[0].lease();
        let after = before.with_backends(POOL, &[named("b", 2)]);
        drop(before);
        assert_eq!((lease.backend().name.as_str(), lease.backend().active()), ("a", 1));
        assert!(after.backend(lease.backend().id).is_none());
        lease.release();
    }
}
