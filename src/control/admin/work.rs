//! The work that clients have in progress: one without any may be closed to make room for another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Work that a client has in progress: its arrival until its connection was first read, a request until its answer
/// begins, a stream until it ends. A client without work may be closed to make room.
pub(super) struct Work(pub(super) Arc<Activity>);

/// All the work of one client.
pub(super) struct Activity {
    under_way: AtomicUsize,
    /// Notifies the accept loop when a client has no more work.
    idle: Arc<Notify>,
}

impl Activity {
    /// Returns the activity of a client without work; it notifies `idle` whenever there is none left again.
    pub(super) fn new(idle: &Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { under_way: AtomicUsize::new(0), idle: Arc::clone(idle) })
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 0
    }
}

impl Work {
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        activity.under_way.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }

    /// Returns the work of a client that no listener has accepted.
    #[cfg(test)]
    pub(super) fn alone() -> Self {
        Self::begin(&Activity::new(&Arc::default()))
    }
}

impl Clone for Work {
    fn clone(&self) -> Self {
        Self::begin(&self.0)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.notify_one();
        }
    }
}
