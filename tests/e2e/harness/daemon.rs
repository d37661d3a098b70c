//! The real binary as a child process, where a test looks at what only a process has: its CPU time, its open
//! files, its signals.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use procfs::process::{FDTarget, Process};
use socket2::Socket;
use tempfile::{NamedTempFile, TempDir};

use l4lb::ctl::{Client, Target};
use l4lb::sys::Clock;

use crate::harness::peer::{new_socket, until};
use crate::harness::program::{Lines, Program, run};

/// SIGHUP, SIGUSR1 and SIGTERM as bits of `SigCgt`, proc_pid_status(5).
const HANDLED: u64 = 1 << 0 | 1 << 9 | 1 << 14;

/// A running `l4lb -c`.
pub(crate) struct Daemon {
    program: Program,
    log: Mutex<Lines>,
    file: NamedTempFile,
    pub(crate) address: SocketAddr,
    /// Where its admin socket is.
    runtime: TempDir,
    /// Keeps its port, also while it does not listen.
    _port: Option<Socket>,
}

impl Daemon {
    /// Starts it with a listener on a free port of `host`, and `config`, which may begin with keys of that listener.
    pub(crate) fn start(config: &str, host: SocketAddr) -> Self {
        Self::start_logging(config, host, "info,l4lb::session=off")
    }

    /// The same with a log of its own choice, in the form of RUST_LOG.
    pub(crate) fn start_logging(config: &str, host: SocketAddr, log: &str) -> Self {
        Self::start_with(config, host, log, &[])
    }

    /// The same with further variables in its environment.
    pub(crate) fn start_with(config: &str, host: SocketAddr, log: &str, env: &[(&str, &str)]) -> Self {
        let (port, address) = keep_a_port(host);
        let mut command = Command::new(env!("CARGO_BIN_EXE_l4lb"));
        command.env("RUST_LOG", log).envs(env.iter().copied());
        let daemon = Self::try_start(command, config, address).expect("its port is kept for it");
        Self { _port: Some(port), ..daemon }
    }

    /// Starts it by `command`, to which the flag with its configuration is added; `None` if the address is taken.
    pub(crate) fn try_start(mut command: Command, config: &str, address: SocketAddr) -> Option<Self> {
        let file = NamedTempFile::new().expect("a file for the configuration");
        let runtime = tempfile::tempdir().expect("a run-time directory");
        write_config(&file, config, address);
        command.arg("-c").arg(file.path()).env("RUNTIME_DIRECTORY", runtime.path());
        let mut program = Program::start(command.stderr(Stdio::piped()));
        let log = Mutex::new(Lines::of(program.stderr()));
        let mut daemon = Self { program, log, file, address, runtime, _port: None };
        match daemon.wait_for_line(&["listening", "address in use"]) {
            line if line.contains("listening") => {
                until("l4lb handles signals", || daemon.handles_signals());
                // The last of what it opens by itself.
                daemon.wait_for_line(&["admin API"]);
                Some(daemon)
            }
            _ => {
                daemon.program.ends();
                None
            }
        }
    }

    /// What asks its admin API.
    pub(crate) fn admin(&self) -> Client {
        Client::new(Target::Socket(self.runtime.path().join("admin.sock"))).expect("start a runtime")
    }

    /// The folder of its admin socket.
    pub(crate) fn runtime(&self) -> &Path {
        self.runtime.path()
    }

    /// Its admin socket.
    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.runtime.path().join("admin.sock")
    }

    /// The file that its configuration is in.
    pub(crate) fn config_file(&self) -> &Path {
        self.file.path()
    }

    /// Puts another configuration in its file, with the same listener.
    pub(crate) fn rewrite(&self, config: &str) {
        write_config(&self.file, config, self.address);
    }

    /// Puts another configuration in its file, with the same listener, and has it read again.
    pub(crate) fn reload(&self, config: &str) {
        self.rewrite(config);
        self.signal("HUP", 1);
    }

    /// The binary as a user of this process starts it: it looks for the admin API where this process has it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_l4lb"));
        command.args(args).env("RUNTIME_DIRECTORY", self.runtime.path());
        command
    }

    /// The next line of its log that contains one of `words`.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, words: &[&str]) -> String {
        let log = self.log.lock().expect("lock not poisoned");
        let is_meant = |line: &str| words.iter().any(|word| line.contains(word));
        log.find(&format!("line with any of {words:?}"), is_meant)
    }

    /// Sends it a signal, `times` in a row. The signal is named as kill(1) names it.
    pub(crate) fn signal(&self, name: &str, times: u32) {
        let script =
            format!("i=0; while [ $i -lt {times} ]; do kill -{name} {}; i=$((i+1)); done", self.program.id());
        run(Command::new("sh").arg("-c").arg(script));
    }

    /// Stops all its threads, until [`Daemon::signal`] with CONT.
    pub(crate) fn freeze(&self) {
        self.signal("STOP", 1);
        until("all threads of l4lb are stopped", || {
            // Each stops by itself, a busy one later than the one that the process is known by.
            let mut threads = self.process().tasks().expect("threads").flatten();
            threads.all(|thread| thread.stat().expect("stat").state == 'T')
        });
    }

    /// The thread that has that name.
    pub(crate) fn thread(&self, name: &str) -> i32 {
        let mut threads = self.process().tasks().expect("threads").flatten();
        let thread = threads.find(|thread| thread.stat().expect("stat").comm == name);
        thread.unwrap_or_else(|| panic!("no thread {name}")).tid
    }

    /// CPU time that it has used.
    fn cpu_time(&self) -> Duration {
        let stat = self.process().stat().expect("stat");
        Duration::from_millis((stat.utime + stat.stime) * 1_000 / procfs::ticks_per_second())
    }

    /// The part of a processor that it uses while `wait` waits, which on a busy machine is for longer than it means to.
    pub(crate) fn cpu_share(&self, wait: impl FnOnce()) -> f64 {
        let clock = Clock::start();
        let (start, before) = (clock.now(), self.cpu_time());
        wait();
        let used = self.cpu_time() - before;
        used.as_secs_f64() / (clock.now() - start).as_secs_f64()
    }

    /// Bytes of its memory that no file backs. VmRSS has the pages of the program too, and the kernel counts it
    /// coarsely: it may be wrong by some 100 KiB for each processor.
    pub(crate) fn memory(&self) -> u64 {
        let rollup = self.process().smaps_rollup().expect("smaps_rollup").memory_map_rollup;
        rollup.iter().map(|map| map.extension.map["Anonymous"]).sum()
    }

    /// Lowers its limit of open files until it can open `count` more, or raises it to that.
    pub(crate) fn can_open(&self, count: usize) {
        let look = || -> HashSet<i32> {
            self.process().fd().expect("open files").flatten().map(|file| file.fd).collect()
        };
        // A file that it only reads at its start would be counted as one that stays open: on a busy machine a thread
        // that has it open may wait for a processor meanwhile, so that the same files are open at two looks.
        let mut open = look();
        until("its threads sleep and its open files stay the same", || {
            let before = std::mem::replace(&mut open, look());
            let mut threads = self.process().tasks().expect("threads").flatten();
            let sleep = threads.all(|thread| thread.stat().is_ok_and(|stat| stat.state == 'S'));
            sleep && look() == open && before == open
        });
        let last = (0..).filter(|fd| !open.contains(fd)).nth(count - 1).expect("numbers do not end");
        let [pid, limit] = [format!("--pid={}", self.program.id()), format!("--nofile={}:", last + 1)];
        run(Command::new("prlimit").args([pid, limit]));
    }

    /// Sockets that it has open.
    pub(crate) fn sockets(&self) -> usize {
        let files = self.process().fd().expect("open files");
        files.flatten().filter(|file| matches!(file.target, FDTarget::Socket(_))).count()
    }

    /// Ends it by SIGTERM; returns the totals that it logs, as text.
    pub(crate) fn stop(self) -> String {
        self.signal("TERM", 1);
        self.has_stopped()
    }

    /// Waits until it has ended well; returns the totals that it logs, as text.
    pub(crate) fn has_stopped(mut self) -> String {
        let totals = self.wait_for_line(&["stopped: "]);
        let status = self.program.ends();
        assert!(status.success(), "l4lb: {status}");
        totals
    }

    /// Ends it by SIGTERM; returns the lines of its log that nobody has waited for.
    pub(crate) fn lines_until_it_ends(mut self) -> Vec<String> {
        self.signal("TERM", 1);
        let status = self.program.ends();
        assert!(status.success(), "l4lb: {status}");
        self.log.lock().expect("lock not poisoned").rest()
    }

    /// Before that SIGTERM would end it without a word, and its own sockets are not all there.
    fn handles_signals(&self) -> bool {
        self.process().status().expect("status").sigcgt & HANDLED == HANDLED
    }

    fn process(&self) -> Process {
        Process::new(i32::try_from(self.program.id()).expect("a process id")).expect("/proc of l4lb")
    }
}

/// A port of `host` that the kernel gives to nobody else: a socket that does not listen keeps it (SO_REUSEADDR,
/// socket(7)).
fn keep_a_port(host: SocketAddr) -> (Socket, SocketAddr) {
    let socket = new_socket(host, None);
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
    socket.bind(&host.into()).expect("bind");
    let address = socket.local_addr().expect("getsockname").as_socket().expect("an IP address");
    (socket, address)
}

fn write_config(file: &NamedTempFile, config: &str, address: SocketAddr) {
    let text = format!("[[listener]]\nbind = \"{address}\"\n{config}\n");
    std::fs::write(file.path(), text).expect("write the configuration");
}
