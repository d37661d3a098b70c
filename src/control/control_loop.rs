//! The state of the control thread. Its methods are where their subject is: in `reload`, `names`, and the files of
//! `membership`.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::base::time::Instant;
use crate::config::model::{Config, OwnSocket};
use crate::control::CommandChecks;
use crate::control::Standby;
use crate::control::announce::state::Announcing;
use crate::control::discovery::state::Sources;
use crate::control::fleet::state::InFleet;
use crate::control::loading::ReloadQueue;
use crate::control::membership::kept::Kept;
use crate::control::membership::notes::Removed;
use crate::control::status::View;
use crate::control::watch::FileWatch;
use crate::control::workers::{Member, Workers};
use crate::messages::command::Command;
use crate::messages::discovery::Listed;
use crate::messages::reload::{Look, Source};
use crate::messages::report::{Report, Reports};
use crate::messages::topology::Site;
use crate::pool::{PoolId, Snapshot};
use crate::sys::Clock;

/// How often it looks for reports that a full queue has dropped.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The inputs of the control thread.
pub(crate) struct Control {
    /// The snapshot that the workers run.
    pub(crate) snapshot: Arc<Snapshot>,
    /// The workers, and the counters of all that ever ran.
    pub(crate) workers: Arc<Workers>,
    /// The sending end of `inbox`.
    pub(crate) reports: Reports,
    pub(crate) inbox: Receiver<Report>,
    /// The running configuration: the latest one, without the keys that need a restart.
    pub(crate) config: Arc<Config>,
    /// The source to read it from again.
    pub(crate) source: Option<Source>,
    /// Looks whether it has changed there.
    pub(crate) look: Option<Look>,
    /// The threads that read it and open its sockets, [`LOADER_THREADS`](crate::control::LOADER_THREADS) of them.
    pub(crate) loader: Standby,
    /// Runs the programs of checks.
    pub(crate) programs: CommandChecks,
    /// Opens the resources of a configuration.
    pub(crate) site: Arc<dyn Site>,
    /// The sockets of the admin API and the metrics.
    pub(crate) admin_sockets: Vec<OwnSocket>,
    /// The state that other threads may read.
    pub(crate) view: Arc<View>,
    /// How long sessions may continue once it drains.
    pub(crate) drain_timeout: Duration,
    /// The state that survives a restart.
    pub(crate) kept: Kept,
    /// What sources have listed before they are followed.
    pub(crate) listed: Vec<Listed>,
}

/// The stage of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ControlStage {
    Serving,
    /// Still serving for `shutdown_delay`, but not ready any more.
    Leaving {
        deadline: Instant,
    },
    Draining {
        deadline: Instant,
    },
    Stopping,
}

/// A control thread at work.
pub(super) struct ControlLoop {
    pub(super) control: Control,
    pub(super) clock: Clock,
    pub(super) stage: ControlStage,
    /// The workers that have not stopped.
    pub(super) links: Vec<WorkerLink>,
    /// Pools with tables that no longer fit the health of their backends.
    pub(super) changed: Vec<PoolId>,
    /// Pools without an eligible backend, as last logged.
    pub(super) without_backend: HashSet<PoolId>,
    /// Backends that are in no pool any more and still have sessions.
    pub(super) removed: Vec<Removed>,
    pub(super) reload_queue: ReloadQueue,
    /// Watches the files of the configuration, with `[global] watch`.
    pub(super) watch: Option<FileWatch>,
    /// Where backends come from by themselves.
    pub(super) sources: Sources,
    /// The records by which clients find this process.
    pub(super) announcing: Announcing,
    /// What this process publishes for other balancers.
    pub(super) fleet: InFleet,
    /// Answers to requests, to be sent once the workers have their commands.
    pub(super) answers: Vec<Box<dyn FnOnce()>>,
    /// When this thread last began to work.
    pub(super) looked: Instant,
    pub(super) result: io::Result<()>,
}

/// One worker, and the command that its full mailbox has no room for.
pub(super) struct WorkerLink {
    pub(super) member: Member,
    /// Whether it still lacks the latest snapshot.
    pub(super) is_behind: bool,
    /// To drain, or to stop.
    pub(super) untold: Option<Command>,
}

impl WorkerLink {
    pub(super) fn new(member: &Member) -> Self {
        Self { member: member.clone(), is_behind: false, untold: None }
    }
}

impl ControlLoop {
    pub(super) fn new(mut control: Control) -> Self {
        let listed = std::mem::take(&mut control.listed);
        let clock = control.view.clock;
        let links = control.workers.members().iter().map(WorkerLink::new).collect();
        Self {
            control,
            clock,
            stage: ControlStage::Serving,
            links,
            changed: Vec::new(),
            without_backend: HashSet::new(),
            removed: Vec::new(),
            reload_queue: ReloadQueue::default(),
            watch: None,
            sources: Sources::new(listed),
            announcing: Announcing::default(),
            fleet: InFleet::default(),
            answers: Vec::new(),
            looked: clock.now(),
            result: Ok(()),
        }
    }
}
