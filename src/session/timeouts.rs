//! The timeouts of a session, in the form that it keeps.

use std::time::Duration;

use crate::base::time::Instant;

pub(super) const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// How long each phase may stand still, in milliseconds to keep sessions small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub(super) connect: u32,
    pub(super) idle: u32,
    pub(super) half_close: u32,
    user: u32,
}

impl Timeouts {
    /// Rounds up to whole milliseconds; 49 days at most. `user` limits how long a peer may stay silent while bytes sent
    /// to it are unacknowledged; with `None` only the kernel's own limit applies.
    pub fn new(connect: Duration, idle: Duration, half_close: Duration, user: Option<Duration>) -> Self {
        let millis = |span: Duration| u32::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX);
        Self {
            connect: millis(connect),
            idle: millis(idle),
            half_close: millis(half_close),
            user: user.map_or(u32::MAX, millis),
        }
    }

    /// How long a peer may be silent.
    pub(super) fn user(self) -> Duration {
        millis(self.user)
    }

    /// Returns when to ask the peers again while bytes are in flight: when a silence that began is too long, else soon.
    pub(super) fn next_question_in(self, silence: Duration) -> Duration {
        if silence.is_zero() { self.user() / 4 } else { self.user().saturating_sub(silence) }
    }
}

pub(super) fn millis(millis: u32) -> Duration {
    Duration::from_millis(u64::from(millis))
}
