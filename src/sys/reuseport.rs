//! Keeps new connections away from listening sockets that are about to be closed, because close(2) resets the
//! connections in their queues. A socket is hidden where possible, so that a new connection finds another listener or
//! none; otherwise it refuses new connections. Both programs are classic BPF, which needs no privilege (socket(7),
//! SO_ATTACH_FILTER and SO_ATTACH_REUSEPORT_CBPF).

use std::io;

use nix::libc;
use nix::setsockopt_impl;
use nix::sockopt_impl;
use nix::sys::socket::SetSockOpt;
use socket2::{SockFilter, Socket};

/// The byte of the flags in the TCP header, where a filter of a TCP socket begins to count.
const FLAGS_OFFSET: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;
/// The results of a filter that keep a packet whole, and that drop it.
const KEEP: u32 = u32::MAX;
const DROP: u32 = 0;
/// The offset that loads a random number (linux/filter.h, SKF_AD_RANDOM).
const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM).cast_unsigned();

const LOAD_BYTE: u16 = code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS);
const LOAD_WORD: u16 = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
const AND: u16 = code(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K);
const MODULO: u16 = code(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K);
const JUMP_IF_EQUAL: u16 = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
const RETURN: u16 = code(libc::BPF_RET | libc::BPF_K);
/// linux/filter.h, BPF_A: returns the result of the program.
const RETURN_RESULT: u16 = code(libc::BPF_RET | 0x10);

#[expect(clippy::cast_possible_truncation, reason = "codes have 8 bits")]
const fn code(bits: u32) -> u16 {
    bits as u16
}

/// An interface that does not exist: indices start at 1 and never get that high.
const NO_INTERFACE: libc::c_int = libc::c_int::MAX;

/// Hides these listening sockets, which must be all that share their address: from now on a new connection finds
/// another listener or is refused at once. Handshakes in progress complete. Cannot be undone. Fails with none of them
/// hidden.
///
/// They are bound to an interface that does not exist. The lookup for a SYN passes over such sockets (compute_score in
/// net/ipv4/inet_hashtables.c); the lookup for a segment of a handshake uses the interface of its SYN (ir_iif). Needs
/// Linux 5.7, or CAP_NET_RAW for a socket bound to an interface already, such as one of a link-local address
/// (socket(7), SO_BINDTODEVICE). A handshake by SYN cookie is lost: no socket matches its last segment, and it is
/// reset.
pub fn hide<'a>(listeners: impl IntoIterator<Item = &'a Socket>) -> io::Result<()> {
    let listeners: Vec<&Socket> = listeners.into_iter().collect();
    let Some((first, others)) = listeners.split_first() else { return Ok(()) };
    // The lookup finds a socket that is not hidden, and the group gives the connection to any of its sockets: a hidden
    // one cannot answer it. So all connections are steered to the first one, which is hidden last.
    if !others.is_empty() {
        steer_to_first(first, 1)?;
    }
    for listener in others.iter().rev().chain([first]) {
        BindToInterface.set(listener, &NO_INTERFACE)?;
    }
    Ok(())
}

/// Refuses new connections at this listening socket; handshakes in progress still complete. A client that connects
/// meanwhile gets no answer and retries after a second: by then it is refused, or another process listens. Accepted
/// connections inherit the filter, which passes all their segments.
pub fn refuse_new(listener: &Socket) -> io::Result<()> {
    listener.attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_OFFSET),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, DROP),
        SockFilter::new(RETURN, 0, 0, KEEP),
    ])
}

/// Undoes [`refuse_new`], also when another process that had this socket has called it.
pub(super) fn refuse_none(listener: &Socket) -> io::Result<()> {
    match listener.detach_filter() {
        // There was no filter.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// Steers new connections to the first `count` sockets that share the address of `listener`; there must be at least
/// two.
///
/// The kernel numbers them in the order in which they began to listen; closing one gives its number to the last
/// (net/core/sock_reuseport.c; measured on 6.18). So only the last ones must ever be closed.
pub fn steer_to_first(listener: &Socket, count: u32) -> io::Result<()> {
    let mut program = [
        libc::sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: RANDOM },
        libc::sock_filter { code: MODULO, jt: 0, jf: 0, k: count },
        libc::sock_filter { code: RETURN_RESULT, jt: 0, jf: 0, k: 0 },
    ];
    let program = libc::sock_fprog { len: 3, filter: program.as_mut_ptr() };
    Ok(SteerByProgram.set(listener, &program)?)
}

/// Steers new connections to all sockets that share the address of `listener`, spread by a hash of their addresses;
/// also where nothing was steered before.
pub fn steer_to_all(listener: &Socket) -> io::Result<()> {
    match SteerByHash.set(listener, &0) {
        // It is alone, or there was no program.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

sockopt_impl!(BindToInterface, SetOnly, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, libc::c_int);
sockopt_impl!(SteerByProgram, SetOnly, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, libc::sock_fprog);
sockopt_impl!(SteerByHash, SetOnly, libc::SOL_SOCKET, libc::SO_DETACH_REUSEPORT_BPF, libc::c_int);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
    use std::time::Duration;

    use socket2::{Domain, Type};

    use super::*;
    use crate::config::model::Tcp;
    use crate::sys::sockets::{self, Neighbours};

    const TCP: Tcp = Tcp { nodelay: true, keepalive: None, user_timeout: None };
    /// Far longer than a connection on this machine takes.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// So many in a row that chance cannot favour one of two sockets.
    const CLIENTS: usize = 100;

    fn any_port(v6: bool) -> SocketAddr {
        if v6 { (Ipv6Addr::LOCALHOST, 0).into() } else { (Ipv4Addr::LOCALHOST, 0).into() }
    }

    fn address(listener: &Socket) -> SocketAddr {
        listener.local_addr().unwrap().as_socket().unwrap()
    }

    fn group(sockets: usize) -> Vec<Socket> {
        sockets::listen(any_port(false), sockets, 1024, &TCP).unwrap()
    }

    /// Returns how many of some clients each socket gets.
    fn shares(group: &[Socket]) -> Vec<usize> {
        let clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address(&group[0])).unwrap()).collect();
        let shares: Vec<usize> =
            group.iter().map(|socket| std::iter::from_fn(|| socket.accept().ok()).count()).collect();
        assert_eq!(shares.iter().sum::<usize>(), clients.len(), "{shares:?}");
        shares
    }

    fn served(group: &[Socket]) -> Vec<bool> {
        shares(group).into_iter().map(|share| share > 0).collect()
    }

    #[test]
    fn connections_go_to_the_sockets_that_were_bound_first() {
        let group = group(4);
        for count in 1..=4 {
            steer_to_first(&group[3], count).unwrap();
            let expected: Vec<bool> = (0..4).map(|index| index < count).collect();
            assert_eq!(served(&group), expected, "the first {count}");
        }
        steer_to_first(&group[0], 1).unwrap();
        steer_to_all(&group[2]).unwrap();
        assert_eq!(served(&group), [true; 4]);
    }

    #[test]
    fn the_order_stays_when_the_last_ones_are_closed_and_others_come() {
        let mut group = group(4);
        steer_to_first(&group[0], 2).unwrap();
        // In either order.
        drop(group.remove(2));
        drop(group.remove(2));
        assert_eq!(served(&group), [true; 2]);
        let others = sockets::bind_beside(&group[0], 2, &TCP).unwrap();
        assert_eq!(served(&group), [true; 2], "a socket that does not listen is not part of the group");
        others.iter().for_each(|other| sockets::set_backlog(other, 1024).unwrap());
        group.extend(others);
        assert_eq!(served(&group), [true, true, false, false], "what is steered stays steered");
        steer_to_first(&group[0], 3).unwrap();
        assert_eq!(served(&group), [true, true, true, false]);
        steer_to_all(&group[0]).unwrap();
        assert_eq!(served(&group), [true; 4]);
    }

    #[test]
    fn a_socket_that_is_alone_needs_no_steering() {
        let alone = group(1);
        steer_to_all(&alone[0]).unwrap();
        steer_to_all(&alone[0]).unwrap();
        assert_eq!(served(&alone), [true]);
    }

    /// Returns the error of a client that gets no answer for a while.
    fn connect_error(to: SocketAddr) -> io::Error {
        TcpStream::connect_timeout(&to, Duration::from_millis(100)).unwrap_err()
    }

    #[test]
    fn a_socket_that_refuses_new_connections_keeps_those_in_its_queue() {
        for v6 in [false, true] {
            let listener = sockets::listen(any_port(v6), 1, 1024, &TCP).unwrap().remove(0);
            let _queued = TcpStream::connect(address(&listener)).unwrap();
            refuse_new(&listener).unwrap();
            assert_eq!(connect_error(address(&listener)).kind(), io::ErrorKind::TimedOut);
            assert!(listener.accept().is_ok());
            assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_hidden_socket_keeps_its_queue_and_blocks_no_other() {
        for (v6, sockets) in [(false, 1), (false, 3), (true, 1), (true, 3)] {
            let old = sockets::listen(any_port(v6), sockets, 1024, &TCP).unwrap();
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| TcpStream::connect(address(&old[0])).unwrap()).collect();
            hide(&old).unwrap();
            let refused = TcpStream::connect(address(&old[0])).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let new = sockets::bind(address(&old[0]), sockets, &TCP, Neighbours::Own).unwrap();
            let refused = TcpStream::connect(address(&old[0])).unwrap_err();
            assert_eq!(
                refused.kind(),
                io::ErrorKind::ConnectionRefused,
                "a bound socket does not listen yet"
            );
            sockets::start_listening(&new, 1024, Neighbours::Own).unwrap();
            assert_eq!(shares(&new).len(), sockets, "each of them is served by the new ones");
            let queued = old.iter().map(|socket| std::iter::from_fn(|| socket.accept().ok()).count());
            assert_eq!(queued.sum::<usize>(), clients.len(), "IPv6: {v6}");
        }
    }

    /// While one is hidden and another is not, none of them must be given a connection that it cannot answer.
    #[test]
    fn all_connections_go_to_the_socket_that_is_hidden_last() {
        let group = group(3);
        steer_to_first(&group[0], 1).unwrap();
        for hidden in group[1..].iter().rev() {
            BindToInterface.set(hidden, &NO_INTERFACE).unwrap();
            assert_eq!(served(&group), [true, false, false]);
        }
    }

    /// The client does not receive the answer to its SYN; the server repeats it after a second.
    #[test]
    fn a_handshake_in_progress_completes_where_new_ones_are_refused_or_unanswered() {
        for keep_away in [refuse_new, |listener: &Socket| hide([listener])] {
            completes_a_handshake_after(keep_away);
        }
    }

    fn completes_a_handshake_after(keep_away: fn(&Socket) -> io::Result<()>) {
        let listener = group(1).remove(0);
        listener.set_nonblocking(false).unwrap();
        listener.set_read_timeout(Some(PATIENCE)).unwrap();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        client.attach_filter(&[SockFilter::new(RETURN, 0, 0, DROP)]).unwrap();
        let pending = client.connect(&address(&listener).into()).unwrap_err();
        assert_eq!(pending.raw_os_error(), Some(libc::EINPROGRESS));
        keep_away(&listener).unwrap();
        client.detach_filter().unwrap();
        let (accepted, from) = listener.accept().unwrap();
        assert_eq!(from.as_socket(), client.local_addr().unwrap().as_socket());
        assert_eq!(accepted.device().unwrap(), None);
        // The inherited filter keeps nothing from it.
        assert_eq!(accepted.send(b"hi").unwrap(), 2);
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [std::mem::MaybeUninit::uninit(); 8];
        assert_eq!(client.recv(&mut buffer).unwrap(), 2);
    }
}
