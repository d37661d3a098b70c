//! One reading of the configuration, which may never end: a name server, a disk or a file that gives no answer must not keep the
//! next one from being read.
//!
//! The thread that reads and the control thread meet in one [`Claim`]: the first of them takes it. The one when it has read all,
//! and its result counts then; the other when the time is over, and whatever comes of it later is ignored. Only what has been
//! claimed opens sockets, so there is never more than one that does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::base::time::Instant;
use crate::messages::reload::ReloadRequest;

/// Threads that read, each of which may meet something that gives no answer. What has been given up goes on in its thread.
pub const LOADERS: usize = 4;

/// Whether what is read still counts.
#[derive(Default)]
pub(super) struct Claim(AtomicBool);

impl Claim {
    /// Whether the caller is the first.
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// What is being read.
pub(super) struct Loading {
    pub(super) request: ReloadRequest,
    /// When it is given up, unless all has been read.
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

    /// Whether none is left of the threads that read.
    pub(super) fn holds_all(&mut self) -> bool {
        // The thread has its part of the claim for as long as it reads.
        self.0.retain(|claim| claim.strong_count() > 0);
        self.0.len() >= LOADERS
    }
}
