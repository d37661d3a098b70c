//! The part of the control thread's state that others may read at any time: it writes, the admin thread reads. Nothing
//! here is on the path of a session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crate::api::Stage;
use crate::config::model::Config;
use crate::control::announce::state::Standing;
use crate::control::denials::Denials;
use crate::control::discovery::state::SourceStates;
use crate::control::events::Events;
use crate::control::fleet::seen::FleetState;
use crate::control::history::History;
use crate::control::loading::ReloadStatus;
use crate::control::membership::notes::{Leaving, Note, Removed};
use crate::control::membership::saving::Writes;
use crate::control::pending::Pending;
use crate::control::recent::Recent;
use crate::control::workers::Workers;
use crate::pool::{BackendId, Snapshot};
use crate::stats::{Share, Totals};
use crate::sys::Clock;
use jiff::Timestamp;

/// The state, and the latest events.
pub struct View {
    state: Mutex<ControlState>,
    pub(crate) events: Events,
    /// The standing of backends in the latest epochs.
    history: Mutex<History>,
    /// The last five minutes.
    recent: Mutex<Recent>,
    /// The balancers of the fleet. Its thread writes it.
    fleet: Mutex<FleetState>,
    /// Denied requests to the admin API.
    pub(crate) denials: Denials,
    /// Counts from the start of the process.
    pub(crate) clock: Clock,
    pub(crate) started: Timestamp,
    /// The state of writing the state file, if there is one.
    pub(crate) state_writes: OnceLock<Arc<Writes>>,
}

/// The operator that has paused a listener, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) by: String,
    pub(crate) since: Timestamp,
}

/// The listeners that pause, by name.
pub(crate) type Pauses = HashMap<String, Pause>;

/// The state of the control thread.
pub struct ControlState {
    pub(crate) config: Arc<Config>,
    /// The file that it was read from.
    pub(crate) file: Option<String>,
    pub(crate) snapshot: Arc<Snapshot>,
    /// The workers, and the counters of all that ever ran.
    pub(crate) workers: Arc<Workers>,
    /// The stage of the process.
    pub(crate) stage: Stage,
    /// It accepts, and will drain soon: `shutdown_delay`.
    pub(crate) is_leaving: bool,
    /// The requester that has set the process to be not ready, if any.
    pub(crate) ready_fail: Option<String>,
    /// The counters of the process when they were last cleared.
    pub(crate) cleared: Option<Cleared>,
    /// The listeners that operators have paused.
    pub(crate) pauses: Pauses,
    /// The progress of the drain of the process.
    pub(crate) drain: Option<Leaving>,
    pub reload: ReloadStatus,
    /// Keys that were read and need a restart.
    pub(crate) pending: Vec<Pending>,
    /// Backends that were removed and may still have sessions.
    pub removed: Vec<Removed>,
    pub(crate) sources: SourceStates,
    /// The records by which clients find this process, since they were first kept or failed.
    pub(crate) announce: Option<Standing>,
    /// How its view of the backends contradicts that of most other balancers.
    pub(crate) alone: Option<String>,
    /// Facts that are not in the atomics of a backend; removed backends have none.
    pub(crate) notes: HashMap<BackendId, Note>,
}

/// The counters of the process when they were cleared.
#[derive(Clone, Debug)]
pub(crate) struct Cleared {
    pub(crate) since: Timestamp,
    pub(crate) totals: Totals,
    /// In the order of [`Workers::counters`](Workers::counters), which only grows.
    pub(crate) shares: Vec<(usize, Share)>,
}

impl View {
    /// Returns the view before any event.
    pub(crate) fn new(
        config: &Arc<Config>,
        file: Option<String>,
        snapshot: Arc<Snapshot>,
        workers: Arc<Workers>,
    ) -> Self {
        let history = Mutex::new(History::new(&snapshot));
        let state = ControlState {
            config: Arc::clone(config),
            file,
            snapshot,
            workers,
            stage: Stage::Serving,
            is_leaving: false,
            ready_fail: None,
            cleared: None,
            pauses: Pauses::new(),
            reload: ReloadStatus::default(),
            pending: Vec::new(),
            removed: Vec::new(),
            sources: SourceStates::default(),
            announce: None,
            alone: None,
            drain: None,
            notes: HashMap::new(),
        };
        let (started, clock) = (crate::sys::timestamp(), Clock::of_process());
        Self {
            state: Mutex::new(state),
            events: Events::default(),
            history,
            recent: Mutex::default(),
            fleet: Mutex::default(),
            denials: Denials::new(clock.now()),
            clock,
            started,
            state_writes: OnceLock::new(),
        }
    }

    /// Returns the view of a process without listeners, pools and workers, for tests.
    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        let overrides = crate::config::Overrides {
            listen: vec![([127, 0, 0, 1], 0).into()],
            ..crate::config::Overrides::default()
        };
        let config =
            crate::config::load(None, &overrides, crate::sys::INPUTS, &mut crate::config::system_resolver);
        Self::new(&Arc::new(config.expect("flags are enough")), None, Arc::default(), Arc::default())
    }

    /// Locks the history; while the guard is held, no epoch is published.
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("lock not poisoned")
    }

    /// Locks the last five minutes; the control thread waits for the guard to take the next sample.
    pub(crate) fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().expect("lock not poisoned")
    }

    /// Locks what is known of the fleet.
    pub(crate) fn fleet(&self) -> MutexGuard<'_, FleetState> {
        self.fleet.lock().expect("lock not poisoned")
    }

    /// Locks the state; a reader must not hold the guard for long, because the control thread waits for it.
    pub fn state(&self) -> MutexGuard<'_, ControlState> {
        self.state.lock().expect("lock not poisoned")
    }
}
