//! Another address or priority at run time, beside reloads, sources, registrations and restarts.

use std::net::SocketAddr;

use tokio::sync::oneshot;

use super::*;
use crate::base::time::Instant;
use crate::config::model::{BackendCheck, HealthState, OwnSocket};
use crate::config::{self, Config, Overrides};
use crate::control::discovery::state::Sources;
use crate::control::membership::listing::Listing;
use crate::control::membership::persist::{self, Authors, Restored};
use crate::control::membership::placement::saved_placements;
use crate::control::membership::state_file::Saved;
use crate::control::tests::{control, staged};
use crate::messages::discovery::Found;
use crate::messages::reload::{Mode, ReloadReport, ReloadRequest};
use crate::messages::request::{Ask, Changed, NewBackend, Request};
use crate::pool::{Admin, Setting, Snapshot};

/// `a` and `b` at ports 1 and 2, and what a source lists behind them.
const TEXT: &str = "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\non_remove = \"reset\"\n\
     [[pool.backend]]\nname = \"a\"\naddress = \"10.0.0.1:1\"\n[[pool.backend]]\nname = \"b\"\naddress = \"10.0.0.1:2\"\n\
     [[pool.discover]]\ntype = \"file\"\npath = \"/list.json\"\n";
const SOURCE: &str = "file:/list.json";

fn parse(text: &str) -> Config {
    config::parse(text, "test", &Overrides::default(), &mut |_: &str| Ok(Vec::new())).expect("a good config")
}

fn start(text: &str) -> ControlLoop {
    let config = parse(text);
    let mut work = ControlLoop::new(control(Snapshot::new(&config), &[]));
    work.control.config = Arc::new(config);
    work.sources = Sources::unasked();
    work
}

fn at(port: u16) -> Address {
    SocketAddr::from(([10, 0, 0, 1], port)).into()
}

fn to(port: u16) -> Placing {
    Placing { address: Some(Wish::To(at(port))), priority: None }
}

fn tier(priority: u8) -> Placing {
    Placing { address: None, priority: Some(Wish::To(priority)) }
}

const UNDONE: Placing = Placing { address: Some(Wish::Default), priority: Some(Wish::Default) };

fn place(work: &mut ControlLoop, names: &[&str], placing: Placing) -> Result<Vec<String>, String> {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    let setting = Setting::default();
    change(work, ChangeSet { names, setting, placing, is_forced: false, is_dry_run: false })
}

fn change(work: &mut ControlLoop, set: ChangeSet) -> Result<Vec<String>, String> {
    let (reply, mut answered) = oneshot::channel();
    work.on_ask(Ask { who: "a test".into(), request: Request::ChangeSet { set, reply } });
    work.act();
    let show = |one: &Changed| format!("{}: {}", one.backend.backend, one.changes.join(", "));
    let answer = answered.try_recv().expect("it answers");
    answer.map(|done| done.result.iter().map(show).collect()).map_err(|refusal| refusal.to_string())
}

fn reload(work: &mut ControlLoop, text: &str) -> Vec<String> {
    let (sender, reported) = std::sync::mpsc::channel::<ReloadReport>();
    let answer = Box::new(move |report: Result<ReloadReport, _>| {
        sender.send(report.expect("it is applied")).expect("the test waits");
    });
    let (who, mode) = ("a test".to_owned(), Mode::Apply);
    let request = ReloadRequest { who, source: None, mode, answer: Some(answer), listening: None };
    work.follow(request, &parse(text), Some(staged()));
    work.give_answers();
    let notes = reported.try_recv().expect("it answers").notes;
    notes.iter().map(|note| note.replace("pool \"web\": backend ", "")).collect()
}

fn lists(work: &mut ControlLoop, listed: &[(&str, u16)]) -> Vec<String> {
    let found =
        |&(name, port): &(&str, u16)| Found { name: name.into(), address: at(port), weight: 1, priority: 0 };
    let list = listed.iter().map(found).collect();
    let listing = Listing { source: SOURCE.into(), list, check: BackendCheck::default() };
    work.put_discovered("web", &[listing]).left_out.remove(0)
}

fn pool(work: &ControlLoop) -> Arc<Pool> {
    Arc::clone(&work.control.snapshot.pools[0])
}

fn backend(work: &ControlLoop, name: &str) -> Arc<Backend> {
    Arc::clone(pool(work).backend_named(name).expect("it is in the pool"))
}

/// Each backend with its port and its tier.
fn places(work: &ControlLoop) -> Vec<String> {
    let pool = pool(work);
    let show = |backend: &Arc<Backend>| {
        let Address::Ip(address) = backend.address;
        format!("{}@{}/{}", backend.name, address.port(), pool.priority_of(backend))
    };
    pool.backends.iter().map(show).collect()
}

/// What the state file keeps of it.
fn saved(work: &ControlLoop) -> Saved {
    let now = (Instant::default(), timestamp());
    let control = &work.control;
    let registrations = &control.kept.registrations;
    let backends =
        persist::collect(&control.snapshot, &control.config, registrations, &Authors::default(), now);
    Saved::of(backends, Vec::new(), saved_placements(&registrations.placements))
}

/// A process that starts where this one was; and what it could not restore.
fn restart(work: &ControlLoop, text: &str) -> (ControlLoop, Vec<String>) {
    let Saved { backends, placed, .. } = saved(work);
    let config = parse(text);
    let now = (Instant::default(), timestamp());
    let restored = persist::restore(backends, placed, &[], &config, now);
    let Restored { snapshot, registrations, left_out, .. } = restored;
    let mut next = ControlLoop::new(control(snapshot, &[]));
    next.control.kept.registrations = registrations;
    next.control.config = Arc::new(config);
    next.sources = Sources::unasked();
    (next, left_out)
}

fn register(work: &mut ControlLoop, port: u16, priority: u8) -> Result<bool, String> {
    let (reply, mut answered) = oneshot::channel();
    let backend = NewBackend {
        name: "r".into(),
        address: at(port),
        weight: 1,
        priority,
        ttl: None,
        holder: None,
        replace: false,
    };
    let request = Request::Register { pool: "web".into(), backend, reply };
    work.on_ask(Ask { who: "an agent".into(), request });
    work.give_answers();
    let answer = answered.try_recv().expect("it answers");
    answer.map(|done| done.result.is_new).map_err(|refusal| refusal.to_string())
}

#[test]
fn another_address_is_another_backend_with_the_counters_and_settings_of_its_name() {
    let mut work = start(TEXT);
    let old = backend(&work, "a");
    let lease = old.lease(0);
    old.set_health(HealthState::Up);
    old.override_health(Some(HealthState::Up));
    old.stats.of(0).on_given([3, 4]);
    old.set_weight(7);
    old.hold_weight(true);
    old.set_admin(Admin::Drain);
    assert_eq!(place(&mut work, &["web/a"], to(9)).unwrap(), ["a: address 10.0.0.1:1 -> 10.0.0.1:9"]);
    let new = backend(&work, "a");
    assert!(new.id != old.id && new.address == at(9));
    assert_eq!((new.health(), new.health_override()), (HealthState::Unknown, None), "found anew");
    assert_eq!((new.admin(), new.plain_weight(), new.holds_weight()), (Admin::Drain, 7, true));
    assert_eq!((new.stats.given(), new.sessions(), new.active()), ([3, 4], 1, 0));
    let [removed] = work.removed.as_slice() else { panic!("{:?}", work.removed) };
    assert_eq!((removed.backend.id, removed.deadline), (old.id, None), "whatever on_remove says");
    let placed = work.control.view.state().notes[&new.id].placed.clone().expect("it is shown");
    assert_eq!((placed.who.as_str(), placed.says.address), ("a test", at(1)));
    let undone = place(&mut work, &["web/a"], UNDONE).unwrap();
    assert_eq!(undone, ["a: address 10.0.0.1:9 -> 10.0.0.1:1"]);
    assert!(Arc::ptr_eq(&backend(&work, "a"), &old), "with its sessions");
    assert_eq!((old.admin(), old.plain_weight(), old.active()), (Admin::Drain, 7, 1));
    assert!(work.control.view.state().notes.values().all(|note| note.placed.is_none()));
    lease.release();
}

#[test]
fn priorities_are_set_of_many_and_move_no_session() {
    let mut work = start(TEXT);
    let old = backend(&work, "a");
    let set = |is_dry_run| ChangeSet {
        names: vec!["web/*".into()],
        setting: Setting { weight: Some(2), ..Setting::default() },
        placing: tier(3),
        is_forced: false,
        is_dry_run,
    };
    let words = ["a", "b"].map(|name| format!("{name}: weight 1 -> 2, priority 0 -> 3"));
    assert_eq!(change(&mut work, set(true)).unwrap(), words);
    assert_eq!(places(&work), ["a@1/0", "b@2/0"], "a dry run");
    assert_eq!(change(&mut work, set(false)).unwrap(), words);
    assert_eq!(change(&mut work, set(false)).unwrap(), ["a: ", "b: "], "it is so already");
    assert_eq!(places(&work), ["a@1/3", "b@2/3"]);
    assert!(Arc::ptr_eq(&old, &backend(&work, "a")) && work.removed.is_empty());
    // The tier of the file is none that was set.
    place(&mut work, &["web/a"], tier(0)).unwrap();
    assert!(work.control.view.state().notes.get(&old.id).is_none_or(|note| note.placed.is_none()));
    place(&mut work, &["web/*"], UNDONE).unwrap();
    assert_eq!(places(&work), ["a@1/0", "b@2/0"]);
    assert!(work.control.kept.registrations.placements.is_empty());
}

#[test]
fn an_address_that_cannot_be_had_changes_nothing() {
    let own = Placing { address: Some(Wish::To(([127, 0, 0, 1], 9090).into())), priority: Some(Wish::To(1)) };
    for (names, placing, expected) in [
        (&["web/a"][..], to(2), "pool \"web\": backend \"a\": 10.0.0.1:2 is backend \"b\" already"),
        (&["web/a"], own, "pool \"web\": backend \"a\": 127.0.0.1:9090 is our own admin API 127.0.0.1:9090"),
        (&["web/a", "web/b"], to(9), "address: names one backend by its name, got web/a, web/b"),
        (&["web/a*"], to(9), "address: names one backend by its name, got web/a*"),
        (&["web/x"], to(9), "pool \"web\" has no backend \"x\""),
    ] {
        let mut work = start(TEXT);
        work.control.admin_sockets = vec![OwnSocket::Admin("127.0.0.1:9090".parse().unwrap())];
        let epoch = work.control.snapshot.epoch;
        assert_eq!(place(&mut work, names, placing).unwrap_err(), expected);
        assert_eq!(
            (places(&work), work.control.snapshot.epoch),
            (vec!["a@1/0".into(), "b@2/0".into()], epoch)
        );
        assert!(work.control.kept.registrations.placements.is_empty());
    }
    // What was set of another one may be in the way of going back.
    let mut work = start(TEXT);
    place(&mut work, &["web/a"], to(9)).unwrap();
    place(&mut work, &["web/b"], to(1)).unwrap();
    let refused = place(&mut work, &["web/a"], UNDONE).unwrap_err();
    assert_eq!(refused, "pool \"web\": backend \"a\": 10.0.0.1:1 is backend \"b\" already");
    assert_eq!(place(&mut work, &["web/*"], UNDONE).map(|changed| changed.len()), Ok(2), "together they fit");
    assert_eq!(places(&work), ["a@1/0", "b@2/0"]);
}

#[test]
fn a_host_name_has_the_addresses_that_it_resolves_to_and_any_priority() {
    let text = TEXT
        .replace("10.0.0.1:2", "web.test:80")
        .replace("[[listener]]", "[global]\nresolve = \"keep_trying\"\n[[listener]]");
    let mut work = start(&text);
    let refused = place(&mut work, &["web/b"], to(9)).unwrap_err();
    assert_eq!(
        refused,
        "pool \"web\": backend \"b\" has a host name: its addresses are those that it resolves to"
    );
    assert_eq!(place(&mut work, &["web/b"], tier(2)).unwrap(), ["b: set as it is"], "for those to come");
    let host = |text: &str| {
        parse(text).pools[0]
            .discover
            .iter()
            .find_map(|source| Some(source.label()).filter(|_| source.as_host().is_some()))
    };
    let source: Arc<str> = host(&text).expect("one of them").into();
    let found = Found { name: "b@10.0.0.1:80".into(), address: at(80), weight: 1, priority: 0 };
    let listing = Listing { source, list: vec![found], check: BackendCheck::default() };
    work.put_discovered("web", std::slice::from_ref(&listing));
    assert_eq!(places(&work), ["a@1/0", "b@10.0.0.1:80@80/2"]);
    place(&mut work, &["web/b"], UNDONE).unwrap();
    assert_eq!(places(&work), ["a@1/0", "b@10.0.0.1:80@80/0"]);
}

#[test]
fn a_reload_leaves_what_was_set_and_reports_what_the_file_says() {
    let mut work = start(TEXT);
    place(&mut work, &["web/a"], to(9)).unwrap();
    place(&mut work, &["web/b"], tier(4)).unwrap();
    let (a, b) = (backend(&work, "a"), backend(&work, "b"));
    let stays = |what: &str, says: &str| {
        format!("{what} was set at run time and stays: run-time wins (the file says {says})")
    };
    let of_b = format!("\"b\": {}", stays("priority 4", "priority 0"));
    let notes = reload(&mut work, TEXT);
    assert_eq!(
        notes,
        [format!("\"a\": {}", stays("address 10.0.0.1:9", "address 10.0.0.1:1")), of_b.clone()]
    );
    let notes = reload(&mut work, &TEXT.replace("10.0.0.1:1", "10.0.0.1:5"));
    assert_eq!(notes, [format!("\"a\": {}", stays("address 10.0.0.1:9", "address 10.0.0.1:5")), of_b]);
    assert_eq!(places(&work), ["a@9/0", "b@2/4"]);
    assert!(Arc::ptr_eq(&a, &backend(&work, "a")) && Arc::ptr_eq(&b, &backend(&work, "b")));
    place(&mut work, &["web/a"], UNDONE).unwrap();
    assert_eq!(places(&work), ["a@5/0", "b@2/4"], "as the file has it now");
}

#[test]
fn where_the_file_lists_another_backend_the_file_wins() {
    let mut work = start(TEXT);
    place(&mut work, &["web/a"], to(9)).unwrap();
    let listed = format!("{TEXT}[[pool.backend]]\nname = \"c\"\naddress = \"10.0.0.1:9\"\n");
    let notes = reload(&mut work, &listed);
    assert_eq!(notes, ["\"a\": address 10.0.0.1:9 was set at run time, and \"c\" is there: file wins"]);
    assert_eq!(places(&work), ["a@1/0", "b@2/0", "c@9/0"]);
    assert!(reload(&mut work, &listed).is_empty(), "it is forgotten");
    // One that has to go back may be in the way of the next.
    let mut work = start(TEXT);
    place(&mut work, &["web/a"], to(9)).unwrap();
    place(&mut work, &["web/b"], to(1)).unwrap();
    assert_eq!(reload(&mut work, &listed).len(), 2);
    assert_eq!(places(&work), ["a@1/0", "b@2/0", "c@9/0"]);
    let own = TEXT.replace("127.0.0.1:9090", "10.0.0.1:9");
    let mut work = start(TEXT);
    place(&mut work, &["web/a"], to(9)).unwrap();
    let notes = reload(&mut work, &own);
    assert_eq!(
        notes,
        ["\"a\": address 10.0.0.1:9 was set at run time, and that is our own listener 10.0.0.1:9: file wins"]
    );
}

/// It was a new backend, ready and with the weight of the file: what an operator had taken out served again.
#[test]
fn a_backend_that_gives_way_keeps_what_operators_have_set_of_it() {
    let mut work = start(TEXT);
    lists(&mut work, &[("d", 4)]);
    place(&mut work, &["web/a"], Placing { priority: Some(Wish::To(2)), ..to(9) }).unwrap();
    place(&mut work, &["web/d"], to(8)).unwrap();
    for name in ["a", "d"] {
        let one = backend(&work, name);
        one.set_admin(Admin::Maint);
        one.set_weight(7);
        one.hold_weight(true);
        one.stats.of(0).on_given([3, 4]);
    }
    let lease = backend(&work, "a").lease(0);
    let listed = TEXT.replace(
        "[[pool.discover]]",
        "[[pool.backend]]\nname = \"c\"\naddress = \"10.0.0.1:9\"\n[[pool.backend]]\nname = \"e\"\n\
         address = \"10.0.0.1:8\"\n[[pool.discover]]",
    );
    let notes = reload(&mut work, &listed);
    for note in [
        "\"a\": address 10.0.0.1:9 was set at run time, and \"c\" is there: file wins",
        "\"a\": weight 7 was set at run time and stays: run-time wins (the file says 1)",
        "\"a\": is in maint and stays so: run-time wins",
        "\"d\": address 10.0.0.1:8 was set at run time, and \"e\" is there: file wins",
    ] {
        assert!(notes.iter().any(|known| known == note), "{note}: {notes:#?}");
    }
    assert_eq!(places(&work), ["a@1/2", "b@2/0", "c@9/0", "e@8/0", "d@4/0"]);
    for name in ["a", "d"] {
        let one = backend(&work, name);
        assert_eq!((one.admin(), one.plain_weight(), one.stats.given()), (Admin::Maint, 7, [3, 4]), "{name}");
    }
    let removed = work.removed.iter().find(|removed| removed.backend.name == "a").expect("it has a session");
    assert_eq!(removed.deadline, None, "whatever on_remove says");
    lease.release();
    assert!(lists(&mut work, &[("d", 4)]).is_empty());
    assert_eq!(places(&work), ["a@1/2", "b@2/0", "c@9/0", "e@8/0", "d@4/0"]);
    assert_eq!(reload(&mut work, &listed).len(), 3, "its tier, its weight and its state");
}

#[test]
fn what_was_set_of_a_backend_that_the_file_drops_is_forgotten() {
    let (without_source, _) = TEXT.split_once("[[pool.discover]]").expect("it has one");
    let mut work = start(without_source);
    place(&mut work, &["web/b"], to(9)).unwrap();
    let (without_b, _) = without_source.split_once("[[pool.backend]]\nname = \"b\"").expect("it has one");
    reload(&mut work, without_b);
    assert_eq!(places(&work), ["a@1/0"]);
    reload(&mut work, without_source);
    assert_eq!(places(&work), ["a@1/0", "b@2/0"]);
}

#[test]
fn a_source_lists_what_it_likes_and_the_setting_holds() {
    let mut work = start(TEXT);
    lists(&mut work, &[("d", 4), ("e", 5)]);
    place(&mut work, &["web/d"], to(9)).unwrap();
    let moved = backend(&work, "d");
    assert!(lists(&mut work, &[("d", 4), ("e", 5)]).is_empty());
    assert!(Arc::ptr_eq(&moved, &backend(&work, "d")), "the same answer again");
    lists(&mut work, &[("d", 6), ("e", 5)]);
    assert_eq!(places(&work), ["a@1/0", "b@2/0", "d@9/0", "e@5/0"]);
    lists(&mut work, &[("e", 5)]);
    lists(&mut work, &[("e", 5), ("d", 6)]);
    assert_eq!(places(&work), ["a@1/0", "b@2/0", "e@5/0", "d@9/0"], "over its absence");
    assert_eq!(
        lists(&mut work, &[("e", 5), ("d", 6), ("f", 9)]),
        ["f: the pool has \"d\" at 10.0.0.1:9 already"]
    );
    lists(&mut work, &[("f", 9), ("d", 6), ("e", 5)]);
    assert_eq!(places(&work), ["a@1/0", "b@2/0", "e@5/0", "d@9/0"], "in whatever order");
    assert!(reload(&mut work, TEXT).is_empty());
    place(&mut work, &["web/d"], UNDONE).unwrap();
    assert_eq!(places(&work), ["a@1/0", "b@2/0", "e@5/0", "d@6/0"], "as the source has it now");
    assert!(lists(&mut work, &[("e", 5), ("d", 6)]).is_empty());
    assert_eq!(places(&work).len(), 4);
}

#[test]
fn an_agent_renews_what_was_placed_and_does_not_move_it() {
    let mut work = start(TEXT);
    assert_eq!(register(&mut work, 4, 0), Ok(true));
    place(&mut work, &["web/r"], Placing { priority: Some(Wish::To(2)), ..to(9) }).unwrap();
    assert_eq!(register(&mut work, 4, 0), Ok(false));
    assert_eq!(register(&mut work, 4, 5), Ok(false));
    assert_eq!(places(&work), ["a@1/0", "b@2/0", "r@9/2"]);
    let refused = register(&mut work, 9, 5).unwrap_err();
    assert!(refused.ends_with("is there already, at 10.0.0.1:4: remove it first"), "{refused}");
    assert_eq!(reload(&mut work, TEXT), ["\"r\": was registered at run time and stays: run-time wins"]);
    assert_eq!(places(&work), ["a@1/0", "b@2/0", "r@9/2"]);
    let (mut next, left_out) = restart(&work, TEXT);
    assert_eq!((places(&next), left_out), (places(&work), Vec::new()));
    place(&mut next, &["web/r"], UNDONE).unwrap();
    assert_eq!(places(&next), ["a@1/0", "b@2/0", "r@4/5"]);
}

#[test]
fn a_restart_keeps_what_was_set_as_far_as_it_fits() {
    let mut work = start(TEXT);
    lists(&mut work, &[("d", 4)]);
    place(&mut work, &["web/a"], Placing { priority: Some(Wish::To(2)), ..to(9) }).unwrap();
    place(&mut work, &["web/b", "web/d"], tier(3)).unwrap();
    let (mut next, left_out) = restart(&work, TEXT);
    assert_eq!((places(&next), left_out), (vec!["a@9/2".into(), "b@2/3".into()], Vec::new()));
    lists(&mut next, &[("d", 4)]);
    assert_eq!(places(&next), ["a@9/2", "b@2/3", "d@4/3"]);
    assert_eq!(saved(&next), saved(&work), "and so does the next one");
    let (next, left_out) = restart(&work, &TEXT.replace("10.0.0.1:2", "10.0.0.1:9"));
    assert_eq!(places(&next), ["a@1/2", "b@9/3"]);
    assert_eq!(left_out, ["pool \"web\": backend \"a\": its address: another is there, or we are"]);
    let (without, _) = TEXT.split_once("[[pool.discover]]").expect("it has one");
    let (_, left_out) = restart(&work, without);
    assert_eq!(left_out, ["pool \"web\": backend \"d\": what was set of it: it is in no such pool"]);
}

/// It was locked out: its placed address was taken, and what was set of it could not be undone.
#[test]
fn what_was_set_of_a_registered_backend_goes_with_it_or_gives_way() {
    let (without_source, _) = TEXT.split_once("[[pool.discover]]").expect("it has one");
    let mut work = start(without_source);
    register(&mut work, 4, 0).unwrap();
    place(&mut work, &["web/r"], to(9)).unwrap();
    let listed = format!("{without_source}[[pool.backend]]\nname = \"c\"\naddress = \"10.0.0.1:9\"\n");
    let (next, left_out) = restart(&work, &listed);
    assert_eq!(
        (places(&next), left_out),
        (["a@1/0", "b@2/0", "c@9/0", "r@4/0"].map(str::to_owned).into(), Vec::new())
    );
    backend(&work, "r").set_admin(Admin::Drain);
    assert_eq!(
        reload(&mut work, &listed),
        [
            "\"r\": address 10.0.0.1:9 was set at run time, and \"c\" is there: file wins",
            "\"r\": was registered at run time and stays: run-time wins"
        ]
    );
    assert_eq!(places(&work), ["a@1/0", "b@2/0", "c@9/0", "r@4/0"]);
    assert_eq!(backend(&work, "r").admin(), Admin::Drain);
    assert!(work.control.kept.registrations.placements.is_empty());
    assert_eq!(register(&mut work, 4, 0), Ok(false), "its lease is the same");
    assert_eq!(places(&work), ["a@1/0", "b@2/0", "c@9/0", "r@4/0"]);
    // Of a pool with a source it is kept, and gives way.
    let mut work = start(TEXT);
    register(&mut work, 4, 0).unwrap();
    place(&mut work, &["web/r"], to(9)).unwrap();
    reload(&mut work, &TEXT.replace("10.0.0.1:2", "10.0.0.1:9"));
    register(&mut work, 4, 0).unwrap();
    assert_eq!(places(&work), ["a@1/0", "b@9/0", "r@4/0"]);
}

#[test]
fn what_the_origin_says_is_shown_as_it_is_now() {
    let mut work = start(TEXT);
    lists(&mut work, &[("d", 4)]);
    place(&mut work, &["web/d"], to(9)).unwrap();
    lists(&mut work, &[("d", 6)]);
    let id = backend(&work, "d").id;
    let says = work.control.view.state().notes[&id].placed.clone().expect("it is shown").says;
    assert_eq!(says.address, at(6));
}

/// It was refused until the source listed the backend again, when its setting was in force.
#[test]
fn what_was_set_of_a_backend_that_is_gone_can_be_undone_and_nothing_else_be_set() {
    let mut work = start(TEXT);
    lists(&mut work, &[("d", 4)]);
    place(&mut work, &["web/d"], Placing { priority: Some(Wish::To(2)), ..to(9) }).unwrap();
    let one = backend(&work, "d");
    one.set_admin(Admin::Drain);
    one.set_weight(7);
    one.hold_weight(true);
    lists(&mut work, &[]);
    assert_eq!(places(&work), ["a@1/0", "b@2/0"]);
    let refused = place(&mut work, &["web/d"], tier(3)).unwrap_err();
    assert_eq!(
        refused,
        "pool \"web\": backend \"d\" is in no list now: what was set of it can only be undone until it is back \
         (default, ready, auto, or the weight that its list said)"
    );
    assert_eq!(place(&mut work, &["web/x"], UNDONE).unwrap_err(), "pool \"web\" has no backend \"x\"");
    let set = |setting, is_dry_run| ChangeSet {
        names: vec!["web/a".into(), "web/d".into()],
        setting,
        placing: UNDONE,
        is_forced: false,
        is_dry_run,
    };
    let ready = Setting { admin: Some(Admin::Ready), weight: Some(1), health: Some(HealthState::Unknown) };
    let undone = "d: address 10.0.0.1:9 is not set any more, priority 2 is not set any more, weight 7 is not set any \
                  more, admin state drain is not set any more";
    assert_eq!(change(&mut work, set(ready, true)).unwrap(), ["a: ", undone], "a dry run");
    assert_eq!(change(&mut work, set(ready, false)).unwrap(), ["a: ", undone]);
    assert!(work.control.kept.registrations.placements.is_empty());
    let again = change(&mut work, set(ready, false)).unwrap_err();
    assert_eq!(again, "pool \"web\" has no backend \"d\"", "nothing is known of it");
    lists(&mut work, &[("d", 4)]);
    assert_eq!(places(&work), ["a@1/0", "b@2/0", "d@4/0"]);
    assert_eq!((backend(&work, "d").admin(), backend(&work, "d").plain_weight()), (Admin::Ready, 1));
}
