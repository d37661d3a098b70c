use std::collections::BTreeMap;

use super::*;

const NOW: &str = "2026-01-02T03:04:05Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn backend(name: &str) -> api::Backend {
    api::Backend {
        pool: "web".into(),
        name: name.into(),
        address: "10.0.0.1:80".into(),
        weight: 3,
        priority: 0,
        admin: api::Admin::Ready,
        health: api::Health::Up,
        health_override: false,
        admin_by: None,
        admin_since: None,
        health_reason: Some("connected".into()),
        health_since: Some(now() - jiff::SignedDuration::from_secs(90)),
        checks: Vec::new(),
        eligible: true,
        sessions: 7,
        sessions_total: 1_000,
        dial_failures: 2,
        to_backend: 1_536,
        to_client: 3 << 20,
        source: api::Source::Config,
        placed: None,
        lease_left: None,
        agent: None,
        cleared: None,
    }
}

fn session(id: &str, backend: Option<&str>) -> api::Session {
    api::Session {
        id: id.into(),
        listener: "front".into(),
        pool: "web".into(),
        backend: backend.map(Into::into),
        backend_address: backend.map(|_| "10.0.0.1:80".into()),
        client: "192.0.2.7:1234".into(),
        peer: None,
        sni: None,
        alpn: None,
        route: None,
        source: backend.map(|_| "10.0.0.9:40000".into()),
        state: "relaying".into(),
        age: 75.0,
        idle: 0.5,
        to_backend: 10,
        to_client: 2048,
        reason: None,
        ended_ago: None,
    }
}

#[test]
fn the_priority_is_shown_where_a_backend_is_in_a_later_tier() {
    let spare = api::Backend { priority: 15, ..backend("b") };
    let text = backends(&[backend("a"), spare.clone()], now());
    let cells: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(&cells[0][..5], ["BACKEND", "ADDRESS", "WEIGHT", "PRIORITY", "STATE"], "{text}");
    assert_eq!((&cells[1][..4], &cells[2][3]), (&["web/a", "10.0.0.1:80", "3", "0"][..], &"15"), "{text}");
    assert!(changed(&spare).contains("weight 3, priority 15, may have new sessions"));
    assert!(!backends(&[backend("a")], now()).contains("PRIORITY"));
}

#[test]
fn backends_are_rows_with_a_total() {
    let drained = api::Backend {
        admin: api::Admin::Drain,
        eligible: false,
        health_override: true,
        admin_by: Some("uid 0 pid 7".into()),
        admin_since: Some(now()),
        health_reason: None,
        health_since: None,
        lease_left: Some(9.99),
        ..backend("b")
    };
    assert_eq!(
        backends(&[backend("a"), drained], now()),
        "\
BACKEND  ADDRESS      WEIGHT  STATE                FOR  SESSIONS  EVER  DIALS FAILED  TO BACKEND  TO CLIENTS  LEASE  REASON
web/a    10.0.0.1:80       3  up                 1m30s         7  1000             2     1.5 KiB     3.0 MiB      -  connected
web/b    10.0.0.1:80       3  drain,up,override      -         7  1000             2     1.5 KiB     3.0 MiB   9.9s  drained by uid 0 pid 7 since 2026-01-02T03:04:05Z
2 backends, 1 eligible, 14 sessions, 3.0 KiB to backends, 6.0 MiB to clients
"
    );
    assert_eq!(changed(&backend("a")), "web/a: up, weight 3, may have new sessions, has 7 sessions\n");
}

#[test]
fn status_describes_the_whole_process() {
    let status = api::Status {
        version: "0.1.0".into(),
        pid: 42,
        started: now(),
        uptime: 61.0,
        stage: api::Stage::Serving,
        epoch: 5,
        workers: vec![api::Worker {
            worker: 0,
            sessions: 1,
            accepted: 3,
            handed_over: 0,
            adopted: 0,
            to_backend: 5,
            to_client: 6,
            accept_pauses: 0,
        }],
        totals: api::Totals {
            sessions: 1,
            accepted: 3,
            closed: BTreeMap::from([("done".into(), 2)]),
            to_backend: 5,
            to_client: 6,
            dials: 3,
            dial_failures: 0,
        },
        reload: api::Reload {
            succeeded: 1,
            failed: 1,
            last: Some(now()),
            errors: vec!["line 3: wrong".into()],
            reading_since: Some(now()),
            applied: None,
            refused: Some(api::RefusedReload {
                number: 1,
                time: now(),
                who: "SIGHUP".into(),
                dismissed_by: Some("uid 7".into()),
            }),
        },
        announce: Some(api::Announce {
            domain: "lb.test".into(),
            name: "lb1".into(),
            state: "failing".into(),
            since: Some(now()),
            note: Some("no".into()),
            records: 0,
            listeners: vec![api::AnnouncedListener {
                listener: "in".into(),
                name: "in.lb.test".into(),
                why_not: Some("paused".into()),
            }],
        }),
        log_lines_dropped: 1,
        not_ready: Some("draining".into()),
        restart_pending: Some(api::RestartPending {
            since: now(),
            keys: vec!["pin".into(), "admin.socket".into()],
            changes: vec!["global: pin false -> true".into(), "admin: socket default -> false".into()],
        }),
        state_file_failures: 0,
        not_saved: None,
        cleared: None,
        may_change: true,
    };
    assert_eq!(
        super::status(&status, now() + jiff::SignedDuration::from_secs(60)),
        "\
process          serving, l4lb 0.1.0, pid 42
up               1m01s, since 2026-01-02 03:04:05Z
ready            no, draining
announced        failing for 1m00s: no; not \"in\": paused
epoch            5
sessions         1 open, 3 accepted
closed           2 done
bytes            5 B to backends, 6 B to clients
dials            3, 0 failed
reloads          1 applied, 1 refused, the last 1m00s ago, reading for 1m00s
refused for      line 3: wrong
dismissed by     uid 7
restart pending  pin, admin.socket (since 2026-01-02 03:04:05Z, 2 keys)
log              1 line dropped

WORKER  SESSIONS  ACCEPTED  HANDED OVER  ADOPTED  TO BACKENDS  TO CLIENTS  PAUSES
     0         1         3            0        0          5 B         6 B       0
"
    );
}

#[test]
fn listeners_and_pools_have_totals() {
    let listener = api::Listener {
        name: "front".into(),
        address: "0.0.0.0:80".into(),
        pool: "web".into(),
        sessions: 1,
        max_sessions: None,
        accepted: 0,
        failed: 0,
        to_backend: 0,
        to_client: 0,
        paused: false,
        paused_by: None,
        paused_since: None,
    };
    let paused = api::Listener { paused: true, ..listener.clone() };
    assert_eq!(super::listener(&paused), "front: paused at 0.0.0.0:80, has 1 session\n");
    assert_eq!(
        listeners(&[listener, paused]),
        "\
LISTENER  ADDRESS     POOL  STATE      SESSIONS  MAX
front     0.0.0.0:80  web   listening         1    -
front     0.0.0.0:80  web   paused            1    -
2 listeners, 2 sessions
"
    );
    let pool =
        api::Pool { name: "web".into(), balance: "random".into(), backends: 3, eligible: 0, sessions: 2 };
    assert_eq!(
        pools(&[pool]),
        "\
POOL  BALANCE  BACKENDS  ELIGIBLE  SESSIONS
web   random          3         0         2
1 pool, 3 backends, 0 eligible, 2 sessions
"
    );
}

#[test]
fn sessions_are_rows_with_a_total() {
    let page = api::SessionPage {
        sessions: vec![session("0.1.2", Some("a")), session("0.2.0", None)],
        next: None,
        has_older: false,
    };
    assert_eq!(
        sessions(&page),
        "\
ID     CLIENT          LISTENER  BACKEND  SOURCE          STATE       AGE   IDLE  TO BACKEND  TO CLIENT
0.1.2  192.0.2.7:1234  front     web/a    10.0.0.9:40000  relaying  1m15s  500ms        10 B    2.0 KiB
0.2.0  192.0.2.7:1234  front     web/-    -               relaying  1m15s  500ms        10 B    2.0 KiB
2 sessions, 20 B to backends, 4.0 KiB to clients
"
    );
}

#[test]
fn a_client_behind_a_balancer_in_front_is_shown_with_both_addresses() {
    let behind = api::Session { peer: Some("10.0.0.2:99".into()), ..session("0.1.2", Some("a")) };
    let page = api::SessionPage { sessions: vec![behind], next: None, has_older: false };
    let text = sessions(&page);
    assert!(text.contains("0.1.2  192.0.2.7:1234 via 10.0.0.2:99  front "), "{text}");
}

#[test]
fn sessions_that_are_over_are_rows_with_their_reason() {
    let over = api::Session {
        state: "ended".into(),
        reason: Some("connect_refused".into()),
        ended_ago: Some(125.0),
        source: None,
        ..session("0.1.2", Some("a"))
    };
    let page = api::SessionPage { sessions: vec![over], next: None, has_older: true };
    assert_eq!(
        ended(&page),
        "\
ID     CLIENT          LISTENER  BACKEND  SOURCE  REASON               ENDED  LASTED  TO BACKEND  TO CLIENT
0.1.2  192.0.2.7:1234  front     web/a    -       connect_refused  2m05s ago   1m15s        10 B    2.0 KiB
1 session, and older ones: see --limit, --since and --reason
"
    );
}

#[test]
fn an_event_is_one_line_whatever_it_holds() {
    let event = api::Event {
        id: 12,
        time: now(),
        kind: api::EventKind::Health,
        pool: Some("web".into()),
        backend: Some("a".into()),
        who: Some("uid 0".into()),
        message: "up\n\u{1b}[2J".into(),
    };
    assert_eq!(
        super::event(&event),
        "2026-01-02 03:04:05Z     12  health       web/a: up\\n\\u{1b}[2J (uid 0)\n"
    );
}

#[test]
fn topology_shows_the_actual_and_the_expected_share_of_each_backend() {
    let share = api::Share {
        backend: "a".into(),
        address: "10.0.0.1:80".into(),
        slots: 330,
        share: 0.33,
        expected: 1.0 / 3.0,
    };
    let pool = |name: &str, slots, backends| api::PoolShares {
        pool: name.into(),
        balance: "source_hash".into(),
        slots,
        backends,
    };
    let both = api::Topology { pools: vec![pool("web", 1000, vec![share]), pool("api", 0, Vec::new())] };
    assert_eq!(
        topology(&both),
        "\
web: source_hash, 1000 slots
BACKEND  ADDRESS      SLOTS  SHARE  BY WEIGHT  OFF BY
web/a    10.0.0.1:80    330  33.0%      33.3%   -0.3%

api: source_hash, no table
BACKEND  ADDRESS  SLOTS  SHARE  BY WEIGHT  OFF BY
"
    );
}

#[test]
fn drains_report_their_progress() {
    let drain = api::Drain {
        pool: Some("web".into()),
        backend: Some("a".into()),
        address: Some("10.0.0.1:80".into()),
        removed: true,
        sessions: 4,
        sessions_at_start: 10,
        age: 6.0,
        deadline: Some(24.0),
        eta: None,
    };
    assert_eq!(
        drains(&api::Drains { process: None, backends: vec![drain] }),
        "\
WHAT   ADDRESS      STATE    SESSIONS  AT START   FOR  CUT IN  DONE IN
web/a  10.0.0.1:80  removed         4        10  6.0s     24s        -
1 backend, 4 sessions left
"
    );
    assert_eq!(drains(&api::Drains { process: None, backends: Vec::new() }), "nothing is being drained\n");
}

#[test]
fn a_reload_reports_each_change_and_the_sessions_it_affects() {
    let change =
        |what: &str, sessions, needs_restart| api::Change { what: what.into(), sessions, needs_restart };
    let changes = vec![
        change("pool \"web\": backend \"a\": removed", 3, false),
        change("global: pin false -> true (needs a restart: x)", 0, true),
    ];
    let report = api::ReloadReport { applied: false, epoch: 7, changes, notes: vec!["file wins".into()] };
    let text = reload(&report);
    assert_eq!(
        text,
        "\
2 changes to apply, 3 sessions would be touched, 1 would wait for a restart, epoch 7 still runs
  pool \"web\": backend \"a\": removed (3 sessions)
  global: pin false -> true (needs a restart: x)
note: file wins
"
    );
    let applied = reload(&api::ReloadReport { applied: true, ..report });
    assert!(
        applied.starts_with("1 change applied, 3 sessions touched, 1 waits for a restart, epoch 7\n"),
        "{applied}"
    );
    let nothing = api::ReloadReport { applied: true, epoch: 7, changes: Vec::new(), notes: Vec::new() };
    assert_eq!(reload(&nothing), "nothing to change, epoch 7\n");
}

#[test]
fn an_explanation_is_a_story_with_its_candidates_and_its_end() {
    let candidate = |backend: &str, chosen, skipped: Option<&str>| api::Candidate {
        backend: backend.into(),
        weight: 1,
        priority: 0,
        chosen,
        skipped: skipped.map(Into::into),
        since: (!chosen).then(|| "eligible since 2026-01-02T03:04:05Z".into()),
        agent: None,
    };
    let ended = api::Explanation {
        session: session("0.1.2", Some("a")),
        story: vec!["accepted by worker 0".into(), "chosen: a".into()],
        candidates: vec![candidate("a", true, None), candidate("b", false, Some("down"))],
        as_of_choice: true,
        end_code: Some("CD".into()),
        end: Some("the client reset its connection".into()),
    };
    assert_eq!(
        explanation(&ended),
        "\
session 0.1.2: 192.0.2.7:1234 through front on web/a
  1. accepted by worker 0
  2. chosen: a

the pool when it chose:
CANDIDATE  WEIGHT  VERDICT        SINCE THEN
web/a           1  chosen         -
web/b           1  skipped: down  eligible since 2026-01-02T03:04:05Z

ended CD: the client reset its connection
"
    );
    let running = api::Explanation { end_code: None, end: None, ..ended };
    assert!(explanation(&running).ends_with("\nruns: relaying, 1m15s old, idle for 500ms\n"));
    let forgotten = api::Explanation { as_of_choice: false, ..running };
    let as_of_now = "\nthe pool as of now; how it was when it chose is not known any more:\nCANDIDATE";
    assert!(explanation(&forgotten).contains(as_of_now));
    let candidates =
        vec![api::Candidate { agent: Some("75% drain".into()), ..candidate("b", false, Some("in drain")) }];
    let with_agent = explanation(&api::Explanation { candidates, ..forgotten });
    assert!(with_agent.contains("  SINCE THEN                           AGENT NOW\n"), "{with_agent}");
    assert!(with_agent.contains("eligible since 2026-01-02T03:04:05Z  75% drain\n"), "{with_agent}");
}

#[test]
fn the_words_of_an_agent_stand_behind_the_reason() {
    let agent = api::Agent {
        weight: Some("75%".into()),
        admin: Some(api::Admin::Drain),
        note: Some("\"rolling\"".into()),
        ..api::Agent::default()
    };
    let drained = api::Backend {
        admin: api::Admin::Drain,
        admin_by: Some("agent".into()),
        admin_since: Some(now()),
        eligible: false,
        agent: Some(agent),
        ..backend("a")
    };
    let since = format!("drained by agent since {:.0}", now());
    let reason = format!("{since}; agent says 75% drain \"rolling\"\n");
    assert!(backends(std::slice::from_ref(&drained), now()).contains(&reason), "{reason}");
    assert!(changed(&drained).ends_with(&format!("has 7 sessions, {since}\n")), "{}", changed(&drained));
    let untouched = api::Backend { agent: Some(api::Agent::default()), ..backend("a") };
    assert!(backends(&[untouched], now()).contains(" connected\n"), "an agent that has said nothing");
}

#[test]
fn counters_that_were_cleared_are_shown_from_then_on_with_the_time() {
    let cleared = api::ClearedBackend {
        since: now(),
        sessions_total: 990,
        dial_failures: 2,
        to_backend: 1_024,
        to_client: 2 << 20,
    };
    let a = api::Backend { cleared: Some(cleared), ..backend("a") };
    let shown = backends(&[a, backend("b")], now());
    let row = shown.lines().find(|line| line.starts_with("web/a")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[5..12], ["7", "10", "0", "512", "B", "1.0", "MiB"], "{shown}");
    assert!(shown.contains("\nweb/b ") && shown.contains("  1000  "), "{shown}");
    assert!(shown.ends_with("\n1 backend counted since 2026-01-02 03:04:05Z\n"), "{shown}");
}
