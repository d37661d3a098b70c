//! A listener moves: where one of the new configuration covers the address, the next client is served as if nothing had
//! happened; where none does, it is refused. No client has to send its SYN twice.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use l4lb::config::model::{Config, Listener};
use l4lb::session::CloseReason::Done;
use l4lb::session::Side;
use nix::libc;
use nix::sys::socket::GetSockOpt;
use nix::{getsockopt_impl, sockopt_impl};
use socket2::{Domain, Socket, Type};

use crate::harness::backends::{Service, Visit, backends};
use crate::harness::peer::{PATIENCE, Peer, SetOnDrop, until};
use crate::service::half_connected;

const ONE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const TWO: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ONE_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
/// Where clients come to.
const HOSTS: [IpAddr; 3] = [ONE, TWO, ONE_V6];

sockopt_impl!(TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, libc::tcp_info);

/// A port that the kernel gives to nobody else: a socket that does not listen keeps it, at every address.
fn keep_a_port() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
    socket.set_only_v6(false).expect("IPV6_V6ONLY");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
    socket.bind(&SocketAddr::new(ANY_V6, 0).into()).expect("bind");
    let port = socket.local_addr().expect("getsockname").as_socket().expect("an IP address").port();
    (socket, port)
}

/// The second listener and those behind it listen on these addresses from now on.
fn move_to(hosts: &[IpAddr], port: u16) -> impl Fn(&mut Config) {
    move |config| {
        let first = config.listeners[0].clone();
        config.listeners.truncate(1);
        config.listeners.extend(hosts.iter().zip(0..).map(|(&host, index)| Listener {
            name: format!("moves {index}"),
            bind: SocketAddr::new(host, port),
            ..first.clone()
        }));
    }
}

fn is_covered(host: IpAddr, hosts: &[IpAddr]) -> bool {
    hosts.contains(&host) || hosts.contains(&ANY_V6) || (hosts.contains(&ANY) && host.is_ipv4())
}

/// A client, and how often it had to repeat itself until it was connected.
fn try_connect(to: SocketAddr) -> (io::Result<Socket>, u32) {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
    socket.set_write_timeout(Some(PATIENCE)).expect("SO_SNDTIMEO");
    let connected = socket.connect(&to.into());
    let repeats = TcpInfo.get(&socket).expect("TCP_INFO").tcpi_total_retrans;
    (connected.map(|()| socket), repeats)
}

/// A whole session; returns how often the client had to repeat itself.
fn come(service: &Service<'_>, to: SocketAddr) -> u32 {
    let (connected, repeats) = try_connect(to);
    service.count_client();
    let socket = connected.unwrap_or_else(|error| panic!("{to}: {error}"));
    Visit::greeted(Peer::new(Side::Client, socket, 0)).talks().leave();
    repeats
}

#[track_caller]
fn clients_find_what_is_there(service: &Service<'_>, hosts: &[IpAddr], port: u16) {
    for host in HOSTS.into_iter().cycle().take(4 * HOSTS.len()) {
        let to = SocketAddr::new(host, port);
        if is_covered(host, hosts) {
            assert_eq!(come(service, to), 0, "{to} is covered by {hosts:?}, a client had to repeat its SYN");
        } else {
            let (connected, repeats) = try_connect(to);
            let refused = connected.expect_err("nothing listens there").kind();
            assert_eq!((refused, repeats), (ErrorKind::ConnectionRefused, 0), "{to}, with {hosts:?}");
        }
    }
}

/// Clients waited for one or two seconds: the socket that went dropped their SYNs, and shadowed the new one.
#[test]
fn a_connection_to_an_address_reaches_its_new_listener_at_once() {
    let stages: [&[IpAddr]; 17] = [
        &[ONE],
        &[ANY],
        &[ONE],
        // Its sockets of before are still there, twice.
        &[ANY],
        &[ONE, TWO],
        &[ANY_V6],
        &[ANY],
        &[],
        &[ANY],
        &[TWO],
        &[ONE],
        &[ONE, ONE_V6],
        &[ANY_V6],
        &[ONE_V6, ONE],
        &[ONE, ONE_V6],
        &[ONE_V6, TWO],
        &[],
    ];
    for workers in [1, 2] {
        let backends = backends(1).workers(workers);
        let mut service = backends.start();
        let (_kept, port) = keep_a_port();
        for hosts in stages {
            service.change(move_to(hosts, port));
            clients_find_what_is_there(&service, hosts, port);
        }
        service.visit();
        service.audit();
    }
}

/// Sockets of workers that have left share the address, and go with the others.
#[test]
fn a_listener_that_moves_takes_the_sockets_with_it_that_go_already() {
    let backends = backends(1).workers(3);
    let mut service = backends.start();
    let (_kept, port) = keep_a_port();
    for (workers, hosts) in [(3, [ONE]), (1, [ONE]), (1, [ANY]), (2, [ONE]), (1, [ANY_V6])] {
        service.change(|config| {
            config.global.workers = NonZeroUsize::new(workers).expect("not 0");
            move_to(&hosts, port)(config);
        });
        clients_find_what_is_there(&service, &hosts, port);
    }
    service.audit();
}

/// Connected but not accepted, or not even connected: both began at the socket that goes.
#[test]
fn a_connection_from_before_a_move_is_served_at_its_old_address() {
    const CLIENTS: usize = 20;
    for workers in [1, 2] {
        let backends = backends(1).workers(workers).listeners(&["max_sessions = 1"]);
        let mut service = backends.start();
        let (_kept, port) = keep_a_port();
        let to = SocketAddr::new(ONE, port);
        service.change(move_to(&[ONE], port));
        let inside = Visit::greeted(Peer::connect(to, 0, None));
        let queued: Vec<Peer> = (0..CLIENTS).map(|_| Peer::connect(to, 0, None)).collect();
        let pending: Vec<Socket> = (0..CLIENTS).map(|_| half_connected(to)).collect();
        for hosts in [&[ANY][..], &[], &[ONE]] {
            service.change(move_to(hosts, port));
        }
        // At its limit is the listener of that name, whatever socket it has.
        inside.talks().leave();
        thread::scope(|scope| {
            for client in queued {
                scope.spawn(|| Visit::greeted(client).talks().leave());
            }
            for client in pending {
                until("the handshake is over", || client.peer_addr().is_ok());
                client.set_nonblocking(false).expect("O_NONBLOCK");
                scope.spawn(|| Visit::greeted(Peer::new(Side::Client, client, 0)).talks().leave());
            }
        });
        (0..=2 * CLIENTS).for_each(|_| service.count_client());
        clients_find_what_is_there(&service, &[ONE], port);
        service.audit();
    }
}

/// The kernel may have found a socket just before it is hidden, and then the SYN is lost: one client has to repeat it
/// at most, where each of them had to for as long as the socket was there.
#[test]
fn no_client_is_refused_while_a_listener_moves_under_load() {
    const CLIENTS: usize = 4;
    /// Sessions behind each move.
    const SESSIONS: u64 = 100;
    let moves = [[ANY], [ONE], [ANY_V6], [ANY], [ONE], [ANY_V6]];
    let backends = backends(1).workers(2);
    let mut service = backends.start();
    let (_kept, port) = keep_a_port();
    let to = SocketAddr::new(ONE, port);
    service.change(move_to(&[ONE], port));
    let (is_over, served, repeated) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let visit = || {
        let (connected, repeats) = try_connect(to);
        let client = Peer::new(Side::Client, connected.expect("somebody listens there"), 0);
        Visit::greeted(client).talks().leave();
        repeated.fetch_add(u64::from(repeats > 0), Ordering::AcqRel);
        served.fetch_add(1, Ordering::AcqRel);
    };
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    visit();
                }
            });
        }
        let _over = SetOnDrop(&is_over);
        for hosts in moves {
            service.change(move_to(&hosts, port));
            let before = served.load(Ordering::Acquire);
            until("clients are served", || served.load(Ordering::Acquire) >= before + SESSIONS);
        }
    });
    (0..served.into_inner()).for_each(|_| service.count_client());
    let repeated = repeated.into_inner();
    assert!(repeated <= moves.len() as u64, "{repeated} clients had to repeat their SYN");
    service.audit();
}

/// What had been opened for it took clients in, and reset them: its sockets shadowed those that were there.
#[test]
fn a_refused_move_accepts_no_connection() {
    const MOVES: usize = 20;
    let backends = backends(1).workers(2);
    let mut service = backends.start();
    let (_kept, port) = keep_a_port();
    let to = SocketAddr::new(ONE, port);
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let taken = (taken.local_addr().expect("getsockname"), taken);
    service.change(move_to(&[ANY], port));
    let (is_over, served) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                Visit::greeted(Peer::connect(to, 0, None)).talks().leave();
                served.fetch_add(1, Ordering::AcqRel);
            }
        });
        let _over = SetOnDrop(&is_over);
        for _ in 0..MOVES {
            let before = served.load(Ordering::Acquire);
            let refused = service.try_change(|config| {
                move_to(&[ONE, TWO], port)(config);
                config.listeners[2].bind = taken.0;
            });
            assert!(refused.expect_err("an address in use")[0].contains("in use"));
            until("clients are served", || served.load(Ordering::Acquire) > before);
        }
    });
    let served = served.into_inner();
    (0..served).for_each(|_| service.count_client());
    service.ends(&[(Done, served)]);
}

/// Sockets that go are closed by the end of the process too.
/// Case 89.
#[test]
fn a_drain_may_begin_while_a_listener_moves() {
    for workers in [1, 2] {
        let backends = backends(1).workers(workers);
        let mut service = backends.start();
        let (_kept, port) = keep_a_port();
        service.change(move_to(&[ONE], port));
        let to = SocketAddr::new(ONE, port);
        let visit = Visit::greeted(Peer::connect(to, 0, None));
        service.count_client();
        service.change(move_to(&[ANY], port));
        assert_eq!(come(&service, to), 0);
        service.server.terminate();
        until("nothing listens there", || {
            let (connected, _) = try_connect(to);
            let is_refused = connected.is_err();
            // A client that connects between the last accept(2) and close(2) is reset in the queue.
            if connected.is_ok_and(|mut client| client.read(&mut [0]).is_ok_and(|bytes| bytes > 0)) {
                service.count_client();
            }
            is_refused
        });
        visit.talks().leave();
        service.audit();
    }
}
