//! Decides whether a wait polls for a while before it sleeps (`busy_poll`). Sleeping and waking takes longer than many
//! peers take to answer, but polling burns a processor. So a worker polls only while that pays off. Never polls and
//! never reads a clock: [`super::linux`] does.

use std::time::Duration;

/// A shorter wait had an event pending when it began. It proves nothing about polling.
const AT_ONCE: Duration = Duration::from_micros(3);

/// Added to the score by a wait that polling ended, or would have ended, in time.
const GAIN: u8 = 1;
/// Subtracted by a wait in which polling was, or would have been, in vain: polling stops once a fifth of the waits is.
const LOSS: u8 = 4;
/// From this score on waits poll. So this many waits in a row must have been worth it before the first one polls.
const POLLING: u8 = 8;
/// The highest score: after the last event only `(SCORE_MAX - POLLING) / LOSS + 1` waits poll in vain.
const SCORE_MAX: u8 = 16;

/// The history of one worker's waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spin {
    /// The longest that one wait polls.
    bound: Duration,
    score: u8,
}

impl Spin {
    /// Returns a history that polls for at most `bound`, once that has proved worth it.
    pub(super) const fn new(bound: Duration) -> Self {
        Self { bound, score: 0 }
    }

    /// Returns a history of waits that were all worth it.
    #[cfg(test)]
    pub(super) const fn eager(bound: Duration) -> Self {
        Self { bound, score: SCORE_MAX }
    }

    /// Returns how long a wait of at most `timeout` should poll; zero to sleep at once.
    pub(super) fn span(&self, timeout: Option<Duration>) -> Duration {
        if self.score < POLLING {
            return Duration::ZERO;
        }
        self.bound.min(timeout.unwrap_or(Duration::MAX))
    }

    /// Records a wait of `waited` that ended with an event or not.
    pub(super) fn note(&mut self, waited: Duration, is_event: bool) {
        if waited > self.bound {
            self.score = self.score.saturating_sub(LOSS);
        } else if is_event && waited > AT_ONCE {
            self.score = SCORE_MAX.min(self.score + GAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_micros(50);
    const SHORT: Duration = Duration::from_micros(20);
    const LONG: Duration = Duration::from_millis(1);

    fn polls(spin: &Spin) -> bool {
        !spin.span(None).is_zero()
    }

    #[test]
    fn nothing_is_polled_for_before_short_waits_have_come_in_a_row() {
        let mut spin = Spin::new(BOUND);
        for wait in 0..POLLING {
            assert!(!polls(&spin), "wait {wait}");
            spin.note(SHORT, true);
        }
        assert!(polls(&spin));
    }

    #[test]
    fn a_process_with_nothing_to_do_soon_sleeps_for_good() {
        for (is_event, who) in [(false, "its timers wake it"), (true, "a client comes now and then")] {
            let mut spin = Spin::eager(BOUND);
            let vain = (0..1000).filter(|_| {
                let polls = polls(&spin);
                spin.note(LONG, is_event);
                polls
            });
            assert_eq!(vain.count(), 3, "{who}");
        }
    }

    /// A client that thinks, then a backend that answers: every second wait is long.
    #[test]
    fn sessions_with_pauses_are_not_polled_for() {
        let mut spin = Spin::eager(BOUND);
        (0..3).for_each(|_| spin.note(LONG, true));
        for round in 0..1000 {
            assert!(!polls(&spin), "round {round}");
            spin.note(SHORT, true);
            assert!(!polls(&spin), "round {round}");
            spin.note(LONG, true);
        }
    }

    #[test]
    fn a_rare_long_wait_does_not_end_it() {
        let mut spin = Spin::eager(BOUND);
        for round in 0..1000 {
            assert!(polls(&spin), "round {round}");
            spin.note(if round % 10 == 0 { LONG } else { SHORT }, true);
        }
    }

    #[test]
    fn a_wait_of_zero_is_not_counted() {
        let (mut fresh, mut eager) = (Spin::new(BOUND), Spin::eager(BOUND));
        for spin in [&mut fresh, &mut eager] {
            let before = polls(spin);
            for _ in 0..1000 {
                spin.note(Duration::ZERO, true);
                spin.note(AT_ONCE, true);
                // A deadline came, or a signal.
                spin.note(SHORT, false);
            }
            assert_eq!(polls(spin), before);
        }
    }

    #[test]
    fn polling_ends_at_the_bound_and_never_after_the_deadline() {
        let spin = Spin::eager(BOUND);
        for (timeout, expected) in [(None, BOUND), (Some(LONG), BOUND), (Some(SHORT), SHORT)] {
            assert_eq!(spin.span(timeout), expected, "{timeout:?}");
        }
    }
}
