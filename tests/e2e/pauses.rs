//! Listeners that an operator pauses: new clients are refused, and everything else goes its way.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};

use axum::http::Method;
use l4lb::api;
use l4lb::ctl::Client;

use crate::harness::backends::backends;
use crate::harness::peer::until;

fn listen(admin: &Client, paused: bool) -> Result<api::Listener, String> {
    let change = api::ListenerChange { paused };
    let answer = admin.answer(Method::PATCH, "/v1/listeners/in", Some(&change));
    answer.and_then(|answer| answer.read()).map_err(|error| error.to_string())
}

fn listener(admin: &Client) -> api::Listener {
    let mut all: Vec<api::Listener> = admin.get("/v1/listeners").expect("listeners");
    all.remove(0)
}

#[test]
fn a_paused_listener_refuses_new_clients_at_once_and_keeps_its_sessions() {
    for workers in [1, 3] {
        let backends = backends(1).workers(workers).listeners(&["name = \"in\""]);
        let service = backends.start_daemon("info");
        let admin = service.server.admin();
        let inside = service.enter().talks();
        let paused = listen(&admin, true).expect("it pauses");
        assert!(paused.paused && paused.sessions == 1, "{paused:?}");
        assert!(paused.paused_by.is_some_and(|by| by.starts_with("uid ")) && paused.paused_since.is_some());
        for _ in 0..20 {
            let refused = TcpStream::connect(service.server.address).expect_err("nothing listens");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
        let inside = inside.talks();
        let status: api::Status = admin.get("/v1/status").expect("status");
        assert_eq!(status.not_ready.as_deref(), Some("all listeners are paused: \"in\""));
        let sessions: api::SessionPage = admin.get("/v1/sessions").expect("sessions");
        let path = format!("/v1/sessions/{}/explanation", sessions.sessions[0].id);
        let explained: api::Explanation = admin.get(&path).expect("an explanation");
        let story = explained.story.last().expect("a story");
        assert!(story.starts_with("its listener is paused by uid "), "{story}");
        assert!(listen(&admin, true).expect("it is so already").paused);
        assert!(!listen(&admin, false).expect("it listens again").paused);
        service.enter().talks().leave();
        inside.talks().leave();
        let events: Vec<api::Event> = admin.get("/v1/events").expect("events");
        let words: Vec<&str> = events.iter().map(|event| event.message.as_str()).collect();
        let of_listener: Vec<&str> = words.into_iter().filter(|word| word.starts_with("listener ")).collect();
        assert_eq!(of_listener, ["listener \"in\" paused", "listener \"in\" resumed"]);
        drop(admin);
        service.stops();
    }
}

#[test]
fn a_reload_leaves_a_listener_paused() {
    let backends = backends(1).listeners(&["name = \"in\""]);
    let service = backends.start_daemon("info");
    let admin = service.server.admin();
    listen(&admin, true).expect("it pauses");
    let report: api::ReloadReport =
        admin.ask(Method::POST, "/v1/config/reload", None::<&()>).expect("a reload");
    assert!(report.changes.is_empty(), "{report:?}");
    assert!(listener(&admin).paused);
    assert!(TcpStream::connect(service.server.address).is_err());
    // Its sessions would open the next ones once it listens again.
    let pools: Vec<api::Pool> = admin.get("/v1/pools").expect("pools");
    let ourselves =
        api::NewBackend { address: service.server.address.to_string(), ..api::NewBackend::default() };
    let path = format!("/v1/pools/{}/backends", pools[0].name);
    let refused = admin.ask::<api::Registered>(Method::POST, &path, Some(&ourselves));
    let refused = refused.expect_err("it is ourselves").to_string();
    assert!(refused.contains("is our own listener"), "{refused}");
    assert!(!listen(&admin, false).expect("it listens again").paused);
    service.enter().talks().leave();
    drop(admin);
    service.stops();
}

#[test]
fn a_listener_whose_address_was_taken_meanwhile_stays_paused() {
    let backends = backends(1).listeners(&["name = \"in\""]);
    let service = backends.start_daemon("info");
    let admin = service.server.admin();
    listen(&admin, true).expect("it pauses");
    let mut taken = None;
    until("its sockets are closed", || {
        taken = TcpListener::bind(service.server.address).ok();
        taken.is_some()
    });
    let refused = listen(&admin, false).expect_err("another has the address");
    assert!(refused.contains("listener \"in\"") && refused.contains("in use"), "{refused}");
    assert!(listener(&admin).paused);
    drop(taken);
    assert!(!listen(&admin, false).expect("it is free again").paused);
    service.enter().talks().leave();
    drop(admin);
    service.stops();
}
