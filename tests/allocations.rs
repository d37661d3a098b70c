//! What is relayed costs no allocation: a worker that turns in this thread, two sockets, and a counting allocator. Nor
//! does the choice of a backend.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use l4lb::base::rng::Rng;
use l4lb::config::fd_budget::PIPE_LEN_MAX;
use l4lb::config::model::HealthState;
use l4lb::config::{self, Overrides};
use l4lb::messages::report::{Reports, WorkerId};
use l4lb::pool::{Chosen, Snapshot, choose};
use l4lb::sys::{self, Linux, Wake};
use l4lb::worker::{Admission, Assignment, GroupId, Listening, Peers, Shared, Worker, WorkerHandle};

/// Rounds before the count begins: buffers, pipes and tables find their size.
const WARM_UP: usize = 5;
const ROUNDS: usize = 20;
/// Turns in which a round is over.
const TURNS_PER_ROUND: usize = 10_000;
/// More than the buffers of all sockets hold, so that some of it has to wait in a buffer or a pipe.
const MORE_THAN_FITS: usize = 12_000_000;

/// One session through a worker that turns on command.
struct Bench {
    worker: Worker<Linux>,
    waker: Arc<dyn Wake>,
    client: TcpStream,
    backend: TcpStream,
}

impl Bench {
    fn new(relay: &str) -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let backend = TcpListener::bind(any_port).unwrap();
        let address = backend.local_addr().unwrap();
        let text = format!(
            "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nrelay = \"{relay}\"\nhealth = {{ type = \"off\" }}\n\
             backend = [{{ address = \"{address}\" }}]\n"
        );
        let nobody = &mut |_: &str| Ok(Vec::new());
        let config = config::parse(&text, "test", &Overrides::default(), nobody).unwrap();
        let kernel = Linux::new().unwrap();
        let waker = kernel.waker();
        // Not where the configuration says: that port may be somebody's.
        let listener = sys::listen(any_port, 1, 8, &config.pools[0].tcp).unwrap().remove(0);
        let listens_on = listener.local_addr().unwrap().as_socket().unwrap();
        let snapshot = Arc::new(Snapshot::new(&config));
        let listening = Listening {
            group: GroupId(0),
            listener: Arc::clone(&snapshot.listeners[0]),
            socket: Some(Arc::new(listener.into())),
            is_partial: false,
            is_beside: false,
        };
        let (handle, endpoints) = WorkerHandle::new(0, &waker);
        let assignment = Assignment {
            epoch: 0,
            listeners: vec![listening],
            peers: Peers::of([&handle]),
            checks_max: 4,
            pipes_max: 4,
            pipe_len: PIPE_LEN_MAX,
            ticket: Arc::default(),
        };
        let shared = Shared {
            id: WorkerId(0),
            reports: Reports::new().0,
            admission: Arc::new(Admission::new(8)),
            stats: Arc::default(),
            seed: 1,
        };
        let mut worker = Worker::new(kernel, endpoints, assignment, snapshot, shared);
        let client = TcpStream::connect(listens_on).unwrap();
        waker.wake().unwrap();
        worker.turn().unwrap();
        let (backend, _) = backend.accept().unwrap();
        for socket in [&client, &backend] {
            socket.set_nonblocking(true).unwrap();
        }
        Self { worker, waker, client, backend }
    }

    /// `bytes` go from one end to the other and back.
    fn round(&mut self, bytes: &mut [u8]) {
        self.pass(bytes, true);
        self.pass(bytes, false);
    }

    fn pass(&mut self, bytes: &mut [u8], to_backend: bool) {
        let (mut sent, mut received) = (0, 0);
        for _ in 0..TURNS_PER_ROUND {
            let (from, to) =
                if to_backend { (&self.client, &self.backend) } else { (&self.backend, &self.client) };
            let (mut from, mut to) = (from, to);
            let written = from.write(&bytes[sent..]).unwrap_or(0);
            sent += written;
            // A turn with nothing to do must not wait for an hour.
            self.waker.wake().unwrap();
            self.worker.turn().unwrap();
            // A reader that waits until nothing moves any more.
            if written == 0 {
                received += to.read(&mut bytes[received..sent]).unwrap_or(0);
            }
            if received == bytes.len() {
                return;
            }
        }
        panic!("{received} of {} bytes came through", bytes.len());
    }
}

#[test]
fn a_relayed_byte_costs_no_allocation() {
    for relay in ["auto", "copy", "splice"] {
        for len in [1, 500, 100_000, MORE_THAN_FITS] {
            let mut bench = Bench::new(relay);
            let mut bytes = vec![7; len];
            (0..WARM_UP).for_each(|_| bench.round(&mut bytes));
            let counted = allocation_counter::measure(|| (0..ROUNDS).for_each(|_| bench.round(&mut bytes)));
            assert_eq!(counted.count_total, 0, "{relay}, {len} bytes: {counted:?}");
        }
    }
}

/// The tiers before the one that serves are down, as the tables of the epoch before have them.
#[test]
fn a_choice_costs_no_allocation_in_whichever_tier_it_ends() {
    for balance in ["round_robin", "least_connections", "power_of_two", "source_hash", "random"] {
        for tiers in [1, 2, 16] {
            let backends: Vec<String> = (0..tiers)
                .map(|tier| format!("{{ address = \"127.0.0.1:{}\", priority = {tier} }}", 1 + tier))
                .collect();
            let text = format!(
                "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nbalance = \"{balance}\"\nbackend = [{}]\n",
                backends.join(", ")
            );
            let nobody = &mut |_: &str| Ok(Vec::new());
            let config = config::parse(&text, "test", &Overrides::default(), nobody).unwrap();
            let snapshot = Snapshot::new(&config);
            let pool = &snapshot.pools[0];
            let earlier = &pool.backends[..tiers - 1];
            earlier.iter().for_each(|backend| backend.set_health(HealthState::Down));
            let mut rng = Rng::new(1);
            let mut pick = || match choose(pool, 0, Ipv4Addr::LOCALHOST.into(), &[], &mut rng) {
                Chosen::Leased(lease, _) => lease.release(),
                Chosen::NoBackend => panic!("the last tier serves"),
            };
            let counted = allocation_counter::measure(|| (0..ROUNDS).for_each(|_| pick()));
            assert_eq!(counted.count_total, 0, "{balance}, {tiers} tiers: {counted:?}");
        }
    }
}
