//! Host names as backends: what is in the pool, what it is called, and what becomes of what operators have set.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Barrier, OnceLock};

use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::*;
use crate::api;
use crate::base::address::Address;
use crate::config::discover::Discover;
use crate::config::model::{self, BackendCheck, HealthState, UNRESOLVED};
use crate::config::{self, Config, Overrides};
use crate::control::control_loop::{ControlLoop, ControlStage};
use crate::control::discovery::state::Sources;
use crate::control::membership::merge::merge;
use crate::control::membership::notes::Removed;
use crate::control::membership::persist::{self, Restored};
use crate::control::membership::state_file::SavedBackend;
use crate::control::tests::control;
use crate::messages::discovery::{Found, Listed, Outcome, SourceReport};
use crate::messages::request::{Ask, Named, Refusal, Request};
use crate::pool::{Admin, Backend};
use crate::sys::{Call, timestamp};

/// The pool has one host.
const TEXT: &str = "[[listener]]\nbind = \"127.0.0.1:9090\"\n\
     [[pool]]\nname = \"web\"\nwhen_all_down = \"try_anyway\"\n[[pool.backend]]\nname = \"a\"\naddress = \"web.test:80\"\n";

fn ip(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 80).into()
}

/// The configuration where each name has these addresses when it is read.
fn parse(text: &str, addresses: &[u8]) -> Config {
    let mut resolve = |_: &str| match addresses {
        [] => Err(io::Error::other("nobody answers")),
        _ => Ok(addresses.iter().map(|&last| ip(last)).collect()),
    };
    config::parse(text, "test", &Overrides::default(), &mut resolve).unwrap()
}

/// A process that starts where an earlier one has `saved` this.
fn start_with(saved: Vec<SavedBackend>, text: &str, addresses: &[u8]) -> ControlLoop {
    let config = parse(text, addresses);
    let now = (Default::default(), timestamp());
    let listed: Vec<Listed> = config.hosts.iter().map(Listed::of_host).collect();
    let Restored { snapshot, registrations, left_out, .. } =
        persist::restore(saved, Vec::new(), &listed, &config, now);
    assert_eq!(left_out, [""; 0]);
    let mut work = ControlLoop::new(control(snapshot, &[]));
    work.control.kept.registrations = registrations;
    work.control.config = Arc::new(config);
    work.sources = Sources::unasked();
    work.sources.listed = listed;
    work.follow_sources();
    work
}

fn start(text: &str, addresses: &[u8]) -> ControlLoop {
    start_with(Vec::new(), text, addresses)
}

/// What a reload does with the pools and their sources.
fn reload(work: &mut ControlLoop, text: &str, addresses: &[u8]) {
    let next = parse(text, addresses);
    let control = &work.control;
    let registrations = &control.kept.registrations;
    let placed = registrations.placements.placed(&next);
    let merged = merge(&control.config, &placed, &control.snapshot, registrations).config;
    work.sources.begin_with(Vec::new(), &next.hosts);
    let said = work.remember_of_hosts(&merged);
    let mut runs = work.change_hands(&merged);
    let brought = work.bring_listed(&mut runs);
    let is_back = |removed: &Removed| {
        let is_it = |listed: &model::Backend| {
            (&listed.name, &listed.address) == (&removed.backend.name, &removed.backend.address)
        };
        runs.pools[0].backends.iter().any(is_it)
    };
    let returned = work.take_returning(is_back);
    let back: Vec<_> = returned.iter().map(|removed| Arc::clone(&removed.backend)).collect();
    let snapshot = Arc::new(work.control.snapshot.reconfigured_back(&runs, &back));
    work.remember_notes(&returned);
    work.note_brought(brought, &snapshot);
    work.hand_over(&snapshot, &said);
    work.replace_snapshot(snapshot);
    let before = std::mem::replace(&mut work.control.config, Arc::new(next));
    work.align_registrations(&before);
    work.follow_sources();
}

/// The host of that name has these addresses.
fn has(work: &mut ControlLoop, name: &str, addresses: &[u8]) {
    let is_it = |source: &Discover| source.as_host().is_some_and(|host| host.name == name);
    let id = work.sources.all.iter().find(|known| is_it(&known.settings)).unwrap().id;
    let found = |&last: &u8| dns::found(ip(last), 1, 0);
    let (outcome, note) = match addresses {
        [] => (Outcome::Nothing, Some("there is no such name".to_owned())),
        _ => (Outcome::Found, None),
    };
    let list = Some(addresses.iter().map(found).collect());
    work.on_discovered(id, SourceReport { list, outcome, note }, Duration::from_secs(5));
    work.apply_lists();
}

fn names(work: &ControlLoop) -> Vec<String> {
    work.control.snapshot.pools[0].backends.iter().map(|backend| backend.name.clone()).collect()
}

fn at(work: &ControlLoop, last: u8) -> Arc<Backend> {
    let mut backends = work.control.snapshot.pools[0].backends.iter();
    Arc::clone(backends.find(|backend| backend.address == ip(last).into()).unwrap())
}

fn named(backend: &str) -> Named {
    Named { pool: "web".into(), backend: backend.into() }
}

fn set(work: &mut ControlLoop, name: &str, weight: Option<u16>, admin: Option<Admin>) {
    let (reply, _) = oneshot::channel();
    let request = Request::Change { backend: named(name), weight, admin, reply };
    work.on_ask(Ask { who: "a test".into(), request });
}

fn force_down(work: &mut ControlLoop, name: &str) {
    let (reply, _) = oneshot::channel();
    let request = Request::OverrideHealth { backend: named(name), health: Some(HealthState::Down), reply };
    work.on_ask(Ask { who: "a test".into(), request });
}

/// What a process that ends leaves to the next one.
fn saved(work: &mut ControlLoop) -> Vec<SavedBackend> {
    let now = (work.clock.now(), timestamp());
    persist::collect(
        &work.control.snapshot,
        &work.control.config,
        &work.control.kept.registrations,
        &std::collections::HashMap::new(),
        now,
    )
}

#[test]
fn all_addresses_are_there_from_the_first_epoch_on() {
    let literal = "[[pool.backend]]\naddress = \"10.0.0.9:80\"\n";
    let work = start(&format!("{TEXT}weight = 3\npriority = 2\ncheck = {{ port = 99 }}\n{literal}"), &[2, 1]);
    assert_eq!(names(&work), ["10.0.0.9:80", "a@10.0.0.2", "a@10.0.0.1"]);
    assert_eq!(
        work.control.snapshot.epoch,
        start(TEXT, &[]).control.snapshot.epoch,
        "nothing came behind it"
    );
    let known = work.control.kept.registrations.discovery_of(at(&work, 1).id).unwrap();
    assert_eq!(&*known.source, "host:web.test:80");
    let settings = &work.control.snapshot.pools[0].settings.backends[1];
    let check = BackendCheck { port: Some(99), ..BackendCheck::default() };
    assert_eq!((settings.weight, settings.priority, settings.check), (3, 2, check));
    assert_eq!(work.sources.all[0].last.len(), 2, "what was found is what the source begins with");
}

/// The name of a backend is its identity for source_hash.
#[test]
fn an_address_keeps_its_name_health_and_sessions_whatever_comes_and_goes_beside_it() {
    let mut work = start(TEXT, &[1]);
    let one = at(&work, 1);
    let lease = one.lease(0);
    one.set_health(HealthState::Down);
    has(&mut work, "web.test", &[1, 2]);
    assert_eq!(names(&work), ["a@10.0.0.1", "a@10.0.0.2"]);
    has(&mut work, "web.test", &[1, 3]);
    assert_eq!(names(&work), ["a@10.0.0.1", "a@10.0.0.3"]);
    assert!(Arc::ptr_eq(&one, &at(&work, 1)) && one.active() == 1 && one.health() == HealthState::Down);
    let epoch = work.control.snapshot.epoch;
    has(&mut work, "web.test", &[1, 3]);
    assert_eq!(work.control.snapshot.epoch, epoch, "an answer that is no news changes nothing");
    lease.release();
}

#[test]
fn what_is_set_of_a_name_holds_for_all_its_addresses_and_for_those_that_come() {
    let mut work = start(TEXT, &[1, 2]);
    set(&mut work, "a", Some(7), Some(Admin::Drain));
    let state = |work: &ControlLoop, last| (at(work, last).admin(), at(work, last).plain_weight());
    for last in [1, 2] {
        assert_eq!(state(&work, last), (Admin::Drain, 7));
    }
    has(&mut work, "web.test", &[3]);
    assert_eq!((names(&work), state(&work, 3)), (vec!["a@10.0.0.3".to_owned()], (Admin::Drain, 7)));
    // One that was drained by itself, left, and is back once the name is ready.
    set(&mut work, "a@10.0.0.3", None, Some(Admin::Maint));
    has(&mut work, "web.test", &[4]);
    set(&mut work, "a", None, Some(Admin::Ready));
    has(&mut work, "web.test", &[3, 4, 5]);
    let states = [3, 4, 5].map(|last| state(&work, last));
    assert_eq!(states, [(Admin::Ready, 7); 3], "the weight was not taken back");
    set(&mut work, "a@10.0.0.3", None, Some(Admin::Drain));
    has(&mut work, "web.test", &[3, 4, 5, 6]);
    assert_eq!(at(&work, 6).admin(), Admin::Ready, "it was set of one alone");
    let events = work.control.view.events.recent(None, usize::MAX);
    let message = "weight 1 -> 7, admin state ready -> drain, at its 2 addresses and at those to come";
    assert!(events.iter().any(|event| event.message == message), "{events:?}");
}

#[test]
fn a_drain_of_a_name_outlasts_a_restart_and_forced_health_spreads_to_no_other_address() {
    let mut work = start(TEXT, &[1, 2]);
    set(&mut work, "a", None, Some(Admin::Drain));
    force_down(&mut work, "a@10.0.0.1");
    let kept = saved(&mut work);
    let next = start_with(kept, TEXT, &[1, 2, 3]);
    assert_eq!([1, 2, 3].map(|last| at(&next, last).admin()), [Admin::Drain; 3]);
    let forced = [1, 2, 3].map(|last| at(&next, last).health_override());
    assert_eq!(forced, [Some(HealthState::Down), None, None]);
    // Of a version that had one address for a name.
    let of_old = SavedBackend {
        pool: "web".into(),
        name: "a".into(),
        weight: 1,
        weight_set: None,
        admin: api::Admin::Drain,
        admin_set: None,
        health: api::OverrideTo::Down,
        registered: None,
    };
    let next = start_with(vec![of_old.clone()], TEXT, &[1, 2]);
    assert_eq!([1, 2].map(|last| at(&next, last).admin()), [Admin::Drain; 2]);
    assert_eq!([1, 2].map(|last| at(&next, last).health_override()), [None; 2]);
    // Nor is it lost while the name has no address.
    let mut next = start_with(vec![of_old], TEXT, &[]);
    assert_eq!(next.control.snapshot.pools[0].backends[0].admin(), Admin::Drain);
    let kept = saved(&mut next);
    let last = start_with(kept, TEXT, &[4]);
    assert_eq!(at(&last, 4).admin(), Admin::Drain);
}

#[test]
fn a_name_without_an_address_says_so_until_it_has_one() {
    let mut work = start(TEXT, &[]);
    let placeholder = Arc::clone(&work.control.snapshot.pools[0].backends[0]);
    assert_eq!((placeholder.name.as_str(), &placeholder.address), ("a", &UNRESOLVED));
    // Not even when an operator sets it up, and not when all are down.
    force_down(&mut work, "a");
    placeholder.override_health(Some(HealthState::Up));
    assert!(!placeholder.is_eligible() && !placeholder.admits());
    let why = |work: &ControlLoop| {
        let state = work.control.view.state();
        let source = state.sources.of("web", "host:web.test:80").unwrap();
        (source.is_unresolved_host(), source.why_no_address().to_owned())
    };
    assert_eq!(why(&work), (true, "cannot resolve host \"web.test\": nobody answers".to_owned()));
    set(&mut work, "a", None, Some(Admin::Drain));
    has(&mut work, "web.test", &[1]);
    assert_eq!((names(&work), at(&work, 1).admin()), (vec!["a@10.0.0.1".to_owned()], Admin::Drain));
    assert!(!why(&work).0);
    set(&mut work, "a", None, Some(Admin::Ready));
    has(&mut work, "web.test", &[]);
    let backend = Arc::clone(&work.control.snapshot.pools[0].backends[0]);
    assert!(!backend.is_resolved() && backend.admin() == Admin::Ready);
    assert_eq!(why(&work), (true, "there is no such name".to_owned()));
}

#[test]
fn any_number_of_names_may_have_no_address_and_the_first_at_an_address_has_it() {
    let more = "[[pool.backend]]\naddress = \"api.test:80\"\n[[pool.backend]]\nname = \"c\"\naddress = \"10.0.0.3:80\"\n";
    let mut work = start(&format!("{TEXT}{more}"), &[]);
    assert_eq!(names(&work), ["c", "a", "api.test:80"]);
    has(&mut work, "api.test", &[3]);
    let left_out = |work: &ControlLoop, label: &str| {
        work.control.view.state().sources.of("web", label).unwrap().left_out.clone()
    };
    assert_eq!(
        left_out(&work, "host:api.test:80"),
        ["api.test:80@10.0.0.3: the pool has \"c\" at 10.0.0.3:80 already"]
    );
    has(&mut work, "api.test", &[2]);
    has(&mut work, "web.test", &[2, 1]);
    assert_eq!(names(&work), ["c", "api.test:80@10.0.0.2", "a@10.0.0.1"]);
    // With the next answer of the same addresses it has what was left out.
    has(&mut work, "api.test", &[4]);
    has(&mut work, "web.test", &[2, 1]);
    assert_eq!(names(&work), ["c", "a@10.0.0.1", "api.test:80@10.0.0.4", "a@10.0.0.2"]);
}

/// Case 100.
#[test]
fn a_reload_without_a_name_server_takes_nothing_out_of_service() {
    let mut work = start(TEXT, &[1, 2]);
    has(&mut work, "web.test", &[2, 3]);
    let before = names(&work);
    for found in [&[][..], &[9]] {
        reload(&mut work, TEXT, found);
        assert_eq!(names(&work), before, "the source has asked later than that");
        reload(&mut work, &format!("{TEXT}weight = 5\n"), found);
        assert_eq!(names(&work), before);
    }
    // Another name is another backend.
    reload(&mut work, &TEXT.replace("web.test", "other.test"), &[]);
    assert_eq!(names(&work), ["a"]);
}

#[test]
fn a_reload_changes_the_weight_of_all_addresses_and_brings_new_names_with_their_addresses() {
    let mut work = start(TEXT, &[1, 2]);
    let (one, lease) = (at(&work, 1), at(&work, 1).lease(0));
    set(&mut work, "a@10.0.0.2", None, Some(Admin::Drain));
    reload(&mut work, &format!("{TEXT}weight = 5\n"), &[1, 2]);
    assert_eq!([1, 2].map(|last| at(&work, last).plain_weight()), [5, 5]);
    assert!(Arc::ptr_eq(&one, &at(&work, 1)) && at(&work, 2).admin() == Admin::Drain);
    // The address that the file lists comes first; a name that it lists no more is gone.
    let more = format!("{TEXT}[[pool.backend]]\nname = \"b\"\naddress = \"b.test:81\"\n");
    reload(&mut work, &more, &[7, 8]);
    assert_eq!(names(&work), ["a@10.0.0.1", "a@10.0.0.2", "b@10.0.0.7", "b@10.0.0.8"]);
    reload(&mut work, TEXT, &[1]);
    assert_eq!(names(&work), ["a@10.0.0.1", "a@10.0.0.2"]);
    lease.release();
}

/// A reload from an address to a name that has it, and back, cut the sessions with the end of the drain, and the pool was
/// without a checked backend meanwhile.
#[test]
fn a_server_that_is_listed_by_a_name_or_by_its_address_keeps_its_sessions_health_and_settings() {
    let by_address = TEXT.replace("web.test", "10.0.0.1");
    let mut work = start(&by_address, &[]);
    let first = at(&work, 1);
    assert_eq!(first.name, "a");
    let lease = first.lease(0);
    first.set_health(HealthState::Up);
    set(&mut work, "a", Some(7), Some(Admin::Drain));
    force_down(&mut work, "a");
    reload(&mut work, TEXT, &[1, 2]);
    assert_eq!(names(&work), ["a@10.0.0.1", "a@10.0.0.2"]);
    assert_eq!(
        [1, 2].map(|last| (at(&work, last).admin(), at(&work, last).plain_weight())),
        [(Admin::Drain, 7), (Admin::Ready, 1)],
        "it is another server"
    );
    let health =
        |work: &ControlLoop, last| (at(work, last).checked_health(), at(work, last).health_override());
    assert_eq!(health(&work, 1), (HealthState::Up, Some(HealthState::Down)));
    assert_eq!(health(&work, 2), (HealthState::Unknown, None), "it is another server");
    assert_eq!((work.removed.len(), work.removed[0].deadline), (1, None), "its session is not cut");
    at(&work, 1).set_health(HealthState::Down);
    set(&mut work, "a@10.0.0.1", None, Some(Admin::Maint));
    reload(&mut work, &by_address, &[]);
    assert_eq!(names(&work), ["a"]);
    let now = at(&work, 1);
    assert!(Arc::ptr_eq(&first, &now) && now.active() == 1, "it is back");
    assert_eq!((now.admin(), now.plain_weight(), now.checked_health()), (Admin::Maint, 7, HealthState::Down));
    assert!(
        work.removed.iter().all(|removed| removed.deadline.is_none() || removed.backend.name != "a@10.0.0.1")
    );
    reload(&mut work, TEXT, &[1]);
    let deadlines = |work: &ControlLoop| {
        let removed = work.removed.iter().filter(|removed| removed.backend.active() > 0);
        removed.map(|removed| (removed.backend.name.clone(), removed.deadline.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(deadlines(&work), [("a".to_owned(), false)]);
    has(&mut work, "web.test", &[2]);
    assert_eq!(deadlines(&work), [("a".to_owned(), true)], "the server has gone, under whatever name");
    has(&mut work, "web.test", &[1, 2]);
    assert_eq!(deadlines(&work), [("a".to_owned(), false)], "it is back before its sessions were cut");
    has(&mut work, "web.test", &[2]);
    assert_eq!(deadlines(&work), [("a".to_owned(), true)], "and has gone again");
    lease.release();
}

/// A drain of one address became that of all, and what was taken back meanwhile came back.
#[test]
fn what_is_set_of_one_address_stays_that_of_one_while_its_name_comes_and_goes() {
    let by_address = TEXT.replace("web.test", "10.0.0.1");
    let mut work = start(TEXT, &[1, 2]);
    let admins = |work: &ControlLoop| [1, 2].map(|last| at(work, last).admin());
    set(&mut work, "a@10.0.0.1", None, Some(Admin::Maint));
    reload(&mut work, &by_address, &[]);
    assert_eq!(at(&work, 1).admin(), Admin::Maint);
    reload(&mut work, TEXT, &[1, 2]);
    assert_eq!(admins(&work), [Admin::Maint, Admin::Ready], "nothing was set of the other one");
    reload(&mut work, &by_address, &[]);
    set(&mut work, "a", None, Some(Admin::Ready));
    reload(&mut work, TEXT, &[1, 2]);
    assert_eq!(admins(&work), [Admin::Ready; 2], "it was taken back");
    // So is what was set of all.
    set(&mut work, "a", None, Some(Admin::Drain));
    reload(&mut work, &by_address, &[]);
    set(&mut work, "a", None, Some(Admin::Ready));
    reload(&mut work, TEXT, &[1, 2]);
    assert_eq!(admins(&work), [Admin::Ready; 2]);
    // It counts where the name has the address only later, too.
    reload(&mut work, &by_address, &[]);
    set(&mut work, "a", None, Some(Admin::Drain));
    reload(&mut work, TEXT, &[2]);
    has(&mut work, "web.test", &[1, 2]);
    assert_eq!(admins(&work), [Admin::Drain, Admin::Ready]);
}

#[test]
fn a_name_can_neither_be_removed_nor_registered() {
    let mut work = start(TEXT, &[1]);
    for name in ["a", "a@10.0.0.1"] {
        let (reply, mut answered) = oneshot::channel();
        let request = Request::Deregister { backend: named(name), holder: None, reply };
        work.on_ask(Ask { who: "a test".into(), request });
        work.give_answers();
        let Err(Refusal::Conflict(why)) = answered.try_recv().unwrap() else { panic!("it is refused") };
        assert!(why.ends_with("is listed by host:web.test:80: drain it, or remove it there"), "{why}");
    }
    assert_eq!(names(&work), ["a@10.0.0.1"]);
}

#[test]
fn a_process_that_ends_follows_no_name() {
    let mut work = start(TEXT, &[]);
    work.stage = ControlStage::Stopping;
    has(&mut work, "web.test", &[1]);
    assert_eq!(names(&work), ["a"]);
}

/// Each of them made a table of its own.
#[test]
fn names_that_resolve_at_once_come_together() {
    let more = "[[pool.backend]]\nname = \"b\"\naddress = \"api.test:80\"\n";
    let mut work = start(&format!("{TEXT}{more}"), &[]);
    let epoch = work.control.snapshot.epoch;
    for (place, last) in [(0, 1), (1, 2)] {
        let list = Some(vec![dns::found(ip(last), 1, 0)]);
        let report = SourceReport { list, outcome: Outcome::Found, note: None };
        work.on_discovered(work.sources.all[place].id, report, Duration::from_secs(5));
    }
    work.apply_lists();
    assert_eq!(
        (names(&work), work.control.snapshot.epoch),
        (vec!["a@10.0.0.1".into(), "b@10.0.0.2".into()], epoch + 1)
    );
}

/// Each report of one of ten thousand names looked at all of them, and at the whole pool.
#[test]
fn thousands_of_names_without_an_address_are_followed_without_a_look_at_each_other() {
    const NAMES: usize = 5_000;
    let backends: String =
        (0..NAMES).map(|number| format!("[[pool.backend]]\naddress = \"host{number}.test:80\"\n")).collect();
    let (pool, _) = TEXT.split_once("[[pool.backend]]").unwrap();
    let mut work = start(&format!("{pool}{backends}"), &[]);
    let epoch = work.control.snapshot.epoch;
    let ids: Vec<_> = work.sources.all.iter().map(|known| known.id).collect();
    for id in ids {
        let note = Some("there is no such name".to_owned());
        let report = SourceReport { list: Some(Vec::<Found>::new()), outcome: Outcome::Nothing, note };
        work.on_discovered(id, report, Duration::from_secs(5));
        work.apply_lists();
    }
    work.refresh_sources();
    let state = work.control.view.state();
    assert_eq!(state.sources.iter().filter(|source| source.is_unresolved_host()).count(), NAMES);
    assert_eq!(work.control.snapshot.epoch, epoch, "no report has made a table");
}

fn ask(host: &mut AskHost) -> Answer {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(host.ask())
}

fn host(name: &str, call: Resolve) -> AskHost {
    let check = BackendCheck::default();
    let host = Host { backend: "a".into(), name: name.into(), port: 80, weight: 1, priority: 0, check };
    let mut asked = AskHost { resolve: call, ..AskHost::new(host) };
    // No name server answers there.
    asked.question.resolvers = vec!["127.0.0.1:1".parse().unwrap()];
    asked
}

fn listed(answer: Answer) -> Vec<String> {
    let Answer::Records(Records { listed, .. }) = answer else { panic!("{answer:?}") };
    let shown = |(_, Found { address: Address::Ip(ip), .. })| SocketAddr::to_string(&ip);
    listed.into_iter().map(shown).collect()
}

#[test]
fn what_no_name_server_knows_is_resolved_as_this_machine_does() {
    fn call(target: &str) -> io::Result<Vec<SocketAddr>> {
        assert_eq!(target, "web.test:80");
        Ok(["10.0.0.2:80", "[::1]:80", "10.0.0.1:80", "10.0.0.2:80"].map(|at| at.parse().unwrap()).into())
    }
    assert_eq!(listed(ask(&mut host("web.test", call))), ["10.0.0.1:80", "10.0.0.2:80"]);
}

#[test]
fn the_file_of_hosts_needs_no_name_server() {
    fn never(_: &str) -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::other("not asked"))
    }
    // A container may have none; getaddrinfo(3) knows it then.
    if in_file("localhost").is_some() {
        let all = listed(ask(&mut host("localhost", never)));
        assert!(!all.is_empty() && all.iter().all(|at| at.ends_with(":80")), "{all:?}");
    }
}

/// A filter of names answers so, and each session was dialed to this machine itself.
#[test]
fn the_unspecified_address_is_no_server() {
    fn filtered(_: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(vec!["0.0.0.0:80".parse().unwrap()])
    }
    let Answer::Failure(why) = ask(&mut host("web.test", filtered)) else { panic!("it is no answer") };
    assert_eq!(why, "cannot resolve host \"web.test\": 0.0.0.0 is no server, and left out");
    let both = [Ipv4Addr::UNSPECIFIED.into(), IpAddr::from([10, 0, 0, 1])];
    let Answer::Records(Records { listed, notes, .. }) = host("web.test", filtered).answer(&both) else {
        panic!("one is left")
    };
    assert_eq!((listed.len(), notes), (1, vec!["0.0.0.0 is no server, and left out".to_owned()]));
}

#[test]
fn a_host_that_nobody_answers_for_is_a_failure_that_names_it() {
    fn fails(_: &str) -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::other("no such host"))
    }
    let Answer::Failure(why) = ask(&mut host("web.test", fails)) else { panic!("there is no answer") };
    assert!(why.starts_with("cannot resolve host \"web.test\": "), "{why}");
}

/// Sixteen of them kept all other names from being called, until they returned.
#[test]
fn calls_that_hang_keep_no_other_name_from_being_called() {
    static RELEASED: OnceLock<()> = OnceLock::new();
    fn hangs(_: &str) -> io::Result<Vec<SocketAddr>> {
        RELEASED.wait();
        Ok(vec![ip(1)])
    }
    fn returns(_: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![ip(2)])
    }
    let mut stuck: Vec<AskHost> = (0..HOSTS_ASKED).map(|_| host("web.test", hangs)).collect();
    for asked in &mut stuck {
        asked.call = Call::new(THREAD, Duration::from_millis(1));
        assert!(matches!(ask(asked), Answer::Failure(_)));
    }
    assert_eq!(listed(ask(&mut host("web.test", returns))), ["10.0.0.2:80"]);
    RELEASED.set(()).unwrap();
}

/// A call that hangs holds its own thread, and is not made again before it has returned.
#[test]
fn a_call_that_hangs_is_left_alone_until_it_returns() {
    static RELEASED: Barrier = Barrier::new(2);
    static CALLS: AtomicU32 = AtomicU32::new(0);
    fn hangs(_: &str) -> io::Result<Vec<SocketAddr>> {
        CALLS.fetch_add(1, Ordering::Relaxed);
        RELEASED.wait();
        Ok(vec![ip(1)])
    }
    let mut asked = host("web.test", hangs);
    asked.call = Call::new(THREAD, Duration::from_millis(1));
    for _ in 0..3 {
        let Answer::Failure(why) = ask(&mut asked) else { panic!("there is no answer") };
        assert!(why.contains("getaddrinfo(3): no answer of this machine within"), "{why}");
    }
    RELEASED.wait();
    let answer = loop {
        match ask(&mut asked) {
            Answer::Failure(_) => {}
            answer @ (Answer::Records(_) | Answer::Nothing { .. }) => break answer,
        }
    };
    assert_eq!((listed(answer), CALLS.load(Ordering::Relaxed)), (vec!["10.0.0.1:80".to_owned()], 1));
}
