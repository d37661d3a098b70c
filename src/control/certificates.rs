//! The certificates that checks were shown: the last of each, and a daily warning once its end is near.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::control_loop::ControlLoop;
use super::events::Draft;
use super::membership::notes::ShownCertificate;
use crate::api::EventKind;
use crate::messages::report::CheckedBy;
use crate::messages::request::Named;
use crate::pool::BackendId;
use crate::sys::timestamp;
use crate::tls::Certificate;

/// Time between two warnings of one certificate.
const WARNING_PERIOD: SignedDuration = SignedDuration::from_hours(24);

/// Time before a warning of another certificate: servers that share an address may show one each.
const OTHER_PERIOD: SignedDuration = SignedDuration::from_hours(1);

impl ControlLoop {
    /// Notes the certificate that a check was shown.
    pub(super) fn on_certificate(
        &mut self,
        id: BackendId,
        by: CheckedBy,
        check: usize,
        certificate: Certificate,
    ) {
        // Removed since, or checked in another way: its new checks report anew.
        let Some(backend) = self.control.snapshot.backend(id) else { return };
        let pool = self.control.snapshot.pool(backend.pool);
        if pool.checks != by.checks || pool.own_check(backend) != Some(by.own) {
            return;
        }
        let settings = &pool.settings;
        let Some(one) = settings.health.checks().nth(check) else { return };
        let Some(tls) = one.check.tls() else { return };
        let now = timestamp();
        let mut state = self.control.view.state();
        let shown = &mut state.notes.entry(id).or_default().certificates;
        shown.resize_with(shown.len().max(check + 1), || None);
        let before = shown[check].take();
        let is_same = before.as_ref().is_some_and(|before| before.certificate == certificate);
        let warned = before.and_then(|before| before.warned);
        let period = if is_same { WARNING_PERIOD } else { OTHER_PERIOD };
        let is_due = ends_within(&certificate, tls.expires_within, now)
            && warned.is_none_or(|warned| now.duration_since(warned) >= period);
        let warned = if is_due { Some(now) } else { warned };
        let words = words(&certificate, now);
        shown[check] = Some(ShownCertificate { certificate, warned });
        drop(state);
        if is_due {
            let (pool, backend) = (settings.name.clone(), backend.name.clone());
            let name = one.name.map(|name| format!(" of check {name:?}")).unwrap_or_default();
            log::warn!(pool:%, backend:%; "the certificate{name} {words}");
            let message = format!("certificate{name} {words}");
            let draft = Draft::new(EventKind::Certificate, message);
            self.control.view.events.push(draft.backend(&Named { pool, backend }));
        }
    }
}

/// Returns whether warnings of it are due.
fn ends_within(certificate: &Certificate, span: Duration, now: Timestamp) -> bool {
    let left = end_of(certificate).duration_since(now);
    !span.is_zero() && SignedDuration::try_from(span).is_ok_and(|span| left < span)
}

/// Returns the end of its validity.
pub(crate) fn end_of(certificate: &Certificate) -> Timestamp {
    let seconds = i64::try_from(certificate.not_after).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

/// Returns its first name and its end.
fn words(certificate: &Certificate, now: Timestamp) -> String {
    let (end, name) = (end_of(certificate), certificate.names.first().map_or("", String::as_str));
    let left = end.duration_since(now);
    let hours = left.as_hours().unsigned_abs();
    let span = if hours >= 48 { format!("{} days", hours / 24) } else { format!("{hours} hours") };
    let when = if left.is_negative() { format!("expired {span} ago") } else { format!("expires in {span}") };
    format!("for {name} {when}, at {end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(seconds: u64) -> Certificate {
        Certificate { names: vec!["web.example".into()], names_total: 1, not_after: seconds }
    }

    #[test]
    fn a_warning_says_how_much_time_is_left() {
        let now = Timestamp::from_second(10 * 86_400).unwrap();
        for (end, expected) in [
            (13 * 86_400, "for web.example expires in 3 days, at 1970-01-14T00:00:00Z"),
            (11 * 86_400, "for web.example expires in 24 hours, at 1970-01-12T00:00:00Z"),
            (7 * 86_400, "for web.example expired 3 days ago, at 1970-01-08T00:00:00Z"),
        ] {
            assert_eq!(words(&until(end), now), expected);
        }
    }

    #[test]
    fn warnings_begin_when_the_end_is_near_and_never_for_zero() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let day = Duration::from_hours(24);
        for (end, span, expected) in [
            (1_000_000 + 86_401, day, false),
            (1_000_000 + 86_399, day, true),
            (1_000, day, true),
            (1_000, Duration::ZERO, false),
            (u64::MAX, day, false),
        ] {
            assert_eq!(ends_within(&until(end), span, now), expected, "{end}");
        }
    }
}
