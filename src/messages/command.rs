//! Commands of the control thread to a worker.

use std::sync::Arc;
use std::time::Duration;

use crate::base::slots::Key;
use crate::messages::external::Ran;
use crate::messages::query::{Query, Reply};
use crate::pool::{BackendId, Snapshot};

/// A command to a worker.
#[derive(Clone, Debug)]
pub enum Command {
    /// Choose by these tables and check these backends from now on.
    Publish(Arc<Snapshot>),
    /// Dials of this backend have failed; the worker owns its probe.
    DialFailed(BackendId),
    /// This backend was removed: cut its sessions now. Must follow the epoch that no longer has it.
    CutBackend(BackendId),
    /// Accept no more connections, finish the open sessions, then stop.
    Drain,
    /// Answer this query about sessions, or cut some.
    Ask(Query, Reply),
    /// Cut the open sessions for this reason, then stop.
    Stop(StopReason),
    /// The program of a check has run.
    Ran {
        /// The check: the place of its backend, and the generation of the attempt.
        key: Key,
        /// What became of it.
        ran: Ran,
        /// How long it has run.
        took: Duration,
    },
    /// No action: one more turn shows that the worker is not stuck.
    Wake,
}

/// The reason why open sessions are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The `drain_timeout` of the process has passed with sessions left.
    DrainTimeout,
    /// An immediate stop was requested.
    AtOnce,
}
