//! `[global] watch`: asks for a reload when the configuration has become another one.
//!
//! On a thread of its own, which only looks and asks: what it has seen is checked, refused, counted and shown as with a
//! SIGHUP. It never takes a file that is still being written, and it waits until nothing has changed for a moment: a
//! commit that is checked out, or a file that an editor saves, is many changes. Where the kernel reports none (its
//! watches are used up) it looks every ten seconds, and takes what it has seen twice.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::base::time::Instant;
use crate::config::Looked;
use crate::messages::reload::{Look, Mode, ReloadRequest};
use crate::messages::report::{Report, Reports};
use crate::sys::{Clock, FolderWaker, FolderWatch, Wait};

/// The requester, as logs name it.
pub(super) const WATCH: &str = "watch";
/// Nothing has changed for so long.
const QUIET: Duration = Duration::from_millis(200);
/// Changes that never end are looked at after so long.
const LATEST: Duration = Duration::from_secs(5);
/// How often it looks where the kernel reports nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Watches the files of the configuration until it is dropped.
pub(super) struct FileWatch {
    shared: Arc<Shared>,
    waker: FolderWaker,
}

struct Shared {
    /// The digest of what was read or asked for last.
    seen: AtomicU64,
    ended: AtomicBool,
}

impl FileWatch {
    /// Asks `reports` for a reload whenever `look` no longer returns what was seen: `digest` at first.
    pub(super) fn start(look: Look, digest: u64, reports: Reports) -> io::Result<Self> {
        let shared = Arc::new(Shared { seen: AtomicU64::new(digest), ended: AtomicBool::new(false) });
        let (folders, waker) = FolderWatch::new()?;
        let mut watching =
            Watching { look, reports, shared: Arc::clone(&shared), folders, is_blind: false, last: None };
        thread::Builder::new().name("l4lb-watch".into()).spawn(move || watching.run())?;
        Ok(Self { shared, waker })
    }

    /// What has this digest is run: it needs no reload. Where that is not what was asked for last, it looks again: a
    /// request that had to wait may have brought back what the files had before.
    pub(super) fn saw(&self, digest: u64) {
        let is_other = self.shared.seen.swap(digest, Ordering::Relaxed) != digest;
        // A configuration read from no file has digest 0: the files are no newer than it.
        if is_other && digest != 0 {
            self.waker.wake();
        }
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.waker.wake();
    }
}

struct Watching {
    look: Look,
    reports: Reports,
    shared: Arc<Shared>,
    folders: FolderWatch,
    /// Whether a folder cannot be watched.
    is_blind: bool,
    /// The state of the files at the last look.
    last: Option<u64>,
}

impl Watching {
    fn run(&mut self) {
        let clock = Clock::of_process();
        // Changes since the configuration was read have not been reported.
        let mut changed = self.look(clock.now());
        while !self.shared.ended.load(Ordering::Relaxed) {
            let timeout = match (changed, self.is_blind) {
                (Some(_), _) => Some(QUIET),
                (None, true) => Some(LOOK_INTERVAL),
                (None, false) => None,
            };
            let wait = match self.folders.wait(timeout) {
                Ok(wait) => wait,
                Err(error) => {
                    let instead = "reload them by SIGHUP";
                    log::error!(error:%; "the files of the configuration are not watched any more: {instead}");
                    return;
                }
            };
            match wait {
                // It has ended, or something else runs than what was asked for.
                Wait::Woken => changed = changed.or_else(|| Some(clock.now())),
                Wait::Changed if !is_long_ago(changed, clock.now()) => {
                    changed = changed.or_else(|| Some(clock.now()));
                }
                Wait::Changed | Wait::TimedOut => changed = self.look(clock.now()),
            }
        }
    }

    /// Asks for a reload, if there is something else to read. Returns since when there may be, if it is too early to
    /// say.
    fn look(&mut self, now: Instant) -> Option<Instant> {
        let (Looked { digest, files, folders, .. }, source) = (self.look)();
        let followed = self.folders.follow(&files, &folders);
        let was_blind = std::mem::replace(&mut self.is_blind, followed.is_err());
        let is_new = followed.unwrap_or_else(|error| {
            if !was_blind {
                let every = LOOK_INTERVAL;
                log::warn!(error:%, every:?; "not all folders of the configuration can be watched: it is looked at instead");
            }
            false
        });
        let before = self.last.replace(digest);
        // What was written in a new folder before it was watched, or in the middle of the look, is seen by the next
        // one.
        if is_new || (self.is_blind && before != Some(digest)) {
            return Some(now);
        }
        // So is what was written while it was read: half of it may have been.
        if self.folders.wait(Some(Duration::ZERO)).is_ok_and(|wait| wait == Wait::Changed) {
            return Some(now);
        }
        if let Some(file) = files.iter().find(|file| self.folders.is_written(file)) {
            log::debug!(file:% = file.display(); "the file is being written: it is read once that ends");
            return None;
        }
        if self.shared.seen.swap(digest, Ordering::Relaxed) != digest {
            log::info!("the files of the configuration have changed");
            // The text read here is run, not bytes that are written later.
            let (source, mode) = (Some(source), Mode::Apply);
            let request = ReloadRequest { who: WATCH.into(), source, mode, answer: None, listening: None };
            self.reports.send_waiting(Report::ReloadRequest(request));
        }
        None
    }
}

/// Returns whether it has lasted for long enough.
fn is_long_ago(changed: Option<Instant>, now: Instant) -> bool {
    changed.is_some_and(|changed| now >= changed + LATEST)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs::{self, File};
    use std::path::Path;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::config::{self, Inputs};
    use crate::messages::reload::Source;

    const INPUTS: Inputs =
        Inputs { open: |path| File::open(path), list: names_in, variable: |_| None, ..crate::sys::INPUTS };

    fn names_in(folder: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }

    /// A request that had waited was run while the file had something newer, and nothing looked at it again.
    #[test]
    fn the_watch_looks_again_when_another_configuration_runs_than_requested() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        fs::write(&path, "the newer one").unwrap();
        let newer = config::look(&path, INPUTS).digest;
        let (looked, looks) = channel();
        let look: Look = Arc::new(move || {
            _ = looked.send(());
            let source: Source = Arc::new(|_| Err(Vec::new()));
            (config::look(&path, INPUTS), source)
        });
        let (reports, inbox) = Reports::new();
        let watch = FileWatch::start(look, newer, reports).unwrap();
        // The second look is at a folder that is watched by then.
        (0..2).for_each(|_| looks.recv().unwrap());
        watch.saw(newer.wrapping_add(1));
        let Report::ReloadRequest(request) = inbox.recv().unwrap() else { panic!("it asks for a reload") };
        assert_eq!(request.who, WATCH);
    }
}
