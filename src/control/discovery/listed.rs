//! A list of backends, as the sources answer it that read one.

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

/// The name of the threads on which sources do what may block.
pub(super) const THREAD: &str = "l4lb-list";

/// Runs `work` where it may block, see [`sys::on_thread`].
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    sys::on_thread(THREAD, work).await
}
