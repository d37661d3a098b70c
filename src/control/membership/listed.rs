//! What sources have listed before they are followed: kept over a restart, and put into the first snapshot.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::Config;
use crate::config::discover::{Discover, Initial};
use crate::config::model::{self, OwnSocket};
use crate::control::control_loop::ControlLoop;
use crate::control::membership::leases::Registrations;
use crate::control::membership::merge::Membership;
use crate::control::membership::origin::Discovery;
use crate::control::membership::placement::Placements;
use crate::control::membership::requests::BACKENDS_MAX;
use crate::control::membership::state_file::{SavedAuthor, SavedListing, SavedSource};
use crate::messages::discovery::{Found, Listed};
use crate::pool::{Backend, Snapshot};

/// Returns the form of a list on the disk, which is written `now`.
pub(in crate::control) fn saved_source(listed: Listed, config: &Config, now: Timestamp) -> SavedSource {
    let settings = settings_of(config, &listed.pool, &listed.source);
    let Listed { pool, source, list, age } = listed;
    // A later configuration may set `stale`, when this is long out of date.
    let answered = settings.and_then(|settings| settings.stale).and_then(|_| now.checked_sub(age).ok());
    let backend =
        |Found { name, address, weight, priority }| SavedListing { name, address, weight, priority };
    SavedSource { pool, source, backends: list.into_iter().map(backend).collect(), answered }
}

/// Returns the source of that label in that pool.
fn settings_of<'c>(config: &'c Config, pool: &str, label: &str) -> Option<&'c Discover> {
    let of_pool = config.pools.iter().filter(|known| known.name == pool);
    of_pool.flat_map(|pool| &pool.discover).find(|source| source.label() == label)
}

/// Returns what was saved of the sources of `config` that begin with that; it is `now`.
pub fn listed_in(saved: Vec<SavedSource>, config: &Config, now: Timestamp) -> Vec<Listed> {
    let is_wanted = |saved: &SavedSource| {
        let settings = settings_of(config, &saved.pool, &saved.source);
        settings.is_some_and(|settings| settings.initial == Initial::StateFile)
    };
    // A clock that was set back makes no answer younger than one of now.
    let age = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
    let found = |SavedListing { name, address, weight, priority }| Found { name, address, weight, priority };
    let listed = |SavedSource { pool, source, backends, answered }| Listed {
        pool,
        source,
        list: backends.into_iter().map(found).collect(),
        age: answered.map(age).unwrap_or_default(),
    };
    saved.into_iter().filter(is_wanted).map(listed).collect()
}

/// Backends that a reload brings because sources have listed them before they are followed: by pool, then by name.
pub(in crate::control) type Brought = HashMap<String, HashMap<String, Discovery>>;

impl ControlLoop {
    /// Puts what new sources have listed into the pools of a configuration that is about to run, so that they serve from
    /// its first epoch on.
    pub(in crate::control) fn bring_listed(&mut self, config: &mut Config) -> Brought {
        let mut of_pools: HashMap<&str, Vec<&Listed>> = HashMap::new();
        for listed in &self.sources.listed {
            of_pools.entry(&listed.pool).or_default().push(listed);
        }
        let mut brought = Brought::new();
        let sockets: Vec<OwnSocket> = config.own_sockets().collect();
        for pool in &mut config.pools {
            let Some(listed) = of_pools.get(pool.name.as_str()) else { continue };
            let mut members = Membership::listed(mem::take(&mut pool.backends), &sockets);
            let placements = &mut self.control.kept.registrations.placements;
            let fitting = add_listed(&mut members, pool, placements, listed);
            brought.insert(pool.name.clone(), fitting);
            pool.backends = members.into_backends();
        }
        brought
    }

    /// Notes where those backends of `next` are from. Must be called before it is shown.
    pub(in crate::control) fn note_brought(&mut self, mut brought: Brought, next: &Snapshot) {
        let registrations = &mut self.control.kept.registrations;
        let mut state = self.control.view.state();
        for pool in &next.pools {
            let Some(known) = brought.get_mut(&pool.settings.name).filter(|known| !known.is_empty()) else {
                continue;
            };
            log::info!(pool:% = pool.settings.name, added = known.len(); "discovered");
            let mut recalled = 0;
            for backend in &pool.backends {
                let Some(known) = known.remove(&backend.name) else { continue };
                let (is_set, author) = registrations.put_listed(&pool.settings.name, backend, known);
                recalled += usize::from(is_set);
                let note = state.notes.entry(backend.id).or_default();
                note.admin_set = author.map(SavedAuthor::into_note);
                note.origin = registrations.origin_of(backend.id);
            }
            if recalled > 0 && !self.changed.contains(&pool.id) {
                self.changed.push(pool.id);
            }
        }
    }
}

impl Registrations {
    /// Notes that a source has listed `backend`, and sets what operators have set of it before; returns whether that was
    /// anything, and the author of its administrative state. The table of its pool may be of another weight then.
    pub(super) fn put_listed(
        &mut self,
        pool: &str,
        backend: &Backend,
        known: Discovery,
    ) -> (bool, Option<SavedAuthor>) {
        let recalled = self.recall(pool, backend);
        let is_set = recalled.is_some();
        let author = recalled.and_then(|(said, set, author)| {
            backend.set_weight(set.kept(said, known.weight).weight_over(known.weight));
            set.put_on(backend);
            author
        });
        self.put_discovery(backend.id, known);
        (is_set, author)
    }
}

/// Puts the backends that the sources of `pool` have listed behind its `members`, as far as they fit, where operators have
/// placed them. Returns those that do, by name. The others are reported when their sources are followed.
pub(super) fn add_listed(
    members: &mut Membership<'_>,
    pool: &model::Pool,
    placements: &mut Placements,
    listed: &[&Listed],
) -> HashMap<String, Discovery> {
    let settings: HashMap<String, &Discover> =
        pool.discover.iter().map(|source| (source.label(), source)).collect();
    let mut discovered = HashMap::new();
    for Listed { source, list, .. } in listed {
        let Some(settings) = settings.get(source) else { continue };
        let source: Arc<str> = source.as_str().into();
        let check = settings.as_host().map(|host| host.check).unwrap_or_default();
        for found in Found::of(settings, list.clone()) {
            placements.saw_found(&pool.name, &found);
            let Found { name, address, weight, priority } = placements.placed_in(&pool.name, found);
            let known = Discovery { source: Arc::clone(&source), weight };
            let backend = model::Backend { name: name.clone(), address, weight, priority, check };
            if members.len() < BACKENDS_MAX && members.add(backend).is_ok() {
                discovered.insert(name, known);
            }
        }
    }
    discovered
}
