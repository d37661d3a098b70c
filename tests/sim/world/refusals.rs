//! The law of refusals: a client is turned away only where no backend could have it. What an operator, a reload or a
//! source changes in one step is one change for a client, too: it finds a backend of before or one of after, whatever
//! the worker knows that serves it.

use std::collections::HashMap;

use l4lb::pool::{BackendId, PoolId};

use super::World;
use crate::network::client_of;
use crate::summaries::Reported;

/// Backends that the last tables have and that may have clients, by the name of their pool.
pub(super) type Free = HashMap<String, Vec<BackendId>>;

/// By pool, the fewest retries that it ever had.
#[derive(Default)]
pub(super) struct Retries(HashMap<PoolId, u64>);

impl World {
    /// Must be called with each epoch.
    pub(super) fn note_retries(&mut self) {
        for pool in &self.snapshot.pools {
            let now = u64::from(pool.settings.retries);
            let least = self.retries.0.entry(pool.id).or_insert(now);
            *least = now.min(*least);
        }
    }

    /// Returns the backends that a client may get now. Not those of a pool with the name of a former one.
    pub(super) fn free_backends(&self) -> Free {
        let net = self.net.borrow();
        let is_sole = |name: &str| self.snapshot.retired().iter().all(|pool| pool.settings.name != name);
        let pools = self.snapshot.pools.iter().filter(|pool| is_sole(&pool.settings.name));
        pools
            .map(|pool| {
                let ids = pool.backends.iter().map(|backend| backend.id);
                (pool.settings.name.clone(), ids.filter(|&id| net.roster.is_free(id)).collect())
            })
            .collect()
    }

    /// Panics when a session of the last turn was turned away though one of these backends could have had it, before
    /// that turn and after it.
    pub(super) fn check_refusal(&mut self, reported: &Reported, free: &Free) {
        let net = self.net.borrow();
        let Some(pool) = self.snapshot.pool_named(&reported.pool) else { return };
        let client = &net.conns[client_of(reported.client)];
        let may_retry = reported.retries < self.retries.0.get(&pool.id).copied().unwrap_or(0);
        let is_refused = match reported.reason.as_str() {
            "no_backend" => true,
            "connect_refused"
            | "connect_unreachable"
            | "connect_failed"
            | "connect_timeout"
            | "tls_refused" => may_retry,
            _ => false,
        };
        // It has waited for an epoch that has not come.
        let has_waited = net.now - client.moved >= self.plan.patience.connect;
        if !is_refused || has_waited {
            return;
        }
        let mut free = free.get(&reported.pool).into_iter().flatten().copied();
        let could_have_it =
            |&id: &BackendId| net.roster.is_free(id) && !net.may_have_failed(client, net.roster.port(id));
        let left = free.find(could_have_it);
        assert!(left.is_none(), "{reported:?}: turned away, though {left:?} is free: {:?}", net.roster);
    }
}
