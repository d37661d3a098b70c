//! Listeners, and what pauses them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One address that clients connect to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its pool.
    pub pool: String,
    /// Open sessions that this listener accepted.
    pub sessions: u64,
    /// Limit on its open sessions, if any.
    pub max_sessions: Option<u64>,
    /// Sessions that it has accepted.
    #[serde(default)]
    pub accepted: u64,
    /// Sessions that ended in a way that a client sees as a failure: no backend, or the backend broke off.
    #[serde(default)]
    pub failed: u64,
    /// Bytes written to backends.
    #[serde(default)]
    pub to_backend: u64,
    /// Bytes written to clients.
    #[serde(default)]
    pub to_client: u64,
    /// Whether an operator has paused it: new clients are refused, its sessions live on.
    #[serde(default)]
    pub paused: bool,
    /// The operator that has paused it.
    #[serde(default)]
    pub paused_by: Option<String>,
    /// Time at which it was paused.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub paused_since: Option<Timestamp>,
}

/// A change of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerChange {
    /// Whether it pauses.
    pub paused: bool,
}
