//! What sources have listed before they are followed: kept over a restart, and put into the first snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::address::Address;
use crate::config::Config;
use crate::config::discover::Initial;
use crate::config::model;
use crate::control::membership::merge::Membership;
use crate::control::membership::origin::Discovery;
use crate::control::membership::requests::BACKENDS_MAX;
use crate::control::membership::state_file::{SavedListing, SavedSource};
use crate::messages::discovery::{Found, Listed};

/// Returns the form of a list on the disk.
pub(super) fn saved_source(listed: Listed) -> SavedSource {
    let Listed { pool, source, list } = listed;
    let backend =
        |Found { name, address, weight, priority }| SavedListing { name, address, weight, priority };
    SavedSource { pool, source, backends: list.into_iter().map(backend).collect() }
}

/// Returns what was saved of the sources of `config` that begin with that.
pub fn listed_in(saved: Vec<SavedSource>, config: &Config) -> Vec<Listed> {
    let is_wanted = |saved: &SavedSource| {
        let of_pool = config.pools.iter().filter(|pool| pool.name == saved.pool);
        let mut sources = of_pool.flat_map(|pool| &pool.discover);
        sources.any(|source| source.initial == Initial::StateFile && source.label() == saved.source)
    };
    let found = |SavedListing { name, address, weight, priority }| Found { name, address, weight, priority };
    let listed = |SavedSource { pool, source, backends }| Listed {
        pool,
        source,
        list: backends.into_iter().map(found).collect(),
    };
    saved.into_iter().filter(is_wanted).map(listed).collect()
}

/// Puts the backends that sources have listed behind the `members` of their pool, as far as they fit. Returns those
/// that do, by address. The others are reported when their sources are followed.
pub(super) fn add_listed(members: &mut Membership<'_>, listed: &[&Listed]) -> HashMap<Address, Discovery> {
    let mut discovered = HashMap::new();
    for Listed { source, list, .. } in listed {
        let source: Arc<str> = source.as_str().into();
        for Found { name, address, weight, priority } in list.iter().cloned() {
            let known = Discovery { source: Arc::clone(&source), weight };
            let check = model::BackendCheck::default();
            let backend = model::Backend { name, address: address.clone(), weight, priority, check };
            if members.len() < BACKENDS_MAX && members.add(backend).is_ok() {
                discovered.insert(address, known);
            }
        }
    }
    discovered
}
