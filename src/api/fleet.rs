//! The balancers of a fleet, as one of them sees them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Admin;

/// The fleet that `[fleet]` names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Fleet {
    /// The name of the balancer that answers.
    pub name: String,
    /// Whether its own keys are there.
    pub published: bool,
    /// Why they are not as they should be; `null` while they are.
    pub failing: Option<Failing>,
    /// Why the others are shown as they were and not as they are; `null` while they are current.
    pub lost: Option<Failing>,
    /// All balancers that are known, by name, with the one that answers.
    pub balancers: Vec<Balancer>,
    /// Backends that operators want out of service on all balancers.
    pub wanted: Vec<FleetWanted>,
    /// Backends that are up for some balancers and down for others, of those that the balancer that answers has.
    pub disagreements: Vec<Disagreement>,
    /// All of them, of which no more than 100 are listed.
    pub disagreements_total: u64,
}

/// Why something fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failing {
    /// Time of the first failure.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Why the last try failed.
    pub reason: String,
}

/// A balancer, as it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Balancer {
    /// Its name.
    pub name: String,
    /// Its version, as `l4lb --version` prints it.
    pub version: String,
    /// Time when it began to serve.
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
    /// `serving`, `draining` or `stopping`.
    pub stage: String,
    /// Why no clients should be sent there, in words; `null` while it is ready.
    pub not_ready: Option<String>,
    /// How its view of the backends contradicts that of most others, in words; `null` while it does not.
    pub alone: Option<String>,
    /// Stands for its settings but those of its machine: the same for balancers with the same ones.
    pub config: String,
    /// Whether that is another configuration than the one that most have.
    pub differs: bool,
    /// Seconds since it was written, by both clocks.
    pub age: f64,
    /// Open sessions.
    pub sessions: u64,
    /// New sessions per second.
    pub rate: f64,
    /// Addresses that clients connect to, by the names of the listeners.
    pub listeners: BTreeMap<String, String>,
    /// Its backends, by the names of the pools.
    pub pools: BTreeMap<String, FleetPool>,
}

/// The backends of a pool as a balancer sees them, in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FleetPool {
    /// All of them.
    pub backends: u64,
    /// Those that are up, or not checked, and not drained.
    pub up: u64,
    /// Those that may get new sessions.
    pub eligible: u64,
}

/// A backend that operators want out of service on all balancers, and how far that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FleetWanted {
    /// The pool that it belongs to.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// `drain` or `maint`.
    pub admin: Admin,
    /// The requester, and the balancer that was asked.
    pub by: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The balancers on which it is so.
    pub done: Vec<String>,
    /// Those that have the pool, and not this backend in this state yet.
    pub pending: Vec<String>,
}

/// A change of backends on all balancers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetChange {
    /// Names and patterns, as in `PATCH /v1/backends`, of backends that the balancer that is asked has.
    #[schema(min_items = 1, max_items = 256, example = json!(["web/a"]))]
    pub backends: Vec<String>,
    /// The administrative state: `ready` ends what was wanted.
    pub admin: Admin,
    /// Permits a pool to lose its last eligible backend, as in `PATCH /v1/backends`.
    #[serde(default)]
    pub force: bool,
}

/// The backends that a change is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FleetChanged {
    /// Each as `POOL/BACKEND`. What is wanted of them is in etcd; `GET /v1/fleet` has the progress.
    pub backends: Vec<String>,
}

/// A backend that is up for some balancers and down for others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Disagreement {
    /// The pool that it belongs to.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// The names of the balancers by how they see it: `up`, `down`, `unknown`, `drain` or `maint`.
    pub states: BTreeMap<String, Vec<String>>,
}
