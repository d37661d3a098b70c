//! A running server and the backend behind it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use l4lb::config::model::{Accept, AdminSocket};
use l4lb::config::{self, Config, Overrides, system_resolver};
use l4lb::server::{self, Running};
use l4lb::session::{CloseReason, Side};
use l4lb::stats::{self, Totals};
use procfs::net::{TcpNetEntry, TcpState};
use socket2::Socket;

use crate::harness::daemon::Daemon;
use crate::harness::peer::{PATIENCE, Peer, in_time, new_socket, retry, until};
use crate::harness::relay::Relay;

/// Connections that wait for a backend to accept them.
const BACKLOG: i32 = 4096;

/// What a lab is made of. Health checks are off: every connection that a backend sees is a session.
#[derive(Clone)]
pub(crate) struct Setup {
    workers: usize,
    connect: &'static str,
    idle: &'static str,
    half_close: &'static str,
    drain: &'static str,
    busy_poll: String,
    /// Of the peers' sockets; small ones make the server meet back-pressure early.
    buffers: Option<usize>,
    /// Backends that refuse connections, before the one that serves.
    refusing: usize,
    /// Connections that wait for the backend to accept them.
    backlog: i32,
    /// Further keys of the pool.
    pool: &'static str,
}

/// One worker, default timeouts, default buffers, one backend.
pub(crate) fn setup() -> Setup {
    Setup {
        workers: 1,
        connect: "20s",
        idle: "1h",
        half_close: "60s",
        drain: "60s",
        busy_poll: env_or("E2E_BUSY_POLL", "0s"),
        buffers: None,
        refusing: 0,
        backlog: BACKLOG,
        pool: "",
    }
}

impl Setup {
    pub(crate) fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    pub(crate) fn connect_timeout(self, connect: &'static str) -> Self {
        Self { connect, ..self }
    }

    pub(crate) fn idle_timeout(self, idle: &'static str) -> Self {
        Self { idle, ..self }
    }

    pub(crate) fn half_close_timeout(self, half_close: &'static str) -> Self {
        Self { half_close, ..self }
    }

    pub(crate) fn drain_timeout(self, drain: &'static str) -> Self {
        Self { drain, ..self }
    }

    pub(crate) fn busy_poll(self, bound: &str) -> Self {
        Self { busy_poll: bound.into(), ..self }
    }

    pub(crate) fn buffers(self, bytes: usize) -> Self {
        Self { buffers: Some(bytes), ..self }
    }

    pub(crate) fn refusing_backends(self, refusing: usize) -> Self {
        Self { refusing, ..self }
    }

    pub(crate) fn backlog(self, backlog: i32) -> Self {
        Self { backlog, ..self }
    }

    /// With this line in the pool.
    pub(crate) fn pool(self, pool: &'static str) -> Self {
        Self { pool, ..self }
    }

    /// A server inside this process, over IPv4.
    pub(crate) fn start(&self) -> Lab {
        self.start_on(IPV4)
    }

    /// The script once over IPv4 and once over IPv6.
    pub(crate) fn each_family(self, script: impl Fn(Lab)) {
        for host in [IPV4, IPV6] {
            script(self.start_on(host));
        }
    }

    /// The script with a session from either side to the other, over IPv4 and IPv6, each in a lab of its own. All
    /// at the same time, because scripts mostly wait.
    pub(crate) fn both_ways(self, script: impl Fn(Relay, Side, Side) + Sync) {
        let (setup, script) = (&self, &script);
        thread::scope(|scope| {
            for (near, host) in Side::BOTH.into_iter().flat_map(|near| [(near, IPV4), (near, IPV6)]) {
                let run = move || script(setup.start_on(host).into_relay(), near, near.other());
                let name = format!("near {} on {}", near.as_str(), host.ip());
                thread::Builder::new().name(name).spawn_scoped(scope, run).expect("start a thread");
            }
        });
    }

    /// The real binary, over IPv4.
    pub(crate) fn start_daemon(&self) -> Lab<Daemon> {
        let bench = Bench::new(self, IPV4);
        let daemon = Daemon::start(&self.toml(&bench), IPV4);
        Lab { address: daemon.address, server: daemon, bench }
    }

    fn start_on(&self, host: SocketAddr) -> Lab {
        let bench = Bench::new(self, host);
        let server = server::start(&self.config(&bench, host)).expect("start the server");
        Lab { address: server.addresses[0], server, bench }
    }

    fn config(&self, bench: &Bench, host: SocketAddr) -> Config {
        let overrides = Overrides { listen: vec![host], ..Overrides::default() };
        let config = config::parse(&self.toml(bench), "lab.toml", &overrides, &mut system_resolver);
        let mut config = config.expect("a good config");
        config.admin.socket = AdminSocket::Off;
        accept_from_env(&mut config);
        config
    }

    fn toml(&self, bench: &Bench) -> String {
        let Self { workers, connect, idle, half_close, drain, busy_poll, pool, .. } = self;
        let addresses = bench.refusing.iter().chain([&bench.listener]).map(local_address);
        let backends: Vec<String> =
            addresses.map(|address| format!("{{ address = \"{address}\" }}")).collect();
        format!(
            "[global]\nworkers = {workers}\ndrain_timeout = \"{drain}\"\nbusy_poll = \"{busy_poll}\"\n\
             [[pool]]\nrelay = \"{}\"\nbackend = [{}]\nhealth = {{ type = \"off\" }}\n\
             timeouts = {{ connect = \"{connect}\", idle = \"{idle}\", half_close = \"{half_close}\" }}\n{pool}\n",
            relay_mode(),
            backends.join(", ")
        )
    }
}

/// How bytes pass in these tests: as by default, or as `E2E_RELAY` says.
pub(crate) fn relay_mode() -> String {
    env_or("E2E_RELAY", "auto")
}

/// What the environment says, where it says something.
fn env_or(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.into())
}

/// Which worker gets a connection in these tests: as by default or as a test wants it, or as `E2E_ACCEPT` says.
pub(crate) fn accept_from_env(config: &mut Config) {
    if let Ok(word) = std::env::var("E2E_ACCEPT") {
        let accept = Accept::ALL.into_iter().find(|accept| accept.as_str() == word);
        let accept = accept.unwrap_or_else(|| panic!("E2E_ACCEPT is no way to accept: {word}"));
        config.listeners.iter_mut().for_each(|listener| listener.accept = accept);
    }
}

pub(crate) const IPV4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
pub(crate) const IPV6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

/// The backend's side of a lab.
struct Bench {
    listener: Socket,
    /// Bound, but not listening: nobody else gets their ports, and connecting to them is refused.
    refusing: Vec<Socket>,
    buffers: Option<usize>,
    /// Clients that have connected.
    clients: AtomicU64,
}

impl Bench {
    fn new(setup: &Setup, host: SocketAddr) -> Self {
        let bound = || {
            let socket = new_socket(host, setup.buffers);
            socket.bind(&host.into()).expect("bind");
            socket
        };
        let listener = bound();
        listener.listen(setup.backlog).expect("listen");
        listener.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
        let refusing = (0..setup.refusing).map(|_| bound()).collect();
        Self { listener, refusing, buffers: setup.buffers, clients: AtomicU64::new(0) }
    }
}

/// Whether the server's kernel has the other end of this connection. A reset takes it away, read or not.
pub(crate) fn has_other_end((local, remote): (SocketAddr, SocketAddr)) -> bool {
    has_socket(|entry| (entry.remote_address, entry.local_address) == (local, remote))
}

fn has_socket(is_meant: impl Fn(&TcpNetEntry) -> bool) -> bool {
    let entries = [procfs::net::tcp(), procfs::net::tcp6()].map(|entries| entries.expect("/proc/net"));
    entries.iter().flatten().any(is_meant)
}

fn local_address(socket: &Socket) -> SocketAddr {
    socket.local_addr().expect("getsockname").as_socket().expect("an IP address")
}

/// A running server and the backend behind it.
pub(crate) struct Lab<S = Running> {
    pub(crate) server: S,
    pub(crate) address: SocketAddr,
    bench: Bench,
}

impl<S> Lab<S> {
    /// The client of the next session.
    #[track_caller]
    pub(crate) fn client(&self) -> Peer {
        let id = self.bench.clients.fetch_add(1, Ordering::Relaxed);
        Peer::connect(self.address, id, self.bench.buffers)
    }

    /// The backend's end of the next session that reaches it, which is number `id`.
    #[track_caller]
    pub(crate) fn accept(&self, id: u64) -> Peer {
        let (socket, _) = retry(|| self.bench.listener.accept()).expect("the backend accepts");
        Peer::new(Side::Backend, socket, id)
    }

    /// The backend's end of the next session, if one has reached it.
    pub(crate) fn try_accept(&self, id: u64) -> Option<Peer> {
        self.bench.listener.set_nonblocking(true).expect("O_NONBLOCK");
        let accepted = self.bench.listener.accept();
        self.bench.listener.set_nonblocking(false).expect("O_NONBLOCK");
        accepted.ok().map(|(socket, _)| Peer::new(Side::Backend, socket, id))
    }

    /// Where the backend that serves listens.
    pub(crate) fn backend_address(&self) -> SocketAddr {
        local_address(&self.bench.listener)
    }

    /// Whether the server's listener is there. Connecting to it would count as a client.
    pub(crate) fn is_listening(&self) -> bool {
        has_socket(|entry| entry.local_address == self.address && entry.state == TcpState::Listen)
    }

    /// How many clients have connected.
    pub(crate) fn clients(&self) -> u64 {
        self.bench.clients.load(Ordering::Relaxed)
    }

    /// The next session. Not for two threads at a time: the backend's ends would be mixed up.
    #[track_caller]
    pub(crate) fn relay(&self) -> Relay<&Self> {
        let id = self.clients();
        Relay::new(self, self.client(), self.accept(id))
    }
}

impl Lab {
    /// The only session.
    #[track_caller]
    pub(crate) fn into_relay(self) -> Relay {
        let (client, backend) = (self.client(), self.accept(0));
        Relay::new(self, client, backend)
    }

    /// Waits until every session is over by itself, stops the server and checks its books: so many sessions
    /// have ended for each reason, and none otherwise.
    #[track_caller]
    pub(crate) fn ends(self, expected: &[(CloseReason, u64)]) -> Totals {
        let clients = self.clients();
        let totals = self.audit();
        let closed = CloseReason::ALL.map(|reason| (reason, totals.closed_for(reason)));
        let closed: Vec<_> = closed.into_iter().filter(|(_, sessions)| *sessions > 0).collect();
        assert_eq!(closed, expected);
        assert_eq!(totals.accepted, clients, "accepted");
        totals
    }

    /// The same, when the reasons are a matter of luck.
    #[track_caller]
    pub(crate) fn audit(self) -> Totals {
        let clients = self.clients();
        audit(self.server, clients)
    }
}

/// Stops `server` once every session is over, and checks its books against the number of its clients.
#[track_caller]
pub(crate) fn audit(server: Running, clients: u64) -> Totals {
    until("every session is over", || server.totals().closed_total() == clients);
    server.terminate();
    let backends = server.backends();
    let totals = in_time("the server stops", || server.wait()).expect("it stops well");
    assert_eq!((totals.accepted, totals.active()), (clients, 0), "accepted and active: {totals}");
    assert_eq!(stats::violations_at_rest(&totals), [""; 0], "{totals}");
    for backend in backends {
        assert_eq!(backend.active(), 0, "active on backend {}", backend.name);
    }
    totals
}

impl Lab<Daemon> {
    /// Stops the server and checks its books.
    #[track_caller]
    pub(crate) fn stops(self) {
        let clients = self.clients();
        let totals = self.server.stop();
        assert!(totals.contains(&format!("accepted={clients} active=0 ")), "{totals}");
    }
}
