//! The counters of given bytes against what the network knows: never ahead of it, never further behind than a byte may
//! wait to be counted, and the same in the end.

use std::collections::VecDeque;

use l4lb::session::Direction;
use l4lb::stats::WorkerStats;

use crate::conn::Nanos;
use crate::oracle::Patience;

/// How long a byte of a session that lasts may wait to be counted.
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
    /// How long after it was given a byte is due to be counted.
    patience: Nanos,
    /// What had been given in a turn, oldest first.
    given: VecDeque<(Nanos, Given)>,
    /// What was due in a turn, unless that came late.
    due: VecDeque<(Nanos, Given)>,
    /// What has to be counted by now.
    owed: Given,
}

impl Books {
    pub(crate) fn new(patience: Patience) -> Self {
        // A session is known to last when its first timer fires.
        let patience = COUNT_PERIOD.max(patience.connect) + TICKS;
        Self { patience, given: VecDeque::new(), due: VecDeque::new(), owed: [0; 2] }
    }

    /// The worker had a turn at `now`, and had given so much behind it.
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

/// Bytes that the worker says it has given.
pub(crate) fn counted(stats: &WorkerStats) -> Given {
    [stats.to_backend.get(), stats.to_client.get()]
}

/// Takes out what was written down until then, and returns the last of it.
fn last_until(entries: &mut VecDeque<(Nanos, Given)>, until: Nanos) -> Option<Given> {
    let count = entries.partition_point(|&(when, _)| when <= until);
    entries.drain(..count).next_back().map(|(_, given)| given)
}
