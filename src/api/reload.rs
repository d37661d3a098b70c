//! Reloads of the configuration, and readiness.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A reload is answered within this time, however long `reload_timeout` is; after that, the events report the result.
pub const RELOAD_ANSWER_MAX: Duration = Duration::from_secs(600);

/// The configuration that runs, and keys that wait for a restart.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Config {
    /// Number of the snapshot; rises with each one published.
    pub epoch: u64,
    /// The file that it was read from; `null` when flags alone made it.
    pub file: Option<String>,
    /// The running configuration, every default filled in, as `l4lb check` prints it.
    pub effective: String,
    /// Differences in the file that need a restart.
    #[serde(default)]
    pub restart_pending: Option<RestartPending>,
}

/// The running state as a configuration file.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConfigToml {
    /// Number of the snapshot; rises with each one published.
    pub epoch: u64,
    /// The text of the file.
    pub toml: String,
}

/// The changes of a reload, made or predicted.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReloadReport {
    /// False for a dry run.
    pub applied: bool,
    /// The epoch that runs after the reload.
    pub epoch: u64,
    /// The changes; empty when the file is as it was.
    pub changes: Vec<Change>,
    /// Differences between the file and run-time changes, and which of them wins.
    pub notes: Vec<String>,
}

/// One difference between the running configuration and the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// In words: `pool "web": backend "a": weight 1 -> 3`.
    pub what: String,
    /// Open sessions that the change affects.
    pub sessions: u64,
    /// Whether it needs a restart and is not applied; `what` contains the reason.
    pub needs_restart: bool,
}

/// The reloads since the start, and the result of the last one.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Reload {
    /// Reloads that were applied since the start.
    pub succeeded: u64,
    /// Number of reloads refused, which changed nothing.
    pub failed: u64,
    /// Time of the last reload, applied or refused.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last: Option<Timestamp>,
    /// The mistakes of the last reload, if it was refused.
    pub errors: Vec<String>,
    /// Start of the reload in progress, if any.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub reading_since: Option<Timestamp>,
    /// The last reload that was applied; `null` before the first.
    #[serde(default)]
    pub applied: Option<AppliedReload>,
    /// The last reload, if it was refused; its mistakes are in `errors`.
    #[serde(default)]
    pub refused: Option<RefusedReload>,
}

impl Reload {
    /// Returns the last reload if it was refused and that is not dismissed.
    pub fn shown_refusal(&self) -> Option<&RefusedReload> {
        self.refused.as_ref().filter(|refused| refused.dismissed_by.is_none())
    }
}

/// A reload that was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AppliedReload {
    /// Time of the reload.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The requester: a uid, a peer address, `SIGHUP` or `watch`.
    pub who: String,
    /// The epoch that it has made.
    pub epoch: u64,
    /// The changes, at most 100 of them.
    pub changes: Vec<Change>,
    /// The number of all changes.
    pub count: u64,
}

/// A reload that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedReload {
    /// Its number among the refused ones, which dismisses it.
    pub number: u64,
    /// Time of the reload.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The requester: a uid, a peer address, `SIGHUP` or `watch`.
    pub who: String,
    /// The requester that has dismissed it; the dashboard and `l4lb top` no longer show it.
    #[serde(default)]
    pub dismissed_by: Option<String>,
}

/// Keys of the latest configuration that need a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestartPending {
    /// Time when the first of them was read.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The keys, behind their tables: `admin.socket`.
    pub keys: Vec<String>,
    /// Each key's running and new value, in words: `global: pin false -> true`.
    pub changes: Vec<String>,
}

/// Whether the process was set to be not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadyFail {
    /// Whether `/ready` answers 503 because of it.
    pub fail: bool,
}

/// Selects the pool to be ready.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ReadyFilter {
    /// This pool must be ready. Left out, any pool that a listener serves.
    #[param(min_length = 1, max_length = 64)]
    pub pool: Option<String>,
}
