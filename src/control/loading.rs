//! One reading of the configuration, which may never end: a name server, a disk or a file without an answer must not
//! keep the next one from being read.
//!
//! The reader thread and the control thread meet in one [`Claim`], which the first of them takes: the reader when it
//! has read everything, and its result counts; the control thread when the time is over, and a later result is ignored.
//!
//! Sockets are opened behind that, for one request at a time: so a listener that an operator pauses waits for no file.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use jiff::Timestamp;

use crate::base::time::Instant;
use crate::messages::reload::{ChangeImpact, Mode, ReloadRequest};
use crate::messages::topology::Read;

/// Most readings at once, each of which may get stuck. One that was given up continues in its thread.
pub(super) const LOADERS: usize = 4;
/// One more opens sockets, however many readings are stuck.
pub(crate) const LOADER_THREADS: usize = LOADERS + 1;

/// Decides whether a result still counts.
#[derive(Default)]
pub(super) struct Claim(AtomicBool);

impl Claim {
    /// Returns true for the first caller only.
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

pub(super) struct Loading {
    pub(super) request: ReloadRequest,
    /// When it is given up, unless everything has been read.
    pub(super) deadline: Instant,
    pub(super) claim: Arc<Claim>,
}

/// Readings that were given up and have not ended.
#[derive(Default)]
pub(super) struct Stuck(Vec<Weak<Claim>>);

impl Stuck {
    pub(super) fn add(&mut self, claim: &Arc<Claim>) {
        self.0.push(Arc::downgrade(claim));
    }

    /// Returns whether as many readings are stuck as there may be.
    pub(super) fn holds_all(&mut self) -> bool {
        // The thread holds its part of the claim for as long as it reads.
        self.0.retain(|claim| claim.strong_count() > 0);
        self.0.len() >= LOADERS
    }
}

#[derive(Clone, Debug, Default)]
pub struct ReloadStatus {
    pub succeeded: u64,
    /// Number of reloads refused, which changed nothing.
    pub failed: u64,
    /// When the last one was applied.
    pub last_success: Option<Timestamp>,
    /// When the last one was refused.
    pub last_failure: Option<Timestamp>,
    /// The mistakes of the last reload, if it was refused.
    pub errors: Vec<String>,
    /// Start of the reload in progress, if any.
    pub reading_since: Option<Timestamp>,
    /// The last one that was applied.
    pub(crate) applied: Option<Applied>,
    /// The last one, if it was refused.
    pub(crate) refused: Option<Rejected>,
}

/// A reload that was applied.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) who: String,
    pub(crate) when: Timestamp,
    pub(crate) epoch: u64,
    /// The first of its changes.
    pub(crate) changes: Vec<ChangeImpact>,
    /// The number of all changes.
    pub(crate) count: usize,
}

/// A reload that was refused. Its errors are those of the status.
#[derive(Clone, Debug)]
pub(crate) struct Rejected {
    /// Its number among the refused ones.
    pub(crate) number: u64,
    pub(crate) who: String,
    pub(crate) when: Timestamp,
    /// The requester that has dismissed it, if any: it is shown no more.
    pub(crate) dismissed_by: Option<String>,
}

/// Requests by how far they have come.
#[derive(Default)]
pub(super) struct ReloadQueue {
    /// Its configuration is being read.
    pub(super) loading: Option<Loading>,
    pub(super) stuck: Stuck,
    /// Its configuration was read, and needs sockets.
    pub(super) read: Option<(ReloadRequest, Read)>,
    /// Sockets are being opened for it.
    pub(super) opening: Option<ReloadRequest>,
    pub(super) waiting: Vec<ReloadRequest>,
}

impl ReloadQueue {
    /// Returns whether a reload is under way: the next one must not begin.
    pub(super) fn is_reloading(&self) -> bool {
        let opens = self.opening.as_ref().is_some_and(|request| request.mode != Mode::Listeners);
        self.loading.is_some() || self.read.is_some() || opens
    }
}
