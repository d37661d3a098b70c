//! What this balancer says of itself and of its backends, read from the state that the control thread publishes.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::api::Stage;
use crate::base::time::Instant;
use crate::config::model::{Check, Config, HealthState};
use crate::control::membership::notes::Note;
use crate::control::readiness::why_not_ready;
use crate::control::status::{ControlState, View};
use crate::fleet::record::{Balancer, Part, State, Views, id_of};
use crate::pool::{Admin, Backend, Pool};
use crate::stats::Totals;
use crate::sys::timestamp;

/// Backends for which the state is locked at a time.
const LOCKED_MAX: usize = 1_000;

/// Everything that is published.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) balancer: Balancer,
    /// By pool and number.
    pub(super) parts: BTreeMap<(String, u16), Part>,
    pub(super) judged: Judged,
}

/// The backends that have a verdict here.
#[derive(Clone, Debug, Default)]
pub(super) struct Judged {
    /// Those that are down, by pool and id.
    pub(super) down: Vec<(String, String)>,
    /// Those that are up or down.
    pub(super) count: usize,
}

/// Reads it again and again.
#[derive(Default)]
pub(super) struct Reader {
    /// The hash of a configuration, which is not computed again for the same one.
    hashed: Option<(Arc<Config>, String)>,
    /// The connections accepted so far, and when that was read.
    accepted: Option<(Instant, u64)>,
}

impl Reader {
    /// Returns what is to be published now.
    pub(super) fn read(&mut self, view: &View) -> Own {
        let state = view.state();
        let (snapshot, config) = (Arc::clone(&state.snapshot), Arc::clone(&state.config));
        let (workers, stage) = (Arc::clone(&state.workers), state.stage);
        let (not_ready, alone) = (why_not_ready(&state, None), state.alone.clone());
        drop(state);
        let counters = workers.counters();
        let totals = Totals::of(counters.iter().map(|(_, stats)| stats.as_ref()));
        let listeners = snapshot.listeners.iter().map(|listener| &listener.settings);
        let mut balancer = Balancer {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: view.started,
            written: timestamp(),
            stage: word(stage).to_owned(),
            not_ready,
            alone,
            config: self.hash(&config),
            sessions: totals.active(),
            rate: self.rate(view.clock.now(), totals.accepted),
            listeners: listeners.map(|listener| (listener.name.clone(), listener.bind.to_string())).collect(),
            pools: BTreeMap::new(),
        };
        let (mut parts, mut judged) = (BTreeMap::new(), Judged::default());
        for pool in &snapshot.pools {
            let name = &pool.settings.name;
            let (summary, of_pool) = views(view, pool, &mut judged);
            balancer.pools.insert(name.clone(), summary);
            parts.extend(of_pool.into_iter().zip(0..).map(|(part, number)| ((name.clone(), number), part)));
        }
        Own { balancer, parts, judged }
    }

    fn hash(&mut self, config: &Arc<Config>) -> String {
        if let Some((known, hash)) = &self.hashed
            && Arc::ptr_eq(known, config)
        {
            return hash.clone();
        }
        let hash = format!("{:016x}", config.common_hash());
        self.hashed = Some((Arc::clone(config), hash.clone()));
        hash
    }

    /// Returns new sessions per second since the last call, with one digit behind the point.
    fn rate(&mut self, now: Instant, accepted: u64) -> f64 {
        let before = self.accepted.replace((now, accepted));
        let Some((then, before)) = before else { return 0.0 };
        let seconds = now.since(then).as_secs_f64();
        if seconds < 0.001 {
            return 0.0;
        }
        let count = u32::try_from(accepted.saturating_sub(before)).unwrap_or(u32::MAX);
        (f64::from(count) / seconds * 10.0).round() / 10.0
    }
}

const fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Serving => "serving",
        Stage::Draining => "draining",
        Stage::Stopping => "stopping",
    }
}

/// Returns how the backends of a pool are seen here.
fn views(view: &View, pool: &Pool, judged: &mut Judged) -> (crate::fleet::record::Pool, Vec<Part>) {
    let mut views = Views::new(pool.backends.len());
    let mut eligible = 0;
    for backends in pool.backends.chunks(LOCKED_MAX) {
        let state = view.state();
        for backend in backends {
            let (seen, since) = seen(&state, pool, backend);
            eligible += u64::from(backend.is_eligible());
            let id = id_of(&backend.name, &backend.address.to_string());
            judged.count += usize::from(matches!(seen, State::Up | State::Down));
            if seen == State::Down {
                judged.down.push((pool.settings.name.clone(), id.clone()));
            }
            views.add(id, seen, since);
        }
    }
    views.finish(eligible)
}

/// Returns how a backend is seen here, and the second since when.
fn seen(state: &ControlState, pool: &Pool, backend: &Backend) -> (State, i64) {
    let note = state.notes.get(&backend.id);
    let admin = |note: &Note| {
        let by_agent = note.agent.as_ref().and_then(|agent| agent.admin_since);
        note.admin_set.as_ref().map(|(_, since)| *since).or(by_agent)
    };
    let (state, since) = match (backend.admin(), backend.health()) {
        (Admin::Maint, _) => (State::Maint, note.and_then(admin)),
        (Admin::Drain, _) => (State::Drain, note.and_then(admin)),
        (Admin::Ready, HealthState::Up) => (State::Up, note.and_then(|note| note.health_since)),
        (Admin::Ready, HealthState::Down) => (State::Down, note.and_then(|note| note.health_since)),
        (Admin::Ready, HealthState::Unknown) if pool.settings.health.check == Check::Off => (State::Up, None),
        (Admin::Ready, HealthState::Unknown) => (State::Unknown, note.and_then(|note| note.health_since)),
    };
    (state, since.map_or(0, Timestamp::as_second))
}
