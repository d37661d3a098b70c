//! Shares of new sessions per backend.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The share of each pool's new sessions per backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Topology {
    /// The pools, each with the shares of its backends.
    pub pools: Vec<PoolShares>,
}

/// The shares of one pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolShares {
    /// The name of the pool.
    pub pool: String,
    /// The algorithm that picks a backend.
    pub balance: String,
    /// Slots of the hash table, or turns of the schedule; 0 for algorithms without a table.
    pub slots: u64,
    /// The backends of the pool, each with its share.
    pub backends: Vec<Share>,
}

/// The share of a backend in the table of its pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Share {
    /// The name of the backend, unique within the pool.
    pub backend: String,
    /// The address and port that sessions dial.
    pub address: String,
    /// Its slots of the hash table or turns of the schedule.
    pub slots: u64,
    /// Its share of all slots, 0..=1.
    pub share: f64,
    /// The share by weight alone, 0..=1.
    pub expected: f64,
}
