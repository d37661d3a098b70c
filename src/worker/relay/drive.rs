//! Carries out the decisions of the session machine: one op, its outcome, the next op, until nothing is left to do or
//! the session has used its share of the turn. It gets at most one share per turn, and then waits behind all others.

use std::io;

use crate::base::ready::Ready;
use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::session::{Expiry, Op, Outcome, Side, Stage};
use crate::stats::WorkerStats;
use crate::sys::Kernel;
use crate::worker::budget::Share;
use crate::worker::core::{Core, Timer};
use crate::worker::relay::conduit::{Conduit, RelayBuffers, Source};
use crate::worker::relay::look::Look;
use crate::worker::relay::opening::preread;
use crate::worker::relay::uncounted::Counting;
use crate::worker::relay::{Relay, Slot};

/// The effect of an event, or a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driven {
    /// There was nothing to do.
    Idle,
    /// The work waits for the session's share.
    Queued,
    Moved,
}

impl<K: Kernel> Relay<K> {
    /// Something has happened to one of the two connections of a session.
    pub(in crate::worker) fn on_event(&mut self, core: &mut Core<K>, key: Key, side: Side, ready: Ready) {
        let Some(slot) = self.sessions.get_mut(key) else {
            // Closed earlier in this batch.
            core.stats.stale_events.add(1);
            return;
        };
        slot.session.on_ready(side, ready);
        if side == Side::Backend && slot.session.is_connecting() {
            core.turn.note_other_session();
            return self.on_dial_event(core, key, ready);
        }
        match self.drive(core, key) {
            Driven::Idle => core.stats.idle_events.add(1),
            Driven::Queued => {}
            Driven::Moved => core.turn.note_other_session(),
        }
    }

    /// The timer of a session has fired.
    pub(in crate::worker) fn on_timer(&mut self, core: &mut Core<K>, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else {
            debug_assert!(false, "close cancels the timer");
            return;
        };
        slot.timer = None;
        slot.lasts(&core.stats, core.index);
        if slot.queued {
            // Its event has come, and its share is about to.
            return self.arm(core, key);
        }
        if !slot.session.is_connecting() {
            self.keep_alive(core, key);
        }
        let Some(slot) = self.sessions.get_mut(key) else { return };
        match slot.session.on_deadline(core.now) {
            Expiry::Early => self.arm(core, key),
            Expiry::Wait => self.give_up_waiting(core, key),
            Expiry::Dial => self.on_dial_failed(core, key, &io::ErrorKind::TimedOut.into()),
            Expiry::Drive => _ = self.drive(core, key),
        }
    }

    /// Handles an event of a session: does what can be done at once, and queues streams.
    pub(super) fn drive(&mut self, core: &mut Core<K>, key: Key) -> Driven {
        if self.sessions.get(key).is_some_and(|slot| slot.queued) {
            // A side that seems dead has a shorter timeout, which may pass before its share comes.
            self.arm(core, key);
            return Driven::Queued;
        }
        let share = core.turn.share_upon_event();
        self.run_share(core, key, share)
    }

    /// Runs a session up to its share.
    fn run_share(&mut self, core: &mut Core<K>, key: Key, mut share: Share) -> Driven {
        let Some(slot) = self.sessions.get_mut(key) else { return Driven::Idle };
        let mut driven = Driven::Idle;
        let was_opening = slot.session.is_opening();
        while let Some(op) = slot.session.next_op() {
            if !allows(&share, op, &slot.conduits) {
                // Its edges have been reported and will not be again: it waits behind the others.
                slot.queued = true;
                if driven == Driven::Idle {
                    self.ready_queue.push_back(key);
                    driven = Driven::Queued;
                } else {
                    self.served.push(key);
                    core.stats.budget_exhausted.add(1);
                }
                break;
            }
            driven = Driven::Moved;
            let outcome = run(
                &mut core.kernel,
                &mut self.buffers,
                &core.stats,
                (key, slot),
                op,
                share.splice_max(),
                core.now,
            );
            share.spend(op, outcome);
            slot.session.on_outcome(op, outcome, core.now);
        }
        debug_assert!(!slot.conduits.iter().any(Conduit::is_in_scratch), "the scratch is shared");
        core.stats.on_taken(share.taken);
        core.turn.spend(&share);
        if was_opening && slot.session.stage() != Stage::Preread {
            core.admission.leave_opening(&slot.listener);
        }
        match slot.session.end() {
            Some(end) => self.close(core, key, end),
            None if was_opening && !slot.session.is_opening() => self.begin_opened(core, key),
            None => {
                if slot.is_to_be_listed(core.now) {
                    slot.counting = Counting::Listed;
                    self.uncounted.list(key, core.now, &mut core.wheel);
                }
                self.arm(core, key);
            }
        }
        driven
    }

    /// Serves the queue, as far as the turn allows. A session that has had a share waits behind all others then.
    pub(in crate::worker) fn serve_queue(&mut self, core: &mut Core<K>) {
        core.turn.begin_queue();
        while let Some(&key) = self.ready_queue.front() {
            let now = core.kernel.now();
            let Some(share) = core.turn.next_share(now) else { break };
            self.ready_queue.pop_front();
            if let Some(slot) = self.sessions.get_mut(key) {
                slot.queued = false;
                self.run_share(core, key, share);
                self.expire(core, key);
            }
        }
        self.ready_queue.extend(self.served.drain(..));
    }

    /// Expires a session with a deadline that turns out to be over after the timers of the turn: because it was queued
    /// when its timer fired, or because new information shortens its timeout.
    pub(super) fn expire(&mut self, core: &mut Core<K>, key: Key) {
        let Some(slot) = self.sessions.get(key) else { return };
        if let Some((timer, armed)) = slot.timer
            && armed <= core.now
            && !slot.queued
            && !core.gap.is_open()
        {
            core.wheel.cancel(timer);
            self.on_timer(core, key);
        }
    }

    /// Ensures that the timer fires no later than the session's deadline. Activity only moves deadlines further away,
    /// which costs nothing here: the timer fires early, once, and is armed again.
    pub(super) fn arm(&mut self, core: &mut Core<K>, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        let deadline = slot.session.deadline();
        if let Some((timer, armed)) = slot.timer {
            if armed <= deadline {
                return;
            }
            core.wheel.cancel(timer);
        }
        slot.timer = Some((core.wheel.arm(deadline, Timer::Session(key)), deadline));
    }
}

/// Returns whether an op is allowed with the rest of a share.
fn allows<P>(share: &Share, op: Op, conduits: &[Conduit<P>; 2]) -> bool {
    match op {
        Op::Fill(direction) => {
            let conduit = &conduits[direction as usize];
            // What joins a header in the scratch joins it now.
            conduit.is_in_scratch() || (share.takes_streams() || !conduit.streams()) && !share.is_used_up()
        }
        // Bytes just filled are written or parked: the scratch is needed for the next session.
        Op::Flush(direction) => {
            let conduit = &conduits[direction as usize];
            share.takes_streams() || !conduit.streams() || conduit.is_in_scratch()
        }
        Op::Preread
        | Op::ShutdownWrite(_)
        | Op::TakeError(_)
        | Op::AskUnread(_)
        | Op::AskUnacked(_)
        | Op::AskDelivery(_)
        | Op::AskSilence(_) => true,
    }
}

/// Runs one op: one call of the kernel.
fn run<K: Kernel>(
    kernel: &mut K,
    relay_buffers: &mut RelayBuffers<K>,
    stats: &WorkerStats,
    (key, slot): (Key, &mut Slot<K>),
    op: Op,
    splice_max: usize,
    now: Instant,
) -> Outcome {
    let Slot { session, client, backend, conduits, origin, listener, .. } = slot;
    let socket = match op.side() {
        Side::Client => client,
        Side::Backend => backend.as_ref().expect("the machine names the backend only once it is connected"),
    };
    match op {
        Op::Fill(direction) => {
            let hides_more = session.hides_more(direction.source());
            let source = Source { socket, hides_more, splice_max, borrower: (key, direction) };
            conduits[direction as usize].fill(kernel, &source, relay_buffers, stats, now)
        }
        Op::Flush(direction) => {
            let is_last = session.holds_the_last(direction);
            conduits[direction as usize].flush(kernel, socket, is_last, relay_buffers, now)
        }
        Op::Preread => {
            let is_late = session.is_late();
            // Its event may be the one that was lost.
            let may_end = is_late || session.hides_more(Side::Client);
            let look = Look { socket, may_end, died_of: session.error_of(Side::Client), is_late };
            preread(kernel, &look, &mut relay_buffers.buffers, stats, (listener, origin))
        }
        Op::ShutdownWrite(_) => match kernel.shutdown_write(socket) {
            Ok(()) => Outcome::Done,
            // shutdown(2) returns ENOTCONN for every connection that has died; the actual error must still be taken.
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

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use crate::sys::Kernel;
    use crate::worker::test_worker::Bench;

    const IDLE: Duration = Duration::from_millis(20);

    /// Its timer fires while it is queued, for an event without effect, and was armed again for the next turn.
    #[test]
    fn a_session_whose_share_finds_nothing_expires_in_that_turn() {
        let mut bench = Bench::new("timeouts = { idle = \"20ms\" }");
        let _ends = bench.session();
        let worker = &mut bench.worker;
        let key = worker.relay.sessions.keys().next().expect("it is open");
        worker.relay.sessions.get_mut(key).expect("as above").queued = true;
        worker.relay.ready_queue.push_back(key);
        // The kernel is asked when bytes were last acknowledged: the time has to pass.
        let began = worker.core.now;
        while worker.core.now.since(began) < 2 * IDLE {
            thread::park_timeout(IDLE);
            worker.core.now = worker.core.kernel.now();
        }
        worker.core.turn.begin(worker.core.now);
        worker.relay.on_timer(&mut worker.core, key);
        worker.relay.serve_queue(&mut worker.core);
        assert_eq!(worker.relay.sessions.len(), 0, "nothing has moved for the idle timeout");
    }
}
