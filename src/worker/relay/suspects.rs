//! State of the search for lost wake-ups: how far it has come, and its suspects. `lost_wakeups` does the search.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::ready::Ready;
use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::base::timer_wheel::TimerWheel;
use crate::base::token_bucket::TokenBucket;
use crate::session::Side;
use crate::worker::core::Timer;

/// Time between two looks, if one look covers all sessions.
pub(super) const SWEEP_PERIOD: Duration = Duration::from_secs(1);
/// Findings are logged at most this often.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// One side of a session that stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) key: Key,
    pub(super) side: Side,
    /// Since when it stands still.
    pub(super) since: Instant,
}

/// The progress of the search.
pub(super) struct Sweep {
    pub(super) has_timer: bool,
    pub(super) next: u32,
    /// Sides that stand still, and their states: kept only for their memory.
    pub(super) still: Vec<Suspect>,
    pub(super) states: Vec<Ready>,
    /// Sides with readiness that was not reported, and since when that is known, in that order.
    pub(super) suspects: VecDeque<(Suspect, Instant)>,
    pub(super) log: TokenBucket,
}

impl Sweep {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            has_timer: false,
            next: 0,
            still: Vec::new(),
            states: Vec::new(),
            suspects: VecDeque::new(),
            log: TokenBucket::new(1, LOG_PERIOD, now),
        }
    }

    pub(super) fn has_timer(&self) -> bool {
        self.has_timer
    }

    /// Must be called when a session is opened.
    pub(super) fn begin(&mut self, now: Instant, wheel: &mut TimerWheel<Timer>) {
        self.arm(now + SWEEP_PERIOD, wheel);
    }

    pub(super) fn arm(&mut self, at: Instant, wheel: &mut TimerWheel<Timer>) {
        if !std::mem::replace(&mut self.has_timer, true) {
            wheel.arm(at, Timer::Sweep);
        }
    }
}
