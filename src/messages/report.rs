//! Reports to the control thread from workers, operators, signals and its own helper threads.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use crate::base::atomic::{AtomicU64, Ordering};
use crate::config::model::{BackendCheck, HealthState};
use crate::messages::announce::Announced;
use crate::messages::discovery::{SourceId, SourceReport};
use crate::messages::external::Order;
use crate::messages::reload::{Refused, ReloadRequest};
use crate::messages::request::Ask;
use crate::messages::topology::{Loaded, Read};
use crate::pool::{Advice, BackendId};
use crate::tls::Certificate;

/// At most this many reports wait for the control thread.
pub const REPORTS_LEN: usize = 16_384;

/// A report to the control thread.
#[derive(Debug)]
pub enum Report {
    /// A backend's health has changed.
    Health {
        /// The backend whose checks have decided.
        backend: BackendId,
        /// The health before.
        from: HealthState,
        /// The health from now on.
        to: HealthState,
        /// The result of the deciding check, in words.
        reason: String,
    },
    /// News of the agent of a backend.
    Agent {
        /// The backend.
        backend: BackendId,
        /// The news.
        news: AgentNews,
    },
    /// A check has another result than before.
    Checked {
        /// The backend.
        backend: BackendId,
        /// The settings of its checks: it may have others by now.
        by: CheckedBy,
        /// Its place among the checks of the pool.
        check: usize,
        /// Why it has failed, in words, if it has.
        failure: Option<String>,
    },
    /// A check was shown another certificate than before, or the same again after an hour.
    Certificate {
        /// The backend.
        backend: BackendId,
        /// The settings of its checks: it may have others by now.
        by: CheckedBy,
        /// The place of the check among those of the pool.
        check: usize,
        /// The certificate.
        certificate: Box<Certificate>,
    },
    /// A check wants this program to be run.
    Run(Order),
    /// A worker has stopped: by command, or by an error that it could not recover from.
    Stopped {
        /// The worker that has stopped.
        worker: WorkerId,
        /// An error, if one stopped it.
        result: io::Result<()>,
    },
    /// A request of an operator.
    Ask(Ask),
    /// SIGTERM or SIGINT: drain; the second one stops at once.
    Terminate,
    /// SIGHUP was received: the file is read again.
    Reload,
    /// A request to read the configuration again.
    ReloadRequest(ReloadRequest),
    /// The configuration was read.
    Read(Box<Result<Read, Refused>>),
    /// The sockets of a configuration were opened.
    Loaded(Box<Loaded>),
    /// A write of the state file has finished, or failed.
    StateWritten,
    /// A source of backends has an answer, or has failed to get one. It is asked again after that time.
    Discovered(SourceId, SourceReport, Duration),
    /// The records by which clients find this process have changed, or could not be kept.
    Announced(Announced),
    /// How the view of this balancer contradicts that of most others of its fleet, in words; `None` once it does no more.
    Alone(Option<String>),
    /// SIGUSR1: log each worker's part of the work.
    LogWorkerStats,
}

/// Identifies the settings that a backend is checked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedBy {
    /// [`Pool::checks`](crate::pool::Pool::checks) of its pool.
    pub checks: u64,
    /// What is special about the backend.
    pub own: BackendCheck,
}

/// News of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentNews {
    /// It has answered.
    Said {
        /// What holds from now on: what it has said, and before that.
        advice: Advice,
        /// The rest of its answer.
        line: AgentLine,
    },
    /// It cannot be reached, or makes no sense, for this reason.
    Lost(String),
    /// It has been silent for so long that nothing that it has said holds any more.
    Forgotten,
}

/// The part of an agent's answer that changes nothing, safe to print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentLine {
    /// Its description, in quotes.
    pub note: Option<String>,
    /// The first word that means nothing, and why.
    pub mistake: Option<String>,
}

/// Names a worker for the life of the process. Its index may later be used by another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u32);

/// The sending end of the reports to the control thread.
#[derive(Clone)]
pub struct Reports {
    reports: SyncSender<Report>,
    dropped: Arc<AtomicU64>,
}

impl Reports {
    /// Returns the queue's two ends.
    pub fn new() -> (Self, Receiver<Report>) {
        let (reports, inbox) = sync_channel(REPORTS_LEN);
        (Self { reports, dropped: Arc::default() }, inbox)
    }

    /// Queues a report, or counts it as dropped.
    pub fn send(&self, report: Report) {
        if let Err(TrySendError::Full(_)) = self.reports.try_send(report) {
            // Release: the count stands for the report, so it must make the same writes visible.
            self.dropped.fetch_add(1, Ordering::Release);
        }
    }

    /// Queues a report that can be repeated, or a request of an operator; returns false when there is no room, or no
    /// control thread.
    pub fn try_send(&self, report: Report) -> bool {
        self.reports.try_send(report).is_ok()
    }

    /// Queues a report that cannot be reconstructed, and waits for room. Must not be called by a worker that still
    /// serves.
    pub fn send_waiting(&self, report: Report) {
        // Without a control thread the report has no reader.
        let _gone = self.reports.send(report);
    }

    /// Returns the number of reports dropped since the last call. When it is not 0, the receiver must look at every
    /// backend.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Acquire)
    }
}
