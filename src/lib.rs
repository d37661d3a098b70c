//! l4lb, a Layer-4 TCP load balancer: one single-threaded, edge-triggered event loop per core.
//!
//! # The manual
//!
//! | page | for |
//! |---|---|
//! | [`manual::architecture`] | the life of a connection, layers, invariants, glossary |
//! | [`manual::configuration`] | algorithms, workers, names, timeouts |
//! | [`manual::health_checks`] | types of checks, scripts of several steps, several checks |
//! | [`manual::discovery`] | backends that come and go by themselves: DNS, files, HTTP |
//! | [`manual::fleet`] | many balancers with one list of backends in etcd |
//! | [`manual::agents`] | programs beside backends that say what these should get, in HAProxy's protocol |
//! | [`manual::migrating`] | HAProxy, nginx stream and Envoy, key by key; `l4lb import` |
//! | [`manual::operating`] | the service, signals, `l4lb ctl`, registration, reload |
//! | [`manual::observability`] | logs and reasons, explain, top, dashboard, metrics |
//! | [`manual::performance`] | the benchmark, latency, what a session costs |
//! | [`manual::testing`] | the tests and checks, how to replay a seed |
//! | [`manual::kernel_facts`] | what Linux does, measured |
//! | [`manual::decisions`] | what was measured, and adopted or rejected |
//!
//! The `mod` lines of this file are in reading order; the architecture has the table of what each
//! imports (`tests/layering.rs`).

pub mod manual;

pub mod base;

pub mod api;

pub mod preread;

pub mod admission;

pub mod balance;

pub mod tls;

pub mod config;

pub mod session;

pub mod stats;

pub mod pool;

pub mod health;

pub mod sys;

pub mod messages;

pub mod logging;

pub mod etcd;

pub mod fleet;

pub mod worker;

pub mod control;

pub mod server;

mod demo;

pub mod import;

pub mod ctl;

mod doctor;

mod top;

pub mod cli;
