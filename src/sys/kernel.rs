//! The whole surface of the data plane: everything that a worker asks of an operating system.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::libc;

use crate::base::address::Address;
use crate::base::ready::Ready;
use crate::base::time::Instant;
use crate::config::model::{Keepalive, Tcp};
use crate::sys::Token;

/// One thing that happened to one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which socket.
    pub token: Token,
    /// What happened.
    pub ready: Ready,
}

/// How far a dial is.
#[derive(Debug)]
pub enum Dial {
    /// Neither connected nor failed: wait for the next event.
    Pending,
    /// Connected.
    Connected,
    /// Connected, but to itself: nobody listens on that port, and the kernel chose the same port as the source.
    /// TCP allows it (simultaneous open), and on loopback it takes some ten thousand tries to happen.
    ToItself,
    /// Connected, and reset since, with bytes of the peer still to be read. Its error is taken: a read behind
    /// them will look like a clean end.
    Lost(io::Error),
    /// Not connected, and never will be; or reset before the peer had said anything.
    Failed(io::Error),
}

/// Wakes a worker that waits, from another thread.
pub trait Wake: Send + Sync {
    /// Makes the current or the next [`Kernel::wait`] return with [`Token::Wake`]; calls in between are merged.
    fn wake(&self) -> io::Result<()>;
}

/// Everything that a worker asks of an operating system. Calls never block, except [`Kernel::wait`];
/// `WouldBlock` means that an event will tell, `Interrupted` is never returned.
/// Readiness is edge-triggered: an event says that something changed, once.
pub trait Kernel {
    /// A connected or connecting TCP socket. Given back by [`Kernel::close`] or [`Kernel::reset`]. Until it is watched,
    /// the kernel of another worker may have it instead.
    type Socket;
    /// A listening TCP socket. Given back by [`Kernel::close_listener`].
    type Listener;
    /// A pipe between two sockets. Dropping it gives it back, with what it holds.
    type Pipe;

    /// Monotonic time.
    fn now(&mut self) -> Instant;

    /// Replaces `events` by what has happened, after at most `timeout` (`None`: however long it takes).
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// From now on, tells when a connection can be accepted.
    fn watch_listener(&mut self, listener: &Self::Listener, token: Token) -> io::Result<()>;

    /// Takes the next connection from the accept queue, and the client's address. An IPv4 client of a dual-stack
    /// listener has an IPv4 address.
    fn accept(&mut self, listener: &Self::Listener) -> io::Result<(Self::Socket, SocketAddr)>;

    /// Whether somebody waits in the accept queue.
    fn has_client(&mut self, listener: &Self::Listener) -> bool;

    /// Stops listening. What is in the accept queue is reset, unless somebody else has the listener too.
    fn close_listener(&mut self, listener: Self::Listener);

    /// Starts to connect; an event will tell, and [`Kernel::dial_result`] what it means. What is dialed is not kept
    /// alive until [`Kernel::keep_alive`] asks for it; what is accepted has its listener's keepalive.
    fn dial(&mut self, address: &Address, tcp: &Tcp) -> io::Result<Self::Socket>;

    /// The address that this end of a connection has, also after its peer has reset it. A call of its own: only for who
    /// shows it.
    fn local_address(&mut self, socket: &Self::Socket) -> io::Result<SocketAddr>;

    /// How far a dial is; to be asked after an event.
    fn dial_result(&mut self, socket: &Self::Socket) -> Dial;

    /// The same of a dial to that address of which an event says so much, where that may spare the questions.
    fn dial_told(&mut self, socket: &Self::Socket, _address: &Address, _ready: Ready) -> Dial {
        self.dial_result(socket)
    }

    /// Asks for keepalive probes, from the last byte received on.
    fn keep_alive(&mut self, socket: &Self::Socket, keepalive: Keepalive) -> io::Result<()>;

    /// From now on, tells when the socket becomes readable, writable, ended or failed.
    fn watch(&mut self, socket: &Self::Socket, token: Token) -> io::Result<()>;

    /// Reads bytes; 0 is the end of the stream, or what is left of an error that was reported before.
    fn read(&mut self, socket: &Self::Socket, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes bytes, as many as fit.
    fn write(&mut self, socket: &Self::Socket, bytes: &[u8]) -> io::Result<usize>;

    /// Writes bytes that [`Kernel::shutdown_write`] follows at once, as many as fit. They may wait for it, so that the
    /// FIN goes out with them in one segment.
    fn write_last(&mut self, socket: &Self::Socket, bytes: &[u8]) -> io::Result<usize>;

    /// A new pipe, of `capacity` bytes or less, where the kernel denies that; an error where it denies even `least`.
    fn pipe(&mut self, capacity: usize, least: usize) -> io::Result<Self::Pipe>;

    /// Moves at most `len` bytes from the socket into the pipe; 0 means what it means to [`Kernel::read`].
    /// `WouldBlock` says that the socket has nothing *or* that the pipe has no slot left: only of an empty pipe does
    /// it prove the former (splice(2), EAGAIN). A pipe may come to hold more than it was asked to.
    fn splice_in(&mut self, socket: &Self::Socket, pipe: &Self::Pipe, len: usize) -> io::Result<usize>;

    /// Moves at most `len` bytes, all of which the pipe must hold, from it to the socket. On an error they stay in
    /// the pipe, which is then of no use to anybody else.
    fn splice_out(&mut self, pipe: &Self::Pipe, socket: &Self::Socket, len: usize) -> io::Result<usize>;

    /// Reads bytes out of a pipe, in the order in which they came: as many as there is room for.
    fn empty_pipe(&mut self, pipe: &Self::Pipe, buffer: &mut [u8]) -> io::Result<usize>;

    /// Takes the pending error; the kernel reports it once.
    fn take_error(&mut self, socket: &Self::Socket) -> Option<io::Error>;

    /// How many of the bytes written its peer's kernel has not acknowledged.
    fn unacked(&mut self, socket: &Self::Socket) -> io::Result<u32>;

    /// For how long nothing of what was written has left for the peer, to the tick of this kernel's clock (4 ms or less),
    /// and how many bytes are unacknowledged. What leaves may have left before, where the peer has no room for it.
    fn delivery(&mut self, socket: &Self::Socket) -> io::Result<(Duration, u32)>;

    /// Whether a read would return bytes. Asked of a connection that has died: its error is not touched.
    fn has_unread(&mut self, socket: &Self::Socket) -> bool;

    /// Replaces `states` by what an event would say now of each of `sockets`, in their order, whether it has been told
    /// or not. `failing` is one with an error that nobody has taken.
    fn states<'a>(&mut self, sockets: impl Iterator<Item = &'a Self::Socket>, states: &mut Vec<Ready>)
    where
        Self::Socket: 'a;

    /// How long the peer's kernel has not acknowledged what was sent, though it was asked again and again; zero
    /// while it answers, `None` when nothing is unacknowledged or the connection is dead.
    fn silence(&mut self, socket: &Self::Socket) -> io::Result<Option<Duration>>;

    /// Sends a FIN behind the bytes written.
    fn shutdown_write(&mut self, socket: &Self::Socket) -> io::Result<()>;

    /// Sends a reset and gives the socket back. Bytes that are unacknowledged are lost.
    fn reset(&mut self, socket: Self::Socket);

    /// Gives the socket back; the kernel goes on delivering what was written. If received bytes were not read,
    /// it sends a reset instead (RFC 2525, 2.17).
    fn close(&mut self, socket: Self::Socket);
}

/// Whether an error says that this machine has run out of something, as opposed to what a peer has done:
/// [`is_exhausted`], or [`lacks_port`].
pub fn lacks_resources(error: &io::Error) -> bool {
    is_exhausted(error) || lacks_port(error)
}

/// Whether this machine has no source port left towards one address. connect(2): EADDRNOTAVAIL.
pub fn lacks_port(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EADDRNOTAVAIL)
}

/// Whether this machine has run out of what every connection needs. accept(2), socket(2): EMFILE, ENFILE,
/// ENOBUFS, ENOMEM; epoll_ctl(2): ENOSPC at `max_user_watches`.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC)
    )
}

/// Whether splice(2) says that it cannot join these files at all: EINVAL, ENOSYS, and EPERM under a filter of system
/// calls. Nothing has been moved then.
pub fn cannot_splice(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EPERM))
}

/// Whether accept(2) failed for one connection only, so that the next one can be taken.
/// accept(2), "Error handling": Linux passes pending network errors of the new connection on.
pub fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::ETIMEDOUT
                | libc::EPERM
        )
    )
}
