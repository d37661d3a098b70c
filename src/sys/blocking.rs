//! Work that may block, beside tasks that must not.

use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

const ENDED: &str = "its thread has ended";

/// Runs `work` where it may block, on a thread of that name that ends with it: one that hangs holds up nothing else.
/// Fails where no thread can be started, which a pool of them would not survive.
pub async fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (sender, done) = oneshot::channel();
    let run = move || {
        // The receiver has gone with what is no longer wanted.
        let _unwanted = sender.send(work());
    };
    let started = thread::Builder::new().name(name.to_owned()).spawn(run);
    started.map_err(|error| format!("cannot start a thread for it: {error}"))?;
    done.await.map_err(|_| ENDED.to_owned())
}

/// Work that may hang: nothing waits for it longer than a limit, and there is never more than one thread with it.
#[derive(Debug)]
pub struct Call<T> {
    name: &'static str,
    limit: Duration,
    /// The result of work that did not end in time.
    late: Option<oneshot::Receiver<T>>,
}

impl<T: Send + 'static> Call<T> {
    /// For work on threads of that name, which has that much time.
    pub fn new(name: &'static str, limit: Duration) -> Self {
        Self { name, limit, late: None }
    }

    /// Returns the result of work that did not end in time, once it has ended; fails until then. `None` when there is no
    /// such work.
    pub fn late(&mut self) -> Option<Result<T, String>> {
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
    pub async fn run(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let (sender, mut done) = oneshot::channel();
        let run = on_thread(self.name, move || {
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
        let mut call = Call::new("test", Duration::from_millis(1));
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
