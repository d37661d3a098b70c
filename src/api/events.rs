//! What has happened lately.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which events are wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventFilter {
    /// Those behind this one only.
    #[param(maximum = 9_223_372_036_854_775_807_u64)]
    pub after: Option<u64>,
    /// Rows wanted, 1..=1000 [default: 100]; the newest ones are given.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Only what operators and programs have asked for: the last 1,024 of these are kept, whatever else happens.
    pub audit: Option<bool>,
}

/// Something that an operator would want to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts events; a gap means that some were pushed out.
    pub id: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// What it is about.
    pub kind: EventKind,
    /// The pool that it concerns.
    pub pool: Option<String>,
    /// The backend that it concerns.
    pub backend: Option<String>,
    /// Who asked for it.
    pub who: Option<String>,
    /// In words.
    pub message: String,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A backend's health has changed.
    Health,
    /// A pool has lost its last eligible backend, or has one again.
    Eligibility,
    /// A backend was registered, changed, removed, or is gone.
    Backend,
    /// A configuration was applied or refused.
    Reload,
    /// The process starts, drains or stops.
    Process,
    /// Sessions were ended on request.
    Sessions,
}
