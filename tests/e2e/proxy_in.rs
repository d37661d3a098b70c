//! Headers of the PROXY protocol from balancers in front: from which peers a listener takes one, and what follows.
//!
//! Cases 121, 122, 123 and 133.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use l4lb::api;
use l4lb::session::CloseReason::{ClientGone, Done, PrereadTimeout, ProxyBad};
use l4lb::stats::RefuseReason;

use crate::harness::backends::{Backends, Visit, backends};
use crate::harness::peer::{Ending, PATIENCE, Peer, until};

const FRONT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const REJECT: &str = "proxy_protocol = { from = [\"127.0.0.2\"] }\ntimeouts = { preread = \"1m\" }";
const PLAIN: &str =
    "proxy_protocol = { from = [\"127.0.0.2/32\"], others = \"plain\" }\ntimeouts = { preread = \"1m\" }";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";
const TCP4: &[u8] = &[0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 7, 0xDC, 0x04, 0x01, 0xBB];
const LOCAL: &[u8] = &[0x20, 0, 0, 0];

fn v2(rest: &[u8]) -> Vec<u8> {
    [SIGNATURE, rest].concat()
}

fn behind(keys: &'static str) -> Backends {
    backends(1).listeners(&[keys])
}

/// A session that the node has greeted.
#[track_caller]
fn expect_served(mut client: Peer) {
    client.receiving().anything(&mut [0]);
    client.sending().bytes(b"GET");
    client.receiving().bytes(b"GET");
    client.fin();
    assert_eq!(client.receiving().ending(), Ending::Fin);
}

#[test]
fn a_header_is_taken_however_it_comes_and_what_follows_it_is_relayed() {
    let backends = behind(REJECT);
    let service = backends.start();
    let headers = [V1.to_vec(), v2(TCP4), v2(LOCAL), b"PROXY UNKNOWN\r\n".to_vec(), v2(&[0x21, 0, 0, 0])];
    let mut clients = 0;
    for header in &headers {
        let mut whole = service.client_of(0, FRONT);
        whole.sending().bytes(header);
        expect_served(whole);
        let mut slow = service.client_of(0, FRONT);
        for byte in header.chunks(1) {
            slow.sending().bytes(byte);
        }
        expect_served(slow);
        let mut joined = service.client_of(0, FRONT);
        // Another header behind the first is payload.
        joined.sending().bytes(&[header, V1, &b"GET"[..]].concat());
        joined.receiving().anything(&mut [0]);
        joined.receiving().bytes(&[V1, b"GET"].concat());
        joined.fin();
        assert_eq!(joined.receiving().ending(), Ending::Fin);
        clients += 3;
    }
    let totals = service.ends(&[(Done, clients)]);
    assert_eq!((totals.headers_taken, totals.headers_local), (clients - 3, 3), "{totals}");
    let bytes: usize = headers.iter().map(Vec::len).sum();
    assert_eq!(totals.header_bytes_taken, 3 * bytes as u64, "{totals}");
}

/// The balancer in front has one address for all of them.
#[test]
fn the_client_of_a_header_keeps_its_backend() {
    let backends = backends(3).pool("balance = \"source_hash\"").listeners(&[REJECT]);
    let service = backends.start();
    let node_of = |client: u8| {
        let mut front = service.client_of(0, FRONT);
        let header = format!("PROXY TCP4 192.0.2.{client} 198.51.100.7 56324 443\r\n");
        front.sending().bytes(header.as_bytes());
        Visit::greeted(front).leave()
    };
    let nodes: Vec<usize> = (1..=40).map(node_of).collect();
    assert_eq!((1..=40).map(node_of).collect::<Vec<_>>(), nodes, "again");
    assert!((0..3).all(|node| nodes.contains(&node)), "{nodes:?}");
    service.ends(&[(Done, 80)]);
}

#[test]
fn logs_name_the_client_of_the_header_and_the_balancer_that_has_sent_it() {
    let backends = behind(REJECT);
    let service = backends.start_daemon("info");
    let mut client = service.client_of(0, FRONT);
    let peer = format!("peer={}", client.local_address());
    client.sending().bytes(V1);
    expect_served(client);
    service.server.wait_for_line(&[" session ", "client=192.0.2.1:56324", &peer, "reason=done"]);
    let mut check = service.client_of(0, FRONT);
    let address = format!("client={}", check.local_address());
    check.sending().bytes(&v2(LOCAL));
    expect_served(check);
    service.server.wait_for_line(&[" session ", &address, "reason=done"]);
    service.stops();
}

#[test]
fn operators_see_the_client_of_the_header_and_the_balancer_in_front() {
    let backends = behind(REJECT);
    let service = backends.start_daemon("info");
    let admin = service.server.admin();
    let mut client = service.client_of(0, FRONT);
    let peer = client.local_address().to_string();
    let session = || {
        let page: api::SessionPage = admin.get("/v1/sessions").expect("sessions");
        page.sessions.into_iter().next()
    };
    let is = |state: &str, client: &str, peer: Option<&str>| {
        session().is_some_and(|now| (&*now.state, &*now.client, now.peer.as_deref()) == (state, client, peer))
    };
    let story = || {
        let id = session().expect("it is open").id;
        let explained: api::Explanation =
            admin.get(&format!("/v1/sessions/{id}/explanation")).expect("an explanation");
        explained.story
    };
    until("it is asked for a header", || is("preread", &peer, None));
    assert!(story()[0].starts_with(&format!("came from {peer} through")), "{:?}", story());
    assert_eq!(story()[1], "no backend is picked before its PROXY header or its TLS hello has come");
    client.sending().bytes(V1);
    until("its header is taken", || is("open", "192.0.2.1:56324", Some(&peer)));
    let both = format!("came from 192.0.2.1:56324 (by a PROXY header of {peer}) through");
    assert!(story()[0].starts_with(&both), "{:?}", story());
    expect_served(client);
    service.stops();
}

#[test]
fn what_is_no_header_is_reset_and_reaches_no_backend() {
    let backends = behind(REJECT);
    let service = backends.start();
    let wrong = [
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00".to_vec(),
        b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\n".to_vec(),
        v2(&[0x31]),
        v2(&[0x21, 0x11, 0xFF, 0xFF]),
    ];
    for bytes in &wrong {
        service.client_of(0, FRONT).expect_reset(bytes);
    }
    service.until_refused(RefuseReason::ProxyBad, wrong.len() as u64);
    let totals = service.ends(&[(ProxyBad, wrong.len() as u64)]);
    assert_eq!(totals.dials, 0, "{totals}");
}

#[test]
fn a_client_without_a_header_in_time_is_reset() {
    let backends = behind("proxy_protocol = { from = [\"127.0.0.2\"] }\ntimeouts = { preread = \"50ms\" }");
    let service = backends.start();
    service.client_of(0, FRONT).expect_reset(b"");
    service.client_of(0, FRONT).expect_reset(b"PROXY TCP4 192.0");
    service.until_refused(RefuseReason::PrereadTimeout, 2);
    let totals = service.ends(&[(PrereadTimeout, 2)]);
    assert_eq!(totals.dials, 0, "{totals}");
}

#[test]
fn a_client_that_leaves_within_its_header_is_gone() {
    let backends = behind(REJECT);
    let service = backends.start();
    let mut resets = service.client_of(0, FRONT);
    resets.sending().bytes(b"PROXY ");
    until("it is accepted", || service.server.totals().accepted == 1);
    resets.reset();
    let mut ends = service.client_of(0, FRONT);
    ends.sending().bytes(b"PROXY ");
    ends.fin();
    assert_eq!(ends.receiving().ending(), Ending::Reset);
    let mut says_nothing = service.client_of(0, FRONT);
    says_nothing.fin();
    assert_eq!(says_nothing.receiving().ending(), Ending::Reset);
    let totals = service.ends(&[(ClientGone, 3)]);
    assert_eq!(totals.dials, 0, "{totals}");
}

/// They close by a reset, and no backend is to blame for it.
#[test]
fn a_check_of_a_balancer_in_front_is_done_when_it_leaves_without_a_byte() {
    let backends = behind(REJECT);
    let service = backends.start();
    for nth in 1..=5 {
        let mut check = service.client_of(0, FRONT);
        check.sending().bytes(&v2(LOCAL));
        until("it is accepted", || service.server.totals().accepted == nth);
        check.reset();
    }
    service.ends(&[(Done, 5)]);
}

#[test]
fn who_is_no_balancer_in_front_is_reset_or_served_without_a_header() {
    let backends = behind(REJECT);
    let service = backends.start();
    for bytes in [&b""[..], V1] {
        let address = service.address();
        // The reset may come before connect(2) returns.
        let reset = TcpStream::connect(address).and_then(|mut stranger| {
            stranger.set_read_timeout(Some(PATIENCE))?;
            stranger.write_all(bytes)?;
            stranger.read(&mut [0])
        });
        assert_eq!(reset.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    service.until_refused(RefuseReason::ProxyUntrusted, 2);
    let totals = service.ends(&[]);
    assert_eq!((totals.accepted, totals.dials), (0, 0), "{totals}");
    let backends = behind(PLAIN);
    let service = backends.start();
    let mut stranger = service.client();
    stranger.receiving().anything(&mut [0]);
    stranger.sending().bytes(V1);
    stranger.receiving().bytes(V1);
    stranger.reset();
    let mut front = service.client_of(0, FRONT);
    front.sending().bytes(V1);
    expect_served(front);
    service.audit();
}

/// Silent clients of one listener could take the places of all.
#[test]
fn a_client_is_reset_when_too_many_others_have_yet_to_send_a_header() {
    const LOCALS: &str = "proxy_protocol = { from = [\"127.0.0.0/8\"] }\ntimeouts = { preread = \"1m\" }";
    let backends = behind(LOCALS).global("max_sessions = 20");
    let service = backends.start();
    let mut silent: Vec<Peer> = (0..16).map(|_| service.client()).collect();
    until("they are accepted", || service.server.totals().accepted == 16);
    // The reset may come before connect(2) returns.
    let reset = TcpStream::connect(service.address()).and_then(|mut another| {
        another.set_read_timeout(Some(PATIENCE))?;
        another.read(&mut [0])
    });
    assert_eq!(reset.unwrap_err().kind(), ErrorKind::ConnectionReset);
    service.until_refused(RefuseReason::PrereadLimit, 1);
    // One that has sent its header, and one that has left, make room for two.
    let mut served = silent.remove(0);
    served.sending().bytes(V1);
    served.receiving().anything(&mut [0]);
    silent.remove(0).reset();
    until("it is gone", || service.server.totals().closed_total() == 1);
    for _ in 0..2 {
        silent.push(service.client());
    }
    until("they are accepted", || service.server.totals().accepted == 18);
    service.until_refused(RefuseReason::PrereadLimit, 1);
    silent.iter_mut().for_each(Peer::reset);
    served.reset();
    until("all are gone", || service.server.totals().closed_total() == 18);
    service.audit();
}

/// The bound was common to all listeners.
#[test]
fn silent_clients_of_one_listener_do_not_have_those_of_another_reset() {
    const LOCALS: &str = "proxy_protocol = { from = [\"127.0.0.0/8\"] }\ntimeouts = { preread = \"1m\" }";
    let backends = backends(1).listeners(&[LOCALS, LOCALS]).global("max_sessions = 100");
    let service = backends.start();
    let mut silent: Vec<Peer> = (0..16).map(|_| service.client()).collect();
    until("they are accepted", || service.server.totals().accepted == 16);
    let mut others: Vec<Peer> = (0..16).map(|_| service.client_of(1, FRONT)).collect();
    until("they are accepted", || service.server.totals().accepted == 32);
    let mut served = others.remove(0);
    served.sending().bytes(V1);
    served.receiving().anything(&mut [0]);
    silent.iter_mut().chain(&mut others).for_each(Peer::reset);
    served.reset();
    until("all are gone", || service.server.totals().closed_total() == 32);
    service.audit();
}
