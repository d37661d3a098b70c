//! Where the bytes of one direction are between its two sockets.
//!
//! Copy: one read into the scratch buffer that all sessions of a worker share, written straight on. Only what
//! the sink does not take is parked in a buffer of the session's own, so an idle session holds none.

use std::io;
use std::ops::Range;

use crate::session::Outcome;
use crate::sys::Kernel;

/// The most that one read takes.
const SCRATCH_LEN: usize = 64 * 1024;
/// The most that one read takes while many sinks are stuck: each may leave that much behind.
const LEAN_LEN: usize = 4 * 1024;
/// Parked leftovers from which on reads are lean.
const PARKED_MAX: usize = 1024;
/// Buffers kept for the next leftover.
const FREE_MAX: usize = 64;

/// Where the bytes of one direction are.
#[derive(Debug, Default)]
pub(super) enum Conduit {
    /// Nowhere: there are none.
    #[default]
    Empty,
    /// In the scratch of the worker, from a fill to the flush right behind it.
    Scratch,
    /// In a buffer of their own.
    Parked(Box<Leftover>),
}

/// What a sink did not take.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    bytes: Vec<u8>,
    start: usize,
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

    fn fill_len(&self) -> usize {
        if self.parked < PARKED_MAX { SCRATCH_LEN } else { LEAN_LEN }
    }

    fn park(&mut self) -> Box<Leftover> {
        let mut leftover = self.free.pop().unwrap_or_default();
        leftover.bytes.extend_from_slice(&self.scratch[self.held.clone()]);
        self.parked += 1;
        leftover
    }

    fn unpark(&mut self, mut leftover: Box<Leftover>) {
        self.parked -= 1;
        if self.free.len() < FREE_MAX {
            leftover.bytes.clear();
            leftover.start = 0;
            self.free.push(leftover);
        }
    }
}

impl Conduit {
    /// Reads from `source` into the empty conduit.
    pub(super) fn fill<K: Kernel>(
        &mut self,
        kernel: &mut K,
        source: &K::Socket,
        buffers: &mut Buffers,
    ) -> Outcome {
        debug_assert!(matches!(self, Self::Empty), "a fill would mix with what is held");
        let room = buffers.fill_len();
        match kernel.read(source, &mut buffers.scratch[..room]) {
            Ok(0) => Outcome::Eof,
            Ok(bytes) => {
                *self = Self::Scratch;
                buffers.held = 0..bytes;
                if bytes < room { Outcome::Drained(bytes) } else { Outcome::Moved(bytes) }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::WouldBlock,
            Err(error) => Outcome::Failed(error.kind()),
        }
    }

    /// Writes to `sink` what the conduit holds. What it does not take stays, out of the way of other sessions.
    pub(super) fn flush<K: Kernel>(
        &mut self,
        kernel: &mut K,
        sink: &K::Socket,
        buffers: &mut Buffers,
    ) -> Outcome {
        let held = match self {
            Self::Empty => &[],
            Self::Scratch => &buffers.scratch[buffers.held.clone()],
            Self::Parked(leftover) => &leftover.bytes[leftover.start..],
        };
        debug_assert!(!held.is_empty(), "a flush of nothing");
        match kernel.write(sink, held) {
            Ok(0) => self.on_blocked(buffers),
            Ok(bytes) => self.on_written(bytes, buffers),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.on_blocked(buffers),
            Err(error) => {
                self.discard(buffers);
                Outcome::Failed(error.kind())
            }
        }
    }

    fn on_written(&mut self, bytes: usize, buffers: &mut Buffers) -> Outcome {
        let rest = match self {
            Self::Empty => 0,
            Self::Scratch => {
                buffers.held.start += bytes;
                buffers.held.len()
            }
            Self::Parked(leftover) => {
                leftover.start += bytes;
                leftover.bytes.len() - leftover.start
            }
        };
        if rest == 0 {
            self.discard(buffers);
        }
        Outcome::Moved(bytes)
    }

    fn on_blocked(&mut self, buffers: &mut Buffers) -> Outcome {
        if let Self::Scratch = self {
            *self = Self::Parked(buffers.park());
        }
        Outcome::WouldBlock
    }

    /// Gives up on what the conduit holds; its buffer goes back.
    pub(super) fn discard(&mut self, buffers: &mut Buffers) {
        if let Self::Parked(leftover) = std::mem::take(self) {
            buffers.unpark(leftover);
        }
    }

    /// Bytes held, between two turns.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Empty | Self::Scratch => 0,
            Self::Parked(leftover) => leftover.bytes.len() - leftover.start,
        }
    }

    /// Whether the bytes are where the next fill of any session would overwrite them.
    pub(super) fn is_in_scratch(&self) -> bool {
        matches!(self, Self::Scratch)
    }
}
