//! Clients of PostgreSQL by server name: what they and their backends say of encryption, and that neither reaches the
//! other side.
//!
//! Case 132.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use l4lb::config::{self, Overrides, system_resolver};
use l4lb::server::{self, Running};
use l4lb::session::CloseReason::{self, ClientGone, Done, HelloBad, NoSni, PrereadTimeout, TlsRefused};
use l4lb::session::Side;
use l4lb::stats::Totals;
use socket2::Socket;

use crate::harness::lab::{IPV4, audit};
use crate::harness::peer::{Ending, Peer, patient_backend, retry, try_patient_client};
use crate::harness::tls_client::hello;

const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xD2\x16\x2F";
const GSS_REQUEST: &[u8] = b"\0\0\0\x08\x04\xD2\x16\x30";
const CANCEL: &[u8] = b"\0\0\0\x10\x04\xD2\x16\x2E\0\0\0\x01\0\0\0\x02";
const STARTUP: &[u8] = b"\0\0\0\x13\0\x03\0\0user\0alice\0\0";
const PATIENT: &str = "timeouts = { preread = \"1m\" }";

/// A balancer in front of pools `p0`, `p1` … with one backend each; `a.example.com` is in `p1`.
struct Site {
    server: Running,
    backends: Vec<Socket>,
    clients: u64,
}

fn site(listener: &str, pool: &str) -> Site {
    let backends = [(); 3].map(|()| Socket::from(patient_backend(IPV4)));
    start(listener, pool, &backends.each_ref().map(|backend| vec![address(backend)]), backends.into())
}

fn start(listener: &str, keys: &str, pools: &[Vec<SocketAddr>], backends: Vec<Socket>) -> Site {
    let mut toml = String::from("[global]\nworkers = 1\n");
    for (pool, number) in pools.iter().zip(0..) {
        let backend = |(address, priority): (&SocketAddr, u8)| {
            format!("{{ address = \"{address}\", priority = {priority} }}")
        };
        let addresses: Vec<String> = pool.iter().zip(0..).map(backend).collect();
        let addresses = addresses.join(", ");
        toml += &format!(
            "[[pool]]\nname = \"p{number}\"\nhealth = {{ type = \"off\" }}\nbackend = [{addresses}]\n{keys}\n"
        );
    }
    toml += "[admin]\nsocket = false\n[[listener]]\nbind = \":1\"\npool = \"p0\"\ntls = \"postgres\"\n\
             route = [{ sni = [\"a.example.com\"], pool = \"p1\" }, { alpn = [\"postgresql\"], pool = \"p2\" }]\n";
    toml += listener;
    let mut config = config::parse(&toml, "postgres.toml", &Overrides::default(), &mut system_resolver)
        .expect("a good config");
    config.listeners[0].bind = IPV4;
    Site { server: server::start(&config).expect("start the server"), backends, clients: 0 }
}

impl Site {
    fn client(&mut self) -> Peer {
        self.clients += 1;
        Peer::connect(self.server.addresses[0], self.clients, None)
    }

    /// A client that was granted TLS.
    fn granted(&mut self) -> Peer {
        let mut client = self.client();
        client.sending().bytes(SSL_REQUEST);
        client.receiving().bytes(b"S");
        client
    }

    /// The backend's end of the next session of that pool.
    #[track_caller]
    fn backend(&self, pool: usize) -> Peer {
        let (socket, _) = retry(|| self.backends[pool].accept()).expect("the backend accepts");
        Peer::new(Side::Backend, socket, 0)
    }

    #[track_caller]
    fn ends(self, expected: &[(CloseReason, u64)]) -> Totals {
        let totals = audit(self.server, self.clients);
        let closed = CloseReason::ALL.map(|reason| (reason, totals.closed_for(reason)));
        let closed: Vec<_> = closed.into_iter().filter(|(_, sessions)| *sessions > 0).collect();
        assert_eq!(closed, expected);
        totals
    }
}

fn address(backend: &Socket) -> SocketAddr {
    backend.local_addr().expect("getsockname").as_socket().expect("an IP address")
}

/// Both sides talk and end.
#[track_caller]
fn expect_relayed(client: &mut Peer, backend: &mut Peer, sent: &[u8]) {
    backend.receiving().bytes(sent);
    backend.sending().bytes(b"server");
    client.receiving().bytes(b"server");
    client.fin();
    assert_eq!(backend.receiving().ending(), Ending::Fin);
    backend.fin();
    assert_eq!(client.receiving().ending(), Ending::Fin);
}

#[test]
fn a_client_is_granted_tls_and_its_backend_is_asked_for_it_before_it_gets_the_hello() {
    let mut site = site(PATIENT, "");
    let cases =
        [(hello("a.example.com", &[]), 1), (hello("other.test", &[]), 0), (hello("192.0.2.1", &[]), 0)];
    for (bytes, pool) in &cases {
        for size in [1, 1000] {
            let mut client = site.client();
            SSL_REQUEST.chunks(size).for_each(|piece| client.sending().bytes(piece));
            client.receiving().bytes(b"S");
            bytes.chunks(size).for_each(|piece| client.sending().bytes(piece));
            let mut backend = site.backend(*pool);
            backend.receiving().bytes(SSL_REQUEST);
            backend.sending().bytes(b"S");
            expect_relayed(&mut client, &mut backend, bytes);
        }
    }
    let totals = site.ends(&[(Done, 6)]);
    assert_eq!(totals.negotiated_bytes, [6 * 9; 2], "{totals}");
    assert_eq!(totals.to_client, 6 * 6, "{totals}");
}

#[test]
fn gssapi_is_refused_and_tls_granted_behind_it() {
    let mut site = site(PATIENT, "");
    let bytes = hello("a.example.com", &[]);
    let mut client = site.client();
    client.sending().bytes(GSS_REQUEST);
    client.receiving().bytes(b"N");
    client.sending().bytes(SSL_REQUEST);
    client.receiving().bytes(b"S");
    client.sending().bytes(&bytes);
    let mut backend = site.backend(1);
    backend.receiving().bytes(SSL_REQUEST);
    backend.sending().bytes(b"S");
    expect_relayed(&mut client, &mut backend, &bytes);
    // One that prefers GSSAPI and does without.
    let mut plain = site.client();
    plain.sending().bytes(GSS_REQUEST);
    plain.receiving().bytes(b"N");
    plain.sending().bytes(STARTUP);
    expect_relayed(&mut plain, &mut site.backend(0), STARTUP);
    let mut twice = site.client();
    twice.sending().bytes(GSS_REQUEST);
    twice.receiving().bytes(b"N");
    twice.expect_reset(GSS_REQUEST);
    site.ends(&[(Done, 2), (HelloBad, 1)]);
}

#[test]
fn a_client_that_begins_with_its_hello_is_routed_by_it_and_its_backend_is_asked_for_nothing() {
    let mut site = site(PATIENT, "");
    for (bytes, pool) in
        [(hello("a.example.com", &["postgresql"]), 1), (hello("other.test", &["postgresql"]), 2)]
    {
        let mut client = site.client();
        client.sending().bytes(&bytes);
        expect_relayed(&mut client, &mut site.backend(pool), &bytes);
    }
    let totals = site.ends(&[(Done, 2)]);
    assert_eq!(totals.negotiated_bytes, [0; 2], "{totals}");
}

#[test]
fn clients_without_encryption_go_by_on_no_sni() {
    let mut lenient = site(PATIENT, "");
    for bytes in [STARTUP, CANCEL, b"GET / HTTP/1.1\r\n\r\n"] {
        let mut client = lenient.client();
        client.sending().bytes(bytes);
        expect_relayed(&mut client, &mut lenient.backend(0), bytes);
    }
    lenient.ends(&[(Done, 3)]);
    let mut strict = site("on_no_sni = \"reject\"\ntimeouts = { preread = \"1m\" }", "");
    for bytes in [STARTUP, CANCEL, b"GET / HTTP/1.1\r\n\r\n"] {
        strict.client().expect_reset(bytes);
    }
    let mut nameless = strict.granted();
    nameless.sending().bytes(&hello("192.0.2.1", &[]));
    assert_eq!(nameless.receiving().ending(), Ending::Reset);
    let totals = strict.ends(&[(NoSni, 4)]);
    assert_eq!(totals.dials, 0, "{totals}");
}

#[test]
fn a_silent_client_goes_by_on_no_sni_before_its_request_and_behind_it() {
    let mut lenient = site("timeouts = { preread = \"50ms\" }", "");
    // What is no whole request is relayed, and its server answers it.
    let mut client = lenient.client();
    client.sending().bytes(&SSL_REQUEST[..3]);
    let mut backend = lenient.backend(0);
    backend.receiving().bytes(&SSL_REQUEST[..3]);
    client.sending().bytes(&SSL_REQUEST[3..]);
    expect_relayed(&mut client, &mut backend, &SSL_REQUEST[3..]);
    // The same from outside, whether the balancer has granted it or its server has.
    let mut granted = lenient.client();
    granted.sending().bytes(SSL_REQUEST);
    let mut backend = lenient.backend(0);
    backend.receiving().bytes(SSL_REQUEST);
    backend.sending().bytes(b"S");
    granted.receiving().bytes(b"S");
    granted.sending().bytes(b"late");
    expect_relayed(&mut granted, &mut backend, b"late");
    lenient.ends(&[(Done, 2)]);
    let mut strict = site("on_no_sni = \"reject\"\ntimeouts = { preread = \"50ms\" }", "");
    strict.client().expect_reset(b"");
    strict.clients += 1;
    let granted = try_patient_client(strict.server.addresses[0]).and_then(|mut client| {
        client.write_all(SSL_REQUEST)?;
        client.read_to_end(&mut Vec::new())
    });
    assert_eq!(granted.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    strict.ends(&[(PrereadTimeout, 2)]);
}

#[test]
fn who_leaves_or_sends_anything_but_a_hello_behind_its_request_reaches_no_backend() {
    let mut site = site(PATIENT, "");
    for bytes in [STARTUP, b"GET / HTTP/1.1\r\n\r\n", b"\x15\x03\x01\0\x02\x02\x28"] {
        site.granted().expect_reset(bytes);
    }
    for part in [&b""[..], &hello("a.example.com", &[])[..30]] {
        let mut ends = site.granted();
        ends.sending().bytes(part);
        ends.fin();
        assert_eq!(ends.receiving().ending(), Ending::Reset);
    }
    let totals = site.ends(&[(ClientGone, 2), (HelloBad, 3)]);
    assert_eq!(totals.dials, 0, "{totals}");
}

/// Nothing that a backend sends before it has granted TLS may reach a client (CVE-2021-23222).
#[test]
fn a_backend_that_does_not_grant_tls_gets_no_hello_and_its_client_is_reset() {
    let mut site = site(PATIENT, "retries = 0");
    for answer in [&b"N"[..], b"E", b"ESERROR\0", b"SE"] {
        let mut client = site.granted();
        client.sending().bytes(&hello("a.example.com", &[]));
        let mut backend = site.backend(1);
        backend.receiving().bytes(SSL_REQUEST);
        backend.sending().bytes(answer);
        assert_eq!(backend.receiving().ending(), Ending::Reset, "{}", answer.escape_ascii());
        assert_eq!(client.receiving().ending(), Ending::Reset, "{}", answer.escape_ascii());
    }
    let totals = site.ends(&[(TlsRefused, 4)]);
    assert_eq!((totals.to_backend, totals.to_client), (0, 0), "{totals}");
}

/// The client has lost nothing: its hello waits.
#[test]
fn another_backend_is_asked_where_one_refuses_or_leaves() {
    let backends: Vec<Socket> = (0..3).map(|_| Socket::from(patient_backend(IPV4))).collect();
    let addresses: Vec<SocketAddr> = backends.iter().map(address).collect();
    let pools = vec![addresses[..1].to_vec(), addresses, vec![address(&backends[0])]];
    let keys = "retries = 2\nproxy_protocol = \"v1\"";
    let mut site = start(PATIENT, keys, &pools, backends);
    let bytes = hello("a.example.com", &[]);
    let mut client = site.granted();
    client.sending().bytes(&bytes);
    let (from, to) = client.addresses();
    let header = format!("PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
    for pool in 0..3 {
        let mut backend = site.backend(pool);
        backend.receiving().bytes(&[header.as_bytes(), SSL_REQUEST].concat());
        match pool {
            0 => backend.sending().bytes(b"N"),
            1 => backend.reset(),
            _ => {
                backend.sending().bytes(b"S");
                expect_relayed(&mut client, &mut backend, &bytes);
            }
        }
    }
    let totals = site.ends(&[(Done, 1)]);
    assert_eq!((totals.retries, totals.dials, totals.headers), (2, 3, 3), "{totals}");
}
