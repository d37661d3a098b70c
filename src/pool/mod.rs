//! The run-time state of pools and backends, and the choice of a backend for a session.
//!
//! A [`Snapshot`] is immutable: the control thread builds one whenever a backend comes, goes or changes its state,
//! and sends it to the workers. What changes in between are the atomics of a [`Backend`], which every worker sees at once.
//! Never dials and never checks; it only remembers and chooses.

mod backend;
mod choose;
mod snapshot;

pub use backend::{Admin, Backend, BackendId, Lease};
pub use choose::choose;
pub use snapshot::{Listener, ListenerId, Pool, PoolId, Share, Snapshot};
