//! The pipes of one worker: lent while bytes are in them, kept while empty, never kept with bytes in them. After the
//! kernel has denied one, none is asked for during a pause.

use std::io;
use std::time::Duration;

use crate::base::time::Instant;
use crate::base::token_bucket::TokenBucket;
use crate::config::fd_budget::PIPE_LEN_MIN;
use crate::stats::WorkerStats;
use crate::sys::Kernel;
use crate::worker::relay::lent::{Borrower, LENT_MAX, Lent, Place};

/// Empty pipes kept for the next fill: each costs two descriptors. More are lent at a time when many sinks are slow.
const FREE_MAX: usize = 16;
/// Pause between a denial and the next try, unless one of our pipes is closed before: each try costs up to six calls.
const DENIED_PAUSE: Duration = Duration::from_secs(1);
/// Denials are logged at most this often.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// The pipes of one worker.
#[derive(Debug)]
pub(super) struct Pipes<P> {
    /// All empty.
    free: Vec<P>,
    /// Lent and free pipes.
    open: usize,
    lent: Lent,
    /// Fills of this turn that found none.
    wanted: usize,
    opened: u64,
    /// Limit on open pipes; 0 once the kernel has shown that it cannot splice.
    max: usize,
    /// Requested capacity of each.
    len: usize,
    /// None is asked for until then, after a denial.
    denied_until: Option<Instant>,
    denial_log: TokenBucket,
}

impl<P> Pipes<P> {
    pub(super) fn new(max: usize, len: usize, now: Instant) -> Self {
        let denial_log = TokenBucket::new(1, LOG_PERIOD, now);
        Self {
            free: Vec::new(),
            open: 0,
            lent: Lent::new(),
            wanted: 0,
            opened: 0,
            max,
            len,
            denied_until: None,
            denial_log,
        }
    }

    /// Limits later pipes: at most `max`, each with a requested capacity of `len`. Open ones stay as they are.
    pub(super) fn limit(&mut self, max: usize, len: usize) {
        (self.max, self.len) = (max, len);
    }

    pub(super) fn lent(&self) -> usize {
        self.open - self.free.len()
    }

    /// Returns the empty pipes kept.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Returns the pipes ever opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Returns how many fills of this turn lacked one, beyond those that are free again.
    pub(super) fn take_wanted(&mut self) -> usize {
        std::mem::take(&mut self.wanted).saturating_sub(self.free.len())
    }

    /// Returns the borrower with the longest stalled sink, and since when.
    pub(super) fn longest_lent(&self) -> Option<(Borrower, Instant)> {
        self.lent.first()
    }

    /// Returns an empty pipe; `None` when the limit is reached or the kernel denies more. Then one is wanted.
    pub(super) fn borrow<K: Kernel<Pipe = P>>(
        &mut self,
        kernel: &mut K,
        stats: &WorkerStats,
        now: Instant,
    ) -> Option<P> {
        let pipe = self.take_or_open(kernel, stats, now);
        self.wanted += usize::from(pipe.is_none());
        pipe
    }

    /// Lends a filled pipe; its bytes are for the sink of `borrower`.
    pub(super) fn lend(&mut self, borrower: Borrower, now: Instant) -> Place {
        self.lent.add(borrower, now)
    }

    /// Must be called when the sink has accepted some of the bytes.
    pub(super) fn note_progress(&mut self, place: Place, now: Instant) {
        self.lent.touch(place, now);
    }

    fn take_or_open<K: Kernel<Pipe = P>>(
        &mut self,
        kernel: &mut K,
        stats: &WorkerStats,
        now: Instant,
    ) -> Option<P> {
        if let Some(pipe) = self.free.pop() {
            return Some(pipe);
        }
        let is_denied = self.denied_until.is_some_and(|until| now < until);
        if self.open >= self.max.min(LENT_MAX) || is_denied {
            return None;
        }
        match kernel.pipe(self.len, self.len.min(PIPE_LEN_MIN)) {
            Ok(pipe) => {
                self.open += 1;
                self.opened += 1;
                Some(pipe)
            }
            Err(error) => {
                stats.pipes_denied.add(1);
                self.on_denied(&error, now);
                None
            }
        }
    }

    fn on_denied(&mut self, error: &io::Error, now: Instant) {
        self.denied_until = Some(now + DENIED_PAUSE);
        if let Some(untold) = self.denial_log.take(now) {
            log::warn!(error:%, open = self.open, untold; "a pipe is denied, bytes are copied meanwhile");
        }
    }

    /// Takes back a lent pipe, which must be empty.
    pub(super) fn take_back(&mut self, pipe: P, place: Place) {
        self.lent.remove(place);
        self.give_back(pipe);
    }

    /// Closes a lent pipe with the bytes in it: the next borrower would send them to another session.
    pub(super) fn destroy_lent(&mut self, pipe: P, place: Place) {
        self.lent.remove(place);
        self.destroy(pipe);
    }

    /// Takes back a pipe that was not filled.
    pub(super) fn give_back(&mut self, pipe: P) {
        if self.open > self.max || self.free.len() >= FREE_MAX {
            return self.destroy(pipe);
        }
        self.free.push(pipe);
    }

    fn destroy(&mut self, pipe: P) {
        drop(pipe);
        self.open -= 1;
        self.denied_until = None;
    }

    /// Closes all pipes for good: the kernel cannot splice.
    pub(super) fn close_all(&mut self) {
        self.max = 0;
        self.open -= self.free.len();
        self.free.clear();
    }
}
