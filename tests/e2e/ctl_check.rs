//! `l4lb ctl check` against backends of a test: what it shows, how it ends, and what it leaves as it is.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use axum::http::{Method, StatusCode};
use l4lb::api::{self, ActKind};
use l4lb::ctl::ClientError;

use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::until;
use crate::harness::program::output;

/// More than run and wait at a time.
const CROWD: usize = 12;
const PASSWORD: &str = "open-sesame";

/// A backend that answers lines, or says nothing and keeps all connections until it ends.
struct Peer {
    port: u16,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    fn new(answers: &'static [(&'static str, &'static str)]) -> Self {
        let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = socket.local_addr().expect("it is bound").port();
        let is_over = Arc::<AtomicBool>::default();
        let is_enough = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut silent = Vec::new();
            for client in socket.incoming() {
                let client = client.expect("a connection");
                if is_enough.load(Ordering::Relaxed) {
                    return;
                }
                if answers.is_empty() {
                    silent.push(client);
                } else {
                    // A client may leave at any time.
                    let _left = answer(&client, answers);
                }
            }
        });
        Self { port, is_over, thread: Some(thread) }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _woken = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the backend does not panic");
        }
    }
}

fn answer(client: &TcpStream, answers: &[(&str, &str)]) -> std::io::Result<()> {
    let mut out = client;
    for line in BufReader::new(client).lines() {
        let line = line?;
        let known = answers.iter().find(|(question, _)| *question == line);
        out.write_all(known.map_or("-ERR\r\n", |(_, answer)| answer).as_bytes())?;
    }
    Ok(())
}

const REDIS: &[(&str, &str)] = &[("AUTH open-sesame", "+OK\r\n"), ("PING", "+PONG of open-sesame\r\n")];

/// A pool with a backend `a` that is down, and stays so, however often its checks pass meanwhile.
fn pool(port: u16, health: &str) -> String {
    // Long enough for any machine.
    let timeout = if health.contains("timeout") { "" } else { "timeout = \"20s\"\n" };
    format!(
        "[[pool]]\nname = \"web\"\nbackend = [{{ name = \"a\", address = \"127.0.0.1:{port}\" }}]\n\
         [pool.health]\ninterval = \"1h\"\nfast_interval = \"1h\"\ninitial_state = \"down\"\nrise = 100\n{timeout}{health}\n"
    )
}

/// Its exit code, and both of its outputs.
fn check(daemon: &Daemon, args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        output(&mut daemon.command(&[["ctl", "check"].as_slice(), args].concat()));
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

fn backend(daemon: &Daemon) -> api::Backend {
    daemon.admin().get("/v1/pools/web/backends/a").expect("the backend")
}

#[test]
fn an_operator_sees_the_exchange_and_the_backend_stays_as_it_was() {
    let redis = Peer::new(REDIS);
    let health = "type = \"tcp\"\nsteps = [{ send = \"AUTH ${PASSWORD}\\r\\n\", expect = \"+OK\" }, \
        { send = \"PING\\r\\n\", expect = \"+PONG of ${PASSWORD}\" }]\n";
    let config = pool(redis.port, health);
    let daemon = Daemon::start_with(&config, IPV4, "info", &[("PASSWORD", PASSWORD)]);
    let (code, text, errors) = check(&daemon, &["web/a"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    for words in [
        &format!("web/a: check health, tcp at 127.0.0.1:{}\n", redis.port),
        "  connected\n",
        "  sent      \"AUTH ${PASSWORD}\\r\\n\"\n",
        "  expects   text with \"+OK\"\n",
        "  received  \"+OK\\r\\n\"\n",
        "  sent      \"PING\\r\\n\"\n",
        "  expects   text with \"+PONG of ${PASSWORD}\"\n",
        "  received  \"+PONG of ${PASSWORD}",
        "  passed\nweb/a: 1 check, passed; its health stays down\n",
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
    // In maintenance too, by a pattern, as JSON.
    let maint = output(&mut daemon.command(&["ctl", "maint", "a", "--force"]));
    assert!(maint.status.success());
    let (code, json, _) = check(&daemon, &["w*/127.0.0.1:*", "a", "--json"]);
    assert!(!(text + &json).contains(PASSWORD), "a password is shown");
    let run: api::CheckRun = serde_json::from_str(&json).expect("one answer, of one backend");
    assert_eq!((code, run.passed, run.health), (Some(0), Some(true), api::Health::Down));
    let kinds: Vec<ActKind> = run.checks[0].exchange.iter().map(|act| act.kind).collect();
    assert_eq!(kinds[..4], [ActKind::Connected, ActKind::Sent, ActKind::Expected, ActKind::Received]);
    assert_eq!(backend(&daemon).health, api::Health::Down);
    daemon.wait_for_line(&["checked for an operator"]);
}

#[test]
fn each_check_of_the_pool_runs_and_one_that_fails_decides_the_exit_code() {
    let redis = Peer::new(REDIS);
    let more = "[[pool.check]]\nname = \"greets\"\ntype = \"send_expect\"\nsend = \"HELLO\\n\"\nexpect = \"hi\"\n\
        [[pool.check]]\nname = \"ping\"\ntype = \"send_expect\"\nsend = \"PING\\n\"\ncontains = \"PONG\"\n";
    let daemon = Daemon::start(&pool(redis.port, more), IPV4);
    let (code, text, _) = check(&daemon, &["a"]);
    assert_eq!(code, Some(1), "{text}");
    let reason = "failed: answer does not start with \"hi\": got \"-\"";
    let reason_of_all = "failed: answer does not start with \"hi\": got \"-ERR\\r\\n\"";
    assert!(text.contains(reason) || text.contains(reason_of_all), "{text}");
    for words in
        ["check health, tcp at", "check greets, send_expect at", "check ping,", "web/a: 3 checks, failed;"]
    {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
    assert_eq!(text.matches("  passed").count(), 2, "{text}");
}

#[test]
fn a_program_is_run_and_what_it_prints_is_shown() {
    let script = "echo $L4LB_POOL/$L4LB_BACKEND at $L4LB_PORT; exit 3";
    let health = format!("type = \"command\"\ncommand = [\"/bin/sh\", \"-c\", '{script}']");
    let daemon = Daemon::start(&pool(7, &health), IPV4);
    let (code, text, _) = check(&daemon, &["a"]);
    assert_eq!(code, Some(1), "{text}");
    for words in [
        "command at 127.0.0.1:7",
        "  ran       /bin/sh -c echo",
        "  printed   \"web/a at 7\\n\"",
        "exit status 3",
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
    daemon.reload(&pool(7, "type = \"command\"\ncommand = [\"/bin/true\"]"));
    daemon.wait_for_line(&["configuration applied"]);
    let (code, text, _) = check(&daemon, &["a"]);
    assert_eq!(code, Some(0), "{text}");
    // Killed at the timeout of the check.
    daemon.reload(&pool(7, "type = \"command\"\ncommand = [\"/bin/sleep\", \"1000\"]\ntimeout = \"50ms\""));
    daemon.wait_for_line(&["configuration applied"]);
    let (code, text, _) = check(&daemon, &["a"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("failed: timed out after 50ms while running the command"), "{text}");
}

#[test]
fn without_a_result_the_exit_code_is_another_one() {
    let daemon = Daemon::start(&pool(7, "type = \"off\""), IPV4);
    for (args, words) in [
        (["web/a"].as_slice(), "has no checks: their type is"),
        (&["web/b"], "backend \"b\" does not exist"),
        (&["wob/a"], "there is no pool \"wob\""),
        (&["web/z*"], "matches no backend"),
        (&["web/a", "--socket", "/no/such/socket"], "cannot reach l4lb"),
    ] {
        let (code, text, errors) = check(&daemon, args);
        assert_eq!((code, text.as_str()), (Some(2), ""), "{args:?}: {errors}");
        assert!(errors.contains(words), "{args:?}: {errors}");
    }
}

#[test]
fn only_so_many_run_at_a_time_and_nobody_else_waits_for_them() {
    let silent = Peer::new(&[]);
    let health = "type = \"send_expect\"\nexpect = \"never\"\ntimeout = \"60s\"";
    let daemon = Arc::new(Daemon::start(&pool(silent.port, health), IPV4));
    let refused = Arc::<AtomicBool>::default();
    let ask = |_| {
        let (daemon, refused) = (Arc::clone(&daemon), Arc::clone(&refused));
        thread::spawn(move || {
            let path = "/v1/pools/web/backends/a/check";
            match daemon.admin().ask::<api::CheckRun>(Method::POST, path, None::<&()>) {
                Ok(run) => assert_ne!(run.passed, Some(true)),
                Err(ClientError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, error }) => {
                    refused.fetch_or(error.starts_with("8 backends are being checked"), Ordering::Relaxed);
                }
                Err(error) => panic!("{error}"),
            }
        })
    };
    let crowd: Vec<JoinHandle<()>> = (0..CROWD).map(ask).collect();
    until("one too many is refused", || refused.load(Ordering::Relaxed));
    // The control thread and the admin API serve others meanwhile.
    let drained = output(&mut daemon.command(&["ctl", "drain", "a", "--force"]));
    assert!(drained.status.success());
    assert_eq!(backend(&daemon).admin, api::Admin::Drain);
    drop(silent);
    for one in crowd {
        one.join().expect("each has an answer");
    }
}
