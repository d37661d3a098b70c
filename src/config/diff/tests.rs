//! Each key is reported alone, and a configuration differs from itself in nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;
use crate::admission::Item;
use crate::balance::Algorithm;
use crate::config::model::{self, HealthState, LogFormat, OnRemove, Relay, WhenAllDown};
use crate::config::model::{Check, Expect};
use crate::config::{self, Overrides};

const BASE: &str = r#"
    [global]
    workers = 2
    access_log = { path = "/a" }
    log = { target = "syslog" }
    user = "a"
    [[listener]]
    name = "in"
    bind = "127.0.0.1:9090"
    pool = "web"
    [[listener]]
    name = "gone"
    bind = "127.0.0.1:9091"
    pool = "db"
    [[pool]]
    name = "web"
    backend = [{ name = "a", address = "10.0.0.1:80" }, { name = "b", address = "10.0.0.2:80" }]
    [[pool]]
    name = "db"
    backend = [{ name = "a", address = "10.0.0.1:80" }]
"#;

type Edit = fn(&mut Config);

fn app() -> FurtherCheck {
    FurtherCheck {
        name: "app".into(),
        check: Check::Redis,
        written: BTreeMap::new(),
        secrets: Vec::new(),
        port: None,
    }
}

fn syslog(config: &mut Config) -> &mut model::Syslog {
    match &mut config.global.log_target {
        LogTarget::Syslog(syslog) => syslog,
        LogTarget::StandardError => panic!("the base has syslog"),
    }
}

fn access(allow: &[&str], deny: &[&str]) -> Arc<Access> {
    let items = |list: &[&str]| list.iter().map(|text| Item::Network(text.parse().unwrap())).collect();
    Arc::new(Access::new(items(allow), items(deny)))
}

fn web(config: &mut Config) -> &mut Pool {
    &mut config.pools[0]
}

/// One edit per key of the file, and the line that reports it.
const EDITS: &[(Edit, &str)] = &[
    (|c| c.global.workers = c.global.workers.saturating_add(1), "global: workers 2 -> 3"),
    (
        |c| c.global.pin = true,
        "global: pin false -> true (needs a restart: a thread is bound to its processor when it starts)",
    ),
    (|c| c.global.splice = false, "global: splice true -> false"),
    (
        |c| c.global.busy_poll = Duration::from_micros(50),
        "global: busy_poll 0s -> 50us (needs a restart: the loop of a worker is made with it)",
    ),
    (|c| c.global.max_sessions = NonZeroUsize::new(7), "global: max_sessions (not set) -> 7"),
    (|c| c.global.drain_timeout = Duration::from_secs(3), "global: drain_timeout 30s -> 3s"),
    (|c| c.global.watch = true, "global: watch false -> true"),
    (|c| c.global.shutdown_delay = Duration::from_secs(3), "global: shutdown_delay 0s -> 3s"),
    (|c| c.global.reload_timeout = Duration::from_secs(3), "global: reload_timeout 30s -> 3s"),
    (|c| c.global.resolve = model::Resolve::Require, "global: resolve keep_trying -> require"),
    (|c| c.global.log_level = log::LevelFilter::Warn, "global: log.level info -> warn"),
    (|c| c.global.log_format = LogFormat::Json, "global: log.format text -> json"),
    (
        |c| c.global.log_fields = Some(vec!["session", "reason"]),
        "global: log.fields (not set) -> session,reason",
    ),
    (|c| syslog(c).socket = "/run/b".into(), "global: log.socket /dev/log -> /run/b"),
    (|c| syslog(c).header = model::SyslogHeader::Local, "global: log.header rfc5424 -> local"),
    (|c| syslog(c).app_name = "lb".into(), "global: log.app_name l4lb -> lb"),
    (|c| syslog(c).facility = model::Facility::named()[12].1, "global: log.facility daemon -> local0"),
    (|c| c.global.access_log.as_mut().unwrap().path = "/b".into(), "global: access_log.path /a -> /b"),
    (|c| c.global.session_lines.at_start = true, "global: access_log.at end -> start,end"),
    (
        |c| c.global.session_lines.every = Some(Duration::from_secs(300)),
        "global: access_log.every (not set) -> 5m",
    ),
    (
        |c| c.global.access_log.as_mut().unwrap().format = LogFormat::Json,
        "global: access_log.format text -> json",
    ),
    (
        |c| c.global.user.as_mut().unwrap().user = "b".into(),
        "global: user a -> b (needs a restart: the user is set once, when all listeners are bound)",
    ),
    (
        |c| c.global.user.as_mut().unwrap().group = Some("g".into()),
        "global: group (not set) -> g (needs a restart: the user is set once, when all listeners are bound)",
    ),
    (
        |c| c.admin.socket = model::AdminSocket::Off,
        "admin: socket default -> false (needs a restart: the socket is opened once)",
    ),
    (
        |c| c.admin.state_file = Some("/s".into()),
        "admin: state_file (not set) -> /s (needs a restart: it is read once, at the start)",
    ),
    (|c| c.admin.metrics = Some(([127, 0, 0, 1], 9).into()), "admin: metrics (not set) -> 127.0.0.1:9"),
    (|c| c.listeners[0].bind.set_port(1), "listener \"in\": bind 127.0.0.1:9090 -> 127.0.0.1:1"),
    (|c| c.listeners[0].pool = 1, "listener \"in\": pool web -> db"),
    (|c| c.listeners[0].backlog = 5, "listener \"in\": backlog 4096 -> 5"),
    (|c| c.listeners[0].accept = model::Accept::Balance, "listener \"in\": accept reuseport -> balance"),
    (|c| c.listeners[0].max_sessions = NonZeroUsize::new(8), "listener \"in\": max_sessions (not set) -> 8"),
    (
        |c| c.listeners[0].access = Some(access(&["10.0.0.0/8", "::1"], &[])),
        "listener \"in\": allow (not set) -> 10.0.0.0/8,::1",
    ),
    (
        |c| c.listeners[0].access = Some(access(&[], &["10.0.0.1"])),
        "listener \"in\": deny (not set) -> 10.0.0.1",
    ),
    (|c| c.listeners[0].on_refuse = model::OnRefuse::Close, "listener \"in\": on_refuse reset -> close"),
    (
        |c| c.listeners[0].timeouts.connect = Duration::from_millis(1500),
        "listener \"in\": timeouts.connect 5s -> 1s500ms",
    ),
    (|c| c.listeners[0].timeouts.idle = Duration::from_secs(60), "listener \"in\": timeouts.idle 1h -> 1m"),
    (
        |c| c.listeners[0].timeouts.half_close = Duration::from_secs(1),
        "listener \"in\": timeouts.half_close 30s -> 1s",
    ),
    (|c| web(c).balance = Algorithm::Random, "pool \"web\": balance round_robin -> random"),
    (|c| web(c).retries = 9, "pool \"web\": retries 2 -> 9"),
    (|c| web(c).when_all_down = WhenAllDown::TryAnyway, "pool \"web\": when_all_down close -> try_anyway"),
    (|c| web(c).relay = Relay::Copy, "pool \"web\": relay auto -> copy"),
    (|c| web(c).on_remove = OnRemove::Keep, "pool \"web\": on_remove drain -> keep"),
    (|c| web(c).drain_timeout = Duration::ZERO, "pool \"web\": drain_timeout 30s -> 0s"),
    (|c| web(c).timeouts.connect = Duration::from_secs(1), "pool \"web\": timeouts.connect 5s -> 1s"),
    (|c| web(c).timeouts.idle = Duration::from_secs(1), "pool \"web\": timeouts.idle 1h -> 1s"),
    (|c| web(c).timeouts.half_close = Duration::from_secs(1), "pool \"web\": timeouts.half_close 30s -> 1s"),
    (|c| web(c).tcp.nodelay = false, "pool \"web\": tcp.nodelay true -> false"),
    (
        |c| web(c).tcp.keepalive = None,
        "pool \"web\": tcp.keepalive { idle = 1m, interval = 15s, count = 4 } -> false",
    ),
    (|c| web(c).tcp.user_timeout = None, "pool \"web\": tcp.user_timeout 30s -> 0s"),
    (|c| web(c).health.check = Check::Off, "pool \"web\": health.type tcp -> off"),
    (|c| web(c).health.interval = Duration::from_secs(9), "pool \"web\": health.interval 2s -> 9s"),
    (
        |c| web(c).health.fast_interval = Duration::from_secs(1),
        "pool \"web\": health.fast_interval 500ms -> 1s",
    ),
    (|c| web(c).health.timeout = Duration::from_secs(2), "pool \"web\": health.timeout 1s -> 2s"),
    (|c| web(c).health.more.push(app()), "pool \"web\": check \"app\": added"),
    (|c| web(c).health.rise = 9, "pool \"web\": health.rise 2 -> 9"),
    (|c| web(c).health.fall = 9, "pool \"web\": health.fall 3 -> 9"),
    (|c| web(c).health.jitter_percent = 0, "pool \"web\": health.jitter_percent 10 -> 0"),
    (|c| web(c).health.port = Some(81), "pool \"web\": health.port (not set) -> 81"),
    (
        |c| web(c).health.initial_state = HealthState::Down,
        "pool \"web\": health.initial_state unknown -> down",
    ),
    (
        |c| web(c).backends[0].address = ([10, 0, 0, 1], 81).into(),
        "pool \"web\": backend \"a\": address 10.0.0.1:80 -> 10.0.0.1:81",
    ),
    (|c| web(c).backends[0].weight = 3, "pool \"web\": backend \"a\": weight 1 -> 3"),
    (|c| web(c).backends[0].priority = 15, "pool \"web\": backend \"a\": priority 0 -> 15"),
    (
        |c| web(c).backends[0].check.address = Some([10, 0, 0, 9].into()),
        "pool \"web\": backend \"a\": check.address (not set) -> 10.0.0.9",
    ),
    (|c| web(c).backends[0].check.port = Some(81), "pool \"web\": backend \"a\": check.port (not set) -> 81"),
    (
        |c| web(c).backends[0].check.interval = Some(Duration::from_secs(9)),
        "pool \"web\": backend \"a\": check.interval (not set) -> 9s",
    ),
    (|c| _ = web(c).backends.pop(), "pool \"web\": backend \"b\": removed"),
];

fn lines(old: &Config, new: &Config) -> Vec<String> {
    diff(old, new).iter().map(Change::to_string).collect()
}

fn base() -> Config {
    parse(BASE)
}

fn parse(text: &str) -> Config {
    let no_names = &mut |_: &str| Ok(Vec::new());
    let config = config::parse(text, "test", &Overrides::default(), no_names);
    config.unwrap_or_else(|errors| panic!("{errors:?}\n{text}"))
}

#[test]
fn each_changed_key_is_reported_alone_and_as_the_file_spells_it() {
    for (edit, line) in EDITS {
        let mut new = base();
        edit(&mut new);
        assert_eq!(lines(&base(), &new), [*line]);
    }
}

#[test]
fn keys_that_need_a_restart_wait_and_all_others_apply() {
    for (edit, line) in EDITS {
        let mut new = base();
        edit(&mut new);
        let settled = config::settle(&base(), &new);
        let is_left = |changes: Vec<Change>| changes.iter().any(|change| change.needs_restart.is_some());
        let needs_restart = line.contains("(needs a restart");
        assert_eq!((settled == new, settled == base()), (!needs_restart, needs_restart), "{line}");
        assert!(!is_left(diff(&base(), &settled)) && is_left(diff(&settled, &new)) == needs_restart);
    }
}

#[test]
fn backends_that_change_in_one_answer_are_reported_together() {
    let (old, mut new) = (base(), base());
    new.listeners.remove(1);
    new.pools.remove(1);
    assert_eq!(lines(&old, &new), ["listener \"gone\": removed", "pool \"db\": removed"]);
    assert_eq!(lines(&new, &old), ["listener \"gone\": added", "pool \"db\": added"]);
}

#[test]
fn a_further_check_is_compared_by_its_name() {
    let (mut before, mut after) = (base(), base());
    web(&mut before).health.more.push(app());
    let check = Check::Postgres { user: "l4lb".into() };
    web(&mut after).health.more.push(FurtherCheck { check, port: Some(81), ..app() });
    assert_eq!(
        lines(&before, &after),
        [
            "pool \"web\": check \"app\": type redis -> postgres",
            "pool \"web\": check \"app\": user (not set) -> l4lb",
            "pool \"web\": check \"app\": port (not set) -> 81",
        ]
    );
}

#[test]
fn the_order_of_the_file_is_no_difference() {
    let old = base();
    let mut new = base();
    new.pools.reverse();
    new.listeners.reverse();
    new.listeners.iter_mut().for_each(|listener| listener.pool = 1 - listener.pool);
    new.pools[1].backends.reverse();
    assert!(old != new && lines(&old, &new).is_empty());
}

#[test]
fn another_kind_of_check_reports_the_keys_of_both() {
    let http = |path: &str| Check::Http { path: path.into(), host: None, status: 200 };
    let says = |expect| Check::SendExpect { send: b"PING\r\n".into(), expect };
    let [prefix, contained] = [Expect::Prefix(b"+".into()), Expect::Contains(b"OK".into())];
    for (old, new, expected) in [
        (http("/"), http("/x"), &["path / -> /x"][..]),
        (Check::Tcp, http("/"), &["type tcp -> http", "path (not set) -> /", "status (not set) -> 200"]),
        (says(prefix), says(contained), &["expect \"+\" -> (not set)", "contains (not set) -> \"OK\""]),
    ] {
        let (mut before, mut after) = (base(), base());
        (web(&mut before).health.check, web(&mut after).health.check) = (old, new);
        let expected: Vec<String> =
            expected.iter().map(|key| format!("pool \"web\": health.{key}")).collect();
        assert_eq!(lines(&before, &after), expected);
    }
}

proptest! {
    #[test]
    fn a_configuration_differs_from_itself_in_nothing_and_from_any_other_in_something(
        one in subsequence(EDITS.to_vec(), 0..=EDITS.len()),
        other in subsequence(EDITS.to_vec(), 0..=EDITS.len()),
    ) {
        let [one, other] = [one, other].map(|edits| {
            let mut config = base();
            edits.iter().for_each(|(edit, _)| edit(&mut config));
            config
        });
        prop_assert_eq!(diff(&one, &one), []);
        prop_assert_eq!(diff(&one, &other).is_empty(), one == other);
        prop_assert_eq!(diff(&one, &other).len(), diff(&other, &one).len());
    }
}
