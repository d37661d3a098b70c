//! All workers as each of them sees the others: their session counts, and their queues for handed-over sessions. The
//! others change with an assignment; a queue belongs to one worker for as long as that worker runs.
//!
//! A worker that hands a session over counts it for the other worker first, in one step with finding that none has
//! fewer: two that look at the same time never take the same place. Counting it only where it is opened would show the
//! place as free until then, and further workers would send their sessions there too.
//!
//! No handed-over session is lost. A worker that drains or retires closes its queue, which accepts no more from then
//! on, and stops only when its count is zero: sessions in transit are counted, so it waits for them. No worker sleeps
//! over a handed-over session, for the reason given in [`messages`](crate::messages): it is queued first, and the
//! worker is woken then; the worker empties its queue after every wait, and a turn takes as many as the queue holds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::base::atomic::{AtomicUsize, Ordering};
use crate::pool::{Listener, Snapshot};
use crate::sys::Wake;

/// Most sessions that wait in the queue of one worker. A worker with that many to open has no time for more.
pub(super) const HANDOFF_QUEUE_LEN: usize = 64;
/// A worker that loses a place to another one looks this often before it keeps its session.
const LOOKS_MAX: u32 = 4;
/// Set in the count of a worker that accepts no more from others.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// An accepted connection with a place among the sessions, which is not open yet.
#[derive(Debug)]
pub struct Arrival<S> {
    /// The snapshot of the worker that has accepted it. It may be newer than that of the other one, which then knows
    /// neither the listener nor its pool.
    pub(super) snapshot: Arc<Snapshot>,
    /// The listener that it came through.
    pub(super) listener: Arc<Listener>,
    /// Not watched yet.
    pub(super) client: S,
    pub(super) address: SocketAddr,
}

/// One worker as the others reach it. On its own cache line: its count is written for each of its sessions.
#[repr(align(64))]
pub struct HandoffQueue<S> {
    worker: usize,
    /// Sessions that it has or is about to get, and [`CLOSED`]. All accesses are `Relaxed`: it is one number, changed
    /// in single steps, and the data that belongs to it goes through the queue.
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

    /// Returns the sessions that the worker has or is about to get.
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

/// The queues of all workers that accept from others, by index.
pub type HandoffQueues<S> = Arc<[Arc<HandoffQueue<S>>]>;

/// All workers as one of them sees them.
pub(super) struct Dispatcher<S> {
    own: Arc<HandoffQueue<S>>,
    /// The queues that accept sessions. Its own is among them, unless it retires.
    handoff_queues: HandoffQueues<S>,
}

impl<S> Dispatcher<S> {
    /// Returns the workers as the one with the queue `own` sees them.
    pub(super) fn new(own: Arc<HandoffQueue<S>>, handoff_queues: HandoffQueues<S>) -> Self {
        Self { own, handoff_queues }
    }

    /// Sets the other workers. Sessions in transit to a former one stay there.
    pub(super) fn regroup(&mut self, handoff_queues: HandoffQueues<S>) {
        self.handoff_queues = handoff_queues;
    }

    /// Returns the sessions that this worker has or is about to get.
    pub(super) fn sessions(&self) -> usize {
        self.own.sessions()
    }

    /// Counts one more session of this worker, which keeps what it has accepted.
    pub(super) fn keep(&self) {
        self.own.keep();
    }

    /// Counts one more session of the worker with the fewest, and hands `arrival` to it; returns it when that is this
    /// worker. A tie goes to this one: handing over costs a wake.
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

    /// Returns whether this worker serves; otherwise it retires.
    pub(super) fn is_serving(&self) -> bool {
        self.handoff_queues.iter().any(|handoff_queue| Arc::ptr_eq(handoff_queue, &self.own))
    }

    /// Must be called when a session of this worker has ended.
    pub(super) fn leave(&self) {
        self.own.leave();
    }

    /// Closes the queue: from now on no more sessions are in transit than are counted already.
    pub(super) fn close_handoff_queue(&self) {
        self.own.count.fetch_or(CLOSED, Ordering::Relaxed);
    }

    /// Returns whether this worker has no session left and will get none.
    pub(super) fn is_over(&self) -> bool {
        self.own.count.load(Ordering::Relaxed) == CLOSED
    }

    /// Returns the queue with the fewest sessions and its count: its own, unless another has fewer.
    fn least(&self) -> (&Arc<HandoffQueue<S>>, usize) {
        let own = seen(&self.own);
        let others = self
            .handoff_queues
            .iter()
            .filter(|handoff_queue| !Arc::ptr_eq(handoff_queue, &self.own))
            .map(seen);
        // A closed one counts as the fullest.
        let least = others.min_by_key(|&(_, count)| count);
        least.filter(|&(_, count)| count < own.1 & !CLOSED).unwrap_or(own)
    }

    /// Hands over a session counted for `other`; counts it for this worker again when the queue is full or has no
    /// reader.
    fn hand_over(&self, other: &HandoffQueue<S>, arrival: Arrival<S>) -> Option<Arrival<S>> {
        let refused = match other.arrivals.try_send(arrival) {
            Ok(()) => None,
            Err(TrySendError::Full(arrival) | TrySendError::Disconnected(arrival)) => {
                self.keep();
                other.leave();
                Some(arrival)
            }
        };
        // Also when it was refused: a draining worker may have waited for it.
        if let Err(error) = other.waker.wake() {
            log::error!(worker = other.worker, error:%; "cannot wake a worker");
        }
        refused
    }
}

fn seen<S>(handoff_queue: &Arc<HandoffQueue<S>>) -> (&Arc<HandoffQueue<S>>, usize) {
    (handoff_queue, handoff_queue.count.load(Ordering::Relaxed))
}
