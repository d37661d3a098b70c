//! What a source lists, on its way into the pool.

use std::sync::Arc;

use crate::config::model::BackendCheck;
use crate::messages::discovery::Found;

/// What one source lists now.
#[derive(Clone)]
pub(in crate::control) struct Listing {
    /// Its name, see [`label`](crate::config::discover::Discover::label).
    pub(in crate::control) source: Arc<str>,
    pub(in crate::control) list: Vec<Found>,
    /// Replaces the checks of the pool for them.
    pub(in crate::control) check: BackendCheck,
}
