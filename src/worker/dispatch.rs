//! All workers as each of them sees the others: how many sessions each has, and the way to hand it one more. The others
//! change with an assignment; a queue belongs to one worker for as long as that worker runs.
//!
//! Who hands a session over counts it for the other worker first, in one step with finding that nobody has fewer: two
//! that look at the same time never take the same place. Counting it only where it is opened would show the place as
//! free until then, and whoever looked meanwhile would send its session there too.
//!
//! Nothing that is handed over is lost. A worker that drains or leaves closes its queue, which takes no more from then
//! on, and stops only when its count is zero: what is on its way is counted, so it waits for it. No worker sleeps over
//! what is handed to it, for the reason given in [`messages`](crate::messages): it is put in first, and the worker is woken
//! then; the worker empties its queue behind every wait, and a turn takes as many as the queue holds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::base::atomic::{AtomicUsize, Ordering};
use crate::pool::{Listener, Snapshot};
use crate::sys::Wake;

/// Sessions that wait in the queue of one worker at most. A worker with as many to open has no time for more.
pub(super) const HANDOFF_QUEUE_LEN: usize = 64;
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

/// One worker as the others reach it. A cache line of its own: its count is written for each of its sessions.
#[repr(align(64))]
pub struct HandoffQueue<S> {
    worker: usize,
    /// Sessions that it has or is about to get, and [`CLOSED`]. All its accesses are `Relaxed`: it is one number,
    /// changed in single steps, and what goes with it goes through the queue.
    count: AtomicUsize,
    arrivals: SyncSender<Arrival<S>>,
    waker: Arc<dyn Wake>,
}

impl<S> HandoffQueue<S> {
    /// Returns the queue of the worker with that index, which is woken by `waker`, and its receiving end.
    pub fn new(worker: usize, waker: Arc<dyn Wake>) -> (Arc<Self>, Receiver<Arrival<S>>) {
        let (arrivals, inbox) = sync_channel(HANDOFF_QUEUE_LEN);
        (Arc::new(Self { worker, count: AtomicUsize::new(0), arrivals, waker }), inbox)
    }

    /// Sessions that the worker has or is about to get.
    pub fn sessions(&self) -> usize {
        self.count.load(Ordering::Relaxed) & !CLOSED
    }

    fn keep(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn leave(&self) {
        let before = self.count.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before & !CLOSED > 0, "more left than were counted");
    }
}

/// The queues of all workers that take what others accept, by index.
pub type HandoffQueues<S> = Arc<[Arc<HandoffQueue<S>>]>;

/// All workers as one of them sees them.
pub(super) struct Dispatcher<S> {
    own: Arc<HandoffQueue<S>>,
    /// Those that take sessions from others. Its own is among them, unless it leaves.
    handoff_queues: HandoffQueues<S>,
}

impl<S> Dispatcher<S> {
    /// The workers as the one with the queue `own` sees them.
    pub(super) fn new(own: Arc<HandoffQueue<S>>, handoff_queues: HandoffQueues<S>) -> Self {
        Self { own, handoff_queues }
    }

    /// From now on the others are these. What is on its way to somebody else stays there.
    pub(super) fn regroup(&mut self, handoff_queues: HandoffQueues<S>) {
        self.handoff_queues = handoff_queues;
    }

    /// Sessions that this worker has or is about to get.
    pub(super) fn sessions(&self) -> usize {
        self.own.sessions()
    }

    /// Counts one more session of this worker, which keeps what it has accepted.
    pub(super) fn keep(&self) {
        self.own.keep();
    }

    /// Counts one more session of the worker that has the fewest, and hands `arrival` to it; gives it back when that
    /// is this one. A tie is its own: a session that moves costs a wake.
    pub(super) fn spread(&self, arrival: Arrival<S>) -> Option<Arrival<S>> {
        for _ in 0..LOOKS_MAX {
            let (chosen, seen) = self.least();
            if chosen.count.compare_exchange(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return if Arc::ptr_eq(chosen, &self.own) {
                    Some(arrival)
                } else {
                    self.hand_over(chosen, arrival)
                };
            }
        }
        self.keep();
        Some(arrival)
    }

    /// Whether it is one of those that serve: otherwise it leaves.
    pub(super) fn is_serving(&self) -> bool {
        self.handoff_queues.iter().any(|handoff_queue| Arc::ptr_eq(handoff_queue, &self.own))
    }

    /// A session of this worker is over.
    pub(super) fn leave(&self) {
        self.own.leave();
    }

    /// From now on nothing more is on its way to this worker than is counted already.
    pub(super) fn close_handoff_queue(&self) {
        self.own.count.fetch_or(CLOSED, Ordering::Relaxed);
    }

    /// Whether nothing is left to this worker and nothing will ever come.
    pub(super) fn is_over(&self) -> bool {
        self.own.count.load(Ordering::Relaxed) == CLOSED
    }

    /// Who has the fewest sessions of those that take any, and its count: itself, unless another has fewer.
    fn least(&self) -> (&Arc<HandoffQueue<S>>, usize) {
        let own = seen(&self.own);
        let others = self
            .handoff_queues
            .iter()
            .filter(|handoff_queue| !Arc::ptr_eq(handoff_queue, &self.own))
            .map(seen);
        // A closed one has more than anybody.
        let least = others.min_by_key(|&(_, count)| count);
        least.filter(|&(_, count)| count < own.1 & !CLOSED).unwrap_or(own)
    }

    /// Hands over what is counted for `other`; counted for this worker again when the queue is full or has no reader.
    fn hand_over(&self, other: &HandoffQueue<S>, arrival: Arrival<S>) -> Option<Arrival<S>> {
        let refused = match other.arrivals.try_send(arrival) {
            Ok(()) => None,
            Err(TrySendError::Full(arrival) | TrySendError::Disconnected(arrival)) => {
                self.keep();
                other.leave();
                Some(arrival)
            }
        };
        // Also when it was refused: a worker that drains may have waited for it.
        if let Err(error) = other.waker.wake() {
            log::error!(worker = other.worker, error:%; "cannot wake a worker");
        }
        refused
    }
}

fn seen<S>(handoff_queue: &Arc<HandoffQueue<S>>) -> (&Arc<HandoffQueue<S>>, usize) {
    (handoff_queue, handoff_queue.count.load(Ordering::Relaxed))
}
