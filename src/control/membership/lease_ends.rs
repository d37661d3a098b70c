//! The control thread's part when leases end, or lists of the file take their place.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::base::time::Instant;
use crate::config::model::Config;
use crate::control::control_loop::{ControlLoop, RETRY_INTERVAL};
use crate::control::membership::place_notes::note_placements;
use crate::messages::request::Named;
use crate::pool::PoolId;

/// When the control thread is later than this, the process counts as having stood still. A busy machine delays it by
/// less.
const STALL_MIN: Duration = Duration::from_millis(100);

impl ControlLoop {
    /// Returns the time until the next lease ends.
    pub(in crate::control) fn next_lease(&self, now: Instant) -> Option<Duration> {
        self.control.kept.registrations.next_end().map(|end| end - now)
    }

    /// Must be called when the control thread begins to work, after a wait of at most `timeout`.
    pub(in crate::control) fn on_look(&mut self, timeout: Duration) {
        let now = self.clock.now();
        let gap = now - std::mem::replace(&mut self.looked, now);
        if gap < timeout + STALL_MIN {
            return;
        }
        // All of the gap: it is unknown when in the wait the process stopped.
        self.control.kept.registrations.credit(gap, now);
        self.control.kept.changed();
        let mut state = self.control.view.state();
        for (id, _) in self.control.kept.registrations.iter() {
            if let Some(note) = state.notes.get_mut(&id) {
                note.origin = self.control.kept.registrations.origin_of(id);
            }
        }
        drop(state);
        if self.control.kept.registrations.next_end().is_some() {
            // A busy machine delays it now and then.
            let level = if gap > timeout + RETRY_INTERVAL { Level::Info } else { Level::Debug };
            log::log!(level, stood_still:? = gap; "leases are longer by the time in which this process stood still");
        }
    }

    /// Removes the backends with ended leases, those of one pool together: when ten thousand lose their network at
    /// once, one new table is built.
    pub(in crate::control) fn end_leases(&mut self) {
        let mut of_pools: HashMap<PoolId, Vec<_>> = HashMap::new();
        for (id, registration) in self.control.kept.registrations.take_ended(self.clock.now()) {
            // A reload may have taken it out of its pool.
            if let Some(backend) = self.control.snapshot.backend(id) {
                of_pools.entry(backend.pool).or_default().push((Arc::clone(backend), registration));
            }
        }
        for (id, ended) in of_pools {
            let pool = Arc::clone(self.control.snapshot.pool(id));
            let gone: Vec<_> = ended.iter().map(|(backend, _)| Arc::clone(backend)).collect();
            self.remove(&pool, &gone);
            for (backend, registration) in ended {
                let named = Named { pool: pool.settings.name.clone(), backend: backend.name.clone() };
                let sessions = backend.active();
                let what = format!("its lease has ended: removed with {sessions} sessions left");
                self.report_change(&named, &registration.who, what);
                self.control.kept.registrations.placements.forget(&named.pool, &named.backend);
                self.remember_lease(backend.id, registration);
            }
            self.fill_up(&pool.settings.name);
        }
    }
}

impl ControlLoop {
    /// Forgets registrations of backends that the configuration after `before` has removed, or lists itself.
    pub(in crate::control) fn align_registrations(&mut self, before: &Config) {
        let Self { control, .. } = self;
        let placements = &control.kept.registrations.placements;
        let (before, now) = (placements.placed(before).config, placements.placed(&control.config).config);
        control.kept.registrations.align(&control.snapshot, &before, &now);
        if !control.kept.registrations.placements.is_empty() {
            let snapshot = &control.snapshot;
            let backends = snapshot.backends();
            let names: HashSet<(&str, &str)> = backends
                .map(|backend| (snapshot.pool(backend.pool).settings.name.as_str(), backend.name.as_str()))
                .collect();
            let has = |pool: &str, name: &str| names.contains(&(pool, name));
            control.kept.registrations.placements.forget_gone(&control.config, has);
        }
        let mut state = control.view.state();
        for (id, note) in &mut state.notes {
            note.origin = control.kept.registrations.origin_of(*id);
        }
        note_placements(&control.kept.registrations.placements, &mut state);
        drop(state);
        control.kept.changed();
    }
}
