//! What a worker shows of itself: answers about sessions, figures of what it holds, and what tests hold it to.

pub(super) mod audit;
pub(super) mod flight_recorder;
mod former_tables;
pub(super) mod gauges;
pub(super) mod query;
