//! A rate with a burst: decides whether one more of something is allowed now.
//! Never reads a clock and never waits.

use std::time::Duration;

use crate::base::time::Instant;

/// Allows `burst` at once and one more every `period`; counts what it refuses.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    period: Duration,
    burst: u32,
    tokens: u32,
    refilled: Instant,
    refused: u64,
}

impl TokenBucket {
    /// Returns a full bucket. A `period` of zero counts as a nanosecond.
    pub fn new(burst: u32, period: Duration, now: Instant) -> Self {
        Self { period, burst, tokens: burst, refilled: now, refused: 0 }
    }

    /// Returns the number refused since the last success, or `None` when this one is refused too.
    pub fn take(&mut self, now: Instant) -> Option<u64> {
        let earned = now.since(self.refilled).as_nanos() / self.period.as_nanos().max(1);
        if earned > 0 {
            self.tokens =
                self.burst.min(self.tokens.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)));
            self.refilled = now;
        }
        if self.tokens == 0 {
            self.refused += 1;
            return None;
        }
        self.tokens -= 1;
        Some(std::mem::take(&mut self.refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_a_period_with_the_refused_counted() {
        let second = Duration::from_secs(1);
        let start = Instant::from_nanos(9);
        let mut bucket = TokenBucket::new(2, second, start);
        assert_eq!(bucket.take(start), Some(0));
        assert_eq!(bucket.take(start), Some(0));
        assert_eq!(bucket.take(start), None);
        assert_eq!(bucket.take(start), None);
        assert_eq!(bucket.take(start + second), Some(2));
        assert_eq!(bucket.take(start + second), None);
        assert_eq!(bucket.take(start + second * 100), Some(1));
    }
}
