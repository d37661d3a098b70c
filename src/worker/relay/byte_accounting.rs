//! Counts the bytes of sessions that last: without it an hour-long download would show at its end only.
//!
//! Most sessions end young and are counted by `close.rs` alone. One that lasts is counted when its first timer fires,
//! and from then on, or from its first period on, it is put on a list whenever it has moved something. One timer for
//! all of them counts what is on the list and ends with it: where nothing moves, nobody is woken.

use crate::base::time::Instant;
use crate::stats::WorkerStats;
use crate::sys::Kernel;
use crate::worker::core::Core;
use crate::worker::relay::uncounted::{COUNT_PERIOD, Counting};
use crate::worker::relay::{Relay, Slot};

impl<K: Kernel> Slot<K> {
    /// Counts what has been given and was not counted yet.
    pub(super) fn count(&mut self, stats: &WorkerStats, worker: usize) {
        let given = self.session.take_uncounted();
        stats.on_given(given);
        self.listener.stats().of(worker).on_given(given);
        if let Some(lease) = &self.lease {
            lease.backend().stats.of(worker).on_given(given);
        }
    }

    /// The session lasts: its timer has fired, which for most is too late.
    pub(super) fn lasts(&mut self, stats: &WorkerStats, worker: usize) {
        self.count(stats, worker);
        if self.counting == Counting::Young {
            self.counting = Counting::Lasting;
        }
    }

    /// Whether it has bytes to be counted and belongs on the list, but is not there.
    pub(super) fn is_to_be_listed(&self, now: Instant) -> bool {
        let lasts = match self.counting {
            Counting::Young => self.session.age(now) >= COUNT_PERIOD,
            Counting::Lasting => true,
            Counting::Listed => false,
        };
        lasts && self.session.has_uncounted()
    }
}

impl<K: Kernel> Relay<K> {
    pub(in crate::worker) fn on_count_timer(&mut self, core: &mut Core<K>) {
        for key in self.uncounted.take_due() {
            if let Some(slot) = self.sessions.get_mut(key) {
                slot.count(&core.stats, core.index);
                slot.counting = Counting::Lasting;
            }
        }
        self.uncounted.arm(core.now, &mut core.wheel);
    }
}
