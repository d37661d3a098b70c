//! Sockets with their options set, and the one ioctl that no crate wraps.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::libc;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::base::address::Address;
use crate::config::model::{Keepalive, Tcp};
use crate::sys::kernel::DialSpec;

/// Sockets that may listen beside a group of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbours {
    /// None: binding fails if another socket listens there.
    None,
    /// Others of this process, as 127.0.0.1:80 does beside 0.0.0.0:80. Then sockets of other processes of this user are
    /// not noticed either.
    Own,
}

/// Returns `count` listening sockets that share one address, and share it with no other socket.
pub fn listen(address: SocketAddr, count: usize, backlog: u32, tcp: &Tcp) -> io::Result<Vec<Socket>> {
    let sockets = bind(address, count, tcp, Neighbours::None)?;
    start_listening(&sockets, backlog, Neighbours::None)?;
    Ok(sockets)
}

/// Returns `count` sockets, at least one, that share one address (SO_REUSEPORT, socket(7)) and do not listen yet. With
/// port 0 the kernel chooses the port, the same for all. Accepted connections inherit the options of `tcp`.
pub fn bind(address: SocketAddr, count: usize, tcp: &Tcp, neighbours: Neighbours) -> io::Result<Vec<Socket>> {
    let first = new_listener(address, tcp)?;
    // A bind with SO_REUSEPORT also joins another process of the same user, and each would get a part of the clients.
    // So the first socket binds, and listens, without it, and must have the address for itself.
    first.set_reuse_port(neighbours == Neighbours::Own)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    let others = bind_beside(&first, count - 1, tcp)?;
    Ok(std::iter::once(first).chain(others).collect())
}

/// Makes sockets of [`bind()`] listen: from now on the kernel spreads connections over them. Fails when another socket
/// has begun to listen there meanwhile; then some of them may listen.
pub fn start_listening<'a>(
    sockets: impl IntoIterator<Item = &'a Socket>,
    backlog: u32,
    neighbours: Neighbours,
) -> io::Result<()> {
    let mut sockets = sockets.into_iter();
    let Some(first) = sockets.next() else { return Ok(()) };
    first.set_reuse_port(neighbours == Neighbours::Own)?;
    set_backlog(first, backlog)?;
    first.set_reuse_port(true)?;
    sockets.try_for_each(|other| set_backlog(other, backlog))
}

/// Returns `count` more sockets for the address of `listener`, which do not listen yet.
pub fn bind_beside(listener: &Socket, count: usize, tcp: &Tcp) -> io::Result<Vec<Socket>> {
    let address = listener.local_addr()?;
    let bind = address.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    let open = || {
        let socket = new_listener(bind, tcp)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address)?;
        Ok(socket)
    };
    (0..count).map(|_| open()).collect()
}

/// Listens with a queue of `backlog` connections; those in the queue stay. For a listening socket it only changes the
/// length: listen(2) may be called again.
pub fn set_backlog(listener: &Socket, backlog: u32) -> io::Result<()> {
    listener.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// Sets the options that connections accepted from now on inherit, also on a listener opened by another process.
pub fn set_listener_options(listener: &Socket, tcp: &Tcp) -> io::Result<()> {
    listener.set_out_of_band_inline(true)?;
    listener.set_tcp_nodelay(tcp.nodelay)?;
    match tcp.keepalive {
        Some(keepalive) => keep_alive(listener, keepalive),
        None => listener.set_keepalive(false),
    }
}

fn new_listener(bind: SocketAddr, tcp: &Tcp) -> io::Result<Socket> {
    let socket = new_socket(bind)?;
    set_listener_options(&socket, tcp)?;
    if bind.is_ipv6() {
        socket.set_only_v6(bind.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    // Without it, connections of the last run in TIME_WAIT would keep the address for a minute.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Returns a socket that is connected or connecting to where `spec` says.
pub(super) fn dial(spec: &DialSpec<'_>) -> io::Result<Socket> {
    let &DialSpec { address: &Address::Ip(address), tcp } = spec;
    let socket = new_socket(address)?;
    set_options(&socket, tcp)?;
    match socket.connect(&address.into()) {
        Ok(()) => Ok(socket),
        // connect(2): EINPROGRESS when the socket is non-blocking; EINTR means the same there.
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(socket),
        Err(error) if is_without_address(&error) && !has_source(address) => {
            Err(io::Error::new(io::ErrorKind::NetworkUnreachable, "no address of this machine reaches it"))
        }
        Err(error) => Err(error),
    }
}

/// connect(2): EADDRNOTAVAIL means that no source port is left. Linux also returns it where IPv6 is disabled or its
/// interface down, which does not pass by itself: then no source address is left (measured on 6.18).
fn is_without_address(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EADDRNOTAVAIL)
}

/// Returns whether this machine has a source address towards `address`. A datagram socket looks for one like a stream
/// socket, and needs no TCP port. It sends nothing.
fn has_source(address: SocketAddr) -> bool {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.cloexec(), Some(Protocol::UDP));
    let connected = socket.and_then(|socket| socket.connect(&address.into()));
    !connected.is_err_and(|error| is_without_address(&error))
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))
}

fn set_options(socket: &Socket, tcp: &Tcp) -> io::Result<()> {
    // Without it an urgent byte would be taken out of the stream (tcp(7)). It must be relayed in its place.
    socket.set_out_of_band_inline(true)?;
    if tcp.nodelay {
        socket.set_tcp_nodelay(true)?;
    }
    // Not TCP_USER_TIMEOUT, which also ends the connection of a peer that has only stopped reading: see `silence.rs`.
    Ok(())
}

/// Four system calls. The kernel counts from the last byte received, however late they are made
/// (tcp_sock_set_keepidle).
pub(super) fn keep_alive(socket: &Socket, keepalive: Keepalive) -> io::Result<()> {
    let figures = TcpKeepalive::new()
        .with_time(keepalive.idle)
        .with_interval(keepalive.interval)
        .with_retries(keepalive.count);
    socket.set_tcp_keepalive(&figures)
}

/// Returns whether a read would return bytes.
pub(super) fn has_unread(socket: &Socket) -> bool {
    socket.peek(&mut [MaybeUninit::uninit()]).is_ok_and(|bytes| bytes > 0)
}

/// Returns the bytes written that the peer's kernel has not acknowledged: SIOCOUTQ of tcp(7), the same number as
/// TIOCOUTQ.
pub(super) fn unacked(socket: &Socket) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open while `socket` lives, and the ioctl writes one int to the pointer.
    #[expect(unsafe_code, reason = "an ioctl that no crate wraps")]
    unsafe { outq(socket.as_raw_fd(), &raw mut bytes) }?;
    Ok(u32::try_from(bytes).unwrap_or(0))
}

mod ioctls {
    nix::ioctl_read_bad!(outq, nix::libc::TIOCOUTQ, nix::libc::c_int);
}
use ioctls::outq;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_listener_takes_other_options_while_it_listens() {
        let keepalive =
            Keepalive { idle: Duration::from_secs(7), interval: Duration::from_secs(3), count: 2 };
        let kept = Tcp { nodelay: false, keepalive: Some(keepalive), user_timeout: None };
        let plain = Tcp { nodelay: true, keepalive: None, user_timeout: None };
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into(), 1, 8, &plain).unwrap().remove(0);
        let address = listener.local_addr().unwrap();
        for tcp in [kept, plain] {
            set_listener_options(&listener, &tcp).unwrap();
            set_backlog(&listener, 16).unwrap();
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.connect(&address).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            assert_eq!(accepted.tcp_nodelay().unwrap(), tcp.nodelay);
            assert_eq!(accepted.keepalive().unwrap(), tcp.keepalive.is_some());
            if let Some(keepalive) = tcp.keepalive {
                assert_eq!(accepted.tcp_keepalive_time().unwrap(), keepalive.idle);
            }
        }
    }
}
