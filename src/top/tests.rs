//! Screens as text, and the samples they are made from.

use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::app::{App, Column, Key, KeyAction, Mode, News};
use super::screen;
use crate::api;
use crate::base::time::Instant;

fn second(count: u64) -> Instant {
    Instant::default() + Duration::from_secs(count)
}

/// Returns a point in time, `seconds` after a fixed one.
fn time(seconds: i64) -> jiff::Timestamp {
    let noon: jiff::Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
    noon + SignedDuration::from_secs(seconds)
}

pub(super) fn status(pid: u32) -> api::Status {
    api::Status {
        version: "0.1.0".into(),
        pid,
        started: time(-7_500),
        uptime: 7_500.0,
        stage: api::Stage::Serving,
        epoch: 7,
        workers: Vec::new(),
        totals: api::Totals::default(),
        reload: api::Reload::default(),
        announce: None,
        log_lines_dropped: 0,
        not_ready: None,
        restart_pending: None,
        state_file_failures: 0,
        not_saved: None,
        cleared: None,
        may_change: true,
    }
}

pub(super) fn backend(name: &str) -> api::Backend {
    api::Backend {
        pool: "web".into(),
        name: name.into(),
        address: format!("10.0.0.{}:80", name.len()),
        weight: 1,
        priority: 0,
        admin: api::Admin::Ready,
        health: api::Health::Up,
        health_override: false,
        admin_by: None,
        admin_since: None,
        health_reason: None,
        health_since: None,
        checks: Vec::new(),
        eligible: true,
        sessions: 0,
        sessions_total: 0,
        dial_failures: 0,
        to_backend: 0,
        to_client: 0,
        source: api::Source::Config,
        placed: None,
        lease_left: None,
        agent: None,
        cleared: None,
    }
}

/// Returns a sample taken `seconds` after the start.
pub(super) fn sample(seconds: i64, backends: Vec<api::Backend>) -> api::Sample {
    let pool = api::Pool {
        name: "web".into(),
        balance: "round_robin".into(),
        backends: backends.len() as u64,
        eligible: backends.iter().filter(|backend| backend.eligible).count() as u64,
        sessions: backends.iter().map(|backend| backend.sessions).sum(),
    };
    api::Sample {
        time: time(seconds),
        stage: api::Stage::Serving,
        epoch: 7,
        totals: api::Totals::default(),
        pools: vec![pool],
        backends,
        connect: api::Latency::default(),
        duration: api::Latency::default(),
        cleared: None,
    }
}

/// Returns a sample with four backends, one of each kind, `seconds` after the start.
fn four(seconds: u64) -> api::Sample {
    // The load rises and falls.
    let served: u64 = (0..seconds).map(|second| 40 + (second * 7) % 60).sum();
    let row = |name: &str, host: u8, share: u64| api::Backend {
        address: format!("10.0.0.{host}:80"),
        sessions: share,
        sessions_total: served * share / 100,
        to_backend: served * share * 8,
        to_client: served * share * 900,
        health_since: Some(time(-6_000)),
        health_reason: Some("tcp check passed in 0.3ms".into()),
        ..backend(name)
    };
    let a = api::Backend { weight: 3, ..row("a", 1, 60) };
    let b = api::Backend {
        admin: api::Admin::Drain,
        eligible: false,
        to_client: served * 90_000,
        ..row("b", 2, 40)
    };
    let c = api::Backend {
        health: api::Health::Down,
        eligible: false,
        dial_failures: 2 * seconds,
        health_since: Some(time(-123)),
        health_reason: Some("connection refused".into()),
        ..row("c", 3, 0)
    };
    let d = api::Backend {
        weight: 256,
        priority: 15,
        health_since: None,
        health_reason: None,
        health: api::Health::Unknown,
        lease_left: Some(7.5),
        source: api::Source::Api,
        ..row("d", 4, 0)
    };
    let mut sample = sample(i64::try_from(seconds).unwrap(), vec![a, b, c, d]);
    sample.totals = api::Totals {
        sessions: 100,
        accepted: served,
        closed: [("done".into(), served - seconds / 10), ("connect_refused".into(), seconds / 10)].into(),
        to_backend: served * 800,
        to_client: served * 90_000,
        ..api::Totals::default()
    };
    let p99 = (!seconds.is_multiple_of(9)).then_some(0.000_4 + (seconds % 5) as f64 * 0.000_3);
    sample.connect = api::Latency { count: 50, p50: p99, p90: p99, p99 };
    sample
}

fn events() -> Vec<api::Event> {
    let event = |id, seconds, kind, backend: Option<&str>, who: Option<&str>, message: &str| api::Event {
        id,
        time: time(seconds),
        kind,
        pool: backend.map(|_| "web".to_owned()),
        backend: backend.map(str::to_owned),
        who: who.map(str::to_owned),
        message: message.into(),
    };
    use api::EventKind::{Backend, Health, Process, Reload};
    vec![
        event(1, -7_500, Process, None, None, "started, epoch 0"),
        event(2, -6_000, Reload, None, Some("SIGHUP"), "3 changes applied, epoch 6"),
        event(3, -123, Health, Some("c"), None, "down: connection refused"),
        event(4, 50, Backend, Some("b"), Some("uid 0"), "ready -> drain"),
    ]
}

/// Returns the state after watching the four backends for two minutes.
pub(super) fn app() -> App {
    let mut app = App::new("/run/l4lb/admin.sock".into(), Duration::from_secs(1));
    app.on_news(News::Reached(Box::new(status(7))), second(0));
    for seconds in 0..=120 {
        app.on_news(News::Sample(Box::new(four(seconds)), events()), second(seconds));
    }
    app
}

fn drawn(app: &mut App, now: Instant, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let drawn = terminal.draw(|frame| {
        let rows = screen::rows_on(app, frame.area());
        app.set_page(rows);
        screen::draw(app, now, frame.area(), frame.buffer_mut());
    });
    drawn.unwrap();
    screen::text(terminal.backend().buffer())
}

#[track_caller]
fn expect_screen(text: &str, expected: &str) {
    assert!(text == expected, "drawn:\n{text}\nexpected:\n{expected}");
}

#[test]
fn a_screen_of_140_by_40_shows_everything() {
    expect_screen(&drawn(&mut app(), second(120), 140, 40), include_str!("tests/top.txt"));
}

#[test]
fn a_screen_of_80_by_24_shows_what_matters() {
    let mut app = app();
    app.on_key(Key::Down, second(120));
    app.on_key(Key::Down, second(120));
    expect_screen(&drawn(&mut app, second(120), 80, 24), include_str!("tests/top-80x24.txt"));
}

#[test]
fn the_sort_column_is_shown_on_the_narrowest_screen() {
    let mut app = app();
    app.column = Column::Failures;
    app.reversed = true;
    let text = drawn(&mut app, second(120), 24, 9);
    let table: Vec<&str> = text.lines().skip(2).take(5).collect();
    let expected = [
        "BACKEND    SESS  FAIL/S\u{2191}",
        "web/d         0        0",
        "web/b        40        0",
        "web/a        60        0",
        "web/c         0      2.0",
    ];
    assert_eq!(table, expected);
}

#[test]
fn each_state_shows_its_keys() {
    let mut app = app();
    let line = |app: &mut App, now, at: usize| {
        let text = drawn(app, now, 100, 24);
        text.lines().nth(at).unwrap_or_default().to_owned()
    };
    let foot = |app: &mut App| line(app, second(120), 23);
    assert!(foot(&mut app).starts_with("q quit  ? help"));
    app.on_key(Key::Char('d'), second(120));
    assert_eq!(foot(&mut app), "drain web/a, which has 60 sessions?  Enter: yes  Esc: no");
    app.on_key(Key::Enter, second(120));
    assert_eq!(foot(&mut app), "drain web/a ...");
    app.on_news(News::Answer("web/a: drain is set".into()), second(120));
    assert_eq!(foot(&mut app), "web/a: drain is set");
    "/DOWN".chars().for_each(|char| drop(app.on_key(Key::Char(char), second(120))));
    assert_eq!(foot(&mut app), "/DOWN\u{2588}  Enter keeps it, Esc shows all");
    assert!(drawn(&mut app, second(120), 100, 24).contains("1-1 of 1 backend of 4 with \"DOWN\"  web/c at"));
    assert_eq!(line(&mut app, second(125), 1), "no data for 5.0s: it is stopped, or very busy");
    app.on_news(News::Lost("cannot reach l4lb".into()), second(125));
    assert_eq!(line(&mut app, second(125), 1), "not reached, trying again: cannot reach l4lb");
    app.mode = Mode::Help;
    assert!(drawn(&mut app, second(125), 100, 24).contains("any key goes back"));
}

#[test]
fn before_the_first_sample_the_screen_shows_what_it_waits_for() {
    let mut app = App::new("/run/l4lb/admin.sock".into(), Duration::from_secs(1));
    let text = drawn(&mut app, second(0), 60, 10);
    assert!(text.contains("l4lb") && text.contains("/run/l4lb/admin.sock"), "{text}");
    assert!(text.contains("waiting for the first sample") && text.contains("0-0 of 0 backends"), "{text}");
}

fn source(name: &str, state: &str, backends: u64) -> api::Discovery {
    api::Discovery {
        pool: "web".into(),
        source: name.into(),
        state: state.into(),
        since: time(-60),
        age: Some(62.0),
        next: Some(1.5),
        backends,
        note: None,
        left_out: Vec::new(),
    }
}

#[test]
fn sources_say_what_they_find_and_whether_that_is_old() {
    let mut app = app();
    let failed =
        api::Discovery { note: Some("request timed\nout".into()), ..source("dns:a:80", "failed", 4) };
    let waiting = api::Discovery { age: None, next: None, ..source("dns:b:80", "waiting", 0) };
    app.on_news(News::Sources(vec![source("dns:c:80", "found", 1), failed, waiting]), second(120));
    let text = drawn(&mut app, second(120), 130, 24);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("web  dns:")).collect();
    let expected = [
        "web  dns:a:80  failed for 3m00s, last good list kept, answered 1m02s ago, 4 backends, next query in 1.5s: \
         request timed\\nout",
        "web  dns:b:80  waiting for 3m00s, no answer yet, 0 backends",
        "web  dns:c:80  found for 3m00s, answered 1m02s ago, 1 backend, next query in 1.5s",
    ];
    assert_eq!(lines, expected);
    assert!(text.contains("1-4 of 4 backends"), "they take no row of a backend from this screen:\n{text}");
    let many = (0..9).map(|number| source(&format!("dns:{number}:80"), "found", 1)).collect();
    app.on_news(News::Sources(many), second(120));
    assert!(drawn(&mut app, second(120), 130, 24).contains("and 6 more sources, 0 of them not found"));
    app.on_news(News::Sources(Vec::new()), second(120));
    assert!(!drawn(&mut app, second(120), 130, 24).contains("dns:"));
}

#[test]
fn a_page_follows_the_selected_row() {
    let mut app = App::new("here".into(), Duration::from_secs(1));
    let rows: Vec<api::Backend> = (0..1_000).map(|number| backend(&format!("{number:03}"))).collect();
    let mut given = sample(0, rows);
    given.pools[0].backends = 1_200;
    app.on_news(News::Sample(Box::new(given), Vec::new()), second(0));
    assert!(drawn(&mut app, second(0), 80, 24).contains("1-11 of 1000 backends, 200 more in no sample"));
    app.on_key(Key::End, second(0));
    let text = drawn(&mut app, second(0), 80, 24);
    assert!(text.contains("web/999") && text.contains("991-1000 of 1000 backends"), "{text}");
    assert_eq!(screen::height_for(&app, 1_000, 24), 1_012, "all of them when they are printed");
    assert_eq!(screen::height_for(&app, 3, 24), 24);
}

#[test]
fn it_opens_with_what_has_just_happened() {
    let mut app = App::new("here".into(), Duration::from_secs(1));
    app.on_news(News::Reached(Box::new(status(7))), second(0));
    let past = api::History {
        seconds: vec![1.0; 3],
        totals: api::Series {
            opened: vec![Some(5), Some(40), Some(20)],
            to_backend: vec![Some(0); 3],
            to_client: vec![Some(0), Some(0), Some(4096)],
            ..api::Series::default()
        },
        connect_p99: vec![None, Some(0.002), None],
        events: events(),
        ..api::History::default()
    };
    app.on_news(News::Past(Box::new(past.clone())), second(0));
    let text = drawn(&mut app, second(0), 120, 24);
    for words in
        ["conn/s 20, peak 40", "bytes/s 4.0 KiB, peak 4.0 KiB", "peak 2.00ms", "web/b: ready -> drain"]
    {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
    // A stream that ends in time is followed by another: the charts have all of it already.
    app.on_news(News::Sample(Box::new(four(0)), events()), second(1));
    app.on_news(News::Sample(Box::new(four(1)), events()), second(2));
    app.on_news(News::Past(Box::default()), second(2));
    assert!(drawn(&mut app, second(2), 120, 24).contains("peak 40"));
}

#[test]
fn a_refused_reload_is_shown_until_a_key_dismisses_it_and_panels_take_turns() {
    let mut app = app();
    let refused = api::RefusedReload { number: 3, time: time(100), who: "SIGHUP".into(), dismissed_by: None };
    let reload = api::Reload {
        failed: 3,
        errors: vec!["l4lb.toml:3: no".into(), "l4lb.toml:4: no".into()],
        refused: Some(refused.clone()),
        ..api::Reload::default()
    };
    let with = |reload: &api::Reload, may_change| {
        let status = api::Status { reload: reload.clone(), may_change, ..status(7) };
        News::Reached(Box::new(status))
    };
    app.on_news(with(&reload, true), second(120));
    let text = drawn(&mut app, second(120), 120, 24);
    let words = "x dismisses it: reload refused 20s ago by SIGHUP: l4lb.toml:3: no and 1 more";
    assert!(text.contains(words), "{text}");
    assert_eq!(app.on_key(Key::Char('x'), second(120)), Some(KeyAction::Dismiss(3)));
    app.on_news(with(&reload, false), second(120));
    assert!(
        drawn(&mut app, second(120), 120, 24).contains("  read-only"),
        "no key is shown that would be refused"
    );
    for key in ['x', 'd'] {
        assert_eq!(app.on_key(Key::Char(key), second(120)), None);
        assert_eq!(app.notice(second(120)), Some("this token is read-only: nothing was changed"));
    }
    let dismissed = api::RefusedReload { dismissed_by: Some("uid 0".into()), ..refused };
    app.on_news(with(&api::Reload { refused: Some(dismissed), ..reload }, true), second(120));
    assert!(!drawn(&mut app, second(120), 120, 24).contains("reload refused"));
    let listener =
        api::Listener { name: "in".into(), pool: "web".into(), accepted: 9, ..api::Listener::default() };
    app.on_news(News::Listeners(vec![listener]), second(120));
    for words in [
        "in at  -> web: 0 sessions, 9 accepted",
        "sessions with most bytes, o: the oldest\nasking for them",
        "connect_refused",
        "refused 20s ago by SIGHUP, dismissed by uid 0",
        "events",
    ] {
        app.on_key(Key::Char('v'), second(120));
        let text = drawn(&mut app, second(120), 120, 24);
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
}

#[test]
fn the_sessions_that_move_most_are_shown_and_a_key_changes_their_order() {
    let mut app = app();
    assert_eq!(app.wanted_sessions(), None, "no question is asked for what nobody sees");
    let session = |client: &str, backend: Option<&str>, age, to_client| api::Session {
        id: "0.1.2".into(),
        listener: "in".into(),
        pool: "web".into(),
        backend: backend.map(str::to_owned),
        backend_address: None,
        client: client.into(),
        source: None,
        peer: None,
        sni: None,
        alpn: None,
        route: None,
        state: "relaying".into(),
        age,
        idle: 0.25,
        to_backend: 300,
        to_client,
        reason: None,
        ended_ago: None,
    };
    app.on_key(Key::Char('v'), second(120));
    app.on_key(Key::Char('v'), second(120));
    assert_eq!(app.wanted_sessions(), Some(api::SessionSort::Bytes));
    let bytes = vec![
        session("192.0.2.1:4242", Some("a"), 61.0, 5 << 20),
        session("[2001:db8::1]:1", None, 3.0, 0),
        session("evil\n:1", Some("b"), 3.0, 0),
    ];
    app.on_news(News::Sessions(api::SessionSort::Bytes, bytes), second(120));
    let text = drawn(&mut app, second(120), 120, 40);
    let expected = "sessions with most bytes, o: the oldest\n\
        192.0.2.1:4242  -> web/a: 300 B in, 5.0 MiB out, open for 1m01s, silent for 250ms, relaying, 0.1.2\n\
        [2001:db8::1]:1 -> web/-: 300 B in, 0 B out, open for 3.0s, silent for 250ms, relaying, 0.1.2\n\
        evil\\n:1";
    assert!(text.contains(expected), "{text}");
    // What was asked before comes late.
    app.on_key(Key::Char('o'), second(120));
    app.on_news(News::Sessions(api::SessionSort::Bytes, Vec::new()), second(120));
    assert!(drawn(&mut app, second(120), 120, 24).contains("oldest sessions, o: the longest silent\nasking"));
    app.on_news(News::Sessions(api::SessionSort::Age, Vec::new()), second(120));
    assert!(drawn(&mut app, second(120), 120, 24).contains("the longest silent\nnone is open"));
    app.on_key(Key::Char('o'), second(120));
    assert_eq!(app.wanted_sessions(), Some(api::SessionSort::Idle));
    app.on_key(Key::Char('o'), second(120));
    assert_eq!(app.wanted_sessions(), Some(api::SessionSort::Bytes));
    app.on_key(Key::Char('v'), second(120));
    assert_eq!(app.wanted_sessions(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_size_is_too_small_or_too_strange(
        width in 1_u16..200,
        height in 1_u16..60,
        narrow in 1_u16..12,
        name in ".{0,40}",
        mode in 0_usize..4,
    ) {
        let mut app = app();
        let mut strange = four(121);
        strange.backends[0].name = name.clone();
        strange.backends[1].health_reason = Some(name.clone());
        app.on_news(News::Sample(Box::new(strange), events()), second(121));
        app.on_news(News::Sources(vec![source(&name, &name, 1); mode * 2]), second(121));
        if let Some(key) = [None, Some('?'), Some('d'), Some('/')][mode] {
            app.on_key(Key::Char(key), second(121));
            name.chars().for_each(|char| drop(app.on_key(Key::Char(char), second(121))));
        }
        for (width, height) in [(width, height), (narrow, height), (width, narrow), (1, 1), (narrow, 1), (1, narrow)] {
            let text = drawn(&mut app, second(121), width, height);
            prop_assert!(text.lines().count() <= usize::from(height));
        }
    }
}
