//! `l4lb register`: a backend that is in its pool for as long as its keeper runs.

use std::net::TcpListener;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use l4lb::api;

use crate::harness::daemon::Daemon;
use crate::harness::fake_admin_api::Canned;
use crate::harness::lab::IPV4;
use crate::harness::peer::{free_address, until};
use crate::harness::program::{Lines, Program, output};

const WEB: &str = "[[pool]]\nname = \"web\"\nhealth = { type = \"off\" }\n\
    backend = [{ name = \"a\", address = \"127.0.0.1:1\" }]\n";

/// What it says when the other side took its time.
const TOO_LATE: &str = "it took longer than";

/// A running `l4lb register`, and its log.
pub(crate) struct Keeper {
    pub(crate) program: Program,
    log: Lines,
}

impl Keeper {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut program = Program::start(command.env_remove("RUST_LOG").stderr(Stdio::piped()));
        let log = Lines::of(program.stderr());
        Self { program, log }
    }

    /// The next line of its log, which has to contain `words`. That an answer was late is the machine's matter.
    #[track_caller]
    pub(crate) fn says(&self, words: &str) {
        let line = self.log.find(words, |line| !line.contains(TOO_LATE));
        assert!(line.contains(words), "not {words:?}: {line}");
    }

    /// It ends, and has nothing more to say.
    #[track_caller]
    pub(crate) fn ends(mut self) -> ExitStatus {
        let (status, mut rest) = (self.program.ends(), self.log.rest());
        rest.retain(|line| !line.contains(TOO_LATE));
        assert!(rest.is_empty(), "{rest:?}");
        status
    }
}

fn registered(daemon: &Daemon, name: &str) -> Option<api::Backend> {
    daemon.admin().get(&format!("/v1/pools/web/backends/{name}")).ok()
}

#[test]
fn a_backend_is_registered_for_as_long_as_ctl_register_runs() {
    thread::scope(|scope| {
        for signal in ["TERM", "INT"] {
            scope.spawn(move || stays_until(signal));
        }
    });
}

fn stays_until(signal: &str) {
    let daemon = Daemon::start(WEB, IPV4);
    let args = "register --pool web --address :8081 --name me --weight 3 --ttl 9s";
    let keeper = Keeper::start(daemon.command(&args.split(' ').collect::<Vec<_>>()));
    keeper.says("registered backend=web/me ttl=9s");
    let backend = registered(&daemon, "me").expect("it is there");
    assert_eq!((backend.weight, backend.address.as_str()), (3, "127.0.0.1:8081"));
    assert_eq!(backend.source, api::Source::Api);
    // Longer than a lease.
    let (mut before, mut renewals) = (0.0, 0);
    until("its lease was renewed four times", || {
        let left = registered(&daemon, "me").and_then(|backend| backend.lease_left);
        let left = left.expect("it has a lease");
        renewals += u32::from(left > before);
        before = left;
        renewals > 4
    });
    keeper.program.signal(signal);
    keeper.says("removed backend=web/me sessions=0");
    assert_eq!(keeper.ends().code(), Some(0), "{signal}");
    assert_eq!(registered(&daemon, "me"), None);
}

#[test]
fn a_mistake_is_reported_at_once() {
    let daemon = Daemon::start(WEB, IPV4);
    for (args, expected, code) in [
        ("--pool none --address :8081", "l4lb: there is no pool \"none\"", 1),
        ("--pool web --address :8081 --name a/b", "l4lb: name: must be 1..=64 characters", 1),
        ("--pool web --address :8081 --ttl 1ms", "--ttl 1ms: must be 1s..=24h, got \"1ms\"", 2),
        ("--pool web --address 8081", "--address 8081: port missing", 2),
    ] {
        let args: Vec<&str> = ["register"].into_iter().chain(args.split(' ')).collect();
        let output = output(&mut daemon.command(&args));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.starts_with(expected) && stderr.lines().count() == 1, "{args:?}: {stderr}");
        assert_eq!(output.status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn a_backend_with_a_check_is_registered_once_its_port_answers() {
    let daemon = Daemon::start(WEB, IPV4);
    let address = free_address();
    let text = address.to_string();
    let args = ["register", "--pool", "web", "--address", &text, "--name", "me", "--ttl", "9s", "--check"];
    let keeper = Keeper::start(daemon.command(&args));
    keeper.says("its port does not answer: not renewed until it does");
    assert_eq!(registered(&daemon, "me"), None);
    let port = TcpListener::bind(address).expect("the port is free still");
    keeper.says("registered backend=web/me");
    drop(port);
    keeper.says("its port does not answer: not renewed until it does");
    keeper.program.signal("TERM");
    keeper.says("removed backend=web/me");
    assert_eq!(keeper.ends().code(), Some(0));
}

#[test]
fn ctl_register_waits_for_l4lb_and_registers_again_when_it_was_forgotten() {
    let daemon = Daemon::start(WEB, IPV4);
    let made: api::Backend = daemon.admin().get("/v1/pools/web/backends/a").expect("a backend");
    let made = serde_json::to_string(&made).expect("JSON");
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("canned.sock").display().to_string();
    let args = ["register", "--pool", "web", "--address", ":8081", "--ttl", "9s", "--socket", &socket];
    let keeper = Keeper::start(daemon.command(&args));
    keeper.says("cannot register: retrying backend=web/127.0.0.1:8081");
    let conflict = r#"{"error":"there already"}"#.to_owned();
    let answers = vec![(409, conflict), (201, made.clone()), (200, made.clone()), (201, made)];
    let canned = Canned::start(folder.path(), answers);
    (0..4).for_each(|_| assert_eq!(canned.asked(), "POST /v1/pools/web/backends"));
    keeper.says("registered backend=web/127.0.0.1:8081");
    keeper.says("registered again: l4lb had lost it");
    keeper.says("cannot register: retrying");
    keeper.program.signal("TERM");
    keeper.says("cannot remove it: its lease ends by itself");
    assert_eq!(keeper.ends().code(), Some(0));
}

fn keeper(daemon: &Daemon, more: &[&str]) -> Keeper {
    let args = "register --pool web --address :8081 --name me --ttl 9s";
    let args: Vec<&str> = args.split(' ').chain(more.iter().copied()).collect();
    Keeper::start(daemon.command(&args))
}

/// The old one took the backend out of the pool though the new one had just registered it.
#[test]
fn a_rolling_restart_leaves_the_backend_in_its_pool() {
    let daemon = Daemon::start(WEB, IPV4);
    let old = keeper(&daemon, &[]);
    old.says("registered backend=web/me");
    let next = keeper(&daemon, &[]);
    next.says("registered backend=web/me");
    old.program.signal("TERM");
    old.says("left: another holder keeps it registered backend=web/me sessions=0");
    assert_eq!(old.ends().code(), Some(0));
    assert!(registered(&daemon, "me").is_some());
    next.program.signal("TERM");
    next.says("removed backend=web/me sessions=0");
    assert_eq!(next.ends().code(), Some(0));
    assert_eq!(registered(&daemon, "me"), None);
}

#[test]
fn a_permanent_registration_is_taken_over_on_request_only() {
    let daemon = Daemon::start(WEB, IPV4);
    let added = output(&mut daemon.command(&["ctl", "add", ":8081", "--pool", "web", "--name", "me"]));
    assert!(added.status.success(), "{added:?}");
    let polite = keeper(&daemon, &[]);
    polite.says("to stay until it is removed: a lease in its place has to be asked for (--replace)");
    polite.program.signal("TERM");
    assert_eq!(polite.ends().code(), Some(0));
    assert_eq!(registered(&daemon, "me").map(|me| me.lease_left), Some(None), "it stays as it was");
    let bold = keeper(&daemon, &["--replace"]);
    bold.says("registered backend=web/me");
    assert!(registered(&daemon, "me").is_some_and(|me| me.lease_left.is_some()));
    bold.program.signal("TERM");
    bold.says("removed backend=web/me");
    assert_eq!(bold.ends().code(), Some(0));
}
