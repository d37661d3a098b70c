//! Counters that every worker has a shard of, so that none waits for a cache line that another has just written.

use crate::base::own_line::OwnLine;

/// Shards of one set of counters. Workers beyond share them: the counters of a shard may be written by any thread.
const SHARDS_MAX: usize = 16;

/// One `T` for each worker. They live as long as what they count, not as long as a worker: one that goes leaves its
/// counts, and the next of its number adds to them.
#[derive(Debug)]
pub struct Shards<T>(Box<[OwnLine<T>]>);

impl<T: Default> Shards<T> {
    /// For so many workers; more may come later.
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers.clamp(1, SHARDS_MAX)).map(|_| OwnLine::default()).collect())
    }
}

impl<T> Shards<T> {
    /// That of a worker.
    pub(super) fn of(&self, worker: usize) -> &T {
        &self.0[worker % self.0.len()]
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|shard| &shard.0)
    }

    /// What `read` returns of each, added up.
    pub(super) fn sum(&self, read: impl Fn(&T) -> u64) -> u64 {
        self.iter().map(read).sum()
    }

    /// The same of a row of numbers.
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
