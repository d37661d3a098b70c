//! Shortage of pipes: a stream that finds none while stalled sinks hold some must get one of theirs.

use crate::conn::Nanos;
use crate::network::Net;
use crate::pipe::Pipe;

/// A sink that has accepted nothing for this long has stalled.
const STALL: Nanos = 1_000_000_000;
/// Once this many bytes were moved out of pipes, the rest may wait for the next turn.
const BYTES_PER_TURN: u64 = 1 << 20;

/// A worker's handling of it in a turn.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    /// Whether every pool splices, so that a copy means that no pipe was found.
    pub(crate) all_splice: bool,
    /// The connection that was spliced from last.
    spliced: Option<usize>,
    lacked: u64,
    reclaimed: u64,
    moved: u64,
}

impl Shortage {
    pub(crate) fn begin_turn(&mut self) {
        *self = Self { all_splice: self.all_splice, ..Self::default() };
    }

    pub(crate) fn on_splice(&mut self, id: usize) {
        self.spliced = Some(id);
    }

    /// A read after a splice only reports what the splice did not.
    pub(crate) fn on_copy(&mut self, id: usize) {
        self.lacked += u64::from(self.all_splice && self.spliced != Some(id));
    }

    pub(crate) fn on_reclaimed(&mut self, bytes: u64) {
        self.reclaimed += 1;
        self.moved += bytes;
    }
}

/// Panics when a stream was copied in the last turn of `worker` for want of a pipe that a stalled sink keeps.
pub(crate) fn check(net: &Net, worker: usize) {
    let Shortage { lacked, reclaimed, moved, .. } = net.shortage;
    if lacked == 0 || reclaimed > 0 || moved >= BYTES_PER_TURN || net.faults.splices_not {
        return;
    }
    let of_worker = || net.pipes.iter().filter(|pipe| pipe.is_open && pipe.worker == worker);
    let has_free = of_worker().any(Pipe::is_empty);
    let has_stalled = of_worker().any(|pipe| !pipe.is_empty() && net.now >= pipe.moved + STALL);
    assert!(has_free || !has_stalled, "{lacked} fills found no pipe, and a sink that has stalled keeps one");
}
