//! Writes the state file, on a thread of its own: a disk may take its time, and the control thread has none. That one only puts
//! down what is to be written, and what nobody has begun to write is replaced by what comes next.
//!
//! What is put has a number. Whoever waits for it learns from [`StateFile::standing`] whether it is on the disk.

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

/// The pause after a write that has failed when the one before it had not.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The pause is twice as long after each further failure, up to this.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// How long the end of the process waits for the last write.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How writing goes.
#[derive(Debug, Default)]
pub struct Writes {
    /// Files that were written.
    pub done: AtomicU64,
    /// Tries that were not.
    pub failed: AtomicU64,
    unsaved: Mutex<Option<Unsaved>>,
}

/// What has changed is in no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsaved {
    /// Since then.
    pub since: Timestamp,
    /// Why the last try has failed.
    pub reason: String,
}

impl Writes {
    /// Since when and why nothing can be written, while that is so.
    pub fn unsaved(&self) -> Option<Unsaved> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Unsaved>> {
        self.unsaved.lock().expect("lock not poisoned")
    }

    /// One more try was in vain; how many were, one after the other, is `in_a_row`.
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

/// How long nothing is tried after so many failures, one after the other.
fn pause_after(in_a_row: u32) -> Duration {
    let doubled = 1_u32.checked_shl(in_a_row.saturating_sub(1)).unwrap_or(u32::MAX);
    PAUSE_MIN.saturating_mul(doubled).min(PAUSE_MAX)
}

/// The thread that writes.
pub struct StateFile {
    desk: Arc<Desk>,
    writes: Arc<Writes>,
    /// The number of what was put last.
    put: u64,
}

/// What became of something that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is on the disk, or something newer is.
    Written,
    /// It is not, and the last try has failed.
    Failing(String),
    /// It is being written, or will be next.
    Waiting,
}

#[derive(Default)]
struct Desk {
    orders: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Default)]
struct Orders {
    next: Option<Order>,
    /// The number of what is on the disk; what was put first has 1.
    written: u64,
    /// There will be no more.
    closed: bool,
    /// The thread has ended.
    over: bool,
}

struct Order {
    number: u64,
    saved: Saved,
}

impl StateFile {
    /// A thread that writes to `path` what it is given, and calls `on_end` behind every try.
    pub fn start(path: PathBuf, on_end: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (desk, writes) = <(Arc<Desk>, Arc<Writes>)>::default();
        let of_thread = (Arc::clone(&desk), Arc::clone(&writes));
        let work = move || of_thread.0.work(&path, &of_thread.1, &on_end);
        thread::Builder::new().name("l4lb-state".into()).spawn(work)?;
        Ok(Self { desk, writes, put: 0 })
    }

    /// One whose disk gives no answer.
    #[cfg(test)]
    pub(in crate::control) fn that_hangs() -> Self {
        Self { desk: Arc::default(), writes: Arc::default(), put: 0 }
    }

    /// To be written next, in place of what waits to be written. Never waits for the disk.
    pub fn put(&mut self, saved: Saved) {
        self.put += 1;
        self.desk.lock().next = Some(Order { number: self.put, saved });
        self.desk.changed.notify_all();
    }

    /// The number of what was put last; 0 before the first.
    pub const fn last(&self) -> u64 {
        self.put
    }

    /// What became of what has that number. Never waits for the disk.
    pub fn standing(&self, number: u64) -> Standing {
        if self.desk.lock().written >= number {
            return Standing::Written;
        }
        self.writes.unsaved().map_or(Standing::Waiting, |Unsaved { reason, .. }| Standing::Failing(reason))
    }

    /// Whoever has waited for so long waits no longer; returns why. That is why nothing is saved, until something is.
    pub(in crate::control) fn gives_no_answer(&self, waited: Duration) -> String {
        let reason = format!("the disk has given no answer for {}", show_duration(waited));
        let unsaved = || {
            log::warn!(reason; "state_file was not written");
            Unsaved { since: sys::timestamp(), reason }
        };
        self.writes.lock().get_or_insert_with(unsaved).reason.clone()
    }

    /// How writing goes.
    pub fn writes(&self) -> Arc<Writes> {
        Arc::clone(&self.writes)
    }

    /// Waits until all is written, or the disk has had its time; whether it is.
    pub fn close(&self) -> bool {
        let mut orders = self.desk.lock();
        orders.closed = true;
        self.desk.changed.notify_all();
        let is_at_work = |orders: &mut Orders| !orders.over;
        let (orders, _) = self
            .desk
            .changed
            .wait_timeout_while(orders, CLOSE_TIMEOUT, is_at_work)
            .expect("lock not poisoned");
        orders.written == self.put
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().expect("lock not poisoned")
    }

    fn work(&self, path: &Path, writes: &Writes, on_end: &impl Fn()) {
        let mut failed_in_a_row = 0_u32;
        while let Some((order, is_last)) = self.take() {
            match order.saved.write(path) {
                Ok(()) => {
                    failed_in_a_row = 0;
                    self.lock().written = order.number;
                    writes.succeed(path);
                    on_end();
                }
                Err(error) => {
                    failed_in_a_row = failed_in_a_row.saturating_add(1);
                    writes.fail(path, &error, failed_in_a_row);
                    on_end();
                    let mut orders = self.lock();
                    orders.next.get_or_insert(order);
                    if is_last {
                        break;
                    }
                    let is_open = |orders: &mut Orders| !orders.closed;
                    let pause = pause_after(failed_in_a_row);
                    let waited = self.changed.wait_timeout_while(orders, pause, is_open);
                    drop(waited.expect("lock not poisoned"));
                }
            }
        }
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// Waits for something to write; `None` once there will be nothing more. What is there when no more will come is tried once.
    fn take(&self) -> Option<(Order, bool)> {
        let is_idle = |orders: &mut Orders| orders.next.is_none() && !orders.closed;
        let waited = self.changed.wait_while(self.lock(), is_idle);
        let mut orders = waited.expect("lock not poisoned");
        let is_last = orders.closed;
        orders.next.take().map(|order| (order, is_last))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::control::membership::state_file::Contents;
    use crate::control::membership::state_file::tests::{backend, saved};

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("later");
        let path = inner.join("state.json");
        let (tried, tries) = std::sync::mpsc::channel();
        let mut file = StateFile::start(path.clone(), move || _ = tried.send(())).unwrap();
        let writes = file.writes();
        file.put(saved([backend("a")]));
        tries.recv().unwrap();
        assert!(matches!(file.standing(1), Standing::Failing(reason) if reason.contains("No such file")));
        assert!(writes.unsaved().is_some() && writes.failed.load(Ordering::Relaxed) > 0);
        fs::create_dir(&inner).unwrap();
        // Newer than what waits for its next try.
        file.put(saved([backend("b")]));
        assert!(file.close());
        assert_eq!(Contents::read(&path).unwrap().backends, [backend("b")]);
        assert_eq!(writes.done.load(Ordering::Relaxed), 1);
        assert_eq!((file.standing(2), writes.unsaved()), (Standing::Written, None));
    }

    #[test]
    fn only_the_latest_of_what_waits_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let mut file = StateFile::start(path.clone(), || {}).unwrap();
        (0..1000).for_each(|number| file.put(saved([backend(&number.to_string())])));
        assert!(file.close());
        assert_eq!(Contents::read(&path).unwrap().backends, [backend("999")]);
        assert_eq!((file.last(), file.standing(7)), (1000, Standing::Written));
    }

    /// A full disk was written to once a second, with a line for each.
    #[test]
    fn a_disk_that_fails_is_tried_less_and_less() {
        let pauses: Vec<u64> = (1..9).map(|failures| pause_after(failures).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause_after(u32::MAX), PAUSE_MAX);
    }
}
