//! Child processes: nobody waits for them, or for what they say, longer than for anything else, and a failed test
//! leaves none behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;

use crate::harness::peer::{in_time, patience, until};

/// A running program. Dropped, it is killed.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}")))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// What it writes to standard output; once, and only if that was piped. The same goes for the others.
    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("stdout is a pipe")
    }

    pub(crate) fn stderr(&mut self) -> ChildStderr {
        self.0.stderr.take().expect("stderr is a pipe")
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.0.stdin.as_mut().expect("stdin is a pipe").write_all(keys.as_bytes()).expect("press keys");
    }

    /// Sends it a signal, which is named as kill(1) names it.
    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.id());
    }

    /// How it has ended, if it has.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("wait for a child")
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        until("the process ends", || {
            status = self.status();
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // After its end there is none.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// Runs `command` to its end; returns what it has said.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> Output {
    let mut program =
        Program::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let [stdout, stderr] = [all(program.stdout()), all(program.stderr())];
    let status = program.ends();
    let [stdout, stderr] = [stdout, stderr].map(|read| in_time("its output ends", move || read.join()));
    let text = |read: thread::Result<Vec<u8>>| read.expect("the reading thread does not panic");
    Output { status, stdout: text(stdout), stderr: text(stderr) }
}

/// Reads a pipe to its end.
fn all(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("read a pipe");
        bytes
    })
}

/// Runs `command`, which has to do what it should.
#[track_caller]
pub(crate) fn run(command: &mut Command) {
    let status = Program::start(command).ends();
    assert!(status.success(), "{command:?}: {status}");
}

/// Sends a signal, which is named as kill(1) names it, to a process.
#[track_caller]
pub(crate) fn signal(name: &str, pid: u32) {
    run(Command::new("kill").args(["-s", name, &pid.to_string()]));
}

/// The lines that a program writes to a pipe.
pub(crate) struct Lines(Receiver<String>);

impl Lines {
    /// Reads them as they come. The pipe is closed at the first that comes when this is gone.
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines = BufReader::new(pipe).lines();
        let (sender, receiver) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self(receiver)
    }

    /// The next line.
    #[track_caller]
    pub(crate) fn next(&self) -> String {
        self.find("a line", |_| true)
    }

    /// The next line that `is_meant`.
    #[track_caller]
    pub(crate) fn find(&self, what: &str, is_meant: impl Fn(&str) -> bool) -> String {
        let left = patience();
        loop {
            let line = self.0.recv_timeout(left());
            let line = line.unwrap_or_else(|error| panic!("no {what}: {error}"));
            if is_meant(&line) {
                return line;
            }
        }
    }

    /// All that come until the program closes the pipe, at its end at the latest.
    #[track_caller]
    pub(crate) fn rest(&self) -> Vec<String> {
        let (left, mut lines) = (patience(), Vec::new());
        loop {
            match self.0.recv_timeout(left()) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => return lines,
                Err(RecvTimeoutError::Timeout) => panic!("no end behind {lines:?}"),
            }
        }
    }
}
