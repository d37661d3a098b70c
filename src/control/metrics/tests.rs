use std::sync::Arc;

use super::*;
use crate::config::{self, Overrides};
use crate::control::Workers;
use crate::control::discovery::state::SourceState;
use crate::messages::mailbox::Mailbox;
use crate::pool::{Advice, Snapshot};
use crate::stats::{DialFailure, WorkerStats};
use crate::sys::Wake;

fn view_of(text: &str) -> Arc<View> {
    let nobody = &mut |_: &str| Ok(Vec::new());
    let config = config::parse(text, "test", &Overrides::default(), nobody).unwrap();
    let snapshot = Arc::new(Snapshot::new(&config));
    let all_workers = Arc::new(Workers::default());
    let workers = config.global.workers.get();
    all_workers.change(workers, 0, (0..workers).map(|_| Mailbox::new(Arc::new(NoWake)).0));
    Arc::new(View::new(&Arc::new(config), None, snapshot, all_workers))
}

struct NoWake;

impl Wake for NoWake {
    fn wake(&self) -> std::io::Result<()> {
        Ok(())
    }
}

fn stats_of(view: &View, worker: usize) -> Arc<WorkerStats> {
    Arc::clone(&view.state().workers.members()[worker].stats)
}

const TWO: &str = "[global]\nworkers = 2\n[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:9090\"\nmax_sessions = 7\n\
    [[pool]]\nname = \"web\"\nbackend = [{ name = \"a\", address = \"127.0.0.1:1\" }, \
    { name = \"b\", address = \"127.0.0.1:2\" }]\n";

fn scrape(view: &Arc<View>) -> String {
    Metrics::new(Arc::clone(view)).scrape().unwrap()
}

/// Returns the value of a series.
#[track_caller]
fn value(page: &str, series: &str) -> f64 {
    let mut found = page.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    match (found.next(), found.next()) {
        (Some(value), None) => value.parse().unwrap(),
        _ => panic!("{series} is not there once:\n{page}"),
    }
}

#[test]
fn every_counter_is_shown() {
    let view = view_of(TWO);
    let snapshot = Arc::clone(&view.state().snapshot);
    let backend = &snapshot.pools[0].backends[1];
    stats_of(&view, 0).accepted.add(3);
    stats_of(&view, 1).closed[0].add(1);
    stats_of(&view, 1).connected.add(2);
    backend.stats.of(0).dial_failures[DialFailure::Timeout.index()].add(4);
    backend.set_health(config::model::HealthState::Down);
    snapshot.listeners[0].stats().of(0).connect_time.observe(std::time::Duration::from_millis(1));
    let page = scrape(&view);
    for (series, expected) in [
        ("l4lb_accepted_sessions_total", 3.0),
        ("l4lb_active_sessions", 2.0),
        ("l4lb_connecting_sessions", 1.0),
        ("l4lb_closed_sessions_total{reason=\"done\"}", 1.0),
        ("l4lb_worker_accepted_sessions_total{worker=\"0\"}", 3.0),
        ("l4lb_listener_max_sessions{listener=\"front\"}", 7.0),
        ("l4lb_listener_connect_seconds_bucket{le=\"0.0005\",listener=\"front\"}", 0.0),
        ("l4lb_listener_connect_seconds_bucket{le=\"0.001\",listener=\"front\"}", 1.0),
        ("l4lb_listener_connect_seconds_bucket{le=\"+Inf\",listener=\"front\"}", 1.0),
        ("l4lb_listener_connect_seconds_sum{listener=\"front\"}", 0.001),
        ("l4lb_pool_eligible_backends{pool=\"web\"}", 1.0),
        ("l4lb_backend_health{pool=\"web\",backend=\"b\",state=\"down\"}", 1.0),
        ("l4lb_backend_health{pool=\"web\",backend=\"a\",state=\"down\"}", 0.0),
        ("l4lb_backend_dial_failures_total{pool=\"web\",backend=\"b\",cause=\"timeout\"}", 4.0),
        ("l4lb_stage{state=\"serving\"}", 1.0),
    ] {
        assert_eq!(value(&page, series), expected, "{series}");
    }
}

#[test]
fn workers_of_one_index_have_one_series() {
    let view = view_of(TWO);
    stats_of(&view, 0).accepted.add(3);
    let all_workers = Arc::clone(&view.state().workers);
    all_workers.change(0, 0, []);
    let successor = all_workers.change(1, 0, [Mailbox::new(Arc::new(NoWake)).0]).remove(0);
    successor.stats.accepted.add(4);
    assert_eq!(value(&scrape(&view), "l4lb_worker_accepted_sessions_total{worker=\"0\"}"), 7.0);
}

#[test]
fn a_removed_backend_has_no_series() {
    let view = view_of(TWO);
    assert!(scrape(&view).contains("backend=\"b\""));
    let snapshot = Arc::clone(&view.state().snapshot);
    let pool = &snapshot.pools[0];
    let left = snapshot.with_backends(pool.id, &pool.settings.backends[..1]);
    view.state().snapshot = Arc::new(left);
    let page = scrape(&view);
    assert!(page.contains("backend=\"a\"") && !page.contains("backend=\"b\""));
}

#[test]
fn a_law_that_is_violated_is_counted() {
    let view = view_of(TWO);
    assert_eq!(value(&scrape(&view), "l4lb_invariant_violations"), 0.0);
    let snapshot = Arc::clone(&view.state().snapshot);
    stats_of(&view, 0).connected.add(1);
    snapshot.listeners[0].stats().of(0).closed[0].add(1);
    // Connected without an accept and without a dial; closed without an accept and without a duration.
    assert_eq!(value(&scrape(&view), "l4lb_invariant_violations"), 4.0);
}

fn with_a_source(view: Arc<View>) -> Arc<View> {
    let now = view.clock.now();
    let source = SourceState::new("web", "dns:web.test:80".into(), now);
    let source = SourceState { answered: Some(now), backends: 3, counts: [2, 1, 0], ..source };
    view.state().sources.align([("web", "dns:web.test:80")].into_iter(), |_, _| source.clone());
    view
}

#[test]
fn a_source_has_series_and_a_process_without_sources_has_none() {
    let view = view_of(TWO);
    assert!(!scrape(&view).contains("l4lb_discovery"));
    let page = scrape(&with_a_source(view));
    let of = "{pool=\"web\",source=\"dns:web.test:80\"}";
    assert_eq!(value(&page, &format!("l4lb_discovery_backends{of}")), 3.0);
    let found = of.replace('}', ",outcome=\"found\"}");
    assert_eq!(value(&page, &format!("l4lb_discovery_answers_total{found}")), 2.0);
}

/// A process with a route, and with an agent for each backend that has said how many sessions it wants.
fn with_agents() -> Arc<View> {
    let route = "max_sessions = 7\nroute = [{ client = [\"10.0.0.0/8\"], pool = \"web\" }]\n";
    let routed = TWO.replace("max_sessions = 7\n", route);
    let view = view_of(&format!("{routed}\n[pool.agent]\nport = 9707\n"));
    let advice = Advice { maxconn: Some(30), ..Advice::NONE };
    view.state().snapshot.backends().for_each(|backend| backend.set_agent(advice, false));
    view
}

#[test]
fn an_agent_has_series_and_a_process_without_agents_has_none() {
    assert!(!scrape(&view_of(TWO)).contains("l4lb_backend_agent"));
    let view = with_agents();
    let backend = Arc::clone(&view.state().snapshot.pools[0].backends[0]);
    backend.stats.agent_answers.add(2);
    let page = scrape(&view);
    let of = "{pool=\"web\",backend=\"a\"}";
    assert_eq!(value(&page, &format!("l4lb_backend_agent_maxconn{of}")), 30.0);
    let answered = of.replace('}', ",state=\"answered\"}");
    assert_eq!(value(&page, &format!("l4lb_backend_agent_exchanges_total{answered}")), 2.0);
}

/// An alert on the age of answers was silent while there had been none since the start.
#[test]
fn the_age_of_a_source_without_an_answer_counts_from_its_begin() {
    let view = view_of(TWO);
    let began = view.clock.now();
    let source = SourceState::new("web", "dns:web.test:80".into(), began);
    view.state().sources.align([("web", "dns:web.test:80")].into_iter(), |_, _| source.clone());
    let page = scrape(&view);
    let age = value(&page, "l4lb_discovery_age_seconds{pool=\"web\",source=\"dns:web.test:80\"}");
    let since = (view.clock.now() - began).as_secs_f64();
    assert!((0.0..=since).contains(&age), "{age} of {since}");
}

/// The same where the first backend has shown a certificate.
fn with_a_certificate(view: Arc<View>) -> Arc<View> {
    let first = view.state().snapshot.backends().next().cloned();
    first.unwrap().stats.certificate_not_after.set(2_000_000_000);
    view
}

#[test]
fn a_backend_that_has_shown_a_certificate_has_its_end() {
    let family = "l4lb_backend_certificate_not_after_timestamp_seconds";
    assert!(!scrape(&view_of(TWO)).contains(family));
    let page = scrape(&with_a_certificate(view_of(TWO)));
    assert_eq!(value(&page, &format!("{family}{{pool=\"web\",backend=\"a\"}}")), 2_000_000_000.0);
    assert!(!page.contains(&format!("{family}{{pool=\"web\",backend=\"b\"}}")));
}

/// Returns a table with a row per family: name, kind, labels and help.
fn table(page: &str) -> String {
    let mut rows = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line.strip_prefix("# HELP ").unwrap().split_once(' ').unwrap();
        let kind = lines.next().unwrap().rsplit_once(' ').unwrap().1;
        let series =
            lines.peek().filter(|line| !line.starts_with('#')).unwrap_or_else(|| panic!("{name}: no series"));
        let labels = series.split_once('{').map_or("", |(_, labels)| labels.split_once('}').unwrap().0);
        let labels: Vec<&str> =
            labels.split(',').filter_map(|label| Some(label.split_once('=')?.0)).collect();
        while lines.next_if(|line| !line.starts_with('#')).is_some() {}
        rows.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", ")));
    }
    rows
}

#[test]
fn the_table_of_metrics_is_complete() {
    let documented = include_str!("../../../config/metrics.md");
    let table = table(&scrape(&with_a_certificate(with_a_source(with_agents()))));
    assert!(documented.contains(&table), "config/metrics.md must contain this table:\n{table}");
}

#[test]
fn no_label_is_anything_but_a_name_of_ours() {
    let page = scrape(&with_a_certificate(with_a_source(with_agents())));
    let ours = [
        "listener", "pool", "backend", "reason", "worker", "state", "kind", "cause", "le", "version",
        "source", "outcome", "route",
    ];
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let labels = line.split_once('{').map_or("", |(_, labels)| labels.split_once('}').unwrap().0);
        let names = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0));
        names.for_each(|name| assert!(ours.contains(&name), "{line}"));
    }
}
