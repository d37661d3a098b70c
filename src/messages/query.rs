//! What an operator asks of a worker about its sessions, and what it answers. The worker answers between two turns and
//! never waits; how much it looks at for one answer has a bound with a name.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::pool::{Backend, BackendId, ListenerId, PoolId, Why};
use crate::session::{CloseReason, EndCode, Side, Stage};

/// Rows of one answer at most.
pub const ROWS_MAX: usize = 256;
/// Places among the live sessions that one answer looks at, at most.
pub const PLACES_MAX: u32 = 4096;
/// Sessions that are over and that a worker remembers.
pub const RECORDS_MAX: usize = 1024;

/// Names a session for the life of the process. As text `0.12.3`: worker, place, and which occupant of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The worker that has it, or had: the number of its [`WorkerId`](crate::messages::report::WorkerId), which no other ever has.
    pub worker: u32,
    /// Its key there.
    pub key: Key,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.worker, self.key.index, self.key.generation)
    }
}

/// A text that names no session.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session is named by three numbers like 0.12.3, not by {0:?}")]
pub struct NoSessionId(String);

impl FromStr for SessionId {
    type Err = NoSessionId;

    fn from_str(text: &str) -> Result<Self, NoSessionId> {
        let parse = || {
            let mut parts = text.split('.');
            let worker = parts.next()?.parse().ok()?;
            let (index, generation) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            parts.next().is_none().then_some(Self { worker, key: Key { index, generation } })
        };
        parse().ok_or_else(|| NoSessionId(text.to_owned()))
    }
}

/// Which sessions are wanted: those that fit everything that is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those through this listener.
    pub listener: Option<ListenerId>,
    /// Those of this pool.
    pub pool: Option<PoolId>,
    /// Those on this backend.
    pub backend: Option<BackendId>,
    /// Those of this client.
    pub client: Option<IpAddr>,
    /// Those that ended so: none that runs.
    pub reason: Option<CloseReason>,
    /// Those that ended then or later: none that runs.
    pub since: Option<Instant>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// A page of the sessions that run, from this place on; 0 is the first.
    Live {
        /// Where to begin.
        from: u32,
        /// Which of them.
        filter: Filter,
    },
    /// Those that are over and that are remembered, the newest first.
    Ended {
        /// Those older than this one, as an answer has named it; the newest at first.
        before: Option<u64>,
        /// Which of them.
        filter: Filter,
    },
    /// One session, running or over, and why it went where it went.
    Session(SessionId),
    /// Cut these, with [`CloseReason::Killed`].
    Cut(Target),
}

/// Which sessions are to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One.
    Session(SessionId),
    /// All on a backend, those that dial it included.
    Backend(BackendId),
}

/// What a worker answers.
#[derive(Debug)]
pub enum Answer {
    /// To [`Query::Live`].
    Page {
        /// At most [`ROWS_MAX`].
        rows: Vec<Row>,
        /// Where the next page begins, if there may be more.
        next: Option<u32>,
    },
    /// To [`Query::Ended`].
    Ended {
        /// At most [`ROWS_MAX`].
        rows: Vec<Row>,
        /// `before` of the next question, if there may be more.
        next: Option<u64>,
    },
    /// To [`Query::Session`]: nothing if it is neither running nor remembered.
    Session(Option<Box<Story>>),
    /// To [`Query::Cut`]: how many were.
    Cut(usize),
}

/// One session.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub id: SessionId,
    /// The name of the listener that accepted it.
    pub listener: Arc<str>,
    /// The name of its pool.
    pub pool: Arc<str>,
    /// The backend that it is on, or was; or else the last that could not be dialed.
    pub backend: Option<Arc<Backend>>,
    /// Where it came from.
    pub client: SocketAddr,
    /// From where its backend was dialed; of one that is over only where its line was logged.
    pub source: Option<SocketAddr>,
    /// When it was accepted, as the clock of the process has it.
    pub opened: Instant,
    /// Bytes given to the backend and to the client, by [`Direction`](crate::session::Direction).
    pub given: [u64; 2],
    /// From accept to the connected backend.
    pub connect_time: Option<Duration>,
    /// Dials after the first.
    pub retries: u32,
    /// How it is, or how it ended.
    pub state: SessionState,
}

impl Row {
    /// When it ended, if it is over.
    pub fn ended(&self) -> Option<Instant> {
        match self.state {
            SessionState::Live { .. } => None,
            SessionState::Ended { duration, .. } => Some(self.opened + duration),
        }
    }
}

/// How a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// It runs.
    Live {
        /// How far it is.
        stage: Stage,
        /// For how long nothing has moved.
        quiet: Duration,
        /// Bytes that the other side has yet to take, by direction.
        held: [u64; 2],
    },
    /// It is over.
    Ended {
        /// Why.
        reason: CloseReason,
        /// The same in two letters.
        code: EndCode,
        /// The side whose connection died first, if one did.
        reset_by: Option<Side>,
        /// The side that had ended its stream, where the other had not.
        half_closed_by: Option<Side>,
        /// From accept to the end.
        duration: Duration,
        /// Bytes taken and not given, by direction.
        discarded: [u64; 2],
    },
}

/// One session in full.
#[derive(Clone, Debug)]
pub struct Story {
    /// What a page tells of it.
    pub row: Row,
    /// Why it got its backend; nothing if it never had one.
    pub why: Option<Why>,
    /// Backends that a dial had failed to before.
    pub tried: Vec<BackendId>,
    /// Its pool.
    pub pool: PoolId,
    /// The epoch in which it chose last.
    pub epoch: u64,
}

/// Where an answer goes. Called on the thread of the worker, so it must not wait. When it is dropped uncalled, the
/// worker has stopped.
#[derive(Clone)]
pub struct Reply(Arc<dyn Fn(Answer) + Send + Sync>);

impl Reply {
    /// Answers are given to `hear`.
    pub fn new(hear: impl Fn(Answer) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Up to `answers` of them wait to be received; one that does not fit is dropped.
    pub fn channel(answers: usize) -> (Self, Receiver<Answer>) {
        let (sender, receiver) = sync_channel(answers);
        // Nobody is left to hear it, or has made room for it.
        (Self::new(move |answer| _ = sender.try_send(answer)), receiver)
    }

    /// Gives an answer.
    pub fn give(&self, answer: Answer) {
        (self.0)(answer);
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_a_name_that_can_be_read_back() {
        let id = SessionId { worker: 2, key: Key { index: 12, generation: 3 } };
        assert_eq!(id.to_string(), "2.12.3");
        assert_eq!("2.12.3".parse(), Ok(id));
    }

    #[test]
    fn what_names_no_session_is_refused() {
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.x", "-1.2.3", "1..3", "1.2.4294967296"] {
            let refused = text.parse::<SessionId>().unwrap_err();
            assert!(refused.to_string().ends_with(&format!("not by {text:?}")), "{refused}");
        }
    }

    #[test]
    fn a_dropped_question_ends_the_wait_for_its_answer() {
        let (reply, answers) = Reply::channel(1);
        reply.give(Answer::Cut(1));
        reply.give(Answer::Cut(2));
        assert!(matches!(answers.recv(), Ok(Answer::Cut(1))));
        drop(reply);
        assert!(answers.recv().is_err());
    }
}
