//! A list of backends, as the sources answer it that read one.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::belief::Records;
use crate::config::model::Backend;
use crate::messages::discovery::Found;
use crate::sys;

/// Returns what a list is as an answer.
pub(super) fn records(list: Vec<Backend>) -> Records {
    Records {
        listed: list.into_iter().map(|backend| (String::new(), found(backend))).collect(),
        ..Records::default()
    }
}

/// Returns a backend of a list as sources list it.
pub(super) fn found(Backend { name, address, weight, priority, check: _ }: Backend) -> Found {
    Found { name, address, weight, priority }
}

/// Runs `work` where it may block, see [`sys::on_thread`].
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    sys::on_thread("l4lb-list", work).await
}

const ENDED: &str = "its thread has ended";

/// Work that may hang: nothing waits for it longer than a limit, and there is never more than one thread with it.
pub(super) struct Call<T> {
    limit: Duration,
    /// The result of work that did not end in time.
    late: Option<oneshot::Receiver<T>>,
}

impl<T: Send + 'static> Call<T> {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, late: None }
    }

    /// Returns the result of work that did not end in time, once it has ended; fails until then. `None` when there is no
    /// such work.
    pub(super) fn late(&mut self) -> Option<Result<T, String>> {
        let mut running = self.late.take()?;
        match running.try_recv() {
            Ok(result) => Some(Ok(result)),
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(ENDED.to_owned())),
            Err(oneshot::error::TryRecvError::Empty) => {
                self.late = Some(running);
                Some(Err(self.in_vain()))
            }
        }
    }

    /// Runs `work` on a thread of its own. Fails when that does not end in time: it is left alone, and its result is that
    /// of [`Call::late`]. Must not be called before that is `None`.
    pub(super) async fn run(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let (sender, mut done) = oneshot::channel();
        let run = on_thread(move || {
            // The receiver has gone with a source that is no longer wanted.
            let _unwanted = sender.send(work());
        });
        match timeout(self.limit, run).await {
            Ok(ended) => ended.and_then(|()| done.try_recv().map_err(|_| ENDED.to_owned())),
            Err(_) => {
                self.late = Some(done);
                Err(self.in_vain())
            }
        }
    }

    fn in_vain(&self) -> String {
        format!("no answer of this machine within {} s", self.limit.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// A file system that hung held up its source for ever, without a word.
    #[tokio::test]
    async fn work_that_hangs_is_given_up_once_and_not_begun_again() {
        let (release, released) = channel::<()>();
        let mut call = Call::new(Duration::from_millis(1));
        assert!(call.late().is_none());
        let given_up = call.run(move || released.recv().is_ok()).await.unwrap_err();
        assert_eq!(given_up, "no answer of this machine within 0 s");
        assert_eq!(call.late(), Some(Err(given_up)), "it has not ended");
        release.send(()).unwrap();
        let result = loop {
            match call.late().expect("its result was not taken yet") {
                Ok(result) => break result,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert!(result && call.late().is_none());
    }
}
