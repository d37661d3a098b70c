//! The admin API of a running process: what it shows, what it changes, whom it refuses.

use axum::http::{Method, StatusCode};
use l4lb::api;
use l4lb::ctl::ClientError;

use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::until;

const TWO: &str = "[[pool]]\nname = \"web\"\nhealth = { type = \"off\" }\n\
    backend = [{ name = \"a\", address = \"127.0.0.1:1\" }, { name = \"b\", address = \"127.0.0.1:2\" }]\n";

fn backend(daemon: &Daemon, name: &str) -> api::Backend {
    daemon.admin().get(&format!("/v1/pools/web/backends/{name}")).expect("the backend")
}

fn refusal(result: Result<api::Backend, ClientError>) -> (StatusCode, String) {
    match result {
        Err(ClientError::Refused { status, error }) => (status, error),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_registered_backend_serves_until_it_is_removed() {
    let daemon = Daemon::start(TWO, IPV4);
    let admin = daemon.admin();
    let new = api::NewBackend {
        address: "127.0.0.1:3".into(),
        name: Some("c".into()),
        weight: Some(2),
        ..api::NewBackend::default()
    };
    let route = "/v1/pools/web/backends";
    let made: api::Backend = admin.ask(Method::POST, route, Some(&new)).expect("register");
    assert_eq!((made.name.as_str(), made.weight, made.source), ("c", 2, api::Source::Api));
    let again: api::Backend = admin.ask(Method::POST, route, Some(&new)).expect("register again");
    assert_eq!(again, made);
    let elsewhere = api::NewBackend { address: "127.0.0.1:4".into(), ..new.clone() };
    let (status, error) = refusal(admin.ask(Method::POST, route, Some(&elsewhere)));
    assert_eq!(status, StatusCode::CONFLICT, "{error}");
    let topology: api::Topology = admin.get("/v1/topology").expect("topology");
    let shares: Vec<f64> = topology.pools[0].backends.iter().map(|backend| backend.share).collect();
    assert_eq!(shares, [0.25, 0.25, 0.5]);
    let gone: api::Removed =
        admin.ask(Method::DELETE, "/v1/pools/web/backends/c", None::<&()>).expect("remove");
    assert_eq!(gone.sessions, 0);
    assert_eq!(refusal(admin.get("/v1/pools/web/backends/c")).0, StatusCode::NOT_FOUND);
    assert!(daemon.wait_for_line(&["registered"]).contains("who=\"uid "));
}

#[test]
fn a_change_holds_at_once_and_is_an_event() {
    let daemon = Daemon::start(TWO, IPV4);
    let admin = daemon.admin();
    let drain = api::BackendChange { weight: Some(7), admin: Some(api::Admin::Drain) };
    let changed: api::Backend =
        admin.ask(Method::PATCH, "/v1/pools/web/backends/a", Some(&drain)).expect("change");
    assert_eq!((changed.weight, changed.admin, changed.eligible), (7, api::Admin::Drain, false));
    let down = api::HealthOverride { health: api::OverrideTo::Down };
    let changed: api::Backend =
        admin.ask(Method::POST, "/v1/pools/web/backends/b/health", Some(&down)).expect("override");
    assert_eq!((changed.health, changed.health_override), (api::Health::Down, true));
    until("the pool has no eligible backend", || {
        let events: Vec<api::Event> = admin.get("/v1/events").expect("events");
        events.iter().any(|event| event.kind == api::EventKind::Eligibility)
    });
    let auto = api::HealthOverride { health: api::OverrideTo::Auto };
    let changed: api::Backend =
        admin.ask(Method::POST, "/v1/pools/web/backends/b/health", Some(&auto)).expect("override");
    assert!(changed.eligible && !changed.health_override);
    assert_eq!(backend(&daemon, "a").weight, 7);
}

#[test]
fn a_refused_request_names_its_mistake() {
    let daemon = Daemon::start(TWO, IPV4);
    let admin = daemon.admin();
    for (body, expected) in [
        (r#"{"address":"127.0.0.1"}"#, "address: port missing"),
        (r#"{"address":"127.0.0.1:5","weight":300}"#, "weight: must be 0..=256, got 300"),
        (r#"{"address":"127.0.0.1:5","name":"a b"}"#, "name: must be 1..=64 characters"),
        (r#"{"address":"127.0.0.1:5","name":".."}"#, "name: must have a letter or a digit"),
        (r#"{"address":"127.0.0.1:5","ttl":"1ms"}"#, "ttl: must be 1s..=24h"),
        (r#"{"address":"127.0.0.1:5","colour":"red"}"#, "unknown field `colour`"),
        (r#"{"address":"127.0.0.1:1","name":"c"}"#, "is backend \"a\" already"),
    ] {
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        let (_, error) = refusal(admin.ask(Method::POST, "/v1/pools/web/backends", Some(&body)));
        assert!(error.contains(expected), "{body}: {error}");
    }
    assert_eq!(refusal(admin.get("/v1/nothing")).0, StatusCode::NOT_FOUND);
    assert_eq!(refusal(admin.ask(Method::PUT, "/v1/status", None::<&()>)).0, StatusCode::METHOD_NOT_ALLOWED);
    let own = format!(r#"{{"address":"{}","name":"c"}}"#, daemon.address);
    let own: serde_json::Value = serde_json::from_str(&own).expect("JSON");
    let (_, error) = refusal(admin.ask(Method::POST, "/v1/pools/web/backends", Some(&own)));
    assert!(error.contains("is our own listener"), "{error}");
    let status: api::Status = admin.get("/v1/status").expect("status");
    assert_eq!((status.stage, status.epoch), (api::Stage::Serving, 0));
}

#[test]
fn the_last_minutes_are_there_for_a_reader_that_comes_later() {
    let daemon = Daemon::start(TWO, IPV4);
    until("samples are kept", || history(&daemon).times.len() > 1);
    let fail = api::ReadyFail { fail: true };
    let _: api::ReadyFail =
        daemon.admin().ask(Method::PUT, "/v1/ready-fail", Some(&fail)).expect("ready-fail");
    // Nothing listens there: the session fails on both backends.
    drop(std::net::TcpStream::connect(daemon.address).expect("a listener"));
    let sum = |counts: &[Option<u32>]| counts.iter().flatten().sum::<u32>();
    until("the session is in one of them", || {
        let history = history(&daemon);
        history.closed.get("connect_refused").is_some_and(|counts| sum(counts) == 1)
    });
    let history = history(&daemon);
    assert_eq!((sum(&history.totals.opened), sum(&history.totals.failures)), (1, 2));
    let [pool, listener] = [&history.pools[0], &history.listeners[0]];
    assert_eq!((pool.name.as_str(), sum(&pool.series.failures)), ("web", 2));
    assert_eq!((sum(&listener.series.opened), sum(&listener.series.failures)), (1, 1));
    let len = history.times.len();
    for series in [&history.totals, &pool.series, &listener.series] {
        let lens =
            [series.sessions.len(), series.opened.len(), series.failures.len(), series.to_client.len()];
        assert_eq!(lens, [len; 4]);
    }
    assert!(history.times.is_sorted() && history.seconds.len() == len && history.connect_p99.len() == len);
    let messages: Vec<&str> = history.events.iter().map(|event| event.message.as_str()).collect();
    assert_eq!(messages, ["ready-fail on: /ready answers 503"], "the last events come with it");
}

fn history(daemon: &Daemon) -> api::History {
    daemon.admin().get("/v1/history").expect("the last minutes")
}

#[test]
fn a_refused_reload_is_shown_until_it_is_dismissed_and_a_new_one_again() {
    let daemon = Daemon::start(TWO, IPV4);
    let admin = daemon.admin();
    let reload = || admin.get::<api::Status>("/v1/status").expect("the status").reload;
    let dismiss = |number: u64| {
        let path = format!("/v1/config/refusals/{number}");
        admin.ask::<api::Reload>(Method::DELETE, &path, None::<&()>)
    };
    assert!(dismiss(1).is_err(), "there is none yet");
    daemon.reload("pool = 7\n");
    until("it is refused", || reload().failed == 1);
    let refused = reload();
    assert_eq!(refused.shown_refusal().map(|refused| refused.who.as_str()), Some("SIGHUP"));
    assert!(refused.applied.is_none() && !refused.errors.is_empty(), "{refused:?}");
    assert!(dismiss(2).is_err(), "it is another one");
    let dismissed = dismiss(1).expect("it is dismissed");
    assert!(
        dismissed.shown_refusal().is_none() && dismissed.refused.is_some() && !dismissed.errors.is_empty()
    );
    daemon.reload("pool = 8\n");
    until("the next one is refused", || reload().failed == 2);
    assert_eq!(
        reload().shown_refusal().map(|refused| refused.number),
        Some(2),
        "what is dismissed is one reload"
    );
    daemon.reload(&TWO.replace("127.0.0.1:2", "127.0.0.1:3"));
    until("a good one is applied", || reload().succeeded == 1);
    let applied = reload();
    assert!(applied.refused.is_none() && applied.errors.is_empty());
    let applied = applied.applied.expect("the last one that was applied");
    let what: Vec<&str> = applied.changes.iter().map(|change| change.what.as_str()).collect();
    assert_eq!(what, ["pool \"web\": backend \"b\": address 127.0.0.1:2 -> 127.0.0.1:3"]);
    assert_eq!((applied.who.as_str(), applied.count), ("SIGHUP", 1));
    assert!(dismiss(2).is_err(), "a good reload is the last one now");
}
