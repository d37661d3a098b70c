//! What the control thread does with sources: it runs those of the configuration, and no others.

use std::sync::Arc;

use super::dns::Dns;
use super::runner::Runner;
use super::state::{Followed, SourceState};
use crate::api::EventKind;
use crate::base::hash::hash;
use crate::config::discover::Discover;
use crate::control::control_loop::{ControlLoop, ControlStage, RETRY_INTERVAL};
use crate::control::events::Draft;
use crate::messages::discovery::{Found, Outcome, Sighting, SourceId};
use crate::sys::timestamp;

impl ControlLoop {
    /// Runs the sources of the configuration, and no others. One whose settings have changed begins anew with what it has.
    pub(in crate::control) fn follow_sources(&mut self) {
        let config = Arc::clone(&self.control.config);
        let wanted: Vec<(&str, &Discover)> = config
            .pools
            .iter()
            .flat_map(|pool| pool.discover.iter().map(|source| (pool.name.as_str(), source)))
            .collect();
        let is_wanted = |followed: &Followed| wanted.contains(&(followed.pool.as_str(), &followed.settings));
        self.sources.all.retain(is_wanted);
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
        self.sources.is_stuck = false;
        for (pool, source) in wanted {
            let runs = |followed: &Followed| followed.pool == pool && followed.settings == *source;
            if !self.sources.all.iter().any(runs) {
                self.begin(pool, source);
            }
        }
    }

    fn begin(&mut self, pool: &str, settings: &Discover) {
        let label = settings.label();
        if self.sources.runner.is_none() {
            match Runner::start() {
                Ok(runner) => self.sources.runner = Some(runner),
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
        let listed = self.discovered_by(pool, &label);
        let seed = hash(&std::process::id().to_ne_bytes(), u32::try_from(id.0).unwrap_or_default());
        let source = Dns::new(settings.clone(), listed, seed, self.clock.now());
        let Some(runner) = &self.sources.runner else { return };
        let running = runner.run(source, id, self.control.reports.clone());
        let dial_failures = 0;
        log::info!(pool, source:% = label; "discovery begins");
        self.sources.all.push(Followed {
            id,
            pool: pool.to_owned(),
            settings: settings.clone(),
            running,
            dial_failures,
        });
    }

    /// A source has come to know something.
    pub(in crate::control) fn on_discovered(&mut self, id: SourceId, sighting: Sighting) {
        let Some(followed) = self.sources.all.iter().find(|followed| followed.id == id) else { return };
        if matches!(self.stage, ControlStage::Draining { .. } | ControlStage::Stopping) {
            return;
        }
        let (pool, label) = (followed.pool.clone(), followed.settings.label());
        let Sighting { list, outcome, note } = sighting;
        self.tell_outcome(&pool, &label, outcome, note.as_deref());
        let left_out = list.map(|list| (list.len() as u64, self.put_discovered(&pool, &label, list)));
        let now = self.clock.now();
        self.with_source(&pool, &label, |row| {
            if row.outcome != Some(outcome) {
                (row.outcome, row.since) = (Some(outcome), timestamp());
            }
            if outcome != Outcome::Failed {
                row.answered = Some(now);
            }
            row.counts[Outcome::ALL.iter().position(|&one| one == outcome).unwrap_or_default()] += 1;
            row.note = note;
            if let Some((backends, left_out)) = left_out {
                for why in left_out.iter().filter(|why| !row.left_out.contains(why)) {
                    log::warn!(pool:%, source:% = label, why:%; "discovered, and left out");
                }
                (row.backends, row.left_out) = (backends, left_out);
            }
        });
    }

    /// One line and one event for each change, not for each answer.
    fn tell_outcome(&self, pool: &str, label: &str, outcome: Outcome, note: Option<&str>) {
        let before = self.control.view.state().sources.iter().find(|row| row.is_of(pool, label)).cloned();
        let is_news = before.as_ref().is_none_or(|row| row.outcome != Some(outcome));
        let is_other_note = before.is_none_or(|row| row.note.as_deref() != note);
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
            let told = format!("{label} {what}{words}");
            self.control.view.events.push(Draft::new(EventKind::Backend, told).pool(pool));
        }
    }

    fn with_source(&self, pool: &str, label: &str, edit: impl FnOnce(&mut SourceState)) {
        let mut state = self.control.view.state();
        if let Some(row) = state.sources.iter_mut().find(|row| row.is_of(pool, label)) {
            edit(row);
        }
    }

    /// A dial to a backend of a source has failed: it may have moved, and the source is asked early. Now and then.
    pub(in crate::control) fn look_after_sources(&mut self) {
        let now = self.clock.now();
        if self.sources.is_stuck && now >= self.sources.next_look {
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
            if failures > std::mem::replace(&mut followed.dial_failures, failures) {
                followed.running.hurry();
            }
        }
    }

    /// What the pool has of this source.
    fn discovered_by(&self, pool: &str, label: &str) -> Vec<Found> {
        let Some(pool) = self.control.snapshot.pool_named(pool) else { return Vec::new() };
        let all = pool.settings.backends.iter().zip(&pool.backends);
        let listed = all.filter_map(|(settings, backend)| {
            let known = self.control.kept.registrations.discovery_of(backend.id)?;
            (*known.source == *label).then(|| Found {
                name: backend.name.clone(),
                address: backend.address.clone(),
                weight: known.weight,
                backup: settings.backup,
            })
        });
        listed.collect()
    }
}
