//! The kernel of this machine on the bench. Peers are sockets on loopback; a verb waits until our kernel, or the
//! peer's, shows its effect, and looks at it in a way that takes no error and no event from the script.

use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use l4lb::sys::{Clock, Event, Kernel, Linux, ListeningSocket};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, libc, sockopt_impl};
use procfs::net::{TcpNetEntry, TcpState};
use socket2::{Domain, Socket, Type};

use crate::conformance::{Backend, Bench, Ending, Link, Peer};

/// Limit for any action. Far longer than it takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// After this long without an event none is expected.
const QUIET: Duration = Duration::from_millis(300);
const BACKLOG: i32 = 128;

/// See the module.
pub(super) struct LinuxBench {
    kernel: Linux,
    /// By port of the script.
    addresses: Vec<SocketAddr>,
    /// Each with its address; no socket once closed.
    peers: Vec<(SocketAddr, Option<Socket>)>,
    /// The socket of the listening backend.
    dialed: Option<TcpListener>,
    /// Sockets that only have to stay open.
    kept: Vec<Socket>,
}

/// Waits until `condition` holds.
#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let clock = Clock::start();
    let deadline = clock.now() + PATIENCE;
    while !condition() {
        assert!(clock.now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

sockopt_impl!(TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, TcpInfoHead);

/// The first fields of `struct tcp_info` of linux/tcp.h; the kernel returns as many as are asked for.
#[repr(C)]
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the macro makes the option public")]
pub struct TcpInfoHead {
    state: u8,
    others: [u8; 3],
}

/// TCP_ESTABLISHED, TCP_FIN_WAIT1 and TCP_FIN_WAIT2 of tcp_states.h: the peer's stream goes on.
const STATES_BEFORE_END: [u8; 3] = [1, 4, 5];
/// TCP_CLOSE.
const STATE_CLOSED: u8 = 7;

/// The state of a connection, as soon as the kernel has done with the packet that brought it there: the call waits
/// for the lock that is held meanwhile.
fn state_of(socket: &Socket) -> u8 {
    getsockopt(socket, TcpInfo).expect("it is a TCP socket").state
}

/// How many bytes could be read, of at most `most`. Takes no error as long as the connection lives.
fn unread(socket: &Socket, most: usize) -> usize {
    socket.peek(&mut vec![MaybeUninit::uninit(); most]).unwrap_or(0)
}

/// Returns the kernel's table of TCP over IPv4.
fn listed() -> Vec<TcpNetEntry> {
    procfs::net::tcp().expect("proc(5) is mounted")
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn address_of(socket: &Socket) -> SocketAddr {
    socket.local_addr().expect("it is bound").as_socket().expect("it is of IPv4")
}

fn tcp_socket() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket")
}

fn connected(address: SocketAddr) -> Socket {
    let socket = tcp_socket();
    socket.connect(&address.into()).expect("somebody listens");
    socket
}

/// A listener that shares its port with others, and whose connections send at once.
fn listening(address: SocketAddr) -> Socket {
    let socket = tcp_socket();
    socket.set_reuse_port(true).expect("an option");
    socket.set_nonblocking(true).expect("an option");
    socket.set_tcp_nodelay(true).expect("an option");
    socket.bind(&address.into()).expect("a free port");
    socket.listen(BACKLOG).expect("a listener");
    socket
}

impl LinuxBench {
    pub(super) fn new() -> Self {
        let kernel = Linux::new().expect("an epoll instance");
        Self { kernel, addresses: Vec::new(), peers: Vec::new(), dialed: None, kept: Vec::new() }
    }

    fn add(&mut self, socket: Socket) -> Peer {
        socket.set_tcp_nodelay(true).expect("an option");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        socket.set_write_timeout(Some(PATIENCE)).expect("an option");
        self.peers.push((address_of(&socket), Some(socket)));
        Peer(self.peers.len() - 1)
    }

    fn peer(&self, peer: Peer) -> &Socket {
        self.peers[peer.0].1.as_ref().expect("it is open")
    }

    /// Closes the peer's socket.
    fn drop_peer(&mut self, peer: Peer, reset: bool) {
        let socket = self.peers[peer.0].1.take().expect("it is open");
        if reset {
            socket.set_linger(Some(Duration::ZERO)).expect("an option");
        }
    }

    fn events_within(&mut self, span: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        self.kernel.wait(Some(span), &mut events).expect("epoll works");
        events
    }
}

/// Clients in the accept queues of an address (proc(5): of a listening socket, rx_queue).
fn queued(address: SocketAddr) -> u32 {
    let of_listener = |entry: &TcpNetEntry| entry.local_address == address && entry.state == TcpState::Listen;
    listed().iter().filter(|entry| of_listener(entry)).map(|entry| entry.rx_queue).sum()
}

impl Bench for LinuxBench {
    type K = Linux;

    fn kernel(&mut self) -> &mut Linux {
        &mut self.kernel
    }

    /// The kernel does so by itself; a verb that needs it waits for it.
    fn pass(&mut self) {}

    fn await_events(&mut self) -> Vec<Event> {
        self.events_within(PATIENCE)
    }

    fn await_silence(&mut self) -> Vec<Event> {
        self.events_within(QUIET)
    }

    fn await_acks(&mut self, socket: &Socket) {
        until("everything is acknowledged", || self.kernel.unacked(socket).expect("a connection") == 0);
    }

    fn listen(&mut self, port: usize) -> Arc<ListeningSocket> {
        let is_first = port == self.addresses.len();
        let listener = listening(if is_first { any_port() } else { self.addresses[port] });
        if is_first {
            self.addresses.push(address_of(&listener));
        }
        Arc::new(listener.into())
    }

    fn connect(&mut self, port: usize) -> Peer {
        let address = self.addresses[port];
        let before = queued(address);
        let client = connected(address);
        until("a client is queued", || queued(address) > before);
        self.add(client)
    }

    fn client_at(&self, address: SocketAddr) -> Peer {
        let is_it = |(of_peer, _): &(SocketAddr, Option<Socket>)| *of_peer == address;
        Peer(self.peers.iter().position(is_it).expect("a client of ours"))
    }

    fn reset_queued(&mut self, peer: Peer, bytes: usize) {
        let (client, _) = self.peers[peer.0];
        let server = self.peer(peer).peer_addr().expect("it is connected").as_socket();
        // Both: the port of the client may be that of older connections in TIME_WAIT, too.
        let is_it =
            |entry: &TcpNetEntry| entry.remote_address == client && Some(entry.local_address) == server;
        let is_listed = || listed().iter().any(is_it);
        assert!(is_listed(), "it is queued");
        self.peer(peer).write_all(&vec![0; bytes]).expect("a small write");
        self.drop_peer(peer, true);
        until("a queued client is reset", || !is_listed());
    }

    fn backend(&mut self, backend: Backend) -> SocketAddr {
        if let Backend::Listening = backend {
            let listener = TcpListener::bind(any_port()).expect("a listener");
            let address = listener.local_addr().expect("it is bound");
            self.dialed = Some(listener);
            return address;
        }
        let socket = tcp_socket();
        socket.bind(&any_port().into()).expect("a free port");
        let address = address_of(&socket);
        if let Backend::Full = backend {
            // listen(2): the queue holds one more than the backlog.
            socket.listen(0).expect("a listener");
            self.kept.push(connected(address));
            until("the queue is full", || queued(address) == 1);
        }
        self.kept.push(socket);
        address
    }

    fn dialed(&mut self) -> Peer {
        let (stream, _) = self.dialed.as_ref().expect("one listens").accept().expect("a dial");
        self.add(stream.into())
    }

    fn dial_itself(&mut self) -> Socket {
        let socket = tcp_socket();
        socket.bind(&any_port().into()).expect("a free port");
        socket.connect(&socket.local_addr().expect("it is bound")).expect("a simultaneous open");
        socket.set_nonblocking(true).expect("an option");
        socket
    }

    fn send(&mut self, link: &Link<Socket>, bytes: usize) {
        let mut all = bytes;
        // The script may have left bytes unread.
        all += unread(&link.socket, 1 << 20);
        let mut peer = self.peer(link.peer);
        peer.write_all(&vec![0; bytes]).expect("there is room");
        until("bytes arrive", || unread(&link.socket, all) == all);
    }

    fn send_to_closed(&mut self, peer: Peer, bytes: usize) {
        self.peer(peer).write_all(&vec![0; bytes]).expect("there is room");
        until("a reset comes back", || self.peer(peer).take_error().is_ok_and(|error| error.is_some()));
    }

    fn receive(&mut self, peer: Peer, bytes: usize) {
        let mut peer = self.peer(peer);
        peer.read_exact(&mut vec![0; bytes]).expect("the bytes come");
    }

    fn receive_end(&mut self, peer: Peer) -> Ending {
        let mut behind = 0;
        let mut peer = self.peer(peer);
        let mut buffer = vec![0; 1 << 16];
        loop {
            match peer.read(&mut buffer) {
                Ok(0) => return Ending::Fin { behind },
                Ok(bytes) => behind += bytes,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ending::Reset { behind },
                Err(error) => panic!("no end in sight: {error}"),
            }
        }
    }

    fn is_silent(&mut self, peer: Peer) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let peeked = self.peer(peer).recv_with_flags(&mut byte, flags);
        peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    fn fin(&mut self, link: &Link<Socket>) {
        self.peer(link.peer).shutdown(Shutdown::Write).expect("it is connected");
        until("a FIN arrives", || !STATES_BEFORE_END.contains(&state_of(&link.socket)));
    }

    fn reset(&mut self, link: &Link<Socket>) {
        self.drop_peer(link.peer, true);
        until("a reset arrives", || state_of(&link.socket) == STATE_CLOSED);
    }

    fn close(&mut self, link: &Link<Socket>) {
        self.drop_peer(link.peer, false);
        until("an end arrives", || !STATES_BEFORE_END.contains(&state_of(&link.socket)));
    }

    fn exhaust_descriptors(&mut self) {
        let lowest_free = OwnedFd::from(tcp_socket()).as_raw_fd();
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit works");
        let limit = u64::try_from(lowest_free).expect("a descriptor");
        setrlimit(Resource::RLIMIT_NOFILE, limit, hard).expect("a lower limit is allowed");
    }
}
