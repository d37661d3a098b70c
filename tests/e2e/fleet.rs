//! `[fleet]`: what balancers publish in etcd, and what each shows of all.

use l4lb::api;
use serde_json::Value;

use crate::discovery::{A1, backends, ctl};
use crate::harness::daemon::Daemon;
use crate::harness::fake_etcd::FakeEtcd;
use crate::harness::lab::IPV4;
use crate::harness::peer::{UNAVAILABLE, until};
use crate::harness::program::output;
use crate::register_etcd::loses;

const KEY: &str = "/l4lb-fleet/balancers/lb1";

/// A pool "web" with a backend "a" at that port, and `[fleet]` with that name and these keys.
fn config(etcd: &FakeEtcd, port: u16, name: &str, keys: &str) -> String {
    let fleet =
        format!("[fleet]\nendpoints = [\"{}\"]\nname = \"{name}\"\nlease = \"2s\"\n{keys}\n", etcd.at);
    format!("{fleet}{}", without(port))
}

fn without(port: u16) -> String {
    format!(
        "[[pool]]\nname = \"web\"\nhealth = {{ type = \"off\" }}\nbackend = [{{ name = \"a\", address = \"{A1}:{port}\" }}]\n"
    )
}

/// The value of a key under a lease that lasts.
fn value(etcd: &FakeEtcd, key: &str) -> Option<Value> {
    let state = etcd.state();
    let (value, lease) = state.keys.get(key.as_bytes())?;
    let is_kept = state.leases.contains_key(lease);
    is_kept.then(|| serde_json::from_slice(value).expect("JSON"))
}

fn is_there(etcd: &FakeEtcd) -> bool {
    value(etcd, KEY).is_some()
}

fn fleet(daemon: &Daemon) -> api::Fleet {
    daemon.admin().get("/v1/fleet").expect("a fleet")
}

fn names(daemon: &Daemon) -> Vec<String> {
    fleet(daemon).balancers.into_iter().map(|balancer| balancer.name).collect()
}

#[test]
fn each_balancer_shows_all_of_them_and_where_they_differ() {
    let etcd = FakeEtcd::start();
    let port = backends(&[A1]);
    let first = Daemon::start(&config(&etcd, port, "lb1", ""), IPV4);
    let second = Daemon::start(&config(&etcd, port, "lb2", ""), IPV4);
    for daemon in [&first, &second] {
        until("both are known", || names(daemon) == ["lb1", "lb2"]);
        until("its own keys are there", || fleet(daemon).published);
    }
    let known = fleet(&first);
    assert_eq!((known.name.as_str(), known.disagreements_total), ("lb1", 0));
    let [one, two] = &known.balancers[..] else { panic!("{known:?}") };
    // They have other ports.
    assert_eq!((one.differs, two.differs), (false, one.config != two.config));
    let web = api::FleetPool { backends: 1, up: 1, eligible: 1 };
    assert_eq!((&one.pools["web"], &two.pools["web"]), (&web, &web));
    assert_eq!((one.version.as_str(), one.stage.as_str()), (env!("CARGO_PKG_VERSION"), "serving"));
    assert!(one.listeners.values().any(|bind| bind.starts_with("127.")), "{:?}", one.listeners);

    ctl(&second, &["ctl", "health", "web/a", "down", "--force"]);
    until("they disagree", || fleet(&first).disagreements_total == 1);
    let found = fleet(&first).disagreements.remove(0);
    assert_eq!((found.pool.as_str(), found.backend.as_str()), ("web", "a"));
    assert_eq!(
        (&found.states["up"], &found.states["down"]),
        (&vec!["lb1".to_owned()], &vec!["lb2".to_owned()])
    );
    let shown = ctl(&first, &["ctl", "fleet"]);
    assert!(shown.contains("web/a: down for lb2; up for lb1"), "{shown}");
    ctl(&second, &["ctl", "drain", "web/a", "--force"]);
    until("a drain is no view of its health", || fleet(&first).disagreements_total == 0);

    let before = two.config.clone();
    second.reload(&config(&etcd, port, "lb2", "").replace("name = \"web\"", "name = \"web\"\nretries = 5"));
    until("its configuration is another", || {
        fleet(&first).balancers.iter().all(|balancer| balancer.config != before)
    });
    second.stop();
    until("the second one has left", || names(&first) == ["lb1"]);
    assert!(etcd.state().keys.keys().all(|key| !String::from_utf8_lossy(key).contains("lb2")));
    first.stop();
    let state = etcd.state();
    assert_eq!((state.keys.len(), state.leases.len()), (0, 0));
}

#[test]
fn keys_that_were_lost_come_back_by_themselves() {
    let etcd = FakeEtcd::start();
    // What a process of that name has left behind when it was killed.
    etcd.state().put(KEY.as_bytes(), b"old", 7);
    let daemon = Daemon::start(&config(&etcd, backends(&[A1]), "lb1", ""), IPV4);
    until("it takes what was left over", || is_there(&etcd));
    loses(&etcd, KEY, is_there);
    until("its view is there too", || value(&etcd, "/l4lb-fleet/views/lb1/web/0").is_some());
    etcd.state().answer = Some(UNAVAILABLE.to_vec());
    until("it fails, and says so", || {
        fleet(&daemon).failing.is_some_and(|failing| failing.reason.contains("answers 503"))
    });
    etcd.cuts_watches();
    until("it cannot read the others, and says so", || fleet(&daemon).lost.is_some());
    assert_eq!(names(&daemon), ["lb1"], "what was known stays");
    etcd.ends_leases();
    etcd.state().answer = None;
    until("it is there after etcd was away", || is_there(&etcd));
    until("that is known", || {
        let fleet = fleet(&daemon);
        fleet.published && fleet.lost.is_none() && fleet.balancers.len() == 1
    });
    daemon.stop();
}

#[test]
fn a_reload_takes_a_balancer_into_a_fleet_and_out_of_it() {
    let etcd = FakeEtcd::start();
    let port = backends(&[A1]);
    let daemon = Daemon::start(&without(port), IPV4);
    let refused = daemon.admin().get::<api::Fleet>("/v1/fleet").expect_err("it is in none");
    assert!(refused.to_string().contains("no [fleet]"), "{refused}");
    daemon.reload(&config(&etcd, port, "lb1", ""));
    until("it is there", || is_there(&etcd));
    daemon.reload(&config(&etcd, port, "lb3", ""));
    until("it is there by the other name only", || {
        !is_there(&etcd) && value(&etcd, "/l4lb-fleet/balancers/lb3").is_some()
    });
    daemon.reload(&without(port));
    until("it has gone", || etcd.state().keys.is_empty() && etcd.state().leases.is_empty());
    etcd.state().is_silent = true;
    daemon.reload(&config(&etcd, port, "lb1", ""));
    until("it fails, and says so", || {
        let fleet = daemon.admin().get::<api::Fleet>("/v1/fleet");
        fleet.is_ok_and(|fleet| fleet.failing.is_some())
    });
    daemon.stop();
}

#[test]
fn two_processes_of_one_name_do_not_fight_over_their_keys() {
    let etcd = FakeEtcd::start();
    let daemon = Daemon::start(&config(&etcd, backends(&[A1]), "lb1", ""), IPV4);
    until("it is there", || is_there(&etcd));
    etcd.state().put(KEY.as_bytes(), b"{}", 7);
    until("it fails, and says so", || {
        let failing = fleet(&daemon).failing;
        failing.is_some_and(|failing| failing.reason.contains("its name in [fleet] must be its own"))
    });
    assert_eq!(etcd.state().keys.get(KEY.as_bytes()).map(|(value, _)| value.clone()), Some(b"{}".to_vec()));
    etcd.delete(KEY);
    until("it is there once the other has gone", || is_there(&etcd));
    daemon.stop();
}

/// What is printed about a mistake.
fn ctl_fails(daemon: &Daemon, args: &[&str]) -> String {
    let output = output(&mut daemon.command(args));
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8(output.stderr).expect("it is text")
}

/// The administrative state of web/a, and who has set it.
fn admin(daemon: &Daemon) -> (api::Admin, String) {
    let all: Vec<api::Backend> = daemon.admin().get("/v1/backends").expect("backends");
    (all[0].admin, all[0].admin_by.clone().unwrap_or_default())
}

#[test]
fn a_drain_of_the_fleet_holds_on_all_balancers_until_ready_is_set_there() {
    let etcd = FakeEtcd::start();
    let port = backends(&[A1]);
    let [first, second] = ["lb1", "lb2"].map(|name| Daemon::start(&config(&etcd, port, name, ""), IPV4));
    until("both are known", || names(&first) == ["lb1", "lb2"]);
    // It gives up waiting after a while.
    until("it is in force on both", || {
        let shown = ctl(&first, &["ctl", "drain", "web/a", "--fleet"]);
        shown.starts_with("web/a: drain on lb1, lb2 (wanted by uid ")
    });
    for daemon in [&first, &second] {
        let (state, by) = admin(daemon);
        assert!(
            state == api::Admin::Drain && by.starts_with("fleet: uid ") && by.ends_with(" at lb1"),
            "{by}"
        );
    }
    let third = Daemon::start(&config(&etcd, port, "lb3", ""), IPV4);
    until("it holds for one that starts later", || admin(&third).0 == api::Admin::Drain);
    ctl(&second, &["ctl", "ready", "web/a"]);
    until("it is over what is set on one alone", || {
        let (state, by) = admin(&second);
        state == api::Admin::Drain && by.starts_with("fleet: ")
    });
    let shown = ctl(&third, &["ctl", "ready", "web/a", "--fleet"]);
    assert_eq!(shown, "web/a: nothing is wanted of it on all balancers any more\n");
    for daemon in [&first, &second, &third] {
        until("it is ready", || admin(daemon).0 == api::Admin::Ready);
    }
    ctl(&first, &["ctl", "drain", "web/a"]);
    etcd.put(
        "/l4lb-fleet/wanted/web/other",
        r#"{"admin":"drain","by":"a test","since":"2026-01-02T03:04:05Z"}"#,
    );
    until("it is known", || fleet(&first).wanted.len() == 1);
    let wanted = fleet(&first).wanted.remove(0);
    assert_eq!((wanted.done.len(), wanted.pending), (0, vec!["lb1".into(), "lb2".into(), "lb3".into()]));
    assert_eq!(admin(&first).0, api::Admin::Drain, "a drain of one balancer alone stays");
    for daemon in [first, second, third] {
        daemon.stop();
    }
}

#[test]
fn what_etcd_does_not_take_is_refused() {
    let etcd = FakeEtcd::start();
    let daemon = Daemon::start(&config(&etcd, backends(&[A1]), "lb1", ""), IPV4);
    until("it is known", || names(&daemon) == ["lb1"]);
    etcd.state().answer = Some(UNAVAILABLE.to_vec());
    let refused = ctl_fails(&daemon, &["ctl", "drain", "web/a", "--fleet"]);
    assert!(refused.contains("etcd does not take it"), "{refused}");
    assert_eq!(admin(&daemon).0, api::Admin::Ready);
    let refused = ctl_fails(&daemon, &["ctl", "weight", "web/a", "3", "--fleet"]);
    assert!(refused.contains("--fleet: goes with drain"), "{refused}");
    etcd.state().answer = None;
    let refused = ctl_fails(&daemon, &["ctl", "drain", "web/b", "--fleet"]);
    assert!(refused.contains("has no backend \"b\""), "{refused}");
    daemon.stop();
}

#[test]
fn a_balancer_that_sees_down_what_the_others_see_up_leaves_dns_until_it_agrees() {
    let etcd = FakeEtcd::start();
    let port = backends(&[A1]);
    let announce = |name: &str| {
        let config = config(&etcd, port, name, "leave_when_alone = true");
        let keys = format!("domain = \"lb.test\"\nname = \"{name}\"\nendpoints = [\"{}\"]", etcd.at);
        format!("name = \"in\"\n[global]\nshutdown_delay = \"1s\"\n[announce]\n{keys}\n{config}")
    };
    let all = ["lb1", "lb2", "lb3"].map(|name| Daemon::start(&announce(name), IPV4));
    let records = || {
        let state = etcd.state();
        state.keys.keys().filter(|key| key.starts_with(b"/skydns/")).count()
    };
    until("all are in DNS", || records() == 3);
    until("all are known", || names(&all[2]).len() == 3);
    ctl(&all[2], &["ctl", "health", "web/a", "down", "--force"]);
    let alone = || {
        let last = fleet(&all[0]).balancers.into_iter().find(|balancer| balancer.name == "lb3");
        last.and_then(|balancer| balancer.alone)
    };
    let words = "1 of 1 backends are down here and up for most of the other balancers";
    until("the others know that it is alone", || alone().as_deref() == Some(words));
    until("it has left DNS", || records() == 2);
    ctl(&all[2], &["ctl", "health", "web/a", "auto"]);
    until("it is in DNS again", || records() == 3);
    until("it is alone no more", || alone().is_none());
    for daemon in all {
        daemon.stop();
    }
}
