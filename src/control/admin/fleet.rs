//! The fleet as this balancer sees it.

use std::collections::BTreeMap;

use axum::extract::State;
use jiff::Timestamp;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::context::Context;
use super::extract::{Answer, Json};
use super::problem::Problem;
use crate::api;
use crate::control::View;
use crate::fleet::known::Disagreement;
use crate::fleet::record::{Balancer, Pool};
use crate::pool::Snapshot;
use crate::sys::timestamp;

/// Backends of which the answer says how balancers see them.
const DISAGREEMENTS_MAX: usize = 100;

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(fleet))
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

fn row(view: &View, snapshot: &Snapshot, name: &str) -> api::Fleet {
    // The thread of the fleet must not wait while they are compared.
    let (known, is_kept, failing, lost) = {
        let fleet = view.fleet();
        (fleet.known.clone(), fleet.is_kept, fleet.failing.clone(), fleet.lost.clone())
    };
    let usual = known.usual_config().unwrap_or_default();
    let now = timestamp();
    let balancers = known.balancers().map(|(name, record)| balancer(name, record, usual, now)).collect();
    let backends = |pool: &crate::pool::Pool| {
        pool.backends.iter().map(|backend| (backend.name.clone(), backend.address.to_string())).collect()
    };
    let pools = snapshot.pools.iter().map(|pool| (pool.settings.name.clone(), backends(pool))).collect();
    let (disagreements, count) = known.disagreements(&pools, DISAGREEMENTS_MAX);
    let failing_row = |(reason, since): (String, Timestamp)| api::Failing { since, reason };
    api::Fleet {
        name: name.to_owned(),
        published: is_kept && failing.is_none(),
        failing: failing.map(failing_row),
        lost: lost.map(failing_row),
        balancers,
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
