//! An operator that queries sessions, and cuts some, in the middle of everything.

use std::sync::mpsc::Receiver;

use l4lb::messages::command::Command;
use l4lb::messages::query::{Answer, Filter, Query, Reply, Row, SessionExplanation, SessionState, Target};

use super::World;

/// Most answers that wait to be read: one turn gives fewer.
const ANSWERS_MAX: usize = 64;

/// The answers received.
pub(super) struct Answers {
    reply: Reply,
    received: Receiver<Answer>,
    /// Sessions that workers report as cut.
    pub(super) killed: u64,
}

impl Answers {
    pub(super) fn new() -> Self {
        let (reply, received) = Reply::channel(ANSWERS_MAX);
        Self { reply, received, killed: 0 }
    }
}

impl World {
    /// Cuts all sessions on a random backend.
    pub(super) fn cut_some(&mut self) {
        let backend = self.draw_backend();
        self.post(&Command::Ask(Query::Cut(Target::Backend(backend.id)), self.answers.reply.clone()));
    }

    pub(super) fn ask_for_sessions(&mut self) {
        let query = Query::Live { from: 0, filter: Filter::default() };
        self.post(&Command::Ask(query, self.answers.reply.clone()));
    }

    /// Reads the answers of `worker` from its turn.
    pub(super) fn receive_answers(&mut self, worker: usize) {
        while let Ok(answer) = self.answers.received.try_recv() {
            match answer {
                Answer::Cut(sessions) => self.answers.killed += sessions as u64,
                Answer::Page { rows, next } => {
                    assert_eq!(next, None, "all sessions are in one page");
                    rows.iter().for_each(|row| self.ask_for_explanation(worker, row));
                    self.coverage.hit_if(!rows.is_empty(), "asked for sessions");
                }
                Answer::Ended { .. } => panic!("nobody has asked for them"),
                Answer::Session(explanation) => {
                    self.check_explanation(*explanation.expect("it was reported a moment ago"));
                }
            }
        }
    }

    /// Queries one of the sessions just listed by its id.
    fn ask_for_explanation(&mut self, worker: usize, row: &Row) {
        assert_eq!(row.id.worker as usize, worker, "a row of another worker");
        assert_eq!(row.id.to_string().parse(), Ok(row.id));
        if self.below(4) == 0 {
            let query = Query::Session(row.id);
            let posted = self.handles[worker].mailbox.post(Command::Ask(query, self.answers.reply.clone()));
            assert!(posted, "a mailbox that is read in every turn is never full");
        }
    }

    fn check_explanation(&mut self, explanation: SessionExplanation) {
        let SessionExplanation { row, why, tried, epoch, .. } = explanation;
        self.coverage.hit(match row.state {
            SessionState::Live { .. } => "explanation of a live session",
            SessionState::Ended { .. } => "explanation of an ended session",
        });
        let (Some(why), Some(backend)) = (why, row.backend) else { return };
        assert!(!tried.contains(&backend.id), "{backend:?} was tried before");
        assert_eq!(why.epoch, epoch, "{why}");
        self.coverage.hit_if(why.passed_over > 0, "passed over");
        if let Some((_, homes)) = &why.hash
            && why.is_exact
            && why.passed_over < 32
        {
            assert_eq!(homes.last(), Some(&backend.name), "{why}");
        }
    }
}
