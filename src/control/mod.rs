//! The control thread: receives reports of workers, publishes new tables, and ends the process. Never imports `worker`
//! and never touches a session; workers never wait for it.

pub mod admin;
mod agents;
mod announce;
mod audit;
mod certificates;
mod circles;
mod clearing;
mod command_checks;
mod control_loop;
mod denials;
pub(crate) mod discovery;
mod durations;
mod events;
mod fleet;
mod history;
mod keeper;
mod loading;
pub mod membership;
mod metrics;
mod pauses;
mod pending;
mod readiness;
mod recent;
mod refusals;
mod reload;
mod standby;
mod status;
mod stepped;
mod stopping;
#[cfg(test)]
mod tests;
mod token_file;
mod watch;
mod workers;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use crate::api::{self, EventKind};
use crate::config::model::{Config, HealthState, WhenAllDown};
use crate::messages::command::{Command, StopReason};
use crate::messages::reload::{Mode, ReloadRequest};
use crate::messages::report::{CheckedBy, Report, WorkerId};
use crate::messages::request::Named;
use crate::messages::topology::StagedChange;
use crate::pool::{BackendId, Pool, PoolId, Snapshot};
use crate::stats::{Share, Totals};
use crate::sys::{self, Notice, timestamp};

use control_loop::{ControlLoop, ControlStage, RETRY_INTERVAL, WorkerLink};
use events::Draft;

pub(crate) use command_checks::CommandChecks;
pub(crate) use control_loop::Control;
pub(crate) use loading::{LOADER_THREADS, ReloadStatus};
pub(crate) use membership::notes::{Leaving, Removed};
pub(crate) use standby::Standby;
pub(crate) use status::{ControlState, View};
pub use stepped::SteppedControl;
pub use workers::{Member, Workers};

impl Control {
    /// Runs until every worker has stopped. Returns the first error that stopped a worker.
    pub(crate) fn run(self) -> io::Result<()> {
        ControlLoop::new(self).run()
    }
}

impl ControlLoop {
    fn run(mut self) -> io::Result<()> {
        // A pool may begin without an eligible backend: all weights 0, or all down until they are checked.
        for pool in self.control.snapshot.pools.clone() {
            self.report_eligibility(&pool);
        }
        self.follow_watch();
        self.follow_sources();
        self.announce();
        self.join_fleet();
        while !self.links.is_empty() {
            let timeout = self.next_timeout();
            let received = self.control.inbox.recv_timeout(timeout);
            // Before the reports: a lease that ended meanwhile must not be renewed by one.
            self.on_look(timeout);
            match received {
                Ok(report) => {
                    self.on_report(report);
                    // Ten thousand backends may go down at once: one new table, not ten thousand.
                    while let Ok(report) = self.control.inbox.try_recv() {
                        self.on_report(report);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.act();
        }
        self.log_worker_stats();
        self.save_for_good();
        self.give_answers();
        self.end_announcing();
        self.leave_fleet();
        self.result
    }

    /// Acts on the reports and on the time.
    fn act(&mut self) {
        self.check_dropped_reports();
        self.apply_lists();
        self.end_loading();
        self.refresh_sources();
        self.forget_retired();
        self.end_leases();
        self.publish();
        self.check_removed();
        self.save();
        self.end_saving();
        self.give_answers();
        self.end_drain();
        self.announce();
        self.join_fleet();
        self.post_commands();
        self.sample();
    }

    /// Keeps what was counted in the last second.
    fn sample(&self) {
        let now = self.clock.now();
        if now < self.control.view.recent().due() {
            return;
        }
        let counters = self.control.workers.counters();
        let totals = Totals::of(counters.iter().map(|(_, stats)| stats.as_ref()));
        self.control.view.recent().take(now, timestamp(), &self.control.snapshot, &totals);
    }

    fn next_timeout(&self) -> Duration {
        let now = self.clock.now();
        let drained = match self.stage {
            ControlStage::Leaving { deadline } | ControlStage::Draining { deadline } => Some(deadline - now),
            ControlStage::Serving | ControlStage::Stopping => None,
        };
        let cut = self.next_cut().map(|cut| cut - now);
        let loaded = self.next_loaded().map(|deadline| deadline - now);
        let saved = self.next_saving().map(|deadline| deadline - now);
        let sampled = Some(self.control.view.recent().due() - now);
        let next = [drained, cut, loaded, self.next_lease(now), self.next_save(now), saved, sampled];
        next.into_iter().flatten().fold(RETRY_INTERVAL, Duration::min)
    }

    fn on_report(&mut self, report: Report) {
        match report {
            Report::Health { backend, from, to, reason } => self.on_health(backend, from, to, &reason),
            Report::Agent { backend, news } => self.on_agent(backend, news),
            Report::Checked { backend, by, check, failure } => self.on_checked(backend, by, check, failure),
            Report::Certificate { backend, by, check, certificate } => {
                self.on_certificate(backend, by, check, *certificate);
            }
            Report::Run(order) => self.control.programs.run(order),
            Report::Stopped { worker, result } => self.on_stopped(worker, result),
            Report::Ask(ask) => self.on_ask(ask),
            Report::Terminate => self.on_terminate(),
            Report::Reload => {
                let who = "SIGHUP".into();
                self.on_reload_request(ReloadRequest {
                    who,
                    source: None,
                    mode: Mode::Apply,
                    answer: None,
                    listening: None,
                });
            }
            Report::ReloadRequest(request) => self.on_reload_request(request),
            Report::Discovered(source, report, wait) => self.on_discovered(source, report, wait),
            Report::Announced(announced) => self.on_announced(announced),
            Report::Read(read) => self.on_read(*read),
            Report::Alone(alone) => self.on_alone(alone),
            Report::Loaded(loaded) => self.on_loaded(*loaded),
            Report::LogWorkerStats => self.log_worker_stats(),
            // Its consequences are handled after every report.
            Report::StateWritten => {}
        }
    }

    /// Sends an answer after the workers have got their commands: the new tables are in their mailboxes then, and they
    /// are awake.
    fn answer(&mut self, answer: impl FnOnce() + 'static) {
        self.answers.push(Box::new(answer));
    }

    /// Queues a notice to the service manager among the answers: no reload overtakes the end of the last one.
    fn notify(&mut self, notice: Notice<'static>) {
        self.answer(move || sys::notify(&[notice]));
    }

    fn give_answers(&mut self) {
        self.answers.drain(..).for_each(|answer| answer());
    }

    fn on_checked(&mut self, id: BackendId, by: CheckedBy, check: usize, failure: Option<String>) {
        // Removed since, or checked in another way: its new checks report anew.
        let Some(backend) = self.control.snapshot.backend(id) else { return };
        let pool = self.control.snapshot.pool(backend.pool);
        if pool.checks != by.checks || pool.own_check(backend) != Some(by.own) {
            return;
        }
        let mut state = self.control.view.state();
        let checks = &mut state.notes.entry(id).or_default().checks;
        checks.resize_with(checks.len().max(check + 1), || None);
        checks[check] = Some(membership::notes::Checked { failure, since: timestamp() });
    }

    fn on_health(&mut self, id: BackendId, from: HealthState, to: HealthState, reason: &str) {
        // Removed since the worker last checked it: it gets no sessions any more.
        let Some(backend) = self.control.snapshot.backend(id) else { return };
        let pool = &self.control.snapshot.pool(backend.pool).settings.name;
        if let Some(health) = backend.ruling() {
            let ruler = if backend.health_override().is_some() {
                "the operator's override"
            } else {
                "its agent's word"
            };
            log::info!(
                pool:%, backend:% = backend.name, address:% = backend.address, from:% = from.as_str(),
                to:% = to.as_str(), reason:%, health:% = health.as_str();
                "checks changed their finding, {ruler} stays"
            );
            // Its health has not changed: no event, no table.
            self.control.view.state().notes.entry(id).or_default().health_reason = Some(reason.to_owned());
            return;
        }
        // At night an operator reads warnings.
        let level = if to == HealthState::Down { log::Level::Warn } else { log::Level::Info };
        log::log!(
            level, pool:%, backend:% = backend.name, address:% = backend.address, from:% = from.as_str(),
            to:% = to.as_str(), reason:%; "health"
        );
        let named = Named { pool: pool.clone(), backend: backend.name.clone() };
        let message = format!("{} -> {}: {reason}", from.as_str(), to.as_str());
        self.control.view.events.push(Draft::new(EventKind::Health, message).backend(&named));
        let mut state = self.control.view.state();
        let note = state.notes.entry(id).or_default();
        note.health_reason = Some(reason.to_owned());
        note.health_since = Some(timestamp());
        drop(state);
        self.fleet_news();
        // Unknown serves as Up does: at the start every backend changes from one to the other, and no table changes.
        if [from, to].contains(&HealthState::Down) {
            self.tables_changed(backend.pool);
        }
    }

    /// Must be called before the change shows, where something else may change with it.
    fn tables_changed(&mut self, pool: PoolId) {
        self.control.snapshot.announce();
        if !self.changed.contains(&pool) {
            self.changed.push(pool);
        }
    }

    /// Logs one line per worker.
    fn log_worker_stats(&self) {
        for (worker, stats) in self.control.workers.counters() {
            let Share {
                sessions,
                accepted,
                handed_over,
                adopted,
                to_backend,
                to_client,
                accept_pauses,
                budget_exhausted,
            } = Share::of(&stats);
            log::info!(
                target: "l4lb::workers",
                worker, sessions, accepted, handed_over, adopted, to_backend, to_client, accept_pauses,
                budget_exhausted;
                "worker_stats"
            );
        }
    }

    /// Applies `config`. Its resources must be open.
    fn reconfigure(&mut self, config: &Config, staged: Box<dyn StagedChange>) {
        // What a reload sets of backends that stay shows at once.
        self.control.snapshot.announce();
        let said_of_hosts = self.remember_of_hosts(config);
        let mut config = self.change_hands(config);
        let brought = self.bring_listed(&mut config);
        let config = &config;
        // By their names in the file: a backend taken back while it drains continues.
        let running = Arc::clone(&self.control.snapshot);
        let back = self.take_returning(|removed| is_back(config, &running, removed));
        let backends: Vec<_> = back.iter().map(|removed| Arc::clone(&removed.backend)).collect();
        let next = Arc::new(self.control.snapshot.reconfigured_back(config, &backends));
        staged.commit(&next);
        let is_known = |links: &[WorkerLink], id| links.iter().any(|link| link.member.id == id);
        let members = self.control.workers.members();
        let new: Vec<WorkerLink> =
            members.iter().filter(|member| !is_known(&self.links, member.id)).map(WorkerLink::new).collect();
        self.links.extend(new);
        // Before what follows says more of them: where they are from, and by whom they were set.
        self.remember_notes(&back);
        self.forget_results(&next);
        self.note_brought(brought, &next);
        self.hand_over(&next, &said_of_hosts);
        self.replace_snapshot(next);
        self.align_agents();
        self.control.drain_timeout = config.global.drain_timeout;
        for pool in self.control.snapshot.pools.clone() {
            self.report_eligibility(&pool);
        }
    }

    /// Forgets the results of checks that `next` replaces: they would be shown under the names of the new ones.
    fn forget_results(&self, next: &Snapshot) {
        let running = &self.control.snapshot;
        let mut state = self.control.view.state();
        for pool in &next.pools {
            let before = running.pools.iter().find(|before| before.id == pool.id);
            if before.is_none_or(|before| before.settings.health == pool.settings.health) {
                continue;
            }
            for backend in &pool.backends {
                if let Some(note) = state.notes.get_mut(&backend.id) {
                    note.checks.clear();
                    note.certificates.clear();
                }
            }
        }
    }

    /// Makes `next` the current snapshot. Backends that are in none of its pools are removed.
    fn replace_snapshot(&mut self, next: Arc<Snapshot>) {
        let before = std::mem::replace(&mut self.control.snapshot, next);
        self.note_removed(&before);
        let is_there = |id: PoolId| self.control.snapshot.pools.iter().any(|pool| pool.id == id);
        self.changed.retain(|&id| is_there(id));
        self.without_backend.retain(|&id| is_there(id));
        self.show_snapshot();
    }

    fn show_snapshot(&mut self) {
        let snapshot = &self.control.snapshot;
        let mut state = self.control.view.state();
        let before = std::mem::replace(&mut state.snapshot, Arc::clone(snapshot));
        if !snapshot.shares_backends(&before) {
            state.notes.retain(|id, _| snapshot.backend(*id).is_some());
            membership::place_notes::note_placements(&self.control.kept.registrations.placements, &mut state);
        }
        drop(state);
        // Before a worker chooses by it.
        self.control.view.history().note(snapshot, timestamp());
        self.links.iter_mut().for_each(|link| link.is_behind = true);
        self.fleet_news();
    }

    /// Pools that were removed stay while they have sessions; afterwards they need no epoch.
    fn forget_retired(&mut self) {
        if self.control.snapshot.can_forget() {
            self.control.snapshot = Arc::new(self.control.snapshot.refreshed(&[]));
            self.show_snapshot();
        }
    }

    fn is_any_behind(&self) -> bool {
        self.links.iter().any(|link| link.is_behind)
    }

    /// Posts to every worker with room in its mailbox.
    fn post_to_all(&self, command: &Command) {
        for WorkerLink { member, .. } in &self.links {
            let _full = member.mailbox.post(command.clone());
        }
    }

    fn on_stopped(&mut self, id: WorkerId, result: io::Result<()>) {
        self.control.workers.on_stopped(id);
        let Some(place) = self.links.iter().position(|link| link.member.id == id) else { return };
        let worker = self.links.swap_remove(place).member.index;
        if let Err(error) = result {
            log::error!(worker, error:%; "worker failed, stopping the process");
            if self.result.is_ok() {
                self.result = Err(error);
            }
            self.stop(StopReason::AtOnce);
        }
    }

    fn on_terminate(&mut self) {
        match self.stage {
            ControlStage::Serving => {
                self.notify(Notice::Stopping);
                let delay = self.control.config.global.shutdown_delay;
                if delay.is_zero() {
                    return self.drain();
                }
                self.stage = ControlStage::Leaving { deadline: self.clock.now() + delay };
                self.control.view.state().is_leaving = true;
                let message = "leaving: not ready any more, still accepting for shutdown_delay";
                self.control.view.events.push(Draft::new(EventKind::Process, message));
                log::info!(shutdown_delay:? = delay; "not ready any more, draining soon: a second signal drains now");
            }
            ControlStage::Leaving { .. } => self.drain(),
            ControlStage::Draining { .. } => self.stop(StopReason::AtOnce),
            ControlStage::Stopping => {}
        }
    }

    fn drain(&mut self) {
        let timeout = self.control.drain_timeout;
        self.stage = ControlStage::Draining { deadline: self.clock.now() + timeout };
        let (since, deadline) = (self.clock.now(), Some(self.clock.now() + timeout));
        let sessions_at_start = self.control.workers.sessions();
        self.control.view.state().drain = Some(Leaving { since, deadline, sessions_at_start });
        self.show_stage(api::Stage::Draining, "draining: accepting has ended");
        log::info!(drain_timeout:? = timeout; "draining: accepting has ended, a second signal stops at once");
        self.control.site.drain();
        self.post_to_workers(&Command::Drain);
    }

    fn end_drain(&mut self) {
        if let ControlStage::Leaving { deadline } = self.stage
            && self.clock.now() >= deadline
        {
            self.drain();
        }
        if let ControlStage::Draining { deadline } = self.stage
            && self.clock.now() >= deadline
        {
            self.stop(StopReason::DrainTimeout);
        }
    }

    fn stop(&mut self, reason: StopReason) {
        if self.stage != ControlStage::Stopping {
            self.stage = ControlStage::Stopping;
            self.show_stage(api::Stage::Stopping, "stopping: what still runs is cut");
            self.post_to_workers(&Command::Stop(reason));
        }
    }

    fn show_stage(&self, stage: api::Stage, message: &str) {
        self.control.view.state().stage = stage;
        self.control.view.events.push(Draft::new(EventKind::Process, message));
        self.fleet_news();
    }

    fn post_to_workers(&mut self, command: &Command) {
        self.links.iter_mut().for_each(|link| link.untold = Some(command.clone()));
        self.post_commands();
    }

    /// Posts to each worker the command that it had no room for before.
    fn post_commands(&mut self) {
        for WorkerLink { member, untold, .. } in &mut self.links {
            untold.take_if(|command| member.mailbox.post(command.clone()));
        }
    }

    /// Reports were dropped: any backend may have changed.
    fn check_dropped_reports(&mut self) {
        if self.control.reports.take_dropped() > 0 {
            self.changed = self.control.snapshot.pools.iter().map(|pool| pool.id).collect();
        }
    }

    /// Logs when a pool has lost its last eligible backend, and when it has one again.
    fn report_eligibility(&mut self, pool: &Pool) {
        let name = &pool.settings.name;
        if pool.has_eligible() {
            if self.without_backend.remove(&pool.id) {
                log::warn!(pool:% = name; "a backend is eligible again");
                let message = "a backend is eligible again";
                self.control.view.events.push(Draft::new(EventKind::Eligibility, message).pool(name));
            }
        } else if self.without_backend.insert(pool.id) {
            let consequence = match pool.settings.when_all_down {
                WhenAllDown::Close => "clients are reset",
                WhenAllDown::TryAnyway => "any backend is dialed",
            };
            log::warn!(pool:% = name, consequence; "no backend is eligible");
            let message = format!("no backend is eligible: {consequence}");
            self.control.view.events.push(Draft::new(EventKind::Eligibility, message).pool(name));
        }
    }

    /// Builds new tables for the pools that changed, and retries the workers that are behind.
    fn publish(&mut self) {
        // An announced epoch must come, even when the pool for which it was has gone: clients may wait for it.
        if !self.changed.is_empty() || self.control.snapshot.is_outdated() {
            self.control.snapshot = Arc::new(self.control.snapshot.refreshed(&self.changed));
            for id in std::mem::take(&mut self.changed) {
                let pool = Arc::clone(self.control.snapshot.pool(id));
                self.report_eligibility(&pool);
            }
            self.show_snapshot();
        }
        let snapshot = &self.control.snapshot;
        for WorkerLink { member, is_behind, .. } in &mut self.links {
            *is_behind = *is_behind && !member.mailbox.post(Command::Publish(Arc::clone(snapshot)));
        }
    }
}

/// Returns whether `config`, which follows `running`, lists a backend that was removed from a pool that stays.
fn is_back(config: &Config, running: &Snapshot, removed: &Removed) -> bool {
    let backend = &removed.backend;
    let Some(pool) = running.pools.iter().find(|pool| pool.id == backend.pool) else { return false };
    let same = config.pools.iter().find(|listed| listed.name == pool.settings.name);
    let key = (&backend.name, &backend.address);
    same.is_some_and(|listed| listed.backends.iter().any(|listed| (&listed.name, &listed.address) == key))
        && !pool.backends.iter().any(|known| (&known.name, &known.address) == key)
}
