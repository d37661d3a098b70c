//! What clients of PostgreSQL begin with.
//!
//! Case 132.

use crate::preread::Progress;
use crate::preread::postgres::{Opening, OpeningFault, SSL_REQUEST, parse};

fn message(len: u32, major: u16, minor: u16) -> Vec<u8> {
    [&len.to_be_bytes()[..], &major.to_be_bytes(), &minor.to_be_bytes()].concat()
}

#[test]
fn each_first_message_is_known_once_its_head_is_there() {
    let tls = [&b"\x16\x03\x01"[..], &[0; 40]].concat();
    for (bytes, opening, needed, taken) in [
        (SSL_REQUEST.to_vec(), Opening::SslRequest, 8, 8),
        (message(8, 1234, 5680), Opening::GssRequest, 8, 8),
        (message(16, 1234, 5678), Opening::Cancel, 8, 0),
        // The keys of protocol 3.2 are longer.
        (message(44, 1234, 5678), Opening::Cancel, 8, 0),
        (message(84, 3, 0), Opening::Startup, 8, 0),
        (message(84, 3, 2), Opening::Startup, 8, 0),
        (message(10_000, 3, 0), Opening::Startup, 8, 0),
        (message(296, 2, 0), Opening::Startup, 8, 0),
        (tls, Opening::DirectTls, 1, 0),
    ] {
        for behind in [&b""[..], b"user\0alice\0", &SSL_REQUEST] {
            let bytes = [&bytes[..], behind].concat();
            for len in 0..bytes.len() {
                let parsed = parse(&bytes[..len]);
                if len < needed {
                    assert!(matches!(parsed, Progress::More(least) if (1..=needed - len).contains(&least)));
                } else {
                    assert_eq!(parsed, Progress::Done(opening, taken), "{len} of {bytes:02x?}");
                }
            }
        }
    }
}

#[test]
fn what_no_client_begins_with_is_refused() {
    for (bytes, fault, needed) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), OpeningFault::NotPostgres, 1),
        (b"\x15\x03\x01".to_vec(), OpeningFault::NotPostgres, 1),
        (b"\0\x01\0\0".to_vec(), OpeningFault::NotPostgres, 2),
        (message(9, 1234, 5679), OpeningFault::Length, 8),
        (message(16, 1234, 5680), OpeningFault::Length, 8),
        (message(15, 1234, 5678), OpeningFault::Length, 8),
        (message(7, 3, 0), OpeningFault::Length, 8),
        (message(10_001, 3, 0), OpeningFault::Length, 8),
        (message(8, 1234, 5681), OpeningFault::Unknown, 8),
        (message(8, 1, 0), OpeningFault::Unknown, 8),
        (message(0, 0, 0), OpeningFault::Unknown, 8),
    ] {
        for len in 0..=bytes.len() {
            let parsed = parse(&bytes[..len]);
            let is_known = len >= needed;
            assert_eq!(parsed == Progress::Refused(fault), is_known, "{len} of {bytes:02x?}: {parsed:?}");
            assert_eq!(matches!(parsed, Progress::More(_)), !is_known, "{len} of {bytes:02x?}: {parsed:?}");
        }
    }
}
