//! Names of hosts, as this machine resolves them.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::config::system_resolver;

/// How long a socket of this machine may take to accept a connection. One that listens does so at once, unless its queue is
/// full.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(250);

/// Asks the system's resolver, and blocks until it answers. Of a name that is this machine in both families (`localhost`), the
/// addresses of that family in which something listens; of both where that is so in both, or in none.
pub fn look_up(host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(those_that_answer(system_resolver(host_and_port)?))
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
        // A dial to a port of this machine may be met by itself, when nobody listens there: tcp(7), simultaneous open.
        Ok(stream) => stream.local_addr().is_ok_and(|local| local != *address),
        // Its queue is full: it listens.
        Err(error) => error.kind() == io::ErrorKind::TimedOut,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// It was 127.0.0.1 whatever listened there, and a backend that listened on ::1 alone was down.
    #[test]
    fn localhost_is_in_the_family_that_answers() {
        let Ok(of_v6) = TcpListener::bind("[::1]:0") else { return };
        let port = of_v6.local_addr().unwrap().port();
        let both: Vec<SocketAddr> =
            vec![([127, 0, 0, 1], port).into(), (std::net::Ipv6Addr::LOCALHOST, port).into()];
        // A stranger may listen on that port of the other family.
        let Ok(of_v4) = TcpListener::bind(both[0]) else { return };
        assert_eq!(those_that_answer(both.clone()), both, "both answer");
        drop(of_v4);
        assert_eq!(those_that_answer(both.clone()), both[1..], "one answers");
        drop(of_v6);
        assert_eq!(those_that_answer(both.clone()), both, "none answers");
        let elsewhere = vec![both[1], ([192, 0, 2, 1], port).into()];
        assert_eq!(those_that_answer(elsewhere.clone()), elsewhere, "nobody is asked there");
    }
}
