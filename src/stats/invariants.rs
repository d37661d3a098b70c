//! The laws by which no session and no byte is lost: relations between counters that must hold on every read, however
//! busy the workers are, and further ones that must hold once the workers are idle.

use super::{FdKind, ListenerReading, Totals};
use crate::session::CloseReason;

/// Only a session without a backend ends for these reasons.
const BEFORE_CONNECT: [CloseReason; 12] = [
    CloseReason::ClientGone,
    CloseReason::NoBackend,
    CloseReason::ConnectRefused,
    CloseReason::ConnectTimeout,
    CloseReason::ConnectUnreachable,
    CloseReason::ConnectFailed,
    CloseReason::TlsRefused,
    CloseReason::LocalLimit,
    CloseReason::ProxyBad,
    CloseReason::PrereadTimeout,
    CloseReason::HelloBad,
    CloseReason::NoSni,
];

/// Collects the laws that do not hold.
#[derive(Default)]
struct Checker(Vec<String>);

impl Checker {
    fn at_most(&mut self, what: &str, less: u64, more: u64) {
        if less > more {
            self.0.push(format!("{what}: {less} > {more}"));
        }
    }

    fn equal(&mut self, what: &str, one: u64, other: u64) {
        if one != other {
            self.0.push(format!("{what}: {one} != {other}"));
        }
    }
}

/// Returns the laws that do not hold, with their figures. Must be empty on every read of running workers.
pub fn violations(totals: &Totals) -> Vec<String> {
    let mut checker = Checker::default();
    let before_connect = BEFORE_CONNECT.iter().map(|&reason| totals.closed_for(reason)).sum();
    checker.at_most("closed <= accepted", totals.closed_total(), totals.accepted);
    checker.at_most("connected + failed <= accepted", totals.connected + totals.failed, totals.accepted);
    checker.at_most("closed before a backend connected <= failed", before_connect, totals.failed);
    checker.at_most(
        "dials that failed or connected <= dials",
        totals.dial_failures + totals.connected,
        totals.dials,
    );
    checker.at_most("retries <= dials", totals.retries, totals.dials);
    checker.at_most("header bytes lost <= begun", totals.header_bytes_lost, totals.header_bytes);
    checker.at_most("pipes closed <= pipes opened", totals.pipes_closed, totals.pipes_opened);
    for (given, direction) in [totals.to_backend, totals.to_client].into_iter().zip(0..) {
        let gone = given + totals.discarded_by_direction[direction];
        checker.at_most("bytes given + discarded <= taken", gone, totals.taken[direction]);
    }
    checker.0
}

/// Also checks the laws that must hold once no session is left and no worker is inside a turn.
pub fn violations_at_rest(totals: &Totals) -> Vec<String> {
    let mut checker = Checker(violations(totals));
    checker.equal("closed = accepted", totals.closed_total(), totals.accepted);
    checker.equal("connected + failed = accepted", totals.connected + totals.failed, totals.accepted);
    for (given, direction) in [totals.to_backend, totals.to_client].into_iter().zip(0..) {
        let gone = given + totals.discarded_by_direction[direction];
        checker.equal("bytes given + discarded = taken", gone, totals.taken[direction]);
    }
    checker.equal("descriptors of clients", totals.fds[FdKind::Client.index()], 0);
    checker.equal("descriptors of backends", totals.fds[FdKind::Backend.index()], 0);
    checker.equal("buffers parked", totals.buffers_parked, 0);
    checker.equal(
        "pipes opened = closed + pooled",
        totals.pipes_opened,
        totals.pipes_closed + totals.pipes_pooled,
    );
    checker.0
}

/// Returns the laws of one listener that do not hold. Must be empty on any read.
pub fn violations_of_listener(counts: &ListenerReading) -> Vec<String> {
    let mut checker = Checker::default();
    let closed = counts.closed.iter().sum();
    checker.at_most("closed <= accepted", closed, counts.accepted);
    checker.at_most("closed <= durations", closed, counts.duration.count());
    checker.at_most("connect times <= durations", counts.connect_time.count(), counts.duration.count());
    checker.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Stage, Summary};
    use crate::stats::{ListenerStats, WorkerStats};
    use std::time::Duration;

    type Wrong = fn(&WorkerStats);

    fn summary(reason: CloseReason, connect_time: Option<Duration>) -> Summary {
        Summary {
            reason,
            reset_by: None,
            half_closed_by: None,
            to_backend: 3,
            to_client: 2,
            discarded: [1, 0],
            connect_time,
            duration: Duration::from_millis(7),
            retries: 0,
            stage: Stage::Ending,
        }
    }

    /// Counters of one session that was served and one that was not.
    fn books() -> WorkerStats {
        let stats = WorkerStats::default();
        stats.accepted.add(2);
        stats.dials.add(2);
        stats.connected.add(1);
        stats.dial_failures[0].add(1);
        stats.on_taken([4, 2]);
        stats.on_given([3, 2]);
        stats.on_closed(&summary(CloseReason::Done, Some(Duration::from_millis(1))));
        let refused = Summary { discarded: [0; 2], ..summary(CloseReason::ConnectRefused, None) };
        stats.on_closed(&refused);
        stats
    }

    #[test]
    fn books_that_add_up_break_no_law() {
        let totals = Totals::of([&books()]);
        assert_eq!(violations_at_rest(&totals), [""; 0]);
    }

    #[test]
    fn every_figure_that_is_too_high_breaks_a_law() {
        let wrongs: [(&str, Wrong); 9] = [
            ("closed <= accepted: 3 > 2", |stats| stats.closed[0].add(1)),
            ("connected + failed <= accepted: 3 > 2", |stats| stats.failed.add(1)),
            ("closed before a backend connected <= failed", |stats| {
                stats.closed[CloseReason::NoBackend.index()].add(1);
            }),
            ("dials that failed or connected <= dials: 3 > 2", |stats| stats.dial_failures[3].add(1)),
            ("retries <= dials", |stats| stats.retries.add(3)),
            ("header bytes lost <= begun: 1 > 0", |stats| stats.on_header_lost(1)),
            ("pipes closed <= pipes opened", |stats| stats.pipes_closed.set(1)),
            ("bytes given + discarded <= taken: 5 > 4", |stats| stats.to_backend.add(1)),
            ("bytes given + discarded <= taken: 3 > 2", |stats| stats.discarded[1].add(1)),
        ];
        for (expected, wrong) in wrongs {
            let stats = books();
            wrong(&stats);
            let found = violations(&Totals::of([&stats]));
            assert!(found.iter().any(|law| law.starts_with(expected)), "{expected}: {found:?}");
        }
    }

    #[test]
    fn a_leftover_at_the_end_violates_an_invariant() {
        let wrongs: [Wrong; 6] = [
            |stats| stats.accepted.add(1),
            |stats| stats.taken[0].add(1),
            |stats| stats.fds[FdKind::Client.index()].set(1),
            |stats| stats.fds[FdKind::Backend.index()].set(1),
            |stats| stats.buffers_parked.set(1),
            |stats| stats.pipes_opened.set(1),
        ];
        for wrong in wrongs {
            let stats = books();
            wrong(&stats);
            let totals = Totals::of([&stats]);
            assert_eq!(violations(&totals), [""; 0], "while workers run it may be so");
            assert!(!violations_at_rest(&totals).is_empty());
        }
    }

    #[test]
    fn a_listener_has_closed_no_more_than_it_has_accepted() {
        let stats = ListenerStats::new(2);
        stats.of(0).accepted.add(1);
        // By the other worker, which had adopted the session.
        stats.of(1).on_closed(&summary(CloseReason::Done, None));
        assert_eq!(violations_of_listener(&stats.read()), [""; 0]);
        assert_eq!(stats.read().active(), 0);
        stats.of(0).on_closed(&summary(CloseReason::Done, None));
        assert!(!violations_of_listener(&stats.read()).is_empty());
    }
}
