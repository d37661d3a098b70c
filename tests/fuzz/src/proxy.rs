//! Headers of the PROXY protocol: any split is the whole, nothing is read past the end, and what is read can be written
//! and read again.
//!
//! Case 121.

use std::io::Cursor;

use l4lb::preread::proxy_v2::Tlvs;
use l4lb::preread::{HEADER_MAX, Header, Progress, parse_proxy, proxy_v1, proxy_v2};

/// Longer than any header that is written here.
const WRITTEN_MAX: usize = 128;

pub fn check(data: &[u8]) {
    let whole = parse_proxy(data);
    for len in 0..data.len() {
        let part = parse_proxy(&data[..len]);
        match (part, whole) {
            (Progress::More(least), Progress::Done(_, taken)) => assert!((1..=taken - len).contains(&least)),
            (Progress::More(least), Progress::More(_) | Progress::Refused(_)) => assert!(least > 0),
            (Progress::Done(..) | Progress::Refused(_), _) => assert_eq!(part, whole, "at {len}"),
        }
    }
    match whole {
        Progress::More(_) => assert!(data.len() < HEADER_MAX, "it waits without a bound"),
        Progress::Refused(_) => {}
        Progress::Done(header, taken) => {
            assert!(taken <= data.len() && taken <= HEADER_MAX);
            rewrite(header);
        }
    }
}

fn rewrite(header: Header) {
    let Header::Client(addresses) = header else { return };
    let mut room = [0; WRITTEN_MAX];
    let len = proxy_v2::write(&mut room, Some(addresses), Tlvs { crc32c: true, ..Tlvs::default() });
    let len = len.expect("there is room");
    assert_eq!(parse_proxy(&room[..len]), Progress::Done(header, len));
    let mut line = Cursor::new(&mut room[..]);
    proxy_v1::write(&mut line, addresses).expect("there is room");
    let len = usize::try_from(line.position()).expect("it is in the room");
    assert_eq!(parse_proxy(&room[..len]), Progress::Done(header, len));
}
