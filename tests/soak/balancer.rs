//! The load balancer under test: its own program, in its own process, seen from outside.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use procfs::process::{FDTarget, Process};

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Somebody else may take the port between our look and the start.
const START_TRIES: u32 = 20;
/// Several addresses, so that the ports of the clients do not run out.
const LISTENERS: u8 = 8;

/// A running l4lb.
pub(crate) struct Balancer {
    child: Child,
    log: Receiver<String>,
    pub(crate) addresses: Vec<SocketAddr>,
    /// What it said that is worse than info.
    complaints: Vec<String>,
}

/// What the process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Without the ends of pipes.
    pub(crate) open_files: u64,
    /// Ends of pipes: stderr, and those that the workers keep for the next stream.
    pub(crate) pipe_ends: u64,
    pub(crate) memory_kib: u64,
}

impl Balancer {
    /// Starts `program` in front of `backends`, with a listener on each of several addresses.
    pub(crate) fn start(
        program: &Path,
        workers: usize,
        relay: &str,
        backends: &[SocketAddr],
    ) -> anyhow::Result<Self> {
        for _ in 0..START_TRIES {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            let addresses: Vec<_> =
                (1..=LISTENERS).map(|last| (Ipv4Addr::new(127, 0, 0, last), port).into()).collect();
            if let Some(balancer) =
                Self::try_start(program, &config(workers, relay, &addresses, backends), addresses)?
            {
                return Ok(balancer);
            }
        }
        bail!("no free port in {START_TRIES} tries");
    }

    fn try_start(program: &Path, config: &str, addresses: Vec<SocketAddr>) -> anyhow::Result<Option<Self>> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(config.as_bytes())?;
        let folder = tempfile::tempdir()?;
        let manager = UnixDatagram::bind(folder.path().join("notify"))?;
        manager.set_read_timeout(Some(PATIENCE))?;
        let mut child = Command::new(program)
            .arg("-c")
            .arg(file.path())
            .env("RUST_LOG", "info,l4lb::session=off")
            .env("NOTIFY_SOCKET", folder.path().join("notify"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let lines = BufReader::new(child.stderr.take().context("stderr is a pipe")?).lines();
        let (sender, log) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut balancer = Self { child, log, addresses, complaints: Vec::new() };
        for _ in 0..LISTENERS {
            if balancer.wait_for_line(&["listening", "address in use"])?.contains("address in use") {
                return Ok(None);
            }
        }
        wait_until_ready(&manager)?;
        Ok(Some(balancer))
    }

    /// The next line of its log that contains one of `words`.
    fn wait_for_line(&mut self, words: &[&str]) -> anyhow::Result<String> {
        loop {
            let line =
                self.log.recv_timeout(PATIENCE).with_context(|| format!("l4lb says none of {words:?}"))?;
            if words.iter().any(|word| line.contains(word)) {
                return Ok(line);
            }
            self.complaints.extend(is_error_line(&line).then_some(line));
        }
    }

    pub(crate) fn held(&self) -> anyhow::Result<Held> {
        let process = self.process()?;
        let memory_kib = process.status()?.vmrss.context("VmRSS")?;
        let (mut open_files, mut pipe_ends) = (0, 0);
        for file in process.fd()? {
            let is_pipe = matches!(file?.target, FDTarget::Pipe(_));
            *if is_pipe { &mut pipe_ends } else { &mut open_files } += 1;
        }
        Ok(Held { open_files, pipe_ends, memory_kib })
    }

    /// Seconds of processor time that it has used.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = self.process()?.stat()?;
        Ok((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
    }

    /// Ends it by SIGTERM; returns the totals that it tells, and what it complained about. One that has crashed tells
    /// no totals, so the laws are broken; what it said is among its complaints.
    pub(crate) fn stop(mut self) -> anyhow::Result<(Totals, Vec<String>)> {
        let status = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status()?;
        ensure!(status.success(), "kill -TERM: {status}");
        let line = match self.wait_for_line(&["stopped: "]) {
            Ok(line) => {
                let status = self.child.wait()?;
                ensure!(status.success(), "l4lb: {status}");
                line
            }
            Err(error) => {
                self.complaints.push(format!("{error:#}"));
                String::new()
            }
        };
        Ok((Totals::parse(&line), std::mem::take(&mut self.complaints)))
    }

    fn process(&self) -> anyhow::Result<Process> {
        Ok(Process::new(i32::try_from(self.child.id())?)?)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // A failed run leaves no process behind; after `stop` there is none.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Waits until it has opened all that it has without a session, as a service manager waits. Its listeners come first
/// and its signal handlers before them: what was counted as soon as these were there was less than it has when it is
/// idle, so that no wait for its being idle again could end, and the counts behind that wait were those of any moment.
fn wait_until_ready(manager: &UnixDatagram) -> anyhow::Result<()> {
    let mut message = [0; 4096];
    loop {
        let length = manager.recv(&mut message).context("l4lb does not say that it is ready")?;
        if message[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1") {
            return Ok(());
        }
    }
}

fn is_error_line(line: &str) -> bool {
    ["WARN", "ERROR", "panicked"].iter().any(|word| line.contains(word))
}

/// When it is to stop, whatever it still has is one session too many, so it need not wait for any.
/// Without checks: a check is a connection too, and the backends' books have no place for it.
fn config(workers: usize, relay: &str, listeners: &[SocketAddr], backends: &[SocketAddr]) -> String {
    let mut text = format!("[global]\nworkers = {workers}\ndrain_timeout = \"1s\"\n");
    for (address, accept) in listeners.iter().zip(["reuseport", "balance"].into_iter().cycle()) {
        text += &format!("[[listener]]\nbind = \"{address}\"\naccept = \"{accept}\"\n");
    }
    text += &format!("[[pool]]\nrelay = \"{relay}\"\n");
    text += "health = { type = \"off\" }\n";
    for address in backends {
        text += &format!("[[pool.backend]]\naddress = \"{address}\"\n");
    }
    text
}

/// The counters that l4lb logs at its end.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) line: String,
    figures: BTreeMap<String, u64>,
}

/// What in the line of totals is no reason for the end of a session.
const NO_REASON: [&str; 7] =
    ["accepted", "active", "to_backend", "to_client", "discarded", "dials", "dial_failures"];

impl Totals {
    fn parse(line: &str) -> Self {
        let line = line.split_once("stopped: ").map_or(line, |(_, totals)| totals).to_owned();
        let pairs = line.split_whitespace().filter_map(|pair| pair.split_once('='));
        let figures = pairs.filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?))).collect();
        Self { line, figures }
    }

    /// The counter of that name; reasons that nobody had are not message.
    pub(crate) fn get(&self, key: &str) -> u64 {
        self.figures.get(key).copied().unwrap_or(0)
    }

    /// Sessions by the reason for their end.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = (&str, u64)> {
        let reasons = self.figures.iter().filter(|(key, _)| !NO_REASON.contains(&key.as_str()));
        reasons.map(|(key, count)| (key.as_str(), *count))
    }
}
