//! `l4lb top` as one sees it: on a pipe, on a terminal, and what it leaves behind there.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use l4lb::api;

use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::{patience, until};
use crate::harness::program::{self, Program, output};

/// What gives a terminal back: out of the alternate screen, and the cursor is seen again (xterm, "ctlseqs").
const GIVEN_BACK: &str = "\u{1b}[?1049l\u{1b}[?25h";

fn web(address: impl std::fmt::Display) -> String {
    format!(
        "[[pool]]\nname = \"web\"\nhealth = {{ type = \"off\" }}\n\
         backend = [{{ name = \"a\", address = \"{address}\" }}, {{ name = \"b\", address = \"[::1]:2\" }}]\n"
    )
}

fn outcome(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = output(&mut command);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn one_screen_is_printed_where_there_is_no_terminal() {
    let daemon = Daemon::start(&web("127.0.0.1:1"), IPV4);
    let mut command = daemon.command(&["top", "--once"]);
    command.env("COLUMNS", "100").env("LINES", "24");
    let (code, screen, stderr) = outcome(command);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for words in [
        "  serving  up ",
        "sessions 0  conn 0/s",
        "127.0.0.1:1  unknown",
        "[::1]:2      unknown",
        "1-2 of 2 backends",
    ] {
        assert!(screen.contains(words), "no {words:?} in\n{screen}");
    }
    assert!(!screen.contains('\u{1b}') && screen.lines().all(|line| line.chars().count() <= 100), "{screen}");
    let (code, stdout, stderr) = outcome(daemon.command(&["top"]));
    let error = "l4lb: no terminal to draw on: use --once to print one screen\n";
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(1), "", error));
    let (code, stdout, stderr) = outcome(daemon.command(&["top", "--once", "--socket", "/none/such"]));
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1), "{stderr}");
    assert!(stderr.starts_with("l4lb: cannot reach l4lb at /none/such: "), "{stderr}");
    let (code, _, stderr) = outcome(daemon.command(&["top", "--interval", "1ms"]));
    assert_eq!((code, stderr.as_str()), (Some(2), "--interval 1ms: must be 1s..=1m, got \"1ms\"\n"));
}

/// `l4lb top` on a terminal of script(1).
struct Terminal {
    program: Program,
    chunks: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn open(daemon: &Daemon) -> Self {
        let top = daemon.command(&[]);
        let runtime =
            top.get_envs().find(|(name, _)| *name == "RUNTIME_DIRECTORY").and_then(|(_, value)| value);
        let script = format!("stty cols 100 rows 24; echo PID=$$.; exec {} top", env!("CARGO_BIN_EXE_l4lb"));
        let mut command = Command::new("script");
        command
            .args(["-qefc", &script, "/dev/null"])
            .env("RUNTIME_DIRECTORY", runtime.expect("a run-time directory"))
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut program = Program::start(&mut command);
        let mut output = program.stdout();
        let (sender, chunks) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { program, chunks, shown: String::new() }
    }

    /// Waits until all of that has been written to the terminal, in this order; returns what came behind it.
    #[track_caller]
    fn expect(&mut self, words: &str) -> String {
        let left = patience();
        loop {
            if let Some((_, rest)) = self.shown.split_once(words) {
                return rest.to_owned();
            }
            let chunk = self.chunks.recv_timeout(left());
            let chunk = chunk.unwrap_or_else(|error| panic!("{error}: no {words:?} in {:?}", self.shown));
            self.shown += &String::from_utf8_lossy(&chunk);
        }
    }

    /// Its exit code, when the terminal was given back.
    #[track_caller]
    fn end(mut self) -> Option<i32> {
        self.expect(GIVEN_BACK);
        self.program.ends().code()
    }
}

#[test]
fn a_backend_is_drained_from_the_keyboard_and_the_terminal_given_back() {
    let backend = TcpListener::bind(IPV4).expect("a port");
    let daemon = Daemon::start(&web(backend.local_addr().expect("its address")), IPV4);
    let mut top = Terminal::open(&daemon);
    top.expect("web/a");
    top.program.types("d");
    top.expect("drain");
    top.program.types("\r");
    let admin = || daemon.admin().get::<api::Backend>("/v1/pools/web/backends/a").expect("a backend").admin;
    until("the backend is in drain", || admin() == api::Admin::Drain);
    top.program.types("q");
    assert_eq!(top.end(), Some(0));
}

#[test]
fn a_signal_ends_it_and_the_terminal_is_given_back() {
    let daemon = Daemon::start(&web("127.0.0.1:1"), IPV4);
    for signal in ["TERM", "HUP"] {
        let mut top = Terminal::open(&daemon);
        top.expect("web/a");
        let rest = top.expect("PID=");
        let pid = rest.split_once('.').and_then(|(pid, _)| pid.parse().ok());
        program::signal(signal, pid.expect("its pid"));
        assert_eq!(top.end(), Some(0), "{signal}");
    }
}
