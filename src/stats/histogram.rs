//! Durations in buckets with fixed bounds: an old scrape can be compared with a new one.

use std::marker::PhantomData;
use std::time::Duration;

use super::Tally;

/// The upper bounds of the buckets of one kind of duration, ascending; a last bucket takes longer ones.
pub trait Bounds {
    /// A duration equal to a bound counts in its bucket. There must be fewer than `BUCKETS_MAX`.
    const UPPER: &'static [Duration];
}

/// A histogram has one bucket more than bounds.
const BUCKETS_MAX: usize = 17;

const fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Duration of a connect or a check: 100 µs to 10 s.
#[derive(Debug)]
pub enum Latency {}

impl Bounds for Latency {
    const UPPER: &'static [Duration] = &[
        micros(100),
        micros(250),
        micros(500),
        millis(1),
        micros(2_500),
        millis(5),
        millis(10),
        millis(25),
        millis(50),
        millis(100),
        millis(250),
        millis(500),
        secs(1),
        millis(2_500),
        secs(5),
        secs(10),
    ];
}

/// Duration of a session: 1 ms to a day.
#[derive(Debug)]
pub enum Lifetime {}

impl Bounds for Lifetime {
    const UPPER: &'static [Duration] = &[
        millis(1),
        millis(5),
        millis(10),
        millis(50),
        millis(100),
        millis(500),
        secs(1),
        secs(5),
        secs(10),
        secs(30),
        secs(60),
        secs(300),
        secs(1_800),
        secs(3_600),
        secs(6 * 3_600),
        secs(24 * 3_600),
    ];
}

/// Duration of a turn between two waits: 5 µs to 1 s.
#[derive(Debug)]
pub enum TurnTime {}

impl Bounds for TurnTime {
    const UPPER: &'static [Duration] = &[
        micros(5),
        micros(10),
        micros(25),
        micros(50),
        micros(100),
        micros(250),
        micros(500),
        millis(1),
        micros(2_500),
        millis(5),
        millis(10),
        millis(25),
        millis(50),
        millis(100),
        secs(1),
    ];
}

/// Counts durations by bucket. Any thread may write, at two locked instructions each: not for every packet.
#[derive(Debug)]
pub struct Histogram<B> {
    /// In place, so that a histogram shares the cache lines of its owner. The last ones may be unused.
    buckets: [Tally; BUCKETS_MAX],
    nanos: Tally,
    bounds: PhantomData<fn() -> B>,
}

impl<B: Bounds> Default for Histogram<B> {
    fn default() -> Self {
        const { assert!(B::UPPER.len() < BUCKETS_MAX) };
        Self { buckets: Default::default(), nanos: Tally::default(), bounds: PhantomData }
    }
}

impl<B: Bounds> Histogram<B> {
    /// Adds one duration to the first bucket whose bound is not below it.
    pub fn observe(&self, time: Duration) {
        // The order of the two does not matter: no law relates them.
        self.nanos.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.buckets[B::UPPER.partition_point(|&upper| upper < time)].add(1);
    }

    /// Returns the counts so far.
    pub fn read(&self) -> Reading {
        let buckets = self.buckets.iter().take(B::UPPER.len() + 1).map(Tally::get).collect();
        Reading { bounds: B::UPPER, buckets, sum: Duration::from_nanos(self.nanos.get()) }
    }
}

/// A histogram at one moment, or the sum of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    bounds: &'static [Duration],
    /// Of each bucket alone, not cumulative.
    buckets: Vec<u64>,
    /// The sum of all durations.
    pub sum: Duration,
}

impl Reading {
    /// Returns the sum of `readings`, which must all be of kind `B`.
    pub fn sum_of<B: Bounds>(readings: impl IntoIterator<Item = Self>) -> Self {
        let nothing = Self { bounds: B::UPPER, buckets: vec![0; B::UPPER.len() + 1], sum: Duration::ZERO };
        readings.into_iter().fold(nothing, |mut all, one| {
            debug_assert_eq!(all.bounds, one.bounds, "of one kind");
            all.buckets.iter_mut().zip(one.buckets).for_each(|(all, one)| *all += one);
            all.sum += one.sum;
            all
        })
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns cumulative counts as Prometheus defines them: per bound, how many durations were at most that long. The
    /// last one, with no bound, is [`Reading::count`].
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        let mut count = 0;
        bounds.zip(&self.buckets).map(move |(bound, bucket)| {
            count += bucket;
            (bound, count)
        })
    }

    /// Returns the bounds in seconds with the count of each bucket alone; the last bound is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self.bounds.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        bounds.zip(self.buckets.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rises(bounds: &[Duration]) -> bool {
        bounds.windows(2).all(|pair| pair[0] < pair[1])
    }

    #[test]
    fn the_bounds_of_every_kind_ascend() {
        assert!(rises(Latency::UPPER) && rises(Lifetime::UPPER) && rises(TurnTime::UPPER));
    }

    #[test]
    fn a_time_is_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::<Latency>::default();
        for time in [Duration::ZERO, micros(100), micros(101), secs(10), secs(11)] {
            histogram.observe(time);
        }
        let reading = histogram.read();
        let cumulative: Vec<_> = reading.cumulative().collect();
        assert_eq!(cumulative[0], (Some(micros(100)), 2));
        assert_eq!(cumulative[1], (Some(micros(250)), 3));
        assert_eq!(cumulative[Latency::UPPER.len() - 1], (Some(secs(10)), 4));
        assert_eq!(cumulative.last(), Some(&(None, 5)));
        assert_eq!((reading.count(), reading.sum), (5, micros(201) + secs(21)));
    }

    #[test]
    fn readings_of_several_workers_add_up() {
        let [one, other] = [(); 2].map(|()| Histogram::<TurnTime>::default());
        one.observe(micros(7));
        other.observe(micros(7));
        other.observe(secs(2));
        let sum = Reading::sum_of::<TurnTime>([one.read(), other.read()]);
        assert_eq!((sum.count(), sum.sum), (3, micros(14) + secs(2)));
        assert_eq!(sum.cumulative().nth(1), Some((Some(micros(10)), 2)));
        assert_eq!(Reading::sum_of::<TurnTime>([]).count(), 0);
    }
}
