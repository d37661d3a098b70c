//! `l4lb ctl stop`: the end of the process as an operator asks for it, with an answer before it.

use std::process::{Command, Stdio};

use axum::http::{Method, StatusCode};
use l4lb::api;
use l4lb::ctl::{Client, ClientError, Target};
use tempfile::NamedTempFile;

use crate::harness::backends::backends;
use crate::harness::daemon::Daemon;
use crate::harness::peer::free_address;
use crate::harness::program::{Lines, Program, output};
use crate::shutdown::until_closed;

fn command(daemon: &Daemon, args: &str) -> Command {
    let args: Vec<&str> = ["ctl", "stop"].into_iter().chain(args.split_whitespace()).collect();
    daemon.command(&args)
}

/// What it prints, once it has done what it should.
#[track_caller]
fn stop(daemon: &Daemon, args: &str) -> String {
    let output = output(&mut command(daemon, args));
    assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_stop_lets_sessions_finish_and_a_second_one_changes_nothing() {
    let backends = backends(1).drain_timeout("24h");
    let service = backends.start_daemon("info");
    let mut visit = service.enter().talks();
    for _ in 0..2 {
        let answer = stop(&service.server, "");
        assert!(answer.starts_with("draining: 1 session left, reset in "), "{answer}");
        assert!(answer.ends_with("; `l4lb ctl stop --now` resets them at once\n"), "{answer}");
        visit = visit.talks();
    }
    let line = service.server.wait_for_line(&["stop requested"]);
    assert!(line.contains("stop requested: sessions may finish who=\"uid "), "{line}");
    until_closed(service.address());
    let json: api::Stopping = serde_json::from_str(&stop(&service.server, "--json")).expect("the answer");
    assert_eq!((json.stage, json.sessions, json.drains_in), (api::Stage::Draining, 1, None));
    visit.leave();
    let totals = service.has_stopped();
    assert!(totals.contains(" done=1 "), "{totals}");
}

#[test]
fn a_stop_is_waited_for_until_the_process_has_ended() {
    let backends = backends(1).drain_timeout("24h");
    let service = backends.start_daemon("info");
    let visit = service.enter().talks();
    let late = output(&mut command(&service.server, "--wait --timeout 10ms"));
    let stderr = String::from_utf8(late.stderr).expect("UTF-8");
    assert_eq!(late.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().last(), Some("l4lb: l4lb: 1 session left after 10ms"), "{stderr}");

    let mut waits = command(&service.server, "--wait");
    let mut waits = Program::start(waits.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let [stdout, stderr] = [Lines::of(waits.stdout()), Lines::of(waits.stderr())];
    assert!(stderr.next().starts_with("l4lb: 1 of 1 session left after "));
    assert_eq!(waits.status(), None);
    visit.leave();
    assert!(waits.ends().success(), "{:?}", stderr.rest());
    let ended = stdout.next();
    assert!(ended.starts_with("process ") && ended.ends_with(" has ended"), "{ended}");
    service.has_stopped();
}

/// As what a second signal does, whatever stage the process is in.
#[test]
fn a_stop_at_once_resets_what_is_left() {
    for (before, shutdown_delay) in [("", "0s"), ("", "1h"), ("stop", "0s"), ("stop", "1h")] {
        let keys = format!("shutdown_delay = \"{shutdown_delay}\"");
        let backends = backends(1).drain_timeout("24h").global(&keys);
        let service = backends.start_daemon("info");
        let visit = service.enter().talks();
        if before == "stop" {
            let answer = stop(&service.server, "");
            let accepts = answer.starts_with("accepting for another ");
            assert_eq!(accepts, shutdown_delay == "1h", "{answer}");
        }
        let answer = stop(&service.server, "--now");
        // It may be over before the sessions are counted.
        assert!(answer.starts_with("stopping: ") && answer.ends_with(", reset now\n"), "{answer}");
        visit.gets_cut();
        let totals = service.has_stopped();
        assert!(totals.contains(" stopped=1 "), "{totals}");
    }
}

/// Without sessions the end is at once: the answer raced with it.
#[test]
fn the_answer_comes_before_the_process_ends() {
    for (round, args) in ["", "--now", "--wait"].into_iter().cycle().take(9).enumerate() {
        let backends = backends(1).workers(1 + round % 2);
        let service = backends.start_daemon("info");
        let answer = stop(&service.server, args);
        assert!(!answer.is_empty(), "{args}");
        service.has_stopped();
    }
}

#[test]
fn a_stop_needs_the_token_that_permits_changes() {
    let tokens = ["permits-changes-0123456789", "for-reading-only-0123456789"].map(|token| {
        let file = NamedTempFile::new().expect("a file for the token");
        std::fs::write(file.path(), token).expect("write the token");
        file
    });
    let address = free_address();
    let [full, read] = &tokens.each_ref().map(|file| file.path().display().to_string());
    let keys =
        format!("[admin]\nlisten = \"{address}\"\ntoken_file = \"{full}\"\nread_token_file = \"{read}\"");
    let backends = backends(1).global(&keys);
    let service = backends.start_daemon("info");
    let client = |token: &str| {
        let target = Target::Tcp { address, token: token.to_owned() };
        Client::new(target).expect("start a runtime")
    };
    let body = Some(&api::Stop { now: true });
    for (token, expected) in
        [("for-reading-only-0123456789", StatusCode::FORBIDDEN), ("no-token", StatusCode::UNAUTHORIZED)]
    {
        match client(token).answer(Method::POST, "/v1/stop", body) {
            Err(ClientError::Refused { status, .. }) => assert_eq!(status, expected),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("stopped"),
        }
    }
    service.visit();
    let admin = client("permits-changes-0123456789");
    let stopping: api::Stopping = admin.ask(Method::POST, "/v1/stop", body).expect("an answer");
    assert_eq!(stopping.stage, api::Stage::Stopping);
    service.has_stopped();
}
