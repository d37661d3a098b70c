//! Counters of one listener, over all workers.

use super::shards::Shards;
use super::{Histogram, Latency, Lifetime, Reading, RefuseReason, Tally};
use crate::session::{CloseReason, Summary};

/// Shared by all versions of a listener.
#[derive(Debug)]
pub struct ListenerStats(
    /// 512 bytes per worker, of at most 16: 8 KiB.
    Shards<ListenerCounts>,
);

/// One worker's counts of the sessions through a listener.
#[derive(Debug, Default)]
pub struct ListenerCounts {
    /// Connections taken from its accept queues.
    pub accepted: Tally,
    /// Sessions that have ended, by [`CloseReason::index`].
    pub closed: [Tally; CloseReason::ALL.len()],
    /// Clients turned away that were no sessions, by [`RefuseReason::index`]. The others are in `closed` alone.
    pub turned_away: [Tally; RefuseReason::ALL.len()],
    /// Bytes written to backends and to clients, by [`Direction`](crate::session::Direction).
    pub given: [Tally; 2],
    /// As [`Summary::connect_time`].
    pub connect_time: Histogram<Latency>,
    /// From accept to the end.
    pub duration: Histogram<Lifetime>,
}

/// Counters of one listener at one moment.
#[derive(Clone, Debug)]
pub struct ListenerReading {
    /// Connections taken from its accept queues.
    pub accepted: u64,
    /// Sessions that have ended, by [`CloseReason::index`].
    pub closed: [u64; CloseReason::ALL.len()],
    /// All clients turned away, by [`RefuseReason::index`]: sessions that ended so are in `closed`, too.
    pub refused: [u64; RefuseReason::ALL.len()],
    /// Bytes written to backends and to clients.
    pub given: [u64; 2],
    /// As [`Summary::connect_time`].
    pub connect_time: Reading,
    /// From accept to the end.
    pub duration: Reading,
}

impl ListenerReading {
    /// Returns the number of open sessions.
    pub fn active(&self) -> u64 {
        self.accepted.saturating_sub(self.closed.iter().sum())
    }

    /// Returns the number of sessions that ended for a reason that a client sees as a failure.
    pub fn failed(&self) -> u64 {
        let failures = CloseReason::ALL.into_iter().filter(|reason| reason.is_failure());
        failures.map(|reason| self.closed[reason.index()]).sum()
    }
}

impl ListenerStats {
    /// Returns counters at zero, for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self(Shards::new(workers))
    }

    /// Returns the counts of one worker.
    pub fn of(&self, worker: usize) -> &ListenerCounts {
        self.0.of(worker)
    }

    /// Returns all counts. Subtrahends are read before minuends, over all workers: one may close a session that another
    /// has accepted.
    pub fn read(&self) -> ListenerReading {
        let closed = self.0.sums(|counts| counts.closed.each_ref().map(Tally::get));
        let mut refused = self.0.sums(|counts| counts.turned_away.each_ref().map(Tally::get));
        for ended in CloseReason::ALL {
            if let Some(reason) = RefuseReason::of(ended) {
                refused[reason.index()] += closed[ended.index()];
            }
        }
        let connect_time = self.connect_time();
        let duration = self.duration();
        let given = self.0.sums(|counts| counts.given.each_ref().map(Tally::get));
        let accepted = self.0.sum(|counts| counts.accepted.get());
        ListenerReading { accepted, closed, refused, given, connect_time, duration }
    }

    /// Returns the times until backends were connected, as [`Summary::connect_time`].
    pub fn connect_time(&self) -> Reading {
        Reading::sum_of::<Latency>(self.0.iter().map(|counts| counts.connect_time.read()))
    }

    /// Returns the times from accept to the end.
    pub fn duration(&self) -> Reading {
        Reading::sum_of::<Lifetime>(self.0.iter().map(|counts| counts.duration.read()))
    }
}

impl ListenerCounts {
    /// Counts bytes written.
    pub fn on_given(&self, bytes: [u64; 2]) {
        self.given.iter().zip(bytes).for_each(|(given, bytes)| given.add(bytes));
    }

    /// Counts a session that has ended. Its bytes must have been counted already.
    pub fn on_closed(&self, summary: &Summary) {
        self.duration.observe(summary.duration);
        if let Some(time) = summary.connect_time {
            self.connect_time.observe(time);
        }
        self.closed[summary.reason.index()].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They were two counters, and a reading in between had them differ.
    #[test]
    fn a_client_that_is_turned_away_is_one_refused_and_a_session_that_ended_so_if_it_was_one() {
        let stats = ListenerStats::new(2);
        stats.of(0).turned_away[RefuseReason::PrereadLimit.index()].add(3);
        for (worker, reason) in CloseReason::ALL.into_iter().enumerate() {
            stats.of(worker % 2).closed[reason.index()].add(1);
        }
        let reading = stats.read();
        for reason in RefuseReason::ALL {
            let expected = match reason {
                RefuseReason::Denied | RefuseReason::ProxyUntrusted => 0,
                RefuseReason::PrereadLimit => 3,
                RefuseReason::ProxyBad
                | RefuseReason::PrereadTimeout
                | RefuseReason::HelloBad
                | RefuseReason::NoSni => 1,
            };
            assert_eq!(reading.refused[reason.index()], expected, "{reason:?}");
        }
    }
}
