//! The stages of the process, and its end as an operator asks for it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The stage of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Accepts connections and serves sessions.
    Serving,
    /// Finishes open sessions, accepts no new ones.
    Draining,
    /// Resets the sessions that are left, then exits.
    Stopping,
}

/// How the process is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// True resets all sessions at once; false drains first, as SIGTERM does.
    #[serde(default)]
    pub now: bool,
}

/// How the process ends, as it was when it answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stopping {
    /// Id of the process that ends.
    pub pid: u32,
    /// The stage of the process: `serving` while `shutdown_delay` lasts.
    pub stage: Stage,
    /// Open sessions.
    pub sessions: u64,
    /// Seconds until it accepts no more connections; `null` when it accepts none already.
    pub drains_in: Option<f64>,
    /// Seconds until the sessions that are left are reset.
    pub cut_in: f64,
}
