//! ClientHellos of TLS: what a part of the bytes decides, all of them decide; nothing is read past the end or past the
//! longest hello; and another cut into records says the same.
//!
//! Case 127.

use l4lb::preread::Progress;
use l4lb::preread::client_hello::{ClientHello, HELLO_MAX, HelloFault, NAME_MAX, parse};

const RECORD_HEAD: usize = 5;
const HANDSHAKE_RECORD: u8 = 22;
/// Inputs up to this length are tried at each split.
const SPLIT_MAX: usize = 1024;

pub fn check(data: &[u8]) {
    let whole = parse(data);
    let step = data.len() / SPLIT_MAX + 1;
    for len in (0..data.len()).step_by(step) {
        let part = parse(&data[..len]);
        match (&part, &whole) {
            (Progress::More(least), Progress::Done(_, read)) => assert!((1..=read - len).contains(least)),
            (Progress::More(least), Progress::More(_) | Progress::Refused(_)) => assert!(*least > 0),
            (Progress::Done(..) | Progress::Refused(_), _) => assert_eq!(part, whole, "at {len}"),
        }
    }
    match &whole {
        Progress::More(_) => assert!(data.len() < HELLO_MAX, "it waits without a bound"),
        Progress::Refused(_) => {}
        Progress::Done(hello, read) => {
            assert!(*read <= data.len() && *read <= HELLO_MAX);
            assert_eq!(parse(&data[..*read]), whole, "it depends on what follows");
            is_sound(hello);
        }
    }
    in_other_records(data, &whole);
}

fn is_sound(hello: &ClientHello) {
    if let Some(name) = &hello.server_name {
        assert!((1..=NAME_MAX).contains(&name.len()), "{name:?}");
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()), "{name:?}");
    }
    assert!(hello.alpn.iter().all(|protocol| !protocol.is_empty()));
    assert_eq!(hello.alpn.is_empty(), hello.alpn.iter().next().is_none());
    assert!(hello.alpn.to_string().len() < 128, "{}", hello.alpn);
}

/// Cuts what the first record carries into records of a few bytes.
fn in_other_records(data: &[u8], whole: &Progress<ClientHello, HelloFault>) {
    let Some((&[kind, major, minor, high, low], rest)) = data.split_first_chunk::<RECORD_HEAD>() else {
        return;
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    let Progress::Done(hello, read) = whole else { return };
    let Some(message) = rest.get(..len).filter(|_| *read <= RECORD_HEAD + len) else { return };
    assert_eq!(kind, HANDSHAKE_RECORD);
    let size = usize::from(minor) + 1;
    let records = message.chunks(size).flat_map(|piece| {
        let len = u8::try_from(piece.len()).expect("at most sixteen bytes");
        [&[kind, major, minor, 0, len][..], piece].concat()
    });
    let records: Vec<u8> = records.collect();
    match parse(&records) {
        Progress::Done(other, _) => assert_eq!(other, *hello),
        Progress::Refused(HelloFault::TooLong) => assert!(records.len() > HELLO_MAX),
        other @ (Progress::More(_) | Progress::Refused(_)) => panic!("in records of {size}: {other:?}"),
    }
}
