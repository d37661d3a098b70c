//! Reloads of the configuration: origin, request and result.

use std::fmt;
use std::sync::Arc;

use crate::config::diff::Change;
use crate::config::{Config, KnownNames, Looked};

/// Reads the configuration: file, flags and names, of which some are known already. Fails with every mistake in them, one
/// line each. Must be called on a thread of its own, because a name may take long to resolve.
pub type Source = Arc<dyn Fn(&KnownNames) -> Result<Config, Vec<String>> + Send + Sync>;
/// Looks at the files that [`Source`] reads, without checking them; also returns what makes a configuration of what it
/// has seen. Must be called on a thread of its own.
pub type Look = Arc<dyn Fn() -> (Looked, Source) + Send + Sync>;
/// Receives the answer. It is called by the control thread, so it must not block.
pub type Answer = Box<dyn FnOnce(Result<ReloadReport, Refused>) + Send>;

/// Explains why a configuration is not applied. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Every mistake, one line each.
    pub errors: Vec<String>,
    /// True when the configuration is correct and may be applied later: this process lacks a resource now.
    pub is_for_now: bool,
}

impl Refused {
    /// Returns a refusal because of mistakes.
    pub fn wrong(errors: Vec<String>) -> Self {
        Self { errors, is_for_now: false }
    }

    /// Returns a refusal for now.
    pub fn for_now(why: impl Into<String>) -> Self {
        Self { errors: vec![why.into()], is_for_now: true }
    }
}

/// A request to read the configuration again.
pub struct ReloadRequest {
    /// The requester, as logs name it.
    pub who: String,
    /// The origin to read from; `None` is the origin of the start.
    pub source: Option<Source>,
    /// Whether the configuration is applied or only compared.
    pub mode: Mode,
    /// Receives the answer, if the requester waits for one.
    pub answer: Option<Answer>,
    /// With [`Mode::Listeners`] what changes.
    pub listening: Option<Listening>,
}

/// A listener that pauses from now on, or listens again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Its name.
    pub listener: String,
    /// Whether it pauses.
    pub is_paused: bool,
}

/// The purpose of reading a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Run the configuration from now on.
    Apply,
    /// Only report what it would change.
    DryRun,
    /// Run the present one on, with other sockets: a listener pauses, or listens again.
    Listeners,
    /// Run the present one on, with the files of its lists of networks as they are now.
    Lists,
}

impl Mode {
    /// Returns whether what was read becomes the running configuration.
    pub fn is_applied(self) -> bool {
        match self {
            Self::Apply | Self::Lists => true,
            Self::DryRun | Self::Listeners => false,
        }
    }
}

/// The changes of a configuration, made or predicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadReport {
    /// The purpose it was read for.
    pub mode: Mode,
    /// The epoch that runs after the reload.
    pub epoch: u64,
    /// The differences, each with the sessions that it affects.
    pub changes: Vec<ChangeImpact>,
    /// Differences between the file and run-time changes, and which of them wins.
    pub notes: Vec<String>,
}

/// One change, and the sessions that it affects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeImpact {
    /// The difference between the running and the new configuration.
    pub change: Change,
    /// Sessions on the parts that it removes.
    pub sessions: usize,
}

impl fmt::Debug for ReloadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, source, mode, answer, listening: _ } = self;
        write!(
            f,
            "reload request of {who} ({mode:?}, source: {}, answer: {})",
            source.is_some(),
            answer.is_some()
        )
    }
}
