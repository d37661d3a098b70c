//! What the control thread is told by workers, operators, signals and threads of its own.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::base::atomic::{AtomicU64, Ordering};
use crate::config::model::HealthState;
use crate::messages::reload::ReloadRequest;
use crate::messages::request::Ask;
use crate::messages::topology::Loaded;
use crate::pool::BackendId;

/// Reports that wait for the control thread at most.
pub const REPORTS_LEN: usize = 16_384;

/// What the control thread is told.
#[derive(Debug)]
pub enum Report {
    /// A backend's health has changed.
    Health {
        /// Which backend.
        backend: BackendId,
        /// What it was.
        from: HealthState,
        /// What it is.
        to: HealthState,
        /// The result that decided, in words.
        reason: String,
    },
    /// A worker has stopped: by command, or by an error that it could not go on from.
    Stopped {
        /// Which worker.
        worker: WorkerId,
        /// What stopped it.
        result: io::Result<()>,
    },
    /// An operator asks for something.
    Ask(Ask),
    /// SIGTERM or SIGINT: drain, and the second time stop at once.
    Terminate,
    /// SIGHUP.
    Reload,
    /// Somebody wants the configuration to be read again.
    ReloadRequest(ReloadRequest),
    /// The configuration was read, and what it needs is there.
    Loaded(Box<Loaded>),
    /// A try to write the state file is over.
    StateWritten,
    /// Names that did not resolve have been looked up again.
    Resolved(HashMap<String, io::Result<Vec<SocketAddr>>>),
    /// SIGUSR1: tell what part of the work each worker has done.
    TellShares,
}

/// Names a worker for the life of the process. Its index may be that of another one later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u32);

/// Where reports for the control thread are put.
#[derive(Clone)]
pub struct Reports {
    reports: SyncSender<Report>,
    dropped: Arc<AtomicU64>,
}

impl Reports {
    /// The queue and its other end.
    pub fn new() -> (Self, Receiver<Report>) {
        let (reports, inbox) = sync_channel(REPORTS_LEN);
        (Self { reports, dropped: Arc::default() }, inbox)
    }

    /// Puts a report in, or counts it as dropped.
    pub fn send(&self, report: Report) {
        if let Err(TrySendError::Full(_)) = self.reports.try_send(report) {
            // Release: the count stands for the report, and shows as much as that would have shown.
            self.dropped.fetch_add(1, Ordering::Release);
        }
    }

    /// Puts in what an operator asks for; false when there is no room, or nobody to ask.
    pub fn try_send(&self, report: Report) -> bool {
        self.reports.try_send(report).is_ok()
    }

    /// Puts in a report that nothing makes up for, as soon as there is room. Never for a worker that still serves:
    /// it may wait.
    pub fn send_surely(&self, report: Report) {
        // Without a control thread there is nobody to tell.
        let _gone = self.reports.send(report);
    }

    /// Reports dropped since the last call; then the receiver has to look at every backend.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Acquire)
    }
}
