//! What a worker tells at the end of a turn: what it holds, and now and then how long the turn took. Plain stores into
//! its own counters; nobody is woken and nothing is waited for.

use crate::stats::FdKind;
use crate::sys::Kernel;
use crate::worker::Worker;

/// One turn in so many is measured: that takes a second look at the clock. A turn over one event is 5 to 10 µs, and a
/// look 25 ns.
const TURNS_PER_MEASURE: u64 = 16;
/// What a worker waits with: epoll and its waker.
const EVENT_FDS: u64 = 2;

impl<K: Kernel> Worker<K> {
    /// Tells what the worker holds.
    pub(in crate::worker) fn tell_state(&self) {
        let held = [
            (FdKind::Listener, self.acceptor.listeners().len() as u64),
            (FdKind::Probe, self.probes.in_flight()),
            (FdKind::Event, EVENT_FDS),
        ];
        for (kind, count) in held {
            self.core.stats.fds[kind.index()].set(count);
        }
        self.relay.set_gauges(&self.core.stats);
        self.core.stats.timers.set(self.core.wheel.len() as u64);
    }

    /// Measures the turn that ends, if it is one of those that are.
    pub(in crate::worker) fn measure_turn(&mut self) {
        if self.core.stats.turns.get().is_multiple_of(TURNS_PER_MEASURE) {
            let end = self.core.kernel.now();
            self.core.stats.turn_time.observe(end - self.core.now);
        }
    }
}

impl<K: Kernel> Drop for Worker<K> {
    /// Its counters outlive it. What it still held goes with it.
    fn drop(&mut self) {
        self.core.stats.on_gone();
    }
}
