//! When a lease is renewed, and when what has failed is tried again.

use std::time::Duration;

use crate::base::rng::Rng;

/// Renewals per length of a lease: two may be lost, since each waits half that long for its answer.
pub const RENEWALS: u32 = 3;
/// Pause before the first retry; doubles with each.
pub const RETRY_MIN: Duration = Duration::from_millis(250);
/// Longest pause between retries.
pub const RETRY_MAX: Duration = Duration::from_secs(5);

/// Returns the pause behind that many tries that have failed before, which doubles with each and is never longer than
/// the time between renewals.
pub fn retry_pause(tries: u32, renewal: Duration) -> Duration {
    let doubled = RETRY_MIN.saturating_mul(1 << tries.min(16));
    doubled.min(RETRY_MAX).min(renewal)
}

/// Returns a pause that is up to a quarter shorter: what fails for many at once is not asked by all of them at once.
pub fn jittered(pause: Duration, rng: &mut Rng) -> Duration {
    let quarter = u64::try_from((pause / 4).as_millis()).unwrap_or(u64::MAX);
    pause - Duration::from_millis(rng.below(quarter.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_time_between_renewals() {
        let pauses: Vec<u128> =
            (0..6).map(|tries| retry_pause(tries, Duration::from_secs(3)).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 3_000, 3_000]);
        assert_eq!(retry_pause(u32::MAX, Duration::MAX), RETRY_MAX);
    }

    #[test]
    fn chance_makes_a_pause_shorter_by_a_quarter_at_most() {
        let mut rng = Rng::new(1);
        let pauses = (0..1_000).map(|_| jittered(Duration::from_secs(1), &mut rng).as_millis());
        let (min, max) = pauses.fold((u128::MAX, 0), |(min, max), pause| (min.min(pause), max.max(pause)));
        assert!((750..800).contains(&min) && (951..=1_000).contains(&max), "{min}..={max}");
        assert_eq!(jittered(Duration::ZERO, &mut rng), Duration::ZERO);
    }
}
