//! One listener as the sessions see it that come through it.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::config::model;
use crate::pool::{Gauge, PoolId};
use crate::stats::ListenerStats;

/// Names a listener, and with it its sockets, for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u32);

/// One version of a listener. A listener of the same name at the same address keeps its id, its sockets and its gauge;
/// other settings make another version of it. A session keeps the one that accepted it, so its timeouts and names stay
/// what they were.
///
/// Every session holds one, so the count of holders is written all the time: it is on a cache line apart from what is read.
#[derive(Debug)]
#[repr(align(128))]
pub struct Listener {
    /// Which it is; the same in all versions.
    pub id: ListenerId,
    /// As configured. What it says of its pool is where that is in its own configuration; see `pool`.
    pub settings: model::Listener,
    /// Where its sessions go.
    pub pool: PoolId,
    /// Sessions through all its versions.
    gauge: Arc<Gauge>,
    /// Of all its versions.
    stats: Arc<ListenerStats>,
}

impl Listener {
    /// The first version. So many workers are expected to use it; there may be more.
    pub fn new(id: ListenerId, settings: model::Listener, pool: PoolId, workers: usize) -> Self {
        let stats = Arc::new(ListenerStats::new(workers));
        Self { id, settings, pool, gauge: Arc::default(), stats }
    }

    /// The version that follows this one, which is this one when nothing has changed.
    #[must_use]
    pub fn changed(self: &Arc<Self>, settings: &model::Listener, pool: PoolId) -> Arc<Self> {
        // Where the pool is listed is no part of what the listener does.
        let alike = model::Listener { pool: settings.pool, ..self.settings.clone() };
        if alike == *settings && self.pool == pool {
            return Arc::clone(self);
        }
        let (gauge, stats) = (Arc::clone(&self.gauge), Arc::clone(&self.stats));
        Arc::new(Self { id: self.id, settings: settings.clone(), pool, gauge, stats })
    }

    /// Sessions through it at a time, at most.
    pub fn sessions_max(&self) -> usize {
        self.settings.max_sessions.map_or(usize::MAX, NonZeroUsize::get)
    }

    /// Sessions through all its versions, as of now.
    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// What is counted of all its versions.
    pub fn stats(&self) -> &ListenerStats {
        &self.stats
    }
}
