//! A worker for tests that is turned by hand, over the real kernel.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use crate::config::fd_budget::PIPE_LEN_MAX;
use crate::config::{self, Overrides};
use crate::messages::mailbox::Mailbox;
use crate::messages::report::{Report, Reports, WorkerId};
use crate::pool::Snapshot;
use crate::sys::{self, Linux};
use crate::worker::{Admission, Assignment, GroupId, Listening, Peers, Shared, Worker, WorkerHandle};

/// An action must be done after this many turns.
const TURNS_MAX: usize = 1_000;
/// Most clients that wait at each of its listeners.
const BACKLOG: u32 = 128;
/// Health of a pool without checks.
const NO_CHECKS: &str = "{ type = \"off\" }";
/// Most checks in flight.
const CHECKS_MAX: usize = 1_000;
/// Most sessions.
const SESSIONS_MAX: usize = 256;

/// A worker that is turned by hand, in front of backends `a` and `b`; nothing listens where `a` is.
pub(super) struct Bench {
    pub(super) worker: Worker<Linux>,
    pub(super) mailbox: Mailbox,
    pub(super) reports: Receiver<Report>,
    pub(super) backend: TcpListener,
    pub(super) address: SocketAddr,
    /// Addresses of all listeners, that one first.
    pub(super) addresses: Vec<SocketAddr>,
}

impl Bench {
    pub(super) fn new(options: &str) -> Self {
        Self::with_pipes(options, 0)
    }

    /// The same with `listeners` listeners.
    pub(super) fn with_listeners(options: &str, listeners: u32) -> Self {
        Self::build(options, NO_CHECKS, 0, listeners)
    }

    /// The same, where the worker may have `pipes_max` pipes.
    pub(super) fn with_pipes(options: &str, pipes_max: usize) -> Self {
        Self::build(options, NO_CHECKS, pipes_max, 1)
    }

    /// A worker that checks its backends as `health` says, and `more` backends where nothing listens.
    pub(super) fn with_checks(health: &str, more: u32) -> Self {
        let backends = (0..more).map(|place| {
            let [high, low] = [place / 250, place % 250 + 1];
            format!("[[pool.backend]]\nname = \"c{place}\"\naddress = \"127.1.{high}.{low}:1\"\n")
        });
        Self::build("retries = 1", &format!("{{ {health} }}\n{}", backends.collect::<String>()), 0, 1)
    }

    fn build(options: &str, health: &str, pipes_max: usize, listeners: u32) -> Self {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = format!(
            "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\n{options}\n\
             health = {health}\n[[pool.backend]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\n\
             [[pool.backend]]\nname = \"b\"\naddress = \"{}\"\n",
            backend.local_addr().unwrap()
        );
        let no_names = &mut |_: &str| Ok(Vec::new());
        let config = config::parse(&text, "test", &Overrides::default(), no_names).unwrap();
        let snapshot = Arc::new(Snapshot::new(&config));
        let kernel = Linux::new().unwrap();
        let (handle, endpoints) = WorkerHandle::new(0, &kernel.waker());
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut addresses = Vec::new();
        let listen = |group| {
            let listener = sys::listen(any_port, 1, BACKLOG, &config.pools[0].tcp).unwrap().remove(0);
            addresses.push(listener.local_addr().unwrap().as_socket().unwrap());
            Listening {
                group: GroupId(group),
                listener: Arc::clone(&snapshot.listeners[0]),
                socket: Some(Arc::new(listener.into())),
                is_partial: false,
                is_beside: false,
            }
        };
        let listeners = (0..listeners).map(listen).collect();
        let assignment = Assignment {
            epoch: 0,
            listeners,
            peers: Peers::of([&handle]),
            checks_max: CHECKS_MAX,
            pipes_max,
            pipe_len: PIPE_LEN_MAX,
            ticket: Arc::default(),
        };
        let (reports, inbox) = Reports::new();
        let shared = Shared {
            id: WorkerId(0),
            reports,
            admission: Arc::new(Admission::new(SESSIONS_MAX)),
            stats: Arc::default(),
            seed: 1,
        };
        let worker = Worker::new(kernel, endpoints, assignment, snapshot, shared);
        let mailbox = handle.mailbox;
        Self { worker, mailbox, reports: inbox, backend, address: addresses[0], addresses }
    }

    /// Returns a session that has been served a byte.
    pub(super) fn session(&mut self) -> (TcpStream, TcpStream) {
        let mut client = TcpStream::connect(self.address).unwrap();
        client.write_all(b"x").unwrap();
        let before = self.worker.core.stats.connected.get();
        self.turn_until(|worker| worker.core.stats.connected.get() > before);
        let (mut served, _) = self.backend.accept().unwrap();
        self.turn_until(|worker| worker.core.stats.taken[0].get() > before);
        served.read_exact(&mut [0]).unwrap();
        (client, served)
    }

    /// Runs one turn that waits for nothing.
    pub(super) fn turn_at_once(&mut self) {
        self.worker.core.kernel.waker().wake().unwrap();
        self.worker.turn().unwrap();
    }

    pub(super) fn turn_until(&mut self, holds: impl Fn(&Worker<Linux>) -> bool) {
        for _ in 0..TURNS_MAX {
            if holds(&self.worker) {
                return;
            }
            self.worker.turn().unwrap();
        }
        panic!("never");
    }
}
