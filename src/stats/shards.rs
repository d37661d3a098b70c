//! Counters with a shard per worker, so that none waits for a cache line that another has just written.

use crate::base::own_line::OwnLine;

/// Most shards of one set of counters. Further workers share them, so any thread may write any shard.
const SHARDS_MAX: usize = 16;

/// One `T` per worker. Shards live as long as the object they count for, not as long as a worker: a worker that ends
/// leaves its counts, and the next one of its number adds to them.
#[derive(Debug)]
pub struct Shards<T>(Box<[OwnLine<T>]>);

impl<T: Default> Shards<T> {
    /// Returns shards for `workers` workers; more may be started later.
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers.clamp(1, SHARDS_MAX)).map(|_| OwnLine::default()).collect())
    }
}

impl<T> Shards<T> {
    pub(super) fn of(&self, worker: usize) -> &T {
        &self.0[worker % self.0.len()]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|shard| &shard.0)
    }

    /// Returns the sum of what `read` returns for each shard.
    pub(super) fn sum(&self, read: impl Fn(&T) -> u64) -> u64 {
        self.iter().map(read).sum()
    }

    /// Returns the sums, element by element, of the arrays that `read` returns for each shard.
    pub(super) fn sums<const N: usize>(&self, read: impl Fn(&T) -> [u64; N]) -> [u64; N] {
        let mut sums = [0; N];
        for shard in self.iter() {
            sums.iter_mut().zip(read(shard)).for_each(|(sum, count)| *sum += count);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::Tally;
    use super::*;

    /// A reload may start more workers than there were when a backend was configured, or end some.
    #[test]
    fn workers_that_come_and_go_lose_no_count() {
        for (shards, workers) in [(1, 1), (1, 3), (2, 5), (4, 2), (64, 64)] {
            let counts = Shards::<Tally>::new(shards);
            thread::scope(|scope| {
                let counts = &counts;
                for worker in 0..workers {
                    scope.spawn(move || (0..1_000).for_each(|_| counts.of(worker).add(1)));
                }
            });
            assert_eq!(counts.sum(Tally::get), 1_000 * workers as u64, "{workers} over {shards}");
        }
    }

    #[test]
    fn there_are_no_more_than_so_many() {
        assert_eq!(
            [0, 1, 16, 500].map(|workers| Shards::<Tally>::new(workers).iter().count()),
            [1, 1, 16, 16]
        );
    }
}
