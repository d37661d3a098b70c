//! The last result of each check of a backend, as it was reported: results that repeat are no news.

use std::time::Duration;

use crate::base::time::Instant;
use crate::health::Cause;

/// A check that still fails, but for another reason, is reported at most this often: the reason may have words of the
/// backend that are never the same.
const REASON_PERIOD: Duration = Duration::from_secs(10);

/// See the module. By the place of the check among those of its pool.
#[derive(Debug, Default)]
pub(super) struct Results(Vec<Option<Reported>>);

#[derive(Debug)]
struct Reported {
    /// Why it failed, if it did.
    reason: Option<String>,
    when: Instant,
}

impl Results {
    /// Returns whether the result of that check must be reported.
    pub(super) fn is_news(&self, check: usize, result: &Result<(), Cause>, now: Instant) -> bool {
        match (self.0.get(check).and_then(Option::as_ref), result) {
            (None, _) => true,
            (Some(Reported { reason, .. }), Ok(())) => reason.is_some(),
            (Some(Reported { reason: None, .. }), Err(_)) => true,
            (Some(Reported { reason: Some(reason), when }), Err(cause)) => {
                now - *when >= REASON_PERIOD && *reason != cause.to_string()
            }
        }
    }

    /// Notes a result of that check that was reported: that it has passed, or failed for that reason.
    pub(super) fn note(&mut self, check: usize, reason: Option<String>, now: Instant) {
        if self.0.len() <= check {
            self.0.resize_with(check + 1, || None);
        }
        self.0[check] = Some(Reported { reason, when: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_news_when_it_changes_and_a_reason_not_too_often() {
        let (mut results, start) = (Results::default(), Instant::from_nanos(1));
        let [refused, other] = [Cause::Refused, Cause::SelfConnect];
        let steps = [
            (0, Ok(()), true),
            (1, Ok(()), false),
            (2, Err(refused.clone()), true),
            (3, Err(other.clone()), false),
            (12, Err(refused.clone()), false),
            (13, Err(other.clone()), true),
            (24, Err(other), false),
            (25, Ok(()), true),
            (26, Err(refused), true),
        ];
        for (second, result, expected) in steps {
            let now = start + Duration::from_secs(second);
            assert_eq!(results.is_news(1, &result, now), expected, "after {second} s");
            assert_eq!(results.is_news(1, &result, now), expected, "news until it is reported");
            if expected {
                results.note(1, result.err().as_ref().map(Cause::to_string), now);
            }
        }
        assert!(results.is_news(0, &Ok(()), start), "another check");
    }
}
