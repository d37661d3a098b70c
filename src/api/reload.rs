//! Other configurations, and whether clients should be sent here.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A reload is answered within that, however long `reload_timeout` is: behind it, the events tell what became of it.
pub const RELOAD_ANSWER_MAX: Duration = Duration::from_secs(600);

/// The configuration that runs.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Config {
    /// Counts the snapshots that were published.
    pub epoch: u64,
    /// The file that it was read from; `null` when flags alone made it.
    pub file: Option<String>,
    /// What runs, every default filled in, as `l4lb check` prints it.
    pub effective: String,
    /// What the file says otherwise, and takes a restart.
    #[serde(default)]
    pub restart_pending: Option<RestartPending>,
}

/// What a reload changes, or would change.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReloadReport {
    /// False for a dry run.
    pub applied: bool,
    /// The epoch that runs now.
    pub epoch: u64,
    /// Change by change.
    pub changes: Vec<Change>,
    /// Where the file and what was changed at run time differ, and which of them wins.
    pub notes: Vec<String>,
}

/// One difference between what runs and the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// In words: `pool "web": backend "a": weight 1 -> 3`.
    pub what: String,
    /// Sessions that it touches.
    pub sessions: u64,
    /// Whether it needs a restart, so that it is not applied; `what` says why.
    pub needs_restart: bool,
}

/// Reloads so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Reload {
    /// How many were applied.
    pub succeeded: u64,
    /// How many were refused, and changed nothing.
    pub failed: u64,
    /// When the last of either kind was done.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last: Option<Timestamp>,
    /// What was wrong with the last one, if it was refused.
    pub errors: Vec<String>,
    /// Since when the configuration is being read, while it is.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub reading_since: Option<Timestamp>,
}

/// Keys of the configuration that was read last whose values take effect with a restart only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestartPending {
    /// When the first of them was read.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The keys, behind their tables: `admin.socket`.
    pub keys: Vec<String>,
    /// In words what each of them has and would have: `global: pin false -> true`.
    pub changes: Vec<String>,
}

/// Whether somebody wants the process not to be ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadyFail {
    /// Whether `/ready` answers 503 for that.
    pub fail: bool,
}

/// What is to be ready.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ReadyFilter {
    /// This pool. Left out, any that a listener serves.
    #[param(min_length = 1, max_length = 64)]
    pub pool: Option<String>,
}
