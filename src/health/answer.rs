//! A backend's answer to a check, and the moment at which it decides.
//! Every byte is judged as it arrives: a check ends with the first byte that decides it, not with the connection.

use crate::health::cause::{Cause, Quoted};
use crate::health::expected::Expected;

/// At most this many bytes of an answer are kept; later ones decide nothing.
pub const ANSWER_MAX: usize = 8 * 1024;

/// An interim (1xx) response may have at most this many header lines.
const INTERIM_HEADERS_MAX: usize = 64;

/// The condition that an answer must meet.
#[derive(Debug)]
pub(super) enum Wanted {
    /// It must start with these bytes.
    Prefix(Vec<u8>),
    /// It must contain these bytes.
    Contains(Vec<u8>),
    /// It must be an HTTP response with this status.
    Status(u16),
}

#[derive(Debug)]
pub(super) struct Answer {
    wanted: Wanted,
    bytes: Vec<u8>,
}

impl Answer {
    pub(super) const fn new(wanted: Wanted) -> Self {
        Self { wanted, bytes: Vec::new() }
    }

    /// Adds the next bytes; returns the result once it is decided.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Option<Result<(), Cause>> {
        let judged = self.bytes.len();
        self.bytes.extend_from_slice(&chunk[..chunk.len().min(ANSWER_MAX - judged)]);
        let is_full = self.bytes.len() == ANSWER_MAX;
        self.judge(judged).or_else(|| is_full.then(|| Err(self.mismatch())))
    }

    /// Returns why an answer that ends here, undecided, is a failure.
    pub(super) fn end(&self) -> Cause {
        match self.wanted {
            Wanted::Contains(_) if !self.bytes.is_empty() => self.mismatch(),
            Wanted::Prefix(_) | Wanted::Contains(_) | Wanted::Status(_) => Cause::Closed { got: self.got() },
        }
    }

    /// Returns the condition that it must meet.
    pub(super) fn expected(&self) -> Expected {
        match &self.wanted {
            Wanted::Prefix(bytes) => Expected::bytes("an answer that starts with", bytes),
            Wanted::Contains(bytes) => Expected::bytes("an answer with", bytes),
            Wanted::Status(status) => Expected::bytes("the HTTP status", status.to_string().as_bytes()),
        }
    }

    /// Returns the result, if the bytes so far decide it; the first `judged` of them did not.
    fn judge(&self, judged: usize) -> Option<Result<(), Cause>> {
        match &self.wanted {
            Wanted::Prefix(prefix) if self.bytes.starts_with(prefix) => Some(Ok(())),
            Wanted::Prefix(prefix) if prefix.starts_with(&self.bytes) => None,
            Wanted::Prefix(_) => Some(Err(self.mismatch())),
            Wanted::Contains(needle) => {
                // It may have begun in the bytes judged before, but not ended there.
                let unjudged = &self.bytes[judged.saturating_sub(needle.len())..];
                unjudged.windows(needle.len().max(1)).any(|window| window == needle).then_some(Ok(()))
            }
            Wanted::Status(expected) => match status(&self.bytes)? {
                Ok(got) if got == *expected => Some(Ok(())),
                Ok(got) => Some(Err(Cause::Status { expected: *expected, got })),
                Err(_) => Some(Err(self.mismatch())),
            },
        }
    }

    fn mismatch(&self) -> Cause {
        match &self.wanted {
            Wanted::Prefix(prefix) => Cause::Prefix { expected: prefix.as_slice().into(), got: self.got() },
            Wanted::Contains(needle) => {
                Cause::Missing { expected: needle.as_slice().into(), got: self.got() }
            }
            Wanted::Status(_) => Cause::NotHttp { got: self.got() },
        }
    }

    fn got(&self) -> Quoted {
        self.bytes.as_slice().into()
    }
}

/// Returns the status of the first final response in `bytes`; `None` while its status line is incomplete.
fn status(bytes: &[u8]) -> Option<Result<u16, httparse::Error>> {
    let mut rest = bytes;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; INTERIM_HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(rest);
        // The parser sets the reason, empty or not, at the end of the status line and keeps it whatever follows.
        let code = response.code.filter(|_| response.reason.is_some());
        match (code, parsed) {
            (Some(code), _) if !is_interim(code) => return Some(Ok(code)),
            (_, Ok(httparse::Status::Complete(length))) => rest = &rest[length..],
            (_, Ok(httparse::Status::Partial)) => return None,
            (_, Err(error)) => return Some(Err(error)),
        }
    }
}

/// Returns whether another response to the same request follows one of this status (RFC 9110, 15.2). None follows 101.
const fn is_interim(code: u16) -> bool {
    matches!(code, 100 | 102..=199)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn prefix(bytes: &str) -> Answer {
        Answer::new(Wanted::Prefix(bytes.into()))
    }

    fn contains(bytes: &str) -> Answer {
        Answer::new(Wanted::Contains(bytes.into()))
    }

    fn ok() -> Answer {
        Answer::new(Wanted::Status(200))
    }

    /// Returns the result in words; "undecided" while there is none.
    fn judge(mut answer: Answer, bytes: &[u8]) -> String {
        match answer.push(bytes) {
            None => "undecided".into(),
            Some(Ok(())) => "ok".into(),
            Some(Err(cause)) => cause.to_string(),
        }
    }

    #[test]
    fn an_answer_is_decided_as_soon_as_it_can_be() {
        let cases = [
            (prefix("+PONG"), "+PON", "undecided"),
            (prefix("+PONG"), "+PONG", "ok"),
            (prefix("+PONG"), "+PONG\r\nand more", "ok"),
            (prefix("+PONG"), "-ERR", r#"answer does not start with "+PONG": got "-ERR""#),
            (prefix("+PONG"), "+PO-", r#"answer does not start with "+PONG": got "+PO-""#),
            (contains("ready"), "not read", "undecided"),
            (contains("ready"), "now ready\r\n", "ok"),
            (ok(), "", "undecided"),
            (ok(), "HTTP/1.1 200", "undecided"),
            (ok(), "HTTP/1.1 200 OK\r", "undecided"),
            (ok(), "HTTP/1.1 200 OK\r\n", "ok"),
            (ok(), "HTTP/1.0 200\r\n", "ok"),
            (ok(), "HTTP/1.1 200 OK\r\nbroken header\r\n", "ok"),
            (ok(), "HTTP/1.1 503 Service Unavailable\r\n", "expected status 200, got 503"),
            (ok(), "HTTP/1.1 100 Continue\r\n\r\n", "undecided"),
            (ok(), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n", "ok"),
            (ok(), "HTTP/1.1 101 Switching Protocols\r\n", "expected status 200, got 101"),
            (ok(), "HTTP/1.1 2000 OK\r\n", r#"answer is not HTTP: got "HTTP/1.1 2000 OK\r\n""#),
            (ok(), "SSH-2.0-OpenSSH_9.2\r\n", r#"answer is not HTTP: got "SSH-2.0-OpenSSH_9.2\r\n""#),
        ];
        for (answer, bytes, expected) in cases {
            assert_eq!(judge(answer, bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn an_answer_that_ends_undecided_is_reported_with_what_was_missing() {
        let cases = [
            (prefix("+PONG"), "+PO", r#"closed before the answer was complete: got "+PO""#),
            (prefix("+PONG"), "", "closed before the answer was complete: got nothing"),
            (contains("ready"), "no", r#"answer does not contain "ready": got "no""#),
            (contains("ready"), "", "closed before the answer was complete: got nothing"),
            (ok(), "HTTP/1.1 200", r#"closed before the answer was complete: got "HTTP/1.1 200""#),
        ];
        for (mut answer, bytes, expected) in cases {
            assert_eq!(answer.push(bytes.as_bytes()), None);
            assert_eq!(answer.end().to_string(), expected);
        }
    }

    #[test]
    fn no_more_than_the_bound_is_kept() {
        let flood = |mut answer: Answer, tail: &[u8]| {
            let result = answer.push(&[&[b'\n'; ANSWER_MAX - 2], tail].concat());
            assert!(answer.bytes.len() <= ANSWER_MAX);
            result
        };
        assert_eq!(flood(contains("ok"), b"ok"), Some(Ok(())));
        assert!(matches!(flood(contains("ok"), b"..ok"), Some(Err(Cause::Missing { .. }))));
        assert!(matches!(flood(ok(), b"HTTP/1.1 200 OK\r\n"), Some(Err(Cause::NotHttp { .. }))));
    }

    /// Answers that come close to what checks wait for.
    fn answers() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
            Just(b"HTTP/1.1 100 Continue\r\n".to_vec()),
            Just(b"a: b\r\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"+PONG".to_vec()),
            Just(vec![b'x'; ANSWER_MAX / 2]),
            vec(any::<u8>(), 0..4),
        ];
        vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    /// Returns the result of an answer that arrives in pieces of these lengths, the last one repeated, and then ends.
    fn verdict(
        mut answer: Answer,
        mut bytes: &[u8],
        lengths: &[usize],
    ) -> Result<(), std::mem::Discriminant<Cause>> {
        let (last, mut lengths) = (lengths.last().copied().unwrap_or(usize::MAX), lengths.iter().copied());
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(lengths.next().unwrap_or(last).min(bytes.len()));
            if let Some(result) = answer.push(piece) {
                return result.map_err(|cause| std::mem::discriminant(&cause));
            }
            bytes = rest;
        }
        Err(std::mem::discriminant(&answer.end()))
    }

    proptest! {
        #[test]
        fn how_the_network_splits_an_answer_does_not_matter(bytes in answers(), lengths in vec(1usize..40, 1..20)) {
            for answer in [|| prefix("+PONG"), || contains("+PONG"), || contains("a: b\r\n\r\n"), ok] {
                prop_assert_eq!(verdict(answer(), &bytes, &lengths), verdict(answer(), &bytes, &[]));
            }
        }
    }
}
