//! Several backends behind one server, with health checks where a test wants them: what a [`crate::harness::lab::Lab`]
//! leaves out.
//!
//! A [`Node`] is a backend that speaks first: it greets with a byte that identifies it, then sends back what
//! it gets. A [`Visit`] is a session that has been greeted.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use l4lb::config::model::{AdminSocket, Listener};
use l4lb::config::{self, Config, Overrides, system_resolver};
use l4lb::messages::reload::{Mode, ReloadReport};
use l4lb::pool::Backend;
use l4lb::server::{self, Running};
use l4lb::session::{CloseReason, Side};
use l4lb::stats::{RefuseReason, Totals};
use socket2::Socket;

use crate::harness::daemon::Daemon;
use crate::harness::lab::{IPV4, accept_from_env, audit, relay_mode};
use crate::harness::peer::{Ending, PATIENCE, Peer, connect, in_time, new_socket, try_patient_client, until};

/// The greeting of node 0; that of node 1 is the next.
const GREETING: u8 = b'a';

/// A backend with an address of its own. While it neither serves nor listens, connecting to it is refused.
pub(crate) struct Node {
    greeting: u8,
    pub(crate) address: SocketAddr,
    /// Bound, but not listening: nobody else gets the port.
    _port: Socket,
    serving: Mutex<Option<Serving>>,
    book: Arc<Book>,
}

/// Connections that a node has seen, health checks included.
#[derive(Default)]
pub(crate) struct Book {
    accepted: AtomicU64,
    /// Over, by a FIN of the server.
    by_fin: AtomicU64,
    /// Over, by a reset of the server, or because the node has died.
    by_reset: AtomicU64,
}

struct Serving {
    listener: Arc<Socket>,
    acceptor: JoinHandle<()>,
    connections: Arc<Mutex<Vec<Weak<Socket>>>>,
}

impl Node {
    pub(crate) fn new(id: usize) -> Self {
        let port = bound(IPV4);
        let address = port.local_addr().expect("getsockname").as_socket().expect("an IP address");
        let greeting = GREETING + u8::try_from(id).expect("few nodes");
        Self { greeting, address, _port: port, serving: Mutex::new(None), book: Arc::default() }
    }

    /// A listener of this node that the script accepts from by hand.
    pub(crate) fn listen(&self, backlog: i32) -> Socket {
        let listener = bound(self.address);
        listener.listen(backlog).expect("listen");
        listener.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
        listener
    }

    /// Serves until it dies.
    pub(crate) fn serve(&self) {
        let listener = Arc::new(self.listen(4096));
        listener.set_read_timeout(None).expect("SO_RCVTIMEO");
        let connections = Arc::<Mutex<Vec<Weak<Socket>>>>::default();
        let (book, greeting) = (Arc::clone(&self.book), self.greeting);
        let (shared_listener, shared) = (Arc::clone(&listener), Arc::clone(&connections));
        let acceptor = thread::spawn(move || {
            while let Ok((socket, _)) = shared_listener.accept() {
                let (socket, book) = (Arc::new(socket), Arc::clone(&book));
                shared.lock().expect("lock not poisoned").push(Arc::downgrade(&socket));
                book.accepted.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || book.close(attend(&socket, greeting).is_ok()));
            }
        });
        *self.serving.lock().expect("lock not poisoned") = Some(Serving { listener, acceptor, connections });
    }

    /// What happens to a process that is killed: it listens no more, and its connections are cut.
    pub(crate) fn die(&self) {
        let Some(serving) = self.serving.lock().expect("lock not poisoned").take() else { return };
        // Wakes the acceptor; accept(2) fails from now on.
        serving.listener.shutdown(Shutdown::Both).expect("shutdown of a listener");
        serving.acceptor.join().expect("the acceptor does not panic");
        for connection in serving.connections.lock().expect("lock not poisoned").drain(..) {
            if let Some(socket) = connection.upgrade() {
                let _gone = socket.shutdown(Shutdown::Both);
            }
        }
    }

    pub(crate) fn book(&self) -> &Book {
        &self.book
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.die();
    }
}

impl Book {
    fn close(&self, by_fin: bool) {
        if by_fin { &self.by_fin } else { &self.by_reset }.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn by_fin(&self) -> u64 {
        self.by_fin.load(Ordering::Relaxed)
    }

    pub(crate) fn by_reset(&self) -> u64 {
        self.by_reset.load(Ordering::Relaxed)
    }

    /// Connections that are not over.
    pub(crate) fn open(&self) -> u64 {
        self.accepted() - self.by_fin() - self.by_reset()
    }
}

/// Greets and echoes until the other side ends its stream.
fn attend(mut socket: &Socket, greeting: u8) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.write_all(&[greeting])?;
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer)? {
            0 => return Ok(()),
            read => socket.write_all(&buffer[..read])?,
        }
    }
}

/// A socket that shares its address with those of the same node.
fn bound(address: SocketAddr) -> Socket {
    let socket = new_socket(address, None);
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&address.into()).expect("bind");
    socket
}

/// A socket that does not listen beside those of a server that do. Once those are gone nobody else gets the port, and
/// connecting to it is refused.
fn held(address: SocketAddr) -> Socket {
    let socket = new_socket(address, None);
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
    socket.bind(&address.into()).expect("bind");
    socket
}

/// Backends, and how a server is to be set up in front of them. Health checks are off unless a test sets them.
pub(crate) struct Backends {
    pub(crate) nodes: Vec<Node>,
    workers: usize,
    drain_timeout: &'static str,
    global: String,
    pool: String,
    health: String,
    /// By node.
    backends: Vec<&'static str>,
    /// Each node has a pool of its own.
    is_apart: bool,
    listeners: Vec<&'static str>,
}

/// So many nodes that serve, behind one worker with one listener.
pub(crate) fn backends(nodes: usize) -> Backends {
    let backends = dead_backends(nodes);
    backends.nodes.iter().for_each(Node::serve);
    backends
}

/// The same with nodes that refuse connections.
pub(crate) fn dead_backends(nodes: usize) -> Backends {
    Backends {
        nodes: (0..nodes).map(Node::new).collect(),
        workers: 1,
        drain_timeout: "60s",
        global: String::new(),
        pool: String::new(),
        health: "type = \"off\"".into(),
        backends: vec![""; nodes],
        is_apart: false,
        listeners: vec![""],
    }
}

impl Backends {
    pub(crate) fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    pub(crate) fn drain_timeout(self, drain_timeout: &'static str) -> Self {
        Self { drain_timeout, ..self }
    }

    /// Further keys of `[global]`.
    pub(crate) fn global(self, keys: &str) -> Self {
        Self { global: keys.into(), ..self }
    }

    /// Further keys of `[[pool]]`.
    pub(crate) fn pool(self, keys: &str) -> Self {
        Self { pool: keys.into(), ..self }
    }

    /// Each node is in a pool of its own: that of node 0 is `p0`.
    pub(crate) fn apart(self) -> Self {
        Self { is_apart: true, ..self }
    }

    /// The keys of `health`, with commas.
    pub(crate) fn health(self, keys: impl Into<String>) -> Self {
        Self { health: keys.into(), ..self }
    }

    pub(crate) fn keys_of_health(&self) -> &str {
        &self.health
    }

    /// Further keys of each backend, with commas.
    pub(crate) fn keys_of_each<const N: usize>(self, keys: [&'static str; N]) -> Self {
        assert_eq!(N, self.nodes.len());
        Self { backends: keys.into(), ..self }
    }

    /// Further keys of each listener.
    pub(crate) fn listeners(self, keys: &[&'static str]) -> Self {
        Self { listeners: keys.into(), ..self }
    }

    /// A server inside this process.
    pub(crate) fn start(&self) -> Service<'_> {
        let config = self.config();
        let server = server::start(&config).expect("start the server");
        let addresses = server.addresses.clone();
        let held = addresses.iter().copied().map(held).collect();
        let (server, config) = (Arc::new(server), Some(config));
        Service { backends: self, server, config, addresses, held, clients: AtomicU64::new(0) }
    }

    fn config(&self) -> Config {
        let mut toml = self.toml();
        for (index, keys) in self.listeners.iter().enumerate() {
            let port = index + 1;
            toml += &format!("[[listener]]\nname = \"l{index}\"\nbind = \":{port}\"\n{keys}\n");
        }
        let overrides = Overrides::default();
        let mut config =
            config::parse(&toml, "backends.toml", &overrides, &mut system_resolver).expect("a good config");
        // A file cannot say that the kernel is to choose the port.
        config.listeners.iter_mut().for_each(|listener| listener.bind = IPV4);
        config.admin.socket = AdminSocket::Off;
        accept_from_env(&mut config);
        config
    }

    /// The real binary, which logs what `log` says in the form of RUST_LOG.
    pub(crate) fn start_daemon(&self, log: &str) -> Service<'_, Daemon> {
        self.start_daemon_with(log, &[])
    }

    /// The same with further variables in its environment.
    pub(crate) fn start_daemon_with(&self, log: &str, env: &[(&str, &str)]) -> Service<'_, Daemon> {
        self.serve_by(Daemon::start_with(&self.daemon_toml(), IPV4, log, env))
    }

    /// The service of a daemon that was started with [`Backends::daemon_toml`].
    pub(crate) fn serve_by(&self, server: Daemon) -> Service<'_, Daemon> {
        let (addresses, held) = (vec![server.address], Vec::new());
        Service { backends: self, server, config: None, addresses, held, clients: AtomicU64::new(0) }
    }

    /// What follows the address of its listener.
    pub(crate) fn daemon_toml(&self) -> String {
        format!("{}\n{}", self.listeners[0], self.toml())
    }

    pub(crate) fn toml(&self) -> String {
        let backends = self.nodes.iter().zip(&self.backends).enumerate().map(|(index, (node, keys))| {
            let separator = if keys.is_empty() { "" } else { ", " };
            format!("{{ name = \"n{index}\", address = \"{}\"{separator}{keys} }}", node.address)
        });
        let backends: Vec<String> = backends.collect();
        let (Self { workers, drain_timeout, global, pool, health, .. }, relay) = (self, relay_mode());
        let one_pool = |name: &str, backends: &str| {
            format!(
                "[[pool]]\n{name}{pool}\nrelay = \"{relay}\"\nhealth = {{ {health} }}\nbackend = [{backends}]\n"
            )
        };
        let pools = if self.is_apart {
            let named = backends.iter().zip(0..);
            named.map(|(backend, index)| one_pool(&format!("name = \"p{index}\"\n"), backend)).collect()
        } else {
            one_pool("", &backends.join(", "))
        };
        format!("[global]\nworkers = {workers}\ndrain_timeout = \"{drain_timeout}\"\n{global}\n{pools}")
    }
}

/// A running server in front of its backends.
pub(crate) struct Service<'a, S = Arc<Running>> {
    backends: &'a Backends,
    pub(crate) server: S,
    /// What it runs, where it is inside this process.
    config: Option<Config>,
    /// By listener, also of those that were removed.
    addresses: Vec<SocketAddr>,
    /// Keep the ports of those that are inside this process.
    held: Vec<Socket>,
    /// That have connected.
    clients: AtomicU64,
}

/// A session that has been greeted by `node`.
pub(crate) struct Visit {
    pub(crate) client: Peer,
    pub(crate) node: usize,
}

impl<S> Service<'_, S> {
    /// The address of the first listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    #[track_caller]
    pub(crate) fn client(&self) -> Peer {
        self.client_of(0, Ipv4Addr::LOCALHOST)
    }

    /// A client at address `from` of the listener with that index.
    #[track_caller]
    pub(crate) fn client_of(&self, listener: usize, from: Ipv4Addr) -> Peer {
        let address = self.addresses[listener];
        let socket = new_socket(address, None);
        socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into()).expect("bind a client");
        connect(&socket, address);
        Peer::new(Side::Client, socket, self.clients.fetch_add(1, Ordering::Relaxed))
    }

    /// A session, once it has been greeted.
    #[track_caller]
    pub(crate) fn enter(&self) -> Visit {
        Visit::greeted(self.client())
    }

    /// A whole session; returns the node that has served it.
    #[track_caller]
    pub(crate) fn visit(&self) -> usize {
        self.enter().leave()
    }

    /// A whole session of a client at address `from`.
    #[track_caller]
    pub(crate) fn visit_from(&self, from: Ipv4Addr) -> usize {
        Visit::greeted(self.client_of(0, from)).leave()
    }

    /// So many sessions one after the other; returns how many each node has served.
    #[track_caller]
    pub(crate) fn visits(&self, sessions: usize) -> Vec<usize> {
        let mut served = vec![0; self.backends.nodes.len()];
        (0..sessions).for_each(|_| served[self.visit()] += 1);
        served
    }

    /// A whole session that may fail; returns the node.
    pub(crate) fn knock(&self) -> io::Result<usize> {
        self.count_client();
        let mut client = try_patient_client(self.address())?;
        let mut greeting = [0];
        client.read_exact(&mut greeting)?;
        client.write_all(b"hi")?;
        client.read_exact(&mut [0; 2])?;
        client.shutdown(Shutdown::Write)?;
        match client.read(&mut [0])? {
            0 => Ok(usize::from(greeting[0] - GREETING)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Counts a client that has connected on its own.
    pub(crate) fn count_client(&self) {
        self.clients.fetch_add(1, Ordering::Relaxed);
    }
}

impl Service<'_> {
    /// Runs the configuration that it was started with and `edit` has changed.
    #[track_caller]
    pub(crate) fn reload(&self, edit: impl FnOnce(&mut Config)) -> ReloadReport {
        self.read_again(edit, Mode::Apply).expect("a good configuration")
    }

    /// The same; a dry run only returns what it would change.
    pub(crate) fn read_again(
        &self,
        edit: impl FnOnce(&mut Config),
        mode: Mode,
    ) -> Result<ReloadReport, Vec<String>> {
        let mut config = self.backends.config();
        edit(&mut config);
        self.read_from(move || Ok(config.clone()), mode)
    }

    /// The same with whatever `source` says.
    #[track_caller]
    pub(crate) fn read_from(
        &self,
        source: impl Fn() -> Result<Config, Vec<String>> + Send + Sync + 'static,
        mode: Mode,
    ) -> Result<ReloadReport, Vec<String>> {
        let server = Arc::clone(&self.server);
        in_time("the workers get their commands", move || server.reload(Arc::new(move |_| source()), mode))
    }

    pub(crate) fn backend(&self, node: usize) -> Arc<Backend> {
        Arc::clone(&self.server.backends()[node])
    }

    /// Has the server run another configuration from now on, unless it refuses.
    pub(crate) fn try_change(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), Vec<String>> {
        let mut config = self.config.clone().expect("only a server inside this process");
        change(&mut config);
        let next = config.clone();
        self.read_from(move || Ok(next.clone()), Mode::Apply)?;
        self.config = Some(config);
        Ok(())
    }

    #[track_caller]
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Config)) {
        self.try_change(change).expect("a change");
    }

    /// Adds a listener like the first one; returns its index.
    #[track_caller]
    pub(crate) fn add_listener(&mut self, name: &str) -> usize {
        self.change(|config| {
            let first = config.listeners[0].clone();
            config.listeners.push(Listener { name: name.into(), bind: IPV4, ..first });
        });
        let address = self.server.address_of(name).expect("it listens");
        self.addresses.push(address);
        self.held.push(held(address));
        self.addresses.len() - 1
    }

    pub(crate) fn set_workers(&mut self, workers: usize) {
        self.change(|config| config.global.workers = NonZeroUsize::new(workers).expect("some"));
    }

    /// Waits until that many clients are counted as refused for `reason`. The client sees it first.
    #[track_caller]
    pub(crate) fn until_refused(&self, reason: RefuseReason, clients: u64) {
        until("they are counted", || {
            let snapshot = self.server.snapshot();
            let stats = snapshot.listeners.iter().map(|listener| listener.stats().read());
            stats.map(|stats| stats.refused[reason.index()]).sum::<u64>() == clients
        });
    }

    /// Waits until so many workers are left, those that leave included.
    #[track_caller]
    pub(crate) fn until_workers(&self, workers: usize) {
        until("workers have left", || self.server.workers().members().len() == workers);
    }

    /// Whether nothing listens where the listener of that index does or did.
    pub(crate) fn is_refused(&self, listener: usize) -> bool {
        match try_patient_client(self.addresses[listener]) {
            Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
            Ok(mut client) => {
                // One that connects between the last accept(2) and close(2) is reset in the queue.
                if client.read(&mut [0]).is_ok_and(|bytes| bytes > 0) {
                    self.count_client();
                }
                false
            }
        }
    }

    /// Waits until every session is over by itself, stops the server and checks its books: so many sessions
    /// have ended for each reason, and none otherwise; and no node has a connection left.
    #[track_caller]
    pub(crate) fn ends(self, expected: &[(CloseReason, u64)]) -> Totals {
        let totals = self.audit();
        let closed = CloseReason::ALL.map(|reason| (reason, totals.closed_for(reason)));
        let closed: Vec<_> = closed.into_iter().filter(|(_, sessions)| *sessions > 0).collect();
        assert_eq!(closed, expected);
        totals
    }

    /// The same, when the reasons are a matter of luck.
    #[track_caller]
    pub(crate) fn audit(self) -> Totals {
        let server = Arc::into_inner(self.server).expect("every reload is over");
        let totals = audit(server, self.clients.load(Ordering::Relaxed));
        for node in &self.backends.nodes {
            until("no connection is left at a node", || node.book().open() == 0);
        }
        totals
    }
}

impl Service<'_, Daemon> {
    /// What follows the address of its listener in its file.
    pub(crate) fn daemon_toml(&self) -> String {
        self.backends.daemon_toml()
    }

    pub(crate) fn node(&self, id: usize) -> &Node {
        &self.backends.nodes[id]
    }

    /// Stops the server and checks its books; returns the totals as text.
    #[track_caller]
    pub(crate) fn stops(self) -> String {
        self.server.signal("TERM", 1);
        self.has_stopped()
    }

    /// The same for a server that has had its signals.
    #[track_caller]
    pub(crate) fn has_stopped(self) -> String {
        let clients = self.clients.load(Ordering::Relaxed);
        let totals = self.server.has_stopped();
        assert!(totals.contains(&format!("accepted={clients} active=0 ")), "{totals}");
        for node in &self.backends.nodes {
            until("no connection is left at a node", || node.book().open() == 0);
        }
        totals
    }

    /// The part of a processor that the server uses while nothing happens to `client` for so long.
    #[track_caller]
    pub(crate) fn cpu_share_while_silent(&self, client: &mut Peer, span: Duration) -> f64 {
        self.server.cpu_share(|| client.receiving().silence(span))
    }
}

impl Visit {
    /// Waits for the greeting.
    #[track_caller]
    pub(crate) fn greeted(mut client: Peer) -> Self {
        let mut greeting = [0];
        client.receiving().anything(&mut greeting);
        Self { client, node: usize::from(greeting[0] - GREETING) }
    }

    /// Sends something and gets it back.
    #[track_caller]
    pub(crate) fn talks(mut self) -> Self {
        self.client.sending().bytes(b"hello");
        self.client.receiving().bytes(b"hello");
        self
    }

    /// Ends the session; returns the node.
    #[track_caller]
    pub(crate) fn leave(mut self) -> usize {
        self.client.fin();
        assert_eq!(self.client.receiving().ending(), Ending::Fin);
        self.node
    }

    #[track_caller]
    pub(crate) fn gets_cut(mut self) {
        assert_eq!(self.client.receiving().ending(), Ending::Reset);
    }
}
