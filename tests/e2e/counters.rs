//! `l4lb ctl counters clear`: what is shown begins anew, and what is counted does not.

use axum::http::Method;
use l4lb::api;

use crate::harness::backends::backends;
use crate::harness::daemon::Daemon;
use crate::harness::peer::until;
use crate::harness::program::output;

#[track_caller]
fn ctl(daemon: &Daemon, args: &str) -> Result<String, String> {
    let args: Vec<&str> = ["ctl"].into_iter().chain(args.split_whitespace()).collect();
    let output = output(&mut daemon.command(&args));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The value of a series of the metrics.
#[track_caller]
fn metric(daemon: &Daemon, series: &str) -> u64 {
    let admin = daemon.admin();
    let scrape = admin.answer(Method::GET, "/metrics", None::<&()>).expect("a scrape");
    let text = String::from_utf8(scrape.body.to_vec()).expect("text");
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no series {series}")).parse().expect("a number")
}

#[track_caller]
fn until_over(daemon: &Daemon) {
    until("no session is open", || {
        let status: api::Status = daemon.admin().get("/v1/status").expect("the status");
        status.totals.sessions == 0
    });
}

#[test]
fn what_is_shown_begins_anew_and_what_is_counted_does_not() {
    let backends = backends(2);
    let service = backends.start_daemon("info");
    let server = &service.server;
    service.visits(4);
    until_over(server);
    let open = service.enter().talks();
    assert_eq!(ctl(server, "counters clear").as_deref(), Ok("all: 2 backends, shown from now on\n"));
    let line = server.wait_for_line(&["counters cleared"]);
    assert!(line.contains("counters cleared pool=all who=\"uid "), "{line}");

    let shown = ctl(server, "status").expect("the status");
    assert!(shown.contains("counted since  ") && shown.contains("1 open, 0 accepted"), "{shown}");
    let shown = ctl(server, "backends").expect("the backends");
    assert!(shown.contains("\n2 backends counted since "), "{shown}");
    open.leave();
    service.visit();
    until_over(server);
    let shown = ctl(server, "status").expect("the status");
    assert!(shown.contains("0 open, 1 accepted") && shown.contains(" 2 done\n"), "{shown}");

    // Metrics only grow: a clear must not reset them.
    assert_eq!(metric(server, "l4lb_accepted_sessions_total"), 6);
    assert_eq!(metric(server, "l4lb_invariant_violations"), 0);
    let status: api::Status = server.admin().get("/v1/status").expect("the status");
    let cleared = status.cleared.expect("they were cleared");
    assert_eq!((status.totals.accepted, cleared.totals.accepted), (6, 5));
    let rows: Vec<api::Backend> = server.admin().get("/v1/backends").expect("the backends");
    assert_eq!(rows.iter().map(|row| row.sessions_total).sum::<u64>(), 6);
    let events: Vec<api::Event> = server.admin().get("/v1/events?audit=true").expect("the events");
    let event = events.last().expect("an event");
    assert!(event.message == "counters cleared" && event.pool.is_none(), "{event:?}");
    service.stops();
}

#[test]
fn the_counters_of_one_pool_or_backend_are_cleared_alone() {
    let backends = backends(2).pool("name = \"web\"");
    let service = backends.start_daemon("info");
    let server = &service.server;
    service.visits(4);
    until_over(server);
    let left = || -> Vec<u64> {
        let rows: Vec<api::Backend> = server.admin().get("/v1/backends").expect("the backends");
        rows.iter().map(|row| row.since_cleared().sessions_total).collect()
    };
    assert_eq!(left(), [2, 2]);
    ctl(server, "counters clear web/n1").expect("it is cleared");
    assert_eq!(left(), [2, 0]);
    assert_eq!(ctl(server, "counters clear web").as_deref(), Ok("web: 2 backends, shown from now on\n"));
    assert_eq!(left(), [0, 0]);
    let status: api::Status = server.admin().get("/v1/status").expect("the status");
    assert!(status.cleared.is_none(), "the process has counters of its own");
    for (what, error) in
        [("wab", "there is no pool \"wab\", did you mean"), ("web/n3", "pool \"web\" has no backend \"n3\"")]
    {
        let refused = ctl(server, &format!("counters clear {what}")).expect_err("it is refused");
        assert!(refused.contains(error), "{refused}");
    }
    assert_eq!(left(), [0, 0]);
    service.stops();
}
