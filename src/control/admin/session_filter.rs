//! Which sessions a request wants, and in which order.

use std::cmp::Reverse;
use std::sync::Arc;

use super::problem::Problem;
use super::rows;
use crate::api;
use crate::base::glob;
use crate::base::nearest::did_you_mean;
use crate::base::network::{Network, NoNetwork};
use crate::base::time::Instant;
use crate::config;
use crate::control::status::ControlState;
use crate::messages::query::{Filter, Row, SessionState};
use crate::pool::{Backend, BackendId};
use crate::session::CloseReason;

/// Returns the filter of a request. Fails when it names what does not exist, or contradicts itself.
pub(super) fn filter_of(
    state: &ControlState,
    wanted: &api::SessionFilter,
    now: Instant,
) -> Result<Filter, Problem> {
    let pool = wanted.pool.as_deref().map(|name| rows::pool_named(state, name)).transpose()?;
    let backends = match (&wanted.backend, &wanted.pool) {
        (None, _) => None,
        (Some(pattern), _) if glob::is_pattern(pattern) => Some(matching(state, pool_name(wanted), pattern)?),
        (Some(backend), Some(pool)) => Some([backend_named(state, pool, backend)?.id].into()),
        (Some(backend), None) => Some([only_backend_named(state, backend)?.id].into()),
    };
    let client: Option<Network> = wanted
        .client
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|error: NoNetwork| Problem::bad(format!("client: {error}")))?;
    let of_ended = [("reason", &wanted.reason), ("since", &wanted.since)];
    if let Some((key, _)) = of_ended.into_iter().find(|(_, value)| value.is_some())
        && wanted.ended != Some(true)
    {
        return Err(Problem::bad(format!("{key}: needs ended=true")));
    }
    if wanted.ended == Some(true) && wanted.from.is_some() {
        return Err(Problem::bad(
            "from: sessions that are over are on one page, ask with another limit or since",
        ));
    }
    if wanted.sort.is_some() && wanted.from.is_some() {
        return Err(Problem::bad("from: sorted sessions are on one page, ask with another limit"));
    }
    let reason = wanted.reason.as_deref().map(reason_named).transpose()?;
    let wrong = |config::Invalid(what): config::Invalid| Problem::bad(format!("since: {what}"));
    let within = wanted.since.as_deref().map(config::parse_duration).transpose().map_err(wrong)?;
    let since = within.map(|span| now - span);
    Ok(Filter { listener: None, pool: pool.map(|pool| pool.id), backends, client, reason, since })
}

fn pool_name(wanted: &api::SessionFilter) -> &str {
    wanted.pool.as_deref().unwrap_or("*")
}

/// Returns the backends that match POOL/BACKEND, or BACKEND in pools like `pool`; those that were removed and have
/// sessions are among them.
fn matching(state: &ControlState, pool: &str, pattern: &str) -> Result<Arc<[BackendId]>, Problem> {
    if pattern.len() > api::PATTERN_LEN_MAX {
        let (most, len) = (api::PATTERN_LEN_MAX, pattern.len());
        return Err(Problem::bad(format!("backend: a pattern must be 1..={most} bytes, got {len}")));
    }
    let (pool, backend) = pattern.split_once('/').unwrap_or((pool, pattern));
    let pools = state.snapshot.pools.iter();
    let running =
        pools.flat_map(|of| of.backends.iter().map(move |known| (of.settings.name.as_str(), known)));
    let removed = state.removed.iter().map(|gone| (gone.pool.as_str(), &gone.backend));
    let is_it = |(of, known): &(&str, &Arc<Backend>)| {
        let is_like = |text: &str| glob::matches(backend, text);
        glob::matches(pool, of) && (is_like(&known.name) || is_like(&known.address.to_string()))
    };
    let mut ids: Vec<BackendId> = running.chain(removed).filter(is_it).map(|(_, known)| known.id).collect();
    if ids.is_empty() {
        return Err(Problem::not_found(format!("no backend matches {pattern:?}")));
    }
    ids.sort_unstable_by_key(|id| id.0);
    Ok(ids.into())
}

fn reason_named(name: &str) -> Result<CloseReason, Problem> {
    let unknown = || {
        let all = CloseReason::ALL.map(CloseReason::as_str).join(", ");
        let hint = did_you_mean(name, CloseReason::ALL.map(CloseReason::as_str));
        Problem::bad(format!("reason: must be one of {all}, got {name:?}{hint}"))
    };
    CloseReason::ALL.into_iter().find(|reason| reason.as_str() == name).ok_or_else(unknown)
}

/// Returns the backend of that name in a pool.
pub(super) fn backend_named<'s>(
    state: &'s ControlState,
    pool: &str,
    name: &str,
) -> Result<&'s Backend, Problem> {
    let pool = rows::pool_named(state, pool)?;
    let found = pool.backend_named(name);
    let missing = || {
        let known = pool.backends.iter().map(|backend| backend.name.as_str());
        let hint = did_you_mean(name, known);
        Problem::not_found(format!("pool {:?} has no backend {name:?}{hint}", pool.settings.name))
    };
    found.map(Arc::as_ref).ok_or_else(missing)
}

fn only_backend_named<'s>(state: &'s ControlState, name: &str) -> Result<&'s Backend, Problem> {
    let mut found = state.snapshot.backends().filter(|backend| backend.name == name);
    match (found.next(), found.next()) {
        (Some(backend), None) => Ok(backend),
        (None, _) => {
            let hint = did_you_mean(name, state.snapshot.backends().map(|backend| backend.name.as_str()));
            Err(Problem::not_found(format!("no pool has a backend {name:?}{hint}")))
        }
        (Some(_), Some(_)) => {
            Err(Problem::bad(format!("backend: several pools have {name:?}, name the pool")))
        }
    }
}

/// Sorts sessions, and keeps the first `limit` of them; returns whether others are left out.
pub(super) fn keep_first(rows: &mut Vec<Row>, sort: api::SessionSort, limit: usize) -> bool {
    match sort {
        api::SessionSort::Bytes => rows.sort_by_key(|row| Reverse(row.given.iter().sum::<u64>())),
        api::SessionSort::Age => rows.sort_by_key(|row| row.opened),
        api::SessionSort::Idle => rows.sort_by_key(|row| Reverse(idle(row))),
        api::SessionSort::Backend => rows.sort_by_cached_key(|row| {
            let backend = row.backend.as_ref().map(|backend| backend.name.clone());
            (Arc::clone(&row.pool), backend, row.opened)
        }),
        api::SessionSort::Client => {
            rows.sort_by_key(|row| (row.client.ip().to_canonical(), row.client.port()));
        }
    }
    let is_cut = rows.len() > limit;
    rows.truncate(limit);
    is_cut
}

fn idle(row: &Row) -> std::time::Duration {
    match row.state {
        SessionState::Live { quiet, .. } => quiet,
        SessionState::Ended { .. } => std::time::Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::slots::Key;
    use crate::messages::query::SessionId;
    use crate::session::Stage;

    fn row(index: u32, client: &str, age: u64, idle: u64, given: [u64; 2]) -> Row {
        let now = Instant::default() + Duration::from_secs(1000);
        Row {
            id: SessionId { worker: 0, key: Key { index, generation: 0 } },
            listener: "in".into(),
            pool: if index.is_multiple_of(2) { "web".into() } else { "api".into() },
            backend: None,
            client: client.parse().unwrap(),
            peer: None,
            source: None,
            opened: now - Duration::from_secs(age),
            given,
            connect_time: None,
            retries: 0,
            state: SessionState::Live { stage: Stage::Open, quiet: Duration::from_secs(idle), held: [0, 0] },
        }
    }

    #[test]
    fn sessions_are_sorted_by_what_an_operator_looks_for_first() {
        let all = [
            row(0, "10.0.0.9:1", 5, 3, [10, 0]),
            row(1, "10.0.0.10:1", 50, 1, [0, 700]),
            row(2, "10.0.0.9:2", 7, 9, [20, 20]),
            row(3, "[::ffff:10.0.0.1]:9", 1, 0, [0, 0]),
        ];
        for (sort, expected) in [
            (api::SessionSort::Bytes, [1, 2, 0]),
            (api::SessionSort::Age, [1, 2, 0]),
            (api::SessionSort::Idle, [2, 0, 1]),
            (api::SessionSort::Backend, [1, 3, 2]),
            (api::SessionSort::Client, [3, 0, 2]),
        ] {
            let mut rows = all.to_vec();
            assert!(keep_first(&mut rows, sort, 3), "one is left out");
            let order: Vec<u32> = rows.iter().map(|row| row.id.key.index).collect();
            assert_eq!(order, expected, "{sort:?}");
            assert!(!keep_first(&mut rows, sort, 3));
        }
    }
}
