//! All workers as each of them sees the others: how many sessions each has, and the way to hand it one more.
//!
//! Who hands a session over counts it for the other worker first, in one step with finding that nobody has fewer: two
//! that look at the same time never take the same place. Counting it only where it is opened would show the place as
//! free until then, and whoever looked meanwhile would send its session there too.
//!
//! Nothing that is handed over is lost. A worker that drains closes its desk, which takes no more from then on, and
//! stops only when its count is zero: what is on its way is counted, so it waits for it. No worker sleeps over what is
//! handed to it, for the reason given in [`mailbox`](crate::mailbox): it is put in first, and the worker is woken then;
//! the worker empties its queue behind every wait, and a turn takes as many as the queue holds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::base::atomic::{AtomicUsize, Ordering};
use crate::pool::{Listener, Snapshot};
use crate::sys::Wake;

/// Sessions that wait at one desk at most. A worker with as many to open has no time for more.
pub(super) const DESK_LEN: usize = 64;
/// How often who is beaten to a place looks for another one, before it keeps its session.
const LOOKS_MAX: u32 = 4;
/// Set in the count of a worker that takes no more from others.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// A connection that was accepted and has a place among the sessions, but is not one yet.
#[derive(Debug)]
pub struct Arrival<S> {
    /// What the worker that has accepted it runs. It may be newer than what the other one runs, which then knows
    /// neither the listener nor its pool.
    pub(super) snapshot: Arc<Snapshot>,
    /// Through which listener it came.
    pub(super) listener: Arc<Listener>,
    /// Watched by nobody yet.
    pub(super) client: S,
    /// Where it came from.
    pub(super) address: SocketAddr,
}

/// All workers, by index. One for the whole process.
pub struct Crew<S>(Box<[Desk<S>]>);

/// One worker. A cache line of its own: its count is written for each of its sessions.
#[repr(align(64))]
struct Desk<S> {
    /// Sessions that it has or is about to get, and [`CLOSED`]. All its accesses are `Relaxed`: it is one number,
    /// changed in single steps, and what goes with it goes through the queue.
    count: AtomicUsize,
    arrivals: SyncSender<Arrival<S>>,
    waker: Arc<dyn Wake>,
}

impl<S> Crew<S> {
    /// The crew of workers that are woken by `wakers`, and for each of them what is handed to it.
    pub fn new(wakers: impl IntoIterator<Item = Arc<dyn Wake>>) -> (Arc<Self>, Vec<Receiver<Arrival<S>>>) {
        let desk = |waker| {
            let (arrivals, inbox) = sync_channel(DESK_LEN);
            (Desk { count: AtomicUsize::new(0), arrivals, waker }, inbox)
        };
        let (desks, inboxes): (Vec<_>, _) = wakers.into_iter().map(desk).unzip();
        (Arc::new(Self(desks.into())), inboxes)
    }

    /// Sessions that `worker` has or is about to get.
    pub fn sessions(&self, worker: usize) -> usize {
        self.0[worker].count.load(Ordering::Relaxed) & !CLOSED
    }

    /// Counts one more session of `worker`, which keeps what it has accepted.
    pub(super) fn keep(&self, worker: usize) {
        self.0[worker].count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one more session of the worker that has the fewest, and hands `arrival` to it; gives it back when that
    /// is `worker` itself. A tie is its own: a session that moves costs a wake.
    pub(super) fn spread(&self, worker: usize, arrival: Arrival<S>) -> Option<Arrival<S>> {
        for _ in 0..LOOKS_MAX {
            let (chosen, seen) = self.least(worker);
            let count = &self.0[chosen].count;
            if count.compare_exchange(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return if chosen == worker {
                    Some(arrival)
                } else {
                    self.hand_over(worker, chosen, arrival)
                };
            }
        }
        self.keep(worker);
        Some(arrival)
    }

    /// The session of a worker is over.
    pub(super) fn leave(&self, worker: usize) {
        let before = self.0[worker].count.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before & !CLOSED > 0, "more left than were counted");
    }

    /// From now on nothing more is on its way to `worker` than is counted already.
    pub(super) fn close_desk(&self, worker: usize) {
        self.0[worker].count.fetch_or(CLOSED, Ordering::Relaxed);
    }

    /// Whether nothing is left to `worker` and nothing will ever come.
    pub(super) fn is_over(&self, worker: usize) -> bool {
        self.0[worker].count.load(Ordering::Relaxed) == CLOSED
    }

    /// Who has the fewest sessions of those that take any, and its count: itself, unless another has fewer.
    fn least(&self, worker: usize) -> (usize, usize) {
        let seen = |index: usize| (index, self.0[index].count.load(Ordering::Relaxed));
        let own = seen(worker);
        let others = (0..self.0.len()).filter(|&index| index != worker).map(seen);
        // A closed one has more than anybody.
        let least = others.min_by_key(|&(_, count)| count);
        least.filter(|&(_, count)| count < own.1 & !CLOSED).unwrap_or(own)
    }

    /// Hands over what is counted for `other`; counted for `worker` again when the queue is full or has no reader.
    fn hand_over(&self, worker: usize, other: usize, arrival: Arrival<S>) -> Option<Arrival<S>> {
        let desk = &self.0[other];
        let refused = match desk.arrivals.try_send(arrival) {
            Ok(()) => None,
            Err(TrySendError::Full(arrival) | TrySendError::Disconnected(arrival)) => {
                self.keep(worker);
                self.leave(other);
                Some(arrival)
            }
        };
        // Also when it was refused: a worker that drains may have waited for it.
        if let Err(error) = desk.waker.wake() {
            log::error!(worker = other, error:%; "cannot wake a worker");
        }
        refused
    }
}
