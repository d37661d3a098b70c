//! A source follows the configuration, and its pool follows the source.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::config::{self, Config, Overrides};
use crate::control::membership::merge::merge;
use crate::control::tests::control;
use crate::messages::request::{Ask, Named, NewBackend, Refusal, Request};
use crate::pool::{Admin, Snapshot};

const LISTENER: &str = "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\n";
const BACKEND: &str = "[[pool.backend]]\naddress = \"10.0.0.9:80\"\n";

/// A source whose name server does not answer.
fn source(name: &str) -> String {
    format!(
        "[[pool.discover]]\ntype = \"dns\"\nname = \"{name}\"\nport = 80\nresolver = [\"127.0.0.1:1\"]\n\
         interval = \"1h\"\n"
    )
}

fn parse(text: &str) -> Config {
    config::parse(text, "test", &Overrides::default(), &mut |_: &str| Ok(Vec::new())).unwrap()
}

fn work(text: &str) -> ControlLoop {
    let config = parse(text);
    let mut work = ControlLoop::new(control(Snapshot::new(&config), &[]));
    work.control.config = Arc::new(config);
    work.follow_sources();
    work
}

/// What a reload does with the pools and their sources.
fn reload(work: &mut ControlLoop, text: &str) {
    let next = parse(text);
    let control = &work.control;
    let registrations = &control.kept.registrations;
    let placed = registrations.placements.placed(&next);
    let merged = merge(&control.config, &placed, &control.snapshot, registrations).config;
    let runs = work.change_hands(&merged);
    let snapshot = work.control.snapshot.reconfigured(&runs);
    work.replace_snapshot(Arc::new(snapshot));
    let before = mem::replace(&mut work.control.config, Arc::new(next));
    work.align_registrations(&before);
    work.follow_sources();
}

fn found(last: u8) -> Found {
    let address: SocketAddr = ([10, 0, 0, last], 80).into();
    Found { name: address.to_string(), address: address.into(), weight: 1, priority: 0 }
}

/// The source of that name lists these.
fn lists(work: &mut ControlLoop, name: &str, addresses: &[u8]) {
    let label = format!("dns:{name}:80");
    let id = work.sources.all.iter().find(|known| known.settings.label() == label).unwrap().id;
    let list = Some(addresses.iter().copied().map(found).collect());
    let report = SourceReport { list, outcome: Outcome::Found, note: None };
    work.on_discovered(id, report, Duration::from_hours(1));
    work.apply_lists();
}

fn backends(work: &ControlLoop) -> Vec<String> {
    work.control.snapshot.pools[0].backends.iter().map(|backend| backend.name.clone()).collect()
}

fn drain(work: &mut ControlLoop, name: &str) {
    let (reply, _) = tokio::sync::oneshot::channel();
    let backend = Named { pool: "web".into(), backend: name.into() };
    let request = Request::Change { backend, weight: None, admin: Some(Admin::Drain), reply };
    work.on_ask(Ask { who: "a test".into(), request });
}

fn admin_of(work: &ControlLoop, name: &str) -> Admin {
    work.control.snapshot.pools[0].backend_named(name).unwrap().admin()
}

/// The pool was empty until the next answer.
#[test]
fn a_backend_removed_from_the_file_stays_if_a_source_lists_it() {
    let mut work = work(&format!("{LISTENER}{BACKEND}{}", source("web.test")));
    lists(&mut work, "web.test", &[9]);
    assert_eq!(work.control.view.state().sources[0].left_out.len(), 1);
    drain(&mut work, "10.0.0.9:80");
    let lease = work.control.snapshot.pools[0].backends[0].lease(0);
    reload(&mut work, &format!("{LISTENER}{}", source("web.test")));
    assert_eq!(backends(&work), ["10.0.0.9:80"]);
    let nine = &work.control.snapshot.pools[0].backends[0];
    assert_eq!((nine.active(), work.removed.len()), (1, 0), "it is the same one and never left");
    lease.release();
    let known = work.control.kept.registrations.discovery_of(nine.id).unwrap();
    assert_eq!(&*known.source, "dns:web.test:80");
    assert_eq!(work.control.view.state().sources[0].left_out.len(), 0);
    assert_eq!(admin_of(&work, "10.0.0.9:80"), Admin::Drain, "an operator is over both");
}

#[test]
fn a_backend_stays_while_any_source_lists_it() {
    let both = format!("{LISTENER}{}{}", source("web.test"), source("more.test"));
    for is_reload in [false, true] {
        let mut work = work(&both);
        lists(&mut work, "web.test", &[1]);
        lists(&mut work, "more.test", &[1, 2]);
        assert_eq!(backends(&work), ["10.0.0.1:80", "10.0.0.2:80"]);
        if is_reload {
            reload(&mut work, &format!("{LISTENER}{}", source("more.test")));
        } else {
            lists(&mut work, "web.test", &[]);
        }
        assert_eq!(backends(&work), ["10.0.0.2:80", "10.0.0.1:80"], "{is_reload}");
    }
}

#[test]
fn other_settings_of_a_source_forget_nothing_that_it_listed() {
    let text = format!("{LISTENER}{BACKEND}{}", source("web.test"));
    let mut work = work(&text);
    lists(&mut work, "web.test", &[9, 1]);
    reload(&mut work, &format!("{text}obsolete = 3\n"));
    assert_eq!(work.sources.all[0].last.len(), 2);
    reload(&mut work, &format!("{LISTENER}{}", source("web.test")));
    assert_eq!(backends(&work), ["10.0.0.1:80", "10.0.0.9:80"]);
}

fn register(work: &mut ControlLoop, name: &str, address: &str, ttl: Option<Duration>) {
    let (reply, _) = tokio::sync::oneshot::channel();
    let backend = NewBackend {
        name: name.into(),
        address: address.parse::<SocketAddr>().unwrap().into(),
        weight: 1,
        priority: 0,
        ttl,
        holder: None,
        replace: false,
    };
    work.on_ask(Ask {
        who: "a test".into(),
        request: Request::Register { pool: "web".into(), backend, reply },
    });
}

fn left_out(work: &ControlLoop) -> usize {
    work.control.view.state().sources[0].left_out.len()
}

/// The next answer may be an hour away.
#[test]
fn a_backend_whose_lease_has_ended_belongs_to_its_source_at_once() {
    for name in ["10.0.0.1:80", "one"] {
        let mut work = work(&format!("{LISTENER}{}", source("web.test")));
        register(&mut work, name, "10.0.0.1:80", Some(Duration::ZERO));
        lists(&mut work, "web.test", &[1, 2]);
        assert_eq!((backends(&work), left_out(&work)), (vec![name.to_owned(), "10.0.0.2:80".into()], 1));
        let lease = work.control.snapshot.pools[0].backends[0].lease(0);
        work.end_leases();
        assert_eq!(backends(&work), ["10.0.0.2:80", "10.0.0.1:80"], "{name}");
        assert_eq!(left_out(&work), 0, "{name}");
        let one = work.control.snapshot.pools[0].backend_named("10.0.0.1:80").unwrap();
        let known = work.control.kept.registrations.discovery_of(one.id).unwrap();
        assert_eq!(&*known.source, "dns:web.test:80");
        // By the same name it is the same backend, which never left its sessions.
        assert_eq!(one.active() == 1, name == "10.0.0.1:80", "{name}");
        assert_eq!(work.removed.is_empty(), name == "10.0.0.1:80", "{name}");
        lease.release();
        work.end_leases();
        assert_eq!(backends(&work).len(), 2, "a source has no lease that could end");
    }
}

/// A backend that an operator removes must not be back in the same moment.
#[test]
fn a_removed_registration_belongs_to_its_source_with_the_next_answer() {
    let mut work = work(&format!("{LISTENER}{}", source("web.test")));
    register(&mut work, "one", "10.0.0.1:80", None);
    lists(&mut work, "web.test", &[1, 2]);
    let (reply, _) = tokio::sync::oneshot::channel();
    let backend = Named { pool: "web".into(), backend: "one".into() };
    work.on_ask(Ask { who: "a test".into(), request: Request::Deregister { backend, holder: None, reply } });
    assert_eq!((backends(&work), left_out(&work)), (vec!["10.0.0.2:80".to_owned()], 1));
    lists(&mut work, "web.test", &[1, 2]);
    assert_eq!((backends(&work), left_out(&work)), (vec!["10.0.0.2:80".into(), "10.0.0.1:80".into()], 0));
}

/// A drained backend had new sessions once its source had another name.
#[test]
fn a_drain_outlasts_another_name_of_the_source() {
    let mut work = work(&format!("{LISTENER}{}", source("web.test")));
    lists(&mut work, "web.test", &[1, 2]);
    drain(&mut work, "10.0.0.1:80");
    reload(&mut work, &format!("{LISTENER}{}", source("other.test")));
    assert!(backends(&work).is_empty(), "nothing is known of it");
    lists(&mut work, "other.test", &[1, 2]);
    assert_eq!(admin_of(&work, "10.0.0.1:80"), Admin::Drain);
    assert_eq!(admin_of(&work, "10.0.0.2:80"), Admin::Ready);
    let events = work.control.view.events.recent(None, usize::MAX);
    let message = events.iter().filter(|event| event.message.ends_with(", in drain as set before"));
    assert_eq!(message.count(), 1);
}

/// It was back with the next answer.
#[test]
fn a_backend_of_the_file_that_a_source_lists_too_cannot_be_removed() {
    let mut work = work(&format!("{LISTENER}{BACKEND}{}", source("web.test")));
    lists(&mut work, "web.test", &[9]);
    let (reply, mut answered) = tokio::sync::oneshot::channel();
    let backend = Named { pool: "web".into(), backend: "10.0.0.9:80".into() };
    let request = Request::Deregister { backend, holder: None, reply };
    work.on_ask(Ask { who: "a test".into(), request });
    work.give_answers();
    let Err(Refusal::Conflict(why)) = answered.try_recv().unwrap() else { panic!("it is refused") };
    assert!(why.ends_with("is listed by dns:web.test:80: drain it, or remove it there"), "{why}");
    assert_eq!(backends(&work), ["10.0.0.9:80"]);
}

/// It was remembered for ever, and put on a backend that meanwhile had served under the file.
#[test]
fn settings_of_a_removed_backend_are_forgotten_once_the_file_lists_it() {
    let mut work = work(&format!("{LISTENER}{}", source("web.test")));
    lists(&mut work, "web.test", &[9]);
    drain(&mut work, "10.0.0.9:80");
    lists(&mut work, "web.test", &[]);
    reload(&mut work, &format!("{LISTENER}{BACKEND}{}", source("web.test")));
    assert_eq!(admin_of(&work, "10.0.0.9:80"), Admin::Ready);
    reload(&mut work, &format!("{LISTENER}{}", source("web.test")));
    lists(&mut work, "web.test", &[9]);
    assert_eq!(admin_of(&work, "10.0.0.9:80"), Admin::Ready);
}

/// It was tried, and logged, with each report.
#[test]
fn a_thread_that_cannot_start_is_tried_again_after_a_pause() {
    static TRIES: AtomicU32 = AtomicU32::new(0);
    let mut work = ControlLoop::new(control(Snapshot::default(), &[]));
    work.control.config = Arc::new(parse(&format!("{LISTENER}{}{}", source("a.test"), source("b.test"))));
    work.sources.start = || {
        TRIES.fetch_add(1, Ordering::Relaxed);
        Err(io::ErrorKind::OutOfMemory.into())
    };
    work.follow_sources();
    assert!(work.sources.is_stuck && work.sources.all.is_empty());
    let (before, tried) = (work.clock.now(), TRIES.load(Ordering::Relaxed));
    work.refresh_sources();
    assert!(work.sources.next_look > before && work.sources.is_stuck, "and it is no news");
    assert_eq!(TRIES.load(Ordering::Relaxed), 2 * tried, "once for each source");
    work.sources.next_look = work.clock.now() + RETRY_INTERVAL * 1000;
    work.refresh_sources();
    assert_eq!(TRIES.load(Ordering::Relaxed), 2 * tried, "not before");
}

/// In each of a thousand containers the process had the same number, and all asked at once.
#[test]
fn no_two_runs_share_their_jitter() {
    assert_ne!(seed_of(SourceId(0)), seed_of(SourceId(0)));
}
