//! The header of the PROXY protocol on the wire: what backends and their checks read before anything else.
//!
//! Case 124.

use std::net::{IpAddr, SocketAddr};

use l4lb::config::model::HealthState::Up;
use l4lb::config::proxy::{ProxyCheck, ProxyOut, ProxyVersion};
use l4lb::preread::{Addresses, Header, Progress, parse_proxy};
use l4lb::session::CloseReason::{BackendReset, ClientReset, Done};
use l4lb::session::Side::{Backend, Client};
use socket2::Socket;

use crate::harness::backends::{Backends, Node, backends};
use crate::harness::lab::{Lab, setup};
use crate::harness::peer::{Ending, Peer, retry, until};
use crate::harness::relay::Relay;

const V1: &str = "proxy_protocol = \"v1\"";
const V2: &str = "proxy_protocol = \"v2\"";
const V2_TLVS: &str = "proxy_protocol = { version = \"v2\", tlvs = [\"crc32c\", \"unique_id\"] }";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const MIB: u64 = 1 << 20;

/// The header for a client with these two ends, written without the code that is tested.
fn header(version: ProxyVersion, (source, destination): (SocketAddr, SocketAddr)) -> Vec<u8> {
    let (from, to) = (source.port(), destination.port());
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    if version == ProxyVersion::V1 {
        return format!("PROXY {family} {} {} {from} {to}\r\n", source.ip(), destination.ip()).into_bytes();
    }
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let kind: &[u8] = if source.is_ipv4() { &[0x21, 0x11, 0, 12] } else { &[0x21, 0x21, 0, 36] };
    let ips = [octets(source.ip()), octets(destination.ip())].concat();
    [SIGNATURE, kind, &ips, &from.to_be_bytes(), &to.to_be_bytes()].concat()
}

/// Takes a header of any length from the backend's end, byte by byte.
#[track_caller]
fn take_header(backend: &mut Peer) -> Header {
    let mut bytes = Vec::new();
    loop {
        match parse_proxy(&bytes) {
            Progress::More(_) => {
                let mut byte = [0];
                backend.receiving().anything(&mut byte);
                bytes.extend_from_slice(&byte);
            }
            Progress::Done(header, len) => {
                assert_eq!(len, bytes.len());
                return header;
            }
            Progress::Refused(refusal) => panic!("{}: {bytes:02x?}", refusal.as_str()),
        }
    }
}

/// The next session, behind its header.
#[track_caller]
fn relay_behind_header(lab: &Lab, version: ProxyVersion) -> Relay<&Lab> {
    let id = lab.clients();
    let (client, mut backend) = (lab.client(), lab.accept(id));
    backend.receiving().bytes(&header(version, client.addresses()));
    Relay::new(lab, client, backend)
}

/// The backend has it before a silent client has sent anything, and everything else is as without it.
#[test]
fn a_header_with_the_addresses_of_the_client_is_the_first_that_a_backend_reads() {
    for (keys, version) in [(V1, ProxyVersion::V1), (V2, ProxyVersion::V2)] {
        setup().pool(keys).each_family(|lab| {
            relay_behind_header(&lab, version)
                .sends(Backend, b"220 ready")
                .expects(Client, b"220 ready")
                .sends(Client, b"QUIT")
                .expects(Backend, b"QUIT")
                .closes_both_ways();
            let totals = lab.ends(&[(Done, 1)]);
            assert_eq!((totals.to_backend, totals.headers, totals.header_bytes_lost), (4, 1, 0), "{totals}");
        });
    }
}

#[test]
fn tlvs_name_the_session_and_protect_the_header() {
    let lab = setup().pool(V2_TLVS).start();
    let (client, mut backend) = (lab.client(), lab.accept(0));
    let (source, destination) = client.addresses();
    // The parser has compared the checksum.
    assert_eq!(take_header(&mut backend), Header::Client(Addresses { source, destination }));
    Relay::new(&lab, client, backend).sends(Client, b"hi").expects(Backend, b"hi").closes_both_ways();
    let totals = lab.ends(&[(Done, 1)]);
    // 16 and 12 bytes, the id "0.0.1" and the checksum.
    assert_eq!(totals.header_bytes, 16 + 12 + 3 + 5 + 3 + 4, "{totals}");
}

/// The accept queue of the backend is full, so that the client's bytes are there before the connection is.
#[test]
fn a_header_leaves_in_one_segment_with_the_bytes_that_have_come_before() {
    let lab = setup().pool(V2).backlog(0).start();
    let filler = Peer::connect(lab.backend_address(), 999, None);
    let mut client = lab.client();
    client.sending().bytes(b"early");
    until("the dial", || lab.server.totals().dials == 1);
    drop((lab.accept(999), filler));
    let mut backend = lab.accept(0);
    let expected = [header(ProxyVersion::V2, client.addresses()), b"early".to_vec()].concat();
    let mut read = vec![0; 1024];
    let len = backend.receiving().one_read(&mut read);
    assert_eq!(read[..len], expected);
    Relay::new(&lab, client, backend).closes_both_ways();
    lab.ends(&[(Done, 1)]);
}

#[test]
fn streams_of_any_size_follow_the_header_in_both_directions() {
    for buffers in [4 << 10, 256 << 10] {
        let lab = setup().pool(V2).buffers(buffers).start();
        for _ in 0..4 {
            relay_behind_header(&lab, ProxyVersion::V2)
                .carries(Client, 2 * MIB)
                .carries(Backend, 2 * MIB)
                .closes_both_ways();
        }
        lab.ends(&[(Done, 4)]);
    }
}

#[test]
fn half_closes_and_resets_pass_behind_the_header_as_without_it() {
    let lab = setup().pool(V1).start();
    let half_closed = relay_behind_header(&lab, ProxyVersion::V1).fin(Client).expects_fin(Backend);
    half_closed.sends(Backend, b"late").expects(Client, b"late").fin(Backend).expects_fin(Client);
    relay_behind_header(&lab, ProxyVersion::V1).resets(Client).expects_reset(Backend);
    relay_behind_header(&lab, ProxyVersion::V1).resets(Backend).expects_reset(Client);
    lab.ends(&[(Done, 1), (ClientReset, 1), (BackendReset, 1)]);
}

/// A backend that refuses has read none.
#[test]
fn each_session_has_one_header_however_many_dials_it_took() {
    let lab = setup().pool(V2).refusing_backends(2).start();
    for _ in 0..10 {
        let relay = relay_behind_header(&lab, ProxyVersion::V2).sends(Client, b"hi").expects(Backend, b"hi");
        relay.closes_both_ways();
    }
    let totals = lab.ends(&[(Done, 10)]);
    assert!(totals.dial_failures > 0 && totals.headers == 10, "{totals}");
}

#[test]
fn a_reload_changes_the_header_of_new_sessions_only() {
    let backends = backends(1);
    let mut service = backends.start();
    let old = service.enter();
    service.change(|config| {
        config.pools[0].proxy_protocol = Some(ProxyOut::new(ProxyVersion::V1, ProxyCheck::None));
    });
    let mut client = service.client();
    // A node greets, and sends back what it reads.
    client.receiving().anything(&mut [0]);
    client.sending().bytes(b"hi");
    let echo = [header(ProxyVersion::V1, client.addresses()), b"hi".to_vec()].concat();
    client.receiving().bytes(&echo);
    old.talks().leave();
    client.reset();
    service.audit();
}

/// A pool whose checks go to this socket.
fn checked_by(keys: &str) -> (Backends, Socket) {
    let checked = Node::new(0);
    let health = "interval = \"2s\", fast_interval = \"20ms\", timeout = \"2s\", initial_state = \"down\"";
    let backends =
        backends(1).pool(keys).health(format!("{health}, rise = 1, port = {}", checked.address.port()));
    (backends, checked.listen(16))
}

#[test]
fn a_check_begins_with_its_own_header_even_one_that_only_connects() {
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    type Expected = Option<Vec<u8>>;
    let cases: [(&str, Expected); 5] = [
        (V2, Some(local)),
        ("proxy_protocol = { version = \"v1\", check = \"local\" }", Some(b"PROXY UNKNOWN\r\n".to_vec())),
        ("proxy_protocol = { version = \"v2\", check = \"none\" }", Some(Vec::new())),
        ("proxy_protocol = { version = \"v2\", check = \"proxy\" }", None),
        (V1, None),
    ];
    for (keys, expected) in cases {
        let version = if keys.contains("v1") { ProxyVersion::V1 } else { ProxyVersion::V2 };
        let (backends, checks) = checked_by(keys);
        let service = backends.start();
        let (socket, theirs) = retry(|| checks.accept()).expect("a check comes");
        let theirs = theirs.as_socket().expect("an IP address");
        let mut check = Peer::new(Backend, socket, 0);
        let ours = check.local_address();
        let expected = expected.unwrap_or_else(|| header(version, (theirs, ours)));
        check.receiving().bytes(&expected);
        // Without a byte there is nothing that a reset could take back.
        let ending = if expected.is_empty() { Ending::Reset } else { Ending::Fin };
        assert_eq!(check.receiving().ending(), ending, "{keys}");
        check.close();
        until("it is up", || service.backend(0).health() == Up);
        service.audit();
    }
}

#[test]
fn a_check_with_a_request_sends_it_behind_the_header() {
    let (backends, checks) = checked_by(V2);
    let keys =
        format!("{}, type = \"send_expect\", send = \"PING\", expect = \"PONG\"", backends.keys_of_health());
    let backends = backends.health(keys);
    let service = backends.start();
    let (socket, _) = retry(|| checks.accept()).expect("a check comes");
    let mut check = Peer::new(Backend, socket, 0);
    assert_eq!(take_header(&mut check), Header::Local);
    check.receiving().bytes(b"PING");
    check.sending().bytes(b"PONG");
    assert_eq!(check.receiving().ending(), Ending::Fin);
    check.close();
    until("it is up", || service.backend(0).health() == Up);
    assert_eq!(service.server.totals().headers, 0, "headers of checks are of no session");
    service.audit();
}
