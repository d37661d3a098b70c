//! The names of pools and backends between threads.

/// Names a pool for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolId(pub u32);

/// Names a backend for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendId(pub u32);

impl BackendId {
    /// Returns which of `workers` checks this backend.
    pub const fn owner(self, workers: usize) -> usize {
        self.0 as usize % workers
    }
}
