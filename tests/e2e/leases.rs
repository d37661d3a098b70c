//! Backends that register themselves: what becomes of them when they fall silent, and over a restart.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use axum::http::{Method, StatusCode};
use l4lb::api;
use l4lb::ctl::ClientError;
use l4lb::sys::timestamp;
use tempfile::TempDir;

use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::{patient_backend, patient_client, retry, until};
use crate::harness::program::output;

/// Ends soon, but not before the next request, also where that takes its time.
const SHORT: &str = "3s";
const BACKENDS: &str = "/v1/pools/web/backends";

fn config(state_file: Option<&Path>) -> String {
    let admin = state_file.map(|path| format!("[admin]\nstate_file = \"{}\"\n", path.display()));
    format!(
        "[[pool]]\nname = \"web\"\nhealth = {{ type = \"off\" }}\n\
         backend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}, {{ name = \"b\", address = \"127.0.0.1:2\" }}]\n{}",
        admin.unwrap_or_default()
    )
}

fn new(name: &str, address: &str, ttl: Option<&str>) -> api::NewBackend {
    api::NewBackend {
        address: address.into(),
        name: Some(name.into()),
        ttl: ttl.map(Into::into),
        ..api::NewBackend::default()
    }
}

#[track_caller]
fn register(daemon: &Daemon, backend: &api::NewBackend) -> api::Backend {
    daemon.admin().ask(Method::POST, BACKENDS, Some(backend)).expect("register")
}

#[track_caller]
fn change(daemon: &Daemon, name: &str, weight: Option<u16>, admin: Option<api::Admin>) -> api::Backend {
    let change = api::BackendChange { weight, admin };
    daemon.admin().ask(Method::PATCH, &format!("{BACKENDS}/{name}"), Some(&change)).expect("change")
}

#[track_caller]
fn find(daemon: &Daemon, name: &str) -> Option<api::Backend> {
    match daemon.admin().get(&format!("{BACKENDS}/{name}")) {
        Ok(backend) => Some(backend),
        Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => None,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// A backend to be registered and its address. The others get no new sessions any more.
fn only_backend(daemon: &Daemon) -> (TcpListener, String) {
    for other in ["a", "b"] {
        change(daemon, other, Some(0), None);
    }
    let backend = patient_backend(IPV4);
    let address = backend.local_addr().expect("its address").to_string();
    (backend, address)
}

#[test]
fn a_backend_whose_lease_ends_is_removed_and_keeps_its_sessions() {
    let daemon = Daemon::start(&config(None), IPV4);
    let (backend, address) = only_backend(&daemon);
    // Without a lease at first: the session is to be there before that ends.
    register(&daemon, &new("c", &address, None));
    let mut client = patient_client(daemon.address);
    let (mut server, _) = retry(|| backend.accept()).expect("it reaches the backend");
    let leased = api::NewBackend { replace: true, ..new("c", &address, Some(SHORT)) };
    let made = register(&daemon, &leased);
    assert!(made.lease_left.is_some_and(|left| left <= 3.0), "{made:?}");
    until("its lease has ended", || find(&daemon, "c").is_none());
    let line = daemon.wait_for_line(&["its lease has ended"]);
    assert!(
        line.contains("backend=c") && line.contains("who=\"uid ") && line.contains("1 sessions left"),
        "{line}"
    );
    let mut found = Vec::new();
    until("the end of the lease is an event", || {
        found = daemon.admin().get::<Vec<api::Event>>("/v1/events").expect("events");
        found.retain(|event| event.message.contains("its lease has ended"));
        !found.is_empty()
    });
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].backend.as_deref() == Some("c") && found[0].who.is_some(), "{found:?}");
    server.write_all(b"still").expect("send");
    let mut got = [0; 5];
    client.read_exact(&mut got).expect("the session continues");
    assert_eq!(&got, b"still");
}

/// A registration without a ttl made the lease of somebody else last for ever, and `register` took over what was to
/// stay.
#[test]
fn a_lease_is_added_or_removed_only_by_its_own_key() {
    let daemon = Daemon::start(&config(None), IPV4);
    let [c, d] = [("c", "127.0.0.1:3", "1h"), ("d", "127.0.0.1:4", SHORT)];
    register(&daemon, &new(c.0, c.1, Some(c.2)));
    register(&daemon, &new(d.0, d.1, None));
    register(&daemon, &new("e", "127.0.0.1:5", Some(SHORT)));
    let (status, error) = refusal(&daemon, &new(c.0, c.1, None));
    assert!(status == StatusCode::CONFLICT && error.contains("has a lease, renewed last by uid "), "{error}");
    let (status, error) = refusal(&daemon, &new(d.0, d.1, Some(d.2)));
    assert!(status == StatusCode::CONFLICT && error.contains("to stay until it is removed"), "{error}");
    assert!(find(&daemon, "c").is_some_and(|c| c.lease_left.is_some()), "nothing has changed");
    let replace = |of: (&str, &str), ttl| api::NewBackend { replace: true, ..new(of.0, of.1, ttl) };
    assert_eq!(register(&daemon, &replace((c.0, c.1), None)).lease_left, None);
    assert!(register(&daemon, &replace((d.0, d.1), Some(d.2))).lease_left.is_some());
    until("the leases have ended", || find(&daemon, "d").is_none() && find(&daemon, "e").is_none());
    assert_eq!(find(&daemon, "c").map(|backend| backend.lease_left), Some(None), "for ever");
}

#[track_caller]
fn refusal(daemon: &Daemon, backend: &api::NewBackend) -> (StatusCode, String) {
    let answer: Result<api::Registered, _> = daemon.admin().ask(Method::POST, BACKENDS, Some(backend));
    refused(answer)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (StatusCode, String) {
    match answer {
        Err(ClientError::Refused { status, error }) => (status, error),
        other => panic!("{other:?}"),
    }
}

/// Registers, and returns the holder of the lease.
#[track_caller]
fn hold(daemon: &Daemon, backend: &api::NewBackend) -> String {
    let made: api::Registered = daemon.admin().ask(Method::POST, BACKENDS, Some(backend)).expect("register");
    made.holder.expect("a lease has a holder")
}

fn leave(daemon: &Daemon, name: &str, holder: &str) -> Result<api::Removed, ClientError> {
    daemon.admin().ask(Method::DELETE, &format!("{BACKENDS}/{name}?holder={holder}"), None::<&()>)
}

/// The old process of a rolling restart took the backend out of the pool that the new one had just registered.
#[test]
fn a_backend_stays_until_its_last_holder_has_left() {
    let daemon = Daemon::start(&config(None), IPV4);
    let c = new("c", "127.0.0.1:3", Some("1h"));
    let (old, next) = (hold(&daemon, &c), hold(&daemon, &c));
    assert_ne!(old, next);
    let renewal = |holder: &str| api::NewBackend { holder: Some(holder.into()), ..c.clone() };
    assert_eq!(hold(&daemon, &renewal(&old)), old);
    assert!(!leave(&daemon, "c", &old).expect("it has a lease").removed);
    assert!(find(&daemon, "c").is_some());
    let (status, error) = refusal(&daemon, &renewal(&old));
    assert!(status == StatusCode::CONFLICT && error.contains("its lease has ended"), "{error}");
    assert_eq!(refused(leave(&daemon, "c", &old)).0, StatusCode::CONFLICT);
    assert_eq!(refusal(&daemon, &renewal("nobody")).0, StatusCode::CONFLICT);
    assert!(leave(&daemon, "c", &next).expect("it has a lease").removed);
    assert!(find(&daemon, "c").is_none());
    let (status, error) = refusal(&daemon, &renewal(&next));
    assert!(status == StatusCode::NOT_FOUND && error.contains("is not registered any more"), "{error}");
    assert_eq!(refused(leave(&daemon, "c", &next)).0, StatusCode::NOT_FOUND);
}

#[test]
fn a_holder_whose_lease_ends_affects_no_other_holder() {
    let daemon = Daemon::start(&config(None), IPV4);
    let named = |holder: &str, ttl| api::NewBackend {
        new_holder: Some(holder.into()),
        ..new("c", "127.0.0.1:3", Some(ttl))
    };
    hold(&daemon, &named("silent", SHORT));
    assert_eq!(hold(&daemon, &named("mine", "1h")), "mine");
    assert_eq!(hold(&daemon, &named("mine", "1h")), "mine", "an answer that was lost makes no second holder");
    let silent = api::NewBackend { holder: Some("silent".into()), ..new("c", "127.0.0.1:3", None) };
    // Only a holder without a lease is refused in these words; the other has a lease beside one that is not its own.
    until("the silent lease has ended", || {
        let (status, error) = refusal(&daemon, &silent);
        status == StatusCode::CONFLICT && error.contains("is not held by \"silent\"")
    });
    assert!(leave(&daemon, "c", "mine").expect("it has a lease").removed);
}

#[test]
fn each_holder_changes_only_its_own_settings() {
    let daemon = Daemon::start(&config(None), IPV4);
    let named = |holder: &str, weight| api::NewBackend {
        new_holder: Some(holder.into()),
        weight: Some(weight),
        ..new("c", "127.0.0.1:3", Some("1h"))
    };
    for (holder, weight, expected) in
        [("old", 1, 1), ("next", 3, 3), ("old", 1, 3), ("next", 3, 3), ("old", 2, 2)]
    {
        assert_eq!(register(&daemon, &named(holder, weight)).weight, expected, "{holder} {weight}");
    }
}

/// The lease ended before the renewal was read that waited already, and its sessions were reset.
#[test]
fn no_lease_ends_for_want_of_a_process_that_reads_its_renewal() {
    let daemon = Daemon::start(&config(None), IPV4);
    let (backend, address) = only_backend(&daemon);
    let mut client_and_server = None;
    let leased = new("c", &address, Some("10s"));
    let made: api::Registered = daemon.admin().ask(Method::POST, BACKENDS, Some(&leased)).expect("register");
    let holder = made.holder.clone().expect("a lease has a holder");
    let renewal = api::NewBackend { holder: Some(holder.clone()), ..leased };
    let client = patient_client(daemon.address);
    if let Ok((server, _)) = retry(|| backend.accept()) {
        client_and_server = Some((client, server));
    }
    assert_eq!(hold(&daemon, &renewal), holder);
    let end = timestamp() + std::time::Duration::from_secs(10);
    daemon.freeze();
    until("its lease would have ended", || timestamp() > end);
    daemon.signal("CONT", 1);
    assert_eq!(hold(&daemon, &renewal), holder, "its lease goes on");
    let (mut client, mut server) = client_and_server.expect("it has reached the backend");
    server.write_all(b"still").expect("send");
    let mut got = [0; 5];
    client.read_exact(&mut got).expect("the session continues");
    assert_eq!(find(&daemon, "c").map(|c| (c.sessions, c.sessions_total)), Some((1, 1)), "the same backend");
    drop((client, server));
    let lines = daemon.lines_until_it_ends();
    assert!(lines.iter().all(|line| !line.contains("its lease has ended")), "{lines:#?}");
}

/// It was another backend under the same name, and the sessions of the first were reset at the end of its drain.
/// Case 84.
#[test]
fn a_backend_that_returns_during_its_drain_has_its_sessions() {
    let daemon = Daemon::start(&config(None), IPV4);
    let (backend, address) = only_backend(&daemon);
    register(&daemon, &new("c", &address, None));
    let mut client = patient_client(daemon.address);
    let (mut server, _) = retry(|| backend.accept()).expect("it reaches the backend");
    let drains = || daemon.admin().get::<api::Drains>("/v1/drains").expect("drains").backends.len();
    for ttl in [None, Some("1h"), None] {
        let gone: api::Removed =
            daemon.admin().ask(Method::DELETE, &format!("{BACKENDS}/c"), None::<&()>).expect("remove");
        assert_eq!((gone.sessions, find(&daemon, "c")), (1, None));
        let back = register(&daemon, &new("c", &address, ttl));
        assert_eq!((back.sessions, back.sessions_total, back.eligible), (1, 1, true), "{ttl:?}");
        assert_eq!(drains(), 0, "nothing is to be cut");
        server.write_all(b"still").expect("send");
        let mut got = [0; 5];
        client.read_exact(&mut got).expect("the session continues");
    }
    let other = patient_backend(IPV4);
    daemon.admin().answer(Method::DELETE, &format!("{BACKENDS}/c"), None::<&()>).expect("remove");
    let elsewhere = register(&daemon, &new("c", &other.local_addr().expect("its address").to_string(), None));
    assert_eq!((elsewhere.sessions_total, drains()), (0, 1), "another server is another backend");
}

#[test]
fn a_renewal_changes_only_settings_that_differ_from_the_request_before() {
    let daemon = Daemon::start(&config(None), IPV4);
    let first = new("c", "127.0.0.1:3", Some("1h"));
    register(&daemon, &first);
    let heavier = api::NewBackend { weight: Some(5), backup: Some(true), ..first.clone() };
    let changed = register(&daemon, &heavier);
    assert_eq!((changed.weight, changed.priority), (5, 15));
    let line = daemon.wait_for_line(&["registered again"]);
    assert!(line.contains("weight 1 -> 5, priority 0 -> 15"), "{line}");
    change(&daemon, "c", Some(0), Some(api::Admin::Drain));
    let renewed = register(&daemon, &heavier);
    assert_eq!((renewed.weight, renewed.admin), (0, api::Admin::Drain), "the operator's word stays");
    assert_eq!(register(&daemon, &first).weight, 1, "until the backend says something else");
}

/// Each mutating request, and a part of the only line that it writes.
#[test]
fn every_change_is_one_line_with_its_author_and_its_keys() {
    let daemon = Daemon::start_logging(&config(None), IPV4, "info,l4lb::session=off");
    let ask = |method: Method, route: &str, body: serde_json::Value| {
        daemon.admin().answer(method, route, Some(&body)).expect(route);
    };
    let json = |text: &str| serde_json::from_str(text).expect("JSON");
    let c = &format!("{BACKENDS}/c");
    let health = &format!("{c}/health");
    let script = [
        (
            Method::POST,
            BACKENDS,
            r#"{"name":"c","address":":3","ttl":"1h"}"#,
            Some("registered at 127.0.0.1:3"),
        ),
        (Method::POST, BACKENDS, r#"{"name":"c","address":":3","ttl":"1h"}"#, None),
        (
            Method::POST,
            BACKENDS,
            r#"{"name":"c","address":":3","weight":2,"replace":true}"#,
            Some("has no lease now, weight 1 -> 2"),
        ),
        (
            Method::PATCH,
            c,
            r#"{"weight":3,"admin":"maint"}"#,
            Some("weight 2 -> 3, admin state ready -> maint"),
        ),
        (Method::PATCH, c, r#"{"weight":3,"admin":"maint"}"#, None),
        (Method::PATCH, c, "{}", None),
        (Method::POST, health, r#"{"health":"up"}"#, Some("health is up whatever its checks say")),
        (Method::POST, health, r#"{"health":"up"}"#, None),
        (Method::POST, health, r#"{"health":"auto"}"#, Some("health is what its checks say")),
        // What was changed behind this was not logged at all.
        (Method::PUT, "/v1/log-level", r#"{"level":"off"}"#, Some("log level")),
        (Method::DELETE, c, "{}", Some("removed with 0 sessions left")),
    ];
    let expected: Vec<&str> = script.iter().filter_map(|(.., line)| *line).collect();
    for (method, route, body, _) in script {
        ask(method, route, json(body));
    }
    let lines = daemon.lines_until_it_ends();
    let found: Vec<&String> = lines.iter().filter(|line| line.contains(" who=")).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, expected) in found.iter().zip(expected) {
        assert!(line.contains(expected) && line.contains("who=\"uid "), "{expected}: {line}");
    }
}

fn state_file() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.json");
    (folder, path)
}

#[test]
fn changes_at_run_time_survive_a_restart() {
    let (_folder, path) = state_file();
    let daemon = Daemon::start(&config(Some(&path)), IPV4);
    register(
        &daemon,
        &api::NewBackend { weight: Some(3), priority: Some(15), ..new("c", "127.0.0.1:3", Some("1h")) },
    );
    let f = api::NewBackend { new_holder: Some("f".into()), ..new("f", "127.0.0.1:6", Some("1h")) };
    hold(&daemon, &f);
    register(&daemon, &new("d", "127.0.0.1:4", None));
    let short = register(&daemon, &new("e", "127.0.0.1:5", Some(SHORT)));
    let end = timestamp() + std::time::Duration::from_secs_f64(short.lease_left.expect("a lease"));
    change(&daemon, "a", Some(7), None);
    change(&daemon, "d", None, Some(api::Admin::Maint));
    let down = api::HealthOverride { health: api::OverrideTo::Down };
    let route = format!("{BACKENDS}/b/health");
    let _: api::Backend = daemon.admin().ask(Method::POST, &route, Some(&down)).expect("override");
    daemon.stop();
    until("a lease has ended meanwhile", || timestamp() >= end);

    let daemon = Daemon::start(&config(Some(&path)), IPV4);
    let found = |name| find(&daemon, name).expect(name);
    let c = found("c");
    assert_eq!((c.weight, c.priority, c.source), (3, 15, api::Source::Api));
    assert!(c.lease_left.is_some_and(|left| (3000.0..3600.0).contains(&left)), "{c:?}");
    let d = found("d");
    assert_eq!((d.admin, d.lease_left, d.source), (api::Admin::Maint, None, api::Source::Api));
    assert!(find(&daemon, "e").is_none(), "its lease has ended while we were away");
    let f = api::NewBackend { holder: f.new_holder.clone(), new_holder: None, ..f };
    assert_eq!(hold(&daemon, &f), "f", "its holder is known still");
    assert!(leave(&daemon, "f", "f").expect("it has a lease").removed);
    assert_eq!((found("a").weight, found("a").source), (7, api::Source::Config));
    assert_eq!((found("b").health, found("b").health_override), (api::Health::Down, true));
    let status: api::Status = daemon.admin().get("/v1/status").expect("status");
    assert_eq!(status.state_file_failures, 0);
}

/// Nothing is written at the end of a process that is killed: all has to be there before.
#[test]
fn a_killed_process_has_saved_every_confirmed_change() {
    let (_folder, path) = state_file();
    let daemon = Daemon::start(&config(Some(&path)), IPV4);
    register(&daemon, &new("c", "127.0.0.1:3", None));
    // Whoever has an answer need not look.
    assert!(std::fs::read_to_string(&path).is_ok_and(|text| text.contains("127.0.0.1:3")));
    drop(daemon);
    let daemon = Daemon::start(&config(Some(&path)), IPV4);
    assert!(find(&daemon, "c").is_some());
    daemon.admin().answer(Method::DELETE, &format!("{BACKENDS}/c"), None::<&()>).expect("remove");
    daemon.stop();
    let daemon = Daemon::start(&config(Some(&path)), IPV4);
    assert!(find(&daemon, "c").is_none(), "what was removed does not come back");
}

#[test]
fn a_failed_write_of_the_state_file_is_logged_and_counted_and_the_backend_serves() {
    let (folder, path) = state_file();
    let missing = folder.path().join("none").join("state.json");
    let daemon = Daemon::start(&config(Some(&missing)), IPV4);
    let line = daemon.wait_for_line(&["state_file was not written"]);
    assert!(line.contains("WARN") && line.contains("No such file"), "{line}");
    let status = || daemon.admin().get::<api::Status>("/v1/status").expect("status");
    let failures = || status().state_file_failures;
    until("it is counted", || failures() > 0);
    // A failure is counted where it happens, a moment before the control thread knows of it.
    until("it is shown", || {
        status().not_saved.is_some_and(|not_saved| not_saved.reason.contains("No such file"))
    });
    let weight = api::BackendChange { weight: Some(7), admin: None };
    let changed: api::Changed =
        daemon.admin().ask(Method::PATCH, &format!("{BACKENDS}/a"), Some(&weight)).expect("change");
    assert_eq!(changed.backend.weight, 7, "it is changed");
    assert!(changed.not_saved.is_some_and(|reason| reason.contains("No such file")));
    std::fs::create_dir(missing.parent().expect("a folder")).expect("make it");
    until("it is tried again", || missing.exists());
    daemon.wait_for_line(&["state_file is written again"]);
    until("it is saved", || {
        daemon.admin().get::<api::Status>("/v1/status").expect("status").not_saved.is_none()
    });
    assert!(!path.exists());
}

#[test]
fn a_broken_file_is_refused_with_its_line_and_what_to_do() {
    let (folder, path) = state_file();
    std::fs::write(&path, "{\n  \"version\": 1,\n  \"backends\": oops\n}\n").expect("write");
    let file = folder.path().join("l4lb.toml");
    // It comes to no listening.
    let text = format!("[[listener]]\nbind = \"127.0.0.1:9\"\n{}", config(Some(&path)));
    std::fs::write(&file, text).expect("write");
    let output = output(Command::new(env!("CARGO_BIN_EXE_l4lb")).arg("-c").arg(&file));
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    for expected in [&*path.to_string_lossy(), "line 3 column 15", "move it away"] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// A weight of 257 kept the process from starting.
#[test]
fn an_entry_that_no_request_could_have_made_is_refused_alone_and_kept_beside() {
    let (folder, path) = state_file();
    let entry = |name: &str, weight: u16| {
        format!(
            "{{\"pool\":\"web\",\"name\":\"{name}\",\"weight\":1,\"weight_set\":{weight},\
             \"admin\":\"ready\",\"health\":\"auto\",\"registered\":null}}"
        )
    };
    let text = format!("{{\"version\":1,\"backends\":[{},{}]}}", entry("a", 257), entry("b", 7));
    std::fs::write(&path, &text).expect("write");
    let daemon = Daemon::start(&config(Some(&path)), IPV4);
    let weight = |name| find(&daemon, name).map(|backend| backend.weight);
    assert_eq!((weight("a"), weight("b")), (Some(1), Some(7)));
    let kept = std::fs::read_to_string(folder.path().join("state.json.refused"));
    assert_eq!(kept.expect("the file as it was"), text);
}
