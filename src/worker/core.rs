//! Shared by all parts of a worker: the kernel, the clock and the budget of the turn, timers, counters, the epoch, and
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
    /// The time of this turn: the clock is read once, after the wait.
    pub(super) now: Instant,
    pub(super) wheel: TimerWheel<Timer>,
    pub(super) gap: Gap,
    /// The rest of this turn's budget.
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
    pub(super) recorder: Recorder,
}

/// The purpose of an entry of the wheel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    /// The deadline of a session.
    Session(Key),
    /// The next check of a probe, or the timeout of the current one.
    Probe(u32),
    /// The next question to an agent, or the timeout of the current one.
    Agent(u32),
    /// Dials that this machine lacked something for are tried again.
    Waiting,
    /// Count the bytes of long sessions.
    Count,
    /// Look for lost events of some sessions.
    Sweep,
    Accept(usize),
    /// A closing listener has given handshakes enough time.
    Retire(usize),
}

impl<K: Kernel> Core<K> {
    /// How a session is named outside of this worker.
    pub(super) fn id_of(&self, key: Key) -> SessionId {
        SessionId { worker: self.id.0, key }
    }

    /// Releases the lease of a session. Every lease must end here while its worker runs, so that the free place at the
    /// backend can be reported from one spot.
    pub(super) fn release(&self, lease: Lease) {
        self.snapshot.release(lease, self.index);
    }
}
