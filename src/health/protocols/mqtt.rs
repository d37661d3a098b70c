//! MQTT 3.1.1: CONNECT with a clean session, CONNACK, and DISCONNECT, so that the broker sends no last will.

use super::dialogue::{Dialogue, Inbox, Read};
use crate::health::cause::{Cause, Place};
use crate::health::expected::Expected;

/// A client identifier of the configuration fits into one byte of "remaining length" together with the rest.
const CLIENT_ID_LEN_MAX: usize = 100;

/// CONNACK with its length.
const CONNACK: [u8; 2] = [0x20, 2];
const DISCONNECT: [u8; 2] = [0xE0, 0];
/// Protocol name, level 4, clean session, no keepalive.
const CONNECT_HEADER: &[u8] = b"\0\x04MQTT\x04\x02\0\0";

#[derive(Debug)]
pub(super) struct Mqtt {
    client_id: String,
}

impl Mqtt {
    /// Returns a client of that identifier; if it is empty, the broker chooses one.
    pub(super) fn new(client_id: &str) -> Self {
        Self { client_id: client_id.to_owned() }
    }
}

impl Dialogue for Mqtt {
    fn open(&mut self, out: &mut Vec<u8>) {
        // The configuration has checked the length; a longer one would be cut.
        let id = self.client_id.as_bytes();
        let id = &id[..id.len().min(CLIENT_ID_LEN_MAX)];
        let length = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
        out.extend_from_slice(&[0x10, length(CONNECT_HEADER.len() + 2 + id.len())]);
        out.extend_from_slice(CONNECT_HEADER);
        out.extend_from_slice(&[0, length(id.len())]);
        out.extend_from_slice(id);
    }

    fn read(&mut self, inbox: &mut Inbox, out: &mut Vec<u8>) -> Result<Read, Cause> {
        let bytes = inbox.bytes();
        let begins = &bytes[..bytes.len().min(CONNACK.len())];
        if !CONNACK.starts_with(begins) || bytes.get(2).is_some_and(|&flags| flags > 1) {
            return Err(Cause::NotProtocol { protocol: "MQTT", got: inbox.got() });
        }
        let Some(&code) = bytes.get(3) else { return Ok(Read::Incomplete) };
        if code == 0 {
            out.extend_from_slice(&DISCONNECT);
            return Ok(Read::Passed);
        }
        Err(Cause::Reported { error: reason(code).as_bytes().into() })
    }

    fn place(&self) -> Option<Place> {
        None
    }

    fn expected(&self) -> Expected {
        Expected::answer("CONNACK with code 0")
    }
}

/// Returns the meaning of a code that refuses the connection (MQTT 3.1.1, table 3.1).
fn reason(code: u8) -> String {
    match code {
        1 => "code 1, unacceptable protocol version".into(),
        2 => "code 2, client identifier rejected".into(),
        3 => "code 3, server unavailable".into(),
        4 => "code 4, bad user name or password".into(),
        5 => "code 5, not authorized".into(),
        other => format!("code {other}"),
    }
}
