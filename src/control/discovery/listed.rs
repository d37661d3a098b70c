//! A list of backends, as the sources answer it that read one.

use std::thread;

use tokio::sync::oneshot;

use super::belief::Records;
use crate::config::model::Backend;
use crate::messages::discovery::Found;

/// Returns what a list is as an answer.
pub(super) fn records(list: Vec<Backend>) -> Records {
    let found =
        |Backend { name, address, weight, priority, check: _ }| Found { name, address, weight, priority };
    Records {
        listed: list.into_iter().map(|backend| (String::new(), found(backend))).collect(),
        ..Records::default()
    }
}

/// Runs `work` where it may block, on a thread that ends with it: one that hangs holds up nothing else. Fails where no
/// thread can be started, which a pool of them would not survive.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (sender, done) = oneshot::channel();
    let run = move || {
        // The receiver has gone with a source that is no longer wanted.
        let _unwanted = sender.send(work());
    };
    let started = thread::Builder::new().name("l4lb-list".into()).spawn(run);
    started.map_err(|error| format!("cannot start a thread for it: {error}"))?;
    done.await.map_err(|_| "its thread has ended".to_owned())
}
