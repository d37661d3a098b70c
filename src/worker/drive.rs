//! Does what the machine of a session decides: one op, its outcome, the next op, until nothing is left to do
//! or the session has had its share of the turn.

use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::session::{Op, Outcome, Side};
use crate::stats::WorkerStats;
use crate::sys::Kernel;
use crate::worker::conduit::{Conduit, Plumbing};
use crate::worker::count::Counting;
use crate::worker::{Slot, Timer, Worker};

/// Fills that a session may do in one turn.
const FILLS_PER_TURN: u32 = 16;
/// Bytes that a session may take in one turn; the fill that passes it is the last.
const BYTES_PER_TURN: usize = 512 * 1024;

/// What is left of a session's share of a turn.
struct Budget {
    fills: u32,
    bytes: usize,
    /// What it has taken of it, by direction.
    taken: [u64; 2],
}

impl Budget {
    /// Only fills are counted: what has been filled is always flushed or parked in the same turn.
    fn allows(&self, op: Op) -> bool {
        !matches!(op, Op::Fill(_)) || (self.fills > 0 && self.bytes > 0)
    }

    fn spend(&mut self, op: Op, outcome: Outcome) {
        let Op::Fill(direction) = op else { return };
        if let Outcome::Moved(bytes) | Outcome::Drained(bytes) | Outcome::Last(bytes, _) = outcome {
            self.fills -= 1;
            self.taken[direction as usize] += bytes as u64;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

impl<K: Kernel> Worker<K> {
    /// Does for a session all that can be done now; false when there was nothing.
    pub(super) fn drive(&mut self, key: Key) -> bool {
        let Some(slot) = self.sessions.get_mut(key) else { return false };
        let mut budget = Budget { fills: FILLS_PER_TURN, bytes: BYTES_PER_TURN, taken: [0; 2] };
        let mut had_something = false;
        while let Some(op) = slot.session.next_op() {
            if !budget.allows(op) {
                // Its edges have been told and will not be told again: it waits behind the others.
                if !std::mem::replace(&mut slot.queued, true) {
                    self.ready_queue.push_back(key);
                }
                self.stats.budget_exhausted.add(1);
                break;
            }
            had_something = true;
            let outcome = run(&mut self.kernel, &mut self.plumbing, &self.stats, slot, op, self.now);
            budget.spend(op, outcome);
            slot.session.on_outcome(op, outcome, self.now);
        }
        debug_assert!(!slot.conduits.iter().any(Conduit::is_in_scratch), "the scratch is shared");
        self.stats.on_taken(budget.taken);
        match slot.session.end() {
            Some(end) => self.close(key, end),
            None => {
                if slot.is_to_be_listed(self.now) {
                    slot.counting = Counting::Listed;
                    self.uncounted.list(key, self.now, &mut self.wheel);
                }
                self.arm(key);
            }
        }
        had_something
    }

    /// Goes on with the first `count` of the sessions that had used up their share of an earlier turn.
    pub(super) fn drive_ready_queue(&mut self, count: usize) {
        for _ in 0..count {
            let Some(key) = self.ready_queue.pop_front() else { return };
            if let Some(slot) = self.sessions.get_mut(key) {
                slot.queued = false;
                self.drive(key);
            }
        }
    }

    /// Sees to it that the timer fires no later than the session's deadline. Activity only moves deadlines
    /// further away, which costs nothing here: the timer fires early, once, and is armed anew.
    pub(super) fn arm(&mut self, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        let deadline = slot.session.deadline();
        if let Some((timer, armed)) = slot.timer {
            if armed <= deadline {
                return;
            }
            self.wheel.cancel(timer);
        }
        slot.timer = Some((self.wheel.arm(deadline, Timer::Session(key)), deadline));
    }
}

/// One op: one call of the kernel.
fn run<K: Kernel>(
    kernel: &mut K,
    plumbing: &mut Plumbing<K>,
    stats: &WorkerStats,
    slot: &mut Slot<K>,
    op: Op,
    now: Instant,
) -> Outcome {
    let Slot { session, client, backend, conduits, .. } = slot;
    let socket = match op.side() {
        Side::Client => client,
        Side::Backend => backend.as_ref().expect("the machine names the backend only once it is connected"),
    };
    match op {
        Op::Fill(direction) => {
            let hides_more = session.hides_more(direction.source());
            conduits[direction as usize].fill(kernel, socket, hides_more, plumbing, stats, now)
        }
        Op::Flush(direction) => {
            let is_last = session.holds_the_last(direction);
            conduits[direction as usize].flush(kernel, socket, is_last, plumbing)
        }
        Op::ShutdownWrite(_) => match kernel.shutdown_write(socket) {
            Ok(()) => Outcome::Done,
            // shutdown(2) says ENOTCONN for every connection that has died; what it died of is still to be taken.
            Err(error) => Outcome::Failed(kernel.take_error(socket).unwrap_or(error).kind()),
        },
        Op::TakeError(_) => match kernel.take_error(socket) {
            None => Outcome::Done,
            Some(error) => Outcome::Failed(error.kind()),
        },
        Op::AskUnread(_) => {
            if kernel.has_unread(socket) {
                Outcome::Unread
            } else {
                Outcome::Done
            }
        }
        Op::AskUnacked(_) => match kernel.unacked(socket) {
            Ok(0) => Outcome::Done,
            Ok(bytes) => Outcome::Unacked(bytes),
            Err(error) => Outcome::Failed(error.kind()),
        },
        Op::AskDelivery(_) => match kernel.delivery(socket) {
            Ok((quiet, unacked)) => Outcome::Delivery { quiet, unacked },
            Err(error) => Outcome::Failed(error.kind()),
        },
        Op::AskSilence(_) => match kernel.silence(socket) {
            Ok(None) => Outcome::Done,
            Ok(Some(span)) => Outcome::Silent(span),
            Err(error) => Outcome::Failed(error.kind()),
        },
    }
}
