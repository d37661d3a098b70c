//! `l4lb register --etcd`: a key that is there for as long as its keeper runs, for all balancers.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::discovery::names;
use crate::harness::daemon::Daemon;
use crate::harness::fake_etcd::FakeEtcd;
use crate::harness::lab::IPV4;
use crate::harness::peer::{UNAVAILABLE, free_address, until};
use crate::harness::program::output;
use crate::register::Keeper;

const KEY: &str = "/l4lb/web/me";

fn command(etcd: &FakeEtcd, more: &[&str]) -> Command {
    let at = etcd.at.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_l4lb"));
    let common = ["register", "--etcd", &at, "--pool", "web", "--name", "me", "--ttl", "9s"];
    command.args(common).args(more);
    command
}

fn keeper(etcd: &FakeEtcd, more: &[&str]) -> Keeper {
    Keeper::start(command(etcd, &[&["--address", "127.0.0.1:8081"], more].concat()))
}

/// The value of the key and whether its lease lasts, if it is there.
fn value(etcd: &FakeEtcd) -> Option<(String, bool)> {
    let state = etcd.state();
    let (value, lease) = state.keys.get(KEY.as_bytes())?;
    Some((String::from_utf8(value.clone()).expect("text"), state.leases.contains_key(lease)))
}

fn is_there(etcd: &FakeEtcd) -> bool {
    value(etcd).is_some_and(|(_, lasts)| lasts)
}

/// etcd loses the key in each way; waits until it is there again.
#[track_caller]
pub(crate) fn loses(etcd: &FakeEtcd, key: &str, is_there: impl Fn(&FakeEtcd) -> bool) {
    etcd.ends_leases();
    until("it is there after its lease had ended", || is_there(etcd));
    etcd.delete(key);
    until("it is there after it was deleted", || is_there(etcd));
    etcd.state().forgets();
    until("it is there after etcd had lost its data", || is_there(etcd));
}

#[test]
fn a_backend_is_registered_once_for_all_balancers_for_as_long_as_its_keeper_runs() {
    for signal in ["TERM", "INT"] {
        let etcd = FakeEtcd::start();
        let follows = format!(
            "[[pool]]\nname = \"web\"\nhealth = {{ type = \"off\" }}\n[[pool.discover]]\ntype = \"etcd\"\n\
             prefix = \"/l4lb/web/\"\nendpoints = [\"{}\"]\ninterval = \"100ms\"\n",
            etcd.at
        );
        let balancers = [(); 2].map(|()| Daemon::start(&follows, IPV4));
        let keeper = keeper(&etcd, &["--weight", "3", "--priority", "2"]);
        keeper.says("registered backend=/l4lb/web/me ttl=9s");
        let expected = r#"{"address":"127.0.0.1:8081","priority":2,"weight":3}"#;
        assert_eq!(value(&etcd), Some((expected.to_owned(), true)));
        until("all have it", || balancers.iter().all(|balancer| names(balancer) == ["me"]));
        keeper.program.signal(signal);
        keeper.says("removed backend=/l4lb/web/me");
        assert_eq!(keeper.ends().code(), Some(0), "{signal}");
        assert_eq!((value(&etcd), etcd.state().leases.len()), (None, 0));
        until("none has it", || balancers.iter().all(|balancer| names(balancer).is_empty()));
    }
}

#[test]
fn a_key_that_was_lost_is_put_again() {
    let etcd = FakeEtcd::start();
    etcd.state().answer = Some(UNAVAILABLE.to_vec());
    let keeper = keeper(&etcd, &[]);
    keeper.says("cannot register: retrying backend=/l4lb/web/me");
    etcd.state().answer = None;
    keeper.says("registered backend=/l4lb/web/me");
    loses(&etcd, KEY, is_there);
    etcd.state().is_strict = true;
    etcd.ends_leases();
    until("it is there after a renewal of no lease was refused", || is_there(&etcd));
    etcd.state().put(KEY.as_bytes(), br#"{"address":"127.0.0.1:8081"}"#, 7);
    etcd.delete(KEY);
    until("it is there after another process had it", || is_there(&etcd));
    keeper.program.signal("TERM");
    until("it has gone", || value(&etcd).is_none());
}

/// A process that is started before the old one ends.
#[test]
fn a_rolling_restart_leaves_the_key_in_etcd() {
    let etcd = FakeEtcd::start();
    let old = keeper(&etcd, &[]);
    old.says("registered backend=/l4lb/web/me");
    let next = keeper(&etcd, &["--weight", "2"]);
    next.says("registered backend=/l4lb/web/me");
    let (renewed, taken) = (etcd.calls("lease/keepalive"), value(&etcd));
    // Each of both has renewed its lease, and neither has taken the key from the other.
    until("both were renewed", || etcd.calls("lease/keepalive") >= renewed + 4);
    assert_eq!(value(&etcd), taken);
    old.program.signal("TERM");
    old.says("left: another holder keeps it registered backend=/l4lb/web/me");
    assert_eq!(old.ends().code(), Some(0));
    assert!(is_there(&etcd));
    next.program.signal("TERM");
    next.says("removed backend=/l4lb/web/me");
    assert_eq!(next.ends().code(), Some(0));
    assert_eq!(value(&etcd), None);
}

#[test]
fn the_key_of_another_backend_is_left_alone() {
    let etcd = FakeEtcd::start();
    let other = r#"{"address":"127.0.0.1:9"}"#;
    etcd.put(KEY, other);
    let polite = keeper(&etcd, &[]);
    polite.says("a lease in its place has to be asked for (--replace)");
    polite.program.signal("TERM");
    assert_eq!(polite.ends().code(), Some(0));
    assert_eq!(value(&etcd), Some((other.to_owned(), false)));
    let bold = keeper(&etcd, &["--replace"]);
    bold.says("registered backend=/l4lb/web/me");
    assert!(is_there(&etcd));
    bold.program.signal("TERM");
    bold.says("removed backend=/l4lb/web/me");
    etcd.state().put(KEY.as_bytes(), other.as_bytes(), 7);
    let waiting = keeper(&etcd, &["--replace"]);
    waiting.says("it has another address, under a lease of another process");
    assert_eq!(value(&etcd), Some((other.to_owned(), false)));
    etcd.delete(KEY);
    waiting.says("registered backend=/l4lb/web/me");
    assert!(is_there(&etcd));
}

#[test]
fn a_backend_in_etcd_with_a_check_is_there_once_its_port_answers() {
    let etcd = FakeEtcd::start();
    let address = free_address();
    let keeper = Keeper::start(command(&etcd, &["--address", &address.to_string(), "--check"]));
    keeper.says("its port does not answer: not renewed until it does");
    assert_eq!((value(&etcd), etcd.calls("lease/grant")), (None, 0));
    let _port = TcpListener::bind(address).expect("the port is free still");
    keeper.says("registered backend=/l4lb/web/me");
    keeper.program.signal("TERM");
    keeper.says("removed backend=/l4lb/web/me");
    assert_eq!(keeper.ends().code(), Some(0));
}

#[test]
fn a_user_signs_in_and_a_wrong_password_is_reported_at_once() {
    let etcd = FakeEtcd::start();
    etcd.state().user = Some(("web".into(), "secret".into()));
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::set_permissions(file.path(), Permissions::from_mode(0o600)).expect("it is ours");
    let path = file.path().display().to_string();
    let login = ["--user", "web", "--password-file", &path];
    fs::write(file.path(), "wrong\n").expect("written");
    let refused = output(&mut command(&etcd, &[&["--address", "127.0.0.1:8081"], &login[..]].concat()));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("authentication failed") && !said.contains("wrong"), "{said}");
    assert_eq!(refused.status.code(), Some(1));
    fs::write(file.path(), "secret\n").expect("written");
    let keeper = keeper(&etcd, &login);
    keeper.says("registered backend=/l4lb/web/me");
    assert!(is_there(&etcd));
}
