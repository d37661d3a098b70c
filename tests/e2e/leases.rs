//! Backends that register themselves: what becomes of them when they fall silent, and over a restart.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use axum::http::{Method, StatusCode};
use l4lb::api;
use l4lb::ctl::ClientError;
use l4lb::sys::timestamp;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::lab::IPV4;
use crate::peer::{patient_backend, patient_client, retry, until};
use crate::program::output;

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
        weight: None,
        backup: false,
        ttl: ttl.map(Into::into),
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

#[test]
fn who_falls_silent_is_removed_and_keeps_its_sessions() {
    let daemon = Daemon::start(&config(None), IPV4);
    let backend = patient_backend(IPV4);
    let address = backend.local_addr().expect("its address").to_string();
    for other in ["a", "b"] {
        change(&daemon, other, Some(0), None);
    }
    // Without a lease at first: the session is to be there before that ends.
    register(&daemon, &new("c", &address, None));
    let mut client = patient_client(daemon.address);
    let (mut server, _) = retry(|| backend.accept()).expect("it reaches the backend");
    let made = register(&daemon, &new("c", &address, Some(SHORT)));
    assert!(made.lease_left.is_some_and(|left| left <= 3.0), "{made:?}");
    until("its lease has ended", || find(&daemon, "c").is_none());
    let line = daemon.wait_for_line(&["its lease has ended"]);
    assert!(
        line.contains("backend=c") && line.contains("who=\"uid ") && line.contains("1 sessions left"),
        "{line}"
    );
    let mut told = Vec::new();
    until("the end of the lease is an event", || {
        told = daemon.admin().get::<Vec<api::Event>>("/v1/events").expect("events");
        told.retain(|event| event.message.contains("its lease has ended"));
        !told.is_empty()
    });
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].backend.as_deref() == Some("c") && told[0].who.is_some(), "{told:?}");
    server.write_all(b"still").expect("send");
    let mut got = [0; 5];
    client.read_exact(&mut got).expect("the session goes on");
    assert_eq!(&got, b"still");
}

#[test]
fn the_latest_request_decides_whether_there_is_a_lease() {
    let daemon = Daemon::start(&config(None), IPV4);
    register(&daemon, &new("c", "127.0.0.1:3", Some(SHORT)));
    register(&daemon, &new("d", "127.0.0.1:4", None));
    register(&daemon, &new("e", "127.0.0.1:5", Some(SHORT)));
    assert_eq!(register(&daemon, &new("c", "127.0.0.1:3", None)).lease_left, None);
    assert!(register(&daemon, &new("d", "127.0.0.1:4", Some(SHORT))).lease_left.is_some());
    until("the leases have ended", || find(&daemon, "d").is_none() && find(&daemon, "e").is_none());
    assert_eq!(find(&daemon, "c").map(|backend| backend.lease_left), Some(None), "for ever");
}

#[test]
fn a_renewal_changes_what_it_says_otherwise_than_the_request_before() {
    let daemon = Daemon::start(&config(None), IPV4);
    let first = new("c", "127.0.0.1:3", Some("1h"));
    register(&daemon, &first);
    let heavier = api::NewBackend { weight: Some(5), backup: true, ..first.clone() };
    let changed = register(&daemon, &heavier);
    assert_eq!((changed.weight, changed.backup), (5, true));
    let line = daemon.wait_for_line(&["registered again"]);
    assert!(line.contains("weight 1 -> 5, backup false -> true"), "{line}");
    change(&daemon, "c", Some(0), Some(api::Admin::Drain));
    let renewed = register(&daemon, &heavier);
    assert_eq!((renewed.weight, renewed.admin), (0, api::Admin::Drain), "the operator's word stays");
    assert_eq!(register(&daemon, &first).weight, 1, "until the backend says something else");
}

/// Each mutating request, and a part of the only line that it writes.
#[test]
fn every_change_is_one_line_with_who_and_what() {
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
            r#"{"name":"c","address":":3","weight":2}"#,
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
        (Method::PUT, "/v1/log-level", r#"{"level":"info"}"#, Some("log level")),
        (Method::DELETE, c, "{}", Some("removed with 0 sessions left")),
    ];
    let expected: Vec<&str> = script.iter().filter_map(|(.., line)| *line).collect();
    for (method, route, body, _) in script {
        ask(method, route, json(body));
    }
    let lines = daemon.lines_until_it_ends();
    let told: Vec<&String> = lines.iter().filter(|line| line.contains(" who=")).collect();
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (line, expected) in told.iter().zip(expected) {
        assert!(line.contains(expected) && line.contains("who=\"uid "), "{expected}: {line}");
    }
}

fn state_file() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.json");
    (folder, path)
}

#[test]
fn what_was_changed_survives_a_restart() {
    let (_folder, path) = state_file();
    let daemon = Daemon::start(&config(Some(&path)), IPV4);
    register(
        &daemon,
        &api::NewBackend { weight: Some(3), backup: true, ..new("c", "127.0.0.1:3", Some("1h")) },
    );
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
    assert_eq!((c.weight, c.backup, c.source), (3, true, api::Source::Api));
    assert!(c.lease_left.is_some_and(|left| (3000.0..3600.0).contains(&left)), "{c:?}");
    let d = found("d");
    assert_eq!((d.admin, d.lease_left, d.source), (api::Admin::Maint, None, api::Source::Api));
    assert!(find(&daemon, "e").is_none(), "its lease has ended while we were away");
    assert_eq!((found("a").weight, found("a").source), (7, api::Source::Config));
    assert_eq!((found("b").health, found("b").health_override), (api::Health::Down, true));
    let status: api::Status = daemon.admin().get("/v1/status").expect("status");
    assert_eq!(status.state_file_failures, 0);
}

/// Nothing is written at the end of a process that is killed: all has to be there before.
#[test]
fn a_process_that_is_killed_has_kept_what_it_was_told() {
    let (_folder, path) = state_file();
    let daemon = Daemon::start(&config(Some(&path)), IPV4);
    register(&daemon, &new("c", "127.0.0.1:3", None));
    until("the file has it", || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.contains("127.0.0.1:3"))
    });
    drop(daemon);
    let daemon = Daemon::start(&config(Some(&path)), IPV4);
    assert!(find(&daemon, "c").is_some());
    daemon.admin().answer(Method::DELETE, &format!("{BACKENDS}/c"), None::<&()>).expect("remove");
    daemon.stop();
    let daemon = Daemon::start(&config(Some(&path)), IPV4);
    assert!(find(&daemon, "c").is_none(), "what was removed does not come back");
}

#[test]
fn what_cannot_be_written_is_told_and_counted_and_serves_nonetheless() {
    let (folder, path) = state_file();
    let missing = folder.path().join("none").join("state.json");
    let daemon = Daemon::start(&config(Some(&missing)), IPV4);
    let line = daemon.wait_for_line(&["state_file was not written"]);
    assert!(line.contains("WARN") && line.contains("No such file"), "{line}");
    let failures = || daemon.admin().get::<api::Status>("/v1/status").expect("status").state_file_failures;
    until("it is counted", || failures() > 0);
    std::fs::create_dir(missing.parent().expect("a folder")).expect("make it");
    until("it is tried again", || missing.exists());
    assert!(!path.exists());
}

#[test]
fn a_broken_file_is_refused_with_its_line_and_the_way_on() {
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
