//! Series of pools and their backends. A removed backend has no series.

use std::fmt;
use std::sync::Arc;

use super::families::{Families, seconds};
use crate::config::model::{self, HealthState};
use crate::pool::{Admin, Backend, Pool, Snapshot};
use crate::stats::DialFailure;

pub(super) fn write(families: &mut Families, snapshot: &Snapshot) -> fmt::Result {
    // Ten thousand backends are scattered over memory: each is read once, not once per series.
    let rows: Vec<Row> = snapshot
        .pools
        .iter()
        .flat_map(|pool| pool.backends.iter().map(|backend| Row::of(&pool.settings, backend)))
        .collect();
    pools(families, snapshot, &rows)?;
    state(families, &rows)?;
    sessions(families, &rows)?;
    checks(families, &rows)?;
    certificates(families, &rows)?;
    agents(families, &rows)
}

/// One backend in this scrape.
struct Row<'s> {
    pool: &'s str,
    name: &'s str,
    is_eligible: bool,
    health: HealthState,
    admin: Admin,
    weight: u64,
    active: u64,
    sessions: u64,
    connected: u64,
    dial_failures: [u64; DialFailure::ALL.len()],
    retried_away: u64,
    given: [u64; 2],
    checks_passed: u64,
    checks_failed: u64,
    transitions: u64,
    last_check_nanos: u64,
    certificate_not_after: u64,
    agent: Option<AgentRow>,
}

/// The agent of a backend.
struct AgentRow {
    answers: u64,
    failures: u64,
    maxconn: Option<u32>,
}

/// The name of a pool; the numbers of its backends, of eligible ones, and of sessions on them.
type PoolSums<'s> = ([(&'static str, &'s str); 1], [u64; 3]);
type Names<'s> = [(&'static str, &'s str); 2];

impl<'s> Row<'s> {
    fn of(pool: &'s model::Pool, backend: &'s Backend) -> Self {
        let stats = &backend.stats;
        let (health, admin, weight) = (backend.health(), backend.admin(), backend.weight());
        Self {
            pool: &pool.name,
            name: &backend.name,
            is_eligible: admin == Admin::Ready && weight > 0 && health != HealthState::Down,
            health,
            admin,
            weight: weight.into(),
            // Read before the sessions that they are a part of.
            connected: stats.connected(),
            dial_failures: stats.dial_failures(),
            active: backend.active().into(),
            sessions: backend.sessions(),
            retried_away: stats.retried_away(),
            given: stats.given(),
            checks_passed: stats.checks_passed.get(),
            checks_failed: stats.checks_failed.get(),
            transitions: stats.transitions.get(),
            last_check_nanos: stats.last_check_nanos.get(),
            certificate_not_after: stats.certificate_not_after.get(),
            agent: pool.agent.as_ref().map(|_| AgentRow {
                answers: stats.agent_answers.get(),
                failures: stats.agent_failures.get(),
                maxconn: backend.agent().maxconn,
            }),
        }
    }

    fn names(&self) -> Names<'s> {
        [("pool", self.pool), ("backend", self.name)]
    }

    fn and(&self, name: &'static str, value: &'static str) -> [(&'static str, &'s str); 3] {
        let [pool, backend] = self.names();
        [pool, backend, (name, value)]
    }
}

/// Writes one number per backend.
fn each<'r, 's, V>(
    rows: &'r [Row<'s>],
    read: impl Fn(&Row<'s>) -> V + 'r,
) -> impl Iterator<Item = (Names<'s>, V)> + 'r {
    rows.iter().map(move |row| (row.names(), read(row)))
}

fn pools(families: &mut Families, snapshot: &Snapshot, rows: &[Row]) -> fmt::Result {
    let mut rows = rows;
    let sums: Vec<PoolSums> = snapshot
        .pools
        .iter()
        .map(|pool: &Arc<Pool>| {
            let (own, others) = rows.split_at(pool.backends.len());
            rows = others;
            let eligible = own.iter().filter(|row| row.is_eligible).count() as u64;
            let active = own.iter().map(|row| row.active).sum();
            ([("pool", pool.settings.name.as_str())], [own.len() as u64, eligible, active])
        })
        .collect();
    let column = |index: usize| sums.iter().map(move |(pool, sums)| (*pool, sums[index]));
    families.gauges("l4lb_pool_backends", "Number of its backends.", column(0))?;
    families.gauges(
        "l4lb_pool_eligible_backends",
        "Number of its backends that may get new sessions.",
        column(1),
    )?;
    families.gauges(
        "l4lb_pool_active_sessions",
        "Sessions on its backends, dialing ones included.",
        column(2),
    )
}

fn state(families: &mut Families, rows: &[Row]) -> fmt::Result {
    families.gauges(
        "l4lb_backend_eligible",
        "1 if it may get new sessions: it is ready, has a weight and is not down.",
        each(rows, |row| u64::from(row.is_eligible)),
    )?;
    let states = [HealthState::Unknown, HealthState::Up, HealthState::Down];
    let health = rows.iter().flat_map(|row| {
        states.map(|state| (row.and("state", state.as_str()), u64::from(state == row.health)))
    });
    families.gauges("l4lb_backend_health", "1 for its health, 0 for the others.", health)?;
    let states = [Admin::Ready, Admin::Drain, Admin::Maint];
    let admin = rows.iter().flat_map(|row| {
        states.map(|state| (row.and("state", state.as_str()), u64::from(state == row.admin)))
    });
    families.gauges("l4lb_backend_admin", "1 for its administrative state, 0 for the others.", admin)?;
    families.gauges("l4lb_backend_weight", "Its weight.", each(rows, |row| row.weight))
}

fn sessions(families: &mut Families, rows: &[Row]) -> fmt::Result {
    families.gauges(
        "l4lb_backend_active_sessions",
        "Sessions on it, dialing ones included.",
        each(rows, |row| row.active),
    )?;
    families.counters(
        "l4lb_backend_sessions_total",
        "Sessions assigned to it, each as often as it was dialed.",
        each(rows, |row| row.sessions),
    )?;
    families.counters(
        "l4lb_backend_connected_sessions_total",
        "Sessions connected to it.",
        each(rows, |row| row.connected),
    )?;
    let failures = rows.iter().flat_map(|row| {
        let causes = DialFailure::ALL.into_iter().zip(row.dial_failures);
        causes.map(|(cause, count)| (row.and("cause", cause.as_str()), count))
    });
    families.counters(
        "l4lb_backend_dial_failures_total",
        "Failed dials for sessions, by cause.",
        failures,
    )?;
    families.counters(
        "l4lb_backend_retried_away_total",
        "Sessions dialed to another backend because the dial to it had failed.",
        each(rows, |row| row.retried_away),
    )?;
    families.counters(
        "l4lb_backend_to_backend_bytes_total",
        "Bytes written to it.",
        each(rows, |row| row.given[0]),
    )?;
    families.counters(
        "l4lb_backend_to_client_bytes_total",
        "Bytes read from it and written to clients.",
        each(rows, |row| row.given[1]),
    )
}

fn checks(families: &mut Families, rows: &[Row]) -> fmt::Result {
    let checks = rows.iter().flat_map(|row| {
        [(row.and("state", "passed"), row.checks_passed), (row.and("state", "failed"), row.checks_failed)]
    });
    families.counters("l4lb_backend_checks_total", "Health checks that passed and that failed.", checks)?;
    families.counters(
        "l4lb_backend_health_transitions_total",
        "Changes of its health as seen by its checks.",
        each(rows, |row| row.transitions),
    )?;
    families.gauges(
        "l4lb_backend_last_check_seconds",
        "Duration of its last health check; 0 before the first.",
        each(rows, |row| seconds(row.last_check_nanos)),
    )
}

/// A backend that has shown no certificate has no such series.
fn certificates(families: &mut Families, rows: &[Row]) -> fmt::Result {
    let shown = || rows.iter().filter(|row| row.certificate_not_after > 0);
    if shown().next().is_none() {
        return Ok(());
    }
    families.gauges(
        "l4lb_backend_certificate_not_after_timestamp_seconds",
        "End of the certificate that its checks were shown, of several the first, in seconds since 1970.",
        shown().map(|row| (row.names(), row.certificate_not_after)),
    )
}

/// Backends without an agent have no such series, and neither has a process without agents.
fn agents(families: &mut Families, rows: &[Row]) -> fmt::Result {
    let asked = || rows.iter().filter_map(|row| Some((row, row.agent.as_ref()?)));
    if asked().next().is_none() {
        return Ok(());
    }
    let answers = asked().flat_map(|(row, agent)| {
        [(row.and("state", "answered"), agent.answers), (row.and("state", "failed"), agent.failures)]
    });
    families.counters(
        "l4lb_backend_agent_exchanges_total",
        "Exchanges with its agent that brought a line, and that failed.",
        answers,
    )?;
    families.gauges(
        "l4lb_backend_agent_maxconn",
        "The most sessions that its agent wants, if it has said so; nothing limits them yet.",
        asked().filter_map(|(row, agent)| Some((row.names(), u64::from(agent.maxconn?)))),
    )
}
