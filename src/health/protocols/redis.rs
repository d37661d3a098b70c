//! Redis: PING, answered with PONG. An error is a failure, as in HAProxy's `redis-check`: a server that loads its data
//! says `-LOADING`, one that wants a password `-NOAUTH`.

use super::dialogue::{Dialogue, Inbox, Read};
use crate::health::cause::{Cause, Place};
use crate::health::expected::Expected;

/// As an array of one string, which also a server with inline commands switched off understands.
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

#[derive(Debug)]
pub(super) struct Redis;

impl Dialogue for Redis {
    fn open(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PING);
    }

    fn read(&mut self, inbox: &mut Inbox, _out: &mut Vec<u8>) -> Result<Read, Cause> {
        let bytes = inbox.bytes();
        match bytes.first() {
            None => Ok(Read::Incomplete),
            Some(b'-') => match inbox.take_line() {
                Some(line) => Err(Cause::Reported { error: line[1..].into() }),
                None => Ok(Read::Incomplete),
            },
            Some(_) if bytes.starts_with(PONG) => Ok(Read::Passed),
            Some(_) if PONG.starts_with(bytes) => Ok(Read::Incomplete),
            Some(_) => Err(Cause::NotProtocol { protocol: "Redis", got: inbox.got() }),
        }
    }

    fn place(&self) -> Option<Place> {
        None
    }

    fn expected(&self) -> Expected {
        Expected::bytes("the answer", PONG)
    }
}
