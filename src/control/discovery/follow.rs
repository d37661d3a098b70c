//! The sources as the control thread runs them: those of the configuration, and no others.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::belief::Belief;
use super::kinds;
use super::state::{Answered, Followed, SourceState, Sources};
use crate::api::EventKind;
use crate::base::rng::Rng;
use crate::config::Config;
use crate::config::discover::{Discover, Initial};
use crate::config::model::Resolved;
use crate::control::control_loop::{ControlLoop, ControlStage, RETRY_INTERVAL};
use crate::control::events::Draft;
use crate::messages::discovery::{Found, Outcome, SourceId, SourceReport};
use crate::sys::timestamp;

/// How often the time of the last answer is saved within `stale`.
const STALE_NOTES: u32 = 8;

impl ControlLoop {
    /// Runs the sources of the configuration, and no others. One whose settings have changed begins anew with what it
    /// has.
    ///
    /// Must be called when the pools are those of the configuration: they get at once what is known of their sources.
    /// The file may list no more what it has listed, and the next answer may be an hour away.
    pub(in crate::control) fn follow_sources(&mut self) {
        let config = Arc::clone(&self.control.config);
        let pools = config.pools.iter();
        let wanted: Vec<(&str, String, &Discover)> = pools
            .flat_map(|pool| pool.discover.iter().map(|source| (pool.name.as_str(), source.label(), source)))
            .collect();
        let settings_of: HashMap<(&str, &str), &Discover> =
            wanted.iter().map(|(pool, label, source)| ((*pool, label.as_str()), *source)).collect();
        let is_wanted = |followed: &Followed| {
            settings_of.get(&(followed.pool.as_str(), followed.label.as_str())) == Some(&&followed.settings)
        };
        let before: Vec<Followed> =
            self.sources.all.extract_if(.., |followed| !is_wanted(followed)).collect();
        self.align_states(&config, &wanted);
        self.sources.is_stuck &= !wanted.is_empty();
        let runs: HashSet<(String, String)> = self.sources.all.iter().map(Followed::key).collect();
        let now = self.clock.now();
        let mut earlier: HashMap<(String, String), (Vec<Found>, Duration)> = before
            .into_iter()
            .map(|known| (known.key(), (known.last.clone(), known.answered.age_at(now))))
            .collect();
        // The answer that this configuration has waited for is newer than those before.
        let listed = self.sources.listed.iter();
        earlier.extend(
            listed.map(|first| ((first.pool.clone(), first.source.clone()), (first.list.clone(), first.age))),
        );
        for (pool, label, source) in &wanted {
            let key = ((*pool).to_owned(), label.clone());
            if !runs.contains(&key) {
                self.begin(pool, source, earlier.remove(&key).unwrap_or_default());
                // Nothing but its own answer is in its list: no reload has to wait for it again.
                if source.initial == Initial::Fail
                    && self.sources.listed.iter().any(|first| first.is_of(pool, label))
                {
                    self.with_source(pool, label, |row| _ = row.answered.get_or_insert(now));
                }
            }
        }
        // What runs has its own from now on.
        let Sources { all, listed, .. } = &mut self.sources;
        let runs: HashSet<(&str, &str)> =
            all.iter().map(|known| (known.pool.as_str(), known.label.as_str())).collect();
        listed.retain(|first| {
            let key = (first.pool.as_str(), first.source.as_str());
            settings_of.contains_key(&key) && !runs.contains(&key)
        });
        self.reapply_lists(|_| true);
    }

    /// Shows the states of the `wanted` sources, and of no others.
    fn align_states(&self, config: &Config, wanted: &[(&str, String, &Discover)]) {
        let now = self.clock.now();
        let resolved: HashMap<(&str, &str), &Resolved> = config
            .hosts
            .iter()
            .map(|resolved| ((resolved.pool.as_str(), resolved.source.as_str()), resolved))
            .collect();
        let keys = wanted.iter().map(|(pool, label, _)| (*pool, label.as_str()));
        self.control.view.state().sources.align(keys, |pool, label| {
            let state = SourceState::new(pool, label.to_owned(), now);
            match resolved.get(&(pool, label)) {
                Some(resolved) => state.with_resolved(&resolved.found),
                None => state,
            }
        });
    }

    /// An earlier run of it has listed these backends, and answered so long ago.
    fn begin(&mut self, pool: &str, settings: &Discover, (listed, age): (Vec<Found>, Duration)) {
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
        let now = self.clock.now();
        let belief = Belief::new(settings.clone(), listed.clone(), now, age);
        let rng = Rng::new(seed_of(id));
        let running = kinds::run(runner, settings, belief, rng, id, self.control.reports.clone());
        let dial_failures = 0;
        // A host name was resolved before.
        let level = if settings.as_host().is_some() { log::Level::Debug } else { log::Level::Info };
        log::log!(level, pool, source:% = label; "discovery begins");
        self.sources.all.push(Followed {
            id,
            pool: pool.to_owned(),
            settings: settings.clone(),
            label,
            running,
            last: listed,
            answered: Answered::new(now, age),
            noted: now,
            absent: Vec::new(),
            dial_failures,
        });
    }

    /// A source has come to know something, and is asked again after `wait`. Its pool gets that with
    /// [`ControlLoop::apply_lists`].
    pub(in crate::control) fn on_discovered(&mut self, id: SourceId, report: SourceReport, wait: Duration) {
        if self.is_ending() {
            return;
        }
        // The first one that began has the lowest number.
        let Ok(place) = self.sources.all.binary_search_by_key(&id.0, |known| known.id.0) else { return };
        let SourceReport { list, outcome, note } = self.with_absent(place, report);
        let followed = &mut self.sources.all[place];
        let is_kept = followed.settings.initial == Initial::StateFile;
        let now = self.clock.now();
        if outcome != Outcome::Failed {
            followed.answered = Answered::new(now, Duration::ZERO);
            // An old time in the file would make the list stale after a restart.
            let stale = followed.settings.stale.filter(|_| is_kept);
            if stale.is_some_and(|stale| now - followed.noted >= stale / STALE_NOTES) {
                followed.noted = now;
                self.control.kept.changed();
            }
        }
        let (pool, label) = (followed.pool.clone(), followed.label.clone());
        let is_news = list.as_ref().is_some_and(|list| followed.last != *list);
        if let Some(list) = list.filter(|_| is_news) {
            followed.last = list;
            if is_kept {
                self.control.kept.changed();
            }
        }
        // What was left out may fit by now.
        if is_news || self.has_left_out(&pool, &label) {
            self.sources.news.insert(id);
        }
        self.report_outcome(&pool, &label, outcome, note.as_deref());
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
        let row = state.sources.of(pool, label);
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
        if let Some(row) = state.sources.of_mut(pool, label) {
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
        self.end_absences();
        // A pool may have ten thousand sources.
        let mut sums: HashMap<&str, u64> = HashMap::new();
        for followed in &mut self.sources.all {
            let Some(pool) = self.control.snapshot.pool_named(&followed.pool) else { continue };
            let sum = || pool.backends.iter().map(|backend| backend.dial_failures()).sum();
            let failures = *sums.entry(pool.settings.name.as_str()).or_insert_with(sum);
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
