//! The running configuration, reloads, and drains.

use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::context::Context;
use super::extract::{Answer, Json, Path};
use super::guard::{DRY_RUN, Peer};
use super::problem::Problem;
use super::rows;
use super::running::{Facts, running};
use crate::api;
use crate::messages::reload::{Mode, Refused, ReloadReport, ReloadRequest};
use crate::messages::report::Report;
use crate::messages::request::Request;

/// The routes that answer after the configuration was read, which may take longer than any other answer.
pub(super) const PATHS: [&str; 3] = [DRY_RUN, "/v1/config/reload", "/v1/acl/reload"];
/// Time from the end of `reload_timeout` until the control thread must have answered.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(5);

/// The running configuration
#[utoipa::path(get, path = "/v1/config", responses((status = OK, body = api::Config)))]
pub(super) async fn config(State(context): State<Context>) -> Json<api::Config> {
    let state = context.view.state();
    let (epoch, file) = (state.snapshot.epoch, state.file.clone());
    let effective = state.config.to_string();
    Json(api::Config { epoch, file, effective, restart_pending: rows::restart_pending(&state) })
}

/// The running state as a configuration file
///
/// Its settings, with what was changed at run time put into them: weights, backends that were added or removed. What no
/// key can express is a comment. What checks and agents have from variables, and the content of token
/// files, is not in it.
#[utoipa::path(get, path = "/v1/config/toml", responses((status = OK, body = api::ConfigToml)))]
pub(super) async fn config_toml(State(context): State<Context>) -> Json<api::ConfigToml> {
    let facts = Facts::of(&context.view.state(), log::max_level());
    let (config, remarks) = running(&facts);
    Json(api::ConfigToml { epoch: facts.epoch(), toml: config.to_toml(&remarks) })
}

/// Changes that reading the file again would make, and how many sessions they affect
#[utoipa::path(
    post, path = "/v1/config/diff",
    responses(
        (status = OK, body = api::ReloadReport),
        (status = UNPROCESSABLE_ENTITY, description = "What is wrong with the file.", body = api::Problem),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
pub(super) async fn diff(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
) -> Answer<api::ReloadReport> {
    request(&context, who, Mode::DryRun).await
}

/// Reads the file again and applies it; a mistake in it changes nothing
#[utoipa::path(
    post, path = "/v1/config/reload",
    responses(
        (status = OK, body = api::ReloadReport),
        (status = UNPROCESSABLE_ENTITY, description = "What is wrong with the file.", body = api::Problem),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
pub(super) async fn reload(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
) -> Answer<api::ReloadReport> {
    request(&context, who, Mode::Apply).await
}

/// Returns the result of a reload for that purpose.
pub(super) async fn request(context: &Context, who: Peer, mode: Mode) -> Answer<api::ReloadReport> {
    let unavailable = |what: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, what);
    let (sender, answered) = oneshot::channel();
    // The client may have gone.
    let answer = Box::new(move |report| _ = sender.send(report));
    let request =
        ReloadRequest { who: who.to_string(), source: None, mode, answer: Some(answer), listening: None };
    if !context.reports.try_send(Report::ReloadRequest(request)) {
        return Err(unavailable("the control thread has too much to do"));
    }
    let reload_timeout = context.view.state().config.global.reload_timeout;
    match tokio::time::timeout(answer_timeout(reload_timeout), answered).await {
        Ok(Ok(Ok(report))) => Ok(Json(report_row(report))),
        Ok(Ok(Err(Refused { errors, is_for_now }))) => {
            let status =
                if is_for_now { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::UNPROCESSABLE_ENTITY };
            Err(Problem::new(status, errors.join("; ")))
        }
        Ok(Err(_)) => Err(unavailable("the process is stopping")),
        Err(_) => Err(unavailable("the reload takes long; the events will report its result")),
    }
}

/// Returns how long a client may wait for the result of its request.
fn answer_timeout(reload_timeout: Duration) -> Duration {
    reload_timeout.saturating_add(VERDICT_TIMEOUT).min(api::RELOAD_ANSWER_MAX)
}

fn report_row(report: ReloadReport) -> api::ReloadReport {
    let changes = report.changes.iter().map(rows::change);
    api::ReloadReport {
        applied: report.mode.is_applied(),
        epoch: report.epoch,
        changes: changes.collect(),
        notes: report.notes,
    }
}

/// Dismisses the last reload, which was refused: the dashboard and top no longer show it
#[utoipa::path(
    delete, path = "/v1/config/refusals/{number}", params(("number" = u64, Path)),
    responses(
        (status = OK, body = api::Reload),
        (status = NOT_FOUND, body = api::Problem),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
pub(super) async fn dismiss(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Path(number): Path<u64>,
) -> Answer<api::Reload> {
    context.ask(who, |reply| Request::Dismiss { number, reply }).await?;
    Ok(Json(rows::reload(&context.view.state().reload)))
}

/// Drains in progress, and how far they are
#[utoipa::path(get, path = "/v1/drains", responses((status = OK, body = api::Drains)))]
pub(super) async fn drains(State(context): State<Context>) -> Json<api::Drains> {
    let view = &context.view;
    Json(rows::drains(&view.state(), view.clock.now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit was 25 s where a file may take 30 s to read: the answer came before there was a result.
    #[test]
    fn a_client_waits_for_longer_than_reading_may_take_but_not_for_ever() {
        for seconds in [1, 30, 300] {
            let reload_timeout = Duration::from_secs(seconds);
            assert!(answer_timeout(reload_timeout) > reload_timeout, "{seconds} s");
        }
        assert_eq!(answer_timeout(Duration::MAX), api::RELOAD_ANSWER_MAX);
    }
}
