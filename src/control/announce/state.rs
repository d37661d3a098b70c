//! Which records are to be kept, and how that goes.

use std::sync::Arc;

use jiff::Timestamp;

use super::keeper::Wanted;
use crate::base::time::Instant;
use crate::config::model::Config;
use crate::control::keeper::Keeper;
use crate::messages::announce::Announced;

/// The records that are wanted, and the thread that keeps them.
#[derive(Default)]
pub(in crate::control) struct Announcing {
    /// From the first configuration that has `[announce]` on.
    pub(super) keeper: Option<Keeper<Wanted>>,
    /// The configuration and the listeners by which the keeper was last asked.
    pub(super) asked: Option<(Arc<Config>, Vec<bool>)>,
    /// The thread could not be started, and this is when that is tried again.
    pub(super) retry: Option<Instant>,
}

/// The standing of the records, for those that ask.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) announced: Announced,
    pub(crate) since: Timestamp,
}
