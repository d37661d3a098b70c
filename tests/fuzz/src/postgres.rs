//! First messages of PostgreSQL clients: what a part of the bytes decides, all of them decide, and no more is taken than
//! a request.

use l4lb::preread::Progress;
use l4lb::preread::postgres::{Opening, REQUEST_LEN, parse};

/// By then each message is known.
const KNOWN: usize = 8;

pub fn check(data: &[u8]) {
    let whole = parse(data);
    for len in 0..data.len().min(2 * KNOWN) {
        let part = parse(&data[..len]);
        match part {
            Progress::More(least) => assert!(len + least <= KNOWN && least > 0),
            Progress::Done(..) | Progress::Refused(_) => assert_eq!(part, whole, "at {len}"),
        }
    }
    match whole {
        Progress::More(_) => assert!(data.len() < KNOWN),
        Progress::Refused(_) => {}
        Progress::Done(Opening::SslRequest | Opening::GssRequest, taken) => assert_eq!(taken, REQUEST_LEN),
        Progress::Done(Opening::DirectTls | Opening::Startup | Opening::Cancel, taken) => {
            assert_eq!(taken, 0);
        }
    }
}
