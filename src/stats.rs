//! Counters of one worker. Written by it alone, read by anyone; merged on read.
//! Touched when a session opens and closes, and now and then while it lasts; never per packet.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::{CloseReason, Summary};

/// A number with one writer. Readers may see a value that is a moment old; the last one, once its writer has reported
/// that it stopped.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only for the one thread that writes: a plain load and store, without a locked instruction.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one worker.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Connections taken from accept queues.
    pub accepted: Counter,
    /// Accepted connections that another worker was given.
    pub handed_over: Counter,
    /// Sessions that another worker has accepted.
    pub adopted: Counter,
    /// Sessions over, by [`CloseReason::index`].
    pub closed: [Counter; CloseReason::ALL.len()],
    /// Bytes given to backends: all of a session that is over, and of one that lasts all but the newest
    /// (`worker/count.rs`).
    pub to_backend: Counter,
    /// Bytes given to clients, the same way.
    pub to_client: Counter,
    /// Bytes taken from one side that the other could not take any more, by sessions that are over.
    pub discarded: Counter,
    /// Dials begun.
    pub dials: Counter,
    /// Dials that failed, whoever's fault.
    pub dial_failures: Counter,
    /// Times that accept(2) failed.
    pub accept_errors: Counter,
    /// Times that accepting was paused: a limit was reached or the machine had run out of something.
    pub accept_pauses: Counter,
    /// Pipes that the kernel did not give: what was to be spliced was copied.
    pub pipes_denied: Counter,
    /// Times that a session had used up its share of a turn and was put behind the others.
    pub budget_exhausted: Counter,
    /// Events for connections that were closed earlier in the same batch.
    pub stale_events: Counter,
    /// Health checks that succeeded.
    pub checks_passed: Counter,
    /// Health checks that failed.
    pub checks_failed: Counter,
    /// Health checks put off because this machine had run out of something.
    pub checks_deferred: Counter,
    /// Changes of a backend's health.
    pub transitions: Counter,
}

impl WorkerStats {
    /// Counts a session that is over; its bytes have been counted already.
    pub fn on_closed(&self, summary: &Summary) {
        self.closed[summary.reason.index()].add(1);
        self.discarded.add(summary.discarded);
    }

    /// Counts bytes that were given, by [`Direction`](crate::session::Direction).
    pub fn on_given(&self, [to_backend, to_client]: [u64; 2]) {
        self.to_backend.add(to_backend);
        self.to_client.add(to_client);
    }
}

/// One worker's part of the work, as of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Sessions that it has.
    pub sessions: u64,
    /// Connections that it has taken from accept queues.
    pub accepted: u64,
    /// Those of them that it has given to other workers.
    pub handed_over: u64,
    /// Sessions that other workers have given to it.
    pub adopted: u64,
    /// Bytes given to backends by sessions that are over.
    pub to_backend: u64,
    /// Bytes given to clients by sessions that are over.
    pub to_client: u64,
    /// Times that accepting was paused.
    pub accept_pauses: u64,
    /// Times that a session had used up its share of a turn.
    pub budget_exhausted: u64,
}

impl Share {
    /// What `worker` has done so far.
    pub fn of(worker: &WorkerStats) -> Self {
        // What takes away before what adds: each of the former was one of the latter before.
        let closed: u64 = worker.closed.iter().map(Counter::get).sum();
        let handed_over = worker.handed_over.get();
        let (accepted, adopted) = (worker.accepted.get(), worker.adopted.get());
        Self {
            // Another processor may show the counters of a running worker in another order than they were written.
            sessions: (accepted + adopted).saturating_sub(handed_over + closed),
            accepted,
            handed_over,
            adopted,
            to_backend: worker.to_backend.get(),
            to_client: worker.to_client.get(),
            accept_pauses: worker.accept_pauses.get(),
            budget_exhausted: worker.budget_exhausted.get(),
        }
    }
}

/// Counters of all workers together, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections taken from accept queues.
    pub accepted: u64,
    /// Sessions over, by [`CloseReason::index`].
    pub closed: [u64; CloseReason::ALL.len()],
    /// Bytes given to backends.
    pub to_backend: u64,
    /// Bytes given to clients.
    pub to_client: u64,
    /// Bytes taken from one side that the other could not take any more.
    pub discarded: u64,
    /// Dials begun.
    pub dials: u64,
    /// Dials that failed.
    pub dial_failures: u64,
    /// Times that accepting was paused.
    pub accept_pauses: u64,
    /// Changes of a backend's health.
    pub transitions: u64,
}

impl Totals {
    /// The sum over `workers`.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a WorkerStats>) -> Self {
        let mut totals = Self::default();
        let workers: Vec<_> = workers.into_iter().collect();
        // Closed before accepted: a session counted as closed was accepted before, by whichever worker.
        for worker in &workers {
            for (total, closed) in totals.closed.iter_mut().zip(&worker.closed) {
                *total += closed.get();
            }
        }
        for worker in workers {
            totals.accepted += worker.accepted.get();
            totals.to_backend += worker.to_backend.get();
            totals.to_client += worker.to_client.get();
            totals.discarded += worker.discarded.get();
            totals.dials += worker.dials.get();
            totals.dial_failures += worker.dial_failures.get();
            totals.accept_pauses += worker.accept_pauses.get();
            totals.transitions += worker.transitions.get();
        }
        totals
    }

    /// Sessions over, for whatever reason.
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }

    /// Sessions over for `reason`.
    pub fn closed_for(&self, reason: CloseReason) -> u64 {
        self.closed[reason.index()]
    }

    /// Sessions that are not over.
    pub fn active(&self) -> u64 {
        // Another processor may show the counters of a running worker in another order than they were written.
        self.accepted.saturating_sub(self.closed_total())
    }
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
