//! What is counted: by each worker for itself, and by each worker in a shard of its own for each listener and each backend.
//! Merged on read; touched when a session opens and closes, now and then while it lasts, and once a turn; never per
//! packet.
//!
//! On every read what takes away is read before what adds, and each of the former is written behind one of the latter:
//! so a reader never sees more sessions closed than accepted, nor more bytes given than taken ([`violations`]). That
//! needs no lock: [`Counter`] and [`Tally`] are written with `Release` and read with `Acquire`, and what one worker
//! hands to another goes through a queue.

mod backend;
mod counters;
mod histogram;
mod invariants;
mod listener;
mod reasons;
mod shards;
mod totals;
mod worker;

pub use backend::{BackendCounts, BackendStats};
pub use counters::{Counter, Gauge, Tally};
pub use histogram::{Bounds, Histogram, Latency, Lifetime, Reading, TurnTime};
pub use invariants::{violations, violations_at_rest, violations_of_listener};
pub use listener::{ListenerCounts, ListenerReading, ListenerStats};
pub use reasons::{DialFailure, FdKind, PauseReason};
pub use shards::Shards;
pub use totals::{Share, Totals, check_latency, turn_time};
pub use worker::WorkerStats;
