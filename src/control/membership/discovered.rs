//! Puts what a source lists into its pool, behind what the file lists and what was registered.
//!
//! A backend is known by its name, address and port: what stays keeps its health, its counters and its sessions,
//! whatever its place in an answer. What operators have set of one holds for as long as the source says of it what it
//! said then; it outlasts the time in which the source does not list it, and a restart. What leaves does so by the
//! `on_remove` of the pool.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use crate::api::EventKind;
use crate::base::address::Address;
use crate::config::model::{self, BackendCheck, Config, OwnSocket, UNRESOLVED};
use crate::control::control_loop::ControlLoop;
use crate::control::events::Draft;
use crate::control::membership::leases::Registrations;
use crate::control::membership::listing::Listing;
use crate::control::membership::merge::{Membership, Obstacle};
use crate::control::membership::notes::Removed;
use crate::control::membership::origin::{Discovery, RuntimeOverrides};
use crate::control::membership::place_notes::note_placements;
use crate::control::membership::requests::{BACKENDS_MAX, configured};
use crate::control::membership::state_file::SavedAuthor;
use crate::messages::discovery::Found;
use crate::messages::request::Named;
use crate::pool::{Admin, Backend, Pool};

/// Backends that get an event of their own of what one answer changes; of more there is one event with their number.
const EVENTS_EACH: usize = 16;

/// The result of merging lists.
pub(in crate::control) struct Put {
    /// Of each list those that did not come, and why.
    pub(in crate::control) left_out: Vec<Vec<String>>,
    /// Whether backends have gone with them.
    pub(in crate::control) has_removed: bool,
}

/// The changes that lists make in a pool.
struct Plan {
    /// All backends of the pool from now on.
    backends: Vec<model::Backend>,
    /// What each list changes.
    parts: Vec<Part>,
}

/// The changes that one list makes.
#[derive(Default)]
struct Part {
    added: Vec<Found>,
    gone: Vec<Arc<Backend>>,
    /// Those that stay, with another weight or priority than the source said before.
    changed: Vec<(Arc<Backend>, Found)>,
    /// Those that are listed and do not come, and why.
    left_out: Vec<String>,
}

impl Part {
    fn count(&self) -> usize {
        self.added.len() + self.gone.len() + self.changed.len()
    }
}

/// The backends that come, by name, each with its source.
type New<'p> = HashMap<&'p str, (&'p Arc<str>, &'p Found)>;

impl ControlLoop {
    /// The pool has the backends of these lists from now on, as far as they fit; of two the first one counts.
    pub(in crate::control) fn put_discovered(&mut self, pool: &str, lists: &[Listing]) -> Put {
        let Some(pool) = self.control.snapshot.pool_named(pool).cloned() else {
            return Put { left_out: vec![Vec::new(); lists.len()], has_removed: false };
        };
        let sockets = self.own_sockets();
        let lists = &*self.control.kept.registrations.placements.placed_lists(&pool.settings.name, lists);
        let Plan { backends, mut parts } = plan(&pool, lists, &self.control.kept.registrations, &sockets);
        let left_out = parts.iter_mut().map(|part| mem::take(&mut part.left_out)).collect();
        let has_removed = parts.iter().any(|part| !part.gone.is_empty());
        if parts.iter().all(|part| part.count() == 0) {
            let placements = &self.control.kept.registrations.placements;
            if placements.has_any_in(&pool.settings.name) {
                // The source may list another address in place of which one was set.
                note_placements(placements, &mut self.control.view.state());
            }
            return Put { left_out, has_removed };
        }
        let registrations = &mut self.control.kept.registrations;
        let state = self.control.view.state();
        for backend in parts.iter().flat_map(|part| &part.gone) {
            let author = state.notes.get(&backend.id).and_then(SavedAuthor::of);
            registrations.forget_discovery(&pool.settings.name, backend, author);
        }
        drop(state);
        for (Listing { source, .. }, part) in lists.iter().zip(&parts) {
            for (backend, found) in &part.changed {
                let known = Discovery { source: Arc::clone(source), weight: found.weight };
                registrations.put_discovery(backend.id, known);
            }
        }
        let of_lists = lists.iter().zip(&parts);
        let new: New<'_> = of_lists
            .flat_map(|(listing, part)| part.added.iter().map(move |found| (&listing.source, found)))
            .map(|(source, found)| (found.name.as_str(), (source, found)))
            .collect();
        let returned = self.take_returning(|removed: &Removed| {
            let backend = &removed.backend;
            let found = new.get(backend.name.as_str());
            backend.pool == pool.id && found.is_some_and(|(_, found)| found.address == backend.address)
        });
        let back: Vec<_> = returned.iter().map(|removed| Arc::clone(&removed.backend)).collect();
        let next = Arc::new(self.control.snapshot.with_backends_back(pool.id, &backends, &back));
        self.remember_notes(&returned);
        // The origin must be noted before the snapshot shows the backend.
        let recalled = self.note_discovered(next.pool(pool.id), &new);
        self.replace_snapshot(next);
        if !recalled.is_empty() {
            self.tables_changed(pool.id);
        }
        let pool = Arc::clone(self.control.snapshot.pool(pool.id));
        self.report_eligibility(&pool);
        self.control.kept.changed();
        self.report_all(&pool, lists, &parts, &recalled);
        Put { left_out, has_removed }
    }

    /// Returns what a reload runs for `merged`: backends that would leave with their place in the file, or with their
    /// source, stay where a source of their pool is believed to have them. They never leave, so no session misses them.
    /// Of the others that were discovered, what operators have set is remembered. Must be called before the reload.
    pub(in crate::control) fn change_hands(&mut self, merged: &Config) -> Config {
        let (snapshot, file) = (Arc::clone(&self.control.snapshot), Arc::clone(&self.control.config));
        let before = self.control.kept.registrations.placements.placed(&file).config;
        let sockets: Vec<OwnSocket> = merged.own_sockets().collect();
        let mut runs = merged.clone();
        for next in &mut runs.pools {
            let Some(pool) = snapshot.pool_named(&next.name) else { continue };
            let believed = self.believed_in(next);
            let hosts =
                next.discover.iter().filter_map(|source| Some((source.label(), source.as_host()?.check)));
            let checks: HashMap<String, BackendCheck> = hosts.collect();
            let registrations = &mut self.control.kept.registrations;
            let mut state = self.control.view.state();
            let stays: HashSet<(String, Address)> =
                next.backends.iter().map(|stays| (stays.name.clone(), stays.address.clone())).collect();
            let of_file = before.pools.iter().filter(|of_file| of_file.name == next.name);
            let of_file: HashMap<(&str, &Address), u16> = of_file
                .flat_map(|of_file| &of_file.backends)
                .map(|listed| ((listed.name.as_str(), &listed.address), listed.weight))
                .collect();
            let mut members = Membership::listed(mem::take(&mut next.backends), &sockets);
            let mut stay = 0;
            for backend in &pool.backends {
                if stays.contains(&(backend.name.clone(), backend.address.clone())) {
                    continue;
                }
                let known = registrations.discovery_of(backend.id).map(|known| known.weight);
                let said = known.or_else(|| of_file.get(&(backend.name.as_str(), &backend.address)).copied());
                let heir = believed.get(&backend.address).filter(|(_, found)| found.name == backend.name);
                if let (Some(said), Some((source, found))) = (said, heir) {
                    let Found { name, address, weight: says, priority } = found.clone();
                    let weight = RuntimeOverrides::of(backend, said).kept(said, says).weight_over(says);
                    let check = checks.get(&**source).copied().unwrap_or_default();
                    if members.add(model::Backend { name, address, weight, priority, check }).is_ok() {
                        let known = Discovery { source: Arc::clone(source), weight: says };
                        registrations.put_discovery(backend.id, known);
                        state.notes.entry(backend.id).or_default().origin =
                            registrations.origin_of(backend.id);
                        stay += 1;
                        continue;
                    }
                }
                let author = state.notes.get(&backend.id).and_then(SavedAuthor::of);
                registrations.forget_discovery(&next.name, backend, author);
            }
            next.backends = members.into_backends();
            drop(state);
            if stay > 0 {
                let message = format!("{stay} backends stay, because sources list them");
                self.control.view.events.push(Draft::new(EventKind::Backend, message).pool(&next.name));
            }
        }
        runs
    }

    /// Notes where those that have come to `pool` are from, and what was set of them before they went; returns those of
    /// which that was anything.
    fn note_discovered(&mut self, pool: &Pool, new: &New<'_>) -> HashSet<String> {
        let registrations = &mut self.control.kept.registrations;
        let mut state = self.control.view.state();
        let mut recalled = HashSet::new();
        for backend in &pool.backends {
            let found = new.get(backend.name.as_str());
            let Some((source, found)) = found.filter(|(_, found)| found.address == backend.address) else {
                continue;
            };
            if let Some((_, overrides, author)) = registrations.recall(&pool.settings.name, backend) {
                overrides.put_on(backend);
                recalled.insert(backend.name.clone());
                state.notes.entry(backend.id).or_default().admin_set = author.map(SavedAuthor::into_note);
            }
            let known = Discovery { source: Arc::clone(source), weight: found.weight };
            registrations.put_discovery(backend.id, known);
            state.notes.entry(backend.id).or_default().origin = registrations.origin_of(backend.id);
        }
        recalled
    }

    /// Each source by itself, unless there are many.
    fn report_all(&self, pool: &Pool, lists: &[Listing], parts: &[Part], recalled: &HashSet<String>) {
        let changing = || lists.iter().zip(parts).filter(|(_, part)| part.count() > 0);
        let sources = changing().count();
        if sources <= EVENTS_EACH {
            for (Listing { source, .. }, part) in changing() {
                self.report_discovered(pool, source, part, recalled);
            }
            return;
        }
        let sum = |count: fn(&Part) -> usize| parts.iter().map(count).sum::<usize>();
        let (added, removed) = (sum(|part| part.added.len()), sum(|part| part.gone.len()));
        let (changed, pool) = (sum(|part| part.changed.len()), pool.settings.name.as_str());
        log::info!(pool, sources, added, removed, changed; "discovered");
        let message = format!("{sources} sources: {added} added, {removed} removed, {changed} changed");
        self.control.view.events.push(Draft::new(EventKind::Backend, message).pool(pool));
    }

    fn report_discovered(&self, pool: &Pool, source: &str, part: &Part, recalled: &HashSet<String>) {
        let Part { added, gone, changed, left_out: _ } = part;
        let (members, pool) = (pool, pool.settings.name.as_str());
        log::info!(pool, source, added = added.len(), removed = gone.len(), changed = changed.len(); "discovered");
        if part.count() > EVENTS_EACH {
            let recalled = added.iter().filter(|found| recalled.contains(&found.name)).count();
            let (added, gone, changed) = (added.len(), gone.len(), changed.len());
            let set = match recalled {
                0 => String::new(),
                _ => format!(", {recalled} of them as operators have set them before"),
            };
            let message = format!("{source}: {added} added{set}, {gone} removed, {changed} changed");
            return self.control.view.events.push(Draft::new(EventKind::Backend, message).pool(pool));
        }
        let report_change = |backend: &str, what: String| {
            let named = Named { pool: pool.to_owned(), backend: backend.to_owned() };
            self.control.view.events.push(Draft::new(EventKind::Backend, what).backend(&named));
        };
        for Found { name, weight, priority, .. } in added.iter().filter(|found| found.address != UNRESOLVED) {
            let tier = tier_words(*priority);
            let admin = members.backend_named(name).map(|backend| backend.admin());
            let set = match admin.filter(|&admin| admin != Admin::Ready) {
                Some(admin) => format!(", in {} as set before", admin.as_str()),
                None => String::new(),
            };
            report_change(name, format!("discovered by {source} with weight {weight}{tier}{set}"));
        }
        for backend in gone.iter().filter(|backend| backend.is_resolved()) {
            let sessions = backend.active();
            report_change(
                &backend.name,
                format!("{source} lists it no more: removed with {sessions} sessions left"),
            );
        }
        for (backend, Found { weight, priority, .. }) in changed {
            let tier = tier_words(*priority);
            report_change(&backend.name, format!("{source} lists it with weight {weight}{tier} now"));
        }
    }
}

/// Names the tier of a backend that is not in the first one.
fn tier_words(priority: u8) -> String {
    if priority == 0 { String::new() } else { format!(" and priority {priority}") }
}

/// Returns the changes that lists of sources make in the running `pool`, which has these `sockets`.
fn plan(pool: &Pool, lists: &[Listing], registrations: &Registrations, sockets: &[OwnSocket]) -> Plan {
    let mut parts: Vec<Part> = lists.iter().map(|_| Part::default()).collect();
    let places: HashMap<&str, usize> =
        lists.iter().enumerate().map(|(place, listing)| (&*listing.source, place)).collect();
    let listed: Vec<HashMap<(&str, &Address), &Found>> =
        lists.iter().map(|listing| by_name(&listing.list)).collect();
    let mut stay = Vec::with_capacity(pool.backends.len());
    let mut stays: Vec<HashSet<(&str, &Address)>> = lists.iter().map(|_| HashSet::new()).collect();
    for (settings, backend) in configured(pool).into_iter().zip(&pool.backends) {
        let known = registrations.discovery_of(backend.id);
        let known = known.and_then(|known| Some((known, *places.get(&*known.source)?)));
        let Some((known, place)) = known else {
            stay.push(settings);
            continue;
        };
        let (check, part) = (lists[place].check, &mut parts[place]);
        let key = (backend.name.as_str(), &backend.address);
        let Some(found) = listed[place].get(&key) else {
            part.gone.push(Arc::clone(backend));
            continue;
        };
        stays[place].insert(key);
        let kept = RuntimeOverrides::of(backend, known.weight).kept(known.weight, found.weight);
        if (known.weight, settings.priority, settings.check) != (found.weight, found.priority, check) {
            part.changed.push((Arc::clone(backend), (*found).clone()));
        }
        stay.push(model::Backend {
            weight: kept.weight_over(found.weight),
            priority: found.priority,
            check,
            ..settings
        });
    }
    let mut members = Membership::listed(stay, sockets);
    for ((Listing { list, check, .. }, part), stays) in lists.iter().zip(&mut parts).zip(&stays) {
        for found in list.iter().filter(|found| !stays.contains(&(found.name.as_str(), &found.address))) {
            let Found { name, address, weight: says, priority } = found.clone();
            if members.len() >= BACKENDS_MAX {
                part.left_out.push(format!("{name}: the pool has {BACKENDS_MAX} backends, no more fit"));
                break;
            }
            let set = registrations.set_before(&pool.settings.name, &name);
            let weight = set.map_or(says, |(said, set)| set.kept(said, says).weight_over(says));
            match members.add(model::Backend { name: name.clone(), address, weight, priority, check: *check })
            {
                Ok(()) => part.added.push(found.clone()),
                Err(Obstacle::Member { name: other, address }) => {
                    part.left_out.push(format!("{name}: the pool has {other:?} at {address} already"));
                }
                Err(Obstacle::OwnSocket(socket)) => part.left_out.push(format!("{name} is {socket}")),
            }
        }
    }
    Plan { backends: members.into_backends(), parts }
}

/// Returns the backends of a list by their names and addresses; of two the first one counts.
fn by_name(list: &[Found]) -> HashMap<(&str, &Address), &Found> {
    let mut listed = HashMap::with_capacity(list.len());
    for found in list {
        listed.entry((found.name.as_str(), &found.address)).or_insert(found);
    }
    listed
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::model::HealthState;
    use crate::config::{self, Overrides};
    use crate::control::tests::control;
    use crate::messages::request::{Ask, Refusal, Request};
    use crate::pool::Snapshot;

    const SOURCE: &str = "dns:web.test:80";
    const TEXT: &str = "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\n\
         [[pool.backend]]\nname = \"file\"\naddress = \"10.0.0.9:80\"\n\
         [[pool.discover]]\ntype = \"dns\"\nname = \"web.test\"\nport = 80\n";

    fn parse(text: &str) -> Config {
        config::parse(text, "test", &Overrides::default(), &mut |_: &str| Ok(Vec::new())).unwrap()
    }

    fn work() -> ControlLoop {
        let config = parse(TEXT);
        let mut work = ControlLoop::new(control(Snapshot::new(&config), &[]));
        work.control.config = Arc::new(config);
        work
    }

    fn found(last: u8, weight: u16) -> Found {
        let address: SocketAddr = ([10, 0, 0, last], 80).into();
        Found { name: address.to_string(), address: address.into(), weight, priority: 0 }
    }

    fn lists(work: &mut ControlLoop, addresses: &[u8]) -> Vec<String> {
        let list = addresses.iter().map(|&last| found(last, 1)).collect();
        puts(work, SOURCE, list)
    }

    fn puts(work: &mut ControlLoop, source: &str, list: Vec<Found>) -> Vec<String> {
        let listing = Listing { source: source.into(), list, check: BackendCheck::default() };
        work.put_discovered("web", &[listing]).left_out.remove(0)
    }

    fn backends(work: &ControlLoop) -> Vec<String> {
        work.control.snapshot.pools[0].backends.iter().map(|backend| backend.name.clone()).collect()
    }

    fn backend(work: &ControlLoop, name: &str) -> Arc<Backend> {
        Arc::clone(work.control.snapshot.pools[0].backend_named(name).unwrap())
    }

    fn change(work: &mut ControlLoop, name: &str, weight: Option<u16>, admin: Option<Admin>) {
        let (reply, _) = tokio::sync::oneshot::channel();
        let backend = Named { pool: "web".into(), backend: name.into() };
        let request = Request::Change { backend, weight, admin, reply };
        work.on_ask(Ask { who: "a test".into(), request });
    }

    #[test]
    fn discovered_backends_follow_those_of_the_file_and_are_removed_when_unlisted() {
        let mut work = work();
        assert!(lists(&mut work, &[1, 2]).is_empty());
        assert_eq!(backends(&work), ["file", "10.0.0.1:80", "10.0.0.2:80"]);
        lists(&mut work, &[2, 3]);
        assert_eq!(backends(&work), ["file", "10.0.0.2:80", "10.0.0.3:80"]);
        lists(&mut work, &[]);
        assert_eq!(backends(&work), ["file"]);
        assert_eq!(work.removed.len(), 3, "by on_remove");
    }

    #[test]
    fn a_refresh_and_another_order_change_nothing() {
        let mut work = work();
        lists(&mut work, &[1, 2]);
        let (one, epoch) = (backend(&work, "10.0.0.1:80"), work.control.snapshot.epoch);
        one.set_health(HealthState::Down);
        let lease = one.lease(0);
        lists(&mut work, &[2, 1]);
        assert_eq!(work.control.snapshot.epoch, epoch, "no epoch");
        lists(&mut work, &[2, 1, 3]);
        assert!(Arc::ptr_eq(&one, &backend(&work, "10.0.0.1:80")), "with its health, counters and sessions");
        assert_eq!(one.health(), HealthState::Down);
        lease.release();
    }

    #[test]
    fn a_backend_that_returns_while_it_has_sessions_is_the_same_one() {
        let mut work = work();
        lists(&mut work, &[1]);
        let one = backend(&work, "10.0.0.1:80");
        let lease = one.lease(0);
        lists(&mut work, &[]);
        lists(&mut work, &[1]);
        assert!(Arc::ptr_eq(&one, &backend(&work, "10.0.0.1:80")) && work.removed.is_empty());
        assert_eq!(one.admin(), Admin::Ready);
        lease.release();
    }

    #[test]
    fn the_file_and_an_earlier_source_come_first() {
        let mut work = work();
        let left_out = lists(&mut work, &[9, 1]);
        assert_eq!(left_out, ["10.0.0.9:80: the pool has \"file\" at 10.0.0.9:80 already"]);
        let left_out = puts(&mut work, "dns:other.test:80", vec![found(1, 1), found(2, 1)]);
        assert_eq!(left_out, ["10.0.0.1:80: the pool has \"10.0.0.1:80\" at 10.0.0.1:80 already"]);
        assert_eq!(backends(&work), ["file", "10.0.0.1:80", "10.0.0.2:80"]);
        lists(&mut work, &[]);
        assert_eq!(backends(&work), ["file", "10.0.0.2:80"], "each source removes its own");
        puts(&mut work, "dns:other.test:80", vec![found(1, 1), found(2, 1)]);
        assert_eq!(backends(&work), ["file", "10.0.0.2:80", "10.0.0.1:80"]);
    }

    #[test]
    fn an_operators_setting_wins_until_the_source_changes_it() {
        let mut work = work();
        lists(&mut work, &[1]);
        change(&mut work, "10.0.0.1:80", Some(7), Some(Admin::Drain));
        lists(&mut work, &[1, 2]);
        let one = backend(&work, "10.0.0.1:80");
        assert_eq!((one.weight(), one.admin()), (7, Admin::Drain));
        puts(&mut work, SOURCE, vec![found(1, 3), found(2, 1)]);
        assert_eq!((one.weight(), one.admin()), (3, Admin::Drain), "a source says nothing of that");
    }

    #[test]
    fn an_operators_setting_outlasts_the_absence_of_a_backend() {
        let mut work = work();
        lists(&mut work, &[1, 2]);
        change(&mut work, "10.0.0.1:80", Some(7), Some(Admin::Maint));
        lists(&mut work, &[2]);
        work.publish();
        work.check_removed();
        lists(&mut work, &[1, 2]);
        let one = backend(&work, "10.0.0.1:80");
        assert_eq!((one.weight(), one.admin()), (7, Admin::Maint));
        let author = work.control.view.state().notes[&one.id].admin_set.clone();
        assert_eq!(author.map(|(who, _)| who).as_deref(), Some("a test"), "and so does who has made it");
        assert_eq!(work.control.kept.registrations.all_remembered().count(), 0);
    }

    #[test]
    fn a_request_can_neither_remove_nor_register_what_a_source_lists() {
        let mut work = work();
        lists(&mut work, &[1]);
        let (reply, mut answered) = tokio::sync::oneshot::channel();
        let backend = Named { pool: "web".into(), backend: "10.0.0.1:80".into() };
        work.on_ask(Ask {
            who: "a test".into(),
            request: Request::Deregister { backend, holder: None, reply },
        });
        work.give_answers();
        let Err(Refusal::Conflict(why)) = answered.try_recv().unwrap() else { panic!("it is refused") };
        assert!(why.ends_with("is listed by dns:web.test:80: drain it, or remove it there"), "{why}");
        assert_eq!(backends(&work).len(), 2);
    }

    #[test]
    fn a_reload_keeps_what_a_source_lists_as_long_as_it_has_the_source() {
        let mut work = work();
        lists(&mut work, &[1, 2]);
        let running = |work: &ControlLoop, text: &str| {
            let (old, registrations) = (&work.control.config, &work.control.kept.registrations);
            let merge = crate::control::membership::merge::merge;
            let (new, snapshot) = (parse(text), &work.control.snapshot);
            let merged = merge(old, &registrations.placements.placed(&new), snapshot, registrations);
            let (config, notes) = (merged.config, merged.notes);
            let names: Vec<String> =
                config.pools[0].backends.iter().map(|backend| backend.name.clone()).collect();
            (names, notes)
        };
        assert_eq!(running(&work, TEXT).0, ["file", "10.0.0.1:80", "10.0.0.2:80"]);
        assert!(running(&work, TEXT).1.is_empty(), "nothing has changed");
        let (other_interval, _) = running(&work, &format!("{TEXT}interval = \"1s\"\n"));
        assert_eq!(other_interval.len(), 3);
        let (without, _) = TEXT.split_once("[[pool.discover]]").unwrap();
        assert_eq!(running(&work, without).0, ["file"]);
        assert_eq!(running(&work, &TEXT.replace("web.test", "other.test")).0, ["file"], "another source");
        let listed = TEXT.replace("[[pool.disc", "[[pool.backend]]\naddress = \"10.0.0.2:80\"\n[[pool.disc");
        let (names, notes) = running(&work, &listed);
        assert_eq!(names, ["file", "10.0.0.2:80", "10.0.0.1:80"]);
        assert_eq!(
            notes,
            ["pool \"web\": backend \"10.0.0.2:80\": was discovered and is listed now: file wins"]
        );
    }

    #[test]
    fn our_own_addresses_are_left_out() {
        let mut work = work();
        work.control.admin_sockets = vec![OwnSocket::Admin("10.0.0.1:80".parse().unwrap())];
        let left_out = lists(&mut work, &[1, 2]);
        assert_eq!(left_out, ["10.0.0.1:80 is our own admin API 10.0.0.1:80"]);
    }
}
