//! The routes, each with its place in the OpenAPI document.

use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::get;
use log::LevelFilter;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::context::{Context, finish};
use super::extract::{Answer, Json, Path, Query, check_limit};
use super::guard::{self, Guard, Peer};
use super::problem::Problem;
use super::token::Access;
use super::wanted::Wanted;
use super::{
    access, changes, check_now, counters, discovery, fleet, monitoring, page, reloads, rows, sessions, stop,
    stream,
};
use crate::api;
use crate::base::time::Instant;
use crate::config::Target;
use crate::control::readiness::why_not_ready;
use crate::logging;
use crate::messages::request::{Done, Named, NewBackend, Request};

/// Answers that any route may give.
const COMMON_ANSWERS: [(&str, &str); 4] = [
    ("400", "The request is malformed."),
    ("401", "Over TCP the token has to be shown, and the right one."),
    (
        "403",
        "Over TCP only names and pages of this machine are let in, and the read-only token permits no changes.",
    ),
    ("408", "The request took too long to come."),
];
/// Further answers of routes with a body.
const ANSWERS_TO_BODIES: [(&str, &str); 3] = [
    ("413", "The body is longer than 64 KiB."),
    ("415", "The body has to say that it is JSON: Content-Type: application/json."),
    ("422", "The body is JSON, but not what is wanted here."),
];
#[derive(OpenApi)]
#[openapi(
    info(title = "l4lb admin API", description = "What l4lb does, and changes to it while it runs."),
    modifiers(&Bearer),
    security(("token" = [])),
)]
struct Document;

/// Over TCP a token must be presented; the unix socket needs none.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// Adds the answers that any route may give, so that no route must list them: for a client without a token or from
/// elsewhere, a path that is no text, a body that does not arrive or is invalid.
fn with_common_answers(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let problem = || {
        let schema = utoipa::openapi::Ref::from_schema_name("Problem");
        let content = ContentBuilder::new().schema(Some(schema)).build();
        ResponseBuilder::new().content("application/json", content)
    };
    for path in document.paths.paths.values_mut() {
        let operations = [&mut path.get, &mut path.post, &mut path.put, &mut path.patch, &mut path.delete];
        for operation in operations.into_iter().flatten() {
            let answers = &mut operation.responses.responses;
            let too_long =
                ResponseBuilder::new().description("The head is too long; there are no words for it.");
            answers.insert("431".to_owned(), too_long.build().into());
            let to_bodies: &[_] = if operation.request_body.is_some() { &ANSWERS_TO_BODIES } else { &[] };
            for &(status, description) in COMMON_ANSWERS.iter().chain(to_bodies) {
                let answer = || problem().description(description).build().into();
                answers.entry(status.to_owned()).or_insert_with(answer);
            }
        }
    }
    document
}

fn documented() -> OpenApiRouter<Context> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(status))
        .routes(routes!(listeners))
        .routes(routes!(changes::listen))
        .routes(routes!(pools))
        .routes(routes!(backends, changes::change_set))
        .routes(routes!(register))
        .routes(routes!(backend, changes::change, deregister))
        .routes(routes!(changes::override_health))
        .routes(routes!(check_now::check))
        .routes(routes!(events))
        .routes(routes!(stream::event_stream))
        .routes(routes!(stream::sample_stream))
        .routes(routes!(history))
        .routes(routes!(topology))
        .routes(routes!(reloads::config))
        .routes(routes!(reloads::config_toml))
        .routes(routes!(reloads::diff))
        .routes(routes!(reloads::reload))
        .routes(routes!(reloads::dismiss))
        .routes(routes!(reloads::drains))
        .routes(routes!(sessions::sessions))
        .routes(routes!(sessions::kill))
        .routes(routes!(sessions::kill_all))
        .routes(routes!(sessions::explain))
        .routes(routes!(log_level, set_log_level))
        .routes(routes!(counters::clear))
        .routes(routes!(stop::stop))
        .routes(routes!(ready_fail, set_ready_fail))
        .merge(access::routes())
        .merge(discovery::routes())
        .merge(fleet::routes())
}

/// Returns the OpenAPI document of all routes.
pub fn openapi() -> utoipa::openapi::OpenApi {
    with_common_answers(documented().into_openapi())
}

/// Returns all routes, and the page; with `guard` only for clients with a token, and only for this machine's own pages.
pub(super) fn all(context: Context, guard: Option<Guard>) -> Router {
    let (routes, document) = documented().split_for_parts();
    let document = with_common_answers(document);
    let routes =
        routes.route("/openapi.json", get(async || axum::Json(document))).merge(monitoring::routes());
    // Around the fallbacks too: a client without access must not learn which routes exist.
    let routes = finish(routes, context, "see /openapi.json");
    match guard {
        None => routes.merge(page::routes()),
        Some(guard) => routes
            .layer(middleware::from_fn_with_state(guard.clone(), guard::check_token))
            .merge(page::routes())
            .layer(middleware::from_fn_with_state(guard.view, guard::check_host)),
    }
}

/// Process status
#[utoipa::path(get, path = "/v1/status", responses((status = OK, body = api::Status)))]
async fn status(State(context): State<Context>, access: Option<Extension<Access>>) -> Json<api::Status> {
    let view = &context.view;
    let state = view.state();
    Json(api::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: view.started,
        uptime: view.clock.now().since(Instant::default()).as_secs_f64(),
        stage: state.stage,
        not_ready: why_not_ready(&state, None),
        epoch: state.snapshot.epoch,
        workers: rows::workers(&state.workers),
        totals: rows::totals(&state.workers),
        reload: rows::reload(&state.reload),
        restart_pending: rows::restart_pending(&state),
        announce: rows::announce(&state),
        log_lines_dropped: logging::dropped(),
        state_file_failures: view
            .state_writes
            .get()
            .map_or(0, |writes| writes.failed.load(Ordering::Relaxed)),
        not_saved: rows::not_saved(view),
        // The unix socket has no tokens, and its clients may do everything.
        may_change: access.is_none_or(|Extension(access)| access == Access::Full),
        cleared: rows::cleared(&state),
    })
}

/// Addresses that clients connect to
#[utoipa::path(get, path = "/v1/listeners", responses((status = OK, body = [api::Listener])))]
async fn listeners(State(context): State<Context>) -> Json<Vec<api::Listener>> {
    Json(rows::listeners(&context.view.state()))
}

/// All pools
#[utoipa::path(get, path = "/v1/pools", responses((status = OK, body = [api::Pool])))]
async fn pools(State(context): State<Context>) -> Json<Vec<api::Pool>> {
    Json(context.view.state().snapshot.pools.iter().map(|pool| rows::pool(pool)).collect())
}

/// Backends of one pool, or of all
#[utoipa::path(
    get, path = "/v1/backends", params(api::BackendFilter),
    responses(
        (status = OK, body = [api::Backend]),
        (status = NOT_FOUND, body = api::Problem),
    ),
)]
async fn backends(
    State(context): State<Context>,
    Query(filter): Query<api::BackendFilter>,
) -> Answer<Vec<api::Backend>> {
    let state = context.view.state();
    if let Some(pool) = &filter.pool {
        rows::pool_named(&state, pool)?;
    }
    Ok(Json(rows::backends(&state, context.view.clock.now(), filter.pool.as_deref())))
}

/// Registers a backend, or renews its lease
#[utoipa::path(
    post, path = "/v1/pools/{pool}/backends", params(("pool" = String, Path)), request_body = api::NewBackend,
    responses(
        (status = CREATED, description = "Created, or back with its remaining sessions.", body = api::Registered),
        (status = OK, description = "Its lease was renewed.", body = api::Registered),
        (status = NOT_FOUND, description = "The pool or the lease does not exist.", body = api::Problem),
        (status = CONFLICT, description = "It is registered otherwise, or by other holders.", body = api::Problem),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
async fn register(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Path(pool): Path<String>,
    Json(new): Json<api::NewBackend>,
) -> Result<(StatusCode, Json<api::Registered>), Problem> {
    let backend = new_backend(&context, new).await?;
    let named = Named { pool: pool.clone(), backend: backend.name.clone() };
    let done = context.ask(who, |reply| Request::Register { pool, backend, reply }).await?;
    let Done { result: registered, not_saved } = done;
    let status = if registered.is_new { StatusCode::CREATED } else { StatusCode::OK };
    let Json(backend) = context.backend(&named)?;
    Ok((status, Json(api::Registered { backend, holder: registered.holder, not_saved })))
}

/// Returns a valid backend; its host is resolved without delaying other requests.
async fn new_backend(context: &Context, new: api::NewBackend) -> Result<NewBackend, Problem> {
    let wanted = Wanted::check(new).map_err(Problem::bad)?;
    let address = match wanted.target.clone() {
        Target::Address(address) => address,
        target @ Target::Host { .. } => context.resolvers.resolve(target).await?,
    };
    Ok(wanted.at(address))
}

/// One backend by name
#[utoipa::path(
    get, path = "/v1/pools/{pool}/backends/{backend}", params(("pool" = String, Path), ("backend" = String, Path)),
    responses((status = OK, body = api::Backend), (status = NOT_FOUND, body = api::Problem)),
)]
async fn backend(
    State(context): State<Context>,
    Path((pool, backend)): Path<(String, String)>,
) -> Answer<api::Backend> {
    context.backend(&Named { pool, backend })
}

/// Removes a backend, or ends one of its leases
///
/// A removed backend gets no new sessions; `on_remove` of its pool decides about the open ones.
#[utoipa::path(
    delete, path = "/v1/pools/{pool}/backends/{backend}",
    params(("pool" = String, Path), ("backend" = String, Path), api::HolderFilter),
    responses(
        (status = OK, description = "Removed, unless other holders keep it.", body = api::Removed),
        (status = NOT_FOUND, body = api::Problem),
        (status = CONFLICT, description = "The holder has no lease.", body = api::Problem),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
async fn deregister(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Path((pool, backend)): Path<(String, String)>,
    Query(api::HolderFilter { holder }): Query<api::HolderFilter>,
) -> Answer<api::Removed> {
    let backend = Named { pool, backend };
    let done = context.ask(who, |reply| Request::Deregister { backend, holder, reply }).await?;
    let Done { result: left, not_saved } = done;
    Ok(Json(api::Removed { sessions: left.sessions.into(), removed: left.is_removed, not_saved }))
}

/// Recent events
#[utoipa::path(
    get, path = "/v1/events", params(api::EventFilter),
    responses((status = OK, body = [api::Event])),
)]
async fn events(
    State(context): State<Context>,
    Query(filter): Query<api::EventFilter>,
) -> Answer<Vec<api::Event>> {
    let limit = check_limit(filter.limit)?;
    if filter.after.is_some_and(|after| i64::try_from(after).is_err()) {
        return Err(Problem::bad(format!("after: must be 0..={}", i64::MAX)));
    }
    let events = &context.view.events;
    let is_audit = filter.audit.unwrap_or(false);
    Ok(Json(if is_audit {
        events.recently_asked(filter.after, limit)
    } else {
        events.recent(filter.after, limit)
    }))
}

/// The last five minutes, second by second, and the latest events
#[utoipa::path(get, path = "/v1/history", responses((status = OK, body = api::History)))]
async fn history(State(context): State<Context>) -> Json<api::History> {
    let view = &context.view;
    let minutes = view.recent().minutes();
    let snapshot = view.state().snapshot.clone();
    Json(minutes.history(&snapshot, view.events.recent(None, api::PAGE_LEN as usize)))
}

/// Shares of new sessions per backend
#[utoipa::path(get, path = "/v1/topology", responses((status = OK, body = api::Topology)))]
async fn topology(State(context): State<Context>) -> Json<api::Topology> {
    let snapshot = context.view.state().snapshot.clone();
    Json(rows::topology(&snapshot))
}

/// The level of the log
#[utoipa::path(get, path = "/v1/log-level", responses((status = OK, body = api::LogLevel)))]
async fn log_level() -> Json<api::LogLevel> {
    Json(api::LogLevel { level: log::max_level().as_str().to_ascii_lowercase() })
}

/// Whether the process was set to be not ready
#[utoipa::path(get, path = "/v1/ready-fail", responses((status = OK, body = api::ReadyFail)))]
async fn ready_fail(State(context): State<Context>) -> Json<api::ReadyFail> {
    Json(api::ReadyFail { fail: context.view.state().ready_fail.is_some() })
}

/// Makes /ready answer 503, or ends that; sessions are served as before
#[utoipa::path(
    put, path = "/v1/ready-fail", request_body = api::ReadyFail,
    responses(
        (status = OK, body = api::ReadyFail),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
async fn set_ready_fail(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Json(wanted): Json<api::ReadyFail>,
) -> Answer<api::ReadyFail> {
    context.ask(who, |reply| Request::ReadyFail { fail: wanted.fail, reply }).await?;
    Ok(Json(wanted))
}

/// Sets the level of the log until the process ends
#[utoipa::path(
    put, path = "/v1/log-level", request_body = api::LogLevel,
    responses(
        (status = OK, body = api::LogLevel),
        (status = SERVICE_UNAVAILABLE, body = api::Problem),
    ),
)]
async fn set_log_level(
    State(context): State<Context>,
    Extension(who): Extension<Peer>,
    Json(wanted): Json<api::LogLevel>,
) -> Answer<api::LogLevel> {
    let words = "level: must be one of off, error, warn, info, debug, trace";
    let known = LevelFilter::iter().find(|level| level.as_str().to_ascii_lowercase() == wanted.level);
    let level = known.ok_or_else(|| Problem::bad(words))?;
    context.ask(who, |reply| Request::LogLevel { level, reply }).await?;
    Ok(log_level().await)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request as HttpRequest;
    use tower::ServiceExt;

    use super::*;
    use crate::control::admin::context::BODY_LEN_MAX;
    use crate::control::admin::context::tests::context;
    use crate::control::admin::work::Work;

    /// Returns the routes of a process without listeners, pools and workers, with a control thread that is stopping.
    fn routes() -> Router {
        all(context(), None)
            .layer(Extension(Peer::Unix { uid: 0, pid: None }))
            .layer(Extension(Work::alone()))
    }

    /// Returns each method of each route of the document.
    fn operations() -> Vec<(String, String, serde_json::Value)> {
        let document = serde_json::to_value(openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap().clone();
        let methods = |methods: serde_json::Value| methods.as_object().unwrap().clone();
        let all = paths.into_iter().flat_map(|(path, of_path)| {
            methods(of_path)
                .into_iter()
                .map(move |(method, what)| (method.to_uppercase(), path.clone(), what))
        });
        all.collect()
    }

    #[test]
    fn a_weight_is_a_whole_number_as_json_means_it() {
        let weight =
            |text: &str| serde_json::from_str::<api::BackendChange>(text).map(|change| change.weight);
        for (text, expected) in [
            ("{}", None),
            (r#"{"weight":null}"#, None),
            (r#"{"weight":7}"#, Some(7)),
            (r#"{"weight":7.0}"#, Some(7)),
            (r#"{"weight":-0.0}"#, Some(0)),
        ] {
            assert_eq!(weight(text).unwrap(), expected, "{text}");
        }
        for text in [r#"{"weight":7.5}"#, r#"{"weight":-1}"#, r#"{"weight":65536}"#, r#"{"weight":"7"}"#] {
            assert!(weight(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn every_documented_route_answers_and_as_documented() {
        assert!(operations().len() > 10);
        for (method, path, what) in operations() {
            let target = path.replace("{pool}", "web").replace("{backend}", "a");
            for body in ["{}", "[", r#"{"address":":1","health":"up","level":"info"}"#] {
                let request = HttpRequest::builder().method(method.as_str()).uri(&target);
                let request =
                    request.header("content-type", "application/json").body(Body::from(body)).unwrap();
                let answer = routes().oneshot(request).await.unwrap();
                let status = answer.status();
                assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
                assert!(what["responses"].get(status.as_str()).is_some(), "{method} {path} {body}: {status}");
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_no_json_or_of_another_shape_is_refused_as_documented() {
        let long = format!("{{\"x\":\"{}\"}}", "x".repeat(BODY_LEN_MAX));
        let cases = [
            ("application/json", long.as_str(), 413),
            ("text/plain", "{}", 415),
            ("application/json", "[null,null]", 422),
            ("application/json", r#"["up"]"#, 422),
            ("application/json", r#"["info"]"#, 422),
            ("application/json", r#"[":1",null,null,false,null]"#, 422),
        ];
        let takes_body =
            |(_, _, what): &(String, String, serde_json::Value)| what.get("requestBody").is_some();
        let (taking, others): (Vec<_>, Vec<_>) = operations().into_iter().partition(takes_body);
        assert!(taking.len() > 3);
        for (method, path, what) in taking {
            let target = path.replace("{pool}", "web").replace("{backend}", "a");
            for (content_type, body, expected) in cases {
                let request = HttpRequest::builder().method(method.as_str()).uri(&target);
                let request = request.header("content-type", content_type);
                let request = request.body(Body::from(body.to_owned())).unwrap();
                let answer = routes().oneshot(request).await.unwrap();
                assert_eq!(answer.status(), expected, "{method} {path}");
                assert!(what["responses"].get(expected.to_string()).is_some(), "{method} {path}: {expected}");
            }
        }
        for (method, path, what) in others {
            assert!(what["responses"].get("413").is_none(), "{method} {path} reads no body");
        }
    }

    #[test]
    fn every_documented_answer_has_a_description_and_a_schema() {
        for (method, path, what) in operations() {
            assert!(what["summary"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}");
            let answers = what["responses"].as_object().unwrap().iter();
            for (status, answer) in answers.filter(|(status, _)| *status != "431") {
                assert!(answer["content"].is_object(), "{method} {path}: {status}");
            }
        }
    }
}
