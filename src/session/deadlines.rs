//! Decides when a session has waited too long, and for what. Activity only moves a deadline further away.

use std::time::Duration;

use crate::base::time::Instant;
use crate::session::half::HalfState;
use crate::session::machine::Session;
use crate::session::phase::{Phase, Poll};
use crate::session::timeouts::millis;
use crate::session::{CloseReason, Side};

/// The result of [`Session::on_deadline`]: whether the session ends or waits for longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing is due yet: the timer must be armed again, at [`Session::deadline`].
    Early,
    /// No dial could start for too long: the caller must cut the session.
    Wait,
    /// The dial took too long: the caller must choose another backend or cut the session.
    Dial,
    /// Something is due: the caller must continue with [`Session::next_op`].
    Drive,
}

impl Session {
    /// Returns the longest time for one dial.
    pub fn connect_timeout(&self) -> Duration {
        millis(self.timeouts.connect)
    }

    /// Returns when [`Session::on_deadline`] must be called.
    pub fn deadline(&self) -> Instant {
        match self.phase {
            Phase::Opening { until, .. } => until,
            Phase::Waiting { since } | Phase::Dialing { since } => since + millis(self.timeouts.connect),
            Phase::Relaying => self.standstill().min(self.ask_at),
            Phase::Settling { since, poll: Poll::At { when, .. }, .. } => {
                when.min(since + millis(self.timeouts.half_close))
            }
            Phase::Settling { .. } | Phase::Asking { .. } | Phase::Expiring { .. } | Phase::Over => {
                self.last_activity
            }
        }
    }

    /// Returns when the session has stood still for too long.
    pub(super) fn standstill(&self) -> Instant {
        let half_close = millis(self.timeouts.half_close);
        if self.is_ending() {
            self.idle_at().min(self.last_activity.max(self.held_up) + half_close)
        } else {
            self.idle_at()
        }
    }

    /// Returns when nothing has moved for the idle timeout.
    pub(super) fn idle_at(&self) -> Instant {
        self.last_activity + millis(self.timeouts.idle)
    }

    /// Returns true once one side has ended or seems dead: the shorter timeout applies.
    fn is_ending(&self) -> bool {
        self.halves.iter().any(|half| half.state != HalfState::Open) || self.is_breaking()
    }

    /// Returns true once one side is dead or seems so.
    pub(super) fn is_breaking(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.suspect || endpoint.error.is_some())
    }

    pub(super) fn timeout_reason(&self, now: Instant) -> CloseReason {
        if now < self.idle_at() { CloseReason::HalfCloseTimeout } else { CloseReason::IdleTimeout }
    }

    /// Must be called when the timer fires; harmless when it fires early.
    pub fn on_deadline(&mut self, now: Instant) -> Expiry {
        if now < self.deadline() {
            return Expiry::Early;
        }
        match self.phase {
            Phase::Opening { until, .. } => {
                self.phase = Phase::Opening { until, is_late: true, lacks_room: false };
                self.endpoints[Side::Client as usize].readable = true;
            }
            Phase::Waiting { .. } => return Expiry::Wait,
            Phase::Dialing { .. } => return Expiry::Dial,
            Phase::Relaying if now >= self.standstill() => {
                self.phase = Phase::Expiring { ask: Side::Client, waiting: false };
            }
            Phase::Relaying => self.phase = Phase::Asking { ask: Side::Client, silence: None },
            Phase::Settling { since, .. } if now >= since + millis(self.timeouts.half_close) => {
                self.phase = Phase::Over;
            }
            Phase::Settling { side, since, poll: Poll::At { wait, .. } } => {
                self.phase = Phase::Settling { side, since, poll: Poll::Now { wait } };
            }
            Phase::Settling { .. } | Phase::Asking { .. } | Phase::Expiring { .. } | Phase::Over => {}
        }
        Expiry::Drive
    }
}
