//! Which sources run, and how each of them does.

use std::io;

use jiff::Timestamp;

use super::runner::{Runner, Running};
use crate::base::time::Instant;
use crate::config::discover::Discover;
use crate::messages::discovery::{Found, Listed, Outcome, SourceId};
use crate::sys::timestamp;

pub(in crate::control) struct Sources {
    pub(super) start: fn() -> io::Result<Runner>,
    /// From the first source on.
    pub(super) runner: Option<Runner>,
    pub(super) all: Vec<Followed>,
    /// What sources have listed that do not run yet.
    pub(super) listed: Vec<Listed>,
    /// The number of the next run of a source.
    pub(super) next: u64,
    /// Whether the thread could not be started.
    pub(super) is_stuck: bool,
    /// When dials are looked at again.
    pub(super) next_look: Instant,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            start: Runner::start,
            runner: None,
            all: Vec::new(),
            listed: Vec::new(),
            next: 0,
            is_stuck: false,
            next_look: Instant::default(),
        }
    }
}

impl Sources {
    /// None yet, and those that begin are never asked: the caller reports what they list. There is no thread.
    pub(in crate::control) fn unasked() -> Self {
        Self { start: Runner::without_thread, ..Self::default() }
    }

    /// Returns the run of the source of that label in that pool, if there is one.
    pub(in crate::control) fn run_of(&self, pool: &str, label: &str) -> Option<SourceId> {
        let is_it = |known: &&Followed| known.pool == pool && known.settings.label() == label;
        self.all.iter().find(is_it).map(|known| known.id)
    }

    /// None runs, and some have `listed` backends before.
    pub(in crate::control) fn new(listed: Vec<Listed>) -> Self {
        Self { listed, ..Self::default() }
    }

    /// What sources have listed that are to run; of one that has waited for that already, the newer list counts.
    pub(in crate::control) fn begin_with(&mut self, listed: Vec<Listed>) {
        self.listed.retain(|old| !listed.iter().any(|new| new.is_of(&old.pool, &old.source)));
        self.listed.extend(listed);
    }
}

pub(super) struct Followed {
    pub(super) id: SourceId,
    pub(super) pool: String,
    pub(super) settings: Discover,
    pub(super) running: Running,
    /// The backends that it is believed to have, including those that are not in the pool on its behalf.
    pub(super) last: Vec<Found>,
    /// Dials to its backends that have failed.
    pub(super) dial_failures: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct SourceState {
    /// The pool that it lists backends for.
    pub(crate) pool: String,
    /// Its name, see [`Discover::label`].
    pub(crate) source: String,
    /// How asking went last; `None` before that.
    pub(crate) outcome: Option<Outcome>,
    /// Since when it goes so.
    pub(crate) since: Timestamp,
    pub(crate) began: Instant,
    /// When there was an answer last.
    pub(crate) answered: Option<Instant>,
    /// When it is asked next, if not earlier.
    pub(crate) next: Option<Instant>,
    /// How often it went so, in the order of [`Outcome::ALL`].
    pub(crate) counts: [u64; Outcome::ALL.len()],
    pub(crate) backends: u64,
    /// A note for the operator about the last answer.
    pub(crate) note: Option<String>,
    /// Backends that it lists and that are not in the pool on its behalf, and why.
    pub(crate) left_out: Vec<String>,
}

impl SourceState {
    /// Returns the state before the first answer of one that begins `now`.
    pub(in crate::control) fn new(pool: &str, source: String, now: Instant) -> Self {
        Self {
            pool: pool.to_owned(),
            source,
            outcome: None,
            since: timestamp(),
            began: now,
            answered: None,
            next: None,
            counts: [0; Outcome::ALL.len()],
            backends: 0,
            note: None,
            left_out: Vec::new(),
        }
    }

    /// Whether it is the source of that label in that pool.
    pub(super) fn is_of(&self, pool: &str, label: &str) -> bool {
        self.pool == pool && self.source == label
    }
}
