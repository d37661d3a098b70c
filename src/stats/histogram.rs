//! How long things took, in buckets whose bounds never change: an old scrape can be compared with a new one.

use std::marker::PhantomData;
use std::time::Duration;

use super::Tally;

/// The upper bounds of the buckets of one kind of time, ascending; a last bucket takes what is longer.
pub trait Bounds {
    /// A time that is equal to a bound is in its bucket. Fewer than `BUCKETS_MAX`.
    const UPPER: &'static [Duration];
}

/// Buckets of a histogram: one more than it has bounds.
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

/// The time of a connect or a check: 100 µs to 10 s.
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

/// How long a session lasts: 1 ms to a day.
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

/// What a worker does between two waits: 5 µs to 1 s.
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

/// Counts times by bucket. Any thread may write: two locked instructions each, so not for every packet.
#[derive(Debug)]
pub struct Histogram<B> {
    /// In place, so that a histogram is on the cache lines of what it belongs to. The last ones may be unused.
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
    /// Counts a time.
    pub fn observe(&self, time: Duration) {
        // Behind the sum would be as good: no law joins the two.
        self.nanos.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.buckets[B::UPPER.partition_point(|&upper| upper < time)].add(1);
    }

    /// What was counted so far.
    pub fn read(&self) -> Reading {
        let buckets = self.buckets.iter().take(B::UPPER.len() + 1).map(Tally::get).collect();
        Reading { bounds: B::UPPER, buckets, sum: Duration::from_nanos(self.nanos.get()) }
    }
}

/// A histogram as of one moment, or the sum of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    bounds: &'static [Duration],
    /// Of each bucket alone.
    buckets: Vec<u64>,
    /// All times together.
    pub sum: Duration,
}

impl Reading {
    /// The sum over `readings` of one kind of time, `B`.
    pub fn sum_of<B: Bounds>(readings: impl IntoIterator<Item = Self>) -> Self {
        let nothing = Self { bounds: B::UPPER, buckets: vec![0; B::UPPER.len() + 1], sum: Duration::ZERO };
        readings.into_iter().fold(nothing, |mut all, one| {
            debug_assert_eq!(all.bounds, one.bounds, "of one kind");
            all.buckets.iter_mut().zip(one.buckets).for_each(|(all, one)| *all += one);
            all.sum += one.sum;
            all
        })
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// As Prometheus has it: how many times were at most that long. The last, with no bound, is [`Reading::count`].
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        let mut count = 0;
        bounds.zip(&self.buckets).map(move |(bound, bucket)| {
            count += bucket;
            (bound, count)
        })
    }

    /// The bounds in seconds with the count of each bucket alone; the last bound is infinite.
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
