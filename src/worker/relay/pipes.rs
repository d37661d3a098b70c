//! The pipes of one worker: lent while bytes are in them, kept while they are empty, never kept with bytes in them.
//! One that the kernel denies is done without, and for a while no other is asked for.

use std::io;
use std::time::Duration;

use crate::base::time::Instant;
use crate::base::token_bucket::TokenBucket;
use crate::config::fd_budget::PIPE_LEN_MIN;
use crate::stats::WorkerStats;
use crate::sys::Kernel;
use crate::worker::relay::lent::{Borrower, LENT_MAX, Lent, Place};

/// Empty pipes kept for the next fill: each costs two descriptors. More are lent at a time where many sinks are slow.
const FREE_MAX: usize = 16;
/// Time between a denial and the next try, unless a pipe of ours is closed before: each try costs up to six calls.
const DENIED_PAUSE: Duration = Duration::from_secs(1);
/// A denial is told at most that often.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// The pipes of one worker.
#[derive(Debug)]
pub(super) struct Pipes<P> {
    /// All empty.
    free: Vec<P>,
    /// Those that are lent and those that are free.
    open: usize,
    lent: Lent,
    /// Fills of this turn that found none.
    wanted: usize,
    /// Those that were ever open.
    opened: u64,
    /// The most that may be open; none once the kernel has said that it cannot splice.
    max: usize,
    /// What each is asked to hold.
    len: usize,
    /// Until when none is asked for, after a denial.
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

    /// From now on at most `max` are opened, each of which is asked to hold `len`. Those that are open stay what they are.
    pub(super) fn limit(&mut self, max: usize, len: usize) {
        (self.max, self.len) = (max, len);
    }

    /// Pipes that are lent.
    pub(super) fn lent(&self) -> usize {
        self.open - self.free.len()
    }

    /// Pipes that are kept, empty.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Pipes that were ever open.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// Pipes that are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// How many fills of this turn were without one, beyond those that are free again.
    pub(super) fn take_wanted(&mut self) -> usize {
        std::mem::take(&mut self.wanted).saturating_sub(self.free.len())
    }

    /// Whose sink has taken nothing for longest, and since when.
    pub(super) fn longest_lent(&self) -> Option<(Borrower, Instant)> {
        self.lent.first()
    }

    /// An empty pipe; `None` when there are as many as may be, or the kernel denies more. Then one is wanted.
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

    /// Something is in it, which is for the sink of `borrower`.
    pub(super) fn lend(&mut self, borrower: Borrower, now: Instant) -> Place {
        self.lent.add(borrower, now)
    }

    /// The sink has taken some of it.
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

    /// Takes back a pipe that was lent and is empty.
    pub(super) fn take_back(&mut self, pipe: P, place: Place) {
        self.lent.remove(place);
        self.give_back(pipe);
    }

    /// Closes a pipe that was lent, with what is in it: whoever borrowed it next would send that to somebody else.
    pub(super) fn destroy_lent(&mut self, pipe: P, place: Place) {
        self.lent.remove(place);
        self.destroy(pipe);
    }

    /// Takes back a pipe that nothing was put into.
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

    /// The kernel cannot splice: from now on there are no pipes.
    pub(super) fn close_all(&mut self) {
        self.max = 0;
        self.open -= self.free.len();
        self.free.clear();
    }
}
