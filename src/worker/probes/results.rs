//! The last result of each check of a backend, and the certificate that it was shown, as they were reported: what repeats
//! is no news.

use std::time::Duration;

use crate::base::time::Instant;
use crate::health::Cause;
use crate::tls::Certificate;

/// A check that still fails, but for another reason, is reported at most this often: the reason may have words of the
/// backend that are never the same.
const REASON_PERIOD: Duration = Duration::from_secs(10);

/// A certificate that stays the same is reported this often, so that its end is seen to come near.
const CERTIFICATE_PERIOD: Duration = Duration::from_hours(1);

/// See the module. By the place of the check among those of its pool.
#[derive(Debug, Default)]
pub(super) struct Results {
    results: Vec<Option<Reported>>,
    certificates: Vec<Option<(Certificate, Instant)>>,
}

#[derive(Debug)]
struct Reported {
    /// Why it failed, if it did.
    reason: Option<String>,
    when: Instant,
}

impl Results {
    /// Returns whether the result of that check must be reported.
    pub(super) fn is_news(&self, check: usize, result: &Result<(), Cause>, now: Instant) -> bool {
        match (self.results.get(check).and_then(Option::as_ref), result) {
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
        *place_of(&mut self.results, check) = Some(Reported { reason, when: now });
    }

    /// Returns whether this certificate of a check must be reported.
    pub(super) fn is_news_of(&self, check: usize, certificate: &Certificate, now: Instant) -> bool {
        let last = self.certificates.get(check).and_then(Option::as_ref);
        last.is_none_or(|(known, when)| {
            let period = if known == certificate { CERTIFICATE_PERIOD } else { REASON_PERIOD };
            now - *when >= period
        })
    }

    /// Notes a certificate that was reported.
    pub(super) fn note_certificate(&mut self, check: usize, certificate: Certificate, now: Instant) {
        *place_of(&mut self.certificates, check) = Some((certificate, now));
    }

    /// Returns the end of the certificate that ends first, in seconds since 1970.
    pub(super) fn first_end(&self) -> Option<u64> {
        self.certificates.iter().flatten().map(|(certificate, _)| certificate.not_after).min()
    }
}

/// Returns the place of a check in a list that has room for it from then on.
fn place_of<T>(list: &mut Vec<Option<T>>, check: usize) -> &mut Option<T> {
    if list.len() <= check {
        list.resize_with(check + 1, || None);
    }
    &mut list[check]
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

    #[test]
    fn a_certificate_is_news_when_it_changes_and_every_hour() {
        let (mut results, start) = (Results::default(), Instant::from_nanos(1));
        let until = |not_after| Certificate { names: vec!["a".into()], names_total: 1, not_after };
        let steps = [(0, 200, true), (1, 200, false), (60, 200, true), (61, 300, true), (119, 300, false)];
        for (minute, end, expected) in steps {
            let now = start + Duration::from_mins(minute);
            assert_eq!(results.is_news_of(1, &until(end), now), expected, "after {minute} min");
            if expected {
                results.note_certificate(1, until(end), now);
            }
        }
        assert_eq!(results.first_end(), Some(300));
        assert!(results.is_news_of(0, &until(250), start), "another check");
        results.note_certificate(0, until(250), start);
        assert_eq!(results.first_end(), Some(250));
    }
}
