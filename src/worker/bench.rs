//! A worker for tests that turns when it is told to, over the real kernel.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use crate::config::limits::PIPE_LEN_MAX;
use crate::config::{self, Overrides};
use crate::mailbox::{Mailbox, Reports, WorkerId};
use crate::pool::Snapshot;
use crate::sys::{self, Linux};
use crate::worker::{Admission, Assignment, GroupId, Listening, Seat, Shared, Team, Worker};

/// Turns in which something that was begun is done.
const TURNS_MAX: usize = 1_000;

/// A worker that turns when it is told to, in front of backends `a` and `b`; nobody listens where `a` is.
pub(super) struct Bench {
    pub(super) worker: Worker<Linux>,
    pub(super) mailbox: Mailbox,
    backend: TcpListener,
    pub(super) address: SocketAddr,
}

impl Bench {
    pub(super) fn new(options: &str) -> Self {
        Self::with_pipes(options, 0)
    }

    /// The same, where the worker may have so many pipes.
    pub(super) fn with_pipes(options: &str, pipes_max: usize) -> Self {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = format!(
            "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\n{options}\n\
             health = {{ type = \"off\" }}\nbackend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}, \
             {{ name = \"b\", address = \"{}\" }}]\n",
            backend.local_addr().unwrap()
        );
        let no_names = &mut |_: &str| Ok(Vec::new());
        let config = config::parse(&text, "test", &Overrides::default(), no_names).unwrap();
        let snapshot = Arc::new(Snapshot::new(&config));
        let kernel = Linux::new().unwrap();
        let (seat, ends) = Seat::new(0, &kernel.waker());
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = sys::listen(any_port, 1, 64, &config.pools[0].tcp).unwrap().remove(0);
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let listening = Listening {
            group: GroupId(0),
            listener: Arc::clone(&snapshot.listeners[0]),
            socket: Some(Arc::new(listener.into())),
            is_partial: false,
            is_beside: false,
        };
        let assignment = Assignment {
            epoch: 0,
            listeners: vec![listening],
            team: Team::of([&seat]),
            checks_max: 0,
            pipes_max,
            pipe_len: PIPE_LEN_MAX,
            ticket: Arc::default(),
        };
        let shared = Shared {
            id: WorkerId(0),
            reports: Reports::new().0,
            admission: Arc::new(Admission::new(64)),
            stats: Arc::default(),
            seed: 1,
        };
        let worker = Worker::new(kernel, ends, assignment, snapshot, shared);
        Self { worker, mailbox: seat.mailbox, backend, address }
    }

    /// A session that has been served a byte.
    pub(super) fn session(&mut self) -> (TcpStream, TcpStream) {
        let mut client = TcpStream::connect(self.address).unwrap();
        client.write_all(b"x").unwrap();
        let before = self.worker.stats.connected.get();
        self.turn_until(|worker| worker.stats.connected.get() > before);
        let (mut served, _) = self.backend.accept().unwrap();
        self.turn_until(|worker| worker.stats.taken[0].get() > before);
        served.read_exact(&mut [0]).unwrap();
        (client, served)
    }

    /// One turn that waits for nothing.
    pub(super) fn turn_at_once(&mut self) {
        self.worker.kernel.waker().wake().unwrap();
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
