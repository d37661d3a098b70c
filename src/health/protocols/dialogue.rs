//! An exchange as a sequence of messages: what has arrived, and the reader that consumes it message by message.

use std::fmt::Debug;

use crate::health::answer::ANSWER_MAX;
use crate::health::cause::{Cause, Place, Quoted};
use crate::health::exchange::{Exchange, Progress};
use crate::health::expected::Expected;

/// A backend that is undecided after this many messages is not worth more of them.
pub(super) const MESSAGES_MAX: usize = 128;

/// The bytes that have arrived and belong to no message that was read before: at most [`ANSWER_MAX`].
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the first `len` bytes and removes them, unless fewer have arrived.
    pub(super) fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        (len <= self.bytes.len()).then(|| self.bytes.drain(..len).collect())
    }

    /// Returns the first line without its end and removes it, unless it is incomplete.
    pub(super) fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.bytes.iter().position(|&byte| byte == b'\n')?;
        let mut line = self.take(end + 1)?;
        line.pop();
        line.pop_if(|byte| *byte == b'\r');
        Some(line)
    }

    /// Returns what messages show of them.
    pub(super) fn got(&self) -> Quoted {
        self.bytes.as_slice().into()
    }

    fn is_full(&self) -> bool {
        self.bytes.len() == ANSWER_MAX
    }

    /// Adds as many of `bytes` as there is room for, and returns the others.
    fn fill<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (now, later) = bytes.split_at(bytes.len().min(ANSWER_MAX - self.bytes.len()));
        self.bytes.extend_from_slice(now);
        later
    }
}

/// What a reader has done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Nothing: the message is incomplete.
    Incomplete,
    /// It has consumed a message that decides nothing.
    Message,
    /// It has consumed the message that decides: the backend is well.
    Passed,
}

/// One side of a protocol of messages.
pub(super) trait Dialogue: Debug + Send {
    /// Appends what opens the dialogue, if this side does.
    fn open(&mut self, out: &mut Vec<u8>);

    /// Reads one message, and appends what answers it; fails where that shows that the backend is not well.
    fn read(&mut self, inbox: &mut Inbox, out: &mut Vec<u8>) -> Result<Read, Cause>;

    /// Returns the message that it waits for.
    fn place(&self) -> Option<Place>;

    /// Returns what that message must be.
    fn expected(&self) -> Expected;

    /// Returns the cause where a message does not fit into the inbox.
    fn overflow(&self, inbox: &Inbox) -> Cause {
        Cause::TooLong { max: ANSWER_MAX, got: inbox.got() }
    }

    /// Returns the cause where the backend ends the dialogue.
    fn closed(&self, inbox: &Inbox) -> Cause {
        Cause::Closed { got: inbox.got() }
    }
}

/// A dialogue as an exchange.
#[derive(Debug)]
pub(super) struct Messages<D> {
    dialogue: D,
    inbox: Inbox,
    read: usize,
}

impl<D: Dialogue> Messages<D> {
    pub(super) fn new(dialogue: D) -> Self {
        Self { dialogue, inbox: Inbox::default(), read: 0 }
    }

    fn read_all(&mut self, out: &mut Vec<u8>) -> Result<Read, Cause> {
        loop {
            match self.dialogue.read(&mut self.inbox, out)? {
                Read::Message if self.read < MESSAGES_MAX => self.read += 1,
                Read::Message => return Err(Cause::Undecided { messages: MESSAGES_MAX }),
                Read::Incomplete if self.inbox.is_full() => return Err(self.dialogue.overflow(&self.inbox)),
                decided @ (Read::Passed | Read::Incomplete) => return Ok(decided),
            }
        }
    }
}

impl<D: Dialogue> Exchange for Messages<D> {
    fn start(&mut self, out: &mut Vec<u8>) -> Progress {
        self.dialogue.open(out);
        Progress::More
    }

    fn on_bytes(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Progress {
        while !bytes.is_empty() {
            bytes = self.inbox.fill(bytes);
            match self.read_all(out) {
                Ok(Read::Passed) => return Progress::Passed,
                Ok(Read::Message | Read::Incomplete) => {}
                Err(cause) => return Progress::Failed(cause.at(self.place())),
            }
        }
        Progress::More
    }

    fn on_eof(&self) -> Cause {
        self.dialogue.closed(&self.inbox).at(self.place())
    }

    fn place(&self) -> Option<Place> {
        self.dialogue.place()
    }

    fn expected(&self) -> Option<Expected> {
        Some(self.dialogue.expected())
    }
}
