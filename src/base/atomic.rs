//! The atomics of the files that `tests/loom.rs` compiles a second time, over those of loom, to run through every
//! order in which threads may meet there.

pub use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
