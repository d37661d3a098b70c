//! The names of what runs, for shells that complete them. A Tab must not wait and must not show an error: without an
//! answer there are no names.

use std::time::Duration;

use crate::api;
use crate::ctl::target::At;
use crate::ctl::{Client, routes};

/// How long a completion waits for the process.
const PATIENCE: Duration = Duration::from_millis(500);
/// Most names that are offered.
const NAMES_MAX: usize = 1_000;

/// What is named at a place of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Listeners,
    Pools,
    /// As POOL/BACKEND.
    Backends,
    /// Pools, and backends as POOL/BACKEND.
    PoolsAndBackends,
}

/// Returns the names of that kind which begin with `prefix`; none where no process answers.
pub(crate) fn names(at: At, kind: Kind, prefix: &str) -> Vec<String> {
    let Ok(client) = at.client() else { return Vec::new() };
    let client = client.with_patience(PATIENCE);
    let mut names = match kind {
        Kind::Listeners => listeners(&client),
        Kind::Pools => pools(&client),
        Kind::Backends => backends(&client, prefix),
        Kind::PoolsAndBackends => [pools(&client), backends(&client, prefix)].concat(),
    };
    names.retain(|name| name.starts_with(prefix));
    names.truncate(NAMES_MAX);
    names
}

fn listeners(client: &Client) -> Vec<String> {
    let rows: Vec<api::Listener> = client.get("/v1/listeners").unwrap_or_default();
    rows.into_iter().map(|listener| listener.name).collect()
}

fn pools(client: &Client) -> Vec<String> {
    let rows: Vec<api::Pool> = client.get("/v1/pools").unwrap_or_default();
    rows.into_iter().map(|pool| pool.name).collect()
}

fn backends(client: &Client, prefix: &str) -> Vec<String> {
    // Of a pool that is written already the others are not fetched.
    let pool = prefix.split_once('/').map(|(pool, _)| pool.to_owned());
    let path = routes::query("/v1/backends", &[("pool", pool)]);
    let rows: Vec<api::Backend> = client.get(&path).unwrap_or_default();
    rows.into_iter().map(|backend| format!("{}/{}", backend.pool, backend.name)).collect()
}
