//! What the process says of itself: the line of a finished session, exit codes, and a log without a reader.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{ChildStderr, Command, Stdio};

use crate::harness::backends::{Service, Visit, backends, dead_backends};
use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::{Ending, Peer, free_address, in_time};
use crate::harness::program::{Program, output};

type Fields = BTreeMap<String, serde_json::Value>;

/// The fields of the next line of a finished session.
fn json_session(service: &Service<'_, Daemon>) -> Fields {
    let line = service.server.wait_for_line(&["\"message\":\"session\""]);
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The same from the text format: all values are text.
fn text_session(service: &Service<'_, Daemon>) -> Fields {
    let line = service.server.wait_for_line(&[" session "]);
    let (head, fields) = line.split_once(" session ").expect("it is in it");
    assert!(head.ends_with("INFO "), "{line}");
    let field = |field: &str| field.split_once('=').map(|(key, value)| (key.to_owned(), value.into()));
    fields.split(' ').map(|text| field(text).unwrap_or_else(|| panic!("{text:?} in {line}"))).collect()
}

/// The field as the text format writes it.
#[track_caller]
fn text(fields: &Fields, key: &str) -> String {
    let value = fields.get(key).unwrap_or_else(|| panic!("no {key} in {fields:?}"));
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[track_caller]
fn number(fields: &Fields, key: &str) -> f64 {
    text(fields, key).parse().unwrap_or_else(|error| panic!("{key} in {fields:?}: {error}"))
}

/// A session of five bytes to the backend and six to the client that ends well, one that the client resets, and
/// one that never gets to a backend; each is described in full.
fn sessions_are_described(
    format: &str,
    absent: &serde_json::Value,
    read: impl Fn(&Service<'_, Daemon>) -> Fields,
) {
    let backends = backends(1).global(&format!("log = {{ format = \"{format}\" }}"));
    let service = backends.start_daemon("info");
    let describes = |fields: &Fields, backend: &str, reason: &str, reset_by: Option<&str>| {
        let listener = service.address().to_string();
        let expected =
            [("listener", &*listener), ("pool", "default"), ("backend", backend), ("reason", reason)];
        for (key, expected) in expected.into_iter().chain([("retries", "0")]) {
            assert_eq!(text(fields, key), expected, "{key} in {fields:?}");
        }
        assert_eq!(fields["reset_by"], reset_by.map_or(absent.clone(), Into::into), "{fields:?}");
        assert_eq!(fields["half_closed_by"], *absent, "{fields:?}");
        assert_eq!(text(fields, "backend_address"), backends.nodes[0].address.to_string());
    };

    let visit = service.enter().talks();
    let client = visit.client.local_address().to_string();
    visit.leave();
    let done = read(&service);
    describes(&done, "n0", "done", None);
    assert_eq!(text(&done, "client"), client);
    assert_eq!((text(&done, "to_backend"), text(&done, "to_client")), ("5".into(), "6".into()), "{done:?}");
    let (connect, duration) = (number(&done, "connect_ms"), number(&done, "duration_ms"));
    assert!(0.0 < connect && connect < duration, "{done:?}");

    service.enter().talks().client.reset();
    describes(&read(&service), "n0", "client_reset", Some("client"));

    backends.nodes[0].die();
    assert_eq!(service.client().receiving().ending(), Ending::Reset);
    let refused = read(&service);
    // The retry that found no other backend was counted, and the time of no connect was written as "None".
    describes(&refused, "n0", "connect_refused", None);
    assert_eq!(refused.get("connect_ms"), Some(absent), "{refused:?}");
    service.stops();
}

#[test]
fn a_finished_session_is_one_line_of_text() {
    sessions_are_described("text", &"-".into(), text_session);
}

#[test]
fn a_finished_session_is_one_line_of_json() {
    sessions_are_described("json", &serde_json::Value::Null, json_session);
}

#[test]
fn a_change_of_health_is_one_line_with_its_reason() {
    let backends = dead_backends(1).health("interval = \"2s\", fast_interval = \"20ms\", timeout = \"2s\"");
    let service = backends.start_daemon("info");
    let line = service.server.wait_for_line(&[" health "]);
    let address = backends.nodes[0].address;
    let expected = format!(
        " health pool=default backend=n0 address={address} from=unknown to=down \
         reason=\"check failed: connection refused\""
    );
    assert!(line.ends_with(&expected), "{line}");
    backends.nodes[0].serve();
    let line = service.server.wait_for_line(&[" health "]);
    assert!(line.ends_with(" from=down to=up reason=\"check passed\""), "{line}");
    service.stops();
}

/// Case 99.
#[test]
fn an_address_in_use_ends_the_start_and_names_its_holder() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("getsockname");
    let mut command = Command::new(env!("CARGO_BIN_EXE_l4lb"));
    let output = output(command.args(["-l", &address.to_string(), "-b", "127.0.0.1:1"]));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let last = errors.lines().last().unwrap_or_default();
    let (what, holder) =
        (format!("cannot listen on {address}: address in use"), format!("(pid {})", std::process::id()));
    assert!(last.contains(&what) && last.contains(&holder), "{errors}");
}

/// What reads a log of JSON stumbled over the line that says why there is no more of it.
#[test]
fn a_start_error_is_json_when_the_log_is() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("getsockname");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("l4lb.toml");
    let rest = format!(
        "[admin]\nsocket = false\nmetrics = \"{address}\"\n[[listener]]\nbind = \"{}\"\n\
         [[pool]]\nbackend = [{{ address = \"127.0.0.1:1\" }}]\n",
        free_address()
    );
    let last_line = |global: &str| -> Fields {
        std::fs::write(&file, format!("[global]\nlog = {{ format = \"json\" }}\n{global}{rest}"))
            .expect("write");
        let output = output(Command::new(env!("CARGO_BIN_EXE_l4lb")).arg("-c").arg(&file));
        let errors = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<Fields> = errors
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
            .collect();
        lines.into_iter().last().expect("it has said why")
    };
    let ended = last_line("");
    let holder = format!("(pid {})", std::process::id());
    assert_eq!((text(&ended, "level"), text(&ended, "message")), ("error".into(), "l4lb ends".into()));
    let error = text(&ended, "error");
    assert!(error.contains("for metrics: address in use, held by ") && error.ends_with(&holder), "{error}");
    let wrong = last_line("workres = 2\n");
    assert!(text(&wrong, "error").contains("did you mean \"workers\"?"), "{wrong:?}");
}

/// Case 103, in small: a pipe without a reader is full after some 300 sessions.
#[test]
fn a_log_without_a_reader_stalls_no_session() {
    const SESSIONS: u64 = 1_000;
    let backends = backends(1);
    let (server, address) = Unread::start(backends.nodes[0].address);
    for id in 0..SESSIONS {
        Visit::greeted(Peer::connect(address, id, None)).leave();
    }
    server.ends_well();
}

/// A reader of the line "listening" may stop it at once. Signals were caught only a moment later, and a SIGTERM
/// before that ended the process without a drain.
#[test]
fn a_process_that_is_ready_receives_signals() {
    for _ in 0..20 {
        let (server, _) = Unread::start(dead_backends(1).nodes[0].address);
        server.ends_well();
    }
}

/// Each of them ended the process at once, with every session that it had.
#[test]
fn signals_that_mean_nothing_are_logged_and_ignored_and_sigquit_is_sigterm() {
    let pool = "[[pool]]\nhealth = { type = \"off\" }\nbackend = [{ address = \"127.0.0.1:1\" }]\n";
    let daemon = Daemon::start(pool, IPV4);
    // By number, as not every kill(1) knows them all: 34 and 64 are those of real time that a program may have.
    for name in ["USR2", "ALRM", "VTALRM", "PROF", "29", "34", "64"] {
        daemon.signal(name, 1);
        daemon.wait_for_line(&["unexpected signal ignored"]);
    }
    daemon.signal("QUIT", 1);
    daemon.has_stopped();
}

/// `l4lb` whose log is read up to its start, and no further.
struct Unread {
    program: Program,
    _log: BufReader<ChildStderr>,
}

impl Unread {
    /// On a free port, which somebody else may take between our look and the start.
    fn start(backend: SocketAddr) -> (Self, SocketAddr) {
        (0..20).find_map(|_| Self::try_start(backend)).expect("a free port")
    }

    fn try_start(backend: SocketAddr) -> Option<(Self, SocketAddr)> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = free.expect("a free port");
        let mut command = Command::new(env!("CARGO_BIN_EXE_l4lb"));
        command.args(["-l", &address.to_string(), "-b", &backend.to_string(), "--admin", "off"]);
        let mut program = Program::start(command.stderr(Stdio::piped()));
        let mut log = BufReader::new(program.stderr());
        let (listens, log) = in_time("it listens, or ends", || {
            let mut lines = log.by_ref().lines().map_while(Result::ok);
            (lines.any(|line| line.contains("listening")), log)
        });
        listens.then_some((Self { program, _log: log }, address))
    }

    /// Ends it by SIGTERM.
    #[track_caller]
    fn ends_well(mut self) {
        self.program.signal("TERM");
        let status = self.program.ends();
        assert!(status.success(), "{status}");
    }
}
