//! What is known of a backend besides its atomics, while it is in a pool and once it has left.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::origin::{Origin, Registration, RuntimeOverrides};
use crate::base::time::Instant;
use crate::config::model::OnRemove;
use crate::pool::{Admin, Backend};

/// Facts about a backend that are not in its atomics.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// The check that decided its health, in words.
    pub health_reason: Option<String>,
    /// When its health last changed.
    pub health_since: Option<Timestamp>,
    /// The requester that last set its administrative state at run time, and when.
    pub admin_set: Option<(String, Timestamp)>,
    /// Present while an operator's setting gives it no new sessions.
    pub leaving: Option<Leaving>,
    /// Where it comes from.
    pub origin: Origin,
}

/// A removed backend that still has sessions.
#[derive(Clone, Debug)]
pub struct Removed {
    /// The name of its former pool.
    pub pool: String,
    /// The backend. Another one under its name is not the same.
    pub backend: Arc<Backend>,
    /// The treatment of its sessions.
    pub policy: OnRemove,
    /// When it was removed.
    pub since: Instant,
    /// When its sessions are cut; `None` when they may finish.
    pub deadline: Option<Instant>,
    /// How many sessions it had then.
    pub sessions_at_start: u32,
    /// Its sessions are not cut again before then: the first cut takes a moment to be carried out.
    pub(super) next_cut: Option<Instant>,
    /// Its administrative state before.
    pub(super) admin: Admin,
    /// Facts about it that are not in its atomics.
    pub(super) note: Note,
    /// Its registration, if the end of its lease has removed it: no request did, so the settings of an operator still
    /// hold when it returns.
    pub(super) lease: Option<Arc<Registration>>,
}

impl Removed {
    /// Sessions that are left.
    pub fn sessions(&self) -> u32 {
        self.backend.active()
    }

    /// Returns its weight when it returns and asks for `asked`.
    pub(in crate::control) fn weight_for(&self, asked: u16) -> u16 {
        let said = self.lease.as_ref().map_or(asked, |known| known.weight);
        self.overrides().kept(said, asked).weight_over(asked)
    }

    /// What operators have set of it, as far as it holds when it is back.
    pub(super) fn overrides(&self) -> RuntimeOverrides {
        match &self.lease {
            None => RuntimeOverrides::default(),
            Some(known) => {
                RuntimeOverrides { admin: self.admin, ..RuntimeOverrides::of(&self.backend, known.weight) }
            }
        }
    }

    /// How it leaves.
    pub fn leaving(&self) -> Leaving {
        let Self { since, deadline, sessions_at_start, .. } = *self;
        Leaving { since, deadline, sessions_at_start: sessions_at_start.into() }
    }

    /// See [`Leaving::eta`].
    pub fn eta(&self, now: Instant) -> Option<Duration> {
        self.leaving().eta(self.sessions().into(), now)
    }
}

/// The drain of a backend or of the process.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    /// When it began.
    pub since: Instant,
    /// When the remaining sessions are cut; `None` when they may finish.
    pub deadline: Option<Instant>,
    /// Number of sessions when it began.
    pub sessions_at_start: u64,
}

impl Leaving {
    /// Returns how long it will take until the last session ends at the present rate; at most until the deadline.
    /// `None` when none has ended yet and there is no deadline.
    pub fn eta(&self, left: u64, now: Instant) -> Option<Duration> {
        let (age, gone) = (now - self.since, self.sessions_at_start.saturating_sub(left));
        let at_this_rate = (gone > 0).then(|| age.mul_f64(left as f64 / gone as f64));
        let until_cut = self.deadline.map(|deadline| deadline - now);
        match (at_this_rate, until_cut) {
            (Some(rate), Some(cut)) => Some(rate.min(cut)),
            (rate, cut) => rate.or(cut),
        }
    }
}
