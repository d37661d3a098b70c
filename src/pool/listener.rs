//! One listener as its sessions see it.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::config::model;
use crate::config::proxy::Welcome;
use crate::pool::{Gauge, PoolId};
use crate::stats::{ListenerStats, Tally};

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
    /// The pool of its sessions, unless a route leads elsewhere.
    pub pool: PoolId,
    /// The pools of its routes, in the order of the file.
    pub routes: Vec<PoolId>,
    /// Sessions by the route that they took, and then those that took none. A change of the routes begins anew.
    routed: Arc<[Tally]>,
    /// Sessions through all its versions.
    gauge: Arc<Gauge>,
    /// Those of them with a client that has yet to send what the listener awaits.
    opening: Arc<Gauge>,
    /// Counters of all its versions.
    stats: Arc<ListenerStats>,
}

impl Listener {
    /// Returns the first version. `workers` is the expected number of workers; there may be more.
    pub fn new(
        id: ListenerId,
        settings: model::Listener,
        (pool, routes): (PoolId, Vec<PoolId>),
        workers: usize,
    ) -> Self {
        let stats = Arc::new(ListenerStats::new(workers));
        let routed = counts_of(&settings);
        Self { id, settings, pool, routes, routed, gauge: Arc::default(), opening: Arc::default(), stats }
    }

    /// Returns the version after this one, which is this one when nothing has changed.
    #[must_use]
    pub fn changed(
        self: &Arc<Self>,
        settings: &model::Listener,
        (pool, routes): (PoolId, Vec<PoolId>),
    ) -> Arc<Self> {
        // The index of a pool does not change what the listener does.
        if self.settings.is_alike(settings) && self.pool == pool && self.routes == routes {
            return Arc::clone(self);
        }
        let (gauge, opening, stats) =
            (Arc::clone(&self.gauge), Arc::clone(&self.opening), Arc::clone(&self.stats));
        let table = |settings: &model::Listener| {
            settings.routing.as_ref().map(|routing| routing.table.all().to_vec())
        };
        let is_same = table(&self.settings) == table(settings) && self.routes == routes;
        let routed = if is_same { Arc::clone(&self.routed) } else { counts_of(settings) };
        let settings = settings.clone();
        Arc::new(Self { id: self.id, settings, pool, routes, routed, gauge, opening, stats })
    }

    /// Returns the pools of its sessions: its own first, then those of its routes.
    pub fn pools(&self) -> impl Iterator<Item = PoolId> {
        std::iter::once(self.pool).chain(self.routes.iter().copied())
    }

    /// Counts a session that takes this route, or none.
    pub fn on_routed(&self, route: Option<usize>) {
        if let Some(count) = self.routed.get(route.unwrap_or(self.routes.len())) {
            count.add(1);
        }
    }

    /// Returns the sessions by the route that they took, in the order of the file, and then those that took none. Empty
    /// for a listener without routes.
    pub fn routed(&self) -> impl Iterator<Item = (Option<usize>, u64)> {
        let is_route = |index| (index < self.routes.len()).then_some(index);
        self.routed.iter().zip(0..).map(move |(count, index)| (is_route(index), count.get()))
    }

    /// Returns whether a client with this address must send something before its backend is chosen.
    pub fn awaits_more(&self, peer: IpAddr) -> bool {
        let reads_hello = self.settings.routing.as_ref().is_some_and(|routing| routing.reads.is_some());
        let proxy = self.settings.proxy_protocol.as_ref();
        reads_hello || proxy.is_some_and(|proxy| proxy.welcome(peer) == Welcome::Header)
    }

    /// Returns the limit on its sessions.
    pub fn sessions_max(&self) -> usize {
        self.settings.max_sessions.map_or(usize::MAX, NonZeroUsize::get)
    }

    /// Returns the gauge of sessions through all its versions.
    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// Returns the gauge of those with a client that has yet to send what the listener awaits.
    pub fn opening(&self) -> &Gauge {
        &self.opening
    }

    /// Returns the counters of all its versions.
    pub fn stats(&self) -> &ListenerStats {
        &self.stats
    }
}

fn counts_of(settings: &model::Listener) -> Arc<[Tally]> {
    let routes = settings.routing.as_ref().map_or(0, |routing| routing.targets.len() + 1);
    (0..routes).map(|_| Tally::default()).collect()
}
