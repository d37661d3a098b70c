//! The line in an agent's answer, which may arrive in any pieces.

use thiserror::Error;

use super::Said;
use crate::health::{Cause, Quoted};

/// An answer may have at most this many bytes in front of the end of its line.
pub const LINE_LEN_MAX: usize = 64 * 1024;

/// A response may have at most this many header lines.
const HEADERS_MAX: usize = 64;

/// Explains why an exchange has brought no line. What the agent has said before stays.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AgentFault {
    /// The connection failed, or took too long.
    #[error(transparent)]
    Connection(#[from] Cause),
    /// The agent closed in front of the end of its line.
    #[error("closed before the end of the line: got {got}")]
    Incomplete {
        /// What there is of it.
        got: Quoted,
    },
    /// There is no end of the line within the bytes that are read.
    #[error("no end of the line within {LINE_LEN_MAX} bytes: got {got}")]
    TooLong {
        /// The start of it.
        got: Quoted,
    },
    /// Another HTTP status than that of success.
    #[error("expected status 2xx, got {got}")]
    Status {
        /// The status.
        got: u16,
    },
    /// The answer is not HTTP.
    #[error("answer is not HTTP: got {got}")]
    NotHttp {
        /// The answer so far.
        got: Quoted,
    },
}

/// An answer in the making.
#[derive(Debug)]
pub(super) struct Answer {
    framing: Framing,
    bytes: Vec<u8>,
}

/// Where the line is.
#[derive(Debug)]
enum Framing {
    /// At the beginning.
    Bare,
    /// In the body of an HTTP response with headers that are not complete yet.
    Headers,
    /// Behind this many bytes of headers. The body ends behind this many bytes, or with the connection.
    Body { start: usize, end: Option<usize> },
    /// In the chunks of a body, RFC 9112, 7.1.
    Chunked(Chunks),
}

/// A body that arrives in chunks.
#[derive(Debug)]
struct Chunks {
    /// Bytes of the answer in front of what is not decoded.
    decoded: usize,
    next: Piece,
    body: Vec<u8>,
}

/// What comes next in a body of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Size,
    /// This many bytes of a chunk.
    Data(u64),
    /// The line end behind the bytes of a chunk.
    LineEnd,
    Nothing,
}

impl Chunks {
    const fn new(start: usize) -> Self {
        Self { decoded: start, next: Piece::Size, body: Vec::new() }
    }

    /// Decodes what there is of the answer. Fails when it is no chunk.
    fn decode(&mut self, answer: &[u8]) -> Result<(), NoChunk> {
        // Each round takes bytes of the answer, or is the last one.
        loop {
            let rest = &answer[self.decoded..];
            match self.next {
                Piece::Size => match httparse::parse_chunk_size(rest) {
                    Ok(httparse::Status::Complete((taken, size))) => {
                        self.decoded += taken;
                        self.next = if size == 0 { Piece::Nothing } else { Piece::Data(size) };
                    }
                    Ok(httparse::Status::Partial) => return Ok(()),
                    Err(httparse::InvalidChunkSize) => return Err(NoChunk),
                },
                Piece::Data(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    self.body.extend_from_slice(&rest[..taken]);
                    self.decoded += taken;
                    let left = left.saturating_sub(taken as u64);
                    self.next = if left == 0 { Piece::LineEnd } else { Piece::Data(left) };
                    if left > 0 {
                        return Ok(());
                    }
                }
                Piece::LineEnd => match rest {
                    [b'\r', b'\n', ..] => (self.decoded, self.next) = (self.decoded + 2, Piece::Size),
                    [] | [b'\r'] => return Ok(()),
                    _ => return Err(NoChunk),
                },
                Piece::Nothing => return Ok(()),
            }
        }
    }

    /// Returns the line, if it has ended: with CR, LF, or the body.
    fn line(&self) -> Option<Outcome> {
        let newline = self.body.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let end = newline.or_else(|| (self.next == Piece::Nothing).then_some(self.body.len()))?;
        Some(Ok(Said::parse(&self.body[..end])))
    }
}

#[derive(Debug)]
struct NoChunk;

/// The result of an exchange.
pub(super) type Outcome = Result<Said, AgentFault>;

impl Answer {
    /// An answer that is one line.
    pub(super) const fn bare() -> Self {
        Self { framing: Framing::Bare, bytes: Vec::new() }
    }

    /// An answer with one line in the body of an HTTP response.
    pub(super) const fn http() -> Self {
        Self { framing: Framing::Headers, bytes: Vec::new() }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds the next bytes; returns the result once it is decided.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Option<Outcome> {
        let judged = self.bytes.len();
        self.bytes.extend_from_slice(&chunk[..chunk.len().min(LINE_LEN_MAX - judged)]);
        let decided = match self.framing {
            Framing::Bare => self.line(0, judged, None),
            Framing::Headers => self.headers(judged),
            Framing::Body { start, end } => self.line(start, judged, end),
            Framing::Chunked(_) => self.chunks(),
        };
        let is_full = self.bytes.len() == LINE_LEN_MAX;
        decided.or_else(|| is_full.then(|| Err(AgentFault::TooLong { got: self.got() })))
    }

    /// Returns the result of an answer that ends here, undecided.
    pub(super) fn end(&self) -> Outcome {
        match self.framing {
            Framing::Chunked(_) => Err(AgentFault::Incomplete { got: self.got() }),
            // Without a length of its own a body ends with its connection.
            Framing::Body { start, end: None } => Ok(Said::parse(&self.bytes[start..])),
            Framing::Bare | Framing::Headers | Framing::Body { .. } => {
                Err(AgentFault::Incomplete { got: self.got() })
            }
        }
    }

    /// Returns the line that begins at `start`, if it has ended: with CR, LF, or the body. The first `judged` bytes
    /// have no end of it.
    fn line(&self, start: usize, judged: usize, end: Option<usize>) -> Option<Outcome> {
        let body_end = end.filter(|&end| end <= self.bytes.len());
        let body = &self.bytes[..body_end.unwrap_or(self.bytes.len())];
        let from = judged.clamp(start, body.len());
        let newline = body[from..].iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let line_end = newline.map(|place| from + place).or(body_end)?;
        Some(Ok(Said::parse(&body[start..line_end])))
    }

    /// Looks for the end of the headers. The first `judged` bytes do not contain it.
    fn headers(&mut self, judged: usize) -> Option<Outcome> {
        if self.is_foreign() {
            return Some(Err(AgentFault::NotHttp { got: self.got() }));
        }
        // It may have begun in the bytes judged before.
        let from = judged.saturating_sub(b"\n\r".len());
        let unjudged = &self.bytes[from..];
        let is_end = |place: &usize| {
            let rest = &unjudged[*place..];
            rest.starts_with(b"\n\r\n") || rest.starts_with(b"\n\n")
        };
        if !(0..unjudged.len()).any(|place| is_end(&place)) {
            return None;
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&self.bytes);
        let (Ok(httparse::Status::Complete(start)), Some(code)) = (parsed, response.code) else {
            return Some(Err(AgentFault::NotHttp { got: self.got() }));
        };
        if !(200..300).contains(&code) {
            return Some(Err(AgentFault::Status { got: code }));
        }
        let header_of = |name: &str| {
            response
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name))
                .map(|known| known.value)
        };
        // No answer to HTTP/1.0 should have it, and some servers send it all the same. It is over a length.
        if header_of("transfer-encoding").is_some_and(is_chunked) {
            self.framing = Framing::Chunked(Chunks::new(start));
            return self.chunks();
        }
        let length = header_of("content-length");
        let length = length.and_then(|value| str::from_utf8(value).ok()?.trim().parse().ok());
        let end = length.map(|length: usize| start.saturating_add(length));
        self.framing = Framing::Body { start, end };
        self.line(start, start, end)
    }

    /// Decodes the chunks that have come, and returns the result once it is decided.
    fn chunks(&mut self) -> Option<Outcome> {
        let Framing::Chunked(chunks) = &mut self.framing else { return None };
        match chunks.decode(&self.bytes) {
            Ok(()) => chunks.line(),
            // The line may have ended before.
            Err(NoChunk) => {
                Some(chunks.line().unwrap_or_else(|| Err(AgentFault::NotHttp { got: self.got() })))
            }
        }
    }

    /// Returns whether the answer cannot become an HTTP response any more.
    fn is_foreign(&self) -> bool {
        let name = b"HTTP/";
        let known = self.bytes.len().min(name.len());
        self.bytes[..known] != name[..known]
    }

    fn got(&self) -> Quoted {
        self.bytes.as_slice().into()
    }
}

/// Chunks are the last coding of a body, RFC 9112, 6.3.
fn is_chunked(coding: &[u8]) -> bool {
    let last = coding.rsplit(|&byte| byte == b',').next().unwrap_or_default();
    last.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Returns the result of an answer that arrives in pieces of these lengths, the last one repeated, and then ends.
    fn outcome(mut answer: Answer, mut bytes: &[u8], lengths: &[usize]) -> Outcome {
        let (last, mut lengths) = (lengths.last().copied().unwrap_or(usize::MAX), lengths.iter().copied());
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(lengths.next().unwrap_or(last).min(bytes.len()));
            if let Some(outcome) = answer.push(piece) {
                return outcome;
            }
            bytes = rest;
        }
        answer.end()
    }

    /// The result in words: the description of a line shows where it ends.
    fn words(outcome: Outcome) -> String {
        match outcome {
            Ok(Said { note, .. }) => note.map_or_else(|| "a line".to_owned(), |note| format!("line {note}")),
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn a_line_ends_with_the_first_cr_or_lf() {
        for (bytes, expected) in [
            ("#a\n#b\n", "line \"a\""),
            ("#a\r\n", "line \"a\""),
            ("#a\rmore", "line \"a\""),
            ("\n", "a line"),
            ("", "closed before the end of the line: got nothing"),
            ("down", "closed before the end of the line: got \"down\""),
        ] {
            for lengths in [&[usize::MAX][..], &[1]] {
                assert_eq!(words(outcome(Answer::bare(), bytes.as_bytes(), lengths)), expected, "{bytes:?}");
            }
        }
    }

    #[test]
    fn a_body_has_one_line_that_may_end_with_it() {
        for (bytes, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n#a\nrest", "line \"a\""),
            ("HTTP/1.0 200 OK\r\n\r\n#a", "line \"a\""),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", "a line"),
            ("HTTP/1.1 200 OK\nContent-Length: 2\n\n#abc", "line \"a\""),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n#a", "closed before the end of the line"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n#a\n", "line \"a\""),
            ("HTTP/1.1 503 Busy\r\n\r\ndown\n", "expected status 2xx, got 503"),
            ("HTTP/1.1 200 OK\r\n", "closed before the end of the line"),
            ("up\n", "answer is not HTTP: got \""),
            ("HTTP/9 x\r\n\r\n", "answer is not HTTP"),
        ] {
            for lengths in [&[usize::MAX][..], &[1]] {
                let words = words(outcome(Answer::http(), bytes.as_bytes(), lengths));
                assert!(words.starts_with(expected), "{bytes:?}: {words}");
            }
        }
    }

    /// The size of the first chunk was taken for the line: "4" is no word, and the agent was lost.
    #[test]
    fn a_body_in_chunks_has_one_line_too() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (body, expected) in [
            ("4\r\n#abc\r\n0\r\n\r\n", "line \"abc\""),
            ("2\r\n#a\r\n3;x=y\r\nb\nc\r\n", "line \"ab\""),
            ("2\n#a\n1\nb\n0\n\n", "answer is not HTTP"),
            ("2\r\n#a\n1\r\nb\r\n0\r\n\r\n", "answer is not HTTP"),
            ("0\r\n\r\n", "a line"),
            ("4\r\n#ab", "closed before the end of the line"),
            ("4\r\n#abc", "closed before the end of the line"),
            ("up\n", "answer is not HTTP"),
            ("2\r\n#abc\r\n", "answer is not HTTP"),
            ("ffffffffffffffffff\r\n", "answer is not HTTP"),
        ] {
            let bytes = format!("{head}{body}");
            for lengths in [&[usize::MAX][..], &[1], &[70, 1]] {
                let words = words(outcome(Answer::http(), bytes.as_bytes(), lengths));
                assert!(words.starts_with(expected), "{body:?}: {words}");
            }
        }
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\ntransfer-encoding: gzip, Chunked \r\n\r\n2\r\n#a\r\n0\r\n\r\n";
        assert_eq!(words(outcome(Answer::http(), both.as_bytes(), &[])), "line \"a\"");
    }

    #[test]
    fn an_answer_without_an_end_is_cut() {
        let flood = vec![b'x'; 2 * LINE_LEN_MAX];
        for answer in [Answer::bare, Answer::http] {
            let start =
                if matches!(answer().framing, Framing::Bare) { &b""[..] } else { b"HTTP/1.1 200 OK\r\n\r\n" };
            let mut answer = answer();
            assert_eq!(answer.push(start), None);
            let fault = answer.push(&flood).expect("it is cut").unwrap_err();
            assert!(matches!(fault, AgentFault::TooLong { .. }), "{fault}");
            assert_eq!(answer.bytes.len(), LINE_LEN_MAX);
        }
        let last = [&vec![b' '; LINE_LEN_MAX - 4], &b"#ab\n"[..]].concat();
        assert_eq!(words(outcome(Answer::bare(), &last, &[7])), "line \"ab\"");
    }

    fn answers() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
            Just(b"Content-Length: 7\r\n".to_vec()),
            Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
            Just(b"6\r\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"75% up".to_vec()),
            Just(b"drain # later".to_vec()),
            Just(vec![b','; LINE_LEN_MAX / 2]),
            vec(any::<u8>(), 0..4),
        ];
        vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn where_the_network_cuts_an_answer_does_not_matter(bytes in answers(), lengths in vec(1usize..40, 1..20)) {
            for answer in [Answer::bare, Answer::http] {
                let (pieces, whole) = (outcome(answer(), &bytes, &lengths), outcome(answer(), &bytes, &[]));
                // More may have been quoted of a fault that a larger piece showed.
                match (&pieces, &whole) {
                    (Err(one), Err(other)) => prop_assert_eq!(
                        std::mem::discriminant(one), std::mem::discriminant(other)
                    ),
                    (Ok(_), _) | (_, Ok(_)) => prop_assert_eq!(&pieces, &whole),
                }
            }
        }
    }
}
