//! Turns results of checks into the state of a backend.

use crate::config::model::HealthState;

/// The state of one backend, and how close it is to changing.
#[derive(Clone, Debug)]
pub struct Verdict {
    state: HealthState,
    /// Results in a row that contradict `state`.
    streak: u32,
    rise: u32,
    fall: u32,
}

impl Verdict {
    /// Starts in `initial`; `rise` successes in a row bring it up, `fall` failures in a row take it down. Both must be
    /// at least 1.
    pub const fn new(initial: HealthState, rise: u32, fall: u32) -> Self {
        Self { state: initial, streak: 0, rise, fall }
    }

    /// Counts a successful check; returns the new state if it has changed.
    pub fn on_success(&mut self) -> Option<HealthState> {
        self.on_result(HealthState::Up, self.rise)
    }

    /// Counts a failed check; returns the new state if it has changed.
    pub fn on_failure(&mut self) -> Option<HealthState> {
        self.on_result(HealthState::Down, self.fall)
    }

    /// Adopts `state`, which another source has found, unless it is in that state already.
    pub fn adopt(&mut self, state: HealthState) {
        if self.state != state {
            (self.state, self.streak) = (state, 0);
        }
    }

    /// Returns the state after all results so far.
    pub const fn state(&self) -> HealthState {
        self.state
    }

    /// Returns true when the next results may change the state: nothing is known yet, or the last result contradicts
    /// it. Then checks should run at the fast interval.
    pub const fn in_transition(&self) -> bool {
        self.streak > 0 || matches!(self.state, HealthState::Unknown)
    }

    fn on_result(&mut self, seen: HealthState, needed: u32) -> Option<HealthState> {
        if seen == self.state {
            self.streak = 0;
            return None;
        }
        self.streak += 1;
        if self.state != HealthState::Unknown && self.streak < needed {
            return None;
        }
        self.state = seen;
        self.streak = 0;
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::HealthState::{Down, Unknown, Up};
    use super::*;

    /// The state after each result of `script` (`+` success, `-` failure), with rise 2 and fall 3.
    fn states(initial: HealthState, script: &str) -> Vec<HealthState> {
        let mut verdict = Verdict::new(initial, 2, 3);
        let mut after = |result| {
            feed(&mut verdict, result == '+');
            verdict.state()
        };
        script.chars().map(&mut after).collect()
    }

    fn feed(verdict: &mut Verdict, success: bool) -> Option<HealthState> {
        if success { verdict.on_success() } else { verdict.on_failure() }
    }

    #[test]
    fn rise_and_fall_are_exact() {
        let cases: [(HealthState, &str, &[HealthState]); 8] = [
            (Up, "--", &[Up, Up]),
            (Up, "---", &[Up, Up, Down]),
            (Down, "+", &[Down]),
            (Down, "++", &[Down, Up]),
            (Up, "--+--+--", &[Up; 8]),
            (Down, "+-+-+-+", &[Down; 7]),
            (Unknown, "-", &[Down]),
            (Unknown, "+---++", &[Up, Up, Up, Down, Down, Up]),
        ];
        for (initial, script, expected) in cases {
            assert_eq!(states(initial, script), expected, "{initial:?} {script}");
        }
    }

    #[test]
    fn a_transition_is_reported_once() {
        let mut verdict = Verdict::new(Up, 1, 1);
        assert_eq!(verdict.on_failure(), Some(Down));
        assert_eq!(verdict.on_failure(), None);
        assert_eq!(verdict.on_success(), Some(Up));
        assert_eq!(verdict.on_success(), None);
    }

    #[test]
    fn a_streak_against_the_state_is_a_transition() {
        let mut verdict = Verdict::new(Unknown, 2, 3);
        assert!(verdict.in_transition());
        for (success, expected) in [(true, false), (false, true), (true, false), (false, true), (false, true)]
        {
            feed(&mut verdict, success);
            assert_eq!(verdict.in_transition(), expected);
        }
        assert_eq!(verdict.on_failure(), Some(Down));
        assert!(!verdict.in_transition());
    }

    /// The state by its definition: the last `rise` or `fall` results agree, whatever came before.
    fn naive(initial: HealthState, rise: usize, fall: usize, results: &[bool]) -> HealthState {
        let mut state = initial;
        for end in 1..=results.len() {
            let all_last = |count: usize, result| {
                end >= count && results[end - count..end].iter().all(|&seen| seen == result)
            };
            state = match state {
                Unknown if results[end - 1] => Up,
                Unknown => Down,
                Up if all_last(fall, false) => Down,
                Down if all_last(rise, true) => Up,
                Up | Down => state,
            };
        }
        state
    }

    proptest! {
        #[test]
        fn the_state_follows_from_the_last_results(
            initial in prop_oneof![Just(Unknown), Just(Up), Just(Down)],
            rise in 1u32..6, fall in 1u32..6, results in vec(any::<bool>(), 0..60),
        ) {
            let mut verdict = Verdict::new(initial, rise, fall);
            for (index, &success) in results.iter().enumerate() {
                let before = verdict.state();
                let changed = feed(&mut verdict, success);
                let expected = naive(initial, rise as usize, fall as usize, &results[..=index]);
                prop_assert_eq!(verdict.state(), expected);
                prop_assert_eq!(changed, (before != expected).then_some(expected));
            }
        }
    }
}
