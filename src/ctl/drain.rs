//! Waits until backends have no session left, and shows the progress.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use crate::api;
use crate::base::time::Instant;
use crate::config::units::show_duration;
use crate::ctl::figures::{count, span};
use crate::ctl::{ClientError, Failure};
use crate::sys::Clock;

pub(super) const PERIOD: Duration = Duration::from_millis(500);

/// Returns the backends as they are when none of those that `began` to drain has a session left. `look` returns them,
/// and maybe others, as they are. Fails after `timeout`, and when one is drained no more. Progress goes to standard
/// error, because standard output is for the final answer.
pub(super) fn wait(
    began: &[api::Backend],
    timeout: Option<Duration>,
    look: impl Fn() -> Result<Vec<api::Backend>, ClientError>,
) -> Result<Vec<api::Backend>, Failure> {
    let clock = Clock::start();
    let deadline = timeout.map(|timeout| clock.now() + timeout);
    let mut lines: Vec<ProgressLine> = began.iter().map(|_| ProgressLine::default()).collect();
    let mut backends = began.to_vec();
    let result = loop {
        let now = clock.now();
        let age = now.since(Instant::default());
        show(&mut lines, began, &backends, age);
        if let Some(ready) = backends.iter().find(|backend| backend.admin == api::Admin::Ready) {
            break Err(Failure::Failed(format!("{}: is ready again, not drained any more", name(ready))));
        }
        let left = sessions(&backends);
        if left == 0 {
            break Ok(());
        }
        if deadline.is_some_and(|deadline| now >= deadline) {
            let timeout = timeout.map(show_duration).unwrap_or_default();
            let left = count(left, "session");
            break Err(Failure::Failed(format!("{}: {left} left after {timeout}", title(&backends))));
        }
        // It may return early, and then the look comes early.
        thread::park_timeout(deadline.map_or(PERIOD, |deadline| PERIOD.min(deadline - now)));
        let found = match look() {
            Ok(found) => found,
            Err(error) => break Err(error.into()),
        };
        match of(began, found) {
            Ok(found) => backends = found,
            Err(gone) => {
                break Err(Failure::Failed(format!("{gone}: is in its pool no more")));
            }
        }
    };
    lines.iter_mut().for_each(ProgressLine::end);
    result.map(|()| backends)
}

/// Shows the progress of each; of several on a terminal that of all together, because a line is all there is.
fn show(lines: &mut [ProgressLine], began: &[api::Backend], now: &[api::Backend], age: Duration) {
    if let Some(line) = lines.first_mut().filter(|_| io::stderr().is_terminal()) {
        return line.show(&title(now), &Progress { at_start: sessions(began), left: sessions(now), age });
    }
    for (line, (began, now)) in lines.iter_mut().zip(began.iter().zip(now)) {
        line.show(&name(now), &Progress { at_start: began.sessions, left: now.sessions, age });
    }
}

/// Returns of `found` those that `began`, in that order; or the name of one that is missing.
fn of(began: &[api::Backend], found: Vec<api::Backend>) -> Result<Vec<api::Backend>, String> {
    let mut by_name: HashMap<String, api::Backend> =
        found.into_iter().map(|backend| (name(&backend), backend)).collect();
    began.iter().map(|backend| by_name.remove(&name(backend)).ok_or_else(|| name(backend))).collect()
}

fn name(backend: &api::Backend) -> String {
    format!("{}/{}", backend.pool, backend.name)
}

/// Names one backend, or counts several.
fn title(backends: &[api::Backend]) -> String {
    match backends {
        [only] => name(only),
        several => count(several.len() as u64, "backend"),
    }
}

fn sessions(backends: &[api::Backend]) -> u64 {
    backends.iter().map(|backend| backend.sessions).sum()
}

/// The progress of a drain.
pub(super) struct Progress {
    pub(super) at_start: u64,
    pub(super) left: u64,
    pub(super) age: Duration,
}

impl Progress {
    /// Returns the time until the last session ends at the present rate; `None` when none has ended yet.
    fn eta(&self) -> Option<Duration> {
        let gone = self.at_start.saturating_sub(self.left);
        let left = u32::try_from(self.left).unwrap_or(u32::MAX);
        let gone = u32::try_from(gone).ok().filter(|&gone| gone > 0)?;
        Some(self.age.saturating_mul(left) / gone)
    }

    fn words(&self) -> String {
        let eta = match self.eta() {
            _ if self.left == 0 => String::new(),
            Some(eta) => format!(", done in about {}", span(eta.as_secs_f64())),
            None => ", none has gone yet".to_owned(),
        };
        let of = self.at_start.max(self.left);
        format!("{} of {} left after {}{eta}", self.left, count(of, "session"), span(self.age.as_secs_f64()))
    }
}

/// Prints one line that changes on a terminal, a line for each change elsewhere.
#[derive(Default)]
pub(super) struct ProgressLine {
    left: Option<u64>,
    /// A line on a terminal is not ended yet.
    open: bool,
}

impl ProgressLine {
    pub(super) fn show(&mut self, name: &str, progress: &Progress) {
        let mut stderr = io::stderr();
        let words = progress.words();
        // An error of standard error itself has no place to be reported.
        if stderr.is_terminal() {
            // Carriage return, and erase to the end of the line (ECMA-48).
            let _gone = write!(stderr, "\r\x1b[K{name}: {words}");
            self.open = true;
        } else if self.left != Some(progress.left) {
            let _gone = writeln!(stderr, "{name}: {words}");
        }
        self.left = Some(progress.left);
    }

    pub(super) fn end(&mut self) {
        if self.open {
            let _gone = writeln!(io::stderr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_time_that_others_took() {
        for (at_start, left, age, expected) in [
            (10, 10, 5, "10 of 10 sessions left after 5.0s, none has gone yet"),
            (10, 4, 60, "4 of 10 sessions left after 1m00s, done in about 40s"),
            (1, 0, 3, "0 of 1 session left after 3.0s"),
            // Sessions that were being dialed when the drain began may be added.
            (2, 3, 1, "3 of 3 sessions left after 1.0s, none has gone yet"),
        ] {
            assert_eq!(Progress { at_start, left, age: Duration::from_secs(age) }.words(), expected);
        }
        let huge = Progress { at_start: u64::MAX, left: u64::MAX - 1, age: Duration::MAX };
        assert!(huge.eta().is_some());
    }
}
