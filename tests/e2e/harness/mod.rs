//! A server that runs, the peers at both of its ends, and what they do.

pub(crate) mod backends;
pub(crate) mod daemon;
pub(crate) mod fake_admin_api;
pub(crate) mod fake_etcd;
pub(crate) mod lab;
pub(crate) mod pattern;
pub(crate) mod peer;
pub(crate) mod program;
pub(crate) mod relay;
pub(crate) mod tls_client;
