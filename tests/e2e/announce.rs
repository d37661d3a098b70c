//! `[announce]`: records in etcd for as long as clients should come here.

use l4lb::api;

use crate::discovery::{A1, backends, ctl, visit};
use crate::harness::daemon::Daemon;
use crate::harness::fake_etcd::FakeEtcd;
use crate::harness::lab::IPV4;
use crate::harness::peer::{UNAVAILABLE, until};
use crate::register_etcd::loses;

const KEY: &str = "/skydns/test/lb/in/lb1";

/// A listener "in", a pool with a backend at that port, and `[announce]` with these keys.
fn config(etcd: &FakeEtcd, port: u16, keys: &str) -> String {
    let announce = format!(
        "[announce]\nendpoints = [\"{}\"]\ndomain = \"lb.test\"\nname = \"lb1\"\nlease = \"2s\"\n{keys}\n",
        etcd.at
    );
    format!("{}{announce}", without(port))
}

fn without(port: u16) -> String {
    format!(
        "name = \"in\"\n[global]\nshutdown_delay = \"1h\"\n[[pool]]\nname = \"web\"\nhealth = {{ type = \"off\" }}\n\
         backend = [{{ name = \"a\", address = \"{A1}:{port}\" }}]\n"
    )
}

fn start(etcd: &FakeEtcd, keys: &str) -> Daemon {
    Daemon::start(&config(etcd, backends(&[A1]), keys), IPV4)
}

/// The value of a key under a lease that lasts.
fn record(etcd: &FakeEtcd, key: &str) -> Option<String> {
    let state = etcd.state();
    let (value, lease) = state.keys.get(key.as_bytes())?;
    state.leases.contains_key(lease).then(|| String::from_utf8(value.clone()).expect("text"))
}

fn is_there(etcd: &FakeEtcd) -> bool {
    record(etcd, KEY).is_some()
}

fn announced(daemon: &Daemon) -> Option<api::Announce> {
    let status: api::Status = daemon.admin().get("/v1/status").expect("status");
    status.announce
}

/// The state as the API has it, and what is noted of it.
fn state(daemon: &Daemon) -> (String, String) {
    let announce = announced(daemon).expect("it is announced");
    (announce.state, announce.note.unwrap_or_default())
}

fn events(daemon: &Daemon) -> Vec<String> {
    let events: Vec<api::Event> = daemon.admin().get("/v1/events").expect("events");
    let of_announce = events.into_iter().filter(|event| event.kind == api::EventKind::Announce);
    of_announce.map(|event| event.message).collect()
}

fn stops_at_once(daemon: Daemon) {
    // The first one begins shutdown_delay.
    daemon.signal("TERM", 1);
    daemon.wait_for_line(&["draining soon"]);
    daemon.stop();
}

#[test]
fn a_record_is_there_while_its_process_serves_and_goes_before_it_ends_to_accept() {
    let etcd = FakeEtcd::start();
    // Nothing of this waits for a renewal, and each request has its time.
    let text = config(&etcd, backends(&[A1]), "ttl = \"3s\"").replace("lease = \"2s\"", "lease = \"30s\"");
    let daemon = Daemon::start(&text, IPV4);
    until("it is there", || is_there(&etcd));
    let expected = format!(r#"{{"host":"127.0.0.1","port":{},"ttl":3}}"#, daemon.address.port());
    assert_eq!(record(&etcd, KEY), Some(expected));
    until("that is known", || state(&daemon).0 == "kept");
    let announce = announced(&daemon).expect("it is announced");
    assert_eq!((announce.domain.as_str(), announce.name.as_str(), announce.records), ("lb.test", "lb1", 1));
    assert_eq!(announce.listeners[0].name, "in.lb.test");
    let shown = ctl(&daemon, &["ctl", "status"]);
    assert!(shown.contains("1 record below lb.test as lb1"), "{shown}");
    daemon.signal("TERM", 1);
    until("it has gone", || !is_there(&etcd));
    until("that is known", || state(&daemon).0 == "withdrawn");
    assert_eq!(visit(&daemon), Some(1), "it accepts for shutdown_delay");
    let announce = announced(&daemon).expect("it is announced");
    assert_eq!(announce.listeners[0].why_not.as_deref(), Some("draining soon"));
    let events = events(&daemon);
    assert_eq!(events.first().map(String::as_str), Some("announced in DNS: 1 record"));
    assert_eq!(events.last().map(String::as_str), Some("withdrawn: no record in DNS"));
    assert_eq!(etcd.state().leases.len(), 0);
    daemon.stop();
}

#[test]
fn a_record_that_was_lost_comes_back_by_itself() {
    let etcd = FakeEtcd::start();
    // What a process of that name has left behind when it was killed.
    etcd.state().put(KEY.as_bytes(), b"old", 7);
    let daemon = start(&etcd, "");
    until("it takes what was left over", || is_there(&etcd));
    loses(&etcd, KEY, is_there);
    etcd.state().answer = Some(UNAVAILABLE.to_vec());
    until("it fails, and says so", || {
        let (state, note) = state(&daemon);
        state == "failing" && note.contains("answers 503")
    });
    assert_eq!(visit(&daemon), Some(1));
    etcd.ends_leases();
    etcd.state().answer = None;
    until("it is there after etcd was away", || is_there(&etcd));
    until("that is known", || state(&daemon).0 == "kept");
    stops_at_once(daemon);
}

#[test]
fn a_record_goes_with_what_clients_need_and_comes_back() {
    let etcd = FakeEtcd::start();
    let daemon = start(&etcd, "only_with_backends = true");
    until("it is there", || is_there(&etcd));
    for (away, why, back) in [
        ("ctl health web/a down --force", "no backend of pool \"web\" is eligible", "ctl health web/a auto"),
        ("ctl listener in pause", "paused, by uid ", "ctl listener in resume"),
        ("ctl ready-fail on", "ready-fail is on, by uid ", "ctl ready-fail off"),
    ] {
        ctl(&daemon, &away.split(' ').collect::<Vec<_>>());
        until("it has gone", || record(&etcd, KEY).is_none());
        let announce = announced(&daemon).expect("it is announced");
        let why_not = announce.listeners[0].why_not.clone().unwrap_or_default();
        assert!(why_not.starts_with(why), "{away}: {why_not}");
        ctl(&daemon, &back.split(' ').collect::<Vec<_>>());
        until("it is there again", || is_there(&etcd));
    }
    stops_at_once(daemon);
}

#[test]
fn a_reload_takes_records_on_and_off() {
    let etcd = FakeEtcd::start();
    let port = backends(&[A1]);
    let daemon = Daemon::start(&without(port), IPV4);
    assert_eq!(announced(&daemon), None);
    daemon.reload(&config(&etcd, port, ""));
    until("it is there", || is_there(&etcd));
    daemon.reload(&config(&etcd, port, "ttl = \"9s\""));
    until("its ttl is another", || record(&etcd, KEY).is_some_and(|record| record.contains("\"ttl\":9")));
    daemon.reload(&config(&etcd, port, "").replace("\"lb1\"", "\"lb2\""));
    until("it is under the other name only", || {
        !is_there(&etcd) && record(&etcd, "/skydns/test/lb/in/lb2").is_some()
    });
    let other = FakeEtcd::start();
    daemon.reload(&config(&other, port, "lease = \"3s\"").replace("lease = \"2s\"\n", ""));
    until("it is in the other etcd only", || is_there(&other) && etcd.state().keys.is_empty());
    other.state().is_silent = true;
    let last = FakeEtcd::start();
    daemon.reload(&config(&last, port, ""));
    until("it is in the last etcd though the former one is silent", || is_there(&last));
    until("that is known", || state(&daemon).0 == "kept");
    let other = last;
    daemon.reload(&without(port));
    until("it has gone", || other.state().keys.is_empty() && other.state().leases.is_empty());
    assert_eq!(announced(&daemon), None);
    stops_at_once(daemon);
}

#[test]
fn an_etcd_that_answers_nothing_holds_up_neither_start_nor_reload_nor_stop() {
    let etcd = FakeEtcd::start();
    etcd.state().is_silent = true;
    let port = backends(&[A1]);
    let text = config(&etcd, port, "");
    let daemon = Daemon::start(&text, IPV4);
    assert_eq!(visit(&daemon), Some(1));
    until("it fails, and says so", || state(&daemon).0 == "failing");
    daemon.reload(&text.replace("\"lb1\"", "\"lb2\""));
    daemon.wait_for_line(&["announce: name lb1 -> lb2"]);
    etcd.state().is_silent = false;
    until("it is there", || record(&etcd, "/skydns/test/lb/in/lb2").is_some());
    etcd.state().is_silent = true;
    stops_at_once(daemon);
}

#[test]
fn two_processes_of_one_name_do_not_fight_over_a_record() {
    let etcd = FakeEtcd::start();
    let daemon = start(&etcd, "");
    until("it is there", || is_there(&etcd));
    let other = br#"{"host":"127.0.0.9","port":1,"ttl":1}"#;
    etcd.state().put(KEY.as_bytes(), other, 7);
    until("it fails, and says so", || {
        let (state, note) = state(&daemon);
        state == "failing"
            && note.contains("another process keeps it: its name in [announce] must be its own")
    });
    assert_eq!(etcd.state().keys.get(KEY.as_bytes()).map(|(value, _)| value.clone()), Some(other.to_vec()));
    etcd.delete(KEY);
    until("it is there once the other has gone", || is_there(&etcd));
    stops_at_once(daemon);
}
