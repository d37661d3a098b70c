//! Parses server-sent events (WHATWG HTML, "Server-sent events").

use std::mem;

/// Limit for a line or a message: a sample of 1,000 backends is half a megabyte.
const MESSAGE_LEN_MAX: usize = 16 << 20;

/// One message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The kind of the message.
    pub event: String,
    /// The data lines of the event, joined by line breaks.
    pub data: String,
}

#[derive(Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    event: String,
    data: String,
}

/// A line or a message is longer than [`MESSAGE_LEN_MAX`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message is longer than {MESSAGE_LEN_MAX} bytes")]
pub(super) struct TooLong;

impl Parser {
    /// Returns the messages that `bytes` complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Message>, TooLong> {
        let mut messages = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() + self.data.len() > MESSAGE_LEN_MAX {
                return Err(TooLong);
            }
            if piece.ends_with(b"\n") {
                let line = mem::take(&mut self.line);
                messages.extend(self.on_line(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n'])));
            }
        }
        Ok(messages)
    }

    /// Returns the message that an empty line ends.
    fn on_line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let message = Message { event: mem::take(&mut self.event), data: mem::take(&mut self.data) };
            // A comment keeps the connection alive and has no content.
            return (!message.data.is_empty()).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" if self.data.is_empty() => value.clone_into(&mut self.data),
            "data" => {
                self.data.push('\n');
                self.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(event: &str, data: &str) -> Message {
        Message { event: event.into(), data: data.into() }
    }

    #[test]
    fn messages_are_the_same_however_their_bytes_are_cut() {
        let text = ": hello\n\nevent: event\ndata: {\"id\":1}\nid: 1\n\ndata: a\r\ndata:b\r\n\r\nevent: missed\ndata: 7\n\nevent: e";
        let expected = [message("event", "{\"id\":1}"), message("", "a\nb"), message("missed", "7")];
        for len in 1..=text.len() {
            let mut parser = Parser::default();
            let pieces = text.as_bytes().chunks(len);
            let messages: Vec<Message> = pieces.flat_map(|piece| parser.feed(piece).unwrap()).collect();
            assert_eq!(messages, expected, "in pieces of {len}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let mut parser = Parser::default();
        assert_eq!(parser.feed(&vec![b'x'; MESSAGE_LEN_MAX + 1]), Err(TooLong));
    }
}
