//! The state that a scrape shows, besides the counters themselves.

use std::sync::Arc;

use crate::api::Stage;
use crate::control::ReloadStatus;
use crate::control::discovery::state::SourceState;
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
}

impl Moment {
    pub(super) fn workers(&self) -> impl Iterator<Item = &WorkerStats> {
        self.counters.iter().map(|(_, stats)| stats.as_ref())
    }
}
