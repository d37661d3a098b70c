//! Sets the address and the priority of backends in place of what lists them, or undoes that.
//!
//! Another address makes another backend under the same name: new sessions go there, those that are open stay where they
//! are until they end, and its health is found anew. The counters, the administrative state, the weight and the
//! registration of the name go with it; what was forced of the health of one address says nothing of another.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::base::address::Address;
use crate::base::glob;
use crate::config::discover::host_of;
use crate::config::{Config, model};
use crate::control::Removed;
use crate::control::circles::circle_with;
use crate::control::control_loop::ControlLoop;
use crate::control::membership::changes::Selected;
use crate::control::membership::notes::Note;
use crate::control::membership::place_notes::note_placements;
use crate::control::membership::placement::{PLACEMENTS_MAX, Place, Placement};
use crate::control::membership::requests::configured;
use crate::messages::request::{ChangeSet, Named, Placing, Refusal, Wish};
use crate::pool::{Backend, BackendId, Pool, PoolId};
use crate::sys::timestamp;

/// What a request makes of one name.
pub(super) struct Replaced {
    /// The name that it is set of.
    named: Named,
    pool: PoolId,
    /// Its backends, with their new places.
    moves: Vec<(Arc<Backend>, Place)>,
    next: Placement,
    /// What that changes, in words.
    pub(super) changes: Vec<String>,
}

/// One backend that goes to another address.
#[derive(Clone, Copy)]
struct Moved<'r> {
    named: &'r Named,
    backend: &'r Backend,
    address: &'r Address,
}

impl ControlLoop {
    /// Returns what `set` makes of the places of all that is selected, in that order. Fails where one of them cannot be
    /// there.
    pub(super) fn replaced(
        &self,
        all: &[Selected],
        set: &ChangeSet,
        who: &str,
    ) -> Result<Vec<Replaced>, Refusal> {
        if set.placing == Placing::default() {
            return Ok(Vec::new());
        }
        let is_address_set = matches!(set.placing.address, Some(Wish::To(_)));
        if is_address_set && (all.len() != 1 || set.names.iter().any(|name| glob::is_pattern(name))) {
            let what = format!("address: names one backend by its name, got {}", set.names.join(", "));
            return Err(Refusal::Invalid(what));
        }
        let replaced = all.iter().map(|selected| self.replace(selected, &set.placing, who));
        let replaced = replaced.collect::<Result<Vec<_>, _>>()?;
        let placements = &self.control.kept.registrations.placements;
        let is_new = |one: &&Replaced| placements.named(&one.named.pool, &one.named.backend).is_none();
        if placements.len() + replaced.iter().filter(is_new).count() > PLACEMENTS_MAX {
            return Err(Refusal::Conflict(format!(
                "an address or a priority is set of {} backends, no more than {PLACEMENTS_MAX} fit",
                placements.len()
            )));
        }
        self.refuse_taken(&replaced)?;
        Ok(replaced)
    }

    fn replace(&self, selected: &Selected, placing: &Placing, who: &str) -> Result<Replaced, Refusal> {
        let Selected { named, pool, backends, host } = selected;
        let placements = &self.control.kept.registrations.placements;
        let before = placements.named(&named.pool, &named.backend);
        let is_of_host = host.is_some() || host_of(&named.backend).is_some();
        if is_of_host && matches!(placing.address, Some(Wish::To(_))) {
            let what = "has a host name: its addresses are those that it resolves to";
            return Err(Refusal::Conflict(format!("{named} {what}")));
        }
        // What is set of all addresses of a host.
        let over = host_of(&named.backend).and_then(|host| placements.named(&named.pool, host));
        let says = match (before, host, backends.first()) {
            (Some(before), ..) => before.says.clone(),
            (None, Some(host), _) => Place { address: model::UNRESOLVED, priority: host.priority },
            (None, None, Some(backend)) => {
                let mut place = place_in(pool, backend);
                place.priority = over.map_or(place.priority, |over| over.says.priority);
                place
            }
            (None, None, None) => Place { address: model::UNRESOLVED, priority: 0 },
        };
        let was = before.map_or((None, None), |before| (before.address.clone(), before.priority));
        let address = wished(placing.address.as_ref(), was.0.clone(), &says.address);
        let priority = wished(placing.priority.as_ref(), was.1, &says.priority);
        let is_as_before = was == (address.clone(), priority);
        let next = Placement { address, priority, who: who.to_owned(), since: timestamp(), says };
        let mut moves = Vec::new();
        for backend in backends {
            let from = place_in(pool, backend);
            let is_its_own = host.is_none() || placements.named(&named.pool, &backend.name).is_none();
            let priority = next.priority.or_else(|| over?.priority).unwrap_or(next.says.priority);
            let to = match host {
                Some(_) if !is_its_own => from.clone(),
                Some(_) => Place { priority, ..from.clone() },
                None => Place { address: next.place().address, priority },
            };
            if to != from {
                moves.push((Arc::clone(backend), to));
            }
        }
        let mut changes = moves.first().map_or_else(Vec::new, |(backend, to)| {
            let from = place_in(pool, backend);
            let address =
                (from.address != to.address).then(|| format!("address {} -> {}", from.address, to.address));
            let priority = (from.priority != to.priority)
                .then(|| format!("priority {} -> {}", from.priority, to.priority));
            address.into_iter().chain(priority).collect()
        });
        if changes.is_empty() && !is_as_before && !selected.is_gone() {
            changes.push("set as it is".to_owned());
        }
        Ok(Replaced { named: named.clone(), pool: pool.id, moves, next, changes })
    }

    /// Fails where two backends of a pool would be at one address, or one at an address of this process.
    fn refuse_taken(&self, replaced: &[Replaced]) -> Result<(), Refusal> {
        let mut of_pools: HashMap<PoolId, Vec<Moved<'_>>> = HashMap::new();
        for Replaced { named, pool, moves, .. } in replaced {
            for (backend, to) in moves.iter().filter(|(backend, to)| backend.address != to.address) {
                let moved = Moved { named, backend, address: &to.address };
                of_pools.entry(*pool).or_default().push(moved);
            }
        }
        let sockets = if of_pools.is_empty() { Vec::new() } else { self.own_sockets() };
        for (pool, moved) in of_pools {
            let pool = self.control.snapshot.pool(pool);
            let gone: HashSet<BackendId> = moved.iter().map(|moved| moved.backend.id).collect();
            let stay = pool.backends.iter().filter(|backend| !gone.contains(&backend.id));
            let mut taken: HashMap<&Address, &str> =
                stay.map(|backend| (&backend.address, backend.name.as_str())).collect();
            for Moved { named, backend, address } in moved.iter().copied() {
                if let Some(other) = taken.insert(address, &backend.name) {
                    return Err(Refusal::Conflict(format!(
                        "{named}: {address} is backend {other:?} already"
                    )));
                }
                if let Some(socket) = circle_with(address, sockets.iter().copied()) {
                    return Err(Refusal::Invalid(format!("{named}: {address} is {socket}")));
                }
            }
        }
        Ok(())
    }

    /// Does what [`ControlLoop::replaced`] has returned.
    pub(super) fn put_replaced(&mut self, replaced: Vec<Replaced>) {
        let mut of_pools: HashMap<PoolId, Vec<(Arc<Backend>, Place)>> = HashMap::new();
        for Replaced { named, pool, moves, next, changes } in replaced {
            if !changes.is_empty() {
                self.control.kept.registrations.placements.put(&named.pool, &named.backend, next);
            }
            if !moves.is_empty() {
                of_pools.entry(pool).or_default().extend(moves);
            }
        }
        for (pool, moves) in of_pools {
            self.move_backends(pool, &moves);
        }
        let mut state = self.control.view.state();
        note_placements(&self.control.kept.registrations.placements, &mut state);
    }

    /// These cannot stay at the address that was set of them, pool and name: they go where `config`, which is to run
    /// next, has them.
    pub(in crate::control) fn give_way(&mut self, names: &[(String, String)], config: &Config) {
        let mut of_pools: HashMap<PoolId, Vec<(Arc<Backend>, Place)>> = HashMap::new();
        for (pool, name) in names {
            self.control.kept.registrations.placements.forget_address(pool, name);
            let next = config.pools.iter().find(|next| next.name == *pool);
            let next = next.and_then(|next| next.backends.iter().find(|next| next.name == *name));
            let running = self.control.snapshot.pool_named(pool);
            if let (Some(next), Some(running)) = (next, running)
                && let Some(backend) = running.backend_named(name)
            {
                let to = Place { address: next.address.clone(), priority: next.priority };
                of_pools.entry(running.id).or_default().push((Arc::clone(backend), to));
            }
        }
        for (pool, moves) in of_pools {
            self.move_backends(pool, &moves);
        }
    }

    fn move_backends(&mut self, id: PoolId, moves: &[(Arc<Backend>, Place)]) {
        let pool = Arc::clone(self.control.snapshot.pool(id));
        let mut backends = configured(&pool);
        let places: HashMap<_, _> = moves.iter().map(|(backend, to)| (backend.id, to)).collect();
        for (settings, backend) in backends.iter_mut().zip(&pool.backends) {
            if let Some(&to) = places.get(&backend.id) {
                (settings.address, settings.priority) = (to.address.clone(), to.priority);
            }
        }
        let is_moved = |(backend, to): &&(Arc<Backend>, Place)| backend.address != to.address;
        let moved: HashMap<(&str, &Address), &Arc<Backend>> = moves
            .iter()
            .filter(is_moved)
            .map(|(former, to)| ((former.name.as_str(), &to.address), former))
            .collect();
        // One that goes back to where it was, and still has sessions there.
        let returned = self.take_returning(|removed: &Removed| {
            let backend = &removed.backend;
            backend.pool == id && moved.contains_key(&(backend.name.as_str(), &backend.address))
        });
        let back: Vec<_> = returned.iter().map(|removed| Arc::clone(&removed.backend)).collect();
        let former: Vec<_> = moved.values().map(|former| Arc::clone(former)).collect();
        let next = Arc::new(self.control.snapshot.with_backends_moved(id, &backends, &back, &former));
        self.remember_notes(&returned);
        for backend in &next.pool(id).backends {
            if let Some(former) = moved.get(&(backend.name.as_str(), &backend.address)) {
                self.succeed(former, backend);
            }
        }
        self.replace_snapshot(next);
        let former: HashSet<BackendId> = former.iter().map(|former| former.id).collect();
        for removed in &mut self.removed {
            if former.contains(&removed.backend.id) {
                // Nothing was removed from the pool: its sessions end by themselves.
                (removed.deadline, removed.next_cut) = (None, None);
            }
        }
        self.control.view.state().removed.clone_from(&self.removed);
        self.tables_changed(id);
        let pool = Arc::clone(self.control.snapshot.pool(id));
        self.report_eligibility(&pool);
    }

    /// `next` has what is known of `former` by its name. Must be called before it is shown.
    fn succeed(&mut self, former: &Backend, next: &Backend) {
        next.set_admin(former.operator_admin());
        next.hold_weight(former.holds_weight());
        self.control.kept.registrations.succeed(former.id, next.id);
        let mut state = self.control.view.state();
        let known = state.notes.get(&former.id).cloned().unwrap_or_default();
        let now = self.clock.now();
        let note = state.notes.entry(next.id).or_default();
        let leaving = known.leaving.map(|leaving| crate::control::Leaving {
            since: now,
            sessions_at_start: next.active().into(),
            ..leaving
        });
        *note = Note {
            leaving,
            admin_set: known.admin_set,
            origin: known.origin,
            cleared: known.cleared,
            ..std::mem::take(note)
        };
    }
}

/// Returns where a backend of `pool` runs.
fn place_in(pool: &Pool, backend: &Backend) -> Place {
    Place { address: backend.address.clone(), priority: pool.priority_of(backend) }
}

/// Returns what is set after `wish`, where the origin `says` something; the same as that is nothing set.
fn wished<T: Clone + PartialEq>(wish: Option<&Wish<T>>, before: Option<T>, says: &T) -> Option<T> {
    match wish {
        None => before,
        Some(Wish::Default) => None,
        Some(Wish::To(value)) => Some(value.clone()).filter(|value| value != says),
    }
}

#[cfg(test)]
mod tests;
