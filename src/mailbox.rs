//! Messages between threads: commands to a worker, which they wake, and reports to the control thread.
//! Every queue is bounded. A worker never waits for one: what does not fit is dropped and counted, and whoever
//! reads finds the truth in the atomics of the backends.
//!
//! No worker sleeps over a command. It is put in first, and the worker is woken then; the worker empties its mailbox
//! behind every wait. What was there when the wait returned is read in that turn, because a turn reads as many as a
//! mailbox holds; what came later wakes later, and ends the next wait.
//!
//! A message shows its reader all that its sender did before: of [`Command::Publish`] the whole snapshot, of
//! [`Report::Health`] the new health, of [`Report::Stopped`] the last count of every counter.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::base::atomic::{AtomicU64, Ordering};
use crate::config::model::{Config, HealthState};
use crate::pool::{BackendId, Snapshot};
use crate::query::{Query, Reply};
use crate::reload::{Refused, ReloadRequest};
use crate::request::Ask;
use crate::sys::Wake;

/// Commands that wait in one mailbox at most.
pub const MAILBOX_LEN: usize = 1024;
/// Reports that wait for the control thread at most.
pub const REPORTS_LEN: usize = 16_384;

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

/// What became of a [`Mailbox::ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ping {
    /// The worker turns, or is stuck.
    Alive,
    /// The worker has stopped.
    Stopped,
}

/// Why the sessions that still run are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// `drain_timeout` has passed.
    DrainTimeout,
    /// Told to stop at once.
    AtOnce,
}

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

/// What came of reading the configuration again.
#[derive(Debug)]
pub struct Loaded {
    /// What it says, or why it is not to be run.
    pub result: Result<Loadable, Refused>,
}

/// A configuration that can be run.
#[derive(Debug)]
pub struct Loadable {
    /// What it says.
    pub config: Config,
    /// What it needs; `None` when it is not to be run.
    pub staged: Option<Box<dyn StagedChange>>,
}

/// What a configuration needs of this machine: sockets that listen, and threads that serve. The control thread asks for
/// it and never sees it.
pub trait Site: Send + Sync {
    /// Opens and starts what `config` needs and the process does not have yet, and uses none of it. All or nothing: an
    /// error leaves everything as it was. Waits for what was changed last to be over, for some seconds at most, so it
    /// is not to be called by a thread that others wait for. One at a time.
    fn prepare(&self, config: &Config, opened: Opened) -> Result<Box<dyn StagedChange>, Refused>;

    /// Opens the files that `config` names, and the addresses of operators; uses none of it. Fails also when a process that
    /// is started with `config` would fail for what it says of keys that take a restart. May wait for a disk or a directory
    /// service for long.
    fn open(&self, config: &Config) -> Result<Opened, Refused>;

    /// Returns where the listeners listen; a port that the kernel has chosen is the one that it chose.
    fn addresses(&self) -> Vec<SocketAddr>;

    /// The workers are told to drain next: connections begin at sockets that outlive the process, where there are some.
    fn drain(&self);
}

/// Puts to use what was opened for a configuration. Dropped, it is closed again.
pub type Opened = Box<dyn FnOnce() + Send>;

/// What was prepared for a configuration. Dropping it takes it away again.
pub trait StagedChange: Send + fmt::Debug {
    /// The sockets that were opened for it begin to listen, so from now on clients come: to be called when nothing else is
    /// in its way, right before [`StagedChange::commit`]. An error says that somebody else was faster. Never waits.
    fn listen(&self) -> Result<(), Refused>;

    /// Uses it from `snapshot` on, which runs the configuration that it was prepared for and is to be published to all
    /// workers next: also to those that leave. Never waits.
    fn commit(self: Box<Self>, snapshot: &Arc<Snapshot>);
}

/// Where commands for one worker are put.
#[derive(Clone)]
pub struct Mailbox {
    commands: SyncSender<Command>,
    waker: Arc<dyn Wake>,
}

impl Mailbox {
    /// A mailbox whose reader is woken by `waker`, and its other end.
    pub fn new(waker: Arc<dyn Wake>) -> (Self, Receiver<Command>) {
        let (commands, inbox) = sync_channel(MAILBOX_LEN);
        (Self { commands, waker }, inbox)
    }

    /// Puts a command in, unless the mailbox is full: then false, and it is the sender's to say it again.
    /// Nothing is lost on a worker that has stopped: it needs no commands.
    pub fn post(&self, command: Command) -> bool {
        match self.commands.try_send(command) {
            Ok(()) => self.waker.wake().is_ok(),
            Err(TrySendError::Disconnected(_)) => true,
            // Its commands have woken the worker already.
            Err(TrySendError::Full(_)) => false,
        }
    }

    /// Has the worker turn once more. Where its mailbox is full its commands have woken it already.
    pub fn ping(&self) -> Ping {
        match self.commands.try_send(Command::Wake) {
            Ok(()) => {
                if let Err(error) = self.waker.wake() {
                    log::error!(error:%; "cannot wake a worker");
                }
                Ping::Alive
            }
            Err(TrySendError::Full(_)) => Ping::Alive,
            Err(TrySendError::Disconnected(_)) => Ping::Stopped,
        }
    }
}

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
