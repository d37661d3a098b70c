//! From the state of the process to the JSON of the API.

use std::collections::BTreeMap;

use crate::api;
use crate::base::time::Instant;
use crate::config::model::HealthState;
use crate::control::view::{Note, State};
use crate::control::{ReloadStatus, Staff};
use crate::pool::{Admin, Backend, Pool, Snapshot};
use crate::session::CloseReason;
use crate::stats::{Share, Tally, Totals};
use crate::sys::timestamp;

/// Backends in a sample: one for each of 10,000 would be megabytes a second.
const SAMPLE_BACKENDS_MAX: usize = 1000;

pub(super) fn workers(staff: &Staff) -> Vec<api::Worker> {
    let rows = staff.counters().into_iter().map(|(worker, stats)| {
        let Share { sessions, accepted, handed_over, adopted, to_backend, to_client, accept_pauses, .. } =
            Share::of(&stats);
        let worker = u32::try_from(worker).unwrap_or(u32::MAX);
        api::Worker { worker, sessions, accepted, handed_over, adopted, to_backend, to_client, accept_pauses }
    });
    rows.collect()
}

pub(super) fn totals(staff: &Staff) -> api::Totals {
    let counters = staff.counters();
    let totals = Totals::of(counters.iter().map(|(_, stats)| stats.as_ref()));
    let occurred = CloseReason::ALL.into_iter().filter(|&reason| totals.closed_for(reason) > 0);
    let closed: BTreeMap<String, u64> =
        occurred.map(|reason| (reason.as_str().to_owned(), totals.closed_for(reason))).collect();
    api::Totals {
        sessions: totals.active(),
        accepted: totals.accepted,
        closed,
        to_backend: totals.to_backend,
        to_client: totals.to_client,
        dials: totals.dials,
        dial_failures: totals.dial_failures,
    }
}

pub(super) fn listeners(snapshot: &Snapshot) -> Vec<api::Listener> {
    let rows = snapshot.listeners.iter().map(|listener| {
        let settings = &listener.settings;
        api::Listener {
            name: settings.name.clone(),
            address: settings.bind.to_string(),
            pool: snapshot.pool(listener.pool).settings.name.clone(),
            sessions: listener.gauge().count() as u64,
            max_sessions: settings.max_sessions.map(|max| max.get() as u64),
        }
    });
    rows.collect()
}

pub(super) fn reload(status: &ReloadStatus) -> api::Reload {
    let ReloadStatus { succeeded, failed, last_success, last_failure, errors } = status.clone();
    api::Reload { succeeded, failed, last: last_success.max(last_failure), errors }
}

/// How much happens, now; not how long things took.
pub(super) fn sample(state: &State, now: Instant) -> api::Sample {
    let places =
        state.snapshot.pools.iter().flat_map(|pool| (0..pool.backends.len()).map(move |at| (pool, at)));
    let rows = places.take(SAMPLE_BACKENDS_MAX).map(|(pool, at)| backend(state, now, pool, at)).collect();
    api::Sample {
        time: timestamp(),
        stage: state.stage,
        epoch: state.snapshot.epoch,
        totals: totals(&state.staff),
        pools: state.snapshot.pools.iter().map(|known| pool(known)).collect(),
        backends: rows,
        connect: api::Latency::default(),
        duration: api::Latency::default(),
    }
}

pub(super) fn pool(pool: &Pool) -> api::Pool {
    let eligible = pool.backends.iter().filter(|backend| is_eligible(backend)).count();
    api::Pool {
        name: pool.settings.name.clone(),
        balance: pool.settings.balance.as_str().to_owned(),
        backends: pool.backends.len() as u64,
        eligible: eligible as u64,
        sessions: pool.backends.iter().map(|backend| u64::from(backend.active())).sum(),
    }
}

/// The backends of the pool of that name, or of all pools.
pub(super) fn backends(state: &State, now: Instant, only: Option<&str>) -> Vec<api::Backend> {
    let wanted = |pool: &&std::sync::Arc<Pool>| only.is_none_or(|only| pool.settings.name == only);
    let pools = state.snapshot.pools.iter().filter(wanted);
    pools.flat_map(|pool| (0..pool.backends.len()).map(|index| backend(state, now, pool, index))).collect()
}

/// The backend at that place of the pool.
pub(super) fn backend(state: &State, now: Instant, pool: &Pool, index: usize) -> api::Backend {
    let backend = &pool.backends[index];
    let nothing = Note::default();
    let note = state.notes.get(&backend.id).unwrap_or(&nothing);
    let [to_backend, to_client] = backend.stats.given.each_ref().map(Tally::get);
    api::Backend {
        pool: pool.settings.name.clone(),
        name: backend.name.clone(),
        address: backend.address.to_string(),
        weight: backend.weight(),
        backup: pool.settings.backends[index].backup,
        admin: admin_row(backend.admin()),
        health: health_row(backend.health()),
        health_override: backend.health_override().is_some(),
        health_reason: note.health_reason.clone(),
        health_since: note.health_since,
        eligible: is_eligible(backend),
        sessions: backend.active().into(),
        sessions_total: backend.sessions(),
        dial_failures: backend.dial_failures(),
        to_backend,
        to_client,
        source: if note.registered { api::Source::Api } else { api::Source::Config },
        lease_left: note.lease.map(|lease| (lease - now).as_secs_f64()),
    }
}

fn is_eligible(backend: &Backend) -> bool {
    backend.admits() && backend.health() != HealthState::Down
}

const fn admin_row(admin: Admin) -> api::Admin {
    match admin {
        Admin::Ready => api::Admin::Ready,
        Admin::Drain => api::Admin::Drain,
        Admin::Maint => api::Admin::Maint,
    }
}

/// The other way round.
pub(super) const fn admin_of(row: api::Admin) -> Admin {
    match row {
        api::Admin::Ready => Admin::Ready,
        api::Admin::Drain => Admin::Drain,
        api::Admin::Maint => Admin::Maint,
    }
}

const fn health_row(health: HealthState) -> api::Health {
    match health {
        HealthState::Unknown => api::Health::Unknown,
        HealthState::Up => api::Health::Up,
        HealthState::Down => api::Health::Down,
    }
}

pub(super) fn topology(snapshot: &Snapshot) -> api::Topology {
    let pools = snapshot.pools.iter().map(|pool| {
        let shares = pool.shares();
        let slots: u64 = shares.iter().map(|share| share.slots).sum();
        let weights: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
        let part = |of: u64, all: u64| if all == 0 { 0.0 } else { of as f64 / all as f64 };
        let backends = pool.backends.iter().zip(&shares).map(|(backend, share)| {
            let expected = part(share.weight.into(), weights);
            api::Share {
                backend: backend.name.clone(),
                address: backend.address.to_string(),
                slots: share.slots,
                share: if slots == 0 { expected } else { part(share.slots, slots) },
                expected,
            }
        });
        api::PoolShares {
            pool: pool.settings.name.clone(),
            balance: pool.settings.balance.as_str().to_owned(),
            slots,
            backends: backends.collect(),
        }
    });
    api::Topology { pools: pools.collect() }
}
