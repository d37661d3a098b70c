//! PostgreSQL, protocol 3.0: a startup message, and the server's answer before any authentication.
//!
//! A request for a password, or the refusal of the user, comes from a server that works. One that starts, stops or has
//! no connection left reports another error.

use super::dialogue::{Dialogue, Inbox, Read};
use crate::health::answer::ANSWER_MAX;
use crate::health::cause::{Cause, Place};

const PROTOCOL_3_0: u32 = 3 << 16;
/// Type and length.
const HEADER_LEN: usize = 5;
const AUTHENTICATION_OK: u32 = 0;
const TERMINATE: &[u8] = b"X\0\0\0\x04";
/// SQLSTATE class 28, invalid authorization specification.
const CLASS_AUTHORIZATION: &[u8] = b"28";

#[derive(Debug)]
pub(super) struct Postgres {
    user: String,
}

impl Postgres {
    pub(super) fn new(user: &str) -> Self {
        Self { user: user.to_owned() }
    }
}

impl Dialogue for Postgres {
    fn open(&mut self, out: &mut Vec<u8>) {
        let parameters = format!("user\0{}\0application_name\0l4lb\0\0", self.user);
        let len = u32::try_from(2 * size_of::<u32>() + parameters.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
        out.extend_from_slice(parameters.as_bytes());
    }

    fn read(&mut self, inbox: &mut Inbox, out: &mut Vec<u8>) -> Result<Read, Cause> {
        let alien = |inbox: &Inbox| Cause::NotProtocol { protocol: "PostgreSQL", got: inbox.got() };
        if inbox.bytes().first().is_some_and(|kind| !b"RE".contains(kind)) {
            return Err(alien(inbox));
        }
        let Some((&[kind, len @ ..], _)) = inbox.bytes().split_first_chunk::<HEADER_LEN>() else {
            return Ok(Read::Incomplete);
        };
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if !(2 * size_of::<u32>()..ANSWER_MAX).contains(&len) {
            return Err(alien(inbox));
        }
        let Some(message) = inbox.take(1 + len) else { return Ok(Read::Incomplete) };
        let body = &message[HEADER_LEN..];
        if kind == b'E' {
            return refusal(body);
        }
        // A server that has asked for a password would log this as one of the wrong type.
        if body.starts_with(&AUTHENTICATION_OK.to_be_bytes()) {
            out.extend_from_slice(TERMINATE);
        }
        Ok(Read::Passed)
    }

    fn place(&self) -> Option<Place> {
        None
    }
}

/// Returns what an error says of the server. Its fields are a letter and a text each: C is the SQLSTATE, M the message.
fn refusal(body: &[u8]) -> Result<Read, Cause> {
    let field = |letter: u8| body.split(|&byte| byte == 0).find_map(|field| field.strip_prefix(&[letter]));
    let (code, message) = (field(b'C').unwrap_or_default(), field(b'M').unwrap_or_default());
    if code.starts_with(CLASS_AUTHORIZATION) {
        return Ok(Read::Passed);
    }
    Err(Cause::Reported { error: [code, b" ", message].concat().as_slice().into() })
}
