//! Writes the state file on a thread of its own: a disk may be slow, and the control thread must not wait for it. That
//! one only queues the state to write; a newer state replaces one that is not being written yet.
//!
//! Each queued state has a number. [`StateFile::progress`] returns whether it is on the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::units::show_duration;
use crate::control::membership::state_file::Saved;
use crate::sys;

/// The pause after a first failed write.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The pause doubles after each further failure, up to this.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// How long the end of the process waits for the last write.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Writes {
    pub(crate) done: AtomicU64,
    pub(crate) failed: AtomicU64,
    unsaved: Mutex<Option<Unsaved>>,
}

/// Changes are in no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unsaved {
    pub(crate) since: Timestamp,
    /// Why the last try failed.
    pub(crate) reason: String,
}

impl Writes {
    /// Returns since when and why changes cannot be saved, while that is so.
    pub(crate) fn unsaved(&self) -> Option<Unsaved> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Unsaved>> {
        self.unsaved.lock().expect("lock not poisoned")
    }

    /// Records a failed try; `in_a_row` counts consecutive failures.
    fn fail(&self, path: &Path, error: &io::Error, in_a_row: u32) {
        let reason = error.to_string();
        let failures = self.failed.fetch_add(1, Ordering::Relaxed) + 1;
        let pause = pause_after(in_a_row);
        // The first one, and then one for each of the longest pauses.
        if in_a_row == 1 || pause == PAUSE_MAX {
            log::warn!(path:% = path.display(), error:%, failures; "state_file was not written: what changes is lost with the process");
        }
        let mut unsaved = self.lock();
        let since = unsaved.as_ref().map_or_else(sys::timestamp, |unsaved| unsaved.since);
        *unsaved = Some(Unsaved { since, reason });
    }

    fn succeed(&self, path: &Path) {
        self.done.fetch_add(1, Ordering::Relaxed);
        if let Some(Unsaved { since, .. }) = self.lock().take() {
            log::info!(path:% = path.display(), since:%; "state_file is written again");
        }
    }
}

/// Returns the pause after this many consecutive failures.
fn pause_after(in_a_row: u32) -> Duration {
    let doubled = 1_u32.checked_shl(in_a_row.saturating_sub(1)).unwrap_or(u32::MAX);
    PAUSE_MIN.saturating_mul(doubled).min(PAUSE_MAX)
}

/// The writer thread of the state file.
pub(crate) struct StateFile {
    queue: Arc<SaveQueue>,
    writes: Arc<Writes>,
    /// The number of the last state queued.
    put: u64,
}

/// The progress of a queued state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SaveProgress {
    /// It or a newer one is on the disk.
    Written,
    /// It is not on the disk, and the last try has failed.
    Failing(String),
    /// It is being written, or will be next.
    Waiting,
}

#[derive(Default)]
struct SaveQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    next: Option<QueuedState>,
    /// The number of the state on the disk; the first one queued has 1.
    written: u64,
    /// No more will be queued.
    closed: bool,
    ended: bool,
}

struct QueuedState {
    number: u64,
    saved: Saved,
}

impl StateFile {
    /// Starts a thread that writes queued states to `path`, and calls `on_end` after every try.
    pub(crate) fn start(path: PathBuf, on_end: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (queue, writes) = <(Arc<SaveQueue>, Arc<Writes>)>::default();
        let thread_side = (Arc::clone(&queue), Arc::clone(&writes));
        let work = move || thread_side.0.work(&path, &thread_side.1, &on_end);
        thread::Builder::new().name("l4lb-state".into()).spawn(work)?;
        Ok(Self { queue, writes, put: 0 })
    }

    /// Returns one with a disk that does not answer.
    #[cfg(test)]
    pub(in crate::control) fn that_hangs() -> Self {
        Self { queue: Arc::default(), writes: Arc::default(), put: 0 }
    }

    /// Queues a state, in place of one that is not being written yet. Never waits for the disk.
    pub(crate) fn put(&mut self, saved: Saved) {
        self.put += 1;
        self.queue.lock().next = Some(QueuedState { number: self.put, saved });
        self.queue.changed.notify_all();
    }

    /// Returns the number of the last state queued; 0 before the first.
    pub(crate) const fn last(&self) -> u64 {
        self.put
    }

    /// Returns the progress of the state with that number. Never waits for the disk.
    pub(crate) fn progress(&self, number: u64) -> SaveProgress {
        if self.queue.lock().written >= number {
            return SaveProgress::Written;
        }
        self.writes
            .unsaved()
            .map_or(SaveProgress::Waiting, |Unsaved { reason, .. }| SaveProgress::Failing(reason))
    }

    /// Records that the disk has not answered for `waited`; returns that as the reason, which holds until a write
    /// succeeds.
    pub(in crate::control) fn record_no_answer(&self, waited: Duration) -> String {
        let reason = format!("the disk has given no answer for {}", show_duration(waited));
        let unsaved = || {
            log::warn!(reason; "state_file was not written");
            Unsaved { since: sys::timestamp(), reason }
        };
        self.writes.lock().get_or_insert_with(unsaved).reason.clone()
    }

    pub(crate) fn writes(&self) -> Arc<Writes> {
        Arc::clone(&self.writes)
    }

    /// Waits until everything is written, at most for a fixed time; returns whether it is.
    pub(crate) fn close(&self) -> bool {
        let mut state = self.queue.lock();
        state.closed = true;
        self.queue.changed.notify_all();
        let is_at_work = |state: &mut QueueState| !state.ended;
        let (state, _) = self
            .queue
            .changed
            .wait_timeout_while(state, CLOSE_TIMEOUT, is_at_work)
            .expect("lock not poisoned");
        state.written == self.put
    }
}

impl SaveQueue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().expect("lock not poisoned")
    }

    fn work(&self, path: &Path, writes: &Writes, on_end: &impl Fn()) {
        let mut failed_in_a_row = 0_u32;
        while let Some((queued, is_last)) = self.take() {
            match queued.saved.write(path) {
                Ok(()) => {
                    failed_in_a_row = 0;
                    self.lock().written = queued.number;
                    writes.succeed(path);
                    on_end();
                }
                Err(error) => {
                    failed_in_a_row = failed_in_a_row.saturating_add(1);
                    writes.fail(path, &error, failed_in_a_row);
                    on_end();
                    let mut state = self.lock();
                    state.next.get_or_insert(queued);
                    if is_last {
                        break;
                    }
                    let is_open = |state: &mut QueueState| !state.closed;
                    let pause = pause_after(failed_in_a_row);
                    let waited = self.changed.wait_timeout_while(state, pause, is_open);
                    drop(waited.expect("lock not poisoned"));
                }
            }
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits for a state to write; `None` once no more will come. The last one is then tried once.
    fn take(&self) -> Option<(QueuedState, bool)> {
        let is_idle = |state: &mut QueueState| state.next.is_none() && !state.closed;
        let waited = self.changed.wait_while(self.lock(), is_idle);
        let mut state = waited.expect("lock not poisoned");
        let is_last = state.closed;
        state.next.take().map(|queued| (queued, is_last))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::control::membership::state_file::Contents;
    use crate::control::membership::state_file::tests::{backend, saved};

    #[test]
    fn a_failed_write_is_repeated_later() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("later");
        let path = inner.join("state.json");
        let (tried, tries) = std::sync::mpsc::channel();
        let mut file = StateFile::start(path.clone(), move || _ = tried.send(())).unwrap();
        let writes = file.writes();
        file.put(saved([backend("a")]));
        tries.recv().unwrap();
        assert!(matches!(file.progress(1), SaveProgress::Failing(reason) if reason.contains("No such file")));
        assert!(writes.unsaved().is_some() && writes.failed.load(Ordering::Relaxed) > 0);
        fs::create_dir(&inner).unwrap();
        // Newer than the one that waits for its next try.
        file.put(saved([backend("b")]));
        assert!(file.close());
        assert_eq!(Contents::read(&path).unwrap().backends, [backend("b")]);
        assert_eq!(writes.done.load(Ordering::Relaxed), 1);
        assert_eq!((file.progress(2), writes.unsaved()), (SaveProgress::Written, None));
    }

    #[test]
    fn only_the_latest_of_what_waits_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let mut file = StateFile::start(path.clone(), || {}).unwrap();
        (0..1000).for_each(|number| file.put(saved([backend(&number.to_string())])));
        assert!(file.close());
        assert_eq!(Contents::read(&path).unwrap().backends, [backend("999")]);
        assert_eq!((file.last(), file.progress(7)), (1000, SaveProgress::Written));
    }

    /// A full disk was written to once a second, with a log line for each.
    #[test]
    fn a_disk_that_fails_is_tried_less_and_less() {
        let pauses: Vec<u64> = (1..9).map(|failures| pause_after(failures).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause_after(u32::MAX), PAUSE_MAX);
    }
}
