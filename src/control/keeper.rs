//! A thread that keeps something elsewhere as it is wanted here, such as keys in etcd. The control thread says what is
//! wanted, and never waits for it but at the end.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;

/// Limit for the one try to withdraw everything.
pub(super) const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(1);

/// The thread. It ends once this is dropped, behind one last try to withdraw what it keeps.
pub(super) struct Keeper<T> {
    wanted: watch::Sender<Option<T>>,
    ended: Receiver<()>,
}

impl<T: PartialEq + Send + Sync + 'static> Keeper<T> {
    /// Starts a thread of that name, on which `keep` runs. It must end once its sender is dropped. Nothing is wanted yet.
    pub(super) fn start<F: Future<Output = ()>>(
        name: &str,
        keep: impl FnOnce(watch::Receiver<Option<T>>) -> F + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (wanted, receiver) = watch::channel(None);
        let (end, ended) = channel();
        thread::Builder::new().name(name.into()).spawn(move || {
            runtime.block_on(keep(receiver));
            drop(end);
        })?;
        Ok(Self { wanted, ended })
    }

    /// This is wanted from now on, and nothing of before.
    pub(super) fn want(&self, wanted: Option<T>) {
        self.wanted.send_if_modified(|before| {
            let is_other = *before != wanted;
            *before = wanted;
            is_other
        });
    }

    /// Returns once all is withdrawn, after the limit of one try at the latest.
    pub(super) fn end(self) {
        let Self { wanted, ended } = self;
        drop(wanted);
        // Nothing is sent: it ends when the thread does.
        let _late = ended.recv_timeout(WITHDRAW_TIMEOUT);
    }
}
