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
/// Descriptors of a pipe.
const PIPE_ENDS: u64 = 2;

impl<K: Kernel> Worker<K> {
    /// Tells what the worker holds.
    pub(in crate::worker) fn tell_state(&self) {
        let pipes = &self.relay_buffers.pipes;
        let held = [
            (FdKind::Listener, self.listeners.len() as u64),
            (FdKind::Client, self.sessions.len() as u64),
            (FdKind::Backend, self.dialed),
            (FdKind::Probe, self.probes.in_flight()),
            (FdKind::Pipe, PIPE_ENDS * pipes.open() as u64),
            (FdKind::Event, EVENT_FDS),
        ];
        for (kind, count) in held {
            self.stats.fds[kind.index()].set(count);
        }
        // In this order: a reader never sees more closed than opened.
        self.stats.pipes_opened.set(pipes.opened());
        self.stats.pipes_closed.set(pipes.opened() - pipes.open() as u64);
        self.stats.pipes_pooled.set(pipes.free() as u64);
        self.stats.buffers_parked.set(self.relay_buffers.buffers.parked() as u64);
        self.stats.timers.set(self.wheel.len() as u64);
    }

    /// Measures the turn that ends, if it is one of those that are.
    pub(in crate::worker) fn measure_turn(&mut self) {
        if self.stats.turns.get().is_multiple_of(TURNS_PER_MEASURE) {
            let end = self.kernel.now();
            self.stats.turn_time.observe(end - self.now);
        }
    }
}

impl<K: Kernel> Drop for Worker<K> {
    /// Its counters outlive it. What it still held goes with it.
    fn drop(&mut self) {
        self.stats.on_gone();
    }
}
