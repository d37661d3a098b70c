//! Counters: each worker has its own, and a shard of its own of each listener and each backend. Merged on read; written
//! when a session opens and closes, now and then while it lasts, and once per turn; never per packet.
//!
//! Every read takes subtrahends before minuends (closed before accepted), and every writer counts the minuend first. So
//! a reader never sees more sessions closed than accepted, nor more bytes written than read ([`violations`]). That
//! needs no lock: [`Counter`] and [`Tally`] are written with `Release` and read with `Acquire`, and everything that one
//! worker hands to another goes through a queue.

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
pub use reasons::{DialFailure, FdKind, PauseReason, RefuseReason};
pub use shards::Shards;
pub use totals::{Share, Totals, check_latency, turn_time};
pub use worker::WorkerStats;
