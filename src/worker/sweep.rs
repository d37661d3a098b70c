//! Looks for sessions that wait for an event which has been lost: there is something to read, there is room for it, and
//! nobody will say so again. It should never find one. If it does, that is a bug of ours or of the kernel, and the
//! session goes on a moment later instead of never.
//!
//! One timer a second while there are sessions, and a bounded number of them each time, in turn. What has just come is
//! no proof: the event may be on its way. So a session is suspected first, and only if it has stood still until the next
//! look, in spite of all the waits in between, the event is lost.

use std::time::Duration;

use crate::base::ready::Ready;
use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::base::timer_wheel::TimerWheel;
use crate::base::token_bucket::TokenBucket;
use crate::session::Side;
use crate::sys::Kernel;
use crate::worker::{Timer, Worker};

/// Time between two looks.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);
/// Sessions looked at each time, each for two system calls at most.
const SESSIONS_PER_SWEEP: usize = 256;
/// Places gone through each time, taken or not.
const PLACES_PER_SWEEP: u32 = 4096;
/// For how long nothing has moved in a session that is looked at.
const QUIET: Duration = Duration::from_secs(1);
/// What is found is told at most that often.
const LOG_PERIOD: Duration = Duration::from_secs(10);
/// As an event would say it. The end of the stream may be behind the bytes, and its event lost with theirs.
const SOMETHING: Ready = Ready { readable: true, writable: false, closing: true, failing: false };

/// One side of a session that stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspect {
    key: Key,
    side: Side,
    /// Since when.
    since: Instant,
}

/// Where the search is.
pub(super) struct Sweep {
    has_timer: bool,
    /// The place that comes next.
    next: u32,
    /// Sides that had something to read and were not told.
    suspects: Vec<Suspect>,
    log: TokenBucket,
}

impl Sweep {
    pub(super) fn new(now: Instant) -> Self {
        // Room for all that one look may find, so that the relay never allocates.
        let suspects = Vec::with_capacity(2 * SESSIONS_PER_SWEEP);
        Self { has_timer: false, next: 0, suspects, log: TokenBucket::new(1, LOG_PERIOD, now) }
    }

    pub(super) fn has_timer(&self) -> bool {
        self.has_timer
    }

    /// There is a session.
    pub(super) fn begin(&mut self, now: Instant, wheel: &mut TimerWheel<Timer>) {
        if !std::mem::replace(&mut self.has_timer, true) {
            wheel.arm(now + SWEEP_PERIOD, Timer::Sweep);
        }
    }
}

impl<K: Kernel> Worker<K> {
    pub(super) fn on_sweep_timer(&mut self) {
        self.sweep.has_timer = false;
        let mut suspects = std::mem::take(&mut self.sweep.suspects);
        for suspect in suspects.drain(..) {
            if self.suspect(suspect.key, suspect.side) == Some(suspect) {
                self.go_on_with(suspect.key, suspect.side);
            }
        }
        self.look_for_suspects(&mut suspects);
        self.sweep.suspects = suspects;
        if !self.sessions.is_empty() {
            self.sweep.begin(self.now, &mut self.wheel);
        }
    }

    fn look_for_suspects(&mut self, suspects: &mut Vec<Suspect>) {
        let places = self.sessions.places();
        let mut looked = 0;
        for _ in 0..places.min(PLACES_PER_SWEEP) {
            if looked == SESSIONS_PER_SWEEP {
                return;
            }
            let place = self.sweep.next % places;
            self.sweep.next = place + 1;
            let Some((key, _)) = self.sessions.at(place) else { continue };
            looked += 1;
            suspects.extend(Side::BOTH.into_iter().filter_map(|side| self.suspect(key, side)));
        }
    }

    /// The side, if the session stands still though that side has something to say.
    fn suspect(&mut self, key: Key, side: Side) -> Option<Suspect> {
        let slot = self.sessions.get(key)?;
        let since = slot.session.last_activity();
        if slot.queued || self.now - since < QUIET || !slot.session.awaits(side) {
            return None;
        }
        let socket = match side {
            Side::Client => Some(&slot.client),
            Side::Backend => slot.backend.as_ref(),
        };
        // An error will end the session; here it says nothing.
        let unread = socket.map_or(Ok(0), |socket| self.kernel.unread(socket));
        (unread.unwrap_or(0) > 0).then_some(Suspect { key, side, since })
    }

    /// As if the event had come.
    fn go_on_with(&mut self, key: Key, side: Side) {
        self.stats.lost_wakeups.add(1);
        if let Some(untold) = self.sweep.log.take(self.now) {
            let session = self.id_of(key);
            log::warn!(session:%, side:% = side.as_str(), untold; "a session waited for an event that was lost");
        }
        if let Some(slot) = self.sessions.get_mut(key) {
            slot.session.on_ready(side, SOMETHING);
            self.drive(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::worker::bench::Bench;

    #[test]
    fn a_session_whose_event_was_lost_goes_on() {
        let mut bench = Bench::new("retries = 1");
        let (mut client, mut served) = bench.session();
        client.write_all(b"forgotten").unwrap();
        // The kernel tells it once, and nobody listens.
        let mut lost = Vec::new();
        bench.worker.kernel.wait(None, &mut lost).unwrap();
        assert!(!lost.is_empty());
        bench.turn_until(|worker| worker.stats.lost_wakeups.get() == 1);
        let mut heard = [0; 9];
        served.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"forgotten");
        // Both sides have been quiet for as long as that takes, and nothing else was found.
        let looks = bench.worker.now + 3 * SWEEP_PERIOD;
        bench.turn_until(|worker| worker.now >= looks);
        assert_eq!(bench.worker.stats.lost_wakeups.get(), 1);
    }
}
