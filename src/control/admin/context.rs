//! The state that every route works with, and the control thread that makes changes for them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use tokio::sync::{Semaphore, oneshot};

use super::checkers::Checkers;
use super::extract::{Answer, Json};
use super::farewell::Farewells;
use super::guard::Peer;
use super::problem::Problem;
use super::resolve::Resolvers;
use super::rows;
use super::scrape::Scraper;
use crate::api;
use crate::base::nearest::did_you_mean;
use crate::control::View;
use crate::messages::report::{Report, Reports};
use crate::messages::request::{Ask, Done, Named, Reply, Request};

pub(super) const BODY_LEN_MAX: usize = 64 * 1024;
/// Limit for an answer of the control thread.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The state that every route works with.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) view: Arc<View>,
    pub(super) scraper: Arc<Scraper>,
    pub(super) reports: Reports,
    pub(super) streams: Arc<Semaphore>,
    pub(super) resolvers: Resolvers,
    pub(super) checkers: Checkers,
    pub(super) farewells: Farewells,
}

impl Context {
    /// Sends a request to the control thread, and waits for its answer.
    pub(super) async fn ask<T>(
        &self,
        who: Peer,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<Done<T>, Problem> {
        let unavailable = |what: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, what);
        let (reply, answer) = oneshot::channel();
        if !self.reports.try_send(Report::Ask(Ask { who: who.to_string(), request: request(reply) })) {
            return Err(unavailable("the control thread has too much to do"));
        }
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(_)) => Err(unavailable("the process is stopping")),
            Err(_) => {
                Err(unavailable("the control thread has not answered in time; the change may still come"))
            }
        }
    }

    /// Returns the backend after a change.
    pub(super) fn changed(&self, named: &Named, not_saved: Option<String>) -> Answer<api::Changed> {
        let Json(backend) = self.backend(named)?;
        Ok(Json(api::Changed { backend, not_saved }))
    }

    /// Returns the row of a backend.
    pub(super) fn backend(&self, named: &Named) -> Answer<api::Backend> {
        let state = self.view.state();
        let pool = rows::pool_named(&state, &named.pool)?;
        let index = pool.backends.iter().position(|backend| backend.name == named.backend);
        let now = self.view.clock.now();
        let row = match index {
            Some(index) => Some(rows::backend(&state, now, pool, index)),
            None => rows::host(&state, now, pool, &named.backend),
        };
        let missing = || {
            let known = pool.backends.iter().map(|backend| backend.name.as_str());
            let hint = did_you_mean(&named.backend, known);
            Problem::not_found(format!("{named} does not exist{hint}"))
        };
        row.map(Json).ok_or_else(missing)
    }
}

/// Adds the fallbacks; `hint` names the routes.
pub(super) fn finish(routes: Router<Context>, context: Context, hint: &'static str) -> Router {
    routes
        .fallback(async move || Problem::not_found(format!("no such route: {hint}")))
        .method_not_allowed_fallback(async move || {
            let what = format!("this route has no such method: {hint}");
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, what)
        })
        .layer(axum::extract::DefaultBodyLimit::max(BODY_LEN_MAX))
        .with_state(context)
}

#[cfg(test)]
pub(super) mod tests {
    use std::thread;

    use super::*;

    /// Returns the context of a process without listeners, pools and workers, with a control thread that is stopping.
    pub(in crate::control::admin) fn context() -> Context {
        let (reports, inbox) = Reports::new();
        thread::spawn(move || while let Ok(Report::Ask(_)) = inbox.recv() {});
        let streams = Arc::new(Semaphore::new(1));
        let view = Arc::new(View::of_nothing());
        let scraper = Arc::new(Scraper::start(Arc::clone(&view)).unwrap());
        let resolvers = Resolvers::start().expect("threads");
        let checkers = Checkers::start(drop).expect("threads");
        Context { view, scraper, reports, streams, resolvers, checkers, farewells: Farewells::default() }
    }
}
