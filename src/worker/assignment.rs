//! What a worker is to do, as it is told from outside: where to listen, and who works beside it. The first assignment
//! comes with its start; each other one is put in before the epoch is published that it belongs to.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::messages::command::Command;
use crate::messages::mailbox::Mailbox;
use crate::pool::Listener;
use crate::sys::Wake;
use crate::worker::dispatch::{Arrival, HandoffQueue, HandoffQueues};

/// Assignments that wait for one worker at most. Whoever makes one looks first whether the last one was taken.
const ASSIGNMENTS_LEN: usize = 1;

/// Names the sockets that share one address, of each worker one, for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupId(pub u32);

/// One listener of an assignment.
pub struct Listening<L> {
    /// Which sockets.
    pub group: GroupId,
    /// Whose connections they take. Other than in the last assignment, where only the name has changed.
    pub listener: Arc<Listener>,
    /// The one of this worker, unless it has it already or none could be opened for it.
    pub socket: Option<L>,
    /// Some workers have none. Whoever accepts gives each session to the worker that has the fewest then, whatever the
    /// listener says.
    pub is_partial: bool,
    /// It shares its address with sockets that outlive this process. Connections begin at those once it drains, so this one
    /// is closed then as if its listener were removed.
    pub is_beside: bool,
}

/// The workers that serve, by index.
pub struct Peers<S> {
    pub(super) mailboxes: Arc<[Mailbox]>,
    pub(super) handoff_queues: HandoffQueues<S>,
}

/// What a worker is to do. See the module.
pub struct Assignment<L, S> {
    /// The epoch from which on.
    pub epoch: u64,
    /// Where to listen. A socket of a group that is not named any more is closed once its queue is served.
    pub listeners: Vec<Listening<L>>,
    /// Who serves. A worker that is not among them leaves: it finishes its sessions and stops.
    pub peers: Peers<S>,
    /// Health checks that it may run at a time.
    pub checks_max: usize,
    /// Pipes that it may have open; 0 where nothing is to be spliced.
    pub pipes_max: usize,
    /// What each of them is asked to hold.
    pub pipe_len: usize,
    /// Held by whoever has not taken it yet.
    pub ticket: Arc<()>,
}

/// One worker as it is reached from outside.
pub struct WorkerHandle<L, S> {
    /// Which of the workers that serve it is.
    pub index: usize,
    /// Where it is told what to do.
    pub mailbox: Mailbox,
    /// Where its sessions are counted.
    pub handoff_queue: Arc<HandoffQueue<S>>,
    assignments: SyncSender<Assignment<L, S>>,
}

/// What a worker reads of all that reaches it.
pub struct WorkerEndpoints<L, S> {
    pub(super) index: usize,
    pub(super) handoff_queue: Arc<HandoffQueue<S>>,
    pub(super) inbox: Receiver<Command>,
    pub(super) arrivals: Receiver<Arrival<S>>,
    pub(super) assignments: Receiver<Assignment<L, S>>,
}

impl<S> Clone for Peers<S> {
    fn clone(&self) -> Self {
        Self { mailboxes: Arc::clone(&self.mailboxes), handoff_queues: Arc::clone(&self.handoff_queues) }
    }
}

impl<S> Peers<S> {
    /// Those at `handles`, in order of their indices.
    pub fn of<'a, L: 'a>(handles: impl IntoIterator<Item = &'a WorkerHandle<L, S>>) -> Self
    where
        S: 'a,
    {
        let both = |handle: &WorkerHandle<L, S>| (handle.mailbox.clone(), Arc::clone(&handle.handoff_queue));
        let (mailboxes, handoff_queues): (Vec<_>, Vec<_>) = handles.into_iter().map(both).unzip();
        Self { mailboxes: mailboxes.into(), handoff_queues: handoff_queues.into() }
    }
}

impl<L, S> WorkerHandle<L, S> {
    /// Returns the handle of the worker with that index, which is woken by `waker`, and what the worker reads.
    pub fn new(index: usize, waker: &Arc<dyn Wake>) -> (Self, WorkerEndpoints<L, S>) {
        let (mailbox, inbox) = Mailbox::new(Arc::clone(waker));
        let (handoff_queue, arrivals) = HandoffQueue::new(index, Arc::clone(waker));
        let (assignments, assigned) = sync_channel(ASSIGNMENTS_LEN);
        let handle = Self { index, mailbox, handoff_queue: Arc::clone(&handoff_queue), assignments };
        (handle, WorkerEndpoints { index, handoff_queue, inbox, arrivals, assignments: assigned })
    }

    /// Puts an assignment in, which the worker takes with the next epoch that it runs; gives it back when the last one
    /// was not taken yet. A worker that has stopped needs none.
    pub fn assign(&self, assignment: Assignment<L, S>) -> Result<(), Assignment<L, S>> {
        match self.assignments.try_send(assignment) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(assignment)) => Err(assignment),
        }
    }
}
