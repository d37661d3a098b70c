//! The load balancer from outside: real sockets, peers that follow a script, and its books at the end.
//!
//! A [`Lab`](harness::lab::Lab) is a running server with a backend behind it; a [`Relay`](harness::relay::Relay) is one
//! session through it, which a test drives at both sides. Each test ends with an audit: every session is
//! over, for the expected reason, with every byte accounted for. Nothing here sleeps: a test waits for a condition, for
//! [`PATIENCE`](harness::peer::PATIENCE) at most.

mod harness;

mod backpressure;
mod concurrency;
mod dials;
mod half_close_and_reset;
mod integrity;
mod timeouts;
mod tls_checks;
mod top;

mod access;
mod admin;
mod admin_auth;
mod agents;
mod announce;
mod backends;
mod balancing;
mod byte_accounting;
mod completions;
mod counters;
mod ctl;
mod ctl_check;
mod discovery;
mod discovery_etcd;
mod discovery_file;
mod discovery_http;
mod fleet;
mod follows;
mod health;
mod leases;
mod limits;
mod listener_reload;
mod listeners;
mod logs;
mod metrics;
mod moves;
mod pauses;
mod placing;
mod postgres;
mod proxy_in;
mod proxy_protocol;
mod ready;
mod register;
mod register_etcd;
mod reload;
mod routes;
mod service;
mod sessions;
mod shutdown;
mod stop;
mod syslog;
mod watch;
mod workers;
