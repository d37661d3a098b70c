//! Reasons why a check failed: sentences for the log, safe to print whatever the backend sent.

use std::fmt::{self, Display, Formatter};
use std::io::ErrorKind;
use std::time::Duration;

use thiserror::Error;

use crate::config::model::Secret;

/// At most this many bytes of an answer are shown.
const SHOWN_MAX: usize = 64;

/// The reason why a check failed, as a sentence for operators.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Cause {
    /// The connection was refused: nothing listens there.
    #[error("connection refused")]
    Refused,
    /// The kernel connected the socket to itself: nothing listens on that port, and it is an ephemeral one.
    #[error("connected to itself")]
    SelfConnect,
    /// Any other error of the socket, such as "host unreachable while connecting".
    #[error("{kind} while {doing}")]
    Socket {
        /// The kind of error that the call returned.
        kind: ErrorKind,
        /// The step during which it was returned.
        doing: ProbeStep,
    },
    /// The check exceeded its timeout.
    #[error("timed out after {limit:?} while {doing}")]
    TimedOut {
        /// The timeout of the check.
        limit: Duration,
        /// The step that had not been finished.
        doing: ProbeStep,
    },
    /// The backend closed before its answer could be judged.
    #[error("closed before the answer was complete: got {got}")]
    Closed {
        /// Everything that was received before the end.
        got: Quoted,
    },
    /// The answer starts with other bytes.
    #[error("answer does not start with {expected}: got {got}")]
    Prefix {
        /// The bytes that `expect` wants at the start.
        expected: Quoted,
        /// The bytes received so far.
        got: Quoted,
    },
    /// The expected bytes are not in the answer, or not in as much of it as a check reads.
    #[error("answer does not contain {expected}: got {got}")]
    Missing {
        /// The bytes that `expect` wants anywhere.
        expected: Quoted,
        /// The bytes received so far.
        got: Quoted,
    },
    /// An HTTP response with another status.
    #[error("expected status {expected}, got {got}")]
    Status {
        /// The status that the configuration expects.
        expected: u16,
        /// The status of the answer.
        got: u16,
    },
    /// The answer is not HTTP, or has no status within the bytes that a check reads.
    #[error("answer is not HTTP: got {got}")]
    NotHttp {
        /// The bytes received so far.
        got: Quoted,
    },
    /// The answer is not of the protocol that the check speaks.
    #[error("answer is not {protocol}: got {got}")]
    NotProtocol {
        /// The name of the protocol.
        protocol: &'static str,
        /// The bytes of the answer received so far.
        got: Quoted,
    },
    /// The backend says that it cannot serve.
    #[error("the backend reports {error}")]
    Reported {
        /// Its words, or their meaning.
        error: Quoted,
    },
    /// A message of the answer has no end within the bytes that a check reads.
    #[error("no end of the message within {max} bytes: got {got}")]
    TooLong {
        /// The most that a check accepts.
        max: usize,
        /// The bytes of the message received so far.
        got: Quoted,
    },
    /// The backend sends one message after another, and none decides.
    #[error("undecided after {messages} messages")]
    Undecided {
        /// The most that a check accepts.
        messages: usize,
    },
    /// A gRPC call that ended without a message.
    #[error("the call ended without a health status: is the service registered?")]
    NoHealthStatus,
    /// The program of a check has failed.
    #[error("exit status {status}: printed {printed}")]
    Exited {
        /// Its status, not 0.
        status: i32,
        /// The first line that it has printed.
        printed: Quoted,
    },
    /// A signal has ended the program of a check.
    #[error("ended by signal {signal}: printed {printed}")]
    Signalled {
        /// The number of the signal.
        signal: i32,
        /// The first line that it has printed.
        printed: Quoted,
    },
    /// The program of a check is missing, or must not be run.
    #[error("{0}")]
    NoProgram(String),
    /// A check that was not over when all checks of its round had taken this long.
    #[error("{cause}: the checks of a round have {limit:?} together")]
    LateInRound {
        /// The most that all of them may take: the interval.
        limit: Duration,
        /// What it waited for.
        cause: Box<Cause>,
    },
    /// TLS has failed: the handshake, the certificate or the encryption.
    #[error("{0}")]
    Tls(String),
    /// One of these at one step of several.
    #[error("{place}: {cause}")]
    At {
        /// The step at which the check stopped.
        place: Place,
        /// The reason why that step failed.
        cause: Box<Cause>,
    },
}

impl Cause {
    /// Returns the cause with the names of variables in place of their content.
    #[must_use]
    pub fn hiding(mut self, secrets: &[Secret]) -> Self {
        match &mut self {
            Self::Prefix { expected, got } | Self::Missing { expected, got } => {
                expected.hide(secrets);
                got.hide(secrets);
            }
            Self::Closed { got }
            | Self::NotHttp { got }
            | Self::NotProtocol { got, .. }
            | Self::TooLong { got, .. }
            | Self::Reported { error: got }
            | Self::Exited { printed: got, .. }
            | Self::Signalled { printed: got, .. } => got.hide(secrets),
            Self::Tls(sentence) => {
                let shown = hidden(sentence.as_bytes(), secrets, false);
                *sentence = String::from_utf8_lossy(&shown).into_owned();
            }
            Self::At { cause, .. } | Self::LateInRound { cause, .. } => {
                **cause = std::mem::replace(&mut **cause, Self::Refused).hiding(secrets);
            }
            Self::Refused
            | Self::SelfConnect
            | Self::Socket { .. }
            | Self::TimedOut { .. }
            | Self::Status { .. }
            | Self::Undecided { .. }
            | Self::NoProgram(_)
            | Self::NoHealthStatus => {}
        }
        self
    }

    /// Returns the cause with its place, if it has one.
    pub(super) fn at(self, place: Option<Place>) -> Self {
        match place {
            Some(place) => Self::At { place, cause: Box::new(self) },
            None => self,
        }
    }

    /// Returns whether nothing but the timeout has ended the check.
    pub fn is_timeout(&self) -> bool {
        let is_inner = matches!(self, Self::At { cause, .. } if cause.is_timeout());
        is_inner || matches!(self, Self::TimedOut { .. })
    }

    /// Returns the cause of a check whose round has only so long, if a timeout ended it.
    pub(super) fn late_in_round(self, limit: Duration) -> Self {
        if self.is_timeout() { Self::LateInRound { limit, cause: Box::new(self) } } else { self }
    }

    /// Returns the cause of an error of the socket.
    pub(super) fn of(kind: ErrorKind, doing: ProbeStep) -> Self {
        if kind == ErrorKind::ConnectionRefused { Self::Refused } else { Self::Socket { kind, doing } }
    }
}

/// The part of an exchange that an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A step of a script, from 1.
    Step {
        /// The number of the step, counted from 1.
        number: usize,
        /// The number of all steps.
        count: usize,
    },
    /// A message of a known protocol.
    Message(&'static str),
}

impl Display for Place {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step { number, count } => write!(out, "step {number} of {count}"),
            Self::Message(name) => out.write_str(name),
        }
    }
}

/// The step at which a check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeStep {
    /// Before the connection was established.
    Connecting,
    /// While the request was being sent.
    Sending,
    /// While the answer was undecided.
    Receiving,
    /// While the program of the check ran.
    Running,
}

impl Display for ProbeStep {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Connecting => "connecting",
            Self::Sending => "sending",
            Self::Receiving => "waiting for the answer",
            Self::Running => "running the command",
        })
    }
}

/// The first bytes of foreign data; prints them in quotes, escaped, on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    shown: Vec<u8>,
    is_cut: bool,
}

impl From<&[u8]> for Quoted {
    fn from(bytes: &[u8]) -> Self {
        let shown = &bytes[..bytes.len().min(SHOWN_MAX)];
        Self { shown: shown.to_vec(), is_cut: shown.len() < bytes.len() }
    }
}

/// Returns the first line of what a program has printed, for messages.
pub fn first_line(printed: &[u8]) -> Quoted {
    let end = printed.iter().position(|byte| b"\r\n".contains(byte)).unwrap_or(printed.len());
    printed[..end].into()
}

impl Quoted {
    /// Puts the names of variables in place of their content, also of one that is cut off at the end.
    fn hide(&mut self, secrets: &[Secret]) {
        if secrets.is_empty() {
            return;
        }
        self.shown = hidden(&self.shown, secrets, self.is_cut);
    }
}

/// The first bytes of the content of a variable at the end of what is shown hide nothing if they are fewer.
const BEGINNING_SHOWN_MAX: usize = 4;

/// Returns `bytes` with the names of variables in place of their content, also of one that begins at their end: any part
/// of it if they are cut, else [`BEGINNING_SHOWN_MAX`] bytes of it or more.
pub(super) fn hidden(bytes: &[u8], secrets: &[Secret], is_cut: bool) -> Vec<u8> {
    let (mut shown, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let [first, others @ ..] = rest {
        let begins = |Secret { value, .. }: &&Secret| {
            let is_rest = is_cut || rest.len() >= BEGINNING_SHOWN_MAX;
            rest.starts_with(value.as_bytes()) || (is_rest && value.as_bytes().starts_with(rest))
        };
        match secrets.iter().find(begins) {
            Some(Secret { variable, value }) => {
                shown.extend_from_slice(format!("${{{variable}}}").as_bytes());
                rest = &rest[value.len().min(rest.len())..];
            }
            None => {
                shown.push(*first);
                rest = others;
            }
        }
    }
    shown
}

impl Display for Quoted {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        if self.shown.is_empty() {
            return out.write_str("nothing");
        }
        let ellipsis = if self.is_cut { "..." } else { "" };
        write!(out, "\"{}\"{ellipsis}", self.shown.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case 104.
    #[test]
    fn foreign_bytes_stay_on_one_short_line() {
        let cases: [(&[u8], &str); 4] = [
            (b"", "nothing"),
            (b"+PONG\r\n", r#""+PONG\r\n""#),
            (b"say \"hi\"\x1b[0m\xff", r#""say \"hi\"\x1b[0m\xff""#),
            (&[b'a'; 65], &format!("\"{}\"...", "a".repeat(64))),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Quoted::from(bytes).to_string(), expected);
        }
    }

    #[test]
    fn the_content_of_a_variable_is_not_shown() {
        let secret = |variable: &str, value: &str| Secret { variable: variable.into(), value: value.into() };
        let secrets = [secret("LONG", &"s".repeat(80)), secret("TOKEN", "ab\\n"), secret("PART", "ab")];
        let long = [b"x ".as_slice(), &[b's'; 80]].concat();
        for (bytes, expected) in [
            (b"token ab\\n".as_slice(), r#""token ${TOKEN}""#),
            (b"aab abab", r#""a${PART} ${PART}${PART}""#),
            (b"an a", r#""an a""#),
            (&long, r#""x ${LONG}"..."#),
        ] {
            let (wanted, got) = (Quoted::from(b"+ab".as_slice()), Quoted::from(bytes));
            let cause =
                Cause::Missing { expected: wanted, got }.at(Some(Place::Step { number: 1, count: 1 }));
            let sentence = cause.hiding(&secrets).to_string();
            let end = format!(r#"step 1 of 1: answer does not contain "+${{PART}}": got {expected}"#);
            assert_eq!(sentence, end);
        }
    }

    #[test]
    fn causes_read_as_sentences() {
        let timed_out = |limit, doing| Cause::TimedOut { limit, doing };
        let cases = [
            (Cause::of(ErrorKind::ConnectionRefused, ProbeStep::Connecting), "connection refused"),
            (
                Cause::of(ErrorKind::HostUnreachable, ProbeStep::Connecting),
                "host unreachable while connecting",
            ),
            (
                Cause::of(ErrorKind::ConnectionReset, ProbeStep::Receiving),
                "connection reset while waiting for the answer",
            ),
            (Cause::SelfConnect, "connected to itself"),
            (timed_out(Duration::from_secs(1), ProbeStep::Connecting), "timed out after 1s while connecting"),
            (
                timed_out(Duration::from_millis(1_500), ProbeStep::Sending),
                "timed out after 1.5s while sending",
            ),
            (Cause::Status { expected: 200, got: 503 }, "expected status 200, got 503"),
            (Cause::Refused.at(Some(Place::Step { number: 2, count: 3 })), "step 2 of 3: connection refused"),
            (Cause::Refused.at(Some(Place::Message("greeting"))), "greeting: connection refused"),
            (Cause::Refused.at(None), "connection refused"),
        ];
        for (cause, expected) in cases {
            assert_eq!(cause.to_string(), expected);
        }
    }
}
