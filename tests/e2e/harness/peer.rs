//! One end of a connection to the load balancer: a client or a backend that follows a script.
//! Blocking calls with a deadline; every byte that comes is compared with the one that was sent.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use l4lb::session::Side;
use l4lb::sys::{Clock, Kernel, Linux};
use mio::unix::SourceFd;
use nix::errno::Errno;
use socket2::{Domain, SockRef, Socket, Type};

use crate::harness::pattern::Pattern;

/// How long anything may take. Far longer than it does, even on a machine with better things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The answer of an HTTP server that is unavailable.
pub(crate) const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
/// A writer that has not got rid of a byte for so long counts as blocked.
const BLOCKED: Duration = Duration::from_millis(100);
/// Bytes per call, unless a script wants others.
const CHUNK: usize = 64 * 1024;

/// How much of [`PATIENCE`] is left, each time it is asked: for a wait of several steps.
pub(crate) fn patience() -> impl Fn() -> Duration {
    let clock = Clock::start();
    let end = clock.now() + PATIENCE;
    move || end - clock.now()
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let left = patience();
    while !condition() {
        assert!(!left().is_zero(), "not within {PATIENCE:?}: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// What `call` returns. For calls that know no deadline: one that takes longer is left to itself.
#[track_caller]
pub(crate) fn in_time<T: Send + 'static>(what: &str, call: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, returned) = channel();
    thread::spawn(move || sender.send(call()));
    returned.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Signals its end to other threads, also when this one fails: a scope waits for its threads, and they for this.
pub(crate) struct SetOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Repeats a call that was interrupted. signal(7): one with SO_RCVTIMEO or SO_SNDTIMEO is not restarted, not even when
/// no more has happened than that the process was stopped for a moment.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A backend on a free port of `host`. accept(2), and whatever waits on what it returns, waits no longer than anything
/// may take.
pub(crate) fn patient_backend(host: SocketAddr) -> TcpListener {
    let listener = TcpListener::bind(host).expect("a free port");
    // What it accepts inherits it.
    SockRef::from(&listener).set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
    listener
}

/// A client of `address` that waits no longer for anything than it may take.
pub(crate) fn patient_client(address: SocketAddr) -> TcpStream {
    try_patient_client(address).expect("connect")
}

/// The same where the connection may be refused, or reset right behind the handshake.
pub(crate) fn try_patient_client(address: SocketAddr) -> io::Result<TcpStream> {
    let client = TcpStream::connect_timeout(&address, PATIENCE)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    Ok(client)
}

/// An address of this machine that stays free: where nobody else listens, and no client has its port.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, high | 1, low, NEXT.fetch_add(1, Ordering::Relaxed));
    let listener = TcpListener::bind((host, 0)).expect("a free port");
    listener.local_addr().expect("getsockname")
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Properly.
    Fin,
    /// By ECONNRESET.
    Reset,
}

/// One direction of one connection: what has passed so far.
#[derive(Debug)]
struct Flow {
    pattern: Pattern,
    bytes: u64,
}

impl Flow {
    fn new(key: u64) -> Self {
        Self { pattern: Pattern::new(key), bytes: 0 }
    }

    fn on_pattern(&mut self, bytes: usize) {
        self.pattern.skip(bytes);
        self.bytes += bytes as u64;
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    side: Side,
    /// Gone once the script has closed or reset it.
    socket: Option<Socket>,
    outgoing: Flow,
    incoming: Flow,
}

/// What a peer can do in one direction, while another thread uses the other.
pub(crate) struct Sending<'a> {
    side: Side,
    socket: &'a Socket,
    flow: &'a mut Flow,
}

/// See [`Sending`].
pub(crate) struct Receiving<'a> {
    side: Side,
    socket: &'a Socket,
    flow: &'a mut Flow,
}

/// A socket for `address` whose buffers, if given, hold about so many bytes.
pub(crate) fn new_socket(address: SocketAddr, buffers: Option<usize>) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
    if let Some(bytes) = buffers {
        socket.set_recv_buffer_size(bytes).expect("SO_RCVBUF");
        socket.set_send_buffer_size(bytes).expect("SO_SNDBUF");
    }
    socket
}

/// Connects `socket`, and leaves its errors to the first read. A reset may come right behind the handshake: a
/// connect(2) that waits would return it, and the read behind that an end.
#[track_caller]
pub(crate) fn connect(socket: &Socket, address: SocketAddr) {
    socket.set_nonblocking(true).expect("O_NONBLOCK");
    if let Err(error) = socket.connect(&address.into()) {
        let begun = error.raw_os_error() == Some(Errno::EINPROGRESS as i32);
        assert!(begun, "connect to {address}: {error}");
    }
    let (mut poll, mut events) = (mio::Poll::new().expect("epoll"), mio::Events::with_capacity(1));
    let fd = socket.as_raw_fd();
    let registry = poll.registry();
    registry.register(&mut SourceFd(&fd), mio::Token(0), mio::Interest::WRITABLE).expect("watch");
    retry(|| poll.poll(&mut events, Some(PATIENCE))).expect("wait");
    assert!(!events.is_empty(), "connect to {address}: no answer");
    socket.set_nonblocking(false).expect("O_NONBLOCK");
}

impl Peer {
    /// Connects to `address` as the client of session `id`.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr, id: u64, buffers: Option<usize>) -> Self {
        let socket = new_socket(address, buffers);
        connect(&socket, address);
        Self::new(Side::Client, socket, id)
    }

    /// One end of session `id`. Both ends know the patterns of both directions.
    pub(crate) fn new(side: Side, socket: Socket, id: u64) -> Self {
        socket.set_tcp_nodelay(true).expect("TCP_NODELAY");
        socket.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
        socket.set_write_timeout(Some(PATIENCE)).expect("SO_SNDTIMEO");
        let mut peer = Self { side, socket: Some(socket), outgoing: Flow::new(0), incoming: Flow::new(0) };
        peer.rename(id);
        peer
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.socket().local_addr().expect("getsockname").as_socket().expect("an IP address")
    }

    /// Its own address, and that of the other end.
    pub(crate) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let remote = self.socket().peer_addr().expect("getpeername").as_socket().expect("an IP address");
        (self.local_address(), remote)
    }

    /// From its first byte on, this is an end of session `id`.
    pub(crate) fn rename(&mut self, id: u64) {
        let key = |from: Side| id * 2 + u64::from(from == Side::Backend);
        self.outgoing.pattern = Pattern::new(key(self.side));
        self.incoming.pattern = Pattern::new(key(self.side.other()));
    }

    /// Bytes that its kernel has taken.
    pub(crate) fn sent(&self) -> u64 {
        self.outgoing.bytes
    }

    /// Bytes that it has read.
    pub(crate) fn received(&self) -> u64 {
        self.incoming.bytes
    }

    pub(crate) fn halves(&mut self) -> (Sending<'_>, Receiving<'_>) {
        let (side, socket) = (self.side, self.socket.as_ref().expect("the script has closed it"));
        (
            Sending { side, socket, flow: &mut self.outgoing },
            Receiving { side, socket, flow: &mut self.incoming },
        )
    }

    pub(crate) fn sending(&mut self) -> Sending<'_> {
        self.halves().0
    }

    pub(crate) fn receiving(&mut self) -> Receiving<'_> {
        self.halves().1
    }

    /// Ends the outgoing stream.
    #[track_caller]
    pub(crate) fn fin(&mut self) {
        self.socket().shutdown(Shutdown::Write).expect("shutdown");
    }

    /// Closes the connection: a FIN, or a reset if something came that was not read.
    pub(crate) fn close(&mut self) {
        self.socket = None;
    }

    /// Closes the connection by a reset.
    pub(crate) fn reset(&mut self) {
        self.socket().set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        self.socket = None;
    }

    /// Sends `bytes` and is reset. The reset may come before it sends: then the write fails.
    #[track_caller]
    pub(crate) fn expect_reset(mut self, bytes: &[u8]) {
        match self.sending().try_bytes(bytes) {
            Ok(()) => assert_eq!(self.receiving().ending(), Ending::Reset, "{}", bytes.escape_ascii()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{}", bytes.escape_ascii()),
        }
    }

    /// Bytes sent that the other kernel has acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        let mut kernel = Linux::new().expect("epoll");
        self.sent() - u64::from(kernel.unacked(self.socket()).expect("SIOCOUTQ"))
    }

    /// The pending error of its socket.
    pub(crate) fn take_error(&self) -> Option<ErrorKind> {
        self.socket().take_error().expect("SO_ERROR").map(|error| error.kind())
    }

    #[track_caller]
    fn socket(&self) -> &Socket {
        self.socket.as_ref().expect("the script has closed it")
    }
}

impl Sending<'_> {
    #[track_caller]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let result = Write::write_all(&mut self.socket, bytes);
        result.unwrap_or_else(|error| panic!("{:?} sends {bytes:?}: {error}", self.side));
        self.flow.bytes += bytes.len() as u64;
    }

    /// The same for a peer that may have been reset.
    pub(crate) fn try_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(&mut self.socket, bytes)
    }

    /// One byte as urgent.
    #[track_caller]
    pub(crate) fn urgent(&mut self, byte: u8) {
        assert_eq!(self.socket.send_out_of_band(&[byte]).expect("send urgent"), 1);
        self.flow.bytes += 1;
    }

    /// The next `bytes` of its pattern.
    #[track_caller]
    pub(crate) fn stream(&mut self, bytes: u64) {
        self.slices(bytes, || CHUNK);
    }

    /// The next `bytes` of its pattern, each call with as many as `slice` says.
    #[track_caller]
    pub(crate) fn slices(&mut self, bytes: u64, mut slice: impl FnMut() -> usize) {
        let end = self.flow.bytes + bytes;
        while self.flow.bytes < end {
            let left = usize::try_from(end - self.flow.bytes).unwrap_or(usize::MAX);
            if let Err(kind) = self.some(slice().min(left)) {
                panic!("{:?} sends byte {} of {end}: {kind:?}", self.side, self.flow.bytes);
            }
        }
    }

    /// Its pattern until no more bytes fit anywhere.
    #[track_caller]
    pub(crate) fn until_blocked(&mut self) {
        self.socket.set_write_timeout(Some(BLOCKED)).expect("SO_SNDTIMEO");
        let stopped_by = self.until_error();
        assert_eq!(stopped_by, ErrorKind::WouldBlock, "{:?} after byte {}", self.side, self.flow.bytes);
        self.socket.set_write_timeout(Some(PATIENCE)).expect("SO_SNDTIMEO");
    }

    /// Its pattern until a call fails; returns how.
    #[track_caller]
    pub(crate) fn until_error(&mut self) -> ErrorKind {
        let left = patience();
        loop {
            if let Err(kind) = self.some(CHUNK) {
                return kind;
            }
            assert!(!left().is_zero(), "{:?}: no end after byte {}", self.side, self.flow.bytes);
        }
    }

    fn some(&mut self, bytes: usize) -> Result<(), ErrorKind> {
        let mut buffer = vec![0; bytes];
        self.flow.pattern.peek(&mut buffer);
        let written = retry(|| Write::write(&mut self.socket, &buffer)).map_err(|error| error.kind())?;
        self.flow.on_pattern(written);
        Ok(())
    }
}

impl Receiving<'_> {
    #[track_caller]
    pub(crate) fn bytes(&mut self, expected: &[u8]) {
        let mut came = vec![0; expected.len()];
        let result = Read::read_exact(&mut self.socket, &mut came);
        result.unwrap_or_else(|error| panic!("{:?} expects {expected:?}: {error}", self.side));
        assert_eq!(came, expected, "{:?}", self.side);
        self.flow.bytes += came.len() as u64;
    }

    /// Fills `buffer` with whatever comes.
    #[track_caller]
    pub(crate) fn anything(&mut self, buffer: &mut [u8]) {
        Read::read_exact(&mut self.socket, buffer)
            .unwrap_or_else(|error| panic!("{:?} reads: {error}", self.side));
        self.flow.bytes += buffer.len() as u64;
    }

    /// What one call returns, some bytes at least.
    #[track_caller]
    pub(crate) fn one_read(&mut self, buffer: &mut [u8]) -> usize {
        let read = retry(|| Read::read(&mut self.socket, buffer));
        let bytes = read.unwrap_or_else(|error| panic!("{:?} reads: {error}", self.side));
        self.flow.bytes += bytes as u64;
        bytes
    }

    /// Exactly the next `bytes` of the other's pattern.
    #[track_caller]
    pub(crate) fn stream(&mut self, bytes: u64) {
        self.slices(bytes, CHUNK);
    }

    /// Exactly the next `bytes` of the other's pattern, at most `slice` per call.
    #[track_caller]
    pub(crate) fn slices(&mut self, bytes: u64, slice: usize) {
        let end = self.flow.bytes + bytes;
        while self.flow.bytes < end {
            let left = usize::try_from(end - self.flow.bytes).unwrap_or(usize::MAX);
            if let Some(ending) = self.some(slice.min(left)) {
                panic!("{:?}: {ending:?} after byte {} of {end}", self.side, self.flow.bytes);
            }
        }
    }

    /// However much of the other's pattern comes, until it ends.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Ending {
        loop {
            if let Some(ending) = self.some(CHUNK) {
                return ending;
            }
        }
    }

    /// The end, and not a byte before it.
    #[track_caller]
    pub(crate) fn ending(&mut self) -> Ending {
        let before = self.flow.bytes;
        let ending = self.rest();
        assert_eq!(self.flow.bytes - before, 0, "{:?}: bytes came before {ending:?}", self.side);
        ending
    }

    /// Nothing, for so long.
    #[track_caller]
    pub(crate) fn silence(&mut self, span: Duration) {
        self.socket.set_read_timeout(Some(span)).expect("SO_RCVTIMEO");
        match retry(|| Read::read(&mut self.socket, &mut [0])) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            came => panic!("{:?} expects silence: {came:?}", self.side),
        }
        self.socket.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
    }

    #[track_caller]
    fn some(&mut self, bytes: usize) -> Option<Ending> {
        let mut buffer = vec![0; bytes];
        match retry(|| Read::read(&mut self.socket, &mut buffer)) {
            Ok(0) => Some(Ending::Fin),
            Ok(read) => {
                self.flow.pattern.check(&buffer[..read]);
                self.flow.bytes += read as u64;
                None
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(Ending::Reset),
            Err(error) => panic!("{:?} reads after byte {}: {error}", self.side, self.flow.bytes),
        }
    }
}
