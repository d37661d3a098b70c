//! The end of the process, as an operator asks for it.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::header::{CONNECTION, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::context::Context;
use super::extract::Json;
use super::farewell::Farewell;
use super::guard::Peer;
use super::problem::Problem;
use crate::api;
use crate::messages::request::{self, Done, Request};

/// Goes with an answer before which the process must not end. The connection ends behind it.
pub(super) type Last = Arc<Farewell>;

/// Ends the process: drains as SIGTERM does, or resets all sessions at once
///
/// The answer comes before the end. A repeated request without `now` changes nothing.
#[utoipa::path(
    post, path = "/v1/stop", request_body = api::Stop,
    responses(
        (status = OK, body = api::Stopping),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
pub(super) async fn stop(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Json(wanted): Json<api::Stop>,
) -> Result<Response, Problem> {
    let last: Last = Arc::new(context.farewells.begin());
    let done = context.ask(who, |reply| Request::Stop { now: wanted.now, reply }).await?;
    let Done { result: request::Stopping { drains_in, cut_in }, .. } = done;
    let (stage, workers) = {
        let state = context.view.state();
        (state.stage, Arc::clone(&state.workers))
    };
    let stopping = api::Stopping {
        pid: std::process::id(),
        stage,
        sessions: workers.sessions(),
        drains_in: drains_in.map(|left| left.as_secs_f64()),
        cut_in: cut_in.as_secs_f64(),
    };
    let mut answer = Json(stopping).into_response();
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer.extensions_mut().insert(last);
    Ok(answer)
}
