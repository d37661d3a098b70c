//! SMTP (RFC 5321): the greeting 220, EHLO or else HELO, 250, and QUIT, so that the server logs no lost connection.

use super::dialogue::{Dialogue, Inbox, Read};
use crate::health::cause::{Cause, Place};
use crate::health::expected::Expected;

#[derive(Debug)]
pub(super) struct Smtp {
    domain: String,
    waits_for: Reply,
}

#[derive(Clone, Copy, Debug)]
enum Reply {
    Greeting,
    Ehlo,
    /// EHLO was not understood.
    Helo,
}

/// One line of a reply.
struct Line {
    code: u16,
    is_last: bool,
}

impl Smtp {
    /// Returns a client that calls itself `domain`.
    pub(super) fn new(domain: &str) -> Self {
        Self { domain: domain.to_owned(), waits_for: Reply::Greeting }
    }

    fn says(&mut self, verb: &str, next: Reply, out: &mut Vec<u8>) -> Read {
        out.extend_from_slice(format!("{verb} {}\r\n", self.domain).as_bytes());
        self.waits_for = next;
        Read::Message
    }
}

impl Dialogue for Smtp {
    fn open(&mut self, _out: &mut Vec<u8>) {}

    fn read(&mut self, inbox: &mut Inbox, out: &mut Vec<u8>) -> Result<Read, Cause> {
        if !may_be_reply(inbox.bytes()) {
            return Err(Cause::NotProtocol { protocol: "SMTP", got: inbox.got() });
        }
        let Some(text) = inbox.take_line() else { return Ok(Read::Incomplete) };
        let Some(Line { code, is_last }) = line(&text) else {
            return Err(Cause::NotProtocol { protocol: "SMTP", got: text.as_slice().into() });
        };
        Ok(match (self.waits_for, code) {
            (Reply::Greeting, 220) | (Reply::Ehlo | Reply::Helo, 250) if !is_last => Read::Message,
            (Reply::Greeting, 220) => self.says("EHLO", Reply::Ehlo, out),
            (Reply::Ehlo | Reply::Helo, 250) => {
                out.extend_from_slice(b"QUIT\r\n");
                Read::Passed
            }
            // RFC 5321, 3.2: the answers of a server that knows no EHLO.
            (Reply::Ehlo, 500 | 501 | 502 | 504 | 550) if !is_last => Read::Message,
            (Reply::Ehlo, 500 | 501 | 502 | 504 | 550) => self.says("HELO", Reply::Helo, out),
            (Reply::Greeting | Reply::Ehlo | Reply::Helo, _) => {
                out.extend_from_slice(b"QUIT\r\n");
                return Err(Cause::Reported { error: text.as_slice().into() });
            }
        })
    }

    fn place(&self) -> Option<Place> {
        Some(Place::Message(match self.waits_for {
            Reply::Greeting => "greeting",
            Reply::Ehlo => "EHLO",
            Reply::Helo => "HELO",
        }))
    }

    fn expected(&self) -> Expected {
        Expected::answer(match self.waits_for {
            Reply::Greeting => "a greeting with code 220",
            Reply::Ehlo | Reply::Helo => "a reply with code 250",
        })
    }
}

/// Returns whether a reply begins like this.
fn may_be_reply(bytes: &[u8]) -> bool {
    let is_code = bytes.iter().take(3).all(u8::is_ascii_digit);
    is_code && bytes.get(3).is_none_or(|byte| b" -\r\n".contains(byte))
}

/// Returns the line as one of a reply, if it is.
fn line(text: &[u8]) -> Option<Line> {
    let code = std::str::from_utf8(text.get(..3)?).ok()?.parse().ok()?;
    Some(Line { code, is_last: text.get(3) != Some(&b'-') })
}
