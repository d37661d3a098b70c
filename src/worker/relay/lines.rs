//! The lines that the log has of a session: one when it is over, and, where the access log asks for them, one when its
//! backend is connected and one every so often while it lasts.
//!
//! Those of sessions that last are written by the timer of `lost_wakeups`, a bounded number at a time: a
//! session has no timer for them, and nothing is searched while the access log does not ask for them.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use log::kv::{ToValue, Value};

use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::session::{Side, Summary};
use crate::sys::Kernel;
use crate::worker::core::Core;
use crate::worker::relay::lost_wakeups::PLACES_PER_LOOK;
use crate::worker::relay::{Relay, Slot};

/// Periodic lines written at a time; the rest follow a moment later, so that no event waits for all of them.
const LINES_PER_LOOK: usize = 256;

impl<K: Kernel> Slot<K> {
    /// Returns whether a line is due; then the next one is a period later.
    fn take_due(&mut self, every: Duration, now: Instant) -> bool {
        let age = u32::try_from(self.session.age(now).as_secs()).unwrap_or(u32::MAX);
        let next = next_line(self.line_age, age, every);
        next.inspect(|&age| self.line_age = age).is_some()
    }
}

/// Returns the age at which a session of `age` seconds should have had its latest line, if that is later than `last`.
fn next_line(last: u32, age: u32, every: Duration) -> Option<u32> {
    let every = u32::try_from(every.as_secs()).unwrap_or(u32::MAX).max(1);
    let passed = age.saturating_sub(last);
    (passed >= every).then(|| age - passed % every)
}

fn is_logged() -> bool {
    log::log_enabled!(target: "l4lb::session", log::Level::Info)
}

impl<K: Kernel> Relay<K> {
    /// Writes the start line of a session with a connected backend, if configured.
    pub(super) fn log_start(&mut self, core: &mut Core<K>, key: Key) {
        if core.snapshot.lines.at_start && is_logged() {
            self.log_so_far(core, key, "session begins");
        }
    }

    /// Writes some of the due periodic lines. Returns whether more places remain than one look covers.
    pub(super) fn log_due(&mut self, core: &mut Core<K>) -> bool {
        let Some(every) = core.snapshot.lines.every.filter(|_| is_logged()) else { return false };
        let places = self.sessions.places();
        let (mut written, mut gone_through) = (0, 0);
        while gone_through < places.min(PLACES_PER_LOOK) && written < LINES_PER_LOOK {
            let place = self.next_line % places;
            self.next_line = place + 1;
            gone_through += 1;
            let Some(key) = self.sessions.at(place).map(|(key, _)| key) else { continue };
            let slot = self.sessions.get_mut(key).expect("it was there a moment ago");
            if slot.take_due(every, core.now) {
                self.log_so_far(core, key, "session continues");
                written += 1;
            }
        }
        gone_through < places
    }

    /// The same fields as at the end, as far as they are known.
    fn log_so_far(&mut self, core: &mut Core<K>, key: Key, what: &str) {
        let id = core.id_of(key);
        let Some(slot) = self.sessions.get(key) else { return };
        let source = slot.source(&mut core.kernel);
        let listener = &slot.listener.settings.name;
        let pool = &core.snapshot.pool(slot.pool).settings.name;
        let backend = slot.backend_to_report();
        let asked = slot.asked().map(Arc::as_ref);
        let session = &slot.session;
        let [to_backend, to_client] = session.given();
        log::info!(
            target: "l4lb::session",
            session:% = id,
            listener:%,
            pool:%,
            backend = backend.map(|backend| backend.name.as_str()),
            backend_address = backend.map(|backend| Shown(&backend.address)),
            client:% = slot.client(),
            peer = slot.front().map(Shown),
            sni = asked.and_then(|asked| asked.sni.as_deref()),
            alpn = asked.and_then(|asked| asked.alpn.as_deref()),
            route = asked.and_then(|asked| asked.route),
            source = source.map(Shown),
            to_backend,
            to_client,
            connect_ms = session.connect_time().map(millis),
            duration_ms = millis(session.age(core.now)),
            retries = session.retries(),
            state:% = session.stage().as_str();
            "{what}"
        );
    }
}

/// Writes the end line of a session, if configured. Returns the source address of the backend connection; `None` when
/// no line is written, because asking for it costs a call.
pub(super) fn log_end<K: Kernel>(
    core: &mut Core<K>,
    key: Key,
    slot: &Slot<K>,
    summary: &Summary,
) -> Option<SocketAddr> {
    if !core.snapshot.lines.at_end || !is_logged() {
        return None;
    }
    let listener = &slot.listener.settings.name;
    let pool = &core.snapshot.pool(slot.pool).settings.name;
    let backend = slot.backend_to_report();
    let asked = slot.asked().map(Arc::as_ref);
    let source = slot.source(&mut core.kernel);
    let session = core.id_of(key);
    log::info!(
        target: "l4lb::session",
        session:%,
        listener:%,
        pool:%,
        backend = backend.map(|backend| backend.name.as_str()),
        backend_address = backend.map(|backend| Shown(&backend.address)),
        client:% = slot.client(),
        peer = slot.front().map(Shown),
        sni = asked.and_then(|asked| asked.sni.as_deref()),
        alpn = asked.and_then(|asked| asked.alpn.as_deref()),
        route = asked.and_then(|asked| asked.route),
        source = source.map(Shown),
        to_backend = summary.to_backend,
        to_client = summary.to_client,
        connect_ms = summary.connect_time.map(millis),
        duration_ms = millis(summary.duration),
        retries = summary.retries,
        reason:% = summary.reason.as_str(),
        code:% = summary.code(),
        reset_by = summary.reset_by.map(Side::as_str),
        half_closed_by = summary.half_closed_by.map(Side::as_str);
        "session"
    );
    source
}

fn millis(span: Duration) -> f64 {
    span.as_micros() as f64 / 1_000.0
}

/// An address in a field that a line may lack.
struct Shown<A>(A);

impl<A: Display> ToValue for Shown<A> {
    fn to_value(&self) -> Value<'_> {
        Value::from_display(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_once_in_each_period_also_where_a_look_comes_late() {
        let every = Duration::from_secs(10);
        let mut last = 0;
        let mut written = Vec::new();
        for age in [0, 9, 10, 11, 19, 27, 29, 30, 75, 79, 80] {
            if let Some(next) = next_line(last, age, every) {
                last = next;
                written.push(age);
            }
        }
        assert_eq!(written, [10, 27, 30, 75, 80]);
        assert_eq!(next_line(u32::MAX, 5, every), None, "a period that was longer before");
        assert_eq!(next_line(0, 7, Duration::from_millis(1)), Some(7), "no more than one a second");
    }
}
