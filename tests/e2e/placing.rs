//! Another address of a backend at run time: open sessions stay where they are, new ones go there, and no byte is lost.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use axum::http::Method;
use l4lb::api;
use l4lb::ctl::ClientError;

use crate::harness::backends::{Node, Service, Visit, backends};
use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::{SetOnDrop, patient_client, until};

/// How much each client of a busy service sends, and gets back.
const STREAM: usize = 1 << 20;
/// How often the address changes meanwhile.
const CHANGES: usize = 12;

fn try_set(daemon: &Daemon, change: &api::BackendsChange) -> Result<Vec<api::BackendChanged>, ClientError> {
    let answer: Result<api::BackendsChanged, _> =
        daemon.admin().ask(Method::PATCH, "/v1/backends", Some(change));
    answer.map(|changed| changed.backends)
}

/// What is set of the only backend of the service.
#[track_caller]
fn set(daemon: &Daemon, change: api::BackendsChange) -> api::Backend {
    let change = api::BackendsChange { backends: vec!["n0".into()], ..change };
    try_set(daemon, &change).expect("it can be had").remove(0).backend
}

fn to(node: &Node) -> api::BackendsChange {
    api::BackendsChange { address: Some(node.address.to_string()), ..api::BackendsChange::default() }
}

fn undone() -> api::BackendsChange {
    api::BackendsChange { reset: vec![api::PlacingKey::Address], ..api::BackendsChange::default() }
}

fn serving(id: usize) -> Node {
    let node = Node::new(id);
    node.serve();
    node
}

/// A whole session that moves a stream through the echo of whichever node it gets; returns the bytes that came back as
/// they were sent.
fn streams(service: &Service<'_, Daemon>) -> usize {
    service.count_client();
    let mut client = patient_client(service.address());
    client.read_exact(&mut [0]).expect("a greeting");
    let sent: Vec<u8> = (0..STREAM).map(|at| u8::try_from(at * 7 % 251).expect("below 251")).collect();
    let mut back = Vec::with_capacity(STREAM);
    thread::scope(|scope| {
        let writer = client.try_clone().expect("a socket");
        let sent = &sent;
        scope.spawn(move || {
            (&writer).write_all(sent).expect("it is not reset");
            writer.shutdown(Shutdown::Write).expect("shutdown");
        });
        client.read_to_end(&mut back).expect("it is not reset");
    });
    assert!(back == sent, "{} of {STREAM} bytes came back", back.len());
    back.len()
}

#[test]
fn open_sessions_stay_and_new_ones_go_to_the_other_address() {
    for workers in [1, 2] {
        let backends = backends(1).workers(workers).pool("on_remove = \"reset\"");
        let elsewhere = serving(1);
        let service = backends.start_daemon("info,l4lb::session=off");
        let open: Vec<Visit> = (0..8).map(|_| service.enter().talks()).collect();
        let placed = set(&service.server, to(&elsewhere));
        assert_eq!((placed.address, placed.sessions), (elsewhere.address.to_string(), 0));
        let by = placed.placed.expect("it is shown");
        assert_eq!(by.address_before, Some(backends.nodes[0].address.to_string()));
        assert!(by.by.starts_with("uid "), "{by:?}");
        until("its workers know it", || service.visit() == 1);
        for visit in open {
            assert_eq!(visit.talks().leave(), 0);
        }
        let found: api::Backend =
            service.server.admin().get("/v1/pools/default/backends/n0").expect("a backend");
        assert!(found.sessions_total > 8, "with those of the former address: {found:?}");
        let back = set(&service.server, undone());
        assert_eq!((back.address, back.placed), (backends.nodes[0].address.to_string(), None));
        until("its workers know it", || service.visit() == 0);
        service.stops();
        assert_eq!((backends.nodes[0].book().by_reset(), elsewhere.book().by_reset()), (0, 0));
    }
}

/// Clients stream all the time while `flip` has the pool of one backend move to another node, and back.
fn clients_lose_no_byte(workers: usize, flip: impl Fn(&Service<'_, Daemon>, &Node)) {
    let backends = backends(1).workers(workers);
    let elsewhere = serving(1);
    let service = backends.start_daemon("info,l4lb::session=off");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = SetOnDrop(&is_over);
        let client = || {
            let mut sessions = 0;
            while !is_over.load(Ordering::Relaxed) || sessions == 0 {
                assert_eq!(streams(&service), STREAM);
                sessions += 1;
            }
        };
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(client)).collect();
        for turn in 0..CHANGES {
            let (node, expected) = if turn % 2 == 0 { (&elsewhere, 1) } else { (&backends.nodes[0], 0) };
            flip(&service, node);
            until("its workers know it", || service.visit() == expected);
        }
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("no client fails");
        }
    });
    let totals = service.stops();
    assert!(totals.contains(" dial_failures=0"), "{totals}");
    assert_eq!((backends.nodes[0].book().by_reset(), elsewhere.book().by_reset()), (0, 0));
}

/// Those that came before a worker knew the other address were reset.
#[test]
fn clients_that_come_while_the_address_changes_lose_no_byte() {
    for workers in [1, 2] {
        clients_lose_no_byte(workers, |service, node| {
            let is_back = node.address == service.node(0).address;
            set(&service.server, if is_back { undone() } else { to(node) });
        });
    }
}

/// The same where a reload replaces all backends of a pool.
#[test]
fn clients_that_come_while_a_reload_replaces_the_only_backend_lose_no_byte() {
    clients_lose_no_byte(2, |service, node| {
        let text = service.daemon_toml();
        service.server.reload(&text.replace(&service.node(0).address.to_string(), &node.address.to_string()));
    });
}

#[test]
fn the_health_of_another_address_is_found_anew() {
    let backends = backends(1).health("interval = \"100ms\", rise = 1, fall = 1");
    let elsewhere = Node::new(1);
    let service = backends.start_daemon("info,l4lb::session=off");
    let look = || -> api::Backend {
        service.server.admin().get("/v1/pools/default/backends/n0").expect("a backend")
    };
    until("a check has passed", || look().health == api::Health::Up);
    set(&service.server, to(&elsewhere));
    until("nothing listens there", || look().health == api::Health::Down);
    elsewhere.serve();
    until("it listens", || look().health == api::Health::Up);
    until("its workers know it", || service.knock().is_ok_and(|node| node == 1));
    let passed = look().checks[0].passed;
    assert_eq!(passed, Some(true));
}

#[test]
fn what_was_set_survives_a_reload_and_a_restart_until_it_is_undone() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = |address: &str| {
        format!(
            "[admin]\nstate_file = \"{}\"\n[[pool]]\nname = \"web\"\nhealth = {{ type = \"off\" }}\n\
             backend = [{{ name = \"a\", address = \"{address}\" }}, {{ name = \"b\", address = \"127.0.0.1:2\" }}]\n",
            folder.path().join("state.json").display()
        )
    };
    let names = |names: &[&str]| -> Vec<String> { names.iter().map(|&name| name.to_owned()).collect() };
    let places = |daemon: &Daemon| -> Vec<String> {
        let backends: Vec<api::Backend> = daemon.admin().get("/v1/backends").expect("backends");
        backends.iter().map(|backend| format!("{} {}", backend.address, backend.priority)).collect()
    };
    let daemon = Daemon::start(&config("127.0.0.1:1"), IPV4);
    let taken = api::BackendsChange {
        backends: names(&["a"]),
        address: Some("127.0.0.1:2".into()),
        priority: Some(1),
        ..api::BackendsChange::default()
    };
    match try_set(&daemon, &taken) {
        Err(ClientError::Refused { status, error }) => {
            assert_eq!(status.as_u16(), 409);
            assert_eq!(error, "pool \"web\": backend \"a\": 127.0.0.1:2 is backend \"b\" already");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(places(&daemon), ["127.0.0.1:1 0", "127.0.0.1:2 0"], "all or nothing");
    try_set(&daemon, &api::BackendsChange { address: Some("127.0.0.1:9".into()), ..taken.clone() })
        .expect("set");
    let expected = ["127.0.0.1:9 1", "127.0.0.1:2 0"];
    assert_eq!(places(&daemon), expected);
    daemon.reload(&config("127.0.0.1:3"));
    daemon
        .wait_for_line(&["address 127.0.0.1:9 and priority 1 was set at run time and stays: run-time wins"]);
    assert_eq!(places(&daemon), expected);
    daemon.stop();
    let daemon = Daemon::start(&config("127.0.0.1:3"), IPV4);
    assert_eq!(places(&daemon), expected);
    let a: api::Backend = daemon.admin().get("/v1/pools/web/backends/a").expect("a backend");
    let placed = a.placed.expect("it is shown");
    assert_eq!((placed.address_before.as_deref(), placed.priority_before), (Some("127.0.0.1:3"), Some(0)));
    assert!(placed.by.starts_with("uid "), "{placed:?}");
    let undo = api::BackendsChange {
        backends: names(&["*"]),
        reset: vec![api::PlacingKey::Address, api::PlacingKey::Priority],
        ..api::BackendsChange::default()
    };
    try_set(&daemon, &undo).expect("undone");
    assert_eq!(places(&daemon), ["127.0.0.1:3 0", "127.0.0.1:2 0"]);
    daemon.stop();
    let daemon = Daemon::start(&config("127.0.0.1:3"), IPV4);
    assert_eq!(places(&daemon), ["127.0.0.1:3 0", "127.0.0.1:2 0"]);
}
