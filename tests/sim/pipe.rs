//! A pipe as Linux fills it: by slots, each of which holds one segment, whether a byte or 64 KiB.

use std::collections::VecDeque;

use crate::conn::Nanos;

/// The nominal size of a slot.
pub(crate) const PAGE: usize = 4096;

/// The content of one slot: bytes of a peer's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The connection that they were read from.
    pub(crate) source: usize,
    /// The place of the first of them in the stream.
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pipe {
    slots: VecDeque<Slot>,
    slots_max: usize,
    pub(crate) is_open: bool,
    /// Whose it is.
    pub(crate) worker: usize,
    /// When something last went in or out.
    pub(crate) moved: Nanos,
}

impl Pipe {
    pub(crate) fn new(slots_max: usize, worker: usize) -> Self {
        Self { slots: VecDeque::new(), slots_max, is_open: true, worker, moved: 0 }
    }

    /// Slots that it has, taken or not.
    pub(crate) fn slots_max(&self) -> usize {
        self.slots_max
    }

    pub(crate) fn is_full(&self) -> bool {
        self.slots.len() >= self.slots_max
    }

    /// The most that one call moves into it: do_splice_read asks for a page for each free slot.
    pub(crate) fn call_max(&self) -> u64 {
        (self.slots_max - self.slots.len()) as u64 * PAGE as u64
    }

    pub(crate) fn push(&mut self, source: usize, start: u64, len: u64) {
        assert!(!self.is_full(), "a segment needs a slot");
        self.slots.push_back(Slot { source, start, len });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the next bytes.
    pub(crate) fn first(&self) -> Option<Slot> {
        self.slots.front().copied()
    }

    /// Removes bytes of the first slot. A slot is free again only when it is empty.
    pub(crate) fn take(&mut self, bytes: u64) {
        let first = self.slots.front_mut().expect("no more than it holds");
        first.start += bytes;
        first.len -= bytes;
        if first.len == 0 {
            self.slots.pop_front();
        }
    }
}
