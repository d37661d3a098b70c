//! The complete system interface of the data plane: everything that a worker asks of an operating system.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::libc;

use crate::base::address::Address;
use crate::base::ready::Ready;
use crate::base::time::Instant;
use crate::config::model::{Keepalive, Tcp};
use crate::sys::Token;

/// A change on one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The token that the socket was registered with.
    pub token: Token,
    /// The edges since the last event of the socket. They are hints.
    pub ready: Ready,
}

/// The target of a dial, and its options.
#[derive(Clone, Copy, Debug)]
pub struct DialSpec<'a> {
    /// The backend's address, passed to connect(2).
    pub address: &'a Address,
    /// Socket options, set before connect(2).
    pub tcp: &'a Tcp,
}

/// The progress of a dial.
#[derive(Debug)]
pub enum Dial {
    /// Neither connected nor failed: wait for the next event.
    Pending,
    /// The handshake is complete.
    Connected,
    /// Connected to itself: nothing listens on that port, and the kernel chose the same port as the source. TCP allows
    /// it (simultaneous open); on loopback it takes some ten thousand tries.
    ToItself,
    /// Connected, and reset since, with bytes of the peer still unread. Its error is taken: a read behind them will
    /// look like a clean end.
    Lost(io::Error),
    /// Not connected, and never will be; or reset before the peer had sent anything.
    Failed(io::Error),
}

/// Wakes a waiting worker from another thread.
pub trait Wake: Send + Sync {
    /// Makes the current or the next [`Kernel::wait`] return with [`Token::Wake`]; calls in between are merged.
    fn wake(&self) -> io::Result<()>;
}

/// Everything that a worker asks of an operating system. Calls never block, except [`Kernel::wait`]; `WouldBlock` means
/// that an event will follow, `Interrupted` is never returned. Readiness is edge-triggered: a change is reported once.
pub trait Kernel {
    /// A connected or connecting TCP socket. Must be given back by [`Kernel::close`] or [`Kernel::reset`]. Until it is
    /// watched, it may be moved to the kernel of another worker.
    type Socket;
    /// A listening TCP socket. Must be given back by [`Kernel::close_listener`].
    type Listener;
    /// A pipe between two sockets. Dropping it discards the bytes in it.
    type Pipe;

    /// Returns the monotonic time, never less than before.
    fn now(&mut self) -> Instant;

    /// Replaces `events` by the events since the last call; waits at most `timeout` for the first (`None`: without
    /// limit).
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// Reports from now on when a connection can be accepted.
    fn watch_listener(&mut self, listener: &Self::Listener, token: Token) -> io::Result<()>;

    /// Returns the next connection of the accept queue and the client's address. An IPv4 client of a dual-stack
    /// listener has an IPv4 address.
    fn accept(&mut self, listener: &Self::Listener) -> io::Result<(Self::Socket, SocketAddr)>;

    /// Returns whether a connection waits in the accept queue.
    fn has_client(&mut self, listener: &Self::Listener) -> bool;

    /// Stops listening. Connections in the accept queue are reset, unless another process has the listener too.
    fn close_listener(&mut self, listener: Self::Listener);

    /// Starts to connect. After the next event [`Kernel::dial_result`] must be called. A dialed connection has no
    /// keepalive until [`Kernel::keep_alive`] asks for it; an accepted one has its listener's.
    fn dial(&mut self, spec: &DialSpec<'_>) -> io::Result<Self::Socket>;

    /// Returns the local address of a connection, also after its peer has reset it. A separate call, because most
    /// sessions never need it.
    fn local_address(&mut self, socket: &Self::Socket) -> io::Result<SocketAddr>;

    /// Returns the progress of a dial; must be called after an event.
    fn dial_result(&mut self, socket: &Self::Socket) -> Dial;

    /// Same as [`Kernel::dial_result`], for a dial to that address after an event of that readiness, which may spare
    /// system calls.
    fn dial_result_of_event(&mut self, socket: &Self::Socket, _address: &Address, _ready: Ready) -> Dial {
        self.dial_result(socket)
    }

    /// Enables keepalive probes, timed from the last byte received.
    fn keep_alive(&mut self, socket: &Self::Socket, keepalive: Keepalive) -> io::Result<()>;

    /// Reports from now on when the socket becomes readable, writable, ended or failed.
    fn watch(&mut self, socket: &Self::Socket, token: Token) -> io::Result<()>;

    /// Reads bytes and returns how many; 0 is the end of the stream, or follows an error that was reported before.
    fn read(&mut self, socket: &Self::Socket, buffer: &mut [u8]) -> io::Result<usize>;

    /// Reads bytes like [`Kernel::read`] and leaves them where they are, so that the next call returns them again.
    fn peek(&mut self, socket: &Self::Socket, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes as many bytes as fit and returns how many.
    fn write(&mut self, socket: &Self::Socket, bytes: &[u8]) -> io::Result<usize>;

    /// Writes as many bytes as fit. [`Kernel::shutdown_write`] must follow at once: the bytes may wait for it, so that
    /// the FIN leaves in the same segment.
    fn write_last(&mut self, socket: &Self::Socket, bytes: &[u8]) -> io::Result<usize>;

    /// Returns a new pipe of `capacity` bytes, or of fewer where the kernel denies that; fails when it denies even
    /// `least`.
    fn pipe(&mut self, capacity: usize, least: usize) -> io::Result<Self::Pipe>;

    /// Moves at most `len` bytes from the socket into the pipe; 0 means the same as for [`Kernel::read`]. `WouldBlock`
    /// means that the socket has nothing *or* that the pipe has no free slot: only an empty pipe proves the former
    /// (splice(2), EAGAIN). The pipe may hold more than its nominal size afterwards.
    fn splice_in(&mut self, socket: &Self::Socket, pipe: &Self::Pipe, len: usize) -> io::Result<usize>;

    /// Moves at most `len` bytes from the pipe, which must hold them all, to the socket. After an error they stay in
    /// the pipe, which must then not be reused.
    fn splice_out(&mut self, pipe: &Self::Pipe, socket: &Self::Socket, len: usize) -> io::Result<usize>;

    /// Reads bytes out of a pipe, in order, as many as fit into `buffer`.
    fn empty_pipe(&mut self, pipe: &Self::Pipe, buffer: &mut [u8]) -> io::Result<usize>;

    /// Takes the pending error; the kernel reports it once.
    fn take_error(&mut self, socket: &Self::Socket) -> Option<io::Error>;

    /// Returns how many of the bytes written are not acknowledged by the peer's kernel.
    fn unacked(&mut self, socket: &Self::Socket) -> io::Result<u32>;

    /// Returns for how long no written bytes have left for the peer, to the tick of this kernel's clock (4 ms or less),
    /// and how many are unacknowledged. Retransmissions into a closed window count as bytes that leave.
    fn delivery(&mut self, socket: &Self::Socket) -> io::Result<(Duration, u32)>;

    /// Returns whether a read would return bytes. For a connection that has died: its error stays pending.
    fn has_unread(&mut self, socket: &Self::Socket) -> bool;

    /// Returns whether nothing follows the bytes that have arrived. An event only hints at it.
    fn has_ended(&mut self, socket: &Self::Socket) -> bool;

    /// Replaces `states` by the present readiness of each of `sockets`, in their order, reported before or not.
    /// `failing` is a socket with an error that has not been taken.
    fn states<'a>(&mut self, sockets: impl Iterator<Item = &'a Self::Socket>, states: &mut Vec<Ready>)
    where
        Self::Socket: 'a;

    /// Returns for how long the peer's kernel has not acknowledged repeated transmissions; zero while it answers,
    /// `None` when nothing is unacknowledged or the connection is dead.
    fn silence(&mut self, socket: &Self::Socket) -> io::Result<Option<Duration>>;

    /// Sends a FIN behind the bytes written.
    fn shutdown_write(&mut self, socket: &Self::Socket) -> io::Result<()>;

    /// Sends a reset and gives the socket back. Unacknowledged bytes are lost.
    fn reset(&mut self, socket: Self::Socket);

    /// Gives the socket back; the kernel continues to deliver the bytes written. If received bytes were not read, it
    /// sends a reset instead (RFC 2525, 2.17).
    fn close(&mut self, socket: Self::Socket);
}

/// Returns whether an error means that this machine lacks a resource, as opposed to an error of a peer:
/// [`is_exhausted`], or [`lacks_port`].
pub fn lacks_resources(error: &io::Error) -> bool {
    is_exhausted(error) || lacks_port(error)
}

/// Returns whether this machine has no source port left towards one address. connect(2): EADDRNOTAVAIL.
pub fn lacks_port(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EADDRNOTAVAIL)
}

/// Returns whether this machine has run out of a resource that every connection needs. accept(2), socket(2): EMFILE,
/// ENFILE, ENOBUFS, ENOMEM; epoll_ctl(2): ENOSPC at `max_user_watches`.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC)
    )
}

/// Returns whether splice(2) cannot join these files at all: EINVAL, ENOSYS, and EPERM under a filter of system calls.
/// No bytes were moved then.
pub fn cannot_splice(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EPERM))
}

/// Returns whether accept(2) failed for one connection only, so that the next one can be taken. accept(2), "Error
/// handling": Linux passes pending network errors of the new connection on.
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
