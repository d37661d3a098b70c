//! Counters of one listener, over all workers.

use super::shards::Shards;
use super::{Histogram, Latency, Lifetime, Reading, Tally};
use crate::session::{CloseReason, Summary};

/// Counters of one listener. The same object in every version of it.
#[derive(Debug)]
pub struct ListenerStats(
    /// 512 bytes for each worker, of at most 16: 8 KiB.
    Shards<ListenerCounts>,
);

/// What one worker counts of the sessions through a listener.
#[derive(Debug, Default)]
pub struct ListenerCounts {
    /// Connections taken from its accept queues.
    pub accepted: Tally,
    /// Sessions over, by [`CloseReason::index`].
    pub closed: [Tally; CloseReason::ALL.len()],
    /// Bytes given to backends and to clients, by [`Direction`](crate::session::Direction).
    pub given: [Tally; 2],
    /// From accept to the connected backend, failed dials included.
    pub connect_time: Histogram<Latency>,
    /// From accept to the end.
    pub duration: Histogram<Lifetime>,
}

/// Counters of one listener as of one moment.
#[derive(Clone, Debug)]
pub struct ListenerReading {
    /// Connections taken from its accept queues.
    pub accepted: u64,
    /// Sessions over, by [`CloseReason::index`].
    pub closed: [u64; CloseReason::ALL.len()],
    /// Bytes given to backends and to clients.
    pub given: [u64; 2],
    /// From accept to the connected backend.
    pub connect_time: Reading,
    /// From accept to the end.
    pub duration: Reading,
}

impl ListenerReading {
    /// Sessions that are not over.
    pub fn active(&self) -> u64 {
        self.accepted.saturating_sub(self.closed.iter().sum())
    }
}

impl ListenerStats {
    /// Nothing counted yet, by so many workers.
    pub fn new(workers: usize) -> Self {
        Self(Shards::new(workers))
    }

    /// What a worker counts.
    pub fn of(&self, worker: usize) -> &ListenerCounts {
        self.0.of(worker)
    }

    /// All of them. What takes away is read before what adds, over all workers: one may close what another has accepted.
    pub fn read(&self) -> ListenerReading {
        let closed = self.0.sums(|counts| counts.closed.each_ref().map(Tally::get));
        let connect_time = self.connect_time();
        let duration = self.duration();
        let given = self.0.sums(|counts| counts.given.each_ref().map(Tally::get));
        let accepted = self.0.sum(|counts| counts.accepted.get());
        ListenerReading { accepted, closed, given, connect_time, duration }
    }

    /// From accept to the connected backend, failed dials included.
    pub fn connect_time(&self) -> Reading {
        Reading::sum_of::<Latency>(self.0.iter().map(|counts| counts.connect_time.read()))
    }

    /// From accept to the end.
    pub fn duration(&self) -> Reading {
        Reading::sum_of::<Lifetime>(self.0.iter().map(|counts| counts.duration.read()))
    }
}

impl ListenerCounts {
    /// Counts bytes that were given.
    pub fn on_given(&self, bytes: [u64; 2]) {
        self.given.iter().zip(bytes).for_each(|(given, bytes)| given.add(bytes));
    }

    /// Counts a session that is over; its bytes have been counted already.
    pub fn on_closed(&self, summary: &Summary) {
        self.duration.observe(summary.duration);
        if let Some(time) = summary.connect_time {
            self.connect_time.observe(time);
        }
        self.closed[summary.reason.index()].add(1);
    }
}
