//! Backends that come and go by themselves, in the middle of everything: sources list them, and the file takes some
//! over and gives others up. The control thread of the product puts its pools together. What must come of it is found
//! here in another way: a pool has what its file and its sources list, each as operators have left it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use l4lb::base::address::Address;
use l4lb::config::Config;
use l4lb::config::discover::Discover;
use l4lb::config::model;
use l4lb::control::SteppedControl;
use l4lb::control::membership::origin::Origin;
use l4lb::messages::discovery::{Found, Outcome, SourceReport};
use l4lb::messages::reload::Refused;
use l4lb::messages::topology::{Opened, Site, StagedChange};
use l4lb::pool::{Backend, BackendId, Pool, Snapshot};
use l4lb::sys::Token;

use super::World;
use crate::backend_model::{Setting, port_of};
use crate::conn::Stage;
use crate::network::{FIRST_BACKEND_PORT, Net};

/// A pool, and the label of a source or the name of a backend in it.
type Key = (String, String);

/// What sources list, and what must be known of it.
#[derive(Default)]
pub(super) struct Sources {
    lists: BTreeMap<Key, Vec<Found>>,
    /// How each was asked last.
    outcomes: BTreeMap<Key, Outcome>,
    /// What was set of backends that no source lists now, and the weight that was said of them then.
    remembered: HashMap<Key, (u16, Setting)>,
    /// Backends that have left and that sessions may still be on.
    pub(super) left: Vec<Arc<Backend>>,
    /// How the next epoch must have its backends.
    expected: Vec<(BackendId, Setting)>,
    /// Those that it has no more.
    leaving: Vec<BackendId>,
}

/// A backend before the control thread acts.
#[derive(Clone, Copy)]
struct Standing {
    /// The weight that its origin says.
    says: u16,
    set: Setting,
    is_discovered: bool,
}

type Standings = HashMap<BackendId, Standing>;

/// The resources of a configuration: the simulation gives them to the workers itself.
#[derive(Debug)]
struct NothingStaged;

impl StagedChange for NothingStaged {
    fn listen(&self) -> Result<(), Refused> {
        Ok(())
    }

    fn commit(self: Box<Self>, _snapshot: &Arc<Snapshot>) {}
}

/// The machine of a control thread that opens nothing.
#[derive(Debug)]
struct Nowhere;

impl Site for Nowhere {
    fn prepare(&self, _config: &Config, _opened: Opened) -> Result<Box<dyn StagedChange>, Refused> {
        Ok(Box::new(NothingStaged))
    }

    fn preflight(&self, _config: &Config) -> Result<(), Refused> {
        Ok(())
    }

    fn open(&self, _config: &Config) -> Result<Opened, Refused> {
        Ok(Box::new(|| {}))
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    fn drain(&self) {}
}

impl World {
    /// A source of a pool answers.
    pub(super) fn discover(&mut self) {
        if self.is_draining {
            return;
        }
        if self.below(4) == 0 && self.late.iter().all(|late| !late) {
            self.control.forget_removed();
        }
        let pool = self.draw_pool();
        if pool.settings.discover.is_empty() {
            return;
        }
        let place = self.below(pool.settings.discover.len());
        let key = (pool.settings.name.clone(), pool.settings.discover[place].label());
        let mut list = self.sources.lists[&key].clone();
        match self.below(16) {
            0..6 => self.list_another(&pool, &mut list),
            6..8 if !list.is_empty() => {
                let gone = list.remove(self.below(list.len()));
                if self.below(2) == 0 {
                    self.list_elsewhere(&pool, place, gone);
                }
                self.coverage.hit("list shorter");
            }
            8 => {
                self.coverage.hit_if(list.len() > 1, "list empty");
                list.clear();
            }
            9 | 10 if list.len() > 1 => {
                let by = 1 + self.below(list.len() - 1);
                list.rotate_left(by);
                self.coverage.hit("list in another order");
            }
            11 | 12 if !list.is_empty() => {
                let place = self.below(list.len());
                list[place].weight = [1, 1, 3, 256][self.below(4)];
                self.coverage.hit("list with another weight");
            }
            13 if !list.is_empty() => {
                let place = self.below(list.len());
                list[place].priority = [0, 1, 2, 15][self.below(4)];
                self.coverage.hit("list with another priority");
            }
            _ => self.coverage.hit("list again"),
        }
        self.list(&key, list);
    }

    /// One more server, which may be a backend of the file, of another source, or one that has left.
    fn list_another(&mut self, pool: &Pool, list: &mut Vec<Found>) {
        let known: BTreeSet<u16> = list.iter().map(|found| port_of(&found.address)).collect();
        let Some(address) = self.another_address(pool, &known) else { return };
        let place = self.below(list.len() + 1);
        let weight = [1, 1, 3, 256][self.below(4)];
        let Address::Ip(at) = &address;
        let priority = [0, 0, 0, 1, 2, 15][self.below(6)];
        list.insert(place, Found { name: at.to_string(), address, weight, priority });
        self.coverage.hit("list longer");
    }

    /// Returns the address of a server of `pool` that is none of those, a new one or not.
    pub(super) fn another_address(&mut self, pool: &Pool, known: &BTreeSet<u16>) -> Option<Address> {
        let others: Vec<u16> = {
            let net = self.net.borrow();
            let home = number_of(&pool.settings);
            let ports = (FIRST_BACKEND_PORT..).zip(&net.backends);
            let ports = ports.filter(|(port, backend)| backend.home == home && !known.contains(port));
            ports.map(|(port, _)| port).collect()
        };
        if others.is_empty() || self.below(3) == 0 {
            return self.new_server(pool).map(|server| server.address);
        }
        Some(([127, 0, 0, 1], others[self.below(others.len())]).into())
    }

    /// What one source is about to list no more is listed by another one first.
    fn list_elsewhere(&mut self, pool: &Pool, place: usize, found: Found) {
        let others = pool.settings.discover.iter().enumerate().filter(|(other, _)| *other != place);
        let Some(label) = others.map(|(_, source)| source.label()).next() else { return };
        let key = (pool.settings.name.clone(), label);
        let mut list = self.sources.lists[&key].clone();
        if list.iter().all(|known| known.address != found.address) {
            list.push(found);
            self.coverage.hit("moves to another source");
            self.list(&key, list);
        }
    }

    /// A source lists these. In some cases it has failed, and what is known of it stays as it was.
    fn list(&mut self, key: &Key, list: Vec<Found>) {
        let (list, outcome) = match self.below(8) {
            0 => (self.sources.lists[key].clone(), Outcome::Failed),
            _ if list.is_empty() => (list, Outcome::Nothing),
            _ => (list, Outcome::Found),
        };
        let before = self.sources.lists.insert(key.clone(), list.clone()).expect("it runs");
        let outcome_before = self.sources.outcomes.insert(key.clone(), outcome);
        let is_other_list = sorted(&before) != sorted(&list);
        let is_news = is_other_list || outcome_before != Some(outcome);
        let (epoch, event) = (Arc::clone(&self.snapshot), self.control.last_event());
        let report = SourceReport { list: Some(list), outcome, note: None };
        let config = self.config();
        let next = self.step_control(&config, |control| {
            assert!(control.on_report_of(&key.0, &key.1, report), "{key:?} does not run");
        });
        assert!(
            is_other_list || Arc::ptr_eq(&next, &epoch),
            "an epoch without a change: each choice is another one"
        );
        assert!(is_news || event == self.control.last_event(), "an event without a change");
        if !Arc::ptr_eq(&next, &epoch) {
            self.note_the_moment();
            self.publish(next);
        }
    }

    /// Runs `config` by a reload of the control thread; what it makes of that must be published.
    pub(super) fn reload(&mut self, config: &Config) -> Arc<Snapshot> {
        self.sources.begin(config);
        self.step_control(config, |control| control.reload(config, Box::new(NothingStaged)))
    }

    /// Lets the control thread do something that ends with the file as `config` has it; returns the epoch that it has
    /// come to, which is as it must be.
    fn step_control(&mut self, config: &Config, act: impl FnOnce(&mut SteppedControl)) -> Arc<Snapshot> {
        let (before, standing) = (Arc::clone(&self.snapshot), self.standing());
        self.control.run(&before, self.config());
        act(&mut self.control);
        let after = Arc::clone(self.control.snapshot());
        for pool in &after.pools {
            let of_file = config.pools.iter().find(|of_file| of_file.name == pool.settings.name);
            let of_file = &of_file.expect("no pool but those of the file").backends;
            self.sources.check_members(pool, of_file);
            let old = before.pools.iter().find(|old| old.id == pool.id);
            self.check_those_that_are_there(pool, old, of_file, &standing);
            self.note_those_that_left(pool, old, &standing);
        }
        if Arc::ptr_eq(&before, &after) {
            self.sources.expected.clear();
        }
        after
    }

    fn standing(&self) -> Standings {
        let roster = &self.net.borrow().roster;
        let standing = |backend: &Arc<Backend>| {
            let set = roster.setting(backend.id);
            match self.control.origin_of(backend.id) {
                Origin::Discovered(known) => Standing { says: known.weight, set, is_discovered: true },
                Origin::File | Origin::Registered(_) => {
                    Standing { says: set.weight, set, is_discovered: false }
                }
            }
        };
        self.snapshot.backends().map(|backend| (backend.id, standing(backend))).collect()
    }

    /// Panics unless each backend of `pool`, which was `old` before, is the same as then, and as operators have left
    /// it.
    fn check_those_that_are_there(
        &mut self,
        pool: &Pool,
        old: Option<&Arc<Pool>>,
        of_file: &[model::Backend],
        standing: &Standings,
    ) {
        for backend in &pool.backends {
            let was = old.and_then(|old| old.backends.iter().find(|was| was.address == backend.address));
            assert!(
                was.is_none_or(|was| Arc::ptr_eq(was, backend)),
                "{} stays, and has lost its health, its counters and its sessions",
                backend.name
            );
            let before = was.map(|was| standing[&was.id]);
            let set = self.sources.setting(pool, backend, of_file, before, &self.control);
            assert_eq!(Setting::of(backend), set, "{} of pool {}", backend.name, pool.settings.name);
            self.sources.expected.push((backend.id, set));
            if was.is_none() {
                self.net.borrow_mut().forget_dials(&[port_of(&backend.address)]);
                let left = &mut self.sources.left;
                if let Some(place) = left.iter().position(|left| Arc::ptr_eq(left, backend)) {
                    left.swap_remove(place);
                    self.coverage.hit("listed again within the drain");
                }
            }
        }
    }

    fn note_those_that_left(&mut self, pool: &Pool, old: Option<&Arc<Pool>>, standing: &Standings) {
        let has = |was: &Backend| pool.backends.iter().any(|backend| backend.id == was.id);
        for was in old.into_iter().flat_map(|old| &old.backends).filter(|was| !has(was)) {
            let Standing { says, set, is_discovered } = standing[&was.id];
            if is_discovered {
                let key = (pool.settings.name.clone(), was.name.clone());
                self.sources.remembered.insert(key, (says, set));
            }
            self.sources.leaving.push(was.id);
            self.sources.left.push(Arc::clone(was));
        }
    }

    /// Must be called around the publication of an epoch: the operator's book follows the control thread.
    pub(super) fn note_leaving(&mut self) {
        let roster = &mut self.net.borrow_mut().roster;
        self.sources.leaving.drain(..).for_each(|backend| roster.leave(backend));
    }

    /// See [`World::note_leaving`].
    pub(super) fn note_expected(&mut self) {
        let roster = &mut self.net.borrow_mut().roster;
        self.sources.expected.drain(..).for_each(|(backend, set)| roster.set(backend, set));
    }

    /// What is in progress while a list changes a pool.
    fn note_the_moment(&mut self) {
        let waits = |audit: l4lb::worker::Audit| audit.leases < audit.sessions;
        let anyone_waits = self.workers.iter().flatten().any(|worker| waits(worker.audit()));
        self.coverage.hit_if(anyone_waits, "a list while a session waits");
        let in_between = self.ticket.strong_count() > 0 || self.late.contains(&true);
        self.coverage.hit_if(in_between, "a list in the middle of a reload");
        let left = self.sources.leaving.len();
        for backend in self.sources.left.iter().rev().take(left) {
            let port = port_of(&backend.address);
            self.coverage.hit_if(backend.active() > 0, "leaves with sessions");
            let net = self.net.borrow();
            self.coverage.hit_if(is_dialed(&net, port, false), "leaves in the middle of a dial");
            self.coverage.hit_if(is_dialed(&net, port, true), "leaves in the middle of a check");
        }
    }

    // --- the file and the sources ----------------------------------------------------------------------------------

    /// The file lists a backend that a source has listed so far.
    pub(super) fn take_over(&mut self, config: &mut Config) {
        let pool = self.draw_pool();
        let found: Vec<Arc<Backend>> =
            pool.backends.iter().filter(|backend| self.is_discovered(backend.id)).cloned().collect();
        if found.is_empty() {
            return;
        }
        let backend = &found[self.below(found.len())];
        let listed = model::Backend {
            name: backend.name.clone(),
            address: backend.address.clone(),
            weight: [1, 3][self.below(2)],
            priority: [0, 0, 1, 15][self.below(4)],
            check: model::BackendCheck::default(),
        };
        named(config, &pool.settings.name).backends.push(listed);
        self.coverage.hit("file takes over");
    }

    /// The file lists a backend no more that a source may list.
    pub(super) fn give_up(&mut self, config: &mut Config) {
        let place = self.below(config.pools.len());
        let pool = &mut config.pools[place];
        if pool.backends.len() < 2 {
            return;
        }
        let gone = pool.backends.remove(self.below(pool.backends.len()));
        self.coverage.hit_if(self.sources.have(pool, &gone.address), "source takes over");
    }

    /// A source goes or is back, or begins anew with other settings.
    pub(super) fn change_sources(&mut self, config: &mut Config) {
        let place = self.below(config.pools.len());
        let number = number_of(&config.pools[place]);
        let first = self.plan.config.pools.iter().find(|first| number_of(first) == number);
        let all = first.expect("pools have the numbers of the beginning").discover.clone();
        let pool = &mut config.pools[place];
        let runs = |source: &Discover| pool.discover.iter().any(|known| known.label() == source.label());
        if let Some(missing) = all.into_iter().find(|source| !runs(source)) {
            pool.discover.push(missing);
            self.coverage.hit("source is back");
        } else if !pool.discover.is_empty() {
            let place = self.below(pool.discover.len());
            if self.below(2) == 0 {
                pool.discover.remove(place);
                self.coverage.hit("source removed");
            } else {
                pool.discover[place].obsolete ^= 1;
                self.coverage.hit("source changed");
            }
        }
    }

    pub(super) fn is_discovered(&self, backend: BackendId) -> bool {
        matches!(self.control.origin_of(backend), Origin::Discovered(_))
    }
}

impl Sources {
    /// Those of `config` run from now on, and no others.
    pub(super) fn begin(&mut self, config: &Config) {
        let of_pool = |pool: &model::Pool| {
            pool.discover.iter().map(|source| (pool.name.clone(), source.label())).collect()
        };
        let wanted: BTreeSet<Key> = config.pools.iter().flat_map::<Vec<Key>, _>(of_pool).collect();
        self.lists.retain(|key, _| wanted.contains(key));
        self.outcomes.retain(|key, _| wanted.contains(key));
        wanted.into_iter().for_each(|key| _ = self.lists.entry(key).or_default());
    }

    /// Returns whether a source of `pool` lists that address.
    pub(super) fn have(&self, pool: &model::Pool, address: &Address) -> bool {
        let of_pool = self.lists.iter().filter(|((name, _), _)| *name == pool.name);
        of_pool.flat_map(|(_, list)| list).any(|found| found.address == *address)
    }

    /// Panics unless the pool has what its file and its sources list, and nothing else.
    fn check_members(&self, pool: &Pool, of_file: &[model::Backend]) {
        let name = &pool.settings.name;
        let of_pool = self.lists.iter().filter(|((of_pool, _), _)| of_pool == name);
        let found = of_pool.flat_map(|(_, list)| list).map(|found| port_of(&found.address));
        let listed = of_file.iter().map(|listed| port_of(&listed.address));
        let expected: BTreeSet<u16> = found.chain(listed).collect();
        let mut has: Vec<u16> = pool.backends.iter().map(|backend| port_of(&backend.address)).collect();
        has.sort_unstable();
        assert_eq!(has, expected.into_iter().collect::<Vec<_>>(), "pool {name}, by {:?}", self.lists);
    }

    /// Returns how a backend of `pool` must be, which was as `before` says if it was there.
    fn setting(
        &mut self,
        pool: &Pool,
        backend: &Backend,
        of_file: &[model::Backend],
        before: Option<Standing>,
        control: &SteppedControl,
    ) -> Setting {
        let key = (pool.settings.name.clone(), backend.name.clone());
        let remembered = self.remembered.remove(&key);
        if let Some(listed) = of_file.iter().find(|listed| listed.address == backend.address) {
            assert!(matches!(control.origin_of(backend.id), Origin::File), "the file lists {}", backend.name);
            let set = before.map_or_else(Setting::default, |before| before.set);
            return Setting { weight: listed.weight, ..set };
        }
        let Origin::Discovered(known) = control.origin_of(backend.id) else {
            panic!("only a source lists {}", backend.name)
        };
        let list = self.lists.get(&(key.0, known.source.to_string())).map(Vec::as_slice);
        let found = list.unwrap_or_default().iter().find(|found| found.address == backend.address);
        let Some(found) = found else { panic!("{} is not listed by {}", backend.name, known.source) };
        assert_eq!(known.weight, found.weight, "the weight that {} says", known.source);
        let set = before.map(|before| (before.says, before.set)).or(remembered);
        let (says, set) =
            set.unwrap_or((found.weight, Setting { weight: found.weight, ..Setting::default() }));
        Setting { weight: if says == found.weight { set.weight } else { found.weight }, ..set }
    }
}

/// Returns the control thread of a process that runs `config`.
pub(super) fn stepped_control(config: &Config, snapshot: &Arc<Snapshot>) -> SteppedControl {
    SteppedControl::new(config, snapshot, Arc::new(Nowhere))
}

/// Returns whether a connection to `port` is being opened: of a check, or of a session.
fn is_dialed(net: &Net, port: u16, by_check: bool) -> bool {
    net.live.iter().any(|&id| {
        let conn = &net.conns[id];
        let is_check = matches!(conn.token, Some(Token::Probe(_)));
        conn.dialed_port == Some(port) && is_check == by_check && matches!(conn.stage, Stage::Dialing(_))
    })
}

/// Returns the number of a pool, which stays when it gets another name.
pub(super) fn number_of(pool: &model::Pool) -> u64 {
    pool.name.trim_start_matches(['p', 'q']).parse().expect("pools are numbered")
}

pub(super) fn named<'c>(config: &'c mut Config, pool: &str) -> &'c mut model::Pool {
    config.pools.iter_mut().find(|named| named.name == pool).expect("it runs")
}

fn sorted(list: &[Found]) -> Vec<(u16, u16, u8)> {
    let mut all: Vec<_> =
        list.iter().map(|found| (port_of(&found.address), found.weight, found.priority)).collect();
    all.sort_unstable();
    all
}
