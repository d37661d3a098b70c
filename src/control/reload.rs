//! Reads the configuration again and applies it, in this process: unchanged parts are not touched.
//!
//! It is read on a thread of its own, `l4lb-reload`, which is started with the process; another one opens the sockets
//! then: a name that takes long to resolve delays no change of health, and no pause of a listener. Mistakes are logged,
//! counted and remembered, and the old configuration stays. A configuration that cannot be read within `reload_timeout`
//! is given up, see `loading`. One at a time; requests that arrive meanwhile are served next, equal ones together.

use std::sync::Arc;

use crate::api::EventKind;
use crate::base::time::Instant;
use crate::config::Config;
use crate::config::diff::{Change, Difference, Subject, diff};
use crate::config::settle;
use crate::config::units::show_duration;
use crate::control::audit;
use crate::control::control_loop::{ControlLoop, ControlStage, RETRY_INTERVAL};
use crate::control::discovery::first::first_answers;
use crate::control::events::Draft;
use crate::control::loading::{Applied, Claim, LOADERS, Loading};
use crate::control::membership::merge::{Merged, merge};
use crate::control::pauses::with_sockets;
use crate::control::pending::pending;
use crate::control::watch::{FileWatch, WATCH};
use crate::logging;
use crate::messages::reload::{Answer, ChangeImpact, Mode, Refused, ReloadReport, ReloadRequest};
use crate::messages::report::Report;
use crate::messages::topology::{Loadable, Loaded, Opened, Read, StagedChange};
use crate::pool::Snapshot;
use crate::sys::{Notice, timestamp};

/// Most requests that wait while a configuration is read; further ones are refused.
const REQUESTS_MAX: usize = 64;
/// Refuses configurations from the drain on.
const DRAINING: &str = "the process is draining: no configuration is applied";
const NO_THREADS: &str = "the threads that read configurations have ended";
/// Most changes of one configuration that are remembered.
const CHANGES_MAX: usize = 100;

impl ControlLoop {
    /// Watches the files of the configuration that runs, or no longer, as that has it.
    pub(super) fn follow_watch(&mut self) {
        let config = &self.control.config;
        if !config.global.watch {
            self.watch = None;
            return;
        }
        if let Some(watch) = &self.watch {
            return watch.saw(config.digest);
        }
        let Some(look) = &self.control.look else { return };
        match FileWatch::start(Arc::clone(look), config.digest, self.control.reports.clone()) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => {
                let what = "the files of the configuration are not watched: reload them by SIGHUP";
                log::error!(error:%; "{what}");
                self.control.view.events.push(Draft::new(EventKind::Reload, format!("{what}: {error}")));
            }
        }
    }

    pub(super) fn on_reload_request(&mut self, request: ReloadRequest) {
        if self.stage != ControlStage::Serving {
            return self.refuse(request, Refused::for_now(DRAINING));
        }
        // A storm of signals is one request: the waiting one is yet to be read.
        if request.answer.is_none() && self.reload_queue.waiting.iter().any(|other| is_alike(&request, other))
        {
            return;
        }
        if request.who == WATCH {
            // The files have changed since its earlier request.
            self.reload_queue.waiting.retain(|other| other.who != WATCH);
        }
        if self.reload_queue.waiting.len() == REQUESTS_MAX {
            return self.refuse(request, Refused::for_now(format!("{REQUESTS_MAX} reloads wait already")));
        }
        self.reload_queue.waiting.push(request);
        self.load_next();
    }

    /// Takes the requests that wait as far as others are not in their way.
    fn load_next(&mut self) {
        self.open_next();
        while !self.reload_queue.is_reloading()
            && let Some(first) = self.next_waiting(|request| request.mode != Mode::Listeners)
        {
            let alike = self.reload_queue.waiting.extract_if(.., |other| is_alike(&first, other)).collect();
            self.load(together(first, alike));
        }
    }

    /// Begins to open sockets for a request that needs nothing else, unless there is one already. Those of a pause come
    /// in their order: the last one of a listener counts.
    fn open_next(&mut self) {
        while self.reload_queue.opening.is_none() {
            let next = self.reload_queue.read.take().or_else(|| {
                let request = self.next_waiting(|request| request.mode == Mode::Listeners)?;
                // What runs, with other sockets. Its files are open.
                let config = Config::clone(&self.control.config);
                Some((request, Read { config, opened: Some(Box::new(|| {})), listed: Vec::new() }))
            });
            let Some((request, read)) = next else { return };
            self.open(request, read);
        }
    }

    fn next_waiting(&mut self, is_wanted: impl Fn(&ReloadRequest) -> bool) -> Option<ReloadRequest> {
        let place = self.reload_queue.waiting.iter().position(is_wanted)?;
        Some(self.reload_queue.waiting.remove(place))
    }

    fn load(&mut self, request: ReloadRequest) {
        let mode = request.mode;
        if mode == Mode::Apply {
            self.notify(Notice::Reloading);
        }
        let source = match mode {
            Mode::Lists => Some(self.lists_source()),
            Mode::Apply | Mode::DryRun | Mode::Listeners => {
                request.source.clone().or_else(|| self.control.source.clone())
            }
        };
        let Some(source) = source else {
            self.refuse(request, Refused::wrong(vec!["there is no file to read again".into()]));
            return self.notify_over(mode);
        };
        if self.reload_queue.stuck.holds_all() {
            let why = format!(
                "{LOADERS} readings of the configuration have not ended: check the disks and name servers"
            );
            self.refuse(request, Refused::for_now(why));
            return self.notify_over(mode);
        }
        let (site, reports) = (Arc::clone(&self.control.site), self.control.reports.clone());
        let claim = Arc::<Claim>::default();
        let of_thread = Arc::clone(&claim);
        let answered = self.answered_sources();
        let known_names = self.sources.known_names();
        let run = move || {
            let read = source(&known_names).map_err(Refused::wrong).and_then(|config| {
                let opened = match mode {
                    Mode::Apply => Some(site.open(&config)?),
                    // Its files are open.
                    Mode::Lists => Some(Box::new(|| {}) as Opened),
                    Mode::DryRun | Mode::Listeners => {
                        site.preflight(&config)?;
                        None
                    }
                };
                let is_known = |pool: &str, source: &str| answered.contains(&(pool.into(), source.into()));
                let listed = first_answers(&config, is_known)
                    .map_err(|errors| Refused { errors, is_for_now: true })?;
                Ok(Read { config, opened, listed })
            });
            if !of_thread.take() {
                return log::warn!("late configuration ignored: reading it exceeded reload_timeout");
            }
            reports.send_waiting(Report::Read(Box::new(read)));
        };
        if self.control.loader.try_run(run) {
            log::info!(who = request.who, mode:?; "reading configuration");
            let deadline = self.clock.now() + self.control.config.global.reload_timeout;
            self.reload_queue.loading = Some(Loading { request, deadline, claim });
            self.control.view.state().reload.reading_since = Some(timestamp());
        } else {
            self.refuse(request, Refused::wrong(vec![NO_THREADS.into()]));
            self.notify_over(mode);
        }
    }

    /// Opens the sockets of a configuration. No other one may be at that.
    fn open(&mut self, request: ReloadRequest, Read { config, opened, listed }: Read) {
        let (site, reports) = (Arc::clone(&self.control.site), self.control.reports.clone());
        // Those of now: a listener may have been paused while the file was read.
        let pausing = self.pausing_after(request.listening.as_ref());
        let run = move || {
            let listening = with_sockets(&config, &pausing);
            let staged = opened.map(|opened| site.prepare(&listening, opened)).transpose();
            let result = staged.map(|staged| Loadable { config, staged, listed });
            reports.send_waiting(Report::Loaded(Box::new(Loaded { result })));
        };
        let mode = request.mode;
        if self.control.loader.try_run(run) {
            self.reload_queue.opening = Some(request);
        } else {
            self.refuse(request, Refused::wrong(vec![NO_THREADS.into()]));
            self.notify_over(mode);
        }
    }

    pub(super) fn on_read(&mut self, result: Result<Read, Refused>) {
        let Some(Loading { request, .. }) = self.reload_queue.loading.take() else { return };
        match result {
            Ok(read) if read.opened.is_some() && self.stage == ControlStage::Serving => {
                self.reload_queue.read = Some((request, read));
                self.open_next();
            }
            Ok(Read { config, listed, opened: _ }) => {
                self.end_request(request, Ok(Loadable { config, staged: None, listed }));
            }
            Err(refused) => self.end_request(request, Err(refused)),
        }
    }

    /// Returns when the reading in progress is given up.
    pub(super) fn next_loaded(&self) -> Option<Instant> {
        self.reload_queue.loading.as_ref().map(|loading| loading.deadline)
    }

    /// Gives up a reading that has exceeded its time.
    pub(super) fn end_loading(&mut self) {
        let now = self.clock.now();
        let Some(loading) = self.reload_queue.loading.take_if(|loading| now >= loading.deadline) else {
            return;
        };
        if !loading.claim.take() {
            // Everything is read.
            self.reload_queue.loading = Some(Loading { deadline: now + RETRY_INTERVAL, ..loading });
            return;
        }
        self.reload_queue.stuck.add(&loading.claim);
        let timeout = show_duration(self.control.config.global.reload_timeout);
        let why =
            format!("not read within {timeout} (reload_timeout): a disk or a name server gives no answer");
        self.end_request(loading.request, Err(Refused::for_now(why)));
    }

    pub(super) fn on_loaded(&mut self, loaded: Loaded) {
        let Some(request) = self.reload_queue.opening.take() else { return };
        self.end_request(request, loaded.result);
    }

    fn end_request(&mut self, request: ReloadRequest, result: Result<Loadable, Refused>) {
        let mode = request.mode;
        if mode != Mode::Listeners {
            self.control.view.state().reload.reading_since = None;
        }
        match result {
            Err(refused) => self.refuse(request, refused),
            Ok(_) if self.stage != ControlStage::Serving => {
                self.refuse(request, Refused::for_now(DRAINING));
            }
            Ok(Loadable { config, staged, listed }) => {
                if mode == Mode::Listeners {
                    let config = Arc::clone(&self.control.config);
                    self.follow(request, &config, staged);
                } else {
                    if staged.is_some() && mode == Mode::Apply {
                        self.sources.begin_with(listed, &config.hosts);
                    }
                    self.follow(request, &config, staged);
                }
            }
        }
        self.notify_over(mode);
        self.load_next();
    }

    /// Notifies the service manager that a reload is over, whatever its result.
    fn notify_over(&mut self, mode: Mode) {
        // A process that ends has notified it of that already.
        if mode == Mode::Apply && self.stage == ControlStage::Serving {
            self.notify(Notice::Ready);
        }
    }

    /// Applies `config`, or only reports its changes.
    pub(super) fn follow(
        &mut self,
        request: ReloadRequest,
        config: &Config,
        staged: Option<Box<dyn StagedChange>>,
    ) {
        if let Some(Err(refused)) = staged.as_ref().map(|staged| staged.listen()) {
            return self.refuse(request, refused);
        }
        let ReloadRequest { who, mode, answer, listening, .. } = request;
        let running = &self.control.snapshot;
        let registrations = &self.control.kept.registrations;
        let file_before = Arc::clone(&self.control.config);
        let before = registrations.placements.placed(&file_before);
        let placed = registrations.placements.placed(config);
        let Merged { config: merged, notes, giving_way } =
            merge(&before.config, &placed, running, registrations);
        let notes = [config.notes.clone(), placed.notes.clone(), notes].concat();
        let impact = |change| ChangeImpact { sessions: sessions_on(&change, running), change };
        let changes = diff(&self.control.config, config).into_iter().map(impact).collect();
        if let Some(staged) = staged {
            // As if an operator had done it before: what is known of their names goes with them.
            self.give_way(&giving_way, &merged);
            self.reconfigure(&merged, staged);
        }
        if mode.is_applied() {
            self.control.kept.registrations.placements.follow(&placed, &file_before, config);
        }
        let epoch = self.control.snapshot.epoch;
        let report = ReloadReport { mode, epoch, changes, notes };
        if mode.is_applied() {
            self.applied(&who, config, &report);
            self.forget_pauses();
        }
        if let Some(listening) = listening {
            self.note_listening(listening, &who);
        }
        self.answer_order(answer, Ok(report));
    }

    fn applied(&mut self, who: &str, config: &Config, report: &ReloadReport) {
        for ChangeImpact { change, sessions } in &report.changes {
            log::info!(change:%, sessions; "reload");
        }
        for note in &report.notes {
            log::info!(note; "reload");
        }
        let (epoch, changes) = (report.epoch, report.changes.len());
        let by = who.to_owned();
        self.answer(move || {
            let fields = [("who", by.as_str().into()), ("epoch", epoch.into()), ("changes", changes.into())];
            audit::write(format_args!("configuration applied"), &fields);
        });
        // RUST_LOG can express more than the file.
        let is_other_level = config.global.log_level != self.control.config.global.log_level;
        if is_other_level && std::env::var_os("RUST_LOG").is_none() {
            logging::set_level(config.global.log_level);
        }
        let runs = Arc::new(settle(&self.control.config, config));
        if runs.admin != self.control.config.admin {
            self.control.admin_sockets = runs.admin.own_sockets().collect();
        }
        let before = std::mem::replace(&mut self.control.config, runs);
        self.align_registrations(&before);
        self.follow_watch();
        self.follow_sources();
        let message = format!("epoch {epoch} applied with {changes} changes");
        self.control.view.events.push(Draft::new(EventKind::Reload, message).who(who));
        let mut state = self.control.view.state();
        state.config = Arc::clone(&self.control.config);
        let changes: Vec<&Change> = report.changes.iter().map(|impact| &impact.change).collect();
        state.pending = pending(&state.pending, &changes, timestamp());
        if !state.pending.is_empty() {
            let keys: Vec<String> = state.pending.iter().map(|pending| pending.change.key()).collect();
            log::warn!(keys = keys.join(", "); "restart pending: these keys need a restart to take effect");
        }
        state.reload.succeeded += 1;
        let when = timestamp();
        state.reload.last_success = Some(when);
        state.reload.errors.clear();
        state.reload.refused = None;
        state.reload.applied = Some(Applied {
            who: who.to_owned(),
            when,
            epoch,
            changes: report.changes.iter().take(CHANGES_MAX).cloned().collect(),
            count: report.changes.len(),
        });
    }

    fn refuse(&mut self, request: ReloadRequest, refused: Refused) {
        let ReloadRequest { who, mode, answer, .. } = request;
        if mode.is_applied() {
            self.count_failure(&who, &refused.errors);
        }
        self.answer_order(answer, Err(refused));
    }

    fn answer_order(&mut self, answer: Option<Answer>, report: Result<ReloadReport, Refused>) {
        if let Some(answer) = answer {
            self.answer(move || answer(report));
        }
    }
}

/// Returns whether one configuration serves both requests.
fn is_alike(one: &ReloadRequest, other: &ReloadRequest) -> bool {
    let is_same_source = match (&one.source, &other.source) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, Some(_)) | (Some(_), None) => false,
    };
    is_same_source && one.mode == other.mode && one.listening == other.listening
}

/// Returns one request in place of all of them.
fn together(first: ReloadRequest, others: Vec<ReloadRequest>) -> ReloadRequest {
    if others.is_empty() {
        return first;
    }
    let whos: Vec<&str> = [&first].into_iter().chain(&others).map(|request| request.who.as_str()).collect();
    let who = whos.join(", ");
    let ReloadRequest { source, mode, answer, listening, .. } = first;
    let answers: Vec<Answer> =
        answer.into_iter().chain(others.into_iter().filter_map(|request| request.answer)).collect();
    let answer: Answer = Box::new(move |report| {
        answers.into_iter().for_each(|answer| answer(report.clone()));
    });
    ReloadRequest { who, source, mode, answer: Some(answer), listening }
}

/// Returns the sessions on the parts that a change removes.
fn sessions_on(change: &Change, running: &Snapshot) -> usize {
    let takes_away = match change.difference {
        Difference::Removed => true,
        // Another address makes another listener or backend.
        Difference::Key { key, .. } => matches!(key, "bind" | "address"),
        Difference::Added => false,
    };
    if !takes_away {
        return 0;
    }
    let of_pool = |name: &str| running.pool_named(name);
    let all =
        |pool: &Arc<crate::pool::Pool>| pool.backends.iter().map(|backend| backend.active() as usize).sum();
    match &change.subject {
        // Its removal is shown once it happens.
        Subject::Global
        | Subject::Admin
        | Subject::Announce
        | Subject::Fleet
        | Subject::Check(..)
        | Subject::Discover(..) => 0,
        Subject::Listener(name) => {
            let is_it = |listener: &&Arc<crate::pool::Listener>| listener.settings.name == *name;
            running.listeners.iter().find(is_it).map_or(0, |listener| listener.gauge().count())
        }
        Subject::Pool(name) => of_pool(name).map_or(0, all),
        Subject::Backend { pool, name } => of_pool(pool)
            .and_then(|pool| pool.backend_named(name))
            .map_or(0, |backend| backend.active() as usize),
    }
}

#[cfg(test)]
mod tests;
