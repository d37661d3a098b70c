//! How long connecting took and sessions lasted between two moments.

use crate::api;
use crate::pool::Snapshot;
use crate::stats::{Latency, Lifetime, ListenerStats, Reading};

/// The durations measured by all listeners together.
pub(super) struct Times {
    connect: Reading,
    duration: Reading,
}

impl Times {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let stats = || snapshot.listeners.iter().map(|listener| listener.stats());
        Self {
            connect: Reading::sum_of::<Latency>(stats().map(ListenerStats::connect_time)),
            duration: Reading::sum_of::<Lifetime>(stats().map(ListenerStats::duration)),
        }
    }

    /// Returns how long connecting took since `before`.
    pub(super) fn connect_since(&self, before: &Self) -> api::Latency {
        between(&before.connect, &self.connect)
    }

    /// Returns how long the sessions lasted that have ended since `before`.
    pub(super) fn duration_since(&self, before: &Self) -> api::Latency {
        between(&before.duration, &self.duration)
    }
}

/// Returns percentiles of what was counted between two readings. A listener removed in between takes its counts along:
/// that second has too few, and the next is right again.
fn between(before: &Reading, now: &Reading) -> api::Latency {
    let buckets = now.buckets().zip(before.buckets());
    let counted: Vec<Bucket> = buckets
        .map(|((upper, now), (_, before))| Bucket { upper, count: now.saturating_sub(before) })
        .collect();
    percentiles(&counted)
}

/// Durations up to `upper` seconds, and longer than those of the bucket before.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    upper: f64,
    count: u64,
}

fn percentiles(buckets: &[Bucket]) -> api::Latency {
    let count = buckets.iter().map(|bucket| bucket.count).sum();
    let at = |part| percentile(buckets, part * count as f64);
    api::Latency { count, p50: at(0.5), p90: at(0.9), p99: at(0.99) }
}

/// Returns the duration that `rank` of all did not exceed, as if each bucket's were spread over it evenly. Those beyond
/// the last bound count as that bound. `None` when nothing was counted.
fn percentile(buckets: &[Bucket], rank: f64) -> Option<f64> {
    let (mut lower, mut below) = (0.0, 0.0);
    for &Bucket { upper, count } in buckets {
        let count = count as f64;
        if count > 0.0 && below + count >= rank {
            let part = (rank - below) / count;
            return Some(if upper.is_finite() { lower + (upper - lower) * part } else { lower });
        }
        below += count;
        lower = upper;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::Histogram;

    const BOUNDS: [f64; 4] = [1.0, 2.0, 4.0, f64::INFINITY];

    fn counted(counts: [u64; 4]) -> api::Latency {
        let buckets: Vec<Bucket> =
            BOUNDS.into_iter().zip(counts).map(|(upper, count)| Bucket { upper, count }).collect();
        percentiles(&buckets)
    }

    #[test]
    fn a_percentile_is_within_its_bucket_by_how_many_are_below() {
        for (counts, p50, p90, p99) in [
            ([100, 0, 0, 0], 0.5, 0.9, 0.99),
            ([0, 100, 0, 0], 1.5, 1.9, 1.99),
            ([50, 50, 0, 0], 1.0, 1.8, 1.98),
            ([0, 0, 1, 0], 3.0, 3.8, 3.98),
            ([90, 0, 10, 0], 50.0 / 90.0, 1.0, 3.8),
            // The last bound is the best estimate for longer ones.
            ([98, 0, 0, 2], 50.0 / 98.0, 90.0 / 98.0, 4.0),
            ([0, 0, 0, 7], 4.0, 4.0, 4.0),
        ] {
            let latency = counted(counts);
            assert_eq!(latency.count, counts.iter().sum::<u64>());
            for (got, wanted) in [(latency.p50, p50), (latency.p90, p90), (latency.p99, p99)] {
                assert!((got.unwrap() - wanted).abs() < 1e-9, "{counts:?}: {latency:?}, not {wanted}");
            }
        }
    }

    #[test]
    fn without_samples_there_is_no_percentile() {
        assert_eq!(counted([0; 4]), api::Latency::default());
    }

    #[test]
    fn only_samples_since_the_last_reading_count() {
        let histogram = Histogram::<Latency>::default();
        (0..1000).for_each(|_| histogram.observe(Duration::from_secs(9)));
        let before = histogram.read();
        (0..10).for_each(|_| histogram.observe(Duration::from_micros(90)));
        let latency = between(&before, &histogram.read());
        assert_eq!(latency.count, 10);
        assert!(latency.p99.unwrap() <= 0.0001);
        // Swapped, as when a listener has gone.
        assert_eq!(between(&histogram.read(), &before), api::Latency::default());
    }
}
