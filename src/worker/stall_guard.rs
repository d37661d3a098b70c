//! Delays timers after SIGSTOP, or on a starved machine, when deadlines have passed that could not be met. Events that
//! arrived meanwhile are handled before timers fire, which may take many waits: each returns a bounded number of
//! events.

use std::time::Duration;

use crate::base::time::Instant;

/// A turn that is this much later than requested means that the process was stopped, or starved.
const LATE: Duration = Duration::from_secs(1);
/// The longest that timers wait for a wait without new events. On a machine that is always late they must fire all the
/// same.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Tracks whether events from a gap are still being read.
#[derive(Debug, Default)]
pub(super) struct Gap {
    until: Option<Instant>,
}

impl Gap {
    /// Returns whether timers are held back.
    pub(super) fn is_open(&self) -> bool {
        self.until.is_some()
    }

    /// Returns whether timers may fire in the turn that began at `now`, though requested for `asked`, with `events`
    /// events.
    pub(super) fn timers_may_fire(&mut self, asked: Instant, now: Instant, events: usize) -> bool {
        match self.until {
            None if now.since(asked) < LATE => return true,
            // Even the wait that a stop interrupted proves nothing: it returns EINTR.
            None => self.until = Some(now + CATCH_UP),
            Some(until) if events == 0 || now >= until => {
                self.until = None;
                return true;
            }
            Some(_) => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn timers_wait_until_a_wait_returns_no_more_events() {
        let mut gap = Gap::default();
        assert!(gap.timers_may_fire(at(10), at(11), 5));
        assert!(!gap.timers_may_fire(at(20), at(60_000), 0), "the wait was interrupted");
        for turn in 0..9 {
            assert!(!gap.timers_may_fire(at(60_000 + turn), at(60_001 + turn), 1024), "turn {turn}");
        }
        assert!(gap.timers_may_fire(at(60_010), at(60_010), 0));
        assert!(gap.timers_may_fire(at(60_020), at(60_020), 1024));
    }

    #[test]
    fn timers_fire_though_every_turn_is_late() {
        let mut gap = Gap::default();
        let fired =
            (0..100).filter(|&turn| gap.timers_may_fire(at(2_000 * turn), at(2_000 * turn + 2_000), 1024));
        assert_eq!(fired.count(), 50);
    }

    #[test]
    fn timers_fire_though_something_happens_all_the_time() {
        let mut gap = Gap::default();
        assert!(!gap.timers_may_fire(at(0), at(5_000), 1));
        assert!(!gap.timers_may_fire(at(5_000), at(5_999), 1));
        assert!(gap.timers_may_fire(at(5_999), at(6_000), 1));
    }
}
