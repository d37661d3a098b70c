//! Counters of one worker. Written by it alone, read by any thread.

use std::time::Duration;

use super::{Counter, DialFailure, FdKind, Gauge, Histogram, Latency, PauseReason, TurnTime};
use crate::session::{CloseReason, Summary};

/// Counters of one worker; gauges hold the state at the end of its last turn.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Connections taken from accept queues.
    pub accepted: Counter,
    /// Accepted connections handed over to another worker.
    pub handed_over: Counter,
    /// Sessions adopted from another worker, which had accepted them.
    pub adopted: Counter,
    /// Sessions with a backend that connected.
    pub connected: Counter,
    /// Sessions that ended before any backend had connected.
    pub failed: Counter,
    /// Sessions that have ended, by [`CloseReason::index`].
    pub closed: [Counter; CloseReason::ALL.len()],
    /// Bytes taken from clients and from backends, by [`Direction`](crate::session::Direction): counted when a session
    /// has used its budget of a turn.
    pub taken: [Counter; 2],
    /// Bytes written to backends: all of a session that has ended; of an open one all but the newest
    /// (`worker/relay/byte_accounting.rs`).
    pub to_backend: Counter,
    /// Bytes written to clients, counted the same way.
    pub to_client: Counter,
    /// Bytes taken from one side that the other could not accept any more, by sessions that have ended and by
    /// direction.
    pub discarded: [Counter; 2],
    /// Headers of the PROXY protocol taken from clients, but for those that stand for no client.
    pub headers_taken: Counter,
    /// Those that stand for no client.
    pub headers_local: Counter,
    /// The bytes of both, which count nowhere else.
    pub header_bytes_taken: Counter,
    /// Headers of the PROXY protocol put in front of the bytes to a backend.
    pub headers: Counter,
    /// Their bytes, which count nowhere else.
    pub header_bytes: Counter,
    /// The part of these that a backend could not accept any more, of sessions that have ended.
    pub header_bytes_lost: Counter,
    /// Bytes of requests for TLS, and of answers to them, taken from clients and backends, and written to them. They count
    /// nowhere else.
    pub negotiated_bytes: [Counter; 2],
    /// Dials begun, retries included.
    pub dials: Counter,
    /// Dials that failed, on either side, by [`DialFailure::index`].
    pub dial_failures: [Counter; DialFailure::ALL.len()],
    /// Dials that followed a failed one of the same session.
    pub retries: Counter,
    /// Times that accept(2) failed.
    pub accept_errors: Counter,
    /// Times that accepting was paused, by [`PauseReason::index`].
    pub accept_pauses: [Counter; PauseReason::ALL.len()],
    /// Time from each pause until accept(2) was tried again, in nanoseconds.
    pub accept_paused_nanos: [Counter; PauseReason::ALL.len()],
    /// Pipes ever opened, as of the end of a turn.
    pub pipes_opened: Gauge,
    /// Pipes closed, as of the end of a turn.
    pub pipes_closed: Gauge,
    /// Pipes denied by the kernel: bytes were copied instead of spliced.
    pub pipes_denied: Counter,
    /// Pipes taken from sinks that had stalled, for streams that found none.
    pub pipes_reclaimed: Counter,
    /// Turns of the loop. A woken worker with a count that stands still is stuck.
    pub turns: Counter,
    /// Duration of one turn in sixteen, between two waits.
    pub turn_time: Histogram<TurnTime>,
    /// Events that the waits of this worker have returned.
    pub events: Counter,
    /// Events for connections that were closed earlier in the same batch.
    pub stale_events: Counter,
    /// Events for sessions that had nothing to do.
    pub idle_events: Counter,
    /// Sessions found waiting for an event that never came though there was something to read.
    pub lost_wakeups: Counter,
    /// Times that a session had used up its budget of a turn and was put behind the others.
    pub budget_exhausted: Counter,
    /// Health checks of this worker with the expected answer.
    pub checks_passed: Counter,
    /// Health checks of this worker without the expected answer.
    pub checks_failed: Counter,
    /// Health checks put off because this machine had run out of a resource.
    pub checks_deferred: Counter,
    /// From the start of a check to its result.
    pub check_latency: Histogram<Latency>,
    /// Changes of a backend's health as seen by its checks.
    pub transitions: Counter,
    /// Open descriptors by [`FdKind::index`], as of the end of a turn.
    pub fds: [Gauge; FdKind::ALL.len()],
    /// Empty pipes kept for reuse, as of the end of a turn.
    pub pipes_pooled: Gauge,
    /// Buffers that hold bytes a sink did not accept, as of the end of a turn.
    pub buffers_parked: Gauge,
    /// Armed timers, as of the end of a turn.
    pub timers: Gauge,
}

impl WorkerStats {
    /// Counts a session that has ended. Its bytes must have been counted already.
    pub fn on_closed(&self, summary: &Summary) {
        self.discarded.iter().zip(summary.discarded).for_each(|(all, bytes)| all.add(bytes));
        if summary.connect_time.is_none() {
            self.failed.add(1);
        }
        self.closed[summary.reason.index()].add(1);
    }

    /// Counts bytes taken, by [`Direction`](crate::session::Direction).
    pub fn on_taken(&self, bytes: [u64; 2]) {
        self.taken.iter().zip(bytes).filter(|(_, bytes)| *bytes > 0).for_each(|(all, bytes)| all.add(bytes));
    }

    /// Counts bytes written, by [`Direction`](crate::session::Direction). They must have been counted as taken before.
    pub fn on_given(&self, [to_backend, to_client]: [u64; 2]) {
        self.to_backend.add(to_backend);
        self.to_client.add(to_client);
    }

    /// Counts a header that was taken from a client.
    pub fn on_header_taken(&self, bytes: usize, is_local: bool) {
        if is_local { &self.headers_local } else { &self.headers_taken }.add(1);
        self.header_bytes_taken.add(bytes as u64);
    }

    /// Counts a header that was put in front of the bytes to a backend.
    pub fn on_header(&self, bytes: u16) {
        self.headers.add(1);
        self.header_bytes.add(bytes.into());
    }

    /// Counts bytes of a request for TLS, or of an answer to one, that were taken.
    pub fn on_negotiation_taken(&self, bytes: usize) {
        self.negotiated_bytes[0].add(bytes as u64);
    }

    /// Counts those that were written.
    pub fn on_negotiation_given(&self, bytes: usize) {
        self.negotiated_bytes[1].add(bytes as u64);
    }

    /// Counts the bytes of a header that were not written when its session ended.
    pub fn on_header_lost(&self, bytes: usize) {
        if bytes > 0 {
            self.header_bytes_lost.add(bytes as u64);
        }
    }

    /// Resets the gauges: the worker has ended and holds nothing.
    pub fn on_gone(&self) {
        self.pipes_closed.set(self.pipes_opened.get());
        let held = [&self.pipes_pooled, &self.buffers_parked, &self.timers];
        self.fds.iter().chain(held).for_each(|gauge| gauge.set(0));
    }

    /// Counts a pause of accepting that has ended.
    pub fn on_accept_paused(&self, reason: PauseReason, time: Duration) {
        self.accept_paused_nanos[reason.index()].add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Returns the pauses of accepting, for any reason.
    pub fn accept_pauses_total(&self) -> u64 {
        self.accept_pauses.iter().map(Counter::get).sum()
    }
}
