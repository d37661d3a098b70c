//! What share of the new sessions each backend has.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What share of a pool's new sessions each backend has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Topology {
    /// Pool by pool.
    pub pools: Vec<PoolShares>,
}

/// The shares of one pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolShares {
    /// The pool.
    pub pool: String,
    /// How a backend is picked.
    pub balance: String,
    /// Slots of the hash table, or turns of the schedule, that are shared out; 0 where the pick has no table.
    pub slots: u64,
    /// Backend by backend.
    pub backends: Vec<Share>,
}

/// One backend's share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Share {
    /// The backend.
    pub backend: String,
    /// Where it is dialed.
    pub address: String,
    /// Slots of the hash space or turns of the schedule that it has.
    pub slots: u64,
    /// The same as a share of all, 0..=1.
    pub share: f64,
    /// What the weights alone would give it, 0..=1.
    pub expected: f64,
}
