//! Runs the checks of backends now, and shows what they send and receive.

use std::fmt::Write;

use axum::http::Method;

use crate::api::{self, ActKind};
use crate::base::glob;
use crate::config::one_line;
use crate::ctl::figures::count;
use crate::ctl::{ClientError, Ctl, Failure, NOTHING, Named, json_line, print};

impl Ctl {
    /// Runs the checks of the chosen backends, one backend after the other, and prints them. Fails unless all pass.
    pub(super) fn check(&self, wanted: &[String]) -> Result<(), Failure> {
        let mut results = Vec::new();
        for named in self.chosen(wanted).map_err(|failure| failure.without_result())? {
            results.push(self.check_one(&named)?);
        }
        match results {
            results if results.contains(&Some(false)) => Err(Failure::Unwell),
            results if results.contains(&None) => Err(Failure::NoResult),
            _ => Ok(()),
        }
    }

    /// Returns the result for one backend, which is printed. One that cannot be checked does not keep the others from
    /// it.
    fn check_one(&self, named: &Named) -> Result<Option<bool>, Failure> {
        let answer = match self.client.answer(Method::POST, &format!("{}/check", named.path()), NOTHING) {
            Ok(answer) => answer,
            Err(error @ ClientError::Refused { .. }) => {
                Failure::from(error).complain();
                return Ok(None);
            }
            Err(error) => return Err(Failure::from(error).without_result()),
        };
        let run: api::CheckRun = answer.read().map_err(|error| Failure::from(error).without_result())?;
        print(&if self.json { json_line(&answer.body) } else { shown(&run) })?;
        Ok(run.passed)
    }

    /// Returns the backends of those names and patterns, each once.
    fn chosen(&self, wanted: &[String]) -> Result<Vec<Named>, Failure> {
        let all: Vec<api::Backend> = match wanted.iter().any(|name| glob::is_pattern(name)) {
            true => self.client.get("/v1/backends")?,
            false => Vec::new(),
        };
        let mut chosen: Vec<Named> = Vec::new();
        for text in wanted {
            let named = self.named(text)?;
            if !glob::is_pattern(text) {
                chosen.push(named);
                continue;
            }
            let before = chosen.len();
            let matching = all.iter().filter(|backend| {
                let is_it = |text: &str| glob::matches(&named.backend, text);
                glob::matches(&named.pool, &backend.pool) && (is_it(&backend.name) || is_it(&backend.address))
            });
            chosen.extend(
                matching.map(|backend| Named { pool: backend.pool.clone(), backend: backend.name.clone() }),
            );
            if chosen.len() == before {
                return Err(Failure::Failed(format!("{text}: matches no backend")));
            }
        }
        let mut known = std::collections::HashSet::new();
        chosen.retain(|named| known.insert(named.to_string()));
        Ok(chosen)
    }
}

fn shown(run: &api::CheckRun) -> String {
    let mut text = String::new();
    for check in &run.checks {
        let api::CheckDone { name, kind, address, exchange, left_out, .. } = check;
        line(&mut text, &format!("{}/{}: check {name}, {kind} at {address}", run.pool, run.backend));
        for act in exchange {
            line(&mut text, &act_line(act));
        }
        if *left_out > 0 {
            line(&mut text, &format!("{:14}and {left_out} more", ""));
        }
        if let Some(certificate) = &check.certificate {
            line(&mut text, &format!("{:14}{}", "", certificate.words()));
        }
        line(&mut text, &result_line(check));
    }
    let words = match run.passed {
        Some(true) => "passed",
        Some(false) => "failed",
        None => "without a result",
    };
    let checks = count(run.checks.len() as u64, "check");
    let health = run.health.as_str();
    line(&mut text, &format!("{}/{}: {checks}, {words}; its health stays {health}", run.pool, run.backend));
    text
}

fn line(text: &mut String, what: &str) {
    writeln!(text, "{}", one_line(what).trim_end()).expect("writing to a String never fails");
}

fn result_line(check: &api::CheckDone) -> String {
    let word = match check.passed {
        Some(true) => "passed",
        Some(false) => "failed",
        None => "no result",
    };
    let reason = check.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{}  {word}{reason}", millis(check.took))
}

fn act_line(api::Act { at, kind, text, len, is_cut }: &api::Act) -> String {
    let quoted = || match is_cut {
        true => format!("\"{text}\"... ({len} bytes)"),
        false => format!("\"{text}\""),
    };
    let what = match kind {
        ActKind::Connected => "connected".to_owned(),
        ActKind::Header => format!("sent      PROXY header {}", quoted()),
        ActKind::Secured => "TLS handshake complete".to_owned(),
        ActKind::Sent => format!("sent      {}", quoted()),
        ActKind::Received => format!("received  {}", quoted()),
        ActKind::Expected => format!("expects   {text}"),
        ActKind::Ran => format!("ran       {text}"),
        ActKind::Printed => format!("printed   {}", quoted()),
    };
    format!("{}  {what}", millis(*at))
}

/// Returns so many seconds in twelve characters.
fn millis(seconds: f64) -> String {
    format!("{:>9.1} ms", seconds * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(at: f64, kind: ActKind, text: &str, len: u64) -> api::Act {
        api::Act { at, kind, text: text.into(), len, is_cut: len > text.len() as u64 }
    }

    #[test]
    fn an_exchange_is_shown_act_by_act_with_its_result() {
        let check = api::CheckDone {
            name: "health".into(),
            kind: "send_expect".into(),
            address: "10.0.0.1:6379".into(),
            passed: Some(false),
            reason: Some("answer does not start with \"+PONG\": got \"-ERR\"".into()),
            took: 0.0123,
            limit: 1.0,
            certificate: None,
            exchange: vec![
                act(0.0004, ActKind::Connected, "", 0),
                act(0.0004, ActKind::Secured, "", 0),
                act(0.0005, ActKind::Sent, "PING", 4),
                act(0.0005, ActKind::Expected, "an answer that starts with \"+PONG\"", 0),
                act(0.0121, ActKind::Received, "-ERR", 9000),
            ],
            left_out: 2,
        };
        let mut run = api::CheckRun {
            pool: "web".into(),
            backend: "a".into(),
            passed: Some(false),
            health: api::Health::Up,
            checks: vec![check],
        };
        assert_eq!(
            shown(&run),
            "web/a: check health, send_expect at 10.0.0.1:6379\n      0.4 ms  connected\n      0.4 ms  TLS handshake complete\n      0.5 ms  sent      \"PING\"\n      0.5 ms  expects   an answer that starts with \"+PONG\"\n     12.1 ms  received  \"-ERR\"... (9000 bytes)\n              and 2 more\n     12.3 ms  failed: answer does not start with \"+PONG\": got \"-ERR\"\nweb/a: 1 check, failed; its health stays up\n"
        );
        run.checks[0].passed = None;
        run.passed = api::CheckRun::passed(&run.checks);
        assert_eq!(run.passed, None);
        assert!(shown(&run).ends_with("web/a: 1 check, without a result; its health stays up\n"));
    }
}
