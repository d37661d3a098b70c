//! Explains in words why a session got its backend, and how the backends stood when it chose.

use std::collections::HashMap;

use super::rows;
use crate::api;
use crate::base::time::Instant;
use crate::control::history::{Standing, StandingChange};
use crate::messages::query::{self, Asked, SessionExplanation};
use crate::pool::{Advice, BackendId, Pool, SkipReason, TierKind};
use crate::session::Stage;

/// Returns the explanation of a session; its pool was `past` when it chose, and is `pool` now. `findings` are those of
/// the checks of its backends that are down now.
pub(super) fn explanation(
    explanation: &SessionExplanation,
    past: Option<Vec<StandingChange>>,
    pool: Option<&Pool>,
    findings: &HashMap<BackendId, String>,
    now: Instant,
) -> api::Explanation {
    let SessionExplanation { row, why, tried, .. } = explanation;
    let front = row.peer.map(|peer| format!(" (by a PROXY header of {peer})")).unwrap_or_default();
    let mut sentences = vec![format!(
        "came from {}{front} through listener {:?} to pool {:?}",
        row.client, row.listener, row.pool
    )];
    sentences.extend(row.asked.as_deref().map(request));
    if row.retries > 0 {
        sentences.push(format!("dials that had failed before: {}", row.retries));
    }
    let stage = match row.state {
        query::SessionState::Live { stage, .. } => stage,
        query::SessionState::Ended { code, .. } => code.stage(),
    };
    match (&row.backend, why) {
        (Some(backend), Some(why)) => {
            sentences.push(format!("{:?} at {} was picked: {why}", backend.name, backend.address));
        }
        (Some(backend), None) => {
            sentences.push(format!(
                "{:?} at {} was the last that could not be dialed",
                backend.name, backend.address
            ));
        }
        (None, _) if stage == Stage::Preread => {
            sentences
                .push("no backend is picked before its PROXY header or its TLS hello has come".to_owned());
        }
        (None, _) => sentences.push("no backend could be picked".to_owned()),
    }
    if let Some(connect) = row.connect_time {
        let from = row.source.map(|source| format!(", from {source}")).unwrap_or_default();
        sentences.push(format!("was connected {connect:?} after it could first be dialed{from}"));
    }
    let (mut end_code, mut end) = (None, None);
    if let query::SessionState::Ended { reason, code, reset_by, half_closed_by, duration, .. } = row.state {
        if let Some(side) = half_closed_by {
            sentences.push(format!(
                "the {} had ended its stream, and the {} had not",
                side.as_str(),
                side.other().as_str()
            ));
        }
        let by = reset_by.map(|side| format!(", by the {}", side.as_str())).unwrap_or_default();
        sentences.push(format!("ended {duration:?} after it came: {}{by}", reason.words()));
        (end_code, end) = (Some(code.to_string()), Some(reason.words().to_owned()));
    }
    let as_of_choice = past.is_some();
    let past = past.unwrap_or_else(|| pool.map_or(Vec::new(), as_of_now));
    let chosen = row.backend.as_ref().map(|backend| backend.id);
    let tier = why.as_ref().map(|why| why.tier);
    let agent = |past: &StandingChange| {
        let backend = pool?.backends.iter().find(|backend| backend.id == past.backend)?;
        let advice = backend.agent();
        (advice != Advice::NONE).then(|| advice.to_string())
    };
    let candidates = past
        .iter()
        .filter_map(|past| {
            let found = with_findings(past, candidate(past, chosen, tier, tried)?, findings);
            Some(api::Candidate { agent: agent(past), ..found })
        })
        .collect();
    api::Explanation {
        session: rows::session(row, now),
        story: sentences,
        candidates,
        as_of_choice,
        end_code,
        end,
    }
}

/// Returns what the client has asked for, and the route that follows from it.
fn request(asked: &Asked) -> String {
    let Asked { sni, alpn, route } = asked;
    let sni = sni.as_ref().map_or_else(|| "no server".to_owned(), |sni| format!("server {sni:?}"));
    let alpn = alpn.as_ref().map(|alpn| format!(", offering {alpn}")).unwrap_or_default();
    let route = route.map_or_else(|| "no route".to_owned(), |route| format!("route {route}"));
    format!("asked for {sni}{alpn}, and took {route}")
}

/// Returns the backends of a pool, as if nothing had changed.
fn as_of_now(pool: &Pool) -> Vec<StandingChange> {
    let backends = pool.backends.iter().map(|backend| {
        let standing = Some(Standing::of(pool, backend));
        StandingChange {
            backend: backend.id,
            name: backend.name.clone(),
            then: standing,
            now: standing,
            changed: None,
        }
    });
    backends.collect()
}

/// Returns `None` for a backend that came and went since.
fn candidate(
    past: &StandingChange,
    chosen: Option<BackendId>,
    tier: Option<TierKind>,
    tried: &[BackendId],
) -> Option<api::Candidate> {
    let standing = past.then.or(past.now)?;
    let verdict = match past.then {
        None => Some("not in the pool then"),
        Some(_) if tried.contains(&past.backend) => Some("a dial of this session had failed"),
        Some(standing) => {
            let is_later = matches!(tier, Some(TierKind::Priority(asked)) if standing.priority > asked);
            standing.refusal.map(SkipReason::as_str).or_else(|| is_later.then_some("of a later priority"))
        }
    };
    Some(api::Candidate {
        backend: past.name.clone(),
        weight: standing.weight,
        priority: standing.priority,
        chosen: chosen == Some(past.backend),
        skipped: verdict.map(str::to_owned),
        since: since(past),
        agent: None,
    })
}

/// Adds to a candidate that was down or had no address, and still is so, what was found.
fn with_findings(
    past: &StandingChange,
    candidate: api::Candidate,
    findings: &HashMap<BackendId, String>,
) -> api::Candidate {
    let is_found = |refusal: &SkipReason| matches!(refusal, SkipReason::Down | SkipReason::Unresolved);
    let refusal = past.now.and_then(|now| now.refusal).filter(is_found).map(SkipReason::as_str);
    match (&candidate.skipped, refusal, findings.get(&past.backend)) {
        (Some(skipped), Some(refusal), Some(found)) if skipped == refusal => {
            api::Candidate { skipped: Some(format!("{refusal}: {found}")), ..candidate }
        }
        _ => candidate,
    }
}

/// Returns the change of a backend since then, and its time.
fn since(past: &StandingChange) -> Option<String> {
    let when = past.changed?;
    match (past.then, past.now) {
        (None, None) => None,
        (None, Some(_)) => Some(format!("added {when:.0}")),
        (Some(_), None) => Some(format!("removed {when:.0}")),
        (Some(then), Some(now)) if then == now => None,
        (Some(then), Some(now)) => {
            let weight = (then.weight != now.weight).then(|| format!("weight {}", now.weight));
            let word = || now.refusal.map_or("eligible", SkipReason::as_str).to_owned();
            let priority = (then.priority != now.priority).then(|| format!("priority {}", now.priority));
            let verdict = (then.refusal != now.refusal).then(word);
            let what: Vec<String> = weight.into_iter().chain(priority).chain(verdict).collect();
            Some(format!("{} since {when:.0}", what.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_that_is_still_down_has_the_findings_of_its_checks() {
        let standing = |refusal| Some(Standing { weight: 1, priority: 0, refusal });
        let skipped = |now| {
            let then = standing(Some(SkipReason::Down));
            let past = StandingChange { backend: BackendId(1), name: "a".into(), then, now, changed: None };
            let findings = HashMap::from([(BackendId(1), "app failed: timed out".to_owned())]);
            let candidate = candidate(&past, None, None, &[]).unwrap();
            with_findings(&past, candidate, &findings).skipped
        };
        assert_eq!(skipped(standing(Some(SkipReason::Down))).as_deref(), Some("down: app failed: timed out"));
        assert_eq!(skipped(standing(None)).as_deref(), Some("down"));
    }

    /// A later maint was shown as the reason for which a session had not gone there.
    #[test]
    fn a_candidate_is_shown_as_it_was_and_later_changes_apart() {
        let standing = |weight, refusal| Some(Standing { weight, priority: 0, refusal });
        let past = |then, now| StandingChange {
            backend: BackendId(1),
            name: "a".into(),
            then,
            now,
            changed: jiff::Timestamp::from_second(0).ok(),
        };
        let maint = Some(SkipReason::Maint);
        for (then, now, weight, skipped, since) in [
            (
                standing(1, None),
                standing(1, maint),
                1,
                None,
                Some("in maintenance since 1970-01-01T00:00:00Z"),
            ),
            (
                standing(1, maint),
                standing(1, None),
                1,
                Some("in maintenance"),
                Some("eligible since 1970-01-01T00:00:00Z"),
            ),
            (standing(2, None), standing(5, None), 2, None, Some("weight 5 since 1970-01-01T00:00:00Z")),
            (standing(2, None), None, 2, None, Some("removed 1970-01-01T00:00:00Z")),
            (None, standing(3, None), 3, Some("not in the pool then"), Some("added 1970-01-01T00:00:00Z")),
            (standing(1, None), standing(1, None), 1, None, None),
        ] {
            let sentences =
                candidate(&past(then, now), None, None, &[]).expect("the backend was or is in the pool");
            let expected = api::Candidate {
                backend: "a".into(),
                weight,
                priority: 0,
                chosen: false,
                skipped: skipped.map(str::to_owned),
                since: since.map(str::to_owned),
                agent: None,
            };
            assert_eq!(sentences, expected);
        }
        assert_eq!(candidate(&past(None, None), None, None, &[]), None, "it came and went since");
    }

    #[test]
    fn a_candidate_of_a_later_tier_than_the_chosen_one_has_that_verdict() {
        let standing = |refusal| Some(Standing { weight: 1, priority: 2, refusal });
        let past = |refusal| StandingChange {
            backend: BackendId(1),
            name: "a".into(),
            then: standing(refusal),
            now: standing(refusal),
            changed: None,
        };
        let later = Some("of a later priority".to_owned());
        for (tier, refusal, skipped) in [
            (Some(TierKind::Priority(1)), None, later),
            (Some(TierKind::Priority(1)), Some(SkipReason::Down), Some("down".to_owned())),
            (Some(TierKind::Priority(2)), None, None),
            (Some(TierKind::Any), None, None),
            (None, None, None),
        ] {
            let row = candidate(&past(refusal), None, tier, &[]).expect("the backend was in the pool");
            assert_eq!((row.priority, row.skipped), (2, skipped), "{tier:?} {refusal:?}");
        }
    }
}
