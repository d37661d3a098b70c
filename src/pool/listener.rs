//! One listener as its sessions see it.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::config::model;
use crate::pool::{Gauge, PoolId};
use crate::stats::ListenerStats;

/// Names a listener, and with it its sockets, for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u32);

/// One version of a listener. A listener of the same name and address keeps its id, its sockets and its gauge; other
/// settings make a new version. A session keeps the version that accepted it, so its timeouts and names do not change.
///
/// Every session holds one, so the reference count is written all the time: it is on a cache line apart from the
/// settings.
#[derive(Debug)]
#[repr(align(128))]
pub struct Listener {
    /// Its id, the same in all versions.
    pub id: ListenerId,
    /// Its settings. The pool in them is an index into the configuration that they come from; see `pool`.
    pub settings: model::Listener,
    /// The pool of its sessions.
    pub pool: PoolId,
    /// Sessions through all its versions.
    gauge: Arc<Gauge>,
    /// Counters of all its versions.
    stats: Arc<ListenerStats>,
}

impl Listener {
    /// Returns the first version. `workers` is the expected number of workers; there may be more.
    pub fn new(id: ListenerId, settings: model::Listener, pool: PoolId, workers: usize) -> Self {
        let stats = Arc::new(ListenerStats::new(workers));
        Self { id, settings, pool, gauge: Arc::default(), stats }
    }

    /// Returns the version after this one, which is this one when nothing has changed.
    #[must_use]
    pub fn changed(self: &Arc<Self>, settings: &model::Listener, pool: PoolId) -> Arc<Self> {
        // The index of the pool does not change what the listener does.
        let alike = model::Listener { pool: settings.pool, ..self.settings.clone() };
        if alike == *settings && self.pool == pool {
            return Arc::clone(self);
        }
        let (gauge, stats) = (Arc::clone(&self.gauge), Arc::clone(&self.stats));
        Arc::new(Self { id: self.id, settings: settings.clone(), pool, gauge, stats })
    }

    /// Returns the limit on its sessions.
    pub fn sessions_max(&self) -> usize {
        self.settings.max_sessions.map_or(usize::MAX, NonZeroUsize::get)
    }

    /// Returns the gauge of sessions through all its versions.
    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// Returns the counters of all its versions.
    pub fn stats(&self) -> &ListenerStats {
        &self.stats
    }
}
