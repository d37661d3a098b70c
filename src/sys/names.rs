//! Host names, as this machine resolves them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::config::system_resolver;

/// Limit for a socket of this machine to accept a connection. A listening one does so at once, unless its queue is
/// full.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(250);

/// Asks the system's resolver and blocks until it answers. For a name that is this machine in both families
/// (`localhost`), returns the addresses of the family in which something listens; of both families when both do, or
/// neither.
pub fn look_up(host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(those_that_answer(system_resolver(host_and_port)?))
}

/// Whether this machine knows a way to `ip`. Nothing is sent: a datagram socket that is connected only looks up the
/// route.
pub fn has_route(ip: IpAddr) -> bool {
    const ANY_PORT: u16 = 9;
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((ip, ANY_PORT))).is_ok()
}

fn those_that_answer(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let has = |is_wanted: fn(&SocketAddr) -> bool| addresses.iter().any(is_wanted);
    let is_here = |address: &SocketAddr| address.ip().is_loopback();
    if !has(SocketAddr::is_ipv4) || !has(SocketAddr::is_ipv6) || !addresses.iter().all(is_here) {
        return addresses;
    }
    let (answering, silent): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| answers(address));
    let is_one_family =
        |some: &[SocketAddr]| some.iter().all(SocketAddr::is_ipv4) || some.iter().all(SocketAddr::is_ipv6);
    if answering.is_empty() || silent.is_empty() || !is_one_family(&answering) {
        addresses
    } else {
        answering
    }
}

fn answers(address: &SocketAddr) -> bool {
    match TcpStream::connect_timeout(address, ANSWER_TIMEOUT) {
        // When nothing listens there, a dial to a port of this machine may connect to itself: tcp(7), simultaneous
        // open.
        Ok(stream) => stream.local_addr().is_ok_and(|local| local != *address),
        // Its queue is full, so it listens.
        Err(error) => error.kind() == io::ErrorKind::TimedOut,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// `localhost` was 127.0.0.1 whatever listened there, and a backend that listened on ::1 alone was down.
    #[test]
    fn localhost_is_in_the_family_that_answers() {
        let Ok(of_v6) = TcpListener::bind("[::1]:0") else { return };
        let port = of_v6.local_addr().unwrap().port();
        let both: Vec<SocketAddr> = vec![([127, 0, 0, 1], port).into(), (Ipv6Addr::LOCALHOST, port).into()];
        // Another process may listen on that port of the other family.
        let Ok(of_v4) = TcpListener::bind(both[0]) else { return };
        assert_eq!(those_that_answer(both.clone()), both, "both answer");
        drop(of_v4);
        assert_eq!(those_that_answer(both.clone()), both[1..], "one answers");
        drop(of_v6);
        assert_eq!(those_that_answer(both.clone()), both, "none answers");
        let elsewhere = vec![both[1], ([192, 0, 2, 1], port).into()];
        assert_eq!(those_that_answer(elsewhere.clone()), elsewhere, "no name server is asked there");
    }
}
