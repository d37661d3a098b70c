//! Sources of backends of the l4lb that runs: whether what they list is old.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::finding::{Finding, Verdict};
use crate::api;
use crate::ctl::figures::{age, count, span};
use crate::ctl::{Client, ClientError, Target};
use crate::sys::timestamp;

const NAME: &str = "source";
/// How long a running l4lb may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A source that has found nothing for this long, in seconds, is a finding: a name server that restarts is not.
const OLD: f64 = 60.0;

/// Returns a finding for each source of the l4lb whose admin socket is `socket`; none where no l4lb answers.
pub(super) fn examine(socket: &Path) -> Vec<Finding> {
    let client = match Client::new(Target::Socket(socket.to_owned())) {
        Ok(client) => client.with_patience(PATIENCE),
        Err(error) => return vec![unknown(error.to_string())],
    };
    match client.get::<Vec<api::Discovery>>("/v1/discovery") {
        Ok(sources) => sources.iter().map(|source| judge(source, timestamp())).collect(),
        Err(ClientError::Unreachable { .. }) => Vec::new(),
        Err(error @ (ClientError::Refused { .. } | ClientError::Broken { .. })) => {
            vec![unknown(error.to_string())]
        }
    }
}

fn unknown(found: String) -> Finding {
    Finding {
        name: NAME,
        verdict: Verdict::Warn,
        found,
        consequence: Some("the sources of the running l4lb cannot be checked".into()),
        remedy: Some("l4lb ctl status".into()),
    }
}

fn judge(source: &api::Discovery, now: Timestamp) -> Finding {
    let api::Discovery {
        pool,
        source: label,
        state,
        since,
        age: answered,
        next: _,
        backends,
        note,
        left_out: _,
    } = source;
    let answered =
        answered.map_or_else(|| "never answered".to_owned(), |age| format!("answered {} ago", span(age)));
    let found = format!(
        "{label} of pool {pool}: {state} for {}, {answered}, {}",
        age(now, *since),
        count(*backends, "backend")
    );
    let is_old = state != "found" && now.duration_since(*since).as_secs_f64() >= OLD;
    if !is_old {
        return Finding { name: NAME, verdict: Verdict::Ok, found, consequence: None, remedy: None };
    }
    let why = note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
    let consequence = match backends {
        0 => "its pool has no backend of it",
        _ => {
            "its last good list is kept: new backends get no sessions, and those that have gone are still dialed"
        }
    };
    Finding {
        name: NAME,
        verdict: Verdict::Warn,
        found: found + &why,
        consequence: Some(consequence.into()),
        remedy: Some(format!("mend its name server; `l4lb ctl discover {pool}` queries it now")),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn judged(state: &str, seconds: i64, backends: u64) -> Finding {
        let now: Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
        let source = api::Discovery {
            pool: "web".into(),
            source: "dns:web.test:80".into(),
            state: state.into(),
            since: now - SignedDuration::from_secs(seconds),
            age: Some(7_500.0),
            next: None,
            backends,
            note: (state == "failed").then(|| "request timed out".into()),
            left_out: Vec::new(),
        };
        judge(&source, now)
    }

    #[test]
    fn a_list_that_is_kept_for_long_is_a_finding() {
        for (state, seconds, verdict) in [
            ("found", 9_999, Verdict::Ok),
            ("failed", 59, Verdict::Ok),
            ("failed", 60, Verdict::Warn),
            ("nothing", 60, Verdict::Warn),
            ("waiting", 5, Verdict::Ok),
            ("waiting", 60, Verdict::Warn),
        ] {
            assert_eq!(judged(state, seconds, 4).verdict, verdict, "{state} for {seconds} s");
        }
        let finding = judged("failed", 7_500, 4);
        let found = "dns:web.test:80 of pool web: failed for 2h05m, answered 2h05m ago, 4 backends: request timed out";
        assert_eq!(finding.found, found);
        assert!(finding.consequence.unwrap().starts_with("its last good list is kept"));
        assert_eq!(judged("failed", 7_500, 0).consequence.unwrap(), "its pool has no backend of it");
    }
}
