//! The records by which clients find this process in DNS: those of the listeners that serve, while the process does.
//!
//! The control thread decides which records should be there, and never waits for etcd: `keeper` is the thread that keeps
//! them, `records` makes its requests. Data threads know nothing of it.

mod keeper;
mod records;
pub(super) mod state;

use std::sync::Arc;

use crate::api::{EventKind, Stage};
use crate::config::announce::{Announce, Record};
use crate::control::control_loop::{ControlLoop, ControlStage, RETRY_INTERVAL};
use crate::control::events::Draft;
use crate::control::status::ControlState;
use crate::messages::announce::Announced;
use crate::pool::{Listener, Snapshot};
use crate::sys::timestamp;

use keeper::Wanted;
use state::Standing;

impl ControlLoop {
    /// Wants the records that should be there now, if these are others than before.
    pub(super) fn announce(&mut self) {
        if self.control.config.announce.is_none() && self.announcing.keeper.is_none() {
            return;
        }
        let config = Arc::clone(&self.control.config);
        let serving = self.serving();
        let asked = self.announcing.asked.as_ref();
        let is_same =
            asked.is_some_and(|(before, served)| Arc::ptr_eq(before, &config) && *served == serving);
        if is_same || !self.has_keeper() {
            return;
        }
        let listeners = self.control.snapshot.listeners.iter().zip(&serving);
        let wanted = config.announce.as_ref().map(|settings| {
            let served = listeners.filter(|(_, serves)| **serves).map(|(listener, _)| &listener.settings);
            let records: Vec<Record> =
                served.flat_map(|listener| settings.records(&listener.name, listener.bind)).collect();
            Wanted { settings: Arc::new(settings.clone()), records: records.into() }
        });
        if wanted.is_none() {
            self.control.view.state().announce = None;
        }
        if let Some(keeper) = &self.announcing.keeper {
            keeper.want(wanted);
        }
        self.announcing.asked = Some((config, serving));
    }

    /// Withdraws what is there, and waits for that as long as one try may take.
    pub(super) fn end_announcing(&mut self) {
        if let Some(keeper) = self.announcing.keeper.take() {
            keeper.end();
        }
    }

    pub(super) fn on_announced(&mut self, announced: Announced) {
        let Some(settings) = &self.control.config.announce else { return };
        let domain = &settings.domain;
        let before = self.control.view.state().announce.clone().map(|standing| standing.announced);
        let is_new = match (&before, &announced) {
            (Some(Announced::Failing(_)), Announced::Failing(_)) => false,
            (before, announced) => before.as_ref() != Some(announced),
        };
        if is_new {
            let message = match &announced {
                Announced::Withdrawn => {
                    log::info!(domain; "withdrawn: no record in DNS");
                    "withdrawn: no record in DNS".to_owned()
                }
                Announced::Kept(records) => {
                    log::info!(domain, records; "announced in DNS");
                    format!("announced in DNS: {}", count(*records))
                }
                Announced::Failing(why) => {
                    log::warn!(domain, why; "cannot keep its records in DNS: retrying");
                    format!("cannot keep its records in DNS: {why}")
                }
            };
            self.control.view.events.push(Draft::new(EventKind::Announce, message));
        }
        let mut state = self.control.view.state();
        let since = match &state.announce {
            Some(standing) if !is_new => standing.since,
            Some(_) | None => timestamp(),
        };
        let is_withdrawn = announced == Announced::Withdrawn;
        state.announce = Some(Standing { announced, since });
        drop(state);
        // Resolvers may have a record that was there until now.
        if let (ControlStage::Leaving { deadline }, true) = (self.stage, is_withdrawn) {
            let deadline = deadline.max(self.clock.now() + settings.ttl);
            self.stage = ControlStage::Leaving { deadline };
        }
    }

    /// Returns which listeners should have records.
    fn serving(&self) -> Vec<bool> {
        let state = self.control.view.state();
        let Some(settings) = &self.control.config.announce else { return Vec::new() };
        let listeners = self.control.snapshot.listeners.iter();
        listeners
            .map(|listener| {
                let snapshot = &self.control.snapshot;
                self.stage == ControlStage::Serving && why_not(&state, settings, listener, snapshot).is_none()
            })
            .collect()
    }

    /// Returns whether there is a thread that keeps records, which is started where there is none.
    fn has_keeper(&mut self) -> bool {
        if self.announcing.keeper.is_some() {
            return true;
        }
        if self.announcing.retry.is_some_and(|retry| self.clock.now() < retry) {
            return false;
        }
        match keeper::start(self.control.reports.clone()) {
            Ok(keeper) => {
                self.announcing.keeper = Some(keeper);
                self.announcing.retry = None;
                true
            }
            Err(error) => {
                self.announcing.retry = Some(self.clock.now() + RETRY_INTERVAL);
                let why = format!("cannot start the thread that keeps them: {error}");
                self.on_announced(Announced::Failing(why));
                false
            }
        }
    }
}

/// Returns why a listener has no records, if it should have none.
pub(crate) fn why_not(
    state: &ControlState,
    settings: &Announce,
    listener: &Listener,
    snapshot: &Snapshot,
) -> Option<String> {
    if state.stage != Stage::Serving {
        return Some("draining".into());
    }
    if state.is_leaving {
        return Some("draining soon".into());
    }
    if let Some(who) = &state.ready_fail {
        return Some(format!("ready-fail is on, by {who}"));
    }
    if let Some(pause) = state.pauses.get(&listener.settings.name) {
        return Some(format!("paused, by {}", pause.by));
    }
    let leaves = state.config.fleet.as_ref().is_some_and(|fleet| fleet.leave_when_alone);
    if let Some(alone) = state.alone.as_ref().filter(|_| leaves) {
        return Some(format!("alone in the fleet: {alone}"));
    }
    // Clients of the other routes are served.
    let is_without =
        settings.only_with_backends && listener.pools().all(|pool| !snapshot.pool(pool).has_eligible());
    is_without.then(|| {
        let pool = &snapshot.pool(listener.pool).settings.name;
        let others = if listener.routes.is_empty() { "" } else { " or of a route" };
        format!("no backend of pool {pool:?}{others} is eligible")
    })
}

fn count(records: usize) -> String {
    format!("{records} record{}", if records == 1 { "" } else { "s" })
}
