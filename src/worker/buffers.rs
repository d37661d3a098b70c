//! Memory for bytes that are copied: one scratch for all sessions of a worker, and buffers for what a sink does not
//! take at once.

use std::ops::Range;

/// The most that one read takes.
const SCRATCH_LEN: usize = 64 * 1024;
/// The most that one read takes while many sinks are stuck: each may leave that much behind.
const LEAN_LEN: usize = 4 * 1024;
/// Parked leftovers from which on reads are lean.
const PARKED_MAX: usize = 1024;
/// Buffers kept for the next leftover.
const FREE_MAX: usize = 64;

/// What a sink did not take.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    bytes: Vec<u8>,
    start: usize,
}

impl Leftover {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
    }
}

/// The buffers of one worker.
#[derive(Debug)]
pub(super) struct Buffers {
    scratch: Box<[u8]>,
    /// What of the scratch is held by the one conduit that is there.
    held: Range<usize>,
    #[expect(clippy::vec_box, reason = "a conduit holds the box, and takes and gives it as it is")]
    free: Vec<Box<Leftover>>,
    parked: usize,
}

impl Buffers {
    pub(super) fn new() -> Self {
        let scratch = vec![0; SCRATCH_LEN].into_boxed_slice();
        Self { scratch, held: 0..0, free: Vec::new(), parked: 0 }
    }

    /// Leftovers in use.
    pub(super) fn parked(&self) -> usize {
        self.parked
    }

    /// Where a read goes. What the scratch held is overwritten.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let len = if self.parked < PARKED_MAX { SCRATCH_LEN } else { LEAN_LEN };
        &mut self.scratch[..len]
    }

    /// The scratch holds the first `bytes` of the room.
    pub(super) fn hold(&mut self, bytes: usize) {
        self.held = 0..bytes;
    }

    pub(super) fn held(&self) -> &[u8] {
        &self.scratch[self.held.clone()]
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.held.start += bytes;
    }

    /// Moves what the scratch holds out of the way of other sessions.
    pub(super) fn park(&mut self) -> Box<Leftover> {
        let len = self.room().len();
        let mut leftover = self.free.pop().unwrap_or_default();
        // For all that a read may leave behind: a buffer that fits only this time would have to grow next time.
        leftover.bytes.reserve(len);
        leftover.bytes.extend_from_slice(&self.scratch[self.held.clone()]);
        self.parked += 1;
        leftover
    }

    pub(super) fn unpark(&mut self, mut leftover: Box<Leftover>) {
        self.parked -= 1;
        if self.free.len() < FREE_MAX {
            leftover.bytes.clear();
            leftover.start = 0;
            self.free.push(leftover);
        }
    }
}
