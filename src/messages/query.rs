//! Queries of operators about the sessions of a worker, and its answers. The worker answers between two turns and never
//! waits; the work for one answer has a bound with a name.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use crate::base::network::Network;
use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::pool::{Backend, BackendId, ListenerId, PoolId, Why};
use crate::session::{CloseReason, EndCode, Side, Stage};

/// At most this many rows are in one answer.
pub const ROWS_MAX: usize = 256;
/// At most this many places of live sessions are looked at for one answer.
pub const PLACES_MAX: u32 = 4096;
/// A worker remembers this many ended sessions.
pub const RECORDS_MAX: usize = 1024;

/// Names a session for the life of the process. As text `0.12.3`: worker, place, and generation of the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The worker that has it, or had it: the number of its [`WorkerId`](crate::messages::report::WorkerId), which is
    /// never reused.
    pub worker: u32,
    /// Its key in the slab of that worker.
    pub key: Key,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.worker, self.key.index, self.key.generation)
    }
}

/// A text that is not a session id.
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

/// Selects sessions: those that match every field that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Selects sessions that this listener accepted.
    pub listener: Option<ListenerId>,
    /// Selects sessions of this pool.
    pub pool: Option<PoolId>,
    /// Selects sessions on these backends, which are sorted by id.
    pub backends: Option<Arc<[BackendId]>>,
    /// Selects sessions of clients in this network, whatever the port.
    pub client: Option<Network>,
    /// Ended for this reason; matches no open session.
    pub reason: Option<CloseReason>,
    /// Ended then or later; matches no open session.
    pub since: Option<Instant>,
}

/// A query to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// A page of the open sessions, from this place on; 0 is the first.
    Live {
        /// The place to start from.
        from: u32,
        /// Selects the sessions of the page.
        filter: Filter,
    },
    /// The remembered sessions that have ended, newest first.
    Ended {
        /// Only those older than this number from the last answer; `None` for the first page.
        before: Option<u64>,
        /// Selects the sessions of the page.
        filter: Filter,
    },
    /// One session, open or ended, with the explanation of its backend.
    Session(SessionId),
    /// Resets these sessions, which end with [`CloseReason::Killed`].
    Cut(Target),
}

/// The sessions that a query cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The session with this id.
    Session(SessionId),
    /// All sessions on a backend, those that dial it included.
    Backend(BackendId),
}

/// The answer to a query.
#[derive(Debug)]
pub enum Answer {
    /// The answer to [`Query::Live`].
    Page {
        /// The sessions of this page, at most [`ROWS_MAX`].
        rows: Vec<Row>,
        /// Start of the next page, if there may be more.
        next: Option<u32>,
    },
    /// The answer to [`Query::Ended`].
    Ended {
        /// The sessions of this page, at most [`ROWS_MAX`].
        rows: Vec<Row>,
        /// `before` of the next query, if there may be more.
        next: Option<u64>,
    },
    /// Answers [`Query::Session`]: `None` if it is neither open nor remembered.
    Session(Option<Box<SessionExplanation>>),
    /// Answers [`Query::Cut`]: how many were cut.
    Cut(usize),
}

/// One session as a list shows it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Unique in the life of the process; `l4lb ctl explain` takes it.
    pub id: SessionId,
    /// The name of the listener that accepted it.
    pub listener: Arc<str>,
    /// The name of its pool.
    pub pool: Arc<str>,
    /// Its backend; if none was connected, the last one that could not be dialed.
    pub backend: Option<Arc<Backend>>,
    /// The address and port of the client, as the balancer in front has them, or else as the socket has them.
    pub client: SocketAddr,
    /// The balancer in front that has sent a header.
    pub peer: Option<SocketAddr>,
    /// What the client has asked for, where its listener has routes.
    pub asked: Option<Arc<Asked>>,
    /// The source address of the dial; for an ended session only known when its line was logged.
    pub source: Option<SocketAddr>,
    /// The moment of accept, on the clock of the process.
    pub opened: Instant,
    /// Bytes written to the backend and to the client, by [`Direction`](crate::session::Direction).
    pub given: [u64; 2],
    /// As [`Summary::connect_time`](crate::session::Summary::connect_time).
    pub connect_time: Option<Duration>,
    /// Number of dials after the first.
    pub retries: u32,
    /// Open, or ended and how.
    pub state: SessionState,
}

/// What a client has asked for before its backend was chosen, and where that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The name of the server in its hello of TLS.
    pub sni: Option<Box<str>>,
    /// The protocols in it, with commas between them; escaped, and not all of many.
    pub alpn: Option<Box<str>>,
    /// The number of its route in the file, from 1; `None` when it took none.
    pub route: Option<usize>,
}

impl Row {
    /// Returns when it ended; `None` while it is open.
    pub fn ended(&self) -> Option<Instant> {
        match self.state {
            SessionState::Live { .. } => None,
            SessionState::Ended { duration, .. } => Some(self.opened + duration),
        }
    }
}

/// Whether a session is open, with the facts of either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Open: it relays, dials or waits.
    Live {
        /// Whether it is being dialed, open, half-closed or ending.
        stage: Stage,
        /// Time since any byte moved.
        quiet: Duration,
        /// Bytes that the other side must still accept, by direction.
        held: [u64; 2],
    },
    /// Over; the worker remembers the latest ones.
    Ended {
        /// The reason that its log line names.
        reason: CloseReason,
        /// The end code: two letters.
        code: EndCode,
        /// The side that died first, if one did.
        reset_by: Option<Side>,
        /// The side that had ended its stream, when the other had not.
        half_closed_by: Option<Side>,
        /// From accept to the end.
        duration: Duration,
        /// Bytes taken and not written, by direction.
        discarded: [u64; 2],
    },
}

/// One session, with the choice of its backend.
#[derive(Clone, Debug)]
pub struct SessionExplanation {
    /// The session as a list shows it.
    pub row: Row,
    /// Why it got its backend; `None` if it never had one.
    pub why: Option<Why>,
    /// Backends that could not be dialed before.
    pub tried: Vec<BackendId>,
    /// The pool that was asked for a backend.
    pub pool: PoolId,
    /// The epoch of its last choice.
    pub epoch: u64,
}

/// The receiver of an answer. It is called on the thread of the worker, so it must not block. If it is dropped
/// uncalled, the worker has stopped.
#[derive(Clone)]
pub struct Reply(Arc<dyn Fn(Answer) + Send + Sync>);

impl Reply {
    /// Returns a reply that calls `answer` with each answer.
    pub fn new(answer: impl Fn(Answer) + Send + Sync + 'static) -> Self {
        Self(Arc::new(answer))
    }

    /// Returns a reply into a channel of `answers` places; an answer that does not fit is dropped.
    pub fn channel(answers: usize) -> (Self, Receiver<Answer>) {
        let (sender, receiver) = sync_channel(answers);
        // The receiver has gone, or has left no room.
        (Self::new(move |answer| _ = sender.try_send(answer)), receiver)
    }

    /// Passes an answer to the receiver. Never blocks.
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
    fn text_that_is_no_session_id_is_refused() {
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
