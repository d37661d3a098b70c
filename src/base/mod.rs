//! Pure building blocks, without I/O and without a word about load balancing.

pub mod atomic;
pub mod hash;
pub mod own_line;
pub mod ready;
pub mod rng;
pub mod slots;
pub mod time;
pub mod timer_wheel;
pub mod token_bucket;
