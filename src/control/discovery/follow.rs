//! The sources as the control thread runs them: those of the configuration, and no others.

use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::belief::Belief;
use super::kinds;
use super::state::{Followed, SourceState, Sources};
use crate::api::EventKind;
use crate::base::rng::Rng;
use crate::config::discover::{Discover, Initial};
use crate::control::control_loop::{ControlLoop, ControlStage, RETRY_INTERVAL};
use crate::control::events::Draft;
use crate::messages::discovery::{Found, Listed, Outcome, SourceId, SourceReport};
use crate::sys::timestamp;

impl ControlLoop {
    /// Runs the sources of the configuration, and no others. One whose settings have changed begins anew with what it
    /// has.
    ///
    /// Must be called when the pools are those of the configuration: they get at once what is known of their sources.
    /// The file may list no more what it has listed, and the next answer may be an hour away.
    pub(in crate::control) fn follow_sources(&mut self) {
        let config = Arc::clone(&self.control.config);
        let wanted: Vec<(&str, &Discover)> = config
            .pools
            .iter()
            .flat_map(|pool| pool.discover.iter().map(|source| (pool.name.as_str(), source)))
            .collect();
        let is_wanted = |followed: &Followed| wanted.contains(&(followed.pool.as_str(), &followed.settings));
        let before: Vec<Followed> =
            self.sources.all.extract_if(.., |followed| !is_wanted(followed)).collect();
        let labels: Vec<(&str, String)> =
            wanted.iter().map(|(pool, source)| (*pool, source.label())).collect();
        let now = self.clock.now();
        let mut state = self.control.view.state();
        state.sources.retain(|row| labels.iter().any(|(pool, label)| row.is_of(pool, label)));
        for (pool, label) in &labels {
            if !state.sources.iter().any(|row| row.is_of(pool, label)) {
                state.sources.push(SourceState::new(pool, label.clone(), now));
            }
        }
        drop(state);
        self.sources.is_stuck &= !wanted.is_empty();
        for (pool, source) in wanted {
            let runs = |followed: &Followed| followed.pool == pool && followed.settings == *source;
            if !self.sources.all.iter().any(runs) {
                let label = source.label();
                let earlier = |known: &&Followed| known.pool == pool && known.settings.label() == label;
                let first = self.sources.listed.iter().find(|first| first.is_of(pool, &label));
                // The answer that this configuration has waited for is newer than those before.
                let listed = first.map(|first| first.list.clone());
                let listed = listed.or_else(|| before.iter().find(earlier).map(|known| known.last.clone()));
                self.begin(pool, source, listed.unwrap_or_default());
            }
        }
        // What runs has its own from now on.
        let is_of = |known: &Followed, first: &Listed| first.is_of(&known.pool, &known.settings.label());
        let Sources { all, listed, .. } = &mut self.sources;
        listed.retain(|first| {
            let is_wanted = labels.iter().any(|(pool, label)| first.is_of(pool, label));
            is_wanted && !all.iter().any(|known| is_of(known, first))
        });
        self.reapply_lists(|_| true);
    }

    /// An earlier run of it has `listed` these backends.
    fn begin(&mut self, pool: &str, settings: &Discover, listed: Vec<Found>) {
        let label = settings.label();
        if self.sources.runner.is_none() {
            match (self.sources.start)() {
                Ok(runner) => {
                    self.sources.runner = Some(runner);
                    self.sources.is_stuck = false;
                }
                Err(error) => {
                    if !self.sources.is_stuck {
                        log::error!(pool, source:% = label, error:%; "cannot start the thread that asks sources");
                    }
                    self.sources.is_stuck = true;
                    self.with_source(pool, &label, |row| {
                        row.note = Some(format!("cannot start the thread that asks sources: {error}"));
                    });
                    return;
                }
            }
        }
        let id = SourceId(self.sources.next);
        self.sources.next += 1;
        let Some(runner) = &self.sources.runner else { return };
        let belief = Belief::new(settings.clone(), listed.clone(), self.clock.now());
        let rng = Rng::new(seed_of(id));
        let running = kinds::run(runner, settings, belief, rng, id, self.control.reports.clone());
        let dial_failures = 0;
        log::info!(pool, source:% = label; "discovery begins");
        self.sources.all.push(Followed {
            id,
            pool: pool.to_owned(),
            settings: settings.clone(),
            running,
            last: listed,
            dial_failures,
        });
    }

    /// A source has come to know something, and is asked again after `wait`.
    pub(in crate::control) fn on_discovered(&mut self, id: SourceId, report: SourceReport, wait: Duration) {
        if self.is_ending() {
            return;
        }
        let mut all = self.sources.all.iter_mut();
        let Some(followed) = all.find(|followed| followed.id == id) else { return };
        let SourceReport { list, outcome, note } = report;
        let is_kept = followed.settings.initial == Initial::StateFile;
        if let Some(list) = list.as_ref().filter(|list| followed.last != **list) {
            followed.last.clone_from(list);
            if is_kept {
                self.control.kept.changed();
            }
        }
        let (pool, label) = (followed.pool.clone(), followed.settings.label());
        self.report_outcome(&pool, &label, outcome, note.as_deref());
        if let Some(list) = list {
            self.apply_list(&pool, &label, list);
        }
        let now = self.clock.now();
        self.with_source(&pool, &label, |row| {
            if row.outcome != Some(outcome) {
                (row.outcome, row.since) = (Some(outcome), timestamp());
            }
            if outcome != Outcome::Failed {
                row.answered = Some(now);
            }
            row.next = Some(now + wait);
            row.counts[Outcome::ALL.iter().position(|&one| one == outcome).unwrap_or_default()] += 1;
            row.note = note;
        });
    }

    /// Returns whether the process ends, so that lists of sources are of no use any more.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.stage, ControlStage::Draining { .. } | ControlStage::Stopping)
    }

    /// One line and one event for each change, not for each answer.
    fn report_outcome(&self, pool: &str, label: &str, outcome: Outcome, note: Option<&str>) {
        let state = self.control.view.state();
        let row = state.sources.iter().find(|row| row.is_of(pool, label));
        let is_news = row.is_none_or(|row| row.outcome != Some(outcome));
        let is_other_note = row.is_none_or(|row| row.note.as_deref() != note);
        drop(state);
        let words = note.map_or_else(String::new, |note| format!(": {note}"));
        let level = match outcome {
            Outcome::Found if note.is_none() => log::Level::Info,
            Outcome::Found | Outcome::Nothing | Outcome::Failed => log::Level::Warn,
        };
        if is_news || is_other_note {
            let note = note.unwrap_or_default();
            log::log!(level, pool, source = label, outcome = outcome.as_str(), note; "discovery");
        }
        if is_news {
            let what = match outcome {
                Outcome::Found => "answers",
                Outcome::Nothing => "knows no backend",
                Outcome::Failed => "fails, what is known stays",
            };
            let message = format!("{label} {what}{words}");
            self.control.view.events.push(Draft::new(EventKind::Backend, message).pool(pool));
        }
    }

    pub(super) fn with_source(&self, pool: &str, label: &str, edit: impl FnOnce(&mut SourceState)) {
        let mut state = self.control.view.state();
        if let Some(row) = state.sources.iter_mut().find(|row| row.is_of(pool, label)) {
            edit(row);
        }
    }

    /// A dial to a backend of a source has failed: it may have moved, and the source is asked early. Now and then.
    pub(in crate::control) fn refresh_sources(&mut self) {
        let now = self.clock.now();
        if self.sources.is_stuck && now >= self.sources.next_look {
            self.sources.next_look = now + RETRY_INTERVAL;
            self.follow_sources();
        }
        if self.sources.all.is_empty() || now < self.sources.next_look {
            return;
        }
        self.sources.next_look = now + RETRY_INTERVAL;
        for followed in &mut self.sources.all {
            let Some(pool) = self.control.snapshot.pool_named(&followed.pool) else { continue };
            let failures = pool.backends.iter().map(|backend| backend.dial_failures()).sum();
            // Backends that have left took theirs with them.
            if failures > mem::replace(&mut followed.dial_failures, failures) {
                followed.running.resolve_now();
            }
        }
    }
}

/// Returns what makes the waits of one run of a source differ from those of any other, also in another container, where
/// the process has the same number.
fn seed_of(id: SourceId) -> u64 {
    RandomState::new().hash_one(id)
}

#[cfg(test)]
mod tests;
