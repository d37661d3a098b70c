//! Counters that are shown from a time on.

use axum::extract::{Extension, State};

use super::context::Context;
use super::extract::{Answer, Json};
use super::guard::Peer;
use super::problem::Problem;
use crate::api;
use crate::messages::request::{self, Named, Request, Scope};

/// Clears the counters that are shown, of all or of the backends of one pool
///
/// The counters themselves, the metrics and the invariants continue: `cleared` of `/v1/status` and `/v1/backends` has
/// what they were, and `l4lb ctl` and the page show the difference. Forgotten when the process ends.
#[utoipa::path(
    post, path = "/v1/counters/clear", request_body = api::ClearScope,
    responses(
        (status = OK, body = api::CountersCleared),
        (status = NOT_FOUND, body = api::Problem),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
pub(super) async fn clear(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Json(api::ClearScope { pool, backend }): Json<api::ClearScope>,
) -> Answer<api::CountersCleared> {
    let scope = match (pool, backend) {
        (None, None) => Scope::All,
        (Some(pool), None) => Scope::Pool(pool),
        (Some(pool), Some(backend)) => Scope::Backend(Named { pool, backend }),
        (None, Some(_)) => return Err(Problem::bad("backend: goes with pool, which is missing")),
    };
    let done = context.ask(who, |reply| Request::ClearCounters { scope, reply }).await?;
    let request::CountersCleared { since, backends } = done.result;
    Ok(Json(api::CountersCleared { since, backends: backends as u64 }))
}
