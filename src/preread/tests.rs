//! What senders of the PROXY protocol may write, whole, byte by byte and at every split; and that what is written here
//! is read.
//!
//! Cases 121, 122 and 124.

mod client_hello;
mod postgres;
mod routes;

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::proxy_v2::{self, Tlvs};
use super::{Addresses, Alpn, HEADER_MAX, Header, Progress, Refusal, parse_proxy, proxy_v1};

const SIGNATURE: &str = "0d0a0d0a000d0a515549540a";
const TCP4: &str = "2111000cc0000201c6336407dc0401bb";
const TCP4_CRC: &str = "21110013c0000201c6336407dc0401bb030004d45a11b9";
const TCP4_AUTHORITY_CRC: &str = "2111001fc0000201c6336407dc0401bb020009612e6578616d706c650300042e3482a1";
const TCP6: &str = "2121002420010db800000000000000000000000120010db8000000000000000000000002dc0401bb";
const LOCAL: &str = "20000000";
/// As network load balancers send their checks: the family of addresses that are not there.
const LOCAL_OF_TCP4_CRC: &str = "20110007030004ef5bd336";
const LOCAL_CRC: &str = "20000007030004a9b87e8f";

fn v2(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = (SIGNATURE.to_owned() + hex).chars().map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn client(source: &str, destination: &str) -> Header {
    Header::Client(Addresses { source: address(source), destination: address(destination) })
}

fn of_ipv4() -> Header {
    client("192.0.2.1:56324", "198.51.100.7:443")
}

fn of_ipv6() -> Header {
    client("[2001:db8::1]:56324", "[2001:db8::2]:443")
}

/// Headers that are accepted.
fn accepted() -> Vec<(Vec<u8>, Header)> {
    let garbage = |len: usize| format!("PROXY UNKNOWN{}\r\n", "\r \nx".repeat(len / 4)).into_bytes();
    let line = |text: &str| text.as_bytes().to_vec();
    let longest4 = "PROXY TCP4 255.255.255.255 255.255.255.254 65535 65535\r\n";
    let longest6 = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 65535 65535\r\n";
    assert_eq!((longest4.len(), longest6.len(), garbage(92).len()), (56, 104, 107));
    vec![
        (v2(TCP4), of_ipv4()),
        (v2(TCP4_CRC), of_ipv4()),
        (v2(TCP4_AUTHORITY_CRC), of_ipv4()),
        (v2(TCP6), of_ipv6()),
        (v2(LOCAL), Header::Local),
        (v2(LOCAL_OF_TCP4_CRC), Header::Local),
        (v2(LOCAL_CRC), Header::Local),
        (v2("20110013c0000201c6336407dc0401bb030004a189e181"), Header::Local),
        // Of LOCAL everything is skipped: addresses, a family that does not exist, what is no TLV.
        (v2("2011000cc0000201c6336407dc0401bb"), Header::Local),
        (v2("20550002ffff"), Header::Local),
        (v2("21000000"), Header::Unknown),
        (v2("21000003ffffff"), Header::Unknown),
        // Datagrams and unix sockets: the addresses are not those of a TCP client.
        (v2("2112000cc0000201c6336407dc0401bb"), Header::Unknown),
        (v2(&format!("213100d8{}", "2f".repeat(216))), Header::Unknown),
        (v2("2121002400000000000000000000ffffc000020100000000000000000000ffffc6336407dc0401bb"), of_ipv4()),
        (line("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"), of_ipv4()),
        (line("PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n"), of_ipv6()),
        (line("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.7 56324 443\r\n"), of_ipv4()),
        (line("PROXY TCP4 192.0.2.1 198.51.100.7 0 65535\r\n"), client("192.0.2.1:0", "198.51.100.7:65535")),
        (line("PROXY UNKNOWN\r\n"), Header::Unknown),
        (garbage(92), Header::Unknown),
        (line(longest4), client("255.255.255.255:65535", "255.255.255.254:65535")),
        (
            line(longest6),
            client(
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe]:65535",
            ),
        ),
    ]
}

/// Bytes that are refused, and the number of those that are needed to know.
fn refused() -> Vec<(Vec<u8>, Refusal, usize)> {
    let line = |text: &str, needed| (text.as_bytes().to_vec(), Refusal::Line, needed);
    let late = |text: &str| line(text, text.len());
    let endless = |start: &str, len_max| {
        (format!("{start}{}", "1".repeat(200)).into_bytes(), Refusal::LineTooLong, len_max)
    };
    vec![
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Refusal::NoHeader, 1),
        (b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), Refusal::NoHeader, 1),
        (b"POST / HTTP/1.1\r\n".to_vec(), Refusal::NoHeader, 2),
        (b"PROXY\r\n".to_vec(), Refusal::NoHeader, 6),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Refusal::NoHeader, 12),
        (v2("3111000c"), Refusal::Command, 13),
        (v2("2211000c"), Refusal::Command, 13),
        (v2("2141000c"), Refusal::Family, 14),
        (v2("2113000c"), Refusal::Family, 14),
        (v2("2110000c"), Refusal::Family, 14),
        (v2("2101000c"), Refusal::Family, 14),
        (v2("2111000b"), Refusal::TooShort, 16),
        (v2("21210023"), Refusal::TooShort, 16),
        (v2("2111ffff"), Refusal::TooLong, 16),
        (v2("2000ffff"), Refusal::TooLong, 16),
        // A TLV that crosses the end, and ends one or two bytes behind the last TLV.
        (v2("21110013c0000201c6336407dc0401bb030005d45a11b9"), Refusal::Tlv, 35),
        (v2("2111000dc0000201c6336407dc0401bb04"), Refusal::Tlv, 29),
        (v2("2111000ec0000201c6336407dc0401bb0400"), Refusal::Tlv, 30),
        // A checksum of another length, and two of them.
        (v2("21110012c0000201c6336407dc0401bb030003d45a11"), Refusal::Tlv, 34),
        (v2("2111001ac0000201c6336407dc0401bb030004d45a11b9030004d45a11b9"), Refusal::Tlv, 42),
        (v2("21110013c0000201c6336407dc0401bb030004d45a11b8"), Refusal::Checksum, 35),
        (v2("20000007030004a9b87e8e"), Refusal::Checksum, 23),
        late("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\n"),
        late("PROXY TCP4 192.0.2.1 198.51.100.7  56324 443\r\n"),
        line("PROXY  TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", 7),
        line("PROXY TCP5 192.0.2.1 198.51.100.7 56324 443\r\n", 10),
        late("PROXY TCP4 192.0.2.1 198.51.100.7 65536 443\r\n"),
        late("PROXY TCP4 192.0.2.1 198.51.100.7 +1 443\r\n"),
        late("PROXY TCP4 192.0.2.1 198.51.100.7 056 443\r\n"),
        late("PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n"),
        late("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443 \r\n"),
        late("PROXY TCP4 192.0.2.01 198.51.100.7 56324 443\r\n"),
        late("PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n"),
        late("PROXY TCP6 192.0.2.1 198.51.100.7 56324 443\r\n"),
        late("PROXY TCP6 fe80::1%1 2001:db8::2 56324 443\r\n"),
        late("PROXY TCP4 \r\n"),
        endless("PROXY TCP4 ", 56),
        endless("PROXY TCP6 ", 104),
        endless("PROXY UNKNOWN", 107),
    ]
}

/// Returns the bytes cut into pieces of these lengths, which are repeated.
fn cut<'a>(bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut left = bytes;
    for len in lengths.iter().cycle() {
        let (piece, behind) = left.split_at((*len).min(left.len()));
        pieces.push(piece);
        left = behind;
        if left.is_empty() {
            break;
        }
    }
    pieces
}

/// Parses the bytes as they arrive, in these pieces. `may_take` returns whether an end is in order by the bytes taken,
/// the fewest that were missing before, and those that have arrived.
fn feed<'a, T, R>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    parse: impl Fn(&[u8]) -> Progress<T, R>,
    may_take: impl Fn(usize, usize, usize) -> bool,
) -> Progress<T, R> {
    let mut arrived = Vec::new();
    let mut progress = parse(&arrived);
    for piece in pieces {
        let Progress::More(least) = progress else { break };
        assert!(least > 0);
        arrived.extend_from_slice(piece);
        progress = parse(&arrived);
        if let Progress::Done(_, taken) = progress {
            assert!(may_take(taken, least, arrived.len()), "{least} were missing");
        }
    }
    progress
}

fn in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Progress<Header> {
    feed(pieces, parse_proxy, |taken, least, arrived| taken >= least && taken <= arrived)
}

fn expect_at_every_split(bytes: &[u8], expected: Progress<Header>) {
    assert_eq!(parse_proxy(bytes), expected, "{bytes:02x?}");
    assert_eq!(in_pieces(bytes.chunks(1)), expected, "{bytes:02x?} byte by byte");
    for at in 0..=bytes.len() {
        let (first, second) = bytes.split_at(at);
        assert_eq!(in_pieces([first, second]), expected, "{bytes:02x?} at {at}");
    }
}

#[test]
fn a_header_is_taken_as_far_as_it_goes_and_what_follows_is_payload() {
    let followers: [&[u8]; 4] = [b"", b"GET", b"PROXY UNKNOWN\r\n", b"\x04\x00\x02ab"];
    for (header, contents) in accepted() {
        for payload in followers {
            let bytes = [&header, payload].concat();
            expect_at_every_split(&bytes, Progress::Done(contents, header.len()));
        }
    }
}

#[test]
fn a_header_that_is_not_complete_waits_for_more() {
    for (header, _) in accepted() {
        for len in 0..header.len() {
            let Progress::More(least) = parse_proxy(&header[..len]) else { panic!("{header:02x?} at {len}") };
            assert!(least >= 1 && least <= header.len() - len, "{least} of {header:02x?} at {len}");
        }
    }
}

#[test]
fn what_is_no_header_is_refused_at_the_first_byte_that_shows_it() {
    for (bytes, refusal, needed) in refused() {
        expect_at_every_split(&bytes, Progress::Refused(refusal));
        let before = parse_proxy(&bytes[..needed - 1]);
        assert!(matches!(before, Progress::More(_)), "{:?}: {before:?}", bytes.escape_ascii().to_string());
        let after = parse_proxy(&bytes[..needed]);
        assert_eq!(after, Progress::Refused(refusal), "{:?}", bytes.escape_ascii().to_string());
    }
}

/// The checksum covers its own type too, but a header without one is accepted: such a bit shows nowhere.
#[test]
fn a_flipped_bit_does_not_pass_a_checksum() {
    let whole = v2(TCP4_CRC);
    let (type_at, length_at) = (whole.len() - 7, 14..16);
    for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        let progress = parse_proxy(&bytes);
        let is_fine = match progress {
            Progress::Refused(_) => true,
            Progress::More(_) => length_at.contains(&at),
            Progress::Done(..) => at == type_at,
        };
        assert!(is_fine, "bit {bit} of byte {at}: {progress:?}");
    }
}

#[test]
fn a_header_of_the_longest_length_is_read_and_one_byte_more_is_refused() {
    let of = |len: usize| {
        let rest = u16::try_from(len - 16).unwrap().to_be_bytes();
        let tlv = u16::try_from(len - 16 - 3).unwrap().to_be_bytes();
        let mut header = v2("2100");
        header.extend_from_slice(&rest);
        header.push(0xE0);
        header.extend_from_slice(&tlv);
        header.resize(len, 7);
        header
    };
    assert_eq!(parse_proxy(&of(HEADER_MAX)), Progress::Done(Header::Unknown, HEADER_MAX));
    assert_eq!(parse_proxy(&of(HEADER_MAX + 1)[..16]), Progress::Refused(Refusal::TooLong));
}

fn written(addresses: Option<Addresses>, tlvs: Tlvs<'_>) -> Vec<u8> {
    let mut room = [0xAA; 2048];
    let len = proxy_v2::write(&mut room, addresses, tlvs).unwrap();
    room[..len].to_vec()
}

fn line(addresses: Addresses) -> String {
    let mut line = Vec::new();
    proxy_v1::write(&mut line, addresses).unwrap();
    String::from_utf8(line).unwrap()
}

#[test]
fn headers_are_written_byte_for_byte() {
    let pair = |source, destination| Addresses { source: address(source), destination: address(destination) };
    let ipv4 = pair("192.0.2.1:56324", "198.51.100.7:443");
    let ipv6 = pair("[2001:db8::1]:56324", "[2001:db8::2]:443");
    let mixed = pair("192.0.2.1:56324", "[2001:db8::2]:443");
    let none = Tlvs::default();
    let crc32c = Tlvs { crc32c: true, ..none };
    assert_eq!(written(Some(ipv4), none), v2(TCP4));
    assert_eq!(written(Some(ipv4), crc32c), v2(TCP4_CRC));
    assert_eq!(written(Some(ipv6), none), v2(TCP6));
    let mapped = "2121002400000000000000000000ffffc000020120010db8000000000000000000000002dc0401bb";
    assert_eq!(written(Some(mixed), none), v2(mapped));
    assert_eq!(written(None, none), v2(LOCAL));
    assert_eq!(written(None, crc32c), v2(LOCAL_CRC));
    let id = Tlvs { unique_id: Some(b"3-7"), ..none };
    assert_eq!(written(Some(ipv4), id), v2("21110012c0000201c6336407dc0401bb050003332d37"));
    let asked = Tlvs { authority: Some("a.example"), crc32c: true, ..none };
    assert_eq!(written(Some(ipv4), asked), v2(TCP4_AUTHORITY_CRC));
    let alpn = Alpn::from_list(b"\x02h2\x08http/1.1".to_vec());
    let offered = Tlvs { alpn: alpn.as_ref(), ..none };
    let list = "000c0268320868747470 2f312e31".replace(' ', "");
    assert_eq!(written(Some(ipv4), offered), v2(&format!("2111001dc0000201c6336407dc0401bb01000e{list}")));
    assert_eq!(line(ipv4), "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n");
    assert_eq!(line(ipv6), "PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n");
    assert_eq!(line(mixed), "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 56324 443\r\n");
    let mut unknown = Vec::new();
    proxy_v1::write_unknown(&mut unknown).unwrap();
    assert_eq!(unknown, b"PROXY UNKNOWN\r\n");
    let mut small = [0; 20];
    assert!(proxy_v2::write(&mut small, Some(ipv4), none).is_err(), "nothing is written past the end");
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        source: SocketAddr,
        destination: SocketAddr,
        id in proptest::option::of(vec(any::<u8>(), 0..40)),
        name in proptest::option::of("[a-z.]{1,253}"),
        alpn in vec(any::<[u8; 3]>(), 0..200),
        crc32c: bool,
    ) {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let addresses = Addresses { source: canonical(source), destination: canonical(destination) };
        let alpn = Alpn::from_list(alpn.iter().flat_map(|name| [&[3][..], name].concat()).collect());
        let authority = name.as_deref();
        let tlvs = Tlvs { authority, alpn: alpn.as_ref(), unique_id: id.as_deref(), crc32c };
        let header = written(Some(addresses), tlvs);
        prop_assert_eq!(parse_proxy(&header), Progress::Done(Header::Client(addresses), header.len()));
        let line = line(addresses);
        prop_assert_eq!(parse_proxy(line.as_bytes()), Progress::Done(Header::Client(addresses), line.len()));
    }

    #[test]
    fn any_split_is_the_whole(
        start in proptest::sample::select(
            [b"".to_vec(), v2(""), v2("21"), v2("2011"), v2("21110013"), b"PROXY TCP4 1.2.3.4 ".to_vec()].to_vec(),
        ),
        rest in vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' '), Just(0)], 0..120),
        lengths in vec(1..20_usize, 1..20),
    ) {
        let bytes = [start, rest].concat();
        let (whole, split) = (parse_proxy(&bytes), in_pieces(cut(&bytes, &lengths)));
        prop_assert_eq!(split, whole);
    }
}
