//! The thread of the fleet, as the control thread has it.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::base::time::Instant;
use crate::config::fleet::Fleet;
use crate::config::model::Config;

/// Limit for the request that ends the lease.
pub(super) const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(1);

/// The thread. It ends once this is dropped, behind one last try to withdraw its keys.
pub(super) struct Keeper {
    pub(super) settings: watch::Sender<Option<Fleet>>,
    pub(super) news: Arc<Notify>,
    pub(super) ended: Receiver<()>,
}

impl Keeper {
    /// These settings hold from now on; without any it is in no fleet.
    pub(super) fn want(&self, settings: Option<Fleet>) {
        self.settings.send_if_modified(|before| {
            let is_other = *before != settings;
            *before = settings;
            is_other
        });
    }

    /// What is published may have changed.
    pub(super) fn notice(&self) {
        self.news.notify_one();
    }

    /// Returns once the keys are withdrawn, after the limit of one try at the latest.
    pub(super) fn end(self) {
        let Self { settings, news: _, ended } = self;
        drop(settings);
        // Nothing is sent: it ends when the thread does.
        let _late = ended.recv_timeout(WITHDRAW_TIMEOUT);
    }
}

/// The thread, and what it was asked for.
#[derive(Default)]
pub(in crate::control) struct InFleet {
    /// From the first configuration that has `[fleet]` on.
    pub(super) keeper: Option<Keeper>,
    /// The configuration by which it was last asked.
    pub(super) asked: Option<Arc<Config>>,
    /// The thread could not be started, and this is when that is tried again.
    pub(super) retry: Option<Instant>,
}
