//! The gauges that a worker publishes at the end of a turn: what it holds, and now and then how long the turn took.
//! Plain stores into its own counters; no thread is woken or waited for.

use crate::stats::FdKind;
use crate::sys::Kernel;
use crate::worker::Worker;

/// One turn in this many is measured: that takes a second clock read. A turn over one event takes 5 to 10 µs, and a
/// clock read 25 ns.
const TURNS_PER_MEASURE: u64 = 16;
/// The descriptors to wait with: epoll and its waker.
const EVENT_FDS: u64 = 2;

impl<K: Kernel> Worker<K> {
    /// Publishes what the worker holds.
    pub(in crate::worker) fn publish_gauges(&self) {
        let held = [
            (FdKind::Listener, self.acceptor.listeners().len() as u64),
            (FdKind::Probe, self.probes.in_flight() + self.agents.in_flight()),
            (FdKind::Event, EVENT_FDS),
        ];
        for (kind, count) in held {
            self.core.stats.fds[kind.index()].set(count);
        }
        self.relay.set_gauges(&self.core.stats);
        self.core.stats.timers.set(self.core.wheel.len() as u64);
    }

    /// Measures the ending turn, if it is its turn to be measured.
    pub(in crate::worker) fn measure_turn(&mut self) {
        if self.core.stats.turns.get().is_multiple_of(TURNS_PER_MEASURE) {
            let end = self.core.kernel.now();
            self.core.stats.turn_time.observe(end - self.core.now);
        }
    }
}

impl<K: Kernel> Drop for Worker<K> {
    /// Its counters outlive it. The resources that it still held are gone with it.
    fn drop(&mut self) {
        self.core.stats.on_gone();
    }
}
