//! The run-time state of pools and backends, and the choice of a backend for a session.
//!
//! A [`Snapshot`] is immutable: the control thread builds one whenever the configuration or the state of a backend
//! changes, and sends it to the workers. Only the atomics of a [`Backend`] change in between, and every worker sees
//! them at once. This module never dials and never checks; it only remembers and chooses.

mod admin;
mod advice;
mod backend;
mod choose;
mod explain;
mod ids;
mod listener;
#[cfg(test)]
mod parties;
mod permits;
mod snapshot;
mod tables;

pub use admin::Admin;
pub use advice::{Advice, AgentWeight, PERCENT_MAX};
pub use backend::{Backend, Lease, Setting};
pub use choose::{Chosen, choose};
pub use explain::{Choice, SkipReason, Why};
pub use ids::{BackendId, PoolId};
pub use listener::{Listener, ListenerId};
pub use permits::Gauge;
pub use snapshot::Snapshot;
pub use tables::{Pool, Share, TierKind};
