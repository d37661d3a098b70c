//! A worker seen from outside: answers about sessions, gauges, and the audit that tests run.

pub(super) mod audit;
pub(super) mod flight_recorder;
mod former_tables;
pub(super) mod gauges;
pub(super) mod query;
