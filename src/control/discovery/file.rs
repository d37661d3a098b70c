//! Backends that a file lists.
//!
//! The file is watched with inotify(7), as `[global] watch` does: what is put in its place by a rename, and another
//! link on the way to it, is a change as well. A file that somebody is still writing is not taken, nor is one that
//! changes while it is read. Where the kernel reports no change, on NFS for instance, it is seen after `interval`.
//!
//! Nothing here blocks the thread of the sources: a file system that hangs holds up this source and no other, which fails
//! until that has ended.

use std::future::pending;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::belief::{Answer, Records};
use super::listed::{THREAD, on_thread, records};
use super::source::Source;
use crate::config::discover::ListFile;
use crate::config::{LIST_LEN_MAX, Mistake, one_line, parse_list};
use crate::sys::{Call, FileChanges, open_regular};

/// Nothing has changed for so long.
const QUIET: Duration = Duration::from_millis(200);
/// How long one look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);
/// A file that changes all the time is given up after so long, until it is looked at again.
const LATEST: Duration = Duration::from_secs(5);

/// A file that lists backends.
pub(super) struct AskFile {
    settings: ListFile,
    /// Hashes what was read.
    hasher: RandomState,
    /// What was taken last.
    taken: Option<u64>,
    /// Lent to the thread that looks.
    changes: Option<FileChanges>,
    call: Call<Look>,
}

/// What one look has seen.
struct Look {
    changes: Option<FileChanges>,
    text: io::Result<Vec<u8>>,
    /// Why the kernel does not report what changes.
    blind: Option<io::Error>,
    /// Why this may be half of what somebody writes.
    unsettled: Option<&'static str>,
}

impl AskFile {
    pub(super) fn new(settings: ListFile) -> Self {
        Self {
            settings,
            hasher: RandomState::new(),
            taken: None,
            changes: None,
            call: Call::new(THREAD, LOOK_TIMEOUT),
        }
    }

    /// Returns what the file has, once that is settled.
    async fn settled(&mut self) -> Result<Look, String> {
        let latest = Instant::now() + LATEST;
        let mut before = None;
        loop {
            let look = self.look().await?;
            let hash = look.text.as_ref().ok().map(|text| self.hasher.hash_one(text));
            let unsettled = doubt(&look, hash, self.taken, before);
            let Some(why) = unsettled else {
                self.taken = hash;
                return Ok(look);
            };
            self.changes = look.changes;
            before = hash;
            if Instant::now() >= latest {
                return Err(format!("{why}: it is read once that is over"));
            }
            // Whatever comes of it: it is looked at again.
            let _changed = timeout(QUIET, self.changed()).await;
        }
    }

    async fn look(&mut self) -> Result<Look, String> {
        if let Some(late) = self.call.late() {
            return late;
        }
        let changes = self.changes.take().map_or_else(FileChanges::new, Ok);
        let path = self.settings.path.clone();
        self.call.run(move || look(&path, changes)).await
    }

    async fn take(&mut self) -> Result<Records, String> {
        let Look { changes, text, blind, .. } = self.settled().await?;
        self.changes = changes;
        let text = text.map_err(|error| format!("cannot read it: {error}"))?;
        let ListFile { path, format } = self.settings.clone();
        let list = on_thread(move || parse_list(&text, format)).await?;
        let mut records =
            records(list.map_err(|Mistake { line, what, .. }| {
                one_line(&format!("{}:{line}: {what}", path.display()))
            })?);
        records
            .notes
            .extend(blind.map(|error| format!("changes are seen late, its folder is not watched: {error}")));
        Ok(records)
    }
}

impl Source for AskFile {
    /// A list without a backend is what its author means.
    async fn ask(&mut self) -> Answer {
        self.take().await.map_or_else(Answer::Failure, Answer::Records)
    }

    async fn changed(&mut self) {
        let Some(changes) = &mut self.changes else { return pending().await };
        changes.next().await;
        let latest = Instant::now() + LATEST;
        // A file that is saved is several changes.
        while timeout_at(latest.min(Instant::now() + QUIET), changes.next()).await.is_ok() {}
    }
}

fn look(path: &Path, changes: io::Result<FileChanges>) -> Look {
    let mut changes = match changes {
        Ok(changes) => changes,
        Err(error) => return Look { changes: None, text: read(path), blind: Some(error), unsettled: None },
    };
    // First: what changes from here on is reported.
    let blind = changes.follow(path).err();
    let text = read(path);
    let is_changed = changes.take();
    let unsettled = match changes.is_written(path) {
        true => Some("somebody writes to it"),
        false => is_changed.then_some("it changes while it is read"),
    };
    Look { changes: Some(changes), text, blind, unsettled }
}

/// Returns why what was seen may be half of what somebody writes; `hash` is that of its text, and the others are those of
/// what was `taken` last and of what was seen `before`.
///
/// Without a report of the kernel, what is read twice is whole. At the first look there was none yet: a process that has
/// opened the file before and pauses is not known.
fn doubt(look: &Look, hash: Option<u64>, taken: Option<u64>, before: Option<u64>) -> Option<&'static str> {
    let is_unreported = look.blind.is_some() || taken.is_none();
    let is_first = is_unreported && hash != taken && hash != before;
    look.unsettled.or(is_first.then_some("it changes all the time"))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    open_regular(path)?.take(LIST_LEN_MAX as u64 + 1).read_to_end(&mut text)?;
    if text.len() > LIST_LEN_MAX {
        let what = format!("larger than {} MiB", LIST_LEN_MAX >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half of a list is a list, too: the first look took what a process had written before it paused.
    #[test]
    fn what_is_not_reported_is_read_twice() {
        let look = |blind: bool| Look {
            changes: None,
            text: Ok(Vec::new()),
            blind: blind.then(|| io::Error::other("no watch")),
            unsettled: None,
        };
        let (half, whole) = (Some(1), Some(2));
        for blind in [false, true] {
            let first = |hash, before| doubt(&look(blind), hash, None, before).is_some();
            let seen = [first(half, None), first(whole, half), first(whole, whole)];
            assert_eq!(seen, [true, true, false], "at the first look, {blind}");
            let later = |hash, before| doubt(&look(blind), hash, half, before).is_some();
            assert_eq!([later(whole, None), later(whole, whole)], [blind, false], "later, {blind}");
            assert!(!later(half, None), "it is as it was");
        }
        let written = Look { unsettled: Some("somebody writes to it"), ..look(false) };
        assert!(doubt(&written, whole, half, whole).is_some());
        assert!(
            doubt(&look(false), None, None, None).is_none(),
            "a file that cannot be read is a failure at once"
        );
    }
}
