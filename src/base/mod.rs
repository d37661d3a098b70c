//! Pure building blocks, without I/O and without a word about load balancing.

pub mod address;
pub mod atomic;
pub mod hash;
pub mod nearest;
pub mod own_line;
pub mod ready;
pub mod rng;
pub mod slots;
pub mod time;
pub mod timer_wheel;
pub mod token_bucket;

/// The target of the log lines about what operators and programs have changed: every level of the log has them.
pub const AUDIT: &str = "l4lb::audit";
