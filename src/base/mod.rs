//! Pure building blocks: no I/O, and nothing that knows about load balancing.

pub mod address;
pub mod atomic;
pub mod causes;
pub mod glob;
pub mod hash;
pub mod nearest;
pub mod network;
pub mod own_line;
pub mod ready;
pub mod retries;
pub mod rng;
pub mod slots;
pub mod time;
pub mod timer_wheel;
pub mod token_bucket;

/// Target of the log lines about changes by operators and programs. It must be logged at every level.
pub const AUDIT: &str = "l4lb::audit";
