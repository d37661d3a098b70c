//! The sums over all workers, and the part of each.

use super::{Counter, DialFailure, FdKind, Gauge, Latency, PauseReason, Reading, TurnTime, WorkerStats};
use crate::session::CloseReason;

/// One worker's part of the work at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Sessions open on this worker at that moment.
    pub sessions: u64,
    /// Connections that this worker has accepted, including those it handed over.
    pub accepted: u64,
    /// The part of them that it handed over to other workers.
    pub handed_over: u64,
    /// Sessions that it adopted from other workers.
    pub adopted: u64,
    /// Bytes written to backends by sessions that have ended.
    pub to_backend: u64,
    /// Bytes written to clients by sessions that have ended.
    pub to_client: u64,
    /// Times that accepting was paused.
    pub accept_pauses: u64,
    /// Times that a session had used up its budget of a turn.
    pub budget_exhausted: u64,
}

impl Share {
    /// Returns the work of `worker` so far.
    pub fn of(worker: &WorkerStats) -> Self {
        // Subtrahends first: each of them was counted as a minuend before.
        let closed: u64 = worker.closed.iter().map(Counter::get).sum();
        let handed_over = worker.handed_over.get();
        let (accepted, adopted) = (worker.accepted.get(), worker.adopted.get());
        Self {
            // A handover is counted a moment after the other worker may have the session.
            sessions: (accepted + adopted).saturating_sub(handed_over + closed),
            accepted,
            handed_over,
            adopted,
            to_backend: worker.to_backend.get(),
            to_client: worker.to_client.get(),
            accept_pauses: worker.accept_pauses_total(),
            budget_exhausted: worker.budget_exhausted.get(),
        }
    }
}

/// Counters of all workers together at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections taken from accept queues.
    pub accepted: u64,
    /// Sessions with a backend that connected.
    pub connected: u64,
    /// Sessions that ended before any backend had connected.
    pub failed: u64,
    /// Sessions that have ended, by [`CloseReason::index`].
    pub closed: [u64; CloseReason::ALL.len()],
    /// Bytes taken from clients and from backends, by [`Direction`](crate::session::Direction).
    pub taken: [u64; 2],
    /// Bytes written to backends since the start.
    pub to_backend: u64,
    /// Bytes written to clients since the start.
    pub to_client: u64,
    /// Bytes taken from one side that the other could not accept any more.
    pub discarded: u64,
    /// Discarded bytes by [`Direction`](crate::session::Direction).
    pub discarded_by_direction: [u64; 2],
    /// Headers of the PROXY protocol taken from clients, but for those that stand for no client.
    pub headers_taken: u64,
    /// Those that stand for no client.
    pub headers_local: u64,
    /// The bytes of both.
    pub header_bytes_taken: u64,
    /// Headers of the PROXY protocol put in front of the bytes to a backend.
    pub headers: u64,
    /// Their bytes.
    pub header_bytes: u64,
    /// The part of these that a backend could not accept any more.
    pub header_bytes_lost: u64,
    /// Bytes of requests for TLS and of answers to them, taken and written.
    pub negotiated_bytes: [u64; 2],
    /// Dials begun since the start, retries included.
    pub dials: u64,
    /// Dials that failed, whether or not a retry followed.
    pub dial_failures: u64,
    /// Failed dials by [`DialFailure::index`].
    pub dial_failures_by_cause: [u64; DialFailure::ALL.len()],
    /// Dials that followed a failed one of the same session.
    pub retries: u64,
    /// Times that accept(2) failed.
    pub accept_errors: u64,
    /// Times that accepting was paused.
    pub accept_pauses: u64,
    /// Pauses by [`PauseReason::index`].
    pub accept_pauses_by_reason: [u64; PauseReason::ALL.len()],
    /// Time that accepting was paused, by [`PauseReason::index`], in nanoseconds.
    pub accept_paused_nanos: [u64; PauseReason::ALL.len()],
    /// Pipes opened since the start.
    pub pipes_opened: u64,
    /// Pipes closed since the start. The rest of those opened is open now.
    pub pipes_closed: u64,
    /// Pipes denied by the kernel.
    pub pipes_denied: u64,
    /// Pipes taken from sinks that had stalled.
    pub pipes_reclaimed: u64,
    /// Turns of all event loops since the start.
    pub turns: u64,
    /// Events that all waits have returned since the start.
    pub events: u64,
    /// Events for connections that were closed earlier in the same batch.
    pub stale_events: u64,
    /// Events for sessions that had nothing to do.
    pub idle_events: u64,
    /// Sessions found to wait for an event that never came.
    pub lost_wakeups: u64,
    /// Times that a session had used up its budget of a turn.
    pub budget_exhausted: u64,
    /// Health checks with the expected answer since the start.
    pub checks_passed: u64,
    /// Health checks without the expected answer since the start.
    pub checks_failed: u64,
    /// Health checks put off because this machine had run out of a resource.
    pub checks_deferred: u64,
    /// Changes of a backend's health as seen by its checks.
    pub transitions: u64,
    /// Open descriptors of the workers, by [`FdKind::index`].
    pub fds: [u64; FdKind::ALL.len()],
    /// Empty pipes kept for reuse.
    pub pipes_pooled: u64,
    /// Buffers that hold bytes a sink did not accept.
    pub buffers_parked: u64,
    /// Timers armed at present, of all workers.
    pub timers: u64,
}

/// Adds what `get` reads to each of `sums`.
fn add_up<'a, T: 'a, const N: usize>(sums: &mut [u64; N], cells: &'a [T; N], get: impl Fn(&'a T) -> u64) {
    sums.iter_mut().zip(cells).for_each(|(sum, cell)| *sum += get(cell));
}

impl Totals {
    /// Returns the sum over `workers`.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a WorkerStats>) -> Self {
        let mut totals = Self::default();
        let workers: Vec<_> = workers.into_iter().collect();
        // Subtrahends first, over all workers: a session closed by one may have been accepted by another.
        for worker in &workers {
            add_up(&mut totals.closed, &worker.closed, Counter::get);
        }
        for worker in &workers {
            totals.failed += worker.failed.get();
            totals.connected += worker.connected.get();
            add_up(&mut totals.dial_failures_by_cause, &worker.dial_failures, Counter::get);
            totals.retries += worker.retries.get();
            totals.to_backend += worker.to_backend.get();
            totals.to_client += worker.to_client.get();
            add_up(&mut totals.discarded_by_direction, &worker.discarded, Counter::get);
            totals.header_bytes_lost += worker.header_bytes_lost.get();
            totals.pipes_closed += worker.pipes_closed.get();
        }
        let (mut handed_over, mut adopted) = (0, 0);
        for worker in workers {
            totals.accepted += worker.accepted.get();
            totals.dials += worker.dials.get();
            add_up(&mut totals.taken, &worker.taken, Counter::get);
            totals.header_bytes += worker.header_bytes.get();
            totals.pipes_opened += worker.pipes_opened.get();
            totals.add_the_rest(worker);
            adopted += worker.adopted.get();
            handed_over += worker.handed_over.get();
        }
        // Connections in transit between two workers are open, and counted by neither.
        totals.fds[FdKind::Client.index()] += handed_over.saturating_sub(adopted);
        totals.discarded = totals.discarded_by_direction.iter().sum();
        totals.dial_failures = totals.dial_failures_by_cause.iter().sum();
        totals.accept_pauses = totals.accept_pauses_by_reason.iter().sum();
        totals
    }

    /// Adds the counters that no law relates to others.
    fn add_the_rest(&mut self, worker: &WorkerStats) {
        self.accept_errors += worker.accept_errors.get();
        add_up(&mut self.accept_pauses_by_reason, &worker.accept_pauses, Counter::get);
        add_up(&mut self.accept_paused_nanos, &worker.accept_paused_nanos, Counter::get);
        self.headers_taken += worker.headers_taken.get();
        self.headers_local += worker.headers_local.get();
        self.header_bytes_taken += worker.header_bytes_taken.get();
        self.headers += worker.headers.get();
        add_up(&mut self.negotiated_bytes, &worker.negotiated_bytes, Counter::get);
        self.pipes_denied += worker.pipes_denied.get();
        self.pipes_reclaimed += worker.pipes_reclaimed.get();
        self.turns += worker.turns.get();
        self.events += worker.events.get();
        self.stale_events += worker.stale_events.get();
        self.idle_events += worker.idle_events.get();
        self.lost_wakeups += worker.lost_wakeups.get();
        self.budget_exhausted += worker.budget_exhausted.get();
        self.checks_passed += worker.checks_passed.get();
        self.checks_failed += worker.checks_failed.get();
        self.checks_deferred += worker.checks_deferred.get();
        self.transitions += worker.transitions.get();
        add_up(&mut self.fds, &worker.fds, Gauge::get);
        self.pipes_pooled += worker.pipes_pooled.get();
        self.buffers_parked += worker.buffers_parked.get();
        self.timers += worker.timers.get();
    }

    /// Returns the number of sessions that have ended, for any reason.
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }

    /// Returns the number of sessions that ended for `reason`.
    pub fn closed_for(&self, reason: CloseReason) -> u64 {
        self.closed[reason.index()]
    }

    /// Returns the number of open sessions.
    pub fn active(&self) -> u64 {
        self.accepted.saturating_sub(self.closed_total())
    }
}

/// Returns the durations of the turns of all workers that were measured.
pub fn turn_time<'a>(workers: impl IntoIterator<Item = &'a WorkerStats>) -> Reading {
    Reading::sum_of::<TurnTime>(workers.into_iter().map(|worker| worker.turn_time.read()))
}

/// Returns the durations of the checks of all workers.
pub fn check_latency<'a>(workers: impl IntoIterator<Item = &'a WorkerStats>) -> Reading {
    Reading::sum_of::<Latency>(workers.into_iter().map(|worker| worker.check_latency.read()))
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "accepted={} active={}", self.accepted, self.active())?;
        for reason in CloseReason::ALL {
            if self.closed_for(reason) > 0 {
                write!(f, " {}={}", reason.as_str(), self.closed_for(reason))?;
            }
        }
        let Self { to_backend, to_client, discarded, dials, dial_failures, .. } = self;
        write!(f, " to_backend={to_backend} to_client={to_client} discarded={discarded}")?;
        write!(f, " dials={dials} dial_failures={dial_failures}")
    }
}
