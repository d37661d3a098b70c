//! From the mirror of the file and the flags to the [`Config`]: one file for each table, what belongs where, and what
//! is wrong between them. Reports every mistake and continues with a stand-in; a report that is not empty discards the
//! result.

pub(super) mod access;
pub(super) mod conflicts;

mod admin;
mod agent;
mod announce;
mod cluster;
mod discover;
mod fleet;
mod global;
pub(super) mod listener;
mod log_target;
mod names;
mod pool;
mod pool_names;
mod proxy;
mod routing;

mod exchange;
mod health;
pub(super) mod reader;
mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use toml::Spanned;

use crate::config::address::Resolver;
use crate::config::error::Error;
use crate::config::model::{Config, Listener};
use crate::config::overrides::{BackendFlag, Overrides};
use crate::config::parse::file::Inputs;
use crate::config::parse::raw::{RawConfig, RawListener, RawPool, Table};
use crate::config::parse::report::{Placed, Report, Spot};
use names::Names;
use pool::PoolDraft;
use tls::Trust;

/// Returns the configuration that `raw` and `overrides` describe. Fails with every mistake.
pub(super) fn check(
    raw: &RawConfig,
    overrides: &Overrides,
    inputs: Inputs,
    resolve: Resolver,
    mut report: Report,
) -> Result<Config, Vec<Error>> {
    let global = global::check(raw.global.as_ref(), overrides, &mut report);
    let admin = admin::check(raw.admin.as_ref(), overrides, &mut report);
    let trust = Trust::new(inputs.authorities);
    let mut names = Names { resolve, policy: global.resolve, trust };
    let pools = pools(&raw.pool, global.drain_timeout, overrides, &mut names, &mut report);
    if admin.admin.state_file.is_none() {
        for (raw, pool) in raw.pool.iter().zip(&pools) {
            discover::refuse_state_file(&raw.get_ref().discover, &pool.scope, &mut report);
        }
    }
    let listeners = listeners(&raw.listener, overrides, inputs, &pools, &mut report);
    conflicts::report(&listeners, &pools, &admin, &mut report);
    let announce = announce::check(raw.announce.as_ref(), &global, &listeners, &mut names.trust, &mut report);
    let fleet = fleet::check(raw.fleet.as_ref(), announce.as_ref(), &mut names.trust, &mut report);
    let listeners = listeners.into_iter().map(|listener| listener.item).collect();
    let hosts = pools.iter().flat_map(PoolDraft::resolved).collect();
    let pools = pools.into_iter().map(PoolDraft::into_pool).collect();
    let notes = std::mem::take(&mut report.notes);
    let admin = admin.admin;
    report.finish(Config { global, admin, announce, fleet, listeners, pools, hosts, notes, digest: 0 })
}

/// Returns the pools of the file, or the pool that flags alone make.
fn pools(
    raw: &[Spanned<Table<RawPool>>],
    drain_timeout: Duration,
    overrides: &Overrides,
    names: &mut Names<'_>,
    report: &mut Report,
) -> Vec<PoolDraft> {
    let is_only = raw.len() == 1;
    let mut pools = Vec::new();
    for (index, raw) in raw.iter().enumerate() {
        pools.push(pool::check(raw, index, is_only, drain_timeout, overrides, names, report));
        let raw = raw.get_ref();
        let has_any = !raw.backend.is_empty() || !raw.discover.is_empty();
        if !has_any && (overrides.backends.is_empty() || !is_only) {
            let scope = &pools[index].scope;
            report.add(scope, &scope.spot, "no backend: add [[pool.backend]] with address = \"ADDR:PORT\"");
        }
    }
    if raw.is_empty() && !overrides.backends.is_empty() {
        let nothing = Spanned::new(0..0, Table::default());
        pools.push(pool::check(&nothing, 0, true, drain_timeout, overrides, names, report));
    }
    match pools.as_mut_slice() {
        [] => {
            report.add_bare(&Spot::Whole, "no pool: add [[pool]] with a [[pool.backend]], or use --backend");
        }
        [only] => only.add_flags(&overrides.backends, names, report),
        [_, _, ..] => {
            let flags = overrides.backends.iter().map(BackendFlag::to_string);
            refuse_flags("--backend", flags, "[[pool.backend]]", report);
        }
    }
    pools
}

/// Returns the listeners of the file and of flags.
fn listeners(
    raw: &[Spanned<Table<RawListener>>],
    overrides: &Overrides,
    inputs: Inputs,
    pools: &[PoolDraft],
    report: &mut Report,
) -> Vec<Placed<Listener>> {
    if raw.is_empty() && overrides.listen.is_empty() {
        report.add_bare(
            &Spot::Whole,
            "no listener: add [[listener]] with bind = \"0.0.0.0:9090\", or use --listen",
        );
    }
    let pool_indices: HashMap<&str, usize> =
        pools.iter().enumerate().map(|(index, pool)| (pool.pool.name.as_str(), index)).collect();
    let mut listeners: Vec<_> = raw
        .iter()
        .enumerate()
        .filter_map(|(index, raw)| {
            listener::check(raw, index, overrides, inputs, (pools, &pool_indices), report)
        })
        .collect();
    match pools {
        [] => {}
        [only] => {
            let flags = overrides.listen.iter().enumerate();
            listeners.extend(flags.map(|(index, bind)| listener::of_flag(index, *bind, only.pool.timeouts)));
        }
        [_, _, ..] => {
            let flags = overrides.listen.iter().map(SocketAddr::to_string);
            refuse_flags("--listen", flags, "[[listener]]", report);
        }
    }
    listeners
}

/// Reports flags that would have to belong to one of several pools; in the file they would be a `header`.
fn refuse_flags(flag: &str, values: impl Iterator<Item = String>, header: &str, report: &mut Report) {
    for value in values {
        let spot = Spot::Flag(format!("{flag} {value}"));
        report.add_bare(&spot, format_args!("the file has several pools: write it there, as {header}"));
    }
}
