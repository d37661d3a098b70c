//! Why the admin API cannot be had.

use std::io;

/// The reason why the admin API could not be started.
#[derive(Debug, thiserror::Error)]
#[error("admin: cannot {what}: {error}")]
pub struct AdminError {
    pub(super) what: String,
    /// Not a `source`: the message contains it.
    pub(super) error: io::Error,
}
