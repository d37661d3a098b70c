//! Sessions whose dial this machine had no descriptor or memory for. They wait, and nothing is accepted meanwhile:
//! a client that is reset at once would only free the descriptor that the next client takes, until the queue is gone.
//! Unlike a client in the accept queue theirs has been told that it is connected, so they wait no longer than a dial
//! may take.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::base::timer_wheel::TimerId;
use crate::base::token_bucket::TokenBucket;
use crate::session::CloseReason;
use crate::stats::PauseReason;
use crate::sys::Kernel;
use crate::worker::{Timer, Worker};

/// Time between tries. A session that ends in this worker brings the next one forward.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Told at most that often.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// The sessions that wait to be dialed, first come first.
pub(in crate::worker) struct Starved {
    sessions: VecDeque<Key>,
    timer: Option<TimerId>,
    /// Since when somebody waits.
    since: Option<Instant>,
    log: TokenBucket,
}

impl Starved {
    pub(in crate::worker) fn new(now: Instant) -> Self {
        Self {
            sessions: VecDeque::new(),
            timer: None,
            since: None,
            log: TokenBucket::new(1, LOG_PERIOD, now),
        }
    }

    pub(in crate::worker) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub(in crate::worker) fn contains(&self, key: Key) -> bool {
        self.sessions.contains(&key)
    }

    pub(in crate::worker) fn has_timer(&self) -> bool {
        self.timer.is_some()
    }
}

impl<K: Kernel> Worker<K> {
    /// Puts a session behind those that wait for what this machine lacks.
    pub(in crate::worker) fn starve(&mut self, key: Key, error: &io::Error) {
        self.starved.sessions.push_back(key);
        if self.starved.since.is_none() {
            self.starved.since = Some(self.now);
            self.stats.accept_pauses[PauseReason::DialPutOff.index()].add(1);
        }
        if self.starved.timer.is_none() {
            self.starved.timer = Some(self.wheel.arm(self.now + TRY_AGAIN, Timer::Starved));
        }
        if let Some(untold) = self.starved.log.take(self.now) {
            log::warn!(error:%, untold; "a dial is put off, and accepting with it");
        }
        // Its connect timeout bounds the wait: tries do not count as dials.
        self.arm(key);
    }

    pub(in crate::worker) fn on_starved_timer(&mut self) {
        self.starved.timer = None;
        self.feed_starved();
    }

    /// Dials for those that wait, until one has to wait again.
    pub(in crate::worker) fn feed_starved(&mut self) {
        for _ in 0..self.starved.sessions.len() {
            let Some(key) = self.starved.sessions.pop_front() else { break };
            let waiting = self.starved.sessions.len();
            // It may be gone: the client, or the patience with this machine.
            self.choose_and_dial(key);
            if self.starved.sessions.len() > waiting {
                // It came first, and still does.
                self.starved.sessions.rotate_right(1);
                return;
            }
        }
        if let Some(since) = self.starved.since.take() {
            self.stats.on_accept_paused(PauseReason::DialPutOff, self.now - since);
        }
    }

    /// A session has waited for its connect timeout, for whatever it is that this machine lacks. No backend is to blame.
    pub(in crate::worker) fn give_up_starved(&mut self, key: Key) {
        self.cut(key, CloseReason::LocalLimit);
    }
}
