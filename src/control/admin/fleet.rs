//! The fleet as this balancer sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use tokio::sync::oneshot;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::changes::set_of;
use super::context::Context;
use super::extract::{Answer, Json};
use super::guard::Peer;
use super::problem::Problem;
use crate::api;
use crate::base::glob;
use crate::control::View;
use crate::control::fleet::seen::Order;
use crate::fleet::known::{Disagreement, OwnPool};
use crate::fleet::record::{Balancer, Pool, State as FleetState, Wanted};
use crate::messages::request::{Named, Request};
use crate::pool::Snapshot;
use crate::sys::timestamp;

/// Backends of which the answer says how balancers see them.
const DISAGREEMENTS_MAX: usize = 100;

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(fleet, change))
}

/// All balancers of the fleet, and the backends on which they disagree
#[utoipa::path(
    get, path = "/v1/fleet",
    responses((status = OK, body = api::Fleet), (status = NOT_FOUND, body = api::Problem)),
)]
async fn fleet(State(context): State<Context>) -> Answer<api::Fleet> {
    let view = &context.view;
    let state = view.state();
    let (snapshot, config) = (state.snapshot.clone(), state.config.clone());
    drop(state);
    let none = || Problem::not_found("this balancer is in no fleet: the configuration has no [fleet]");
    let settings = config.fleet.as_ref().ok_or_else(none)?;
    Ok(Json(row(view, &snapshot, &settings.name)))
}

/// Sets the administrative state of backends on all balancers
///
/// It stays until `ready` is set in the same way: each balancer puts it in force, also after a restart, over what was set on
/// it alone. The answer comes once etcd has it; `GET /v1/fleet` shows where it is in force.
#[utoipa::path(
    patch, path = "/v1/fleet", request_body = api::FleetChange,
    responses(
        (status = OK, body = api::FleetChanged),
        (status = NOT_FOUND, description = "There is no fleet, a name is unknown, or a pattern matches nothing.", body = api::Problem),
        (status = CONFLICT, description = "A pool would lose its last eligible backend.", body = api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "etcd does not take it.", body = api::Problem),
    ),
)]
async fn change(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Json(wanted): Json<api::FleetChange>,
) -> Answer<api::FleetChanged> {
    let unavailable = |what: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, what);
    let (name, orders, is_read) = {
        let fleet = context.view.fleet();
        (fleet.name.clone(), fleet.orders.clone(), fleet.is_read)
    };
    let none = || Problem::not_found("this balancer is in no fleet: the configuration has no [fleet]");
    let (name, orders) = name.zip(orders).ok_or_else(none)?;
    if !is_read {
        return Err(unavailable("the fleet was not read yet".into()));
    }
    let by = format!("{who} at {name}");
    let backends = chosen(&context, who, &wanted).await?;
    let wanted = match wanted.admin {
        api::Admin::Ready => None,
        api::Admin::Drain => Some(FleetState::Drain),
        api::Admin::Maint => Some(FleetState::Maint),
    };
    let wanted = wanted.map(|admin| Wanted { admin, by, since: timestamp() });
    let names = backends.iter().map(|named| format!("{}/{}", named.pool, named.backend)).collect();
    let (reply, answer) = oneshot::channel();
    let sent = orders.try_send(Order { backends, wanted, reply });
    sent.map_err(|_| unavailable("too many changes are on their way to etcd".into()))?;
    let done = answer.await.map_err(|_| unavailable("the fleet has just changed: ask again".into()))?;
    done.map_err(|why| unavailable(format!("etcd does not take it: {why}")))?;
    Ok(Json(api::FleetChanged { backends: names }))
}

/// Returns the backends that a change selects, by the rules of a change on this balancer alone. What is wanted already can
/// be ended where this balancer has the backend no more.
async fn chosen(context: &Context, who: Peer, change: &api::FleetChange) -> Result<Vec<Named>, Problem> {
    if change.admin == api::Admin::Ready {
        let fleet = context.view.fleet();
        let known = |name: &String| {
            let (pool, backend) = name.split_once('/')?;
            let key = (pool.to_owned(), backend.to_owned());
            fleet.known.wanted().contains_key(&key).then_some(Named { pool: key.0, backend: key.1 })
        };
        let all: Option<Vec<Named>> = change.backends.iter().map(known).collect();
        if let Some(all) = all.filter(|all| !all.is_empty()) {
            return Ok(all);
        }
    }
    let wanted = api::BackendsChange {
        backends: change.backends.clone(),
        admin: Some(change.admin),
        // One backend by its name may be the last one.
        force: change.force || matches!(&change.backends[..], [only] if !glob::is_pattern(only)),
        dry_run: true,
        ..api::BackendsChange::default()
    };
    let (set, _) = set_of(wanted).map_err(Problem::bad)?;
    let done = context.ask(who, |reply| Request::ChangeSet { set, reply }).await?;
    Ok(done.result.into_iter().map(|changed| changed.backend).collect())
}

fn row(view: &View, snapshot: &Snapshot, name: &str) -> api::Fleet {
    // The thread of the fleet must not wait while they are compared.
    let (known, is_kept, failing, lost) = {
        let fleet = view.fleet();
        (Arc::clone(&fleet.known), fleet.is_kept, fleet.failing.clone(), fleet.lost.clone())
    };
    let usual = known.usual_config().unwrap_or_default();
    let now = timestamp();
    let balancers = known.balancers().map(|(name, record)| balancer(name, record, usual, now)).collect();
    let own = |pool: &crate::pool::Pool| {
        OwnPool::new(pool.backends.iter().map(|backend| (backend.name.clone(), backend.address.to_string())))
    };
    let pools: BTreeMap<String, OwnPool> =
        snapshot.pools.iter().map(|pool| (pool.settings.name.clone(), own(pool))).collect();
    let none = OwnPool::new([]);
    let wanted = known.wanted().iter().map(|((pool, backend), wanted)| {
        let states = known.states_of(pool, pools.get(pool).unwrap_or(&none), backend);
        let names = |is_done: bool| {
            let is_so = |state: &Option<FleetState>| (*state == Some(wanted.admin)) == is_done;
            states.iter().filter(|(_, state)| is_so(state)).map(|(name, _)| (*name).to_owned()).collect()
        };
        api::FleetWanted {
            pool: pool.clone(),
            backend: backend.clone(),
            admin: if wanted.admin == FleetState::Maint { api::Admin::Maint } else { api::Admin::Drain },
            by: wanted.by.clone(),
            since: wanted.since,
            done: names(true),
            pending: names(false),
        }
    });
    let (disagreements, count) = known.disagreements(&pools, DISAGREEMENTS_MAX);
    let failing_row = |(reason, since): (String, Timestamp)| api::Failing { since, reason };
    api::Fleet {
        name: name.to_owned(),
        published: is_kept && failing.is_none(),
        failing: failing.map(failing_row),
        lost: lost.map(failing_row),
        balancers,
        wanted: wanted.collect(),
        disagreements: disagreements.into_iter().map(disagreement).collect(),
        disagreements_total: count as u64,
    }
}

fn balancer(name: &str, record: &Balancer, usual: &str, now: Timestamp) -> api::Balancer {
    let pool = |(name, pool): (&String, &Pool)| {
        let Pool { backends, eligible, up, .. } = *pool;
        (name.clone(), api::FleetPool { backends, up, eligible })
    };
    api::Balancer {
        name: name.to_owned(),
        version: record.version.clone(),
        started: record.started,
        stage: record.stage.clone(),
        not_ready: record.not_ready.clone(),
        alone: record.alone.clone(),
        config: record.config.clone(),
        differs: record.config != usual,
        // Clocks may differ.
        age: now.duration_since(record.written).as_secs_f64().max(0.0),
        sessions: record.sessions,
        rate: record.rate,
        listeners: record.listeners.clone(),
        pools: record.pools.iter().map(pool).collect(),
    }
}

fn disagreement(found: Disagreement) -> api::Disagreement {
    let Disagreement { pool, backend, states } = found;
    let states: BTreeMap<String, Vec<String>> = states
        .into_iter()
        .map(|(state, names)| (state.as_str().to_owned(), names.into_iter().collect()))
        .collect();
    api::Disagreement { pool, backend, states }
}
