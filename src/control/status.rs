//! What others may see of the control thread's state at any time: it writes, the admin thread reads.
//! Nothing here is on the way of a session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crate::api::Stage;
use crate::base::time::Instant;
use crate::config::model::Config;
use crate::control::denials::Denials;
use crate::control::events::Events;
use crate::control::history::History;
use crate::control::membership::origin::Origin;
use crate::control::membership::saving::Writes;
use crate::control::{Pending, ReloadStatus, Removed, Staff};
use crate::pool::{BackendId, Snapshot};
use crate::sys::Clock;
use jiff::Timestamp;

/// The state, and what has happened lately.
pub struct View {
    state: Mutex<ControlState>,
    /// What has happened lately.
    pub events: Events,
    /// How backends stood in the latest epochs.
    history: Mutex<History>,
    /// Requests to the admin API that were denied.
    pub denials: Denials,
    /// Counts from the start of the process.
    pub clock: Clock,
    /// When the process started.
    pub started: Timestamp,
    /// How writing the state file goes, if there is one.
    pub state_writes: OnceLock<Arc<Writes>>,
}

/// What the control thread knows.
pub struct ControlState {
    /// What runs.
    pub config: Arc<Config>,
    /// The file that it was read from.
    pub file: Option<String>,
    /// What was published last.
    pub snapshot: Arc<Snapshot>,
    /// The workers.
    pub staff: Arc<Staff>,
    /// What the process does.
    pub stage: Stage,
    /// It accepts, and will drain soon: `shutdown_delay`.
    pub is_leaving: bool,
    /// Who wants it not to be ready, if anybody does.
    pub ready_fail: Option<String>,
    /// How far the end of the process is, once it drains.
    pub drain: Option<Leaving>,
    /// Reloads so far.
    pub reload: ReloadStatus,
    /// What was read and does not run, because that takes a restart.
    pub pending: Vec<Pending>,
    /// Backends that were removed and may have sessions left.
    pub removed: Vec<Removed>,
    /// What is not in the atomics of a backend; those of backends that have gone are taken out.
    pub notes: HashMap<BackendId, Note>,
}

/// What is to come to an end.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    /// Since then.
    pub since: Instant,
    /// When it is ended; `None` when it is left to finish.
    pub deadline: Option<Instant>,
    /// Sessions there were then.
    pub sessions_at_start: u64,
}

/// What is known of a backend besides its atomics.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// The check that decided its health, in words.
    pub health_reason: Option<String>,
    /// When its health last changed.
    pub health_since: Option<Timestamp>,
    /// Who has set its administrative state at run time, and when.
    pub admin_set: Option<(String, Timestamp)>,
    /// An operator lets it have no new sessions.
    pub leaving: Option<Leaving>,
    /// Where it comes from.
    pub origin: Origin,
}

impl View {
    /// Before anything has happened.
    pub fn new(
        config: &Arc<Config>,
        file: Option<String>,
        snapshot: Arc<Snapshot>,
        staff: Arc<Staff>,
    ) -> Self {
        let history = Mutex::new(History::new(&snapshot));
        let state = ControlState {
            config: Arc::clone(config),
            file,
            snapshot,
            staff,
            stage: Stage::Serving,
            is_leaving: false,
            ready_fail: None,
            reload: ReloadStatus::default(),
            pending: Vec::new(),
            removed: Vec::new(),
            drain: None,
            notes: HashMap::new(),
        };
        let (started, clock) = (crate::sys::timestamp(), Clock::of_process());
        Self {
            state: Mutex::new(state),
            events: Events::default(),
            history,
            denials: Denials::new(clock.now()),
            clock,
            started,
            state_writes: OnceLock::new(),
        }
    }

    /// Of a process that has nothing, for tests.
    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        let overrides = crate::config::Overrides {
            listen: vec![([127, 0, 0, 1], 0).into()],
            ..crate::config::Overrides::default()
        };
        let config = crate::config::load(
            None,
            &overrides,
            crate::sys::open_regular,
            &mut crate::config::system_resolver,
        );
        Self::new(&Arc::new(config.expect("flags are enough")), None, Arc::default(), Arc::default())
    }

    /// How backends stood; for as long as the guard is held, no epoch is published.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("nobody panics with the lock")
    }

    /// The state, for as long as the guard is held: a reader that holds it for long holds up the control thread.
    pub fn state(&self) -> MutexGuard<'_, ControlState> {
        self.state.lock().expect("nobody panics with the lock")
    }
}
