//! What the workers run: listeners and pools with their tables, as of one epoch.
//!
//! A snapshot never changes once it is built; the mailboxes hand it over. Workers may run different epochs for a moment,
//! and need not agree: what must be one for all of them, the cursor of a pool and the atomics of its backends, is the
//! same object in every epoch.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::balance::{Member, Table};
use crate::base::hash::hash;
use crate::config::model::{self, Config, HealthState, WhenAllDown};
use crate::pool::{Backend, BackendId};

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
    /// Those of all pools, by [`BackendId`].
    backends: Arc<[Arc<Backend>]>,
}

/// A listener of the configuration.
#[derive(Debug)]
pub struct Listener {
    /// As configured.
    pub settings: model::Listener,
    /// Where its sessions go.
    pub pool: PoolId,
}

/// A pool of one epoch. The backends and the cursor are the same objects in every epoch.
pub struct Pool {
    /// Which it is.
    pub id: PoolId,
    /// As configured.
    pub settings: Arc<model::Pool>,
    /// All its backends, in the order of the file.
    pub backends: Vec<Arc<Backend>>,
    /// Counts picks over all workers, so that round robin is exact.
    pub cursor: Arc<AtomicU64>,
    /// Whom to choose from, most wanted first.
    pub(super) tiers: Vec<Tier>,
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
        let mut all = Vec::new();
        for (settings, index) in config.pools.iter().zip(0..) {
            let (id, first) = (PoolId(index), all.len());
            for backend in &settings.backends {
                let backend_id = BackendId(u32::try_from(all.len()).expect("fewer than 2^32 backends"));
                all.push(Arc::new(Backend::new(backend_id, id, backend, settings.health.initial_state)));
            }
            let backends = all[first..].to_vec();
            pools.push(Arc::new(Pool::new(id, Arc::new(settings.clone()), backends, Arc::default())));
        }
        let listeners = config.listeners.iter().map(|settings| {
            let pool = PoolId(u32::try_from(settings.pool).expect("fewer than 2^32 pools"));
            Arc::new(Listener { settings: settings.clone(), pool })
        });
        Self { epoch: 0, listeners: listeners.collect(), pools, backends: all.into() }
    }

    /// The next epoch, in which the tables of the `changed` pools heed the health of their backends as it is now.
    #[must_use]
    pub fn refreshed(&self, changed: &[PoolId]) -> Self {
        let mut pools = self.pools.clone();
        for &id in changed {
            let pool = &mut pools[id.0 as usize];
            if !pool.settings.balance.table_heeds_health() {
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

    /// The backend of that id.
    pub fn backend(&self, id: BackendId) -> &Arc<Backend> {
        &self.backends[id.0 as usize]
    }

    /// The backends of all pools, by id.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.backends.iter()
    }
}

impl Pool {
    /// Whether a backend is eligible for a new session, as of now.
    pub fn has_eligible(&self) -> bool {
        self.backends.iter().any(|backend| backend.weight > 0 && backend.health() != HealthState::Down)
    }

    fn new(
        id: PoolId,
        settings: Arc<model::Pool>,
        backends: Vec<Arc<Backend>>,
        cursor: Arc<AtomicU64>,
    ) -> Self {
        let keeps_all = !settings.balance.table_heeds_health();
        let healthy = |b: &Backend| keeps_all || b.health() != HealthState::Down;
        let tier = |heeds_health: bool, wanted: &dyn Fn(&Backend) -> bool| {
            let members: Vec<usize> = (0..backends.len())
                .filter(|&index| backends[index].weight > 0 && wanted(&backends[index]))
                .collect();
            let weights: Vec<Member> = members.iter().map(|&index| member(&backends[index])).collect();
            Tier { table: Table::build(settings.balance, &weights), members, heeds_health }
        };
        let mut tiers =
            vec![tier(true, &|b| !b.backup && healthy(b)), tier(true, &|b| b.backup && healthy(b))];
        if settings.when_all_down == WhenAllDown::TryAnyway {
            tiers.push(tier(false, &|_| true));
        }
        tiers.retain(|tier| !tier.members.is_empty());
        Self { id, settings, backends, cursor, tiers }
    }
}

fn member(backend: &Backend) -> Member {
    Member { identity: hash(backend.name.as_bytes(), 0), weight: backend.weight }
}
