//! The load balancer from outside: real sockets, peers that follow a script, and its books at the end.
//!
//! A [`lab::Lab`] is a running server with a backend behind it; a [`relay::Relay`] is one session through it, told
//! what to do at which side. Each test ends with an audit: every session is over, for the expected reason, with
//! every byte accounted for. Nothing here sleeps: a test waits for a condition, for [`peer::PATIENCE`] at most.

mod canned;
mod daemon;
mod fleet;
mod lab;
mod pattern;
mod peer;
mod program;
mod relay;

mod crowd;
mod dials;
mod drain;
mod ends;
mod integrity;
mod pressure;
mod timeouts;
mod top;

mod admin;
mod backends;
mod changes;
mod counts;
mod ctl;
mod doors;
mod follows;
mod health;
mod leases;
mod limits;
mod listeners;
mod logs;
mod metrics;
mod moves;
mod ready;
mod register;
mod reload;
mod service;
mod sessions;
mod shutdown;
mod spread;
mod workers;
