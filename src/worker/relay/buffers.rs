//! Memory for copied bytes: one scratch buffer for all sessions of a worker, and buffers for what a sink does not
//! accept at once.

use std::io;
use std::ops::Range;

/// Most bytes per read.
const SCRATCH_LEN: usize = 64 * 1024;
/// Most bytes per read while many sinks are stuck: each may leave that much behind.
const LEAN_LEN: usize = 4 * 1024;
/// From this much memory in parked leftovers on, fills are lean.
const PARKED_BYTES_MAX: usize = 64 << 20;
/// Buffers kept for the next leftover.
const FREE_MAX: usize = 64;

/// Bytes that a sink did not accept.
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
    /// The part of the scratch held by the one conduit that uses it.
    held: Range<usize>,
    #[expect(clippy::vec_box, reason = "a conduit holds the box, and takes and gives it as it is")]
    free: Vec<Box<Leftover>>,
    parked: usize,
    parked_bytes: usize,
}

impl Buffers {
    pub(super) fn new() -> Self {
        let scratch = vec![0; SCRATCH_LEN].into_boxed_slice();
        Self { scratch, held: 0..0, free: Vec::new(), parked: 0, parked_bytes: 0 }
    }

    pub(super) fn parked(&self) -> usize {
        self.parked
    }

    /// Returns whether so much is parked that fills must be small.
    pub(super) fn is_lean(&self) -> bool {
        self.parked_bytes >= PARKED_BYTES_MAX
    }

    /// Returns the buffer for a read. The old content of the scratch is overwritten.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let len = if self.is_lean() { LEAN_LEN } else { SCRATCH_LEN };
        &mut self.scratch[..len]
    }

    /// Returns the buffer for a look at bytes that stay where they are, so it is never lean.
    pub(super) fn room_to_look(&mut self) -> &mut [u8] {
        &mut self.scratch
    }

    /// Marks the first `bytes` of the room as held.
    pub(super) fn hold(&mut self, bytes: usize) {
        self.held = 0..bytes;
    }

    pub(super) fn held(&self) -> &[u8] {
        &self.scratch[self.held.clone()]
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.held.start += bytes;
    }

    /// Moves the content of the scratch into a buffer of its own.
    pub(super) fn park(&mut self) -> Box<Leftover> {
        let len = self.room().len();
        let mut leftover = self.free.pop().unwrap_or_default();
        // Reserves for the largest leftover of a read: a buffer that fits only this time would have to grow next time.
        leftover.bytes.reserve(len);
        leftover.bytes.extend_from_slice(&self.scratch[self.held.clone()]);
        self.on_parked(&leftover);
        leftover
    }

    /// Returns a buffer of `len` bytes, which `read` puts there in several calls.
    pub(super) fn park_from(
        &mut self,
        len: usize,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Box<Leftover>> {
        let mut leftover = Box::new(Leftover { bytes: vec![0; len], start: 0 });
        let mut there = 0;
        while there < len {
            match read(&mut leftover.bytes[there..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => there += bytes,
            }
        }
        self.on_parked(&leftover);
        Ok(leftover)
    }

    fn on_parked(&mut self, leftover: &Leftover) {
        self.parked += 1;
        self.parked_bytes += leftover.bytes.capacity();
    }

    pub(super) fn unpark(&mut self, mut leftover: Box<Leftover>) {
        self.parked -= 1;
        self.parked_bytes -= leftover.bytes.capacity();
        // A large buffer, of bytes from a pipe, is freed: the next leftover of a read would waste its memory.
        if self.free.len() < FREE_MAX && leftover.bytes.capacity() <= SCRATCH_LEN {
            leftover.bytes.clear();
            leftover.start = 0;
            self.free.push(leftover);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn park(buffers: &mut Buffers, len: usize) -> Box<Leftover> {
        buffers.park_from(len, |room| Ok(room.len())).unwrap()
    }

    #[test]
    fn fills_are_lean_while_much_is_parked_and_large_buffers_are_not_kept() {
        let mut buffers = Buffers::new();
        let most = PARKED_BYTES_MAX >> 20;
        let parked: Vec<_> = (0..most).map(|_| park(&mut buffers, 1 << 20)).collect();
        assert!(buffers.is_lean());
        assert_eq!(buffers.room().len(), LEAN_LEN);
        parked.into_iter().for_each(|leftover| buffers.unpark(leftover));
        assert!(!buffers.is_lean());
        assert_eq!((buffers.room().len(), buffers.parked(), buffers.free.len()), (SCRATCH_LEN, 0, 0));
    }

    #[test]
    fn bytes_parked_from_a_reader_arrive_in_pieces_and_completely() {
        let mut buffers = Buffers::new();
        let mut next = 0;
        let mut two_at_a_time = |room: &mut [u8]| {
            let bytes = room.len().min(2);
            room[..bytes].fill_with(|| {
                next += 1;
                next
            });
            Ok(bytes)
        };
        assert_eq!(buffers.park_from(5, &mut two_at_a_time).unwrap().bytes(), [1, 2, 3, 4, 5]);
        assert!(buffers.park_from(5, |_| Ok(0)).is_err(), "there was less than was said");
        assert_eq!(buffers.parked(), 1);
    }
}
