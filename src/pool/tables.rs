//! A pool of one epoch: its backends, and the tables to pick them from.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::balance::{Algorithm, Member, Members, Table};
use crate::base::address::Address;
use crate::base::hash::hash;
use crate::config::model::{self, BackendCheck, Check, HealthState, WhenAllDown};
use crate::pool::{Admin, Backend, BackendId, PoolId};

/// A pool of one epoch. The cursor, and the backends that stay, are the same objects in every epoch.
pub struct Pool {
    /// Identifies the pool across reloads; never reused.
    pub id: PoolId,
    /// Its settings, with the backends of this epoch.
    pub settings: Arc<model::Pool>,
    /// All its backends, in the order of `settings`.
    pub backends: Vec<Arc<Backend>>,
    /// Counts the changes of its check settings: what is found by earlier ones is not by these.
    pub checks: u64,
    /// Counts picks over all workers, so that round robin is exact.
    pub cursor: Arc<AtomicU64>,
    /// Whether a session could have a backend when the latest epoch was built.
    serves: Arc<AtomicBool>,
    /// The weights of the backends that the tables were built with.
    weights: Vec<u16>,
    /// The tiers to choose from, in order; those without a backend to choose are left out.
    pub(super) tiers: Vec<Tier>,
}

/// One backend's part of the table of its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its slots of the hash table or turns of the schedule.
    pub slots: u64,
    /// The weight behind them; 0 when it is not in the table.
    pub weight: u16,
}

/// The backends that were asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierKind {
    /// Those of this priority: none of a lower number was left.
    Priority(u8),
    /// All backends: all were down, and the pool tries anyway.
    Any,
}

impl Default for TierKind {
    fn default() -> Self {
        Self::Priority(0)
    }
}

/// Backends of equal preference, and the table to pick from them.
pub(super) struct Tier {
    /// Indices into [`Pool::backends`].
    pub(super) members: Vec<usize>,
    /// Number of members that the table may pick.
    pub(super) candidates: usize,
    /// The index in `members` of each of [`Pool::backends`] that is there, if the table takes notes.
    seats: Vec<Option<u32>>,
    pub(super) table: Table,
    /// The kind of the group.
    pub(super) kind: TierKind,
}

impl Tier {
    /// Returns whether a member that has gone down since must still be skipped.
    pub(super) fn respects_health(&self) -> bool {
        self.kind != TierKind::Any
    }
}

/// Backends of earlier epochs that the next one continues.
#[derive(Clone, Copy, Default)]
pub(super) struct Earlier<'b> {
    /// Those that return as they are, by name and address.
    pub(super) back: &'b [Arc<Backend>],
    /// Those that have another address from now on: their names keep their counters.
    pub(super) former: &'b [Arc<Backend>],
}

/// What a pool continues in its next epoch.
#[derive(Default)]
struct Continued {
    cursor: Arc<AtomicU64>,
    serves: Arc<AtomicBool>,
    checks: u64,
}

impl Pool {
    /// Returns whether a backend is eligible for a new session now.
    pub fn has_eligible(&self) -> bool {
        self.backends.iter().any(|backend| backend.is_eligible())
    }

    /// Returns whether a session could have a backend when the latest epoch was built, which may be later than this one:
    /// where none could, the part of a change that shows has taken nothing away.
    pub fn serves(&self) -> bool {
        self.serves.load(Ordering::Relaxed)
    }

    /// Must be called with each epoch in which a backend of the pool may have changed.
    pub(super) fn note_serving(&self) {
        let tries_anyway = self.settings.when_all_down == WhenAllDown::TryAnyway;
        let serves = |backend: &Arc<Backend>| backend.is_eligible() || tries_anyway && backend.admits();
        self.serves.store(self.backends.iter().any(serves), Ordering::Relaxed);
    }

    /// It is in no epoch any more: nothing that is announced is for it.
    pub(super) fn note_retired(&self) {
        self.serves.store(false, Ordering::Relaxed);
    }

    /// Returns the backend of that name.
    pub fn backend_named(&self, name: &str) -> Option<&Arc<Backend>> {
        self.backends.iter().find(|backend| backend.name == name)
    }

    /// Returns the tier of one of its backends.
    pub fn priority_of(&self, backend: &Backend) -> u8 {
        self.place_of(backend).map_or(0, |place| self.settings.backends[place].priority)
    }

    fn place_of(&self, backend: &Backend) -> Option<usize> {
        let is_it = |place: &usize| self.backends.get(*place).is_some_and(|here| here.id == backend.id);
        // In an epoch that is not the newest one it may have another place.
        let by_id = || (0..self.backends.len()).find(is_it);
        Some(backend.place()).filter(is_it).or_else(by_id)
    }

    /// Returns what is special about the checks of one of its backends.
    pub fn own_check(&self, backend: &Backend) -> Option<BackendCheck> {
        self.place_of(backend).map(|place| self.settings.backends[place].check)
    }

    /// Returns each backend's share of new sessions, by the table that they are picked from now.
    pub fn shares(&self) -> Vec<Share> {
        let mut shares: Vec<Share> = self.backends.iter().map(|_| Share { slots: 0, weight: 0 }).collect();
        if let Some(tier) = self.tiers.first() {
            for (&member, slots) in tier.members.iter().zip(tier.table.owned(tier.members.len())) {
                // In a schedule all the others have turns.
                let is_absent = slots == 0 && self.settings.balance == Algorithm::RoundRobin;
                shares[member] = Share { slots, weight: if is_absent { 0 } else { self.weights[member] } };
            }
        }
        shares
    }

    /// Notifies the tables that `backend` is about to have one session less. One at another index belongs to another
    /// epoch: its tables find out later.
    pub(super) fn note_release(&self, backend: &Arc<Backend>, worker: usize) {
        let place = backend.place();
        for tier in self.tiers.iter().filter(|tier| !tier.seats.is_empty()) {
            let is_here = self.backends.get(place).is_some_and(|here| Arc::ptr_eq(here, backend));
            if let Some(seat) = tier.seats.get(place).copied().flatten().filter(|_| is_here) {
                let standing = (backend.active().saturating_sub(1), backend.stamp());
                let cursor = self.cursor.load(Ordering::Relaxed);
                tier.table.note(worker, cursor, seat as usize, standing);
            }
        }
    }

    pub(super) fn first(
        id: PoolId,
        settings: &model::Pool,
        workers: usize,
        ids: &mut BackendIds,
    ) -> Arc<Self> {
        let initial = settings.health.initial_state;
        let create = |backend| ids.create(id, initial, workers, backend, None);
        let backends = settings.backends.iter().map(create).collect();
        Arc::new(Self::new(id, Arc::new(settings.clone()), workers, backends, Continued::default()))
    }

    /// Returns the pool with these settings: the same one when nothing has changed. A backend that it has already, by
    /// name and address, stays the same object, and gets its new weight as by [`Backend::set_weight`]. So does one that
    /// it had, and that is `back`. Another one has the counters of that of its name among `former`, and begins with the
    /// health of that at its address, which is the same server under another name.
    pub(super) fn changed(
        self: &Arc<Self>,
        settings: &model::Pool,
        workers: usize,
        Earlier { back, former }: Earlier<'_>,
        ids: &mut BackendIds,
    ) -> Arc<Self> {
        let weights = settings.backends.iter().map(|backend| backend.weight);
        let runs = self.backends.iter().map(|backend| backend.plain_weight());
        if *self.settings == *settings && weights.eq(runs) && self.has_weights() {
            return Arc::clone(self);
        }
        let of_pool = back.iter().filter(|backend| backend.pool == self.id);
        // The present backends come last, and so win.
        let known: HashMap<_, _> = of_pool
            .chain(&self.backends)
            .map(|backend| ((backend.name.as_str(), &backend.address), backend))
            .collect();
        let formers: HashMap<&str, &Arc<Backend>> =
            former.iter().map(|former| (former.name.as_str(), former)).collect();
        let is_checked_alike = self.settings.health == settings.health
            && self.settings.proxy_protocol == settings.proxy_protocol;
        let found_at = if is_checked_alike { self.checked_at() } else { HashMap::new() };
        let found = |backend: &model::Backend| {
            let (check, health) = found_at.get(&backend.address)?;
            (*check == backend.check).then_some(*health)
        };
        let named = settings.backends.iter().map(|backend| {
            match known.get(&(backend.name.as_str(), &backend.address)) {
                Some(&same) => {
                    let is_back = back.iter().any(|back| back.id == same.id);
                    if is_back && settings.health.check == Check::Off {
                        // It is not checked: nothing else would ever bring it up.
                        same.set_health(settings.health.initial_state);
                    } else if let Some(found) = found(backend).filter(|_| is_back) {
                        same.set_health(found);
                    }
                    same.set_weight(backend.weight);
                    Arc::clone(same)
                }
                None => {
                    let former = formers.get(backend.name.as_str()).copied();
                    let initial = found(backend).unwrap_or(settings.health.initial_state);
                    ids.create(self.id, initial, workers, backend, former)
                }
            }
        });
        let mut continued = self.continued();
        continued.checks += u64::from(!is_checked_alike);
        Arc::new(Self::new(self.id, Arc::new(settings.clone()), workers, named.collect(), continued))
    }

    /// Returns the pool with tables that respect the present state of its backends.
    pub(super) fn refreshed(self: &Arc<Self>, workers: usize) -> Arc<Self> {
        // A table built now would be the same.
        if !self.settings.balance.table_respects_health() && self.has_weights() {
            return Arc::clone(self);
        }
        let settings = Arc::clone(&self.settings);
        Arc::new(Self::new(self.id, settings, workers, self.backends.clone(), self.continued()))
    }

    /// Returns what checks have found at each address, with what is special about the checks there.
    fn checked_at(&self) -> HashMap<&Address, (BackendCheck, HealthState)> {
        let checks = self.settings.backends.iter().map(|backend| backend.check);
        let all = self.backends.iter().zip(checks);
        all.map(|(backend, check)| (&backend.address, (check, backend.checked_health()))).collect()
    }

    fn continued(&self) -> Continued {
        let (cursor, serves) = (Arc::clone(&self.cursor), Arc::clone(&self.serves));
        Continued { cursor, serves, checks: self.checks }
    }

    /// Returns whether the tables were built with the present weights of the backends.
    fn has_weights(&self) -> bool {
        self.backends.iter().map(|backend| backend.weight()).eq(self.weights.iter().copied())
    }

    fn new(
        id: PoolId,
        settings: Arc<model::Pool>,
        workers: usize,
        backends: Vec<Arc<Backend>>,
        continued: Continued,
    ) -> Self {
        let Continued { cursor, serves, checks } = continued;
        let (respects_health, keeps_absent) =
            (settings.balance.table_respects_health(), settings.balance.table_keeps_absent());
        // Read once: the tables and the record of their weights must agree.
        let weights: Vec<u16> = backends.iter().map(|backend| backend.weight()).collect();
        backends.iter().enumerate().for_each(|(place, backend)| backend.set_place(place));
        let present: Vec<[bool; 2]> = backends
            .iter()
            .map(|backend| {
                let is_ready = !respects_health || backend.admin() == Admin::Ready;
                [is_ready, is_ready && (!respects_health || backend.health() != HealthState::Down)]
            })
            .collect();
        let has = |index: usize, priority: u8| settings.backends[index].priority == priority;
        let tier = |kind: TierKind, is_wanted: &dyn Fn(usize) -> bool| {
            let is_present = |index: usize| present[index][usize::from(kind != TierKind::Any)];
            let is_member = |&index: &usize| {
                weights[index] > 0 && is_wanted(index) && (keeps_absent || is_present(index))
            };
            let members: Vec<usize> = (0..backends.len()).filter(is_member).collect();
            let member = |&index: &usize| Member {
                identity: hash(backends[index].name.as_bytes(), 0),
                weight: weights[index],
            };
            let table = Table::build(settings.balance, &members.iter().map(member).collect::<Vec<_>>());
            let table = table.without(&|member| !is_present(members[member]));
            let candidates = members.iter().filter(|&&index| is_present(index)).count();
            let state = Begun { backends: &backends, members: &members };
            let table = table.begun(workers, cursor.load(Ordering::Relaxed), &state);
            let seats = if table.wants_notes() { seats(&members, backends.len()) } else { Vec::new() };
            Tier { members, candidates, seats, table, kind }
        };
        let priorities: BTreeSet<u8> = settings.backends.iter().map(|backend| backend.priority).collect();
        let mut tiers: Vec<Tier> = priorities
            .into_iter()
            .map(|priority| tier(TierKind::Priority(priority), &|index| has(index, priority)))
            .collect();
        if settings.when_all_down == WhenAllDown::TryAnyway {
            tiers.push(tier(TierKind::Any, &|_| true));
        }
        tiers.retain(|tier| tier.candidates > 0);
        Self { id, settings, backends, checks, cursor, serves, weights, tiers }
    }
}

/// The members of a table at the time it is built.
struct Begun<'a> {
    backends: &'a [Arc<Backend>],
    members: &'a [usize],
}

impl Begun<'_> {
    fn backend(&self, member: usize) -> &Backend {
        &self.backends[self.members[member]]
    }
}

impl Members for Begun<'_> {
    fn is_eligible(&self, member: usize) -> bool {
        self.backend(member).is_eligible()
    }

    fn load(&self, member: usize) -> u32 {
        self.backend(member).active()
    }

    fn stamp(&self, member: usize) -> u64 {
        self.backend(member).stamp()
    }

    fn claim(&self, member: usize, seen: u64, next: u64) -> bool {
        self.backend(member).claim(seen, next)
    }
}

/// See [`Tier::seats`].
fn seats(members: &[usize], backends: usize) -> Vec<Option<u32>> {
    let mut seats = vec![None; backends];
    for (seat, &backend) in (0u32..).zip(members) {
        seats[backend] = Some(seat);
    }
    seats
}

/// The next id of a backend. Only rises: an id names one backend, even after it was removed.
#[derive(Clone, Copy, Default)]
pub(super) struct BackendIds(pub(super) u32);

impl BackendIds {
    fn create(
        &mut self,
        pool: PoolId,
        initial: HealthState,
        workers: usize,
        backend: &model::Backend,
        former: Option<&Arc<Backend>>,
    ) -> Arc<Backend> {
        let id = BackendId(self.0);
        self.0 = self.0.checked_add(1).expect("fewer than 2^32 backends in the life of a process");
        let new = Backend::new(id, pool, backend, initial, workers);
        Arc::new(match former {
            Some(former) => new.continuing(former),
            None => new,
        })
    }
}
