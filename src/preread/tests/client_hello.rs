//! Hellos that clients may send, in records and segments of every size.
//!
//! Cases 127 and 128.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{cut, feed};
use crate::preread::client_hello::{self, ClientHello, HELLO_MAX, HelloFault};
use crate::preread::{Alpn, Progress};

type Parsed = Progress<ClientHello, HelloFault>;

const GREASE: u16 = 0x1A1A;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const KEY_SHARE: u16 = 51;

/// A length of `N` bytes, then the bytes.
fn counted<const N: usize>(bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len().to_be_bytes();
    [&len[len.len() - N..], bytes].concat()
}

fn extension(kind: u16, contents: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &counted::<2>(contents)].concat()
}

fn name_of(kind: u8, name: &[u8]) -> Vec<u8> {
    [&[kind][..], &counted::<2>(name)].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    extension(SERVER_NAME, &counted::<2>(&name_of(0, name)))
}

fn alpn(protocols: &[&str]) -> Vec<u8> {
    let list: Vec<u8> = protocols.iter().flat_map(|protocol| counted::<1>(protocol.as_bytes())).collect();
    extension(ALPN, &counted::<2>(&list))
}

/// What is before the extensions.
fn start() -> Vec<u8> {
    [&[3, 3][..], &[7; 32], &counted::<1>(&[9; 32]), &counted::<2>(&[0x13, 1, 0x13, 2]), &[1, 0]].concat()
}

/// A handshake message.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &counted::<3>(body)].concat()
}

fn with_extensions(extensions: &[Vec<u8>]) -> Vec<u8> {
    message(1, &[start(), counted::<2>(&extensions.concat())].concat())
}

/// The message in records of these sizes, the last one again and again.
fn in_records(message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(*sizes.last().unwrap()));
    let (mut records, mut rest) = (Vec::new(), message);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(sizes.next().unwrap().min(rest.len()));
        records.extend([&[22, 3, 1][..], &counted::<2>(piece)].concat());
        rest = behind;
    }
    records
}

fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    in_records(&with_extensions(extensions), &[16_384])
}

fn says(name: Option<&str>, protocols: &[&str]) -> ClientHello {
    let list = protocols.iter().flat_map(|protocol| counted::<1>(protocol.as_bytes())).collect();
    ClientHello {
        server_name: name.map(Into::into),
        alpn: if protocols.is_empty() { Alpn::default() } else { Alpn::from_list(list).unwrap() },
    }
}

/// The result without the number of bytes that were read.
fn result(parsed: Parsed) -> Result<Option<ClientHello>, HelloFault> {
    match parsed {
        Progress::More(_) => Ok(None),
        Progress::Done(hello, _) => Ok(Some(hello)),
        Progress::Refused(fault) => Err(fault),
    }
}

fn in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Parsed {
    feed(pieces, client_hello::parse, |read, least, arrived| read <= arrived && arrived + least >= read)
}

fn expect_at_every_split(bytes: &[u8], expected: &Result<ClientHello, HelloFault>) {
    let expected = expected.clone().map(Some);
    assert_eq!(result(client_hello::parse(bytes)), expected, "{bytes:02x?}");
    assert_eq!(result(in_pieces(bytes.chunks(1))), expected, "{bytes:02x?} byte by byte");
    for at in 0..=bytes.len() {
        let (first, second) = bytes.split_at(at);
        assert_eq!(result(in_pieces([first, second])), expected, "{bytes:02x?} at {at}");
    }
}

/// The same message in one record, in records of one byte, and cut in two at each offset.
fn expect_in_all_records(message: &[u8], expected: &Result<ClientHello, HelloFault>) {
    expect_at_every_split(&in_records(message, &[16_384]), expected);
    expect_at_every_split(&in_records(message, &[1]), expected);
    for first in 1..message.len() {
        let bytes = in_records(message, &[first, 16_384]);
        let expected = expected.clone().map(Some);
        assert_eq!(result(client_hello::parse(&bytes)), expected, "a record of {first}");
        assert_eq!(result(in_pieces(bytes.chunks(1))), expected, "a record of {first}, byte by byte");
    }
}

#[test]
fn a_hello_says_its_name_and_its_protocols_in_records_and_segments_of_any_size() {
    let share = extension(KEY_SHARE, &[5; 40]);
    let grease = |contents: &[u8]| extension(GREASE, contents);
    let longest = "a".repeat(255);
    for (extensions, name, protocols) in [
        (
            vec![sni(b"a.example.com"), alpn(&["h2", "http/1.1"])],
            Some("a.example.com"),
            vec!["h2", "http/1.1"],
        ),
        (vec![grease(b""), sni(b"a.example"), share.clone(), grease(b"\0")], Some("a.example"), vec![]),
        (vec![alpn(&["h2"]), grease(b"x"), sni(b"A.EXAMPLE.com.")], Some("a.example.com"), vec!["h2"]),
        (vec![share.clone(), alpn(&["postgresql"])], None, vec!["postgresql"]),
        (vec![sni(longest.as_bytes())], Some(&*longest), vec![]),
        // Encrypted: the outer name counts.
        (vec![extension(0xFE0D, &[0; 60]), sni(b"public.example")], Some("public.example"), vec![]),
        // Names of other kinds.
        (
            vec![extension(SERVER_NAME, &counted::<2>(&[name_of(7, b"?"), name_of(0, b"b")].concat()))],
            Some("b"),
            vec![],
        ),
        (vec![extension(SERVER_NAME, &counted::<2>(&name_of(7, b"")))], None, vec![]),
        (vec![], None, vec![]),
    ] {
        expect_in_all_records(&with_extensions(&extensions), &Ok(says(name, &protocols)));
    }
    expect_in_all_records(&message(1, &start()), &Ok(says(None, &[])));
}

#[test]
fn a_hello_is_read_no_further_than_its_answers() {
    let rest = extension(KEY_SHARE, &[5; 1200]);
    let whole = hello(&[sni(b"a.example"), alpn(&["h2"]), rest.clone()]);
    let needed = whole.len() - rest.len();
    assert_eq!(client_hello::parse(&whole), Progress::Done(says(Some("a.example"), &["h2"]), needed));
    assert_eq!(
        client_hello::parse(&whole[..needed]),
        Progress::Done(says(Some("a.example"), &["h2"]), needed),
        "what follows may be missing"
    );
    assert!(matches!(client_hello::parse(&whole[..needed - 1]), Progress::More(1)));
    let second = [whole, b"what is behind the hello".to_vec()].concat();
    assert!(matches!(client_hello::parse(&second), Progress::Done(_, read) if read == needed));
}

#[test]
fn a_hello_that_is_malformed_is_refused_however_it_is_split() {
    let name = |name: &[u8]| with_extensions(&[sni(name)]);
    let list = |list: &[u8]| with_extensions(&[extension(SERVER_NAME, list)]);
    let protocols = |list: &[u8]| with_extensions(&[extension(ALPN, list)]);
    let body = |body: Vec<u8>| message(1, &body);
    let fixed = [&[3, 3][..], &[7; 32]].concat();
    for (bytes, fault) in [
        (name(b""), HelloFault::Name),
        (name(&[b'a'; 256]), HelloFault::Name),
        (name(b"."), HelloFault::Name),
        (name(b"a\0b"), HelloFault::Name),
        (name(b"a b"), HelloFault::Name),
        (name(b"a\nb"), HelloFault::Name),
        (name("ä.example".as_bytes()), HelloFault::Name),
        (list(&counted::<2>(&[name_of(0, b"a"), name_of(0, b"b")].concat())), HelloFault::Twice),
        (with_extensions(&[sni(b"a"), sni(b"a")]), HelloFault::Twice),
        (with_extensions(&[alpn(&["a"]), alpn(&["a"])]), HelloFault::Twice),
        (list(b""), HelloFault::Length),
        (list(&[0, 0]), HelloFault::Length),
        (list(&[0, 5, 0, 0, 1, b'a']), HelloFault::Length),
        (list(&[0, 4, 0, 0, 1, b'a', 0]), HelloFault::Length),
        (list(&[0, 4, 0, 0, 2, b'a']), HelloFault::Length),
        (protocols(b""), HelloFault::Length),
        (protocols(&[0, 0]), HelloFault::Length),
        (protocols(&[0, 1, 0]), HelloFault::Length),
        (protocols(&[0, 2, 2, b'h']), HelloFault::Length),
        (protocols(&[0, 3, 1, b'h']), HelloFault::Length),
        // An extension past the end, and the end past an extension.
        (body([start(), counted::<2>(&[0, 99, 0, 1])].concat()), HelloFault::Length),
        (body([start(), counted::<2>(&[0, 99, 0])].concat()), HelloFault::Length),
        (body([start(), vec![0, 1]].concat()), HelloFault::Length),
        (body([start(), vec![0]].concat()), HelloFault::Length),
        (body([start(), vec![0, 0, 0]].concat()), HelloFault::Length),
        (body([fixed.clone(), counted::<1>(&[9; 33])].concat()), HelloFault::Length),
        (body([fixed.clone(), counted::<1>(b""), counted::<2>(b"")].concat()), HelloFault::Length),
        (body([fixed.clone(), counted::<1>(b""), counted::<2>(b"abc")].concat()), HelloFault::Length),
        (body([fixed, counted::<1>(b""), counted::<2>(b"ab"), vec![0]].concat()), HelloFault::Length),
        (body(vec![3, 3, 7]), HelloFault::Length),
        (message(2, &start()), HelloFault::OtherMessage),
        (message(0, b""), HelloFault::OtherMessage),
    ] {
        // Behind it there is more, which must not be read as part of it.
        let bytes = [bytes, vec![0; 40]].concat();
        expect_at_every_split(&in_records(&bytes, &[16_384]), &Err(fault));
        expect_at_every_split(&in_records(&bytes, &[1]), &Err(fault));
    }
}

#[test]
fn what_is_no_tls_is_known_at_the_first_byte_that_shows_it() {
    for (bytes, fault, needed) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], HelloFault::NotTls, 1),
        (b"SSH-2.0-OpenSSH\r\n", HelloFault::NotTls, 1),
        (b"\0\0\0\x08\x04\xD2\x16\x2F", HelloFault::NotTls, 1),
        (b"\x16\x04\x01", HelloFault::NotTls, 2),
        (b"\x15\x04\x01", HelloFault::NotTls, 2),
        (b"\x80\x2E\x02\x03\x01", HelloFault::NotTls, 3),
        (b"\x80\x2E\x01\x03\x01\0\x15\0\0", HelloFault::Ssl2, 4),
        (b"\x80\x2E\x01\0\x02", HelloFault::Ssl2, 4),
        // An alert, and records that come later.
        (b"\x15\x03\x01\0\x02\x02\x28", HelloFault::Record, 2),
        (b"\x17\x03\x03\0\x01", HelloFault::Record, 2),
        (b"\x16\x03\x10", HelloFault::Record, 3),
        (b"\x16\x03\x01\0\0", HelloFault::Record, 5),
        (b"\x16\x03\x01\x40\x01", HelloFault::Record, 5),
        // The second record is another one, within the message.
        (b"\x16\x03\x01\0\x01\x01\x15\x03\x01\0\x02", HelloFault::Record, 7),
        (b"\x16\x03\x01\0\x01\x01\x16\x02", HelloFault::Record, 8),
        (b"\x16\x03\x01\0\x04\x0B\0\0\0", HelloFault::OtherMessage, 6),
    ] {
        expect_at_every_split(bytes, &Err(fault));
        let before = client_hello::parse(&bytes[..needed - 1]);
        assert!(matches!(before, Progress::More(_)), "{bytes:02x?}: {before:?}");
        assert_eq!(client_hello::parse(&bytes[..needed]), Progress::Refused(fault), "{bytes:02x?}");
    }
}

/// A hello of that length with its heads, whose name is the last thing in it.
fn of_len(len: usize) -> Vec<u8> {
    let of = |filler: usize| hello(&[extension(GREASE, &vec![0; filler]), sni(b"last.example")]);
    let bytes = of(len - of(0).len());
    assert_eq!(bytes.len(), len);
    bytes
}

#[test]
fn a_hello_of_the_longest_length_is_read_and_one_byte_more_is_refused_at_once() {
    for len in [HELLO_MAX - 1, HELLO_MAX] {
        let done = Progress::Done(says(Some("last.example"), &[]), len);
        assert_eq!(client_hello::parse(&of_len(len)), done);
        assert!(matches!(client_hello::parse(&of_len(len)[..len - 1]), Progress::More(1)));
    }
    let longer = of_len(HELLO_MAX + 1);
    assert_eq!(client_hello::parse(&longer), Progress::Refused(HelloFault::TooLong));
    assert_eq!(
        client_hello::parse(&longer[..9]),
        Progress::Refused(HelloFault::TooLong),
        "its length shows it"
    );
}

/// Records of one byte are six times as long as what they carry.
#[test]
fn the_heads_of_records_count_and_no_hello_waits_for_more_than_is_read() {
    let of = |filler| with_extensions(&[extension(GREASE, &vec![0; filler]), sni(b"last.example")]);
    let longest = (HELLO_MAX / 6) - of(0).len();
    for record in [1, 2, 3, 7, 100, 5000] {
        for filler in [longest - 1, longest, longest + 1, 5 * longest] {
            let bytes = in_records(&of(filler), &[record]);
            let parsed = client_hello::parse(&bytes);
            if bytes.len() <= HELLO_MAX {
                assert_eq!(parsed, Progress::Done(says(Some("last.example"), &[]), bytes.len()));
                continue;
            }
            assert_eq!(parsed, Progress::Refused(HelloFault::TooLong), "{record} {filler}");
            let cut = client_hello::parse(&bytes[..HELLO_MAX]);
            assert_eq!(cut, Progress::Refused(HelloFault::TooLong), "{record} {filler}: no more is peeked");
        }
    }
}

#[test]
fn protocols_are_shown_escaped_and_not_without_end() {
    let shown = |protocols: &[&str]| says(None, protocols).alpn.to_string();
    assert_eq!(shown(&["h2", "http/1.1"]), "h2,http/1.1");
    assert_eq!(shown(&["a\n\"b", "\u{1A}"]), "a\\n\\\"b,\\x1a");
    assert_eq!(shown(&[&"x".repeat(60), "abc", "d"]), format!("{},abc,...", "x".repeat(60)));
    assert_eq!(shown(&[&"\n".repeat(255)]), "...");
    assert_eq!(shown(&[]), "");
}

proptest! {
    #[test]
    fn any_split_into_records_and_segments_is_the_whole(
        name in proptest::option::of("[a-z]{1,9}(\\.[a-z]{1,9}){0,3}"),
        offered in vec("[a-z0-9/.]{1,12}", 0..4),
        grease in vec((any::<u16>().prop_filter("not one that is read", |kind| ![0, 16].contains(kind)), vec(any::<u8>(), 0..30)), 0..4),
        sizes in vec(1..60_usize, 1..12),
        lengths in vec(1..50_usize, 1..12),
    ) {
        let offered: Vec<&str> = offered.iter().map(String::as_str).collect();
        let mut extensions: Vec<Vec<u8>> =
            grease.iter().map(|(kind, contents)| extension(*kind, contents)).collect();
        extensions.extend(name.iter().map(|name| sni(name.as_bytes())));
        if !offered.is_empty() {
            extensions.insert(extensions.len() / 2, alpn(&offered));
        }
        let bytes = in_records(&with_extensions(&extensions), &sizes);
        let expected = Ok(Some(says(name.as_deref(), &offered)));
        prop_assert_eq!(result(client_hello::parse(&bytes)), expected.clone());
        prop_assert_eq!(result(in_pieces(cut(&bytes, &lengths))), expected);
    }

    #[test]
    fn a_hello_with_any_changed_byte_is_the_same_in_any_split(at in 0..200_usize, byte: u8, record in 1..40_usize) {
        let mut message = with_extensions(&[extension(GREASE, b"x"), sni(b"a.example.com"), alpn(&["h2"])]);
        let at = at % message.len();
        message[at] = byte;
        let bytes = in_records(&message, &[record]);
        prop_assert_eq!(result(in_pieces(bytes.chunks(1))), result(client_hello::parse(&bytes)));
    }
}
