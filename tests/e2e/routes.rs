//! Routes by the name of a server, by protocols and by clients: which pool a client reaches, what of its first bytes
//! does, and what operators see of it.
//!
//! Cases 125, 128, 129, 130 and 131.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use axum::http::Method;
use l4lb::api;
use l4lb::config::{self, Overrides, system_resolver};
use l4lb::server;
use l4lb::session::CloseReason::{ClientGone, Done, HelloBad, NoSni, PrereadTimeout};
use l4lb::stats::RefuseReason;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::harness::backends::{Backends, backends};
use crate::harness::lab::IPV4;
use crate::harness::peer::{Ending, Peer, patient_backend, try_patient_client, until};
use crate::harness::tls_client::{client_config, hello};

const FRONT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Node 0 has what no route is for, node 1 a name, node 2 all below it, node 3 a protocol.
const ROUTES: &str = r#"
pool = "p0"
tls = "passthrough"
timeouts = { preread = "1m" }
route = [
    { sni = ["a.example.com"], pool = "p1" },
    { sni = ["*.example.com"], pool = "p2" },
    { alpn = ["h2"], pool = "p3" },
]
"#;

/// Each node in a pool of its own, behind a listener with these keys.
fn behind(keys: &'static str) -> Backends {
    backends(4).apart().listeners(&[keys])
}

/// The node greets and sends back what it reads: exactly what the client has sent.
#[track_caller]
fn expect_served(mut client: Peer, sent: &[u8], node: u8) {
    let mut greeting = [0];
    client.receiving().anything(&mut greeting);
    assert_eq!(greeting[0] - b'a', node);
    client.receiving().bytes(sent);
    client.sending().bytes(b"more");
    client.receiving().bytes(b"more");
    client.fin();
    assert_eq!(client.receiving().ending(), Ending::Fin);
}

#[test]
fn a_hello_leads_to_the_pool_of_its_route_and_reaches_it_as_it_was_sent() {
    let backends = behind(ROUTES);
    let service = backends.start();
    let cases = [
        (hello("a.example.com", &["h2", "http/1.1"]), 1),
        (hello("b.example.com", &[]), 2),
        (hello("x.a.example.com", &["h2"]), 2),
        (hello("example.com", &["http/1.1", "h2"]), 3),
        (hello("example.com", &["http/1.1"]), 0),
        (hello("192.0.2.1", &["h2"]), 3),
        (hello("192.0.2.1", &[]), 0),
    ];
    for (bytes, node) in &cases {
        let mut whole = service.client();
        whole.sending().bytes(bytes);
        expect_served(whole, bytes, *node);
        let mut slow = service.client();
        for byte in bytes.chunks(1) {
            slow.sending().bytes(byte);
        }
        expect_served(slow, bytes, *node);
    }
    let clients = 2 * cases.len() as u64;
    let listener = Arc::clone(&service.server.snapshot().listeners[0]);
    service.ends(&[(Done, clients)]);
    let routed: Vec<u64> = listener.routed().map(|(_, count)| count).collect();
    assert_eq!(routed, [2, 4, 4, 4], "the last are those without a route");
}

#[test]
fn who_names_no_server_takes_the_pool_of_the_listener_with_every_byte() {
    let backends = behind(ROUTES);
    let service = backends.start();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\x08\x04\xD2\x16\x2F", b"\x80\x2E\x07"] {
        let mut client = service.client();
        client.sending().bytes(bytes);
        expect_served(client, bytes, 0);
    }
    // Its end comes before its hello is complete, or before the first byte.
    let whole = hello("a.example.com", &[]);
    for part in [&whole[..whole.len() / 2], &whole[..1], b""] {
        let mut client = service.client();
        client.sending().bytes(part);
        client.fin();
        client.receiving().bytes(b"a");
        client.receiving().bytes(part);
        assert_eq!(client.receiving().ending(), Ending::Fin);
    }
    service.ends(&[(Done, 6)]);
}

#[test]
fn a_silent_client_takes_the_pool_of_the_listener_after_the_time_for_a_hello() {
    let backends = behind("pool = \"p0\"\ntls = \"passthrough\"\ntimeouts = { preread = \"50ms\" }");
    let service = backends.start();
    let whole = hello("a.example.com", &[]);
    for part in [b"", &whole[..20]] {
        let mut client = service.client();
        client.sending().bytes(part);
        expect_served(client, part, 0);
    }
    service.ends(&[(Done, 2)]);
}

#[test]
fn who_names_no_server_is_reset_where_the_listener_rejects_that() {
    let backends = behind(
        "pool = \"p0\"\ntls = \"passthrough\"\non_no_sni = \"reject\"\ntimeouts = { preread = \"1m\" }\n\
         route = [{ alpn = [\"h2\"], pool = \"p1\" }]",
    );
    let service = backends.start();
    service.client().expect_reset(b"GET / HTTP/1.1\r\n\r\n");
    service.client().expect_reset(&hello("192.0.2.1", &["h2"]));
    let mut ends = service.client();
    ends.sending().bytes(&hello("a.example.com", &[])[..30]);
    ends.fin();
    assert_eq!(ends.receiving().ending(), Ending::Reset);
    service.until_refused(RefuseReason::NoSni, 3);
    let totals = service.ends(&[(NoSni, 3)]);
    assert_eq!(totals.dials, 0, "{totals}");
    let backends = behind(
        "pool = \"p0\"\ntls = \"passthrough\"\non_no_sni = \"reject\"\ntimeouts = { preread = \"50ms\" }",
    );
    let service = backends.start();
    service.client().expect_reset(b"");
    service.client().expect_reset(&hello("a.example.com", &[])[..30]);
    service.until_refused(RefuseReason::PrereadTimeout, 2);
    let totals = service.ends(&[(PrereadTimeout, 2)]);
    assert_eq!(totals.dials, 0, "{totals}");
}

/// It was served like one that ends its stream there.
#[test]
fn who_resets_within_a_hello_is_gone_and_no_backend_is_dialed() {
    let backends = behind(ROUTES);
    let service = backends.start();
    let whole = hello("a.example.com", &[]);
    for part in [&whole[..whole.len() / 2], &whole[..1], b""] {
        let mut client = service.client();
        client.sending().bytes(part);
        client.reset();
    }
    let totals = service.ends(&[(ClientGone, 3)]);
    assert_eq!(totals.dials, 0, "{totals}");
}

#[test]
fn a_malformed_hello_is_reset_and_reaches_no_backend() {
    let backends = behind(ROUTES);
    let service = backends.start();
    let mut long = hello("a.example.com", &[]);
    long[3..9].copy_from_slice(&[0x40, 0, 1, 0, 0x40, 0]);
    let wrong: [&[u8]; 5] = [
        b"\x15\x03\x01\0\x02\x02\x28",
        b"\x80\x2E\x01\x03\x01\0\x15\0\0",
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\0\x04\x02\0\0\0",
        &long,
    ];
    for bytes in wrong {
        service.client().expect_reset(bytes);
    }
    service.until_refused(RefuseReason::HelloBad, 5);
    let totals = service.ends(&[(HelloBad, 5)]);
    assert_eq!(totals.dials, 0, "{totals}");
}

#[test]
fn a_hello_behind_a_proxy_header_is_routed_by_the_client_of_the_header() {
    let backends = behind(
        "pool = \"p0\"\ntls = \"passthrough\"\nproxy_protocol = { from = [\"127.0.0.2\"] }\n\
         timeouts = { preread = \"1m\" }\n\
         route = [{ sni = [\"a.example.com\"], client = [\"192.0.2.0/24\"], pool = \"p1\" }]",
    );
    let service = backends.start();
    let hello = hello("a.example.com", &[]);
    for (source, node) in [("192.0.2.1", 1), ("203.0.113.1", 0)] {
        let header = format!("PROXY TCP4 {source} 198.51.100.7 56324 443\r\n");
        for size in [1, 20, 1000] {
            let mut client = service.client_of(0, FRONT);
            for piece in [header.as_bytes(), &hello].concat().chunks(size) {
                client.sending().bytes(piece);
            }
            expect_served(client, &hello, node);
        }
    }
    service.ends(&[(Done, 6)]);
}

/// The node sends it back.
fn header(client: &Peer, tlvs: &[&[u8]]) -> Vec<u8> {
    let ((from, to), tlvs) = (client.addresses(), tlvs.concat());
    let len = u16::try_from(12 + tlvs.len()).expect("a short header");
    let octets = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => panic!("{ip}"),
    };
    let ports = [from.port(), to.port()].map(u16::to_be_bytes).concat();
    let fixed = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &len.to_be_bytes()[..]].concat();
    [&fixed[..], &octets(from), &octets(to), &ports, &tlvs].concat()
}

#[test]
fn the_header_to_a_backend_has_the_server_and_the_protocols_that_the_client_asks_for() {
    let backends =
        behind(ROUTES).pool("proxy_protocol = { version = \"v2\", tlvs = [\"alpn\", \"authority\"] }");
    let service = backends.start();
    let (label, long, more) = ("x".repeat(63), "y".repeat(150), "z".repeat(400));
    let long_name = [&label, &label, &label, "example.com"].join(".");
    let tlv = |kind: u8, value: &[u8]| {
        [&[kind][..], &u16::try_from(value.len()).expect("short").to_be_bytes(), value].concat()
    };
    let list = |names: &[&str]| {
        let names: Vec<u8> = names
            .iter()
            .flat_map(|name| [&[u8::try_from(name.len()).expect("short")], name.as_bytes()].concat())
            .collect();
        [&u16::try_from(names.len()).expect("short").to_be_bytes()[..], &names].concat()
    };
    let alpn = |names: &[&str]| tlv(1, &list(names));
    let authority = |name: &str| tlv(2, name.as_bytes());
    let many: Vec<&str> =
        more.as_bytes().chunks(100).map(|name| str::from_utf8(name).expect("text")).collect();
    let many = [&many[..], &[&long]].concat();
    let cases = [
        (
            hello("A.Example.com", &["h2", "http/1.1"]),
            [authority("a.example.com"), alpn(&["h2", "http/1.1"])],
            1,
        ),
        (hello("a.example.com", &[]), [authority("a.example.com"), vec![]], 1),
        (hello("192.0.2.1", &["h2"]), [vec![], alpn(&["h2"])], 3),
        (hello("192.0.2.1", &[]), [vec![], vec![]], 0),
        // Of more than 512 bytes, and one with a list of more than that, which is left out.
        (hello(&long_name, &[&long, &long]), [authority(&long_name), alpn(&[&long, &long])], 2),
        (hello("b.example.com", &many), [authority("b.example.com"), vec![]], 2),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), [vec![], vec![]], 0),
    ];
    for (bytes, tlvs, node) in &cases {
        let mut client = service.client();
        client.sending().bytes(bytes);
        let header = header(&client, &[&tlvs[0], &tlvs[1]]);
        expect_served(client, &[&header, &bytes[..]].concat(), *node);
    }
    service.ends(&[(Done, cases.len() as u64)]);
}

/// The node speaks first, and nothing is read before.
#[test]
fn clients_are_routed_by_their_address_alone_without_a_look_at_their_bytes() {
    let backends =
        behind("pool = \"p0\"\nroute = [{ client = [\"127.0.0.2\", \"127.1.0.0/16\"], pool = \"p1\" }]");
    let service = backends.start();
    for (from, node) in [(FRONT, 1), (Ipv4Addr::new(127, 1, 0, 9), 1), (Ipv4Addr::LOCALHOST, 0)] {
        assert_eq!(service.visit_from(from), node);
    }
    service.ends(&[(Done, 3)]);
}

#[test]
fn routes_change_by_a_reload_and_leave_running_sessions_alone() {
    let backends = behind(ROUTES);
    let service = backends.start();
    let bytes = hello("a.example.com", &[]);
    let mut before = service.client();
    before.sending().bytes(&bytes);
    before.receiving().bytes(b"b");
    before.receiving().bytes(&bytes);
    let mut unrouted = service.client();
    unrouted.sending().bytes(&bytes[..5]);
    until("it is accepted", || service.server.totals().accepted == 2);
    let report = service.reload(|config| {
        let routing = config.listeners[0].routing.as_mut().expect("it has routes");
        routing.targets[0].pool = 3;
    });
    let changes: Vec<String> = report.changes.iter().map(|change| change.change.to_string()).collect();
    let [only] = &changes[..] else { panic!("{changes:?}") };
    assert!(only.starts_with("listener \"l0\": route sni=a.example.com pool=p1; sni="), "{only}");
    until("its workers know it", || {
        let mut client = service.client();
        client.sending().bytes(&bytes);
        let mut greeting = [0];
        client.receiving().anything(&mut greeting);
        client.receiving().bytes(&bytes);
        client.fin();
        assert_eq!(client.receiving().ending(), Ending::Fin);
        greeting == *b"d"
    });
    // Its hello is complete only now: the present routes count.
    unrouted.sending().bytes(&bytes[5..]);
    expect_served(unrouted, &bytes, 3);
    before.sending().bytes(b"more");
    before.receiving().bytes(b"more");
    before.reset();
    service.audit();
}

#[test]
fn operators_see_what_a_client_has_asked_for_and_its_route() {
    let backends = behind(ROUTES);
    let service = backends.start_daemon("info");
    let admin = service.server.admin();
    let session = || {
        let page: api::SessionPage = admin.get("/v1/sessions").expect("sessions");
        page.sessions.into_iter().next()
    };
    let mut client = service.client();
    let address = format!("client={}", client.local_address());
    let bytes = hello("B.Example.com", &["h2", "a \"b\n"]);
    client.sending().bytes(&bytes[..9]);
    until("its hello is awaited", || {
        session().is_some_and(|now| now.state == "preread" && now.sni.is_none())
    });
    client.sending().bytes(&bytes[9..]);
    client.receiving().bytes(b"c");
    client.receiving().bytes(&bytes);
    let now = session().expect("it is open");
    let shown = (now.sni.as_deref(), now.alpn.as_deref(), now.route, &*now.pool);
    assert_eq!(shown, (Some("b.example.com"), Some("h2,a \\\"b\\n"), Some(2), "p2"));
    let explained: api::Explanation =
        admin.get(&format!("/v1/sessions/{}/explanation", now.id)).expect("an explanation");
    let asked = "asked for server \"b.example.com\", offering h2,a \\\"b\\n, and took route 2";
    assert_eq!(explained.story[1], asked, "{:?}", explained.story);
    client.fin();
    assert_eq!(client.receiving().ending(), Ending::Fin);
    let alpn = r#"alpn="h2,a \\\"b\\n""#;
    let fields = [" session ", "pool=p2", "sni=b.example.com", alpn, "route=2", &address, "reason=done"];
    service.server.wait_for_line(&fields);
    let mut plain = service.client();
    let address = format!("client={}", plain.local_address());
    plain.sending().bytes(b"GET");
    expect_served(plain, b"GET", 0);
    service.server.wait_for_line(&[" session ", "pool=p0", "sni=-", "alpn=-", "route=-", &address]);
    let scrape = admin.answer(Method::GET, "/metrics", None::<&()>).expect("a scrape");
    let metrics = String::from_utf8(scrape.body.to_vec()).expect("text");
    let counts = |route: &str| {
        let is_it = |line: &&str| line.starts_with("l4lb_routed_total{") && line.contains(route);
        metrics.lines().find(is_it).and_then(|line| line.rsplit_once(' ')).map(|(_, count)| count)
    };
    for (route, count) in [("route=\"1\"", "0"), ("route=\"2\"", "1"), ("route=\"default\"", "1")] {
        assert_eq!(counts(route), Some(count), "{route}");
    }
    assert!(!metrics.contains("example.com"), "no name is in a metric");
    service.stops();
}

/// A server of TLS that sends its name to so many clients, one after the other, and its certificate.
fn serve_tls(name: &'static str, clients: usize) -> (SocketAddr, CertificateDer<'static>, JoinHandle<()>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key in DER");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("both versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a certificate and its key");
    let config = Arc::new(config);
    let listener = patient_backend(IPV4);
    let address = listener.local_addr().expect("it is bound");
    let server = thread::spawn(move || {
        for _ in 0..clients {
            let (client, _) = listener.accept().expect("a client");
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a server");
            let mut stream = StreamOwned::new(connection, client);
            stream.write_all(name.as_bytes()).expect("the handshake succeeds");
            stream.conn.send_close_notify();
            stream.flush().expect("the client reads");
            // What follows is the farewell of the client.
            stream.read_to_end(&mut Vec::new()).expect("the client closes");
        }
    });
    (address, certificate, server)
}

#[test]
fn each_client_of_tls_finds_the_certificate_of_the_server_that_it_names() {
    const NAMES: [&str; 3] = ["a.example.com", "b.example.com", "other.test"];
    const ROUNDS: usize = 4;
    let servers = NAMES.map(|name| serve_tls(name, ROUNDS));
    let mut roots = RootCertStore::empty();
    let mut toml = String::from("[global]\nworkers = 1\n[admin]\nsocket = false\n");
    for (name, (address, certificate, _)) in NAMES.iter().zip(&servers) {
        roots.add(certificate.clone()).expect("a certificate");
        toml += &format!(
            "[[pool]]\nname = {name:?}\nhealth = {{ type = \"off\" }}\nbackend = [{{ address = \"{address}\" }}]\n"
        );
    }
    toml += "[[listener]]\nbind = \":1\"\npool = \"other.test\"\ntls = \"passthrough\"\ntimeouts = { preread = \"1m\" }\n\
             route = [{ sni = [\"*.example.com\"], pool = \"b.example.com\" }, { sni = [\"a.example.com\"], \
             pool = \"a.example.com\" }]\n";
    let mut config =
        config::parse(&toml, "tls.toml", &Overrides::default(), &mut system_resolver).expect("a good config");
    config.listeners[0].bind = IPV4;
    let server = server::start(&config).expect("start the server");
    let client = Arc::new(client_config(roots));
    for name in NAMES.repeat(ROUNDS) {
        let asked = ServerName::try_from(name).expect("a name");
        let connection = ClientConnection::new(Arc::clone(&client), asked).expect("a client");
        let socket = try_patient_client(server.addresses[0]).expect("a client connects");
        let mut stream = StreamOwned::new(connection, socket);
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("the certificate is that of the name");
        assert_eq!(said, name);
        stream.conn.send_close_notify();
        stream.flush().expect("the server reads");
    }
    for (_, _, server) in servers {
        server.join().expect("the server does not panic");
    }
}
