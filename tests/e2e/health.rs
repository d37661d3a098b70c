//! Health checks on the wire, and what they do to sessions (`tests/CASES.md`).
//!
//! Where exactness counts, the test answers each check by hand: the next check begins behind the verdict on the
//! last one, so its arrival is the moment to look at the state.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use l4lb::config::model::HealthState::{self, Down, Unknown, Up};
use l4lb::session::CloseReason::{Done, NoBackend};
use l4lb::session::Side;
use socket2::Socket;

use crate::harness::backends::{Backends, Node, Service, backends, dead_backends};
use crate::harness::peer::{Ending, Peer, SetOnDrop, UNAVAILABLE, retry, until};

/// Checks that come soon, and that a busy machine does not fail.
const SOON: &str = "interval = \"2s\", fast_interval = \"20ms\", timeout = \"2s\"";
/// Checks that never come by themselves.
const NEVER: &str = "interval = \"24h\", fast_interval = \"24h\", initial_state = \"up\"";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK";

/// A node that serves, and beside it the port that is checked in its place, where the script answers.
struct Ward {
    backends: Backends,
    checks: Socket,
    checked: Node,
}

impl Ward {
    /// With these further keys of `health`.
    fn new(keys: &str) -> Self {
        let checked = Node::new(0);
        let port = checked.address.port();
        let backends = backends(1).health(format!("{SOON}, port = {port}, {keys}"));
        Self { backends, checks: checked.listen(16), checked }
    }

    /// The server's next check.
    #[track_caller]
    fn check(&self) -> Peer {
        let (socket, _) = retry(|| self.checks.accept()).expect("a check comes");
        Peer::new(Side::Backend, socket, 0)
    }

    /// The server's next check, from behind its request.
    #[track_caller]
    fn http_check(&self) -> Peer {
        let mut check = self.check();
        let host = self.checked.address;
        check.receiving().bytes(format!("GET /health HTTP/1.1\r\nHost: {host}\r\n").as_bytes());
        let mut last = [0; 4];
        while last != *b"\r\n\r\n" {
            last.rotate_left(1);
            check.receiving().anything(&mut last[3..]);
        }
        check
    }

    /// The state after each result of `script`, in which `+` passes a check and `-` fails it.
    #[track_caller]
    fn states(&self, service: &Service<'_>, script: &str) -> Vec<HealthState> {
        let mut check = self.http_check();
        let mut states = Vec::new();
        for result in script.chars() {
            check.sending().bytes(if result == '+' { OK } else { UNAVAILABLE });
            assert_eq!(check.receiving().ending(), Ending::Fin, "the end of a check");
            // The check is over when both ends have closed.
            check.close();
            check = self.http_check();
            states.push(service.backend(0).health());
        }
        states
    }
}

fn http(initial: HealthState, rise: u32, fall: u32) -> Ward {
    let initial = initial.as_str();
    Ward::new(&format!("type = \"http\", initial_state = \"{initial}\", rise = {rise}, fall = {fall}"))
}

/// Case 76. Also that the port override is checked, and that every check ends by a FIN.
#[test]
fn rise_and_fall_are_exact() {
    let cases: [(HealthState, &str, &[HealthState], u64); 4] = [
        (Up, "--+---++", &[Up, Up, Up, Up, Up, Down, Down, Up], 2),
        (Down, "+-++", &[Down, Down, Down, Up], 1),
        (Unknown, "-++", &[Down, Down, Up], 2),
        (Unknown, "+---", &[Up, Up, Up, Down], 2),
    ];
    thread::scope(|scope| {
        for (initial, script, expected, transitions) in cases {
            scope.spawn(move || {
                let ward = http(initial, 2, 3);
                let service = ward.backends.start();
                assert_eq!(service.backend(0).health(), initial);
                assert_eq!(ward.states(&service, script), expected, "{initial:?} {script}");
                let totals = service.ends(&[]);
                assert_eq!(totals.transitions, transitions, "{initial:?} {script}: {totals}");
            });
        }
    });
}

/// Case 81: however fast it changes, a backend that never does well or badly for long keeps its state.
#[test]
fn a_backend_that_flaps_faster_than_rise_and_fall_changes_nothing() {
    for (initial, script) in [(Up, "--+--+--+"), (Down, "+-+-+-+-")] {
        let ward = http(initial, 2, 3);
        let service = ward.backends.start();
        assert!(ward.states(&service, script).iter().all(|&state| state == initial));
        let totals = service.ends(&[]);
        assert_eq!(totals.transitions, 0, "{initial:?}: {totals}");
    }
}

/// Sessions go to the backend in the states in which it serves.
#[test]
fn the_initial_state_decides_until_the_first_verdict() {
    for (initial, serves) in [(Up, true), (Unknown, true), (Down, false)] {
        let ward = http(initial, 1, 1);
        let service = ward.backends.start();
        if serves {
            assert_eq!(service.visit(), 0, "{initial:?}");
        } else {
            assert_eq!(service.client().receiving().ending(), Ending::Reset, "{initial:?}");
        }
        ward.http_check().sending().bytes(OK);
        until("it is up", || service.backend(0).health() == Up);
        until("the table heeds it", || service.knock().is_ok());
        service.audit();
    }
}

/// Answers one check that comes to this socket.
#[track_caller]
fn answer_check(checks: &Socket, answer: &[u8]) {
    let (socket, _) = retry(|| checks.accept()).expect("a check comes");
    let mut check = Peer::new(Side::Backend, socket, 0);
    let mut last = [0; 4];
    while last != *b"\r\n\r\n" {
        last.rotate_left(1);
        check.receiving().anything(&mut last[3..]);
    }
    check.sending().bytes(answer);
    assert_eq!(check.receiving().ending(), Ending::Fin, "the end of a check");
    check.close();
}

/// In each round the checks run one after the other, up to the first that fails.
#[test]
fn all_checks_of_a_pool_must_pass() {
    let [first, second] = [(); 2].map(|()| Node::new(0));
    let [first_port, second_port] = [&first, &second].map(|node| node.address.port());
    let [first, second] = [&first, &second].map(|node| node.listen(16));
    let backends = backends(1)
        .health(format!(
            "{SOON}, type = \"http\", port = {first_port}, initial_state = \"up\", rise = 1, fall = 1"
        ))
        .pool(&format!("check = [{{ name = \"app\", type = \"http\", port = {second_port} }}]"));
    let service = backends.start();
    let health = || service.backend(0).health();
    for (answers, expected) in [
        (&[OK, OK][..], Up),
        (&[OK, UNAVAILABLE], Down),
        (&[UNAVAILABLE], Down),
        (&[OK, OK], Up),
        (&[UNAVAILABLE], Down),
    ] {
        for (checks, answer) in [&first, &second].into_iter().zip(answers) {
            answer_check(checks, answer);
        }
        until("the round has its verdict", || health() == expected);
    }
    service.audit();
}

/// As a key of a check.
fn shell(script: &str) -> String {
    format!("type = \"command\", command = [\"/bin/sh\", \"-c\", '{script}']")
}

#[test]
fn a_program_decides_whether_a_backend_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let [flag, seen] = ["flag", "seen"].map(|name| folder.path().join(name));
    let script = format!(
        "echo $L4LB_POOL/$L4LB_BACKEND $L4LB_ADDRESS:$L4LB_PORT >>{}; test -e {}",
        seen.display(),
        flag.display()
    );
    let backends = backends(1)
        .health(format!("{SOON}, type = \"tcp\", rise = 1, fall = 1"))
        .pool(&format!("check = [{{ name = \"flag\", {} }}]", shell(&script)));
    let service = backends.start();
    let becomes = |state| until("it has its verdict", || service.backend(0).health() == state);
    becomes(Down);
    std::fs::write(&flag, "").unwrap();
    becomes(Up);
    std::fs::remove_file(&flag).unwrap();
    becomes(Down);
    let (backend, seen) = (service.backend(0), std::fs::read_to_string(&seen).unwrap());
    let address = &backend.address;
    // The first line is whole: its program has ended.
    let first = seen.lines().next().expect("it has run");
    assert!(first.ends_with(&format!("/{} {address}", backend.name)), "{seen:?}");
    service.audit();
}

#[test]
fn a_program_that_hangs_is_killed_and_none_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let script = shell(&format!("echo $$ >>{}; sleep 1000", pids.display()));
    let keys =
        "interval = \"50ms\", fast_interval = \"50ms\", timeout = \"50ms\", fall = 2, initial_state = \"up\"";
    let backends = backends(1).health(format!("{keys}, {script}"));
    let service = backends.start();
    until("it is down", || service.backend(0).health() == Down);
    service.ends(&[]);
    let pids = std::fs::read_to_string(&pids).unwrap_or_default();
    let is_gone = |pid: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    };
    until("all are gone", || pids.lines().all(is_gone));
}

#[test]
fn a_backend_may_be_checked_at_a_port_of_its_own() {
    let checked = Node::new(0);
    let checks = checked.listen(16);
    let own = format!("check = {{ port = {} }}", checked.address.port()).leak();
    let backends = backends(1)
        .health(format!("{SOON}, type = \"http\", port = 1, initial_state = \"down\", rise = 1"))
        .keys_of_each([own]);
    let service = backends.start();
    answer_check(&checks, OK);
    until("it is up", || service.backend(0).health() == Up);
    service.audit();
}

/// How a scripted backend answers one check.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// These pieces, each on its own.
    Pieces(&'static [&'static [u8]]),
    /// These bytes and a reset.
    ThenReset(&'static [u8]),
    /// These bytes and a FIN.
    ThenFin(&'static [u8]),
}

impl Answer {
    #[track_caller]
    fn give(self, mut check: Peer) -> Option<Ending> {
        match self {
            Self::Pieces(pieces) => {
                pieces.iter().for_each(|piece| check.sending().bytes(piece));
                Some(check.receiving().ending())
            }
            Self::ThenReset(bytes) => {
                check.sending().bytes(bytes);
                check.reset();
                None
            }
            Self::ThenFin(bytes) => {
                check.sending().bytes(bytes);
                check.fin();
                Some(check.receiving().ending())
            }
        }
    }
}

/// The first check of a server with these keys of `health` gets this answer, and its verdict is the state.
#[track_caller]
fn verdict_on(keys: &str, answer: Answer, request: impl Fn(&Ward) -> Peer) -> (HealthState, Option<Ending>) {
    let ward = Ward::new(keys);
    let service = ward.backends.start();
    let ending = answer.give(request(&ward));
    until("a verdict", || service.backend(0).health() != Unknown);
    let state = service.backend(0).health();
    service.ends(&[]);
    (state, ending)
}

const HTTP: &str = "type = \"http\"";
const NO_CONTENT: &str = "type = \"http\", status = 204";

/// Cases 78 and 79.
#[test]
fn an_http_check_judges_the_status_and_ends_by_a_fin() {
    use Answer::{Pieces, ThenFin, ThenReset};
    let fin = Some(Ending::Fin);
    let cases = [
        (HTTP, Pieces(&[OK]), (Up, fin)),
        (HTTP, Pieces(&[b"HTTP/1.1 2", b"00 OK\r", b"\n\r\n"]), (Up, fin)),
        (HTTP, ThenReset(OK), (Up, None)),
        (HTTP, ThenFin(OK), (Up, fin)),
        (HTTP, Pieces(&[UNAVAILABLE]), (Down, fin)),
        (HTTP, Pieces(&[b"SSH-2.0-OpenSSH_9.2\r\n"]), (Down, fin)),
        (HTTP, ThenFin(b"HTTP/1.1 200"), (Down, fin)),
        (HTTP, ThenFin(b""), (Down, fin)),
        (HTTP, ThenReset(b""), (Down, None)),
        // No answer at all, and half of one, until the timeout.
        (HTTP, Pieces(&[]), (Down, fin)),
        (HTTP, Pieces(&[b"HTTP/1.1 200"]), (Down, fin)),
        (NO_CONTENT, Pieces(&[b"HTTP/1.1 204 No Content\r\n\r\n"]), (Up, fin)),
        (NO_CONTENT, Pieces(&[OK]), (Down, fin)),
    ];
    thread::scope(|scope| {
        for (keys, answer, expected) in cases {
            scope.spawn(move || {
                assert_eq!(verdict_on(keys, answer, Ward::http_check), expected, "{keys}: {answer:?}");
            });
        }
    });
}

/// Case 78.
#[test]
fn a_check_with_a_request_judges_the_answer() {
    use Answer::{Pieces, ThenFin};
    const PREFIX: &str = "type = \"send_expect\", send = \"PING\\r\\n\", expect = \"+PONG\"";
    const CONTAINS: &str = "type = \"send_expect\", send = \"PING\\r\\n\", contains = \"ready\"";
    const LISTENS: &str = "type = \"send_expect\", expect = \"220 \"";
    let fin = Some(Ending::Fin);
    let cases = [
        (PREFIX, Pieces(&[b"+PONG\r\n"]), (Up, fin)),
        (PREFIX, Pieces(&[b"+PO", b"NG"]), (Up, fin)),
        (PREFIX, Pieces(&[b"-ERR +PONG"]), (Down, fin)),
        (PREFIX, ThenFin(b"+PO"), (Down, fin)),
        (CONTAINS, Pieces(&[b"not yet, now rea", b"dy"]), (Up, fin)),
        (CONTAINS, ThenFin(b"not yet"), (Down, fin)),
        (LISTENS, Pieces(&[b"220 mail.example.com\r\n"]), (Up, fin)),
        (LISTENS, Pieces(&[b"554 no\r\n"]), (Down, fin)),
        // Nothing was said on either side until the timeout.
        (LISTENS, Pieces(&[]), (Down, Some(Ending::Reset))),
    ];
    let request = |ward: &Ward| {
        let mut check = ward.check();
        if ward.backends.keys_of_health().contains("PING") {
            check.receiving().bytes(b"PING\r\n");
        }
        check
    };
    thread::scope(|scope| {
        for (keys, answer, expected) in cases {
            scope.spawn(move || {
                assert_eq!(verdict_on(keys, answer, request), expected, "{keys}: {answer:?}");
            });
        }
    });
}

/// Case 78: a bare connect ends by a reset, at once.
#[test]
fn a_check_that_only_connects_ends_by_a_reset() {
    let ward = Ward::new("type = \"tcp\", rise = 1");
    let service = ward.backends.start();
    for _ in 0..3 {
        assert_eq!(ward.check().receiving().ending(), Ending::Reset);
    }
    assert_eq!(service.backend(0).health(), Up);
    let totals = service.ends(&[]);
    assert_eq!(totals.transitions, 1, "{totals}");
}

/// Case 78: neither a backend that keeps its end open nor one that talks on holds up the checks.
#[test]
fn a_backend_that_does_not_close_is_checked_again() {
    let ward = Ward::new("type = \"http\", initial_state = \"down\", rise = 3");
    let service = ward.backends.start();
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut check = ward.http_check();
        check.sending().bytes(OK);
        assert_eq!(check.receiving().ending(), Ending::Fin);
        open.push(check);
    }
    assert_eq!(service.backend(0).health(), Up);
    let mut endless = ward.http_check();
    endless.sending().bytes(OK);
    let _cut = endless.sending().until_error();
    drop(ward.http_check());
    service.ends(&[]);
}

/// Case 49 for checks: without an answer to the SYN.
#[test]
fn a_check_whose_connect_gets_no_answer_fails_at_its_timeout() {
    let backends = dead_backends(1).health(format!("{SOON}, initial_state = \"up\", fall = 2"));
    let _listener = backends.nodes[0].listen(0);
    let _filler = Peer::connect(backends.nodes[0].address, 0, None);
    let service = backends.start();
    until("it is down", || service.backend(0).health() == Down);
    let totals = service.ends(&[]);
    assert_eq!(totals.transitions, 1, "{totals}");
}

/// Case 55: all down, and back without help.
#[test]
fn a_pool_recovers_by_itself() {
    for workers in [1, 2] {
        let backends = backends(3).workers(workers).health(SOON);
        let service = backends.start();
        let all_are = |state| (0..3).all(|node| service.backend(node).health() == state);
        until("all are up", || all_are(Up));
        assert_eq!(service.visits(6), [2, 2, 2]);
        backends.nodes.iter().for_each(Node::die);
        until("all are down", || all_are(Down));
        assert_eq!(service.client().receiving().ending(), Ending::Reset);
        backends.nodes.iter().for_each(Node::serve);
        until("all are up again", || all_are(Up));
        let mut refused = 0;
        until("a client is served", || {
            let served = service.knock().is_ok();
            refused += u64::from(!served);
            served
        });
        let totals = service.ends(&[(Done, 7), (NoBackend, 1 + refused)]);
        assert_eq!((totals.transitions, totals.dial_failures), (9, 0), "{totals}");
    }
}

/// Failed dials alone take a backend down, and exactly `fall` of them.
#[test]
fn failed_dials_count_as_failed_checks() {
    for fall in [1, 3, 5] {
        let backends = dead_backends(2).health(format!("{NEVER}, fall = {fall}"));
        backends.nodes[1].serve();
        let service = backends.start();
        for _ in 0..20 {
            assert_eq!(service.visit(), 1);
        }
        assert_eq!((service.backend(0).health(), service.backend(1).health()), (Down, Up));
        let totals = service.ends(&[(Done, 20)]);
        assert_eq!((totals.dial_failures, totals.transitions), (fall, 1), "fall = {fall}: {totals}");
    }
}

/// Without checks nothing would bring a backend up again, so nothing takes it down.
#[test]
fn failed_dials_do_not_take_down_a_backend_that_is_not_checked() {
    let backends = dead_backends(2);
    backends.nodes[1].serve();
    let service = backends.start();
    for _ in 0..20 {
        assert_eq!(service.visit(), 1);
    }
    let totals = service.ends(&[(Done, 20)]);
    assert_eq!((totals.dial_failures, totals.transitions), (20, 0), "{totals}");
}

/// Goal G4: sessions that run on a killed backend are cut; no session that begins later notices anything.
#[test]
fn no_new_session_fails_when_a_backend_is_killed_under_load() {
    let backends = backends(3).workers(2).health(format!("{SOON}, initial_state = \"up\""));
    let service = backends.start();
    let (dead, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let after_death = AtomicU64::new(0);
    let load = || {
        while !stop.load(Ordering::Acquire) {
            let is_new = dead.load(Ordering::Acquire);
            let result = service.knock();
            if is_new {
                result.expect("a session that began after the death of a backend");
                after_death.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        let over = SetOnDrop(&stop);
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        until("all nodes have work", || backends.nodes.iter().all(|node| node.book().accepted() > 50));
        backends.nodes[1].die();
        dead.store(true, Ordering::Release);
        until("it is down", || service.backend(1).health() == Down);
        let at_death = after_death.load(Ordering::Relaxed);
        until("life goes on", || after_death.load(Ordering::Relaxed) > at_death + 100);
        backends.nodes[1].serve();
        let before = backends.nodes[1].book().accepted();
        until("it serves again", || backends.nodes[1].book().accepted() > before + 50);
        drop(over);
        clients.into_iter().for_each(|client| client.join().expect("a client"));
    });
    let failures = service.backend(1).dial_failures();
    assert!(failures >= 1, "some dial has met the dead backend");
    let totals = service.audit();
    assert_eq!((totals.transitions, totals.dial_failures), (2, failures), "{totals}");
}

/// Case 78, from the side of the backends: all checks and sessions are over, each by its end.
#[test]
fn no_check_leaves_a_connection_behind() {
    let backends = backends(2).workers(2).health(SOON);
    let service = backends.start();
    until("ten checks of each", || backends.nodes.iter().all(|node| node.book().by_reset() >= 2));
    service.visits(10);
    service.ends(&[(Done, 10)]);
    for node in &backends.nodes {
        assert_eq!(node.book().by_fin(), 5, "sessions");
    }
}

/// Case 80.
#[test]
fn a_backend_that_is_down_costs_nothing() {
    let backends = backends(4).health("interval = \"100ms\", fast_interval = \"100ms\", timeout = \"100ms\"");
    backends.nodes[1..].iter().for_each(Node::die);
    let service = backends.start_daemon("info");
    let mut visit = service.enter().talks();
    for _ in 1..4 {
        service.server.wait_for_line(&["to=down"]);
    }
    let share = service.cpu_share_while_silent(&mut visit.client, Duration::from_millis(600));
    assert!(share <= 0.1, "{share} of a processor for some 40 checks a second");
    visit.leave();
    service.stops();
}
