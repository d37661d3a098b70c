//! Work that may block, beside tasks that must not.

use std::thread;

use tokio::sync::oneshot;

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
    done.await.map_err(|_| "its thread has ended".to_owned())
}
