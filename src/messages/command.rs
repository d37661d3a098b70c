//! What the control thread asks of a worker.

use std::sync::Arc;

use crate::messages::query::{Query, Reply};
use crate::pool::{BackendId, Snapshot};

/// What a worker is told.
#[derive(Clone, Debug)]
pub enum Command {
    /// Choose by these tables and check these backends from now on.
    Publish(Arc<Snapshot>),
    /// Dials of this backend, whose probe the worker owns, have failed.
    DialFailed(BackendId),
    /// This backend was removed: cut the sessions that are on it, now. Behind the epoch that has it no more.
    CutBackend(BackendId),
    /// Admit nothing new, finish what runs, then stop.
    Drain,
    /// Answer this about sessions, or cut some.
    Ask(Query, Reply),
    /// Cut what still runs, with this reason, then stop.
    Stop(StopReason),
    /// Nothing: one more turn shows that the worker is not stuck.
    Wake,
}

/// Why the sessions that still run are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// `drain_timeout` has passed.
    DrainTimeout,
    /// Told to stop at once.
    AtOnce,
}
