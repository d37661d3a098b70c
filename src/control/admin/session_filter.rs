//! Which sessions a request wants, and in which order.

use std::cmp::Reverse;
use std::sync::Arc;

use super::problem::Problem;
use crate::api;
use crate::base::glob;
use crate::base::nearest::did_you_mean;
use crate::base::network::{Network, NoNetwork};
use crate::base::time::Instant;
use crate::config;
use crate::config::discover::host_of;
use crate::control::status::ControlState;
use crate::messages::query::{Filter, Row, SessionState};
use crate::pool::{Backend, BackendId, Pool, Snapshot};
use crate::session::CloseReason;

/// The backends that a request may name: those of pools, and those that have left and have sessions. It is taken out of
/// the state, which must not be locked for as long as ten thousand names are compared with a pattern.
pub(super) struct Known {
    snapshot: Arc<Snapshot>,
    /// Each with the name of its former pool.
    removed: Vec<(String, Arc<Backend>)>,
}

impl Known {
    pub(super) fn of(state: &ControlState) -> Self {
        let removed = state.removed.iter().map(|gone| (gone.pool.clone(), Arc::clone(&gone.backend)));
        Self { snapshot: Arc::clone(&state.snapshot), removed: removed.collect() }
    }

    /// Returns all backends, each with the name of its pool.
    fn all(&self) -> impl Iterator<Item = (&str, &Arc<Backend>)> {
        let pools = self.snapshot.pools.iter();
        let running =
            pools.flat_map(|of| of.backends.iter().map(move |known| (of.settings.name.as_str(), known)));
        running.chain(self.removed.iter().map(|(pool, backend)| (pool.as_str(), backend)))
    }

    fn pool_named(&self, name: &str) -> Result<&Arc<Pool>, Problem> {
        let missing = || {
            let known = self.snapshot.pools.iter().map(|pool| pool.settings.name.as_str());
            Problem::not_found(format!("there is no pool {name:?}{}", did_you_mean(name, known)))
        };
        self.snapshot.pool_named(name).ok_or_else(missing)
    }

    /// Returns the backends of a pool that `name` stands for, by id: the one of that name, all addresses of the host
    /// that is called so, and those that had the name before and have left sessions.
    pub(super) fn named(&self, pool: &str, name: &str) -> Result<Arc<[BackendId]>, Problem> {
        self.pool_named(pool)?;
        let ids = ids(self.all().filter(|(of, known)| *of == pool && is_called(known, name)));
        let missing = || {
            let all = self.all().filter(|(of, _)| *of == pool);
            let hint = did_you_mean(name, all.map(|(_, backend)| backend.name.as_str()));
            Problem::not_found(format!("pool {pool:?} has no backend {name:?}{hint}"))
        };
        if ids.is_empty() { Err(missing()) } else { Ok(ids) }
    }

    /// Returns the same where only one pool has such a backend.
    fn named_anywhere(&self, name: &str) -> Result<Arc<[BackendId]>, Problem> {
        let found: Vec<_> = self.all().filter(|(_, known)| is_called(known, name)).collect();
        let Some((first, _)) = found.first() else {
            let hint = did_you_mean(name, self.all().map(|(_, backend)| backend.name.as_str()));
            return Err(Problem::not_found(format!("no pool has a backend {name:?}{hint}")));
        };
        if found.iter().any(|(pool, _)| pool != first) {
            return Err(Problem::bad(format!("backend: several pools have {name:?}, name the pool")));
        }
        Ok(ids(found.into_iter()))
    }

    /// Returns the backends that match POOL/BACKEND, or BACKEND in pools like `pool`.
    fn matching(&self, pool: &str, pattern: &str) -> Result<Arc<[BackendId]>, Problem> {
        if pattern.len() > api::PATTERN_LEN_MAX {
            let (most, len) = (api::PATTERN_LEN_MAX, pattern.len());
            return Err(Problem::bad(format!("backend: a pattern must be 1..={most} bytes, got {len}")));
        }
        let (pool, backend) = pattern.split_once('/').unwrap_or((pool, pattern));
        let is_it = |(of, known): &(&str, &Arc<Backend>)| {
            let is_like = |text: &str| glob::matches(backend, text);
            glob::matches(pool, of) && (is_like(&known.name) || is_like(&known.address.to_string()))
        };
        let ids = ids(self.all().filter(is_it));
        if ids.is_empty() {
            return Err(Problem::not_found(format!("no backend matches {pattern:?}")));
        }
        Ok(ids)
    }
}

/// Returns whether a backend has that name, or is an address of the host that is called so.
fn is_called(backend: &Backend, name: &str) -> bool {
    backend.name == name || host_of(&backend.name) == Some(name)
}

fn ids<'k>(backends: impl Iterator<Item = (&'k str, &'k Arc<Backend>)>) -> Arc<[BackendId]> {
    let mut ids: Vec<BackendId> = backends.map(|(_, known)| known.id).collect();
    ids.sort_unstable_by_key(|id| id.0);
    ids.into()
}

/// Returns the filter of a request. Fails when it names what does not exist, or contradicts itself.
pub(super) fn filter_of(known: &Known, wanted: &api::SessionFilter, now: Instant) -> Result<Filter, Problem> {
    let pool = wanted.pool.as_deref().map(|name| known.pool_named(name)).transpose()?;
    let backends = match (&wanted.backend, &wanted.pool) {
        (None, _) => None,
        (Some(pattern), _) if glob::is_pattern(pattern) => Some(known.matching(pool_name(wanted), pattern)?),
        (Some(backend), Some(pool)) => Some(known.named(pool, backend)?),
        (Some(backend), None) => Some(known.named_anywhere(backend)?),
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

fn reason_named(name: &str) -> Result<CloseReason, Problem> {
    let unknown = || {
        let all = CloseReason::ALL.map(CloseReason::as_str).join(", ");
        let hint = did_you_mean(name, CloseReason::ALL.map(CloseReason::as_str));
        Problem::bad(format!("reason: must be one of {all}, got {name:?}{hint}"))
    };
    CloseReason::ALL.into_iter().find(|reason| reason.as_str() == name).ok_or_else(unknown)
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
            asked: None,
            source: None,
            opened: now - Duration::from_secs(age),
            given,
            connect_time: None,
            retries: 0,
            state: SessionState::Live { stage: Stage::Open, quiet: Duration::from_secs(idle), held: [0, 0] },
        }
    }

    /// `a` and two addresses of `host` in `web`; `a` in `api`, where another one of that name has left.
    fn known() -> Known {
        let backends = |all: &[(&str, u16)]| {
            let all =
                all.iter().map(|(name, port)| format!("{{ name = \"{name}\", address = \":{port}\" }}"));
            all.collect::<Vec<_>>().join(", ")
        };
        let text = |port| {
            format!(
                "[[listener]]\nbind = \":90\"\npool = \"web\"\n[[pool]]\nname = \"web\"\nbackend = [{}]\n\
                 [[pool]]\nname = \"api\"\nbackend = [{}]\n",
                backends(&[("a", 1)]),
                backends(&[("a", port)])
            )
        };
        let parse = |port| {
            let no_names = &mut |_: &str| Ok(Vec::new());
            config::parse(&text(port), "test", &config::Overrides::default(), no_names)
                .expect("a good config")
        };
        let first = Snapshot::new(&parse(4));
        let gone = Arc::clone(&first.pool_named("api").expect("a pool").backends[0]);
        let second = first.reconfigured(&parse(5));
        let web = Arc::clone(second.pool_named("web").expect("a pool"));
        let mut listed = web.settings.backends.clone();
        for port in [2, 3] {
            let mut address = listed[0].clone();
            address.address = ([127, 0, 0, 1], port).into();
            address.name = format!("host@127.0.0.1:{port}");
            listed.push(address);
        }
        let snapshot = Arc::new(second.with_backends(web.id, &listed));
        Known { snapshot, removed: vec![("api".into(), gone)] }
    }

    #[test]
    fn a_name_stands_for_all_that_have_it_or_had_it() {
        let known = known();
        let ports = |found: Result<Arc<[BackendId]>, Problem>| -> Result<Vec<u16>, String> {
            let ids = found.map_err(|problem| format!("{problem:?}"))?;
            let address = |id: &BackendId| {
                let (_, backend) = known.all().find(|(_, backend)| backend.id == *id).expect("it is known");
                let crate::base::address::Address::Ip(address) = backend.address;
                address.port()
            };
            Ok(ids.iter().map(address).collect())
        };
        for (pool, name, expected) in [
            ("web", "a", &[1][..]),
            ("web", "host", &[2, 3]),
            ("web", "host@127.0.0.1:3", &[3]),
            ("api", "a", &[4, 5]),
        ] {
            assert_eq!(ports(known.named(pool, name)).as_deref(), Ok(expected), "{pool}/{name}");
        }
        assert_eq!(ports(known.named_anywhere("host")).as_deref(), Ok(&[2, 3][..]));
        assert_eq!(ports(known.matching("*", "*/a")).as_deref(), Ok(&[1, 4, 5][..]));
        for (found, expected) in [
            (known.named("web", "hots"), "pool \\\"web\\\" has no backend \\\"hots\\\""),
            (known.named("wbe", "a"), "there is no pool \\\"wbe\\\", did you mean \\\"web\\\"?"),
            (known.named_anywhere("a"), "several pools have \\\"a\\\", name the pool"),
            (known.named_anywhere("x"), "no pool has a backend \\\"x\\\""),
        ] {
            let refused = ports(found).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
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
