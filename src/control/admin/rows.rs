//! Turns the state of the process into the JSON of the API.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::problem::Problem;
use crate::api;
use crate::base::nearest::did_you_mean;
use crate::base::time::Instant;
use crate::config::discover::{Discover, HOST_LABEL, host_of};
use crate::config::model::{Check, FIRST_CHECK, HealthState};
use crate::control::announce::why_not;
use crate::control::certificates::end_of;
use crate::control::discovery::state::SourceState;
use crate::control::loading::{Applied, Rejected};
use crate::control::membership::notes::{AgentNote, ClearedBackend, Note};
use crate::control::membership::origin::Origin;
use crate::control::membership::placement::Placement;
use crate::control::membership::saving::Unsaved;
use crate::control::status::{Cleared, ControlState};
use crate::control::{Leaving, ReloadStatus, Removed, View, Workers};
use crate::messages::announce::Announced;
use crate::messages::query;
use crate::messages::reload::ChangeImpact;
use crate::pool::{Admin, Advice, Backend, BackendId, Pool, Snapshot};
use crate::session::CloseReason;
use crate::stats::{Share, Totals};
use crate::sys::timestamp;
use crate::tls::Certificate;

/// Most backends in a sample: one for each of 10,000 would be megabytes per second.
const SAMPLE_BACKENDS_MAX: usize = 1000;

pub(super) fn workers(workers: &Workers) -> Vec<api::Worker> {
    workers.counters().into_iter().map(|(worker, stats)| worker_row(worker, Share::of(&stats))).collect()
}

fn worker_row(worker: usize, share: Share) -> api::Worker {
    let Share { sessions, accepted, handed_over, adopted, to_backend, to_client, accept_pauses, .. } = share;
    let worker = u32::try_from(worker).unwrap_or(u32::MAX);
    api::Worker { worker, sessions, accepted, handed_over, adopted, to_backend, to_client, accept_pauses }
}

pub(super) fn totals(workers: &Workers) -> api::Totals {
    let counters = workers.counters();
    totals_row(&Totals::of(counters.iter().map(|(_, stats)| stats.as_ref())))
}

fn totals_row(totals: &Totals) -> api::Totals {
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

pub(super) fn cleared(state: &ControlState) -> Option<api::Cleared> {
    let Cleared { since, totals, shares } = state.cleared.as_ref()?;
    Some(api::Cleared {
        since: *since,
        totals: totals_row(totals),
        workers: shares.iter().map(|&(worker, share)| worker_row(worker, share)).collect(),
    })
}

fn cleared_backend(note: &Note) -> Option<api::ClearedBackend> {
    let ClearedBackend { since, sessions, dial_failures, given: [to_backend, to_client] } = note.cleared?;
    Some(api::ClearedBackend { since, sessions_total: sessions, dial_failures, to_backend, to_client })
}

pub(super) fn listeners(state: &ControlState) -> Vec<api::Listener> {
    let snapshot = &state.snapshot;
    let rows = snapshot.listeners.iter().map(|listener| {
        let settings = &listener.settings;
        let read = listener.stats().read();
        let [to_backend, to_client] = read.given;
        let pause = state.pauses.get(&settings.name);
        api::Listener {
            name: settings.name.clone(),
            address: settings.bind.to_string(),
            pool: snapshot.pool(listener.pool).settings.name.clone(),
            sessions: listener.gauge().count() as u64,
            max_sessions: settings.max_sessions.map(|max| max.get() as u64),
            accepted: read.accepted,
            failed: read.failed(),
            to_backend,
            to_client,
            paused: pause.is_some(),
            paused_by: pause.map(|pause| pause.by.clone()),
            paused_since: pause.map(|pause| pause.since),
        }
    });
    rows.collect()
}

pub(super) fn reload(status: &ReloadStatus) -> api::Reload {
    let ReloadStatus {
        succeeded,
        failed,
        last_success,
        last_failure,
        errors,
        reading_since,
        applied,
        refused,
    } = status.clone();
    let applied = applied.map(|Applied { who, when, epoch, changes, count }| api::AppliedReload {
        time: when,
        who,
        epoch,
        changes: changes.iter().map(change).collect(),
        count: count as u64,
    });
    let refused = refused.map(|Rejected { number, who, when, dismissed_by }| api::RefusedReload {
        number,
        time: when,
        who,
        dismissed_by,
    });
    let last = last_success.max(last_failure);
    api::Reload { succeeded, failed, last, errors, reading_since, applied, refused }
}

/// Returns a change of the configuration.
pub(super) fn change(impact: &ChangeImpact) -> api::Change {
    api::Change {
        what: impact.change.to_string(),
        sessions: impact.sessions as u64,
        needs_restart: impact.change.needs_restart.is_some(),
    }
}

pub(super) fn restart_pending(state: &ControlState) -> Option<api::RestartPending> {
    let since = state.pending.iter().map(|pending| pending.since).min()?;
    let (keys, changes) =
        state.pending.iter().map(|pending| (pending.change.key(), pending.change.to_string())).unzip();
    Some(api::RestartPending { since, keys, changes })
}

pub(super) fn announce(state: &ControlState) -> Option<api::Announce> {
    let settings = state.config.announce.as_ref()?;
    let (word, note, records) = match state.announce.as_ref().map(|standing| &standing.announced) {
        None | Some(Announced::Withdrawn) => ("withdrawn", None, 0),
        Some(Announced::Kept(records)) => ("kept", None, *records as u64),
        Some(Announced::Failing(why)) => ("failing", Some(why.clone()), 0),
    };
    let listeners = state.snapshot.listeners.iter().map(|listener| api::AnnouncedListener {
        listener: listener.settings.name.clone(),
        name: settings.name_of(&listener.settings.name),
        why_not: why_not(state, settings, listener, &state.snapshot),
    });
    Some(api::Announce {
        domain: settings.domain.clone(),
        name: settings.name.clone(),
        state: word.to_owned(),
        since: state.announce.as_ref().map(|standing| standing.since),
        note,
        records,
        listeners: listeners.collect(),
    })
}

/// Returns the present counts, without durations.
pub(super) fn sample(state: &ControlState, now: Instant) -> api::Sample {
    let places =
        state.snapshot.pools.iter().flat_map(|pool| (0..pool.backends.len()).map(move |at| (pool, at)));
    let rows = places.take(SAMPLE_BACKENDS_MAX).map(|(pool, at)| backend(state, now, pool, at)).collect();
    api::Sample {
        time: timestamp(),
        stage: state.stage,
        epoch: state.snapshot.epoch,
        totals: totals(&state.workers),
        pools: state.snapshot.pools.iter().map(|known| pool(known)).collect(),
        backends: rows,
        connect: api::Latency::default(),
        duration: api::Latency::default(),
        cleared: cleared(state),
    }
}

pub(super) fn pool(pool: &Pool) -> api::Pool {
    let eligible = pool.backends.iter().filter(|backend| backend.is_eligible()).count();
    api::Pool {
        name: pool.settings.name.clone(),
        balance: pool.settings.balance.as_str().to_owned(),
        backends: pool.backends.len() as u64,
        eligible: eligible as u64,
        sessions: pool.backends.iter().map(|backend| u64::from(backend.active())).sum(),
    }
}

/// Returns the backends of the pool of that name, or of all pools.
pub(super) fn backends(state: &ControlState, now: Instant, only: Option<&str>) -> Vec<api::Backend> {
    let wanted = |pool: &&std::sync::Arc<Pool>| only.is_none_or(|only| pool.settings.name == only);
    let pools = state.snapshot.pools.iter().filter(wanted);
    pools.flat_map(|pool| (0..pool.backends.len()).map(|index| backend(state, now, pool, index))).collect()
}

/// Returns the backend at that index of the pool.
pub(super) fn backend(state: &ControlState, now: Instant, pool: &Pool, index: usize) -> api::Backend {
    let backend = &pool.backends[index];
    let nothing = Note::default();
    let note = state.notes.get(&backend.id).unwrap_or(&nothing);
    let [to_backend, to_client] = backend.stats.given();
    let (admin_by, admin_since) = admin_author(backend, note).unzip();
    api::Backend {
        pool: pool.settings.name.clone(),
        name: backend.name.clone(),
        address: address(backend, note),
        weight: backend.weight(),
        priority: pool.settings.backends[index].priority,
        admin: admin_row(backend.admin()),
        admin_by,
        admin_since,
        health: health_row(backend.health()),
        health_override: backend.health_override().is_some(),
        health_reason: unresolved(state, pool, backend, note)
            .map(|source| format!("has no address: {}", source.why_no_address()))
            .or_else(|| note.health_reason.clone()),
        health_since: note.health_since,
        checks: checks(pool, note),
        eligible: backend.is_eligible(),
        sessions: backend.active().into(),
        sessions_total: backend.sessions(),
        dial_failures: backend.dial_failures(),
        to_backend,
        to_client,
        source: source_row(&note.origin),
        placed: note.placed.as_ref().map(placed_row),
        lease_left: note.origin.lease().map(|lease| (lease - now).as_secs_f64()),
        agent: pool.settings.agent.as_ref().map(|_| agent(backend.agent(), note.agent.as_ref())),
        cleared: cleared_backend(note),
    }
}

/// Returns what has put the backend into its administrative state, and when.
fn admin_author(backend: &Backend, note: &Note) -> Option<(String, Timestamp)> {
    if backend.admin() == backend.operator_admin() {
        return note.admin_set.clone();
    }
    Some(("agent".to_owned(), note.agent.as_ref()?.admin_since?))
}

fn agent(advice: Advice, note: Option<&AgentNote>) -> api::Agent {
    let Advice { weight, maxconn, admin, health } = advice;
    let nothing = AgentNote::default();
    let AgentNote { line, since, admin_since: _, lost, logged: _ } = note.unwrap_or(&nothing);
    let (lost, lost_since) = lost.clone().unzip();
    api::Agent {
        weight: weight.map(|weight| weight.to_string()),
        maxconn,
        admin: admin.map(admin_row),
        health: health.map(health_row),
        note: line.note.clone(),
        mistake: line.mistake.clone(),
        since: *since,
        lost,
        lost_since,
    }
}

/// Returns what the checks of the backends of a pool that are down have found, and why others have no address, in words.
pub(super) fn findings_of_down(state: &ControlState, pool: &Pool) -> HashMap<BackendId, String> {
    let down = pool.backends.iter().filter(|backend| backend.health() == HealthState::Down);
    let findings = down.filter_map(|backend| {
        let note = state.notes.get(&backend.id)?;
        if let Some(source) = unresolved(state, pool, backend, note) {
            return Some((backend.id, source.why_no_address().to_owned()));
        }
        Some((backend.id, api::findings(&checks(pool, note), note.health_reason.as_deref())?))
    });
    findings.collect()
}

/// Returns the last results of the checks of a backend with that note.
fn checks(pool: &Pool, note: &Note) -> Vec<api::CheckResult> {
    let health = &pool.settings.health;
    if health.check == Check::Off {
        return Vec::new();
    }
    let last = note.checks.iter().map(Option::as_ref).chain(std::iter::repeat(None));
    let shown = note.certificates.iter().map(Option::as_ref).chain(std::iter::repeat(None));
    let rows = health.checks().zip(last).zip(shown).map(|((check, last), shown)| api::CheckResult {
        name: check.name.unwrap_or(FIRST_CHECK).to_owned(),
        passed: last.map(|last| last.failure.is_none()),
        reason: last.and_then(|last| last.failure.clone()),
        since: last.map(|last| last.since),
        certificate: shown.map(|shown| certificate(&shown.certificate)),
    });
    rows.collect()
}

pub(super) fn certificate(certificate: &Certificate) -> api::Certificate {
    let Certificate { names, names_total, .. } = certificate;
    api::Certificate {
        names: names.clone(),
        names_total: *names_total as u64,
        not_after: end_of(certificate),
    }
}

/// Returns its address, or its host name while that has none.
fn address(backend: &Backend, note: &Note) -> String {
    match &note.origin {
        Origin::Discovered(known) if !backend.is_resolved() => {
            known.source.strip_prefix(HOST_LABEL).unwrap_or(&known.source).to_owned()
        }
        Origin::File | Origin::Registered(_) | Origin::Discovered(_) => backend.address.to_string(),
    }
}

/// Returns the source of a backend whose host name has no address.
fn unresolved<'s>(
    state: &'s ControlState,
    pool: &Pool,
    backend: &Backend,
    note: &Note,
) -> Option<&'s SourceState> {
    match &note.origin {
        Origin::Discovered(known) if !backend.is_resolved() => {
            state.sources.of(&pool.settings.name, &known.source)
        }
        Origin::File | Origin::Registered(_) | Origin::Discovered(_) => None,
    }
}

/// Returns one row for all addresses of a host name, or `None` when the pool has no such name.
pub(super) fn host(state: &ControlState, now: Instant, pool: &Pool, name: &str) -> Option<api::Backend> {
    let host =
        pool.settings.discover.iter().filter_map(Discover::as_host).find(|host| host.backend == name)?;
    let is_its = |place: &usize| host_of(&pool.backends[*place].name) == Some(name);
    let mut rows = (0..pool.backends.len()).filter(is_its).map(|place| backend(state, now, pool, place));
    let mut all = rows.next()?;
    (all.name, all.address) = (name.to_owned(), host.target());
    for row in rows {
        all.sessions += row.sessions;
        all.sessions_total += row.sessions_total;
        all.dial_failures += row.dial_failures;
        all.to_backend += row.to_backend;
        all.to_client += row.to_client;
        all.eligible |= row.eligible;
        // As drained as the address that is least so: what waits for a drain waits for all.
        if row.admin == api::Admin::Ready {
            all.admin = api::Admin::Ready;
        }
        if row.health != api::Health::Down {
            (all.health, all.health_reason) = (row.health, row.health_reason);
        }
    }
    Some(all)
}

fn placed_row(placement: &Placement) -> api::Placed {
    let Placement { address, priority, who, since, says } = placement;
    api::Placed {
        address_before: address.as_ref().map(|_| says.address.to_string()),
        priority_before: priority.map(|_| says.priority),
        by: who.clone(),
        since: *since,
    }
}

const fn source_row(origin: &Origin) -> api::Source {
    match origin {
        Origin::File => api::Source::Config,
        Origin::Registered(_) => api::Source::Api,
        Origin::Discovered(_) => api::Source::Discovered,
    }
}

const fn admin_row(admin: Admin) -> api::Admin {
    match admin {
        Admin::Ready => api::Admin::Ready,
        Admin::Drain => api::Admin::Drain,
        Admin::Maint => api::Admin::Maint,
    }
}

/// Returns the inverse of the conversion above.
pub(super) const fn admin_of(row: api::Admin) -> Admin {
    match row {
        api::Admin::Ready => Admin::Ready,
        api::Admin::Drain => Admin::Drain,
        api::Admin::Maint => Admin::Maint,
    }
}

/// Returns why run-time changes are not saved, while the state file cannot be written.
pub(super) fn not_saved(view: &View) -> Option<api::NotSaved> {
    let Unsaved { since, reason } = view.state_writes.get()?.unsaved()?;
    Some(api::NotSaved { since, reason })
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

/// Returns the pool of that name. Fails with 404 when there is none.
pub(super) fn pool_named<'s>(state: &'s ControlState, name: &str) -> Result<&'s Pool, Problem> {
    let found = state.snapshot.pool_named(name);
    let missing = || {
        let known = state.snapshot.pools.iter().map(|pool| pool.settings.name.as_str());
        Problem::not_found(format!("there is no pool {name:?}{}", did_you_mean(name, known)))
    };
    found.map(AsRef::as_ref).ok_or_else(missing)
}

pub(super) fn session(row: &query::Row, now: Instant) -> api::Session {
    let [to_backend, to_client] = row.given;
    let age = (now - row.opened).as_secs_f64();
    let (state, age, idle, reason) = match row.state {
        query::SessionState::Live { stage, quiet, .. } => (stage.as_str(), age, quiet.as_secs_f64(), None),
        query::SessionState::Ended { reason, duration, .. } => {
            ("ended", duration.as_secs_f64(), 0.0, Some(reason.as_str()))
        }
    };
    let asked = row.asked.as_deref();
    api::Session {
        id: row.id.to_string(),
        listener: row.listener.to_string(),
        pool: row.pool.to_string(),
        backend: row.backend.as_ref().map(|backend| backend.name.clone()),
        backend_address: row.backend.as_ref().map(|backend| backend.address.to_string()),
        client: row.client.to_string(),
        peer: row.peer.map(|peer| peer.to_string()),
        sni: asked.and_then(|asked| asked.sni.as_deref()).map(str::to_owned),
        alpn: asked.and_then(|asked| asked.alpn.as_deref()).map(str::to_owned),
        route: asked.and_then(|asked| asked.route).map(|route| route as u64),
        source: row.source.map(|source| source.to_string()),
        state: state.to_owned(),
        age,
        idle,
        to_backend,
        to_client,
        reason: reason.map(str::to_owned),
        ended_ago: row.ended().map(|ended| (now - ended).as_secs_f64()),
    }
}

pub(super) fn drains(state: &ControlState, now: Instant) -> api::Drains {
    let row = |leaving: &Leaving, left: u64| api::Drain {
        pool: None,
        backend: None,
        address: None,
        removed: false,
        sessions: left,
        sessions_at_start: leaving.sessions_at_start,
        age: (now - leaving.since).as_secs_f64(),
        deadline: leaving.deadline.map(|deadline| (deadline - now).as_secs_f64()),
        eta: leaving.eta(left, now).map(|eta| eta.as_secs_f64()),
    };
    let named = |drain: api::Drain, pool: &str, backend: &Backend| api::Drain {
        pool: Some(pool.to_owned()),
        backend: Some(backend.name.clone()),
        address: Some(backend.address.to_string()),
        ..drain
    };
    let removed = state.removed.iter().map(|removed| {
        let Removed { pool, backend, .. } = removed;
        api::Drain { removed: true, ..named(row(&removed.leaving(), backend.active().into()), pool, backend) }
    });
    let leaving = state.snapshot.backends().filter_map(|backend| {
        let leaving = state.notes.get(&backend.id)?.leaving?;
        let pool = &state.snapshot.pool(backend.pool).settings.name;
        (backend.active() > 0).then(|| named(row(&leaving, backend.active().into()), pool, backend))
    });
    let process = state.drain.as_ref().map(|drain| row(drain, state.workers.sessions()));
    api::Drains { process, backends: removed.chain(leaving).collect() }
}
