//! Sessions that have moved bytes which are not counted yet, and when they are.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::slots::{Key, Slots};
use crate::base::time::Instant;
use crate::base::timer_wheel::TimerWheel;
use crate::worker::core::Timer;

/// The longest that a byte of a long session waits to be counted.
pub(super) const COUNT_PERIOD: Duration = Duration::from_secs(5);
/// Sessions counted at a time; the rest follow a moment later, so that no event waits for all of them.
const COUNTS_PER_TURN: usize = 1024;
const MOMENT: Duration = Duration::from_millis(1);

/// The way the bytes of a session are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counting {
    /// At its end, if that comes soon.
    Young,
    /// Long: it is listed as soon as it moves bytes.
    Lasting,
    /// It is on the list.
    Listed,
}

/// The long sessions whose bytes must be counted, in order.
pub(super) struct Uncounted {
    /// Some may have ended: they were counted at their end.
    sessions: VecDeque<Key>,
    /// How many of the first ones are due.
    due: usize,
    has_timer: bool,
}

impl Uncounted {
    pub(super) fn new() -> Self {
        // Room for a few, so that their relay never allocates.
        Self { sessions: VecDeque::with_capacity(COUNTS_PER_TURN), due: 0, has_timer: false }
    }

    pub(super) fn has_timer(&self) -> bool {
        self.has_timer
    }

    /// Returns how many of the listed sessions are open.
    pub(super) fn len_of<T>(&self, sessions: &Slots<T>) -> usize {
        self.sessions.iter().filter(|&&key| sessions.get(key).is_some()).count()
    }

    pub(super) fn list(&mut self, key: Key, now: Instant, wheel: &mut TimerWheel<Timer>) {
        self.sessions.push_back(key);
        if !self.has_timer {
            self.arm(now, wheel);
        }
    }

    /// Takes out the due sessions. [`Uncounted::arm`] must be called afterwards.
    pub(super) fn take_due(&mut self) -> impl Iterator<Item = Key> {
        if self.due == 0 {
            self.due = self.sessions.len();
        }
        let counts = self.due.min(COUNTS_PER_TURN);
        self.due -= counts;
        self.sessions.drain(..counts)
    }

    /// Arms the timer for the next sessions, if there are any.
    pub(super) fn arm(&mut self, now: Instant, wheel: &mut TimerWheel<Timer>) {
        self.has_timer = !self.sessions.is_empty();
        if self.has_timer {
            let wait = if self.due > 0 { MOMENT } else { COUNT_PERIOD };
            wheel.arm(now + wait, Timer::Count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: usize) -> Key {
        Key { index: u32::try_from(index).unwrap(), generation: 1 }
    }

    #[test]
    fn a_long_list_is_counted_over_many_turns_and_what_comes_meanwhile_a_period_later() {
        let mut now = Instant::default();
        let mut wheel = TimerWheel::new(now);
        let mut list = Uncounted::new();
        let listed = 2 * COUNTS_PER_TURN + 100;
        (0..listed).for_each(|index| list.list(key(index), now, &mut wheel));
        let mut next = 0;
        for (wait, expected) in
            [(COUNT_PERIOD, COUNTS_PER_TURN), (MOMENT, COUNTS_PER_TURN), (MOMENT, 100), (COUNT_PERIOD, 3)]
        {
            assert_eq!(wheel.next_timeout(now).map(|timeout| timeout <= wait), Some(true));
            wheel.advance(now + (wait - Duration::from_nanos(1)));
            assert!(wheel.pop_due().is_none(), "not before {wait:?}");
            now = now + wait;
            wheel.advance(now);
            assert!(matches!(wheel.pop_due(), Some(Timer::Count)), "after {wait:?}");
            let keys: Vec<Key> = list.take_due().collect();
            assert_eq!(keys, (next..next + expected).map(key).collect::<Vec<_>>());
            next += expected;
            // Those of the first turn come back at once.
            if next == COUNTS_PER_TURN {
                (listed..listed + 3).for_each(|index| list.list(key(index), now, &mut wheel));
            }
            list.arm(now, &mut wheel);
        }
        assert!(wheel.is_empty() && !list.has_timer(), "no timer for an empty list");
    }
}
