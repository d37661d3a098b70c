//! Runs the checks of backends for operators. Like the resolution of names this has threads of its own, which are started
//! with the process: neither the control thread nor another request waits for a backend.

use std::io;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::problem::Problem;
use crate::config::fd_budget::OPERATOR_CHECKS_MAX;
use crate::control::Standby;
use crate::messages::check_now::{CheckNow, Found, Subject};

/// Requests that may wait for one of them.
const WAITING_MAX: usize = 4;
/// The checks of a request end within this time, the wait for their turn included: sooner than `l4lb ctl` gives up.
pub(super) const TIME_MAX: Duration = Duration::from_secs(20);
/// How much longer an answer may be on its way.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the checks of an order on the present thread, and answers it.
pub type RunChecks = fn(CheckNow);

/// The threads that run checks.
#[derive(Clone)]
pub(super) struct Checkers {
    threads: Standby,
    run: RunChecks,
}

impl Checkers {
    pub(super) fn start(run: RunChecks) -> io::Result<Self> {
        Ok(Self { threads: Standby::start("l4lb-checker", OPERATOR_CHECKS_MAX, WAITING_MAX)?, run })
    }

    /// Returns what the checks of `subject` find.
    pub(super) async fn check(&self, subject: Subject) -> Result<Vec<Found>, Problem> {
        let unavailable = |what: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, what);
        let (sender, found) = oneshot::channel();
        let run = self.run;
        let is_taken = self.threads.try_run(move || {
            // The client may have given up while it waited.
            if !sender.is_closed() {
                let reply = move |found| _ = sender.send(found);
                run(CheckNow { subject, reply: Box::new(reply) });
            }
        });
        if !is_taken {
            let most = OPERATOR_CHECKS_MAX + WAITING_MAX;
            return Err(unavailable(format!(
                "{most} backends are being checked for operators already: try again"
            )));
        }
        match tokio::time::timeout(TIME_MAX + GRACE, found).await {
            Ok(Ok(Ok(found))) => Ok(found),
            Ok(Ok(Err(error))) => Err(unavailable(format!("cannot run a check: {error}"))),
            Ok(Err(_)) => Err(unavailable("the threads that run checks have ended".to_owned())),
            Err(_) => Err(unavailable(format!("no thread was free to run the checks within {TIME_MAX:?}"))),
        }
    }
}
