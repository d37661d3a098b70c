//! A [`FolderWatch`] for a task of tokio, which waits without a thread.

use std::future::pending;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::folder_watch::{FolderWatch, Wait};

/// Watches the way to one file.
pub struct FileChanges(AsyncFd<FolderWatch>);

impl FileChanges {
    /// A watch of nothing yet. Must be called in a runtime that drives I/O. Fails where the user has too many of them.
    pub fn new() -> io::Result<Self> {
        let (watch, _waker) = FolderWatch::new()?;
        // SAFETY: the descriptor is that of the epoll in `watch`: it is the same as long as that lives, and is closed
        // with it.
        #[expect(unsafe_code, reason = "tokio has to be sure of the descriptor")]
        let registered = unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Watches the way to `file` as it is now; see [`FolderWatch::follow`]. May block, as any look at a path.
    pub fn follow(&mut self, file: &Path) -> io::Result<()> {
        self.0.get_mut().follow(&[file.to_owned()], &[]).map(|_is_new| ())
    }

    /// Returns whether something has changed since this or [`FileChanges::next`] returned. Never waits.
    pub fn take(&mut self) -> bool {
        self.0.get_mut().wait(Some(Duration::ZERO)).is_ok_and(|wait| wait == Wait::Changed)
    }

    /// Same as [`FolderWatch::is_written`].
    pub fn is_written(&self, file: &Path) -> bool {
        self.0.get_ref().is_written(file)
    }

    /// Returns once something has changed. Dropped before its end, it misses nothing.
    pub async fn next(&mut self) {
        loop {
            let Ok(mut ready) = self.0.readable_mut().await else { return pending().await };
            // First: what comes from here on makes it ready again.
            ready.clear_ready();
            if self.take() {
                return;
            }
        }
    }
}
