//! The assignment of a worker: where to listen, and the workers beside it. The first one comes with its start; each
//! later one is queued before the epoch that it belongs to is published.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::messages::command::Command;
use crate::messages::mailbox::Mailbox;
use crate::pool::Listener;
use crate::sys::Wake;
use crate::worker::dispatch::{Arrival, HandoffQueue, HandoffQueues};

/// Assignments that wait for one worker at most. The sender must check first whether the last one was taken.
const ASSIGNMENTS_LEN: usize = 1;

/// Names the sockets that share one address, one per worker, for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupId(pub u32);

/// One listener of an assignment.
pub struct Listening<L> {
    /// The group of the sockets.
    pub group: GroupId,
    /// The listener that their connections belong to. Differs from the last assignment only if the name has changed.
    pub listener: Arc<Listener>,
    /// The socket of this worker, unless it has it already or none could be opened for it.
    pub socket: Option<L>,
    /// Some workers have none. An accepting worker then gives each session to the worker with the fewest, whatever the
    /// listener says.
    pub is_partial: bool,
    /// It shares its address with sockets that outlive this process. Connections begin at those once the process
    /// drains, so this one is then closed as if its listener were removed.
    pub is_beside: bool,
}

/// The serving workers, by index.
pub struct Peers<S> {
    pub(super) mailboxes: Arc<[Mailbox]>,
    pub(super) handoff_queues: HandoffQueues<S>,
}

/// The assignment of a worker. See the module.
pub struct Assignment<L, S> {
    /// The epoch from which it holds.
    pub epoch: u64,
    /// The listeners. The socket of a group that is no longer named is closed once its queue is served.
    pub listeners: Vec<Listening<L>>,
    /// The serving workers. A worker that is not among them retires: it finishes its sessions and stops.
    pub peers: Peers<S>,
    /// Limit on health checks in flight.
    pub checks_max: usize,
    /// Limit on open pipes; 0 where nothing is spliced.
    pub pipes_max: usize,
    /// Requested capacity of each pipe in bytes.
    pub pipe_len: usize,
    /// Held until the assignment is taken.
    pub ticket: Arc<()>,
}

/// One worker as other threads reach it.
pub struct WorkerHandle<L, S> {
    /// Its index among the serving workers.
    pub index: usize,
    /// The mailbox for its commands.
    pub mailbox: Mailbox,
    /// The queue of sessions handed to it, with its count of sessions.
    pub handoff_queue: Arc<HandoffQueue<S>>,
    assignments: SyncSender<Assignment<L, S>>,
}

/// The receiving ends of everything that reaches a worker.
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
    /// Returns the peers at `handles`, which must be in order of their indices.
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
    /// Returns the handle of the worker with that index, which is woken by `waker`, and the worker's ends.
    pub fn new(index: usize, waker: &Arc<dyn Wake>) -> (Self, WorkerEndpoints<L, S>) {
        let (mailbox, inbox) = Mailbox::new(Arc::clone(waker));
        let (handoff_queue, arrivals) = HandoffQueue::new(index, Arc::clone(waker));
        let (assignments, assigned) = sync_channel(ASSIGNMENTS_LEN);
        let handle = Self { index, mailbox, handoff_queue: Arc::clone(&handoff_queue), assignments };
        (handle, WorkerEndpoints { index, handoff_queue, inbox, arrivals, assignments: assigned })
    }

    /// Queues an assignment, which the worker takes with the next epoch that it runs. Fails and returns it when the
    /// last one was not taken yet. A worker that has stopped needs none.
    pub fn assign(&self, assignment: Assignment<L, S>) -> Result<(), Assignment<L, S>> {
        match self.assignments.try_send(assignment) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(assignment)) => Err(assignment),
        }
    }
}
