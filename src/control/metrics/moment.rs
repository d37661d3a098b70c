//! The state that a scrape shows, besides the counters themselves.

use std::sync::Arc;

use crate::api::Stage;
use crate::control::ReloadStatus;
use crate::control::discovery::state::SourceState;
use crate::control::fleet::seen::FleetState;
use crate::control::status::Pauses;
use crate::messages::announce::Announced;
use crate::pool::Snapshot;
use crate::stats::WorkerStats;

/// The state of the control thread when the scrape began.
pub(super) struct Moment {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) pauses: Pauses,
    /// With the indices of the workers; an index may occur more than once.
    pub(super) counters: Vec<(usize, Arc<WorkerStats>)>,
    pub(super) stage: Stage,
    pub(super) reload: ReloadStatus,
    pub(super) restart_pending: u64,
    pub(super) unresolved: u64,
    pub(super) is_ready: bool,
    /// The number of removed backends that may have sessions, and of these sessions.
    pub(super) removed: [u64; 2],
    pub(super) sessions_max: usize,
    pub(super) sources: Vec<SourceState>,
    pub(super) announced: Announced,
    pub(super) fleet: FleetFigures,
    pub(super) is_alone: bool,
}

/// The fleet, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FleetFigures {
    pub(super) balancers: u64,
    /// Those with another configuration than that of this process.
    pub(super) other_configs: u64,
    pub(super) is_failing: bool,
}

impl FleetFigures {
    pub(super) fn of(fleet: &FleetState) -> Self {
        let configs = || fleet.known.balancers().map(|(name, balancer)| (name, balancer.config.as_str()));
        let own = configs().find(|(name, _)| Some(*name) == fleet.name.as_deref()).map(|(_, config)| config);
        Self {
            balancers: configs().count() as u64,
            other_configs: configs().filter(|(_, config)| own.is_some_and(|own| own != *config)).count()
                as u64,
            is_failing: fleet.failing.is_some() || fleet.lost.is_some(),
        }
    }
}

impl Moment {
    pub(super) fn workers(&self) -> impl Iterator<Item = &WorkerStats> {
        self.counters.iter().map(|(_, stats)| stats.as_ref())
    }
}
