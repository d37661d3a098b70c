//! The control thread without its thread and its sources: each call does what one report makes it do, and nothing
//! happens in between. The simulation drives it, so that the laws of membership hold for the code that runs.

use std::sync::Arc;

use crate::config::model::Config;
use crate::control::CommandChecks;
use crate::control::control_loop::{Control, ControlLoop, RETRY_INTERVAL};
use crate::control::discovery::state::Sources;
use crate::control::membership::kept::Kept;
use crate::control::membership::origin::Origin;
use crate::control::standby::Standby;
use crate::control::status::View;
use crate::control::workers::Workers;
use crate::messages::discovery::SourceReport;
use crate::messages::reload::{Mode, ReloadRequest};
use crate::messages::report::Reports;
use crate::messages::topology::{Site, StagedChange};
use crate::pool::{BackendId, Snapshot};

/// See the module.
pub struct SteppedControl(ControlLoop);

impl SteppedControl {
    /// Returns one that runs `config` as `snapshot`, follows its sources and asks none of them. It has no thread.
    pub fn new(config: &Config, snapshot: &Arc<Snapshot>, site: Arc<dyn Site>) -> Self {
        let (reports, inbox) = Reports::new();
        let (config, workers) = (Arc::new(config.clone()), Arc::<Workers>::default());
        let mut work = ControlLoop::new(Control {
            view: Arc::new(View::new(&config, None, Arc::clone(snapshot), Arc::clone(&workers))),
            snapshot: Arc::clone(snapshot),
            workers,
            reports,
            inbox,
            drain_timeout: config.global.drain_timeout,
            config,
            source: None,
            look: None,
            loader: Standby::start("none", 0, 0).expect("no thread fails to start"),
            programs: CommandChecks::without_thread().expect("no thread fails to start"),
            site,
            admin_sockets: Vec::new(),
            kept: Kept::default(),
            listed: Vec::new(),
        });
        work.sources = Sources::unasked();
        work.follow_sources();
        Self(work)
    }

    /// The workers run `snapshot` by now, which has come of `config`.
    pub fn run(&mut self, snapshot: &Arc<Snapshot>, config: Config) {
        self.0.control.config = Arc::new(config);
        self.0.control.snapshot = Arc::clone(snapshot);
        self.0.show_snapshot();
    }

    /// Returns what the workers are to run.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.0.control.snapshot
    }

    /// Returns the origin of a backend of that snapshot.
    pub fn origin_of(&self, backend: BackendId) -> Origin {
        self.0.control.kept.registrations.origin_of(backend)
    }

    /// Returns the number of the latest event, unless there was none.
    pub fn last_event(&self) -> Option<u64> {
        self.0.control.view.events.recent(None, 1).last().map(|event| event.id)
    }

    /// A source of that pool reports. Returns false when none runs under that label.
    pub fn on_report_of(&mut self, pool: &str, label: &str, report: SourceReport) -> bool {
        let Some(id) = self.0.sources.run_of(pool, label) else { return false };
        self.0.on_discovered(id, report, RETRY_INTERVAL);
        self.0.apply_lists();
        self.0.publish();
        true
    }

    /// Applies `config`, whose resources are `staged`.
    pub fn reload(&mut self, config: &Config, staged: Box<dyn StagedChange>) {
        let request = ReloadRequest {
            who: "an operator".into(),
            source: None,
            mode: Mode::Apply,
            answer: None,
            listening: None,
        };
        self.0.follow(request, config, Some(staged));
        self.0.publish();
        self.0.give_answers();
    }

    /// Forgets removed backends without sessions. Must be called only while no worker runs an epoch that has one of
    /// them.
    pub fn forget_removed(&mut self) {
        self.0.check_removed();
    }
}
