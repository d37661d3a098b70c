//! MySQL and MariaDB: the greeting, a login without a password, and COM_QUIT.
//!
//! A client that goes away in the middle of the handshake is counted by the server, which blocks its host after
//! `max_connect_errors` of them. So the handshake is always finished, also where the server wants another plugin.
//! Without a user of its own the check takes any refusal of the login for an answer.

use super::dialogue::{Dialogue, Inbox, Read};
use crate::health::answer::ANSWER_MAX;
use crate::health::cause::{Cause, Place};
use crate::health::expected::Expected;

const PROTOCOL_10: u8 = 10;
/// Length and sequence number.
const HEADER_LEN: usize = 4;
const OK: u8 = 0;
const AUTH_SWITCH: u8 = 0xFE;
const ERR: u8 = 0xFF;
/// ER_ACCESS_DENIED_ERROR, ER_ACCESS_DENIED_NO_PASSWORD_ERROR, ER_SECURE_TRANSPORT_REQUIRED, ER_ACCOUNT_HAS_BEEN_LOCKED
/// and MariaDB's ER_ACCOUNT_HAS_BEEN_LOCKED.
const ACCESS_DENIED: [u16; 5] = [1045, 1698, 3159, 3118, 4151];
const COM_QUIT: &[u8] = &[1, 0, 0, 0, 1];
/// The user that logs in where the configuration has none.
const DEFAULT_USER: &str = "l4lb";

const CLIENT_LONG_PASSWORD: u32 = 1;
const CLIENT_PROTOCOL_41: u32 = 1 << 9;
const CLIENT_SECURE_CONNECTION: u32 = 1 << 15;
const CLIENT_PLUGIN_AUTH: u32 = 1 << 19;
/// utf8_general_ci.
const CHARSET: u8 = 33;
const PACKET_MAX: u32 = 1 << 24;
const NATIVE: &[u8] = b"mysql_native_password";
const ED25519: &[u8] = b"client_ed25519";
const ED25519_LEN: usize = 64;
/// Between the version and the capabilities of a greeting: the thread and the first part of the scramble.
const BEFORE_CAPABILITIES: usize = 4 + 9;
/// Between their lower and their upper half: charset and status.
const BETWEEN_CAPABILITIES: usize = 3;

#[derive(Debug)]
pub(super) struct Mysql {
    user: Option<String>,
    waits_for: Packet,
}

#[derive(Clone, Copy, Debug)]
enum Packet {
    Greeting,
    Login,
}

impl Mysql {
    pub(super) fn new(user: Option<&str>) -> Self {
        Self { user: user.map(str::to_owned), waits_for: Packet::Greeting }
    }
    fn login(&self, capabilities: u32) -> Vec<u8> {
        let wanted =
            CLIENT_LONG_PASSWORD | CLIENT_PROTOCOL_41 | CLIENT_SECURE_CONNECTION | CLIENT_PLUGIN_AUTH;
        let capabilities = wanted & capabilities;
        let mut body = Vec::new();
        body.extend_from_slice(&capabilities.to_le_bytes());
        body.extend_from_slice(&PACKET_MAX.to_le_bytes());
        body.push(CHARSET);
        body.extend_from_slice(&[0; 23]);
        body.extend_from_slice(self.user.as_deref().unwrap_or(DEFAULT_USER).as_bytes());
        // The end of the name, and an empty answer to the scramble.
        body.extend_from_slice(&[0, 0]);
        if capabilities & CLIENT_PLUGIN_AUTH != 0 {
            body.extend_from_slice(NATIVE);
            body.push(0);
        }
        body
    }
}

impl Dialogue for Mysql {
    fn open(&mut self, _out: &mut Vec<u8>) {}

    fn read(&mut self, inbox: &mut Inbox, out: &mut Vec<u8>) -> Result<Read, Cause> {
        let alien = |got: &[u8]| Cause::NotProtocol { protocol: "MySQL", got: got.into() };
        let Some((&[low, middle, high, sequence], _)) = inbox.bytes().split_first_chunk::<HEADER_LEN>()
        else {
            return Ok(Read::Incomplete);
        };
        let len = u32::from_le_bytes([low, middle, high, 0]) as usize;
        if !(1..=ANSWER_MAX - HEADER_LEN).contains(&len) {
            return Err(alien(inbox.bytes()));
        }
        let Some(packet) = inbox.take(HEADER_LEN + len) else { return Ok(Read::Incomplete) };
        let body = &packet[HEADER_LEN..];
        match (self.waits_for, body[0]) {
            (Packet::Greeting | Packet::Login, ERR) => self.refusal(body),
            (Packet::Greeting, PROTOCOL_10) => {
                let capabilities = capabilities(body).ok_or_else(|| alien(&packet))?;
                send(&self.login(capabilities), sequence, out);
                self.waits_for = Packet::Login;
                Ok(Read::Message)
            }
            (Packet::Login, OK) => {
                out.extend_from_slice(COM_QUIT);
                Ok(Read::Passed)
            }
            (Packet::Login, AUTH_SWITCH) => {
                // No password: nothing for the old plugin, an empty string for most others. MariaDB counts an answer of
                // another length than that of a signature as a broken handshake.
                let reply: &[u8] = match &body[1..] {
                    plugin if plugin.starts_with(NATIVE) => &[],
                    plugin if plugin.starts_with(ED25519) => &[0; ED25519_LEN],
                    _ => &[0],
                };
                send(reply, sequence, out);
                Ok(Read::Message)
            }
            (Packet::Greeting | Packet::Login, _) => Err(alien(&packet)),
        }
    }

    fn place(&self) -> Option<Place> {
        Some(Place::Message(match self.waits_for {
            Packet::Greeting => "greeting",
            Packet::Login => "login",
        }))
    }

    fn expected(&self) -> Expected {
        Expected::answer(match (self.waits_for, &self.user) {
            (Packet::Greeting, _) => "a greeting of protocol 10",
            (Packet::Login, Some(_)) => "the user let in",
            (Packet::Login, None) => "the user let in or refused",
        })
    }
}

impl Mysql {
    /// Returns what an error packet says of the server.
    fn refusal(&self, body: &[u8]) -> Result<Read, Cause> {
        let code = body.get(1..3).map_or(0, |code| u16::from_le_bytes([code[0], code[1]]));
        let text = body.get(3..).unwrap_or_default();
        // The SQLSTATE, which errors before the handshake do not have.
        let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
        if self.user.is_none() && matches!(self.waits_for, Packet::Login) && ACCESS_DENIED.contains(&code) {
            return Ok(Read::Passed);
        }
        Err(Cause::Reported { error: [code.to_string().as_bytes(), b" ", text].concat().as_slice().into() })
    }
}

/// Returns what a server that greets so is capable of.
fn capabilities(greeting: &[u8]) -> Option<u32> {
    let version_end = greeting.iter().position(|&byte| byte == 0)?;
    let rest = greeting.get(version_end + 1 + BEFORE_CAPABILITIES..)?;
    let lower = rest.get(..2)?;
    // A server of the last century ends here.
    let upper = rest.get(2 + BETWEEN_CAPABILITIES..4 + BETWEEN_CAPABILITIES).unwrap_or(&[0, 0]);
    Some(u32::from_le_bytes([lower[0], lower[1], upper[0], upper[1]]))
}

/// Appends a packet that answers one of that sequence number.
fn send(body: &[u8], answered: u8, out: &mut Vec<u8>) {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    out.extend_from_slice(&[len[0], len[1], len[2], answered.wrapping_add(1)]);
    out.extend_from_slice(body);
}
