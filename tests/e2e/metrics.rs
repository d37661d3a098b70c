//! The metrics of a running process: what they promise holds on every scrape, however busy it is.

use std::collections::HashMap;
use std::thread::{self, ScopedJoinHandle};

use axum::http::Method;
use l4lb::api;

use crate::harness::backends::backends;
use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::until;

const CLIENTS: usize = 4;
const VISITS: usize = 150;

/// A scrape: the value of each series, by its name and labels.
struct Page(HashMap<String, f64>);

impl Page {
    #[track_caller]
    fn of(daemon: &Daemon) -> Self {
        let admin = daemon.admin();
        let scrape = admin.answer(Method::GET, "/metrics", None::<&()>).expect("a scrape");
        let text = String::from_utf8(scrape.body.to_vec()).expect("text");
        let mut series = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            let twice = series.insert(name.to_owned(), value.parse().expect("a number"));
            assert_eq!(twice, None, "twice: {name}");
        }
        Self(series)
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("no series {series}"))
    }

    /// The sum of a family over all its labels, or over those that contain `labels`.
    fn sum(&self, family: &str, labels: &str) -> f64 {
        let of_family = |series: &str| {
            series.strip_prefix(family).is_some_and(|rest| rest.starts_with('{') && rest.contains(labels))
        };
        self.0.iter().filter(|(series, _)| of_family(series)).map(|(_, value)| value).sum()
    }

    /// What must hold on every scrape.
    #[track_caller]
    fn adds_up(&self) {
        let value = |series: &str| self.value(series);
        let accepted = value("l4lb_accepted_sessions_total");
        assert_eq!(value("l4lb_invariant_violations"), 0.0);
        assert_eq!(value("l4lb_lost_wakeups_total"), 0.0);
        assert_eq!(accepted, value("l4lb_active_sessions") + self.sum("l4lb_closed_sessions_total", ""));
        let [connecting, connected, failed] =
            ["l4lb_connecting_sessions", "l4lb_connected_sessions_total", "l4lb_failed_sessions_total"]
                .map(value);
        assert_eq!(accepted, connecting + connected + failed);
        for (from, to) in [("client", "backend"), ("backend", "client")] {
            let gone = value(&format!("l4lb_to_{to}_bytes_total"))
                + value(&format!("l4lb_discarded_from_{from}_bytes_total"))
                + value(&format!("l4lb_held_from_{from}_bytes"));
            assert_eq!(value(&format!("l4lb_from_{from}_bytes_total")), gone);
        }
        // There is one listener.
        let of_listener = |noun: &str| self.sum(&format!("l4lb_listener_{noun}"), "");
        assert_eq!(
            of_listener("accepted_sessions_total"),
            of_listener("active_sessions") + of_listener("closed_sessions_total")
        );
        let all = self.sum("l4lb_listener_session_seconds_bucket", "le=\"+Inf\"");
        assert_eq!(of_listener("session_seconds_count"), all);
        let dialed = self.sum("l4lb_dial_failures_total", "") + connected;
        assert!(dialed <= value("l4lb_dials_total"));
        assert!(self.sum("l4lb_fds", "") >= value("process_open_fds"));
    }

    /// What only grows has not shrunk.
    #[track_caller]
    fn follows(&self, former: &Self) {
        for (series, before) in &former.0 {
            let family = series.split('{').next().expect("a name");
            let grows = ["_total", "_bucket", "_count", "_sum"].iter().any(|end| family.ends_with(end));
            let now = self.value(series);
            assert!(!grows || now >= *before, "{series}: {before} -> {now}");
        }
    }
}

#[test]
fn every_scrape_of_a_busy_process_adds_up() {
    let backends = backends(2).workers(2);
    let service = backends.start_daemon("info,l4lb::session=off");
    let visits = || (0..VISITS).for_each(|_| _ = service.enter().talks().leave());
    let mut page = Page::of(&service.server);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(visits)).collect();
        while !clients.iter().all(ScopedJoinHandle::is_finished) {
            let next = Page::of(&service.server);
            next.adds_up();
            next.follows(&page);
            page = next;
        }
    });
    let sessions = (CLIENTS * VISITS) as f64;
    let done = "l4lb_closed_sessions_total{reason=\"done\"}";
    until("every session is over", || Page::of(&service.server).value(done) == sessions);
    let page = Page::of(&service.server);
    page.adds_up();
    let value = |series: &str| page.value(series);
    let hello = sessions * "hello".len() as f64;
    assert_eq!(value("l4lb_active_sessions"), 0.0);
    assert_eq!(value("l4lb_from_client_bytes_total"), hello);
    assert_eq!(value("l4lb_to_backend_bytes_total"), hello);
    assert_eq!(page.sum("l4lb_listener_to_backend_bytes_total", ""), hello);
    assert_eq!(page.sum("l4lb_backend_to_backend_bytes_total", ""), hello);
    assert_eq!(page.sum("l4lb_backend_sessions_total", ""), sessions);
    assert_eq!(page.sum("l4lb_backend_connected_sessions_total", ""), sessions);
    assert_eq!(page.sum("l4lb_listener_connect_seconds_count", ""), sessions);
    assert_eq!(page.sum("l4lb_worker_accepted_sessions_total", ""), sessions);
    service.stops();
}

/// Case 105.
#[test]
fn the_series_of_a_backend_come_and_go_with_it() {
    let pool = "[[pool]]\nname = \"web\"\nhealth = { type = \"off\" }\n\
        backend = [{ name = \"a\", address = \"127.0.0.1:1\" }]\n";
    let daemon = Daemon::start(pool, IPV4);
    let admin = daemon.admin();
    let series = "l4lb_backend_weight{pool=\"web\",backend=\"b\"}";
    let weight = || Page::of(&daemon).0.get(series).copied();
    assert_eq!(weight(), None);
    let new = serde_json::json!({ "address": "127.0.0.1:2", "name": "b", "weight": 3 });
    let _: serde_json::Value =
        admin.ask(Method::POST, "/v1/pools/web/backends", Some(&new)).expect("register");
    assert_eq!(weight(), Some(3.0));
    let _: serde_json::Value =
        admin.ask(Method::DELETE, "/v1/pools/web/backends/b", None::<&()>).expect("remove");
    assert_eq!(weight(), None);
}

/// Each check that contradicted the operator was published as a change, with an epoch: 29 events in 5 seconds.
#[test]
fn checks_that_contradict_an_operator_change_nothing() {
    let config = "[[pool]]\nname = \"web\"\n\
         health = { type = \"tcp\", interval = \"20ms\", fast_interval = \"20ms\", timeout = \"20ms\", fall = 1 }\n\
         backend = [{ name = \"a\", address = \"127.0.0.1:1\" }]\n";
    let daemon = Daemon::start(config, IPV4);
    let admin = daemon.admin();
    let backend = || admin.get::<api::Backend>("/v1/pools/web/backends/a").expect("the backend");
    let failed = || Page::of(&daemon).sum("l4lb_backend_checks_total", "state=\"failed\"");
    until("nothing listens there", || backend().health == api::Health::Down);
    for (health, shown) in [
        (api::OverrideTo::Up, api::Health::Up),
        (api::OverrideTo::Down, api::Health::Down),
        (api::OverrideTo::Auto, api::Health::Down),
    ] {
        let wanted = api::HealthOverride { health };
        let route = "/v1/pools/web/backends/a/health";
        let said: api::Backend = admin.ask(Method::POST, route, Some(&wanted)).expect("override");
        let before = (failed(), transitions(&daemon), status(&daemon).epoch, events(&daemon));
        until("ten checks have failed", || failed() >= before.0 + 10.0);
        assert_eq!((backend().health, said.health), (shown, shown));
        assert_eq!(backend().health_since, said.health_since, "nothing has changed since");
        let after = (transitions(&daemon), status(&daemon).epoch, events(&daemon));
        assert_eq!(after, (before.1, before.2, before.3), "{health:?}");
    }
}

fn transitions(daemon: &Daemon) -> f64 {
    Page::of(daemon).sum("l4lb_backend_health_transitions_total", "")
}

fn status(daemon: &Daemon) -> api::Status {
    daemon.admin().get("/v1/status").expect("status")
}

fn events(daemon: &Daemon) -> usize {
    daemon.admin().get::<Vec<api::Event>>("/v1/events").expect("events").len()
}
