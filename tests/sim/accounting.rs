//! Compares the counters of written bytes with the network: never ahead of it, never further behind than a byte may
//! wait to be counted, and equal in the end.

use std::collections::VecDeque;

use l4lb::session::Direction;
use l4lb::stats::WorkerStats;

use crate::conn::Nanos;
use crate::oracle::Patience;

/// How long a byte of a long session may wait to be counted.
const COUNT_PERIOD: Nanos = 5_000_000_000;
/// How long timers may wait after a turn that was late.
const CATCH_UP: Nanos = 1_000_000_000;
/// A timer fires at the end of its millisecond, and rounds its deadline up to one.
const TICKS: Nanos = 2_000_000;

/// Bytes given, by [`Direction`].
pub(crate) type Given = [u64; 2];

/// The books of one worker.
#[derive(Debug)]
pub(crate) struct Books {
    /// Time after which a written byte must be counted.
    patience: Nanos,
    /// The bytes written in each turn, oldest first.
    given: VecDeque<(Nanos, Given)>,
    /// The bytes due in each turn, unless the turn was late.
    due: VecDeque<(Nanos, Given)>,
    /// The bytes that must be counted by now.
    owed: Given,
}

impl Books {
    pub(crate) fn new(patience: Patience) -> Self {
        // A session counts as long when its first timer fires.
        let patience = COUNT_PERIOD.max(patience.connect) + TICKS;
        Self { patience, given: VecDeque::new(), due: VecDeque::new(), owed: [0; 2] }
    }

    /// Must be called after a turn of the worker at `now`, after which it has written `given`.
    pub(crate) fn check(&mut self, now: Nanos, given: Given, stats: &WorkerStats) {
        if let Some(owed) = last_until(&mut self.due, now.saturating_sub(CATCH_UP)) {
            self.owed = owed;
        }
        if let Some(due) = last_until(&mut self.given, now.saturating_sub(self.patience)) {
            self.due.push_back((now, due));
        }
        if self.given.back().is_none_or(|&(_, before)| before != given) {
            self.given.push_back((now, given));
        }
        for (direction, counted) in Direction::BOTH.into_iter().zip(counted(stats)) {
            let (given, owed) = (given[direction as usize], self.owed[direction as usize]);
            assert!(counted <= given, "{counted} bytes are counted {direction:?}, and {given} were given");
            assert!(counted >= owed, "{counted} bytes are counted {direction:?}, and {owed} are overdue");
        }
    }
}

/// Returns the bytes that the worker has counted.
pub(crate) fn counted(stats: &WorkerStats) -> Given {
    [stats.to_backend.get(), stats.to_client.get()]
}

/// Takes out the entries up to `until`, and returns the last of them.
fn last_until(entries: &mut VecDeque<(Nanos, Given)>, until: Nanos) -> Option<Given> {
    let count = entries.partition_point(|&(when, _)| when <= until);
    entries.drain(..count).next_back().map(|(_, given)| given)
}
