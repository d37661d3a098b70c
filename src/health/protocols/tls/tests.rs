//! Against a real server of rustls; its bytes arrive in pieces of any length.

use std::net::SocketAddr;

use rustls::version::{TLS12, TLS13};
use rustls::{ServerConnection, SupportedProtocolVersion};

use super::*;
use crate::health::protocols::exchange_of;
use crate::tls::test_server::{Authority, Issued, authority, seconds_now};
use crate::tls::{Authorities, Verify};

const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
const PIECES: [usize; 4] = [1, 7, 1000, usize::MAX];

fn tls(authority: &Authority, verify: Verify, server_name: Option<&str>, inside: Check) -> Check {
    with_alpn(authority, verify, server_name, inside, &[])
}

fn with_alpn(
    authority: &Authority,
    verify: Verify,
    server_name: Option<&str>,
    inside: Check,
    alpn: &[&str],
) -> Check {
    let authorities = Authorities::of_pem(authority.pem().as_bytes()).unwrap();
    let alpn: Vec<String> = alpn.iter().map(|name| (*name).to_owned()).collect();
    let tls = CheckTls {
        server_name: server_name.map(|name| ServerName::try_from(name.to_owned()).unwrap()),
        ca_file: None,
        expires_within: std::time::Duration::ZERO,
        client: Client::new(authorities, verify, &alpn),
    };
    Check::Tls { tls: Box::new(tls), inside: Box::new(inside) }
}

fn https(host: Option<&str>) -> Check {
    Check::Http { path: "/".into(), host: host.map(str::to_owned), status: 200 }
}

fn exchange(check: &Check) -> Box<dyn Exchange> {
    let target = "10.0.0.1:443".parse::<SocketAddr>().unwrap().into();
    exchange_of(check, &target, None).unwrap()
}

/// What came of a check.
struct Talk {
    sentence: String,
    exchange: Box<dyn Exchange>,
    /// What the server has decrypted.
    question: Vec<u8>,
    /// Whether the check has taken leave.
    is_parted: bool,
}

/// Runs a check against a server that answers the first bytes inside of TLS; its bytes come in pieces of this length.
fn talk(check: &Check, mut server: ServerConnection, answer: &[u8], piece: usize) -> Talk {
    let mut exchange = exchange(check);
    let (mut to_server, mut question, mut is_parted) = (Vec::new(), Vec::new(), false);
    let mut progress = exchange.start(&mut to_server);
    loop {
        let mut unread = to_server.as_slice();
        let mut failed = false;
        while !unread.is_empty() && !failed {
            server.read_tls(&mut unread).unwrap();
            let state = server.process_new_packets();
            is_parted |= state.as_ref().is_ok_and(rustls::IoState::peer_has_closed);
            failed = state.is_err();
        }
        to_server.clear();
        let before = question.len();
        // What follows the leave, or nothing at all, is an error of this reader.
        let _ended = server.reader().read_to_end(&mut question);
        if before == 0 && !question.is_empty() {
            server.writer().write_all(answer).unwrap();
        }
        let mut to_client = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut to_client).unwrap();
        }
        let sentence = match progress {
            Progress::More if to_client.is_empty() => exchange.on_eof().to_string(),
            Progress::More => {
                for bytes in to_client.chunks(piece.min(to_client.len())) {
                    progress = exchange.on_bytes(bytes, &mut to_server);
                    if progress != Progress::More {
                        break;
                    }
                }
                continue;
            }
            Progress::Passed => "ok".to_owned(),
            Progress::Failed(cause) => cause.to_string(),
        };
        return Talk { sentence, exchange, question, is_parted };
    }
}

#[test]
fn a_handshake_is_enough_for_a_check_without_more_and_ends_with_a_leave() {
    let root = authority("root.example");
    let issued = Issued::now(&["web.example"]);
    let check = tls(&root, Verify::Full, Some("web.example"), Check::Tcp);
    for versions in [BOTH, &[&TLS12], &[&TLS13]] {
        for piece in PIECES {
            let done = talk(&check, root.server(&issued, &[], versions), b"", piece);
            assert_eq!((done.sentence.as_str(), done.is_parted), ("ok", true), "{versions:?} by {piece}");
            let certificate = done.exchange.certificate().unwrap();
            assert_eq!(
                (certificate.names[0].as_str(), certificate.not_after),
                ("web.example", issued.not_after)
            );
        }
    }
}

#[test]
fn the_check_inside_does_not_know_of_it() {
    let root = authority("root.example");
    let redis = |name| tls(&root, Verify::Full, Some(name), Check::Redis);
    let cases: [(Check, &[u8], &[u8], &str); 5] = [
        (
            tls(&root, Verify::Full, Some("web.example"), https(None)),
            b"GET / HTTP/1.1\r\nHost: 10.0.0.1:443\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            "ok",
        ),
        (
            tls(&root, Verify::Full, None, https(Some("web.example:8443"))),
            b"GET / HTTP/1.1\r\nHost: web.example:8443\r\n",
            b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
            "expected status 200, got 503",
        ),
        (redis("web.example"), b"", b"+PONG\r\n", "ok"),
        (redis("web.example"), b"", &[b'x'; 40_000], "answer is not Redis: got "),
        (redis("web.example"), b"", b"", "closed before the answer was complete: got nothing"),
    ];
    for (check, question, answer, sentence) in cases {
        for versions in [&[&TLS12], &[&TLS13]] {
            for piece in PIECES {
                let server = root.server(&Issued::now(&["web.example"]), &[], versions);
                let done = talk(&check, server, answer, piece);
                assert!(done.sentence.starts_with(sentence), "by {piece}: {}", done.sentence);
                assert!(done.question.starts_with(question), "{}", done.question.escape_ascii());
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_in_words() {
    let (root, other) = (authority("root.example"), authority("other.example"));
    let now = seconds_now();
    let good = Issued::now(&["web.example", "10.0.0.1"]);
    let expired = Issued { not_before: now - 10 * 86_400, not_after: now - 3 * 86_400 - 100, ..good.clone() };
    let early = Issued { not_before: now + 2 * 86_400 + 100, not_after: now + 9 * 86_400, ..good.clone() };
    let named = Issued::now(&["a.example", "b.example"]);
    let cases = [
        (&root, &expired, Verify::Full, Some("web.example"), "certificate expired 3 days ago"),
        (
            &root,
            &early,
            Verify::Full,
            Some("web.example"),
            "certificate is not valid yet: it will be in 2 days",
        ),
        (
            &root,
            &named,
            Verify::Full,
            Some("c.example"),
            "certificate is for a.example, b.example, not c.example",
        ),
        (&other, &good, Verify::Full, Some("web.example"), "certificate is signed by an unknown issuer"),
        // Without a name the certificate must be for the address.
        (&root, &good, Verify::Full, None, "ok"),
        (&root, &named, Verify::Full, None, "certificate is for a.example, b.example, not 10.0.0.1"),
        (&root, &named, Verify::Chain, None, "ok"),
        (&other, &named, Verify::Chain, None, "certificate is signed by an unknown issuer"),
        (&root, &expired, Verify::Chain, None, "certificate expired 3 days ago"),
        (&other, &expired, Verify::None, Some("c.example"), "ok"),
    ];
    for (trusted, issued, verify, name, sentence) in cases {
        for versions in [&[&TLS12], &[&TLS13]] {
            let check = tls(trusted, verify, name, Check::Tcp);
            let done = talk(&check, root.server(issued, &[], versions), b"", 100);
            assert_eq!(done.sentence, sentence, "{verify:?} {name:?}");
        }
    }
}

/// As `openssl req -x509` makes them.
#[test]
fn a_server_may_show_a_certificate_that_is_in_the_file_itself() {
    let root = authority("root.example");
    for (name, sentence) in
        [("root.example", "ok"), ("web.example", "certificate is for root.example, not web.example")]
    {
        let check = tls(&root, Verify::Full, Some(name), Check::Tcp);
        assert_eq!(talk(&check, root.itself(), b"", 100).sentence, sentence);
    }
    let stranger = tls(&authority("other.example"), Verify::Chain, None, Check::Tcp);
    let sentence = talk(&stranger, root.itself(), b"", 100).sentence;
    assert_eq!(sentence, "certificate is that of an authority, and the file does not list it");
}

#[test]
fn an_alert_of_the_server_is_reported() {
    let root = authority("root.example");
    let check = with_alpn(&root, Verify::Full, Some("web.example"), Check::Tcp, &["h2"]);
    for piece in PIECES {
        let server = root.server(&Issued::now(&["web.example"]), &["smtp"], BOTH);
        let done = talk(&check, server, b"", piece);
        assert_eq!(done.sentence, "the backend refuses TLS with the alert \"no application protocol\"");
    }
}

#[test]
fn the_offered_protocols_are_those_of_the_check() {
    let root = authority("root.example");
    let check = with_alpn(&root, Verify::Full, Some("web.example"), Check::Tcp, &["h2", "http/1.1"]);
    let server = root.server(&Issued::now(&["web.example"]), &["http/1.1"], BOTH);
    assert_eq!(talk(&check, server, b"", 1).sentence, "ok");
}

/// The result of bytes that no server of TLS sends, and how many of them were read.
fn garbage(bytes: &[u8], piece: usize) -> (String, usize) {
    let check = tls(&authority("root.example"), Verify::Full, Some("web.example"), Check::Tcp);
    let (mut exchange, mut out, mut read) = (exchange(&check), Vec::new(), 0);
    assert_eq!(exchange.start(&mut out), Progress::More);
    for bytes in bytes.chunks(piece.min(bytes.len()).max(1)) {
        read += bytes.len();
        match exchange.on_bytes(bytes, &mut out) {
            Progress::More => {}
            Progress::Passed => panic!("passed"),
            Progress::Failed(cause) => return (cause.to_string(), read),
        }
    }
    (exchange.on_eof().to_string(), read)
}

#[test]
fn bytes_that_are_not_tls_fail_the_check() {
    let closed = "TLS handshake: closed before the answer was complete: got ";
    let hello = |len: u8| [22, 3, 3, 0, 4 + len, 2, 0, 0, len];
    let cases: [(&[u8], &str); 7] = [
        (b"", "TLS handshake: closed before the answer was complete: got nothing"),
        (b"HTTP/1.1 400 Bad Request\r\n", "answer is not TLS: got \"H"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "answer is not TLS: got \"S"),
        (&[22, 3, 3], closed),
        (&[22, 3, 3, 0, 4, 99, 0, 0, 0], "TLS: "),
        (&[21, 3, 3, 0, 2, 2, 40], "the backend refuses TLS with the alert \"handshake failure\""),
        (&hello(20), closed),
    ];
    for (bytes, sentence) in cases {
        for piece in PIECES {
            let (got, _) = garbage(bytes, piece);
            assert!(got.starts_with(sentence), "{bytes:?} by {piece}: {got}");
        }
    }
}

/// Whatever a backend sends, a check ends: by its bytes if not by its time.
#[test]
fn a_backend_that_never_ends_its_handshake_is_left() {
    let record = |kind: u8, body: &[u8]| {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind, 3, 3], &len[..], body].concat()
    };
    let part_of_hello = [&[2, 0, 0xff, 0xff][..], &[0; 1000]].concat();
    let rest_of_it = record(22, &[0; 1000]).repeat(200);
    let floods = [
        record(21, &[1, 90]).repeat(100_000),
        record(22, &[]).repeat(100_000),
        record(20, &[1]).repeat(100_000),
        [record(22, &part_of_hello), rest_of_it].concat(),
        [record(22, &[0, 0, 0, 0]), record(22, &[0, 0, 0, 0]).repeat(100_000)].concat(),
    ];
    for flood in floods {
        for piece in [100, 2048, usize::MAX] {
            let (sentence, read) = garbage(&flood, piece);
            assert!(!sentence.contains("closed"), "{sentence}");
            assert!(piece == usize::MAX || read <= HANDSHAKE_MAX + piece, "{read} bytes: {sentence}");
        }
    }
}
