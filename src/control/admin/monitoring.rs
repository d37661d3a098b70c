//! Routes for programs that know no OpenAPI: the metrics, and whether the process serves.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::context::{Context, finish};
use super::extract::Query;
use super::problem::Problem;
use super::{guard, rows};
use crate::api;
use crate::control::metrics;
use crate::control::readiness::why_not_ready;

/// Returns the routes of the metrics address. At an address of the network any client may read them, under any name; at
/// a loopback address only this machine, and no page that its browser got elsewhere.
pub(super) fn alone(context: Context, address: SocketAddr) -> Router {
    let view = Arc::clone(&context.view);
    let routes = Router::new().route("/metrics", get(recent_metrics)).merge(probes());
    let routes = finish(routes, context, "this address serves /metrics, /health and /ready");
    if address.ip().to_canonical().is_loopback() {
        routes.layer(middleware::from_fn_with_state(view, guard::check_host))
    } else {
        routes
    }
}

/// Returns the routes for programs that know no OpenAPI.
pub(super) fn routes() -> Router<Context> {
    Router::new().route("/metrics", get(metrics)).merge(probes())
}

fn probes() -> Router<Context> {
    Router::new().route("/health", get(health)).route("/ready", get(ready))
}

/// All metrics, for Prometheus
async fn metrics(State(context): State<Context>) -> Response {
    answer_scrape(context.scraper.now().await)
}

/// The same for every client of the metrics address, so with a bound on the cost
async fn recent_metrics(State(context): State<Context>) -> Response {
    answer_scrape(context.scraper.recent().await)
}

fn answer_scrape(scrape: Result<Bytes, Problem>) -> Response {
    scrape.map(|text| ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text)).into_response()
}

/// Whether the process is alive: 200 until its end, so that no restart cuts the sessions that it finishes
async fn health(State(context): State<Context>) -> &'static str {
    match context.view.state().stage {
        api::Stage::Serving => "serving\n",
        api::Stage::Draining => "draining\n",
        api::Stage::Stopping => "stopping\n",
    }
}

/// Whether clients should be sent here: 503 while it drains, and while every client would be reset
async fn ready(
    State(context): State<Context>,
    Query(wanted): Query<api::ReadyFilter>,
) -> Result<(StatusCode, String), Problem> {
    let state = context.view.state();
    let pool = wanted.pool.as_deref().map(|name| rows::pool_named(&state, name)).transpose()?;
    Ok(match why_not_ready(&state, pool) {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::control::admin::context::tests::context;

    /// Returns the status and body of an answer of the metrics address, for a client that names `host`.
    async fn ask(routes: &Router, path: &str, host: &str) -> (StatusCode, String) {
        let request = Request::get(path).header("host", host).body(Body::empty()).unwrap();
        let answer = routes.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn clients_of_the_metrics_address_share_one_scrape_a_second() {
        let routes = alone(context(), ([127, 0, 0, 1], 9902).into());
        let (status, first) = ask(&routes, "/metrics", "localhost").await;
        assert_eq!(status, StatusCode::OK);
        assert!(first.contains("l4lb_scrape_seconds "), "{first}");
        // A scrape contains its own cost, so another one would differ. All of them take less than a second, or some do
        // not share.
        let mut shared = 0;
        for _ in 0..10 {
            shared += u32::from(ask(&routes, "/metrics", "localhost").await.1 == first);
        }
        assert!(shared > 0);
    }

    #[tokio::test]
    async fn the_metrics_address_names_what_it_serves_and_is_pinned_to_this_machine_on_loopback() {
        let (loopback, any) = (([127, 0, 0, 1], 9902).into(), ([0, 0, 0, 0], 9902).into());
        for (address, path, host, expected) in [
            (loopback, "/metrics", "localhost:9902", StatusCode::OK),
            (loopback, "/health", "127.0.0.1", StatusCode::OK),
            (loopback, "/metrics", "evil.example", StatusCode::FORBIDDEN),
            (any, "/metrics", "lb1.example:9902", StatusCode::OK),
            (any, "/nope", "lb1.example:9902", StatusCode::NOT_FOUND),
            (any, "/openapi.json", "lb1.example:9902", StatusCode::NOT_FOUND),
        ] {
            let (status, body) = ask(&alone(context(), address), path, host).await;
            assert_eq!(status, expected, "{path} {host}");
            let expected = body.contains("this address serves /metrics, /health and /ready")
                && !body.contains("openapi");
            assert_eq!(expected, status == StatusCode::NOT_FOUND, "{body}");
        }
    }
}
