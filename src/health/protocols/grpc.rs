//! gRPC: one call of `grpc.health.v1.Health/Check` over HTTP/2 without TLS, as little of it as a correct client must
//! do.
//!
//! Headers are sent as literals and none that arrives is decoded: the status of the service is in the message, and a
//! call that ends without one has failed. Header compression therefore has no state on either side that could be wrong.

use super::dialogue::{Dialogue, Inbox, Read};
use crate::health::answer::ANSWER_MAX;
use crate::health::cause::{Cause, Place, Quoted};
use crate::health::expected::Expected;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_LEN: usize = 9;
const STREAM: u32 = 1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const PING_LEN: usize = 8;

/// Compressed flag and length of a gRPC message.
const MESSAGE_HEADER_LEN: usize = 5;
/// The answer is two bytes, plus what later versions may add.
const MESSAGE_LEN_MAX: usize = 1024;
/// A string of headers this short has its length in one byte.
const HEADER_VALUE_LEN_MAX: usize = 126;
const SERVING: u64 = 1;

#[derive(Debug)]
pub(super) struct Grpc {
    service: String,
    authority: String,
    has_settings: bool,
    /// The data of the stream so far.
    message: Vec<u8>,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Grpc {
    /// Returns a client that asks for `service`, or with an empty name for the whole server.
    pub(super) fn new(service: &str, authority: &str) -> Self {
        let (service, authority) = (service.to_owned(), authority.to_owned());
        Self { service, authority, has_settings: false, message: Vec::new() }
    }

    fn on_frame(&mut self, frame: Frame, out: &mut Vec<u8>) -> Result<Read, Cause> {
        let Frame { kind, flags, stream, mut payload } = frame;
        match (kind, stream) {
            (SETTINGS, _) if flags & ACK == 0 => send(SETTINGS, ACK, 0, &[], out),
            (PING, _) if flags & ACK == 0 && payload.len() == PING_LEN => send(PING, ACK, 0, &payload, out),
            (GOAWAY, _) => {
                let (numbers, text) = payload.split_at(payload.len().min(8));
                let code = numbers.get(4..).map(number).unwrap_or_default();
                return Err(reported(&format!("GOAWAY {code} "), text));
            }
            (RST_STREAM, STREAM) => {
                return Err(reported(&format!("RST_STREAM {}", number(&payload)), &[]));
            }
            (DATA, STREAM) => {
                if flags & PADDED != 0 {
                    let padding = payload.first().map_or(0, |&len| usize::from(len));
                    payload.truncate(payload.len().saturating_sub(padding));
                    drop(payload.drain(..payload.len().min(1)));
                }
                self.message.extend_from_slice(&payload);
                if let Some(status) = status(&self.message)? {
                    return self.judge(status, out);
                }
            }
            // Other streams, priorities, windows, and what later versions may add.
            _ => {}
        }
        let is_end = matches!(kind, DATA | HEADERS) && stream == STREAM && flags & END_STREAM != 0;
        if is_end { Err(Cause::NoHealthStatus) } else { Ok(Read::Message) }
    }

    fn judge(&self, status: u64, out: &mut Vec<u8>) -> Result<Read, Cause> {
        send(GOAWAY, 0, 0, &[0; 8], out);
        match status {
            SERVING => Ok(Read::Passed),
            0 => Err(reported("UNKNOWN", &[])),
            2 => Err(reported("NOT_SERVING", &[])),
            3 => Err(reported("SERVICE_UNKNOWN", &[])),
            other => Err(reported(&format!("status {other}"), &[])),
        }
    }
}

impl Dialogue for Grpc {
    fn open(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFACE);
        send(SETTINGS, 0, 0, &[], out);
        // HPACK (RFC 7541): indexed fields 3 and 6 are POST and http; then literals that no table keeps, with names 4,
        // 1 and 31 of the static table and one of their own.
        let mut headers = vec![0x83, 0x86];
        for (name, value) in [
            ([0x04].as_slice(), "/grpc.health.v1.Health/Check"),
            (&[0x01], self.authority.as_str()),
            (&[0x0F, 0x10], "application/grpc"),
            (b"\0\x02te", "trailers"),
        ] {
            headers.extend_from_slice(name);
            text(value, &mut headers);
        }
        send(HEADERS, END_HEADERS, STREAM, &headers, out);
        // HealthCheckRequest { string service = 1; }
        let mut request = Vec::new();
        if !self.service.is_empty() {
            request.push(0x0A);
            text(&self.service, &mut request);
        }
        let mut message = vec![0; MESSAGE_HEADER_LEN - 1];
        text_len(request.len(), &mut message);
        message.append(&mut request);
        send(DATA, END_STREAM, STREAM, &message, out);
    }

    fn read(&mut self, inbox: &mut Inbox, out: &mut Vec<u8>) -> Result<Read, Cause> {
        let alien = |inbox: &Inbox| Cause::NotProtocol { protocol: "HTTP/2", got: inbox.got() };
        let Some(&header) = inbox.bytes().first_chunk::<HEADER_LEN>() else {
            // As soon as the answer cannot be a frame any more: an HTTP/1 server may send a short one and wait.
            let is_frame = self.has_settings || inbox.bytes().first().is_none_or(|&high| high == 0);
            return if is_frame { Ok(Read::Incomplete) } else { Err(alien(inbox)) };
        };
        let [high, middle, low, kind, flags, stream @ ..] = header;
        let len = u32::from_be_bytes([0, high, middle, low]) as usize;
        let is_first = !self.has_settings;
        if len > ANSWER_MAX - HEADER_LEN || (is_first && kind != SETTINGS) {
            return Err(alien(inbox));
        }
        let Some(frame) = inbox.take(HEADER_LEN + len) else { return Ok(Read::Incomplete) };
        self.has_settings = true;
        // The first bit is reserved.
        let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
        self.on_frame(Frame { kind, flags, stream, payload: frame[HEADER_LEN..].to_vec() }, out)
    }

    fn place(&self) -> Option<Place> {
        None
    }

    fn expected(&self) -> Expected {
        Expected::answer("the status SERVING")
    }
}

/// Returns the status in a `HealthCheckResponse { ServingStatus status = 1; }`; `None` while it is incomplete.
fn status(message: &[u8]) -> Result<Option<u64>, Cause> {
    let Some((&[compressed, len @ ..], rest)) = message.split_first_chunk::<MESSAGE_HEADER_LEN>() else {
        return Ok(None);
    };
    let len = number(&len) as usize;
    let alien = || Cause::NotProtocol { protocol: "gRPC", got: Quoted::from(message) };
    if compressed != 0 || len > MESSAGE_LEN_MAX {
        return Err(alien());
    }
    let Some(mut body) = rest.get(..len) else { return Ok(None) };
    // The default of a field that is not there.
    let mut status = 0;
    while !body.is_empty() {
        let tag = varint(&mut body).ok_or_else(alien)?;
        let skipped = match tag & 7 {
            0 => {
                let value = varint(&mut body).ok_or_else(alien)?;
                status = if tag >> 3 == 1 { value } else { status };
                0
            }
            1 => 8,
            2 => varint(&mut body).ok_or_else(alien)?,
            5 => 4,
            _ => return Err(alien()),
        };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        body = body.get(skipped..).ok_or_else(alien)?;
    }
    Ok(Some(status))
}

/// Returns the number that `body` begins with, and removes it.
fn varint(body: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = body.split_first()?;
        *body = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Returns the number in the first four bytes, or 0.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |&bytes| u32::from_be_bytes(bytes))
}

fn reported(word: &str, text: &[u8]) -> Cause {
    Cause::Reported { error: [word.as_bytes(), text].concat().as_slice().into() }
}

fn send(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&[len[1], len[2], len[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends a text behind its length, for HPACK and protobuf alike. The configuration has checked the length; a longer
/// one would be cut.
fn text(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let bytes = &bytes[..bytes.len().min(HEADER_VALUE_LEN_MAX)];
    text_len(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn text_len(len: usize, out: &mut Vec<u8>) {
    out.push(u8::try_from(len).unwrap_or(u8::MAX));
}
