//! Counters of one worker. Written by it alone, read by anyone.

use std::time::Duration;

use super::{Counter, DialFailure, FdKind, Gauge, Histogram, Latency, PauseReason, TurnTime};
use crate::session::{CloseReason, Summary};

/// Counters of one worker.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Connections taken from accept queues.
    pub accepted: Counter,
    /// Accepted connections that another worker was given.
    pub handed_over: Counter,
    /// Sessions that another worker has accepted.
    pub adopted: Counter,
    /// Sessions whose backend connected.
    pub connected: Counter,
    /// Sessions that ended before any backend had connected.
    pub failed: Counter,
    /// Sessions over, by [`CloseReason::index`].
    pub closed: [Counter; CloseReason::ALL.len()],
    /// Bytes taken from clients and from backends, by [`Direction`](crate::session::Direction): counted when a session
    /// has had its share of a turn.
    pub taken: [Counter; 2],
    /// Bytes given to backends: all of a session that is over, and of one that lasts all but the newest
    /// (`worker/byte_accounting.rs`).
    pub to_backend: Counter,
    /// Bytes given to clients, the same way.
    pub to_client: Counter,
    /// Bytes taken from one side that the other could not take any more, by sessions that are over and by direction.
    pub discarded: [Counter; 2],
    /// Dials begun.
    pub dials: Counter,
    /// Dials that failed, whoever's fault, by [`DialFailure::index`].
    pub dial_failures: [Counter; DialFailure::ALL.len()],
    /// Dials that followed a failed one of the same session.
    pub retries: Counter,
    /// Times that accept(2) failed.
    pub accept_errors: Counter,
    /// Times that accepting was paused, by [`PauseReason::index`].
    pub accept_pauses: [Counter; PauseReason::ALL.len()],
    /// How long it was, in nanoseconds: until accept(2) was tried again.
    pub accept_paused_nanos: [Counter; PauseReason::ALL.len()],
    /// As of the end of a turn, pipes that the kernel ever gave.
    pub pipes_opened: Gauge,
    /// As of the end of a turn, those of them that were given back to it.
    pub pipes_closed: Gauge,
    /// Pipes that the kernel did not give: what was to be spliced was copied.
    pub pipes_denied: Counter,
    /// Pipes that were taken from sinks that had stalled, for streams that found none.
    pub pipes_reclaimed: Counter,
    /// Turns of the loop. Of a worker that was woken and does not turn it stands still.
    pub turns: Counter,
    /// What one turn in sixteen did between two waits.
    pub turn_time: Histogram<TurnTime>,
    /// Events told by waits.
    pub events: Counter,
    /// Events for connections that were closed earlier in the same batch.
    pub stale_events: Counter,
    /// Events for sessions that had nothing to do upon them.
    pub idle_events: Counter,
    /// Sessions found to wait for an event that never came though there was something to read.
    pub lost_wakeups: Counter,
    /// Times that a session had used up its share of a turn and was put behind the others.
    pub budget_exhausted: Counter,
    /// Health checks that succeeded.
    pub checks_passed: Counter,
    /// Health checks that failed.
    pub checks_failed: Counter,
    /// Health checks put off because this machine had run out of something.
    pub checks_deferred: Counter,
    /// From the start of a check to its result.
    pub check_latency: Histogram<Latency>,
    /// Changes of what the checks say of a backend's health.
    pub transitions: Counter,
    /// As of the end of a turn, open descriptors by [`FdKind::index`].
    pub fds: [Gauge; FdKind::ALL.len()],
    /// As of the end of a turn, empty pipes that are kept.
    pub pipes_pooled: Gauge,
    /// As of the end of a turn, buffers that hold what a sink did not take.
    pub buffers_parked: Gauge,
    /// As of the end of a turn, timers that are armed.
    pub timers: Gauge,
}

impl WorkerStats {
    /// Counts a session that is over; its bytes have been counted already.
    pub fn on_closed(&self, summary: &Summary) {
        self.discarded.iter().zip(summary.discarded).for_each(|(all, bytes)| all.add(bytes));
        if summary.connect_time.is_none() {
            self.failed.add(1);
        }
        self.closed[summary.reason.index()].add(1);
    }

    /// Counts bytes that were taken, by [`Direction`](crate::session::Direction).
    pub fn on_taken(&self, bytes: [u64; 2]) {
        self.taken.iter().zip(bytes).filter(|(_, bytes)| *bytes > 0).for_each(|(all, bytes)| all.add(bytes));
    }

    /// Counts bytes that were given, by [`Direction`](crate::session::Direction). They were taken before.
    pub fn on_given(&self, [to_backend, to_client]: [u64; 2]) {
        self.to_backend.add(to_backend);
        self.to_client.add(to_client);
    }

    /// The worker is gone, and with it all that it held.
    pub fn on_gone(&self) {
        self.pipes_closed.set(self.pipes_opened.get());
        let held = [&self.pipes_pooled, &self.buffers_parked, &self.timers];
        self.fds.iter().chain(held).for_each(|gauge| gauge.set(0));
    }

    /// Counts a pause of accepting that has ended.
    pub fn on_accept_paused(&self, reason: PauseReason, time: Duration) {
        self.accept_paused_nanos[reason.index()].add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Dials that failed, for whatever cause.
    pub fn dial_failures_total(&self) -> u64 {
        self.dial_failures.iter().map(Counter::get).sum()
    }

    /// Times that accepting was paused, for whatever reason.
    pub fn accept_pauses_total(&self) -> u64 {
        self.accept_pauses.iter().map(Counter::get).sum()
    }
}
