//! That the configuration is read again: who asks for it, where it is read from, and what came of it.

use std::fmt;
use std::sync::Arc;

use crate::config::Config;
use crate::config::diff::Change;

/// Reads the configuration: file, flags and names, or every mistake in them, each in one line. Called on a thread that
/// nobody waits for, because a name may take long to resolve.
pub type Source = Arc<dyn Fn() -> Result<Config, Vec<String>> + Send + Sync>;
/// Where the answer goes. Called by the control thread, so it never waits.
pub type Answer = Box<dyn FnOnce(Result<ReloadReport, Refused>) + Send>;

/// Why a configuration is not run. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// All that is wrong, each in one line.
    pub errors: Vec<String>,
    /// Whether nothing is wrong with it, and the same may be run later: this process lacks something now.
    pub is_for_now: bool,
}

impl Refused {
    /// Something is wrong with it.
    pub fn wrong(errors: Vec<String>) -> Self {
        Self { errors, is_for_now: false }
    }

    /// It is refused for now.
    pub fn for_now(why: impl Into<String>) -> Self {
        Self { errors: vec![why.into()], is_for_now: true }
    }
}

/// Somebody wants the configuration to be read again.
pub struct ReloadRequest {
    /// Who, as logs name it.
    pub who: String,
    /// Where to read it from; `None` is where it was read at the start.
    pub source: Option<Source>,
    /// What for.
    pub mode: Mode,
    /// Where to put the answer, if anybody waits for one.
    pub answer: Option<Answer>,
}

/// What a configuration is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To be run.
    Apply,
    /// To say what it would change.
    DryRun,
}

/// What a configuration changes, or would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadReport {
    /// What it was read for.
    pub mode: Mode,
    /// The epoch that runs now.
    pub epoch: u64,
    /// Change by change.
    pub changes: Vec<ChangeImpact>,
    /// Where the file and what was changed at run time differ, and which of them wins.
    pub notes: Vec<String>,
}

/// One change, and whom it touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeImpact {
    /// The change.
    pub change: Change,
    /// Sessions on what it takes away.
    pub sessions: usize,
}

impl fmt::Debug for ReloadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, source, mode, answer } = self;
        write!(
            f,
            "reload request of {who} ({mode:?}, source: {}, answer: {})",
            source.is_some(),
            answer.is_some()
        )
    }
}
