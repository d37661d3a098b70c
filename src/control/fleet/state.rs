//! The thread of the fleet, as the control thread has it.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::base::time::Instant;
use crate::config::fleet::Fleet;
use crate::config::model::Config;
use crate::control::keeper::Keeper;

/// The thread, and what it was asked for.
#[derive(Default)]
pub(in crate::control) struct InFleet {
    /// From the first configuration that has `[fleet]` on.
    pub(super) keeper: Option<Keeper<Fleet>>,
    /// Notified when something that is published may have changed.
    pub(super) news: Arc<Notify>,
    /// The configuration by which it was last asked.
    pub(super) asked: Option<Arc<Config>>,
    /// The thread could not be started, and this is when that is tried again.
    pub(super) retry: Option<Instant>,
}
