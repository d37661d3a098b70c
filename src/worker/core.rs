//! What all parts of a worker work with: the kernel, the clock and the budget of the turn, timers, counters, the epoch, and
//! the way to the other workers. It has no listener, no session and no check: those belong to one part each.

use std::sync::Arc;

use crate::base::rng::Rng;
use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::base::timer_wheel::TimerWheel;
use crate::messages::mailbox::Mailbox;
use crate::messages::query::SessionId;
use crate::messages::report::{Reports, WorkerId};
use crate::pool::{Lease, Snapshot};
use crate::stats::WorkerStats;
use crate::sys::Kernel;
use crate::worker::admission::Admission;
use crate::worker::budget::Turn;
use crate::worker::dispatch::Dispatcher;
use crate::worker::inspect::flight_recorder::Recorder;
use crate::worker::stall_guard::Gap;

/// See the module. Methods of a part take it beside the part.
pub(super) struct Core<K: Kernel> {
    pub(super) kernel: K,
    /// Of this turn: the clock is read once, after the wait.
    pub(super) now: Instant,
    pub(super) wheel: TimerWheel<Timer>,
    pub(super) gap: Gap,
    /// What is left of this turn.
    pub(super) turn: Turn,
    pub(super) rng: Rng,
    pub(super) id: WorkerId,
    pub(super) index: usize,
    pub(super) mailboxes: Arc<[Mailbox]>,
    pub(super) dispatcher: Dispatcher<K::Socket>,
    pub(super) reports: Reports,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) admission: Arc<Admission>,
    pub(super) stats: Arc<WorkerStats>,
    /// Sessions that are over.
    pub(super) recorder: Recorder,
}

/// What an entry of the wheel is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    /// The deadline of a session.
    Session(Key),
    /// The next check of a probe, or the end of its patience with the current one.
    Probe(u32),
    /// Dials that this machine lacked something for are tried again.
    Waiting,
    /// Bytes of sessions that last are counted.
    Count,
    /// Some sessions are asked whether they wait for what has come already.
    Sweep,
    /// Accepting goes on.
    Accept(usize),
    /// A listener that is to be closed has waited for handshakes for long enough.
    Retire(usize),
}

impl<K: Kernel> Core<K> {
    /// How a session is named outside of this worker.
    pub(super) fn id_of(&self, key: Key) -> SessionId {
        SessionId { worker: self.id.0, key }
    }

    /// A session of this worker has left its backend. The only way in which a lease ends while its worker lives: whoever is to
    /// know of the place that it leaves is found from here.
    pub(super) fn release(&self, lease: Lease) {
        self.snapshot.release(lease, self.index);
    }
}
