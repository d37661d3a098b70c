//! Backends that etcd lists, as seen by clients of a running l4lb.

use std::net::Ipv4Addr;

use crate::discovery::{A1, A2, A3, backends, ctl, names, note, sources, state, visit};
use crate::harness::daemon::Daemon;
use crate::harness::fake_etcd::FakeEtcd;
use crate::harness::lab::IPV4;
use crate::harness::peer::{UNAVAILABLE, until};

fn daemon(etcd: &FakeEtcd, keys: &str) -> Daemon {
    let text = format!(
        "[[pool]]\nname = \"web\"\non_remove = \"keep\"\n[[pool.discover]]\ntype = \"etcd\"\n\
         prefix = \"/l4lb/web/\"\nendpoints = [\"{}\"]\ninterval = \"100ms\"\n{keys}\n",
        etcd.at
    );
    Daemon::start(&text, IPV4)
}

fn at(ip: Ipv4Addr, port: u16) -> String {
    format!("{{\"address\": \"{ip}:{port}\"}}")
}

const UNCHECKED: &str = "[pool.health]\ntype = \"off\"";

#[test]
fn backends_come_and_go_with_their_keys() {
    let port = backends(&[A1, A2, A3]);
    let etcd = FakeEtcd::start();
    etcd.state().piece_len = 5;
    etcd.put("/l4lb/web/a", &at(A1, port));
    let daemon = daemon(&etcd, UNCHECKED);
    until("the first one is there", || names(&daemon) == ["a"]);
    until("its workers know it", || visit(&daemon) == Some(1));
    etcd.put("/l4lb/web/b", &at(A2, port));
    etcd.state().put(b"/l4lb/web/c", at(A3, port).as_bytes(), 7);
    until("the others are there", || names(&daemon) == ["a", "b", "c"]);
    etcd.delete("/l4lb/web/a");
    until("the first one has gone", || names(&daemon) == ["b", "c"]);
    etcd.ends_leases();
    until("the lease has ended", || names(&daemon) == ["b"]);
    until("its workers know it", || visit(&daemon) == Some(2));
    let source = sources(&daemon).remove(0);
    assert_eq!((source.source.as_str(), source.state.as_str()), ("etcd:/l4lb/web/", "found"));
    let said = ctl(&daemon, &["ctl", "discover", "web"]);
    assert!(said.contains("1 backend") && said.contains("there"), "{said}");
    until("the dry run no longer watches", || etcd.watches() == 1);
    daemon.stop();
}

#[test]
fn an_etcd_that_fails_takes_nothing_away_and_its_failure_is_named() {
    let port = backends(&[A1, A2]);
    let etcd = FakeEtcd::start();
    etcd.put("/l4lb/web/a", &at(A1, port));
    let daemon = daemon(&etcd, UNCHECKED);
    until("it is there", || names(&daemon) == ["a"]);
    etcd.put("/l4lb/web/a", "{\"address\": \"10.0.0.1\"}");
    until("its key is named", || {
        let note = note(&daemon);
        note.starts_with("/l4lb/web/a: line 1, column ") && note.contains("address: port missing")
    });
    assert_eq!((names(&daemon), state(&daemon)), (vec!["a".into()], "found".into()));
    etcd.put("/l4lb/web/a", &at(A1, port));
    until("it is put right", || note(&daemon).is_empty());
    etcd.says(b"<html>\n");
    until("another watch has begun", || etcd.calls("watch") >= 2 && etcd.watches() == 1);
    etcd.state().answer = Some(UNAVAILABLE.to_vec());
    etcd.cuts_watches();
    until("it fails", || state(&daemon) == "failed" && note(&daemon).contains("answers 503"));
    assert_eq!(names(&daemon), ["a"]);
    etcd.state().forgets();
    etcd.state().answer = None;
    until("it has forgotten", || note(&daemon).contains("it has lost data, or is another cluster"));
    assert_eq!((names(&daemon), visit(&daemon)), (vec!["a".into()], Some(1)));
    daemon.stop();
}

#[test]
fn a_backend_without_its_key_stays_while_it_is_healthy() {
    let port = backends(&[A1]);
    let etcd = FakeEtcd::start();
    etcd.put("/l4lb/web/a", &at(A1, port));
    etcd.put("/l4lb/web/b", "{\"address\": \"127.0.0.1:1\"}");
    let checks = "when_absent = \"keep_while_healthy\"\n[pool.health]\ninterval = \"2s\"\ntimeout = \"2s\"\nfast_interval = \"50ms\"";
    let daemon = daemon(&etcd, checks);
    until("one of two is up", || {
        let all = ctl(&daemon, &["ctl", "backends", "web", "--json"]);
        all.matches("\"health\":\"up\"").count() == 1 && all.matches("\"health\":\"down\"").count() == 1
    });
    etcd.delete("/l4lb/web/a");
    etcd.delete("/l4lb/web/b");
    until("the one that is down has gone", || names(&daemon) == ["a"]);
    until("that is noted", || note(&daemon) == "1 listed no more, and kept while healthy");
    ctl(&daemon, &["ctl", "drain", "web/a"]);
    until("an operator has ended it", || names(&daemon).is_empty());
    daemon.stop();
}
