//! Counts the bytes of long sessions while they are open: otherwise an hour-long download would be counted only at its
//! end.
//!
//! Most sessions are short and counted by `close.rs` alone. A long one is counted when its first timer fires, and from
//! then on, or from its first period on, it is listed whenever it has moved bytes. One timer for all of them counts the
//! listed sessions and ends with the list: without traffic the worker is not woken.

use crate::base::time::Instant;
use crate::stats::WorkerStats;
use crate::sys::Kernel;
use crate::worker::core::Core;
use crate::worker::relay::uncounted::{COUNT_PERIOD, Counting};
use crate::worker::relay::{Relay, Slot};

impl<K: Kernel> Slot<K> {
    /// Counts the bytes written and not counted yet.
    pub(super) fn count(&mut self, stats: &WorkerStats, worker: usize) {
        let given = self.session.take_uncounted();
        stats.on_given(given);
        self.listener.stats().of(worker).on_given(given);
        if let Some(lease) = &self.lease {
            lease.backend().stats.of(worker).on_given(given);
        }
    }

    /// Marks the session as long: its timer has fired, which is late for most.
    pub(super) fn lasts(&mut self, stats: &WorkerStats, worker: usize) {
        self.count(stats, worker);
        if self.counting == Counting::Young {
            self.counting = Counting::Lasting;
        }
    }

    /// Returns whether it has bytes to count and should be listed, but is not.
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
