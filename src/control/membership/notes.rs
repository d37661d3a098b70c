//! Facts about a backend besides its atomics, while it is in a pool and once it has left.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::origin::{Origin, Registration, RuntimeOverrides};
use super::placement::Placement;
use super::state_file::SavedAuthor;
use crate::base::time::Instant;
use crate::messages::report::AgentLine;
use crate::pool::{Admin, Backend};
use crate::tls::Certificate;

/// Facts about a backend that are not in its atomics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    /// The check that decided its health, in words.
    pub(crate) health_reason: Option<String>,
    /// When its health last changed.
    pub(crate) health_since: Option<Timestamp>,
    /// The last results of its checks as reported, by their place.
    pub(crate) checks: Vec<Option<Checked>>,
    /// The certificates that its checks were shown, by the same places.
    pub(crate) certificates: Vec<Option<ShownCertificate>>,
    /// The requester that last set its administrative state at run time, and when.
    pub(crate) admin_set: Option<(String, Timestamp)>,
    /// Present while an operator's setting gives it no new sessions.
    pub(crate) leaving: Option<Leaving>,
    pub(crate) origin: Origin,
    /// The address and the priority that operators have set of it.
    pub(crate) placed: Option<Placement>,
    /// Its agent, once that has been asked.
    pub(crate) agent: Option<AgentNote>,
    /// Its counters when they were last cleared.
    pub(crate) cleared: Option<ClearedBackend>,
}

impl SavedAuthor {
    /// Returns the author of the administrative state, where that was set at run time.
    pub(in crate::control) fn of(note: &Note) -> Option<Self> {
        note.admin_set.clone().map(|(who, since)| Self { who, since })
    }

    pub(in crate::control) fn into_note(self) -> (String, Timestamp) {
        (self.who, self.since)
    }
}

/// The counters of a backend when they were cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClearedBackend {
    pub(crate) since: Timestamp,
    pub(crate) sessions: u64,
    pub(crate) dial_failures: u64,
    pub(crate) given: [u64; 2],
}

impl ClearedBackend {
    pub(in crate::control) fn of(backend: &Backend, since: Timestamp) -> Self {
        let (sessions, dial_failures) = (backend.sessions(), backend.dial_failures());
        Self { since, sessions, dial_failures, given: backend.stats.given() }
    }
}

/// The last result of a check.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// Why it has failed, if it has.
    pub(crate) failure: Option<String>,
    pub(crate) since: Timestamp,
}

/// A certificate that a check was shown.
#[derive(Clone, Debug)]
pub(crate) struct ShownCertificate {
    pub(crate) certificate: Certificate,
    /// When a warning last said that it ends soon.
    pub(crate) warned: Option<Timestamp>,
}

/// What is known of the agent of a backend besides its advice.
#[derive(Clone, Debug, Default)]
pub(crate) struct AgentNote {
    /// The description and the mistake of its last answer.
    pub(crate) line: AgentLine,
    /// When its advice last changed.
    pub(crate) since: Option<Timestamp>,
    /// When the administrative state in it last changed.
    pub(crate) admin_since: Option<Timestamp>,
    /// Why it cannot be reached, and since when.
    pub(crate) lost: Option<(String, Timestamp)>,
    /// When an answer was last logged.
    pub(crate) logged: Option<Instant>,
}

/// A removed backend that still has sessions.
#[derive(Clone, Debug)]
pub struct Removed {
    /// The name of its former pool.
    pub(crate) pool: String,
    /// The backend. Another one under its name is not the same.
    pub backend: Arc<Backend>,
    pub(crate) since: Instant,
    /// When its sessions are cut; `None` when they may finish.
    pub deadline: Option<Instant>,
    /// How many sessions it had then.
    pub(crate) sessions_at_start: u32,
    /// Its sessions are not cut again before then: the first cut takes a moment to be carried out.
    pub(super) next_cut: Option<Instant>,
    pub(super) admin: Admin,
    /// Whether its server was there under another name when it was removed: its sessions are cut when that goes too.
    pub(super) is_renamed: bool,
    /// Facts about it that are not in its atomics.
    pub(super) note: Note,
    /// Its registration, if the end of its lease has removed it: no request did, so the settings of an operator still
    /// hold when it returns.
    pub(super) lease: Option<Arc<Registration>>,
}

impl Removed {
    pub fn sessions(&self) -> u32 {
        self.backend.active()
    }

    /// Returns its weight when it returns and asks for `asked`.
    pub(in crate::control) fn weight_for(&self, asked: u16) -> u16 {
        let said = self.lease.as_ref().map_or(asked, |known| known.weight);
        self.overrides().kept(said, asked).weight_over(asked)
    }

    /// Returns the settings that operators have made of it, as far as they hold when it returns.
    pub(super) fn overrides(&self) -> RuntimeOverrides {
        match &self.lease {
            None => RuntimeOverrides::default(),
            Some(known) => {
                RuntimeOverrides { admin: self.admin, ..RuntimeOverrides::of(&self.backend, known.weight) }
            }
        }
    }

    pub(crate) fn leaving(&self) -> Leaving {
        let Self { since, deadline, sessions_at_start, .. } = *self;
        Leaving { since, deadline, sessions_at_start: sessions_at_start.into() }
    }
}

/// The drain of a backend or of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    pub(crate) since: Instant,
    /// When the remaining sessions are cut; `None` when they may finish.
    pub(crate) deadline: Option<Instant>,
    /// Number of sessions when it began.
    pub(crate) sessions_at_start: u64,
}

impl Leaving {
    /// Returns how long it will take until the last session ends at the present rate; at most until the deadline.
    /// `None` when none has ended yet and there is no deadline.
    pub(crate) fn eta(&self, left: u64, now: Instant) -> Option<Duration> {
        let (age, gone) = (now - self.since, self.sessions_at_start.saturating_sub(left));
        let at_this_rate = (gone > 0).then(|| age.mul_f64(left as f64 / gone as f64));
        let until_cut = self.deadline.map(|deadline| deadline - now);
        match (at_this_rate, until_cut) {
            (Some(rate), Some(cut)) => Some(rate.min(cut)),
            (rate, cut) => rate.or(cut),
        }
    }
}
