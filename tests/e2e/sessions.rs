//! What operators see of sessions, and what they may do to them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use axum::http::{Method, StatusCode};
use l4lb::api;
use l4lb::ctl::ClientError;

use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::{patient_backend, patient_client, retry, until};

/// A daemon in front of one backend, `a`, and what has come to that.
struct Bench {
    daemon: Daemon,
    backend: TcpListener,
}

impl Bench {
    fn new() -> Self {
        let backend = patient_backend(IPV4);
        let address = backend.local_addr().expect("getsockname");
        let daemon = Daemon::start(
            &format!(
                "[global]\nworkers = 2\n[[pool]]\nname = \"web\"\nhealth = {{ type = \"off\" }}\n\
                 backend = [{{ name = \"a\", address = \"{address}\" }}]\n"
            ),
            IPV4,
        );
        Self { daemon, backend }
    }

    /// A session that has moved two bytes to the backend and one to the client.
    fn session(&self) -> (TcpStream, TcpStream) {
        let mut client = patient_client(self.daemon.address);
        client.write_all(b"hi").expect("write");
        let (mut served, _) = retry(|| self.backend.accept()).expect("accept");
        served.read_exact(&mut [0; 2]).expect("read");
        served.write_all(b"!").expect("write");
        client.read_exact(&mut [0]).expect("read");
        (client, served)
    }

    fn page(&self, query: &str) -> api::SessionPage {
        self.daemon.admin().get(&format!("/v1/sessions{query}")).expect("a page")
    }

    fn explain(&self, id: &str) -> api::Explanation {
        self.daemon.admin().get(&format!("/v1/sessions/{id}/explanation")).expect("an explanation")
    }
}

fn status_of<T>(result: &Result<T, ClientError>) -> Option<StatusCode> {
    match result {
        Err(ClientError::Refused { status, .. }) => Some(*status),
        Err(_) | Ok(_) => None,
    }
}

#[test]
fn every_session_is_on_exactly_one_page() {
    let bench = Bench::new();
    let sessions: Vec<_> = (0..9).map(|_| bench.session()).collect();
    let (mut seen, mut query) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let page = bench.page(&query);
        assert!(page.sessions.len() <= 2, "{page:?}");
        seen.extend(page.sessions.into_iter().map(|session| session.client));
        let Some(next) = page.next else { break };
        query = format!("?limit=2&from={next}");
    }
    seen.sort();
    let mut clients: Vec<String> =
        sessions.iter().map(|(client, _)| client.local_addr().expect("getsockname").to_string()).collect();
    clients.sort();
    assert_eq!(seen, clients);
    assert_eq!(bench.page("?pool=web&backend=a&client=127.0.0.1").sessions.len(), 9);
    assert_eq!(bench.page("?client=127.0.0.2").sessions.len(), 0);
    assert_eq!(bench.page("?client=127.0.0.0/30&backend=w*/a").sessions.len(), 9);
    assert_eq!(bench.page("?client=10.0.0.0/8").sessions.len(), 0);
    let admin = bench.daemon.admin();
    for (query, expected) in [
        ("?pool=nothing", StatusCode::NOT_FOUND),
        ("?backend=nothing", StatusCode::NOT_FOUND),
        ("?client=nobody", StatusCode::BAD_REQUEST),
        ("?limit=0", StatusCode::BAD_REQUEST),
        ("?from=here", StatusCode::BAD_REQUEST),
        ("?sort=age&from=0.1", StatusCode::BAD_REQUEST),
        ("?sort=size", StatusCode::BAD_REQUEST),
        ("?backend=no*", StatusCode::NOT_FOUND),
        ("?client=127.0.0.1/33", StatusCode::BAD_REQUEST),
        ("?reason=done", StatusCode::BAD_REQUEST),
        ("?since=5m", StatusCode::BAD_REQUEST),
        ("?ended=true&reason=nothing", StatusCode::BAD_REQUEST),
        ("?ended=true&since=5", StatusCode::BAD_REQUEST),
        ("?ended=true&from=0.1", StatusCode::BAD_REQUEST),
        ("?ended=maybe", StatusCode::BAD_REQUEST),
    ] {
        let page = admin.get::<api::SessionPage>(&format!("/v1/sessions{query}"));
        assert_eq!(status_of(&page), Some(expected), "{query}");
    }
}

#[test]
fn sorted_sessions_are_the_first_of_all_in_that_order() {
    let bench = Bench::new();
    let mut sessions: Vec<_> = (0..5).map(|_| bench.session()).collect();
    let client = |session: &(TcpStream, TcpStream)| session.0.local_addr().expect("getsockname").to_string();
    let clients: Vec<String> = sessions.iter().map(client).collect();
    let sorted = |query: &str| -> (Vec<String>, bool) {
        let page = bench.page(query);
        assert_eq!(page.next, None);
        (page.sessions.into_iter().map(|session| session.client).collect(), page.has_older)
    };
    assert_eq!(sorted("?sort=age&limit=3"), (clients[..3].to_vec(), true));
    assert_eq!(sorted("?sort=age"), (clients.clone(), false));
    sessions[3].0.write_all(&[1; 1000]).expect("it is sent");
    sessions[3].1.read_exact(&mut [0; 1000]).expect("it arrives");
    until("its bytes are counted", || sorted("?sort=bytes&limit=1") == (vec![clients[3].clone()], true));
    let mut by_client = clients.clone();
    by_client.sort_by_key(|client| client.parse::<std::net::SocketAddr>().expect("an address").port());
    assert_eq!(sorted("?sort=client").0, by_client);
}

#[test]
fn a_session_is_explained_while_it_runs_and_when_it_was_cut() {
    let bench = Bench::new();
    let (mut client, served) = bench.session();
    let session = bench.page("").sessions.remove(0);
    assert_eq!((session.backend.as_deref(), session.state.as_str()), (Some("a"), "open"));
    let seen = served.peer_addr().expect("getpeername").to_string();
    assert_eq!(session.source.as_deref(), Some(&*seen));
    let running = bench.explain(&session.id);
    assert_eq!(running.end_code, None);
    assert!(running.story.iter().any(|line| line.ends_with(&format!(", from {seen}"))), "{running:?}");
    assert!(
        running.story.iter().any(|line| line.contains("round_robin over 1 of 1 backends")),
        "{running:?}"
    );
    assert!(running.candidates[0].chosen, "{running:?}");
    let admin = bench.daemon.admin();
    let route = format!("/v1/sessions/{}", session.id);
    let killed: api::Killed = admin.ask(Method::DELETE, &route, None::<&()>).expect("kill");
    assert_eq!(killed.sessions, 1);
    let reset = client.read(&mut [0]).expect_err("a reset");
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    let ended = bench.explain(&session.id);
    assert_eq!((ended.end_code.as_deref(), ended.session.to_backend), (Some("KD"), 2));
    let again = admin.ask::<api::Killed>(Method::DELETE, &route, None::<&()>);
    assert_eq!(status_of(&again), Some(StatusCode::NOT_FOUND));
}

#[test]
fn sessions_that_are_over_are_listed_by_how_and_when_they_ended() {
    let bench = Bench::new();
    let [cut, _running] = [bench.session(), bench.session()];
    let id = |client: &TcpStream| {
        let address = client.local_addr().expect("getsockname").to_string();
        let page = bench.page("");
        page.sessions.into_iter().find(|session| session.client == address).expect("it runs").id
    };
    let id = id(&cut.0);
    let _: api::Killed =
        bench.daemon.admin().ask(Method::DELETE, &format!("/v1/sessions/{id}"), None::<&()>).expect("kill");
    for (query, expected) in [
        ("?ended=true", 1),
        ("?ended=true&reason=killed&since=1h&pool=web&backend=a", 1),
        ("?ended=true&reason=done", 0),
        ("?ended=true&since=0s", 0),
        ("?ended=false", 1),
    ] {
        assert_eq!(bench.page(query).sessions.len(), expected, "{query}");
    }
    let session = bench.page("?ended=true").sessions.remove(0);
    assert_eq!(
        (session.id, session.reason.as_deref(), session.state.as_str()),
        (id, Some("killed"), "ended")
    );
    assert!(session.ended_ago.is_some());
}

/// A maint that came later was shown as the verdict of the choice.
#[test]
fn later_changes_of_a_backend_are_no_reason_of_a_choice() {
    let bench = Bench::new();
    let _held = bench.session();
    let id = bench.page("").sessions.remove(0).id;
    let before = bench.explain(&id);
    assert!(before.as_of_choice && before.candidates[0].since.is_none(), "{before:?}");
    let maint = api::BackendChange { weight: Some(7), admin: Some(api::Admin::Maint) };
    let route = "/v1/pools/web/backends/a";
    let _: api::Backend = bench.daemon.admin().ask(Method::PATCH, route, Some(&maint)).expect("maint");
    let after = bench.explain(&id);
    let [then, now] = [&before.candidates[0], &after.candidates[0]];
    assert_eq!((now.weight, &now.skipped, now.chosen), (then.weight, &None, true), "{after:?}");
    let since = now.since.as_deref().expect("it has changed");
    assert!(since.starts_with("weight 7, in maintenance since "), "{since}");
}

#[test]
fn all_sessions_of_a_backend_are_cut_together() {
    let bench = Bench::new();
    let sessions: Vec<_> = (0..5).map(|_| bench.session()).collect();
    let route = "/v1/pools/web/backends/a/sessions";
    let killed: api::Killed = bench.daemon.admin().ask(Method::DELETE, route, None::<&()>).expect("kill");
    assert_eq!(killed.sessions, 5);
    for (mut client, _) in sessions {
        let reset = client.read(&mut [0]).expect_err("a reset");
        assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_draining_backend_is_shown_with_its_progress() {
    let bench = Bench::new();
    let sessions: Vec<_> = (0..4).map(|_| bench.session()).collect();
    let admin = bench.daemon.admin();
    let drain = api::BackendChange { weight: None, admin: Some(api::Admin::Drain) };
    let _: api::Backend = admin.ask(Method::PATCH, "/v1/pools/web/backends/a", Some(&drain)).expect("drain");
    let drains = || admin.get::<api::Drains>("/v1/drains").expect("drains");
    let row = drains().backends.remove(0);
    assert_eq!((row.sessions, row.sessions_at_start, row.removed, row.deadline), (4, 4, false, None));
    drop(sessions);
    until("they are over", || drains().backends.is_empty());
}

#[test]
fn a_reload_is_asked_for_tried_and_done_through_the_api() {
    let bench = Bench::new();
    let _session = bench.session();
    let admin = bench.daemon.admin();
    bench
        .daemon
        .rewrite("[[pool]]\nname = \"web\"\nretries = 9\nbackend = [{ address = \"127.0.0.1:9\" }]\n");
    let tried: api::ReloadReport = admin.ask(Method::POST, "/v1/config/diff", None::<&()>).expect("a diff");
    let removed = tried.changes.iter().find(|change| change.what == "pool \"web\": backend \"a\": removed");
    assert_eq!((tried.applied, removed.expect("it goes").sessions), (false, 1));
    let done: api::ReloadReport =
        admin.ask(Method::POST, "/v1/config/reload", None::<&()>).expect("a reload");
    assert_eq!((done.applied, done.changes.len()), (true, tried.changes.len()));
    assert!(admin.get::<api::Config>("/v1/config").expect("config").effective.contains("retries=9"));
    bench.daemon.rewrite("[[pool]]\nretries = -1\nbackend = [{ address = \"127.0.0.1:9\" }]\n");
    let refused = admin.ask::<api::ReloadReport>(Method::POST, "/v1/config/reload", None::<&()>);
    let Err(ClientError::Refused { status, error }) = refused else { panic!("{refused:?}") };
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error.contains("retries: must be 0..=16, got -1"), "{error}");
    let status: api::Status = admin.get("/v1/status").expect("status");
    assert_eq!((status.reload.succeeded, status.reload.failed, status.reload.errors.len()), (1, 1, 1));
}
