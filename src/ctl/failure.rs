//! Why a command of `l4lb ctl` failed; the exit code follows from it.

use std::io;

use super::client::ClientError;
use crate::config::one_line;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is contradictory.
    #[error("{0}")]
    Usage(String),
    /// Something other than the answer failed.
    #[error("{0}")]
    Failed(String),
    /// It was refused, or there is no answer.
    #[error("{}{}", .0, .0.remedy())]
    Unanswered(ClientError),
    /// The checks of a backend have failed, which is printed.
    #[error("a check has failed")]
    Unwell,
    /// There is no result of checks, for a reason that is printed.
    #[error("there is no result")]
    NoResult,
    /// The answer cannot be written.
    #[error("cannot write to standard output: {0}")]
    Unwritten(io::Error),
    /// The reader of the output has gone, as `head` does.
    #[error("standard output is closed")]
    NoReader,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Unanswered(error)
    }
}

impl Failure {
    /// Reports it on standard error.
    pub(super) fn complain(&self) {
        eprintln!("{}", one_line(&format!("l4lb: {self}")));
    }

    /// Reports it as the reason why there is no result of checks.
    pub(super) fn without_result(&self) -> Self {
        self.complain();
        Self::NoResult
    }
}
