//! Waits until the process has ended, and shows the sessions that are left.

use std::thread;
use std::time::Duration;

use crate::api;
use crate::base::time::Instant;
use crate::config::units::show_duration;
use crate::ctl::client::ClientError;
use crate::ctl::drain::{PERIOD, Progress, ProgressLine};
use crate::ctl::figures::{count, span};
use crate::ctl::{Client, Failure};
use crate::sys::Clock;

const NAME: &str = "l4lb";

/// Returns when the process that has answered `began` has ended. Fails after `timeout`. Progress goes to standard error.
pub(super) fn wait(client: &Client, began: &api::Stopping, timeout: Option<Duration>) -> Result<(), Failure> {
    let clock = Clock::start();
    let deadline = timeout.map(|timeout| clock.now() + timeout);
    let mut line = ProgressLine::default();
    let mut left = began.sessions;
    let result = loop {
        let now = clock.now();
        line.show(NAME, &Progress { at_start: began.sessions, left, age: now.since(Instant::default()) });
        if deadline.is_some_and(|deadline| now >= deadline) {
            let timeout = timeout.map(show_duration).unwrap_or_default();
            let sessions = count(left, "session");
            break Err(Failure::Failed(format!("{NAME}: {sessions} left after {timeout}")));
        }
        // It may return early, and then the look comes early.
        thread::park_timeout(deadline.map_or(PERIOD, |deadline| PERIOD.min(deadline - now)));
        match client.get::<api::Status>("/v1/status") {
            Ok(status) if status.pid == began.pid => left = status.totals.sessions,
            // Its successor answers.
            Ok(_) => break Ok(()),
            Err(error) if error.is_gone() => break Ok(()),
            // It ends while it answers; the next look finds nothing that listens.
            Err(ClientError::Broken { .. }) => {}
            Err(error) => break Err(error.into()),
        }
    };
    line.end();
    result
}

/// Returns how the process ends, or that it has ended, in words.
pub(super) fn stopping(stopping: &api::Stopping, has_ended: bool) -> String {
    let api::Stopping { pid, sessions, drains_in, cut_in, .. } = stopping;
    let sessions = count(*sessions, "session");
    let (now, cut) = ("`l4lb ctl stop --now` resets them at once", span(*cut_in));
    match (has_ended, drains_in, stopping.stage) {
        (true, ..) => format!("process {pid} has ended\n"),
        (false, Some(delay), _) => {
            let delay = span(*delay);
            format!("accepting for another {delay}, {sessions}, reset in {cut} at the latest; {now}\n")
        }
        (false, None, api::Stage::Stopping) => format!("stopping: {sessions}, reset now\n"),
        (false, None, api::Stage::Serving | api::Stage::Draining) => {
            format!("draining: {sessions} left, reset in {cut} at the latest; {now}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_until_when_sessions_may_last_and_what_ends_them_before() {
        let of = |stage, sessions, drains_in, cut_in| {
            stopping(&api::Stopping { pid: 7, stage, sessions, drains_in, cut_in }, false)
        };
        let now = "`l4lb ctl stop --now` resets them at once\n";
        let draining = format!("draining: 3 sessions left, reset in 30s at the latest; {now}");
        assert_eq!(of(api::Stage::Draining, 3, None, 30.0), draining);
        let leaving = format!("accepting for another 5.0s, 1 session, reset in 35s at the latest; {now}");
        assert_eq!(of(api::Stage::Serving, 1, Some(5.0), 35.0), leaving);
        assert_eq!(of(api::Stage::Stopping, 2, None, 0.0), "stopping: 2 sessions, reset now\n");
    }
}
