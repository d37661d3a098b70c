//! PostgreSQL, protocol 3.0: a startup message, and the server's answer to it.
//!
//! A request for a password, or the refusal of the user, comes from a server that works. One that starts, stops or has
//! no connection left reports another error. It counts its connections after the authentication: where that needs no
//! password, only the message behind it, ready for a query, shows that there was one left.

use super::dialogue::{Dialogue, Inbox, Read};
use crate::health::answer::ANSWER_MAX;
use crate::health::cause::{Cause, Place};
use crate::health::expected::Expected;

const PROTOCOL_3_0: u32 = 3 << 16;
/// Type and length.
const HEADER_LEN: usize = 5;
const AUTHENTICATION_OK: u32 = 0;
const TERMINATE: &[u8] = b"X\0\0\0\x04";
/// Authentication and error.
const BEFORE_ENTRY: &[u8] = b"RE";
/// Parameter, key for cancellation, notice, error, and ready for a query.
const AFTER_ENTRY: &[u8] = b"SKNEZ";
/// The errors of a server that works and does not want this user: SQLSTATE class 28, invalid authorization, and once
/// it is let in, class 3D, no such database (by default that of its name), and 42501, no privilege to connect to it.
const REFUSALS: [&[u8]; 3] = [b"28", b"3D", b"42501"];

#[derive(Debug)]
pub(super) struct Postgres {
    user: String,
    /// The server wants no password.
    is_let_in: bool,
}

impl Postgres {
    pub(super) fn new(user: &str) -> Self {
        Self { user: user.to_owned(), is_let_in: false }
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
        let known = if self.is_let_in { AFTER_ENTRY } else { BEFORE_ENTRY };
        if inbox.bytes().first().is_some_and(|kind| !known.contains(kind)) {
            return Err(alien(inbox));
        }
        let Some((&[kind, len @ ..], _)) = inbox.bytes().split_first_chunk::<HEADER_LEN>() else {
            return Ok(Read::Incomplete);
        };
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        // An answer to the startup has a number or the letter of a field in it, and ends with a null.
        let len_min = if self.is_let_in { size_of::<u32>() } else { 2 * size_of::<u32>() };
        if !(len_min..ANSWER_MAX).contains(&len) {
            return Err(alien(inbox));
        }
        let Some(message) = inbox.take(1 + len) else { return Ok(Read::Incomplete) };
        let body = &message[HEADER_LEN..];
        match kind {
            b'E' => refusal(body),
            b'Z' => {
                out.extend_from_slice(TERMINATE);
                Ok(Read::Passed)
            }
            b'R' if body.starts_with(&AUTHENTICATION_OK.to_be_bytes()) => {
                self.is_let_in = true;
                Ok(Read::Message)
            }
            // A server that asks for a password would log an end of the session as a message of the wrong type.
            b'R' => Ok(Read::Passed),
            _ => Ok(Read::Message),
        }
    }

    fn place(&self) -> Option<Place> {
        None
    }

    fn expected(&self) -> Expected {
        Expected::answer(if self.is_let_in {
            "ready for a query"
        } else {
            "a request for a password, entry, or a refusal of the user"
        })
    }
}

/// Returns what an error says of the server. Its fields are a letter and a text each: C is the SQLSTATE, M the message.
fn refusal(body: &[u8]) -> Result<Read, Cause> {
    let field = |letter: u8| body.split(|&byte| byte == 0).find_map(|field| field.strip_prefix(&[letter]));
    let (code, message) = (field(b'C').unwrap_or_default(), field(b'M').unwrap_or_default());
    if REFUSALS.iter().any(|refusal| code.starts_with(refusal)) {
        return Ok(Read::Passed);
    }
    Err(Cause::Reported { error: [code, b" ", message].concat().as_slice().into() })
}
