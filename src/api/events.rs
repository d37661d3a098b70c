//! Recent events.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The parameters that select events.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventFilter {
    /// Only events after this id.
    #[param(maximum = 9_223_372_036_854_775_807_u64)]
    pub after: Option<u64>,
    /// Most rows to return, 1..=1000 [default: 100]: the newest ones.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Only requests of operators and programs: the last 1,024 of these are kept, whatever else happens.
    pub audit: Option<bool>,
}

/// An event of interest to operators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Number of the event; a gap means that events were dropped.
    pub id: u64,
    /// Time of the event.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The subject of the event, by which events are filtered.
    pub kind: EventKind,
    /// The pool that the event concerns, if any.
    pub pool: Option<String>,
    /// The backend that the event concerns, if any.
    pub backend: Option<String>,
    /// The requester, for a change that was requested: a uid, a peer address or a signal.
    pub who: Option<String>,
    /// The event in words.
    pub message: String,
}

/// The subject of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A backend's health has changed.
    Health,
    /// A pool has lost its last eligible backend, or has one again.
    Eligibility,
    /// The agent of a backend says something else than before, or cannot be reached.
    Agent,
    /// The certificate of a backend expires soon.
    Certificate,
    /// A backend was registered, changed, removed, or is gone.
    Backend,
    /// A configuration was applied or refused.
    Reload,
    /// The records by which clients find the process were put, withdrawn, or could not be kept.
    Announce,
    /// What this balancer publishes for the others could not be kept, or theirs not be read; or both is as it should be.
    Fleet,
    /// The process starts, drains or stops.
    Process,
    /// Sessions were ended on request.
    Sessions,
}
