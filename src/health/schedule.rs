//! The wait before a check. Spreads the checks of many backends so that they never fire together.

use std::time::Duration;

use crate::base::rng::Rng;
use crate::config::model::{BackendCheck, Health};
use crate::health::cause::Cause;

/// The timing of the checks of one backend.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Time between checks.
    pub interval: Duration,
    /// The same while the state is changing.
    pub fast_interval: Duration,
    /// Longest time that one check may take.
    pub timeout: Duration,
    jitter_percent: u8,
}

impl Timing {
    /// Returns the timing of a pool, with what is special about a backend. Nothing exceeds the interval.
    pub fn new(health: &Health, of_backend: &BackendCheck) -> Self {
        let Health { interval, fast_interval, timeout, jitter_percent, .. } = *health;
        let interval = of_backend.interval.unwrap_or(interval);
        let (fast_interval, timeout) = (fast_interval.min(interval), timeout.min(interval));
        Self { interval, fast_interval, timeout, jitter_percent }
    }

    /// Returns how long a check may take whose round has taken `spent` so far: all checks of a round together have one
    /// interval, so that it does not matter to the next round how many there are.
    pub fn limit_after(&self, spent: Duration) -> Duration {
        self.timeout.min(self.interval.saturating_sub(spent))
    }

    /// Returns the cause with the reason for its `limit`, where the checks before it have left less than the timeout.
    pub fn judged(&self, cause: Cause, limit: Duration) -> Cause {
        if limit < self.timeout { cause.late_in_round(self.interval) } else { cause }
    }
}

/// Returns the wait before the first check of a backend: a random part of one interval.
pub fn first_delay(timing: &Timing, rng: &mut Rng) -> Duration {
    part_of(timing.interval, rng)
}

/// Returns a random part of `interval`.
pub fn part_of(interval: Duration, rng: &mut Rng) -> Duration {
    Duration::from_nanos(rng.below(nanos(interval).max(1)))
}

/// Returns the wait before the next check: the interval, or the fast one while `in_transition`, changed by at most the
/// jitter.
pub fn next_delay(timing: &Timing, in_transition: bool, rng: &mut Rng) -> Duration {
    let interval = if in_transition { timing.fast_interval } else { timing.interval };
    around(interval, timing.jitter_percent, rng)
}

/// Returns a duration that is longer or shorter than `interval` by at most this many percent.
pub fn around(interval: Duration, jitter_percent: u8, rng: &mut Rng) -> Duration {
    let interval = nanos(interval);
    let jitter = interval / 100 * u64::from(jitter_percent);
    let earliest = interval.saturating_sub(jitter);
    Duration::from_nanos(earliest.saturating_add(rng.below(jitter.saturating_mul(2).saturating_add(1))))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Cause, Duration, Rng, Timing, first_delay, next_delay};
    use crate::config::model::{BackendCheck, Check, Health, HealthState};
    use crate::health::cause::ProbeStep;

    const CHECKS: usize = 10_000;

    fn timing(interval: Duration, fast_interval: Duration, jitter_percent: u8) -> Timing {
        Timing { interval, fast_interval, timeout: Duration::from_secs(1), jitter_percent }
    }

    #[test]
    fn a_backend_has_the_timing_of_its_pool_cut_to_its_own_interval() {
        let [long, short] = [2_000, 400].map(Duration::from_millis);
        let health = Health {
            check: Check::Tcp,
            written: std::collections::BTreeMap::new(),
            secrets: Vec::new(),
            interval: long,
            fast_interval: short,
            timeout: long,
            rise: 2,
            fall: 3,
            jitter_percent: 0,
            port: None,
            initial_state: HealthState::Unknown,
            more: Vec::new(),
        };
        let timing = |interval| {
            let Timing { interval, fast_interval, timeout, .. } =
                Timing::new(&health, &BackendCheck { interval, ..BackendCheck::default() });
            [interval, fast_interval, timeout].map(|span| span.as_millis())
        };
        assert_eq!(timing(None), [2_000, 400, 2_000]);
        assert_eq!(timing(Some(Duration::from_millis(100))), [100, 100, 100]);
        assert_eq!(timing(Some(Duration::from_secs(60))), [60_000, 400, 2_000]);
    }

    #[test]
    fn the_checks_of_a_round_share_one_interval() {
        let ms = Duration::from_millis(1);
        let timing = timing(2_000 * ms, 500 * ms, 0);
        for (spent, limit) in [(0, 1_000), (1_000, 1_000), (1_200, 800), (2_000, 0), (9_000, 0)] {
            assert_eq!(timing.limit_after(spent * ms), limit * ms, "{spent} ms spent");
        }
        let cause = |limit: u32| {
            let limit = limit * ms;
            timing.judged(Cause::TimedOut { limit, doing: ProbeStep::Connecting }, limit).to_string()
        };
        assert_eq!(cause(1_000), "timed out after 1s while connecting");
        let sentence = "timed out after 800ms while connecting: the checks of a round have 2s together";
        assert_eq!(cause(800), sentence);
        assert_eq!(timing.judged(Cause::Refused, 800 * ms), Cause::Refused);
    }

    /// Returns the most checks that fire in one millisecond, when each of `checks` fires once in two seconds.
    fn most_in_one_tick(checks: impl Iterator<Item = Duration>) -> usize {
        let mut ticks = vec![0; 2_000];
        checks.for_each(|at| ticks[usize::try_from(at.as_millis() % 2_000).unwrap()] += 1);
        ticks.into_iter().max().unwrap()
    }

    /// Case 77.
    #[test]
    fn ten_thousand_checks_never_fire_together() {
        let (timing, mut rng) = (timing(Duration::from_secs(2), Duration::from_millis(500), 10), Rng::new(1));
        let mut due: Vec<_> = (0..CHECKS).map(|_| first_delay(&timing, &mut rng)).collect();
        for round in 0..10 {
            // 5 in each on average; a thousandth of all checks would be 10.
            let most = most_in_one_tick(due.iter().copied());
            assert!(most <= 25, "{most} checks in one tick of round {round}");
            due.iter_mut().for_each(|due| *due += next_delay(&timing, false, &mut rng));
        }
    }

    #[test]
    fn without_jitter_the_interval_is_exact() {
        let (timing, mut rng) = (timing(Duration::from_secs(2), Duration::from_millis(500), 0), Rng::new(1));
        assert_eq!(next_delay(&timing, false, &mut rng), Duration::from_secs(2));
        assert_eq!(next_delay(&timing, true, &mut rng), Duration::from_millis(500));
    }

    #[test]
    fn jitter_reaches_both_ends() {
        let (timing, mut rng) = (timing(Duration::from_secs(1), Duration::from_millis(100), 10), Rng::new(1));
        let delays: Vec<_> = (0..1_000).map(|_| next_delay(&timing, false, &mut rng)).collect();
        assert!(delays.iter().any(|&delay| delay < Duration::from_millis(905)));
        assert!(delays.iter().any(|&delay| delay > Duration::from_millis(1_095)));
    }

    proptest! {
        #[test]
        fn a_delay_is_within_its_jitter(
            nanos in any::<u64>(), jitter in 0u8..=50, in_transition in any::<bool>(), seed in any::<u64>(),
        ) {
            let interval = Duration::from_nanos(nanos);
            let (fast, slow) = if in_transition { (interval, Duration::ZERO) } else { (Duration::ZERO, interval) };
            let timing = timing(slow, fast, jitter);
            let delay = next_delay(&timing, in_transition, &mut Rng::new(seed));
            prop_assert!(delay.abs_diff(interval) <= interval * u32::from(jitter) / 100);
            prop_assert!(first_delay(&timing, &mut Rng::new(seed)) <= timing.interval);
        }
    }
}
