//! The bytes of one direction between its two sockets.
//!
//! Copy: one read into the scratch buffer that all sessions of a worker share, written straight on. Only bytes that the
//! sink does not accept are parked in a buffer of their own, so an idle session holds none.
//!
//! Splice: from socket to pipe to socket inside the kernel. A pipe is borrowed for a fill and given back as soon as it
//! is empty. It must be filled only while empty: then EAGAIN can only mean that the socket is (splice(2)).
//!
//! Bytes are never in a buffer and in a pipe at once, because a fill begins only when the conduit holds nothing, or no
//! more than the header of a session that begins, which is in the scratch and to which a read is added.

use std::io;

use crate::base::time::Instant;
use crate::config::fd_budget::PIPE_LEN_MIN;
use crate::config::model::Relay;
use crate::session::Outcome;
use crate::stats::WorkerStats;
use crate::sys::{Kernel, cannot_splice};
use crate::worker::relay::buffers::{Buffers, Leftover};
use crate::worker::relay::lent::{Borrower, Place};
use crate::worker::relay::pipes::Pipes;

/// After this many small spliced fills in a row a direction no longer counts as a stream.
const THIN_FILLS: u8 = 3;
/// The size of a small fill: from some 20 KiB on a splice costs no more than a copy.
const THIN_LEN: usize = 16 * 1024;

/// The buffers and pipes that a worker keeps for all conduits.
pub(super) struct RelayBuffers<K: Kernel> {
    pub(super) buffers: Buffers,
    pub(super) pipes: Pipes<K::Pipe>,
}

/// The source of a fill, and its borrower.
pub(super) struct Source<'a, S> {
    pub(super) socket: &'a S,
    /// A splice that finds nothing proves nothing: it stops at urgent data, even data that is read inline.
    pub(super) hides_more: bool,
    /// Most bytes that a splice may take.
    pub(super) splice_max: usize,
    /// The borrower of the pipe.
    pub(super) borrower: Borrower,
}

#[derive(Debug)]
pub(super) struct Conduit<P> {
    held: Held<P>,
    relay: Relay,
    pace: Pace,
    /// Its sink has kept a pipe waiting for so long that the pipe was taken away.
    has_stalled: bool,
}

/// The place of the bytes.
#[derive(Debug)]
enum Held<P> {
    Nothing,
    /// In the scratch of the worker, from a fill to the flush right behind it.
    Scratch,
    /// In a buffer of their own.
    Parked(Box<Leftover>),
    /// In a pipe, which is lent.
    Piped {
        pipe: P,
        bytes: u32,
        place: Place,
    },
}

/// The pace of the traffic.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// Little at a time, until a read fills its buffer: that may be a stream. Waiting for three in a row cost a quarter
    /// more for responses of 64 and 100 KiB, and saved nothing for larger ones.
    Trickle,
    /// Much at a time, after so many small fills in a row.
    Stream { thin_fills: u8 },
}

impl Pace {
    fn on_filled(&mut self, bytes: usize, was_full: bool) {
        match self {
            Self::Trickle if was_full => *self = Self::Stream { thin_fills: 0 },
            Self::Trickle => {}
            Self::Stream { thin_fills } if was_full || bytes >= THIN_LEN => *thin_fills = 0,
            Self::Stream { thin_fills } if *thin_fills + 1 < THIN_FILLS => *thin_fills += 1,
            Self::Stream { .. } => *self = Self::Trickle,
        }
    }
}

impl<P> Conduit<P> {
    pub(super) fn new(relay: Relay) -> Self {
        Self { held: Held::Nothing, relay, pace: Pace::Trickle, has_stalled: false }
    }

    /// Returns whether much comes at a time.
    pub(super) fn streams(&self) -> bool {
        matches!(self.pace, Pace::Stream { .. })
    }

    fn wants_pipe(&self) -> bool {
        match self.relay {
            Relay::Auto => self.streams(),
            Relay::Copy => false,
            Relay::Splice => true,
        }
    }

    /// Returns the bytes held between two turns.
    pub(super) fn len(&self) -> usize {
        match &self.held {
            Held::Nothing | Held::Scratch => 0,
            Held::Parked(leftover) => leftover.bytes().len(),
            Held::Piped { bytes, .. } => *bytes as usize,
        }
    }

    /// Returns whether the next fill of any session would overwrite the bytes.
    pub(super) fn is_in_scratch(&self) -> bool {
        matches!(self.held, Held::Scratch)
    }

    /// Returns whether they are in a buffer of their own.
    pub(super) fn is_parked(&self) -> bool {
        matches!(self.held, Held::Parked(_))
    }

    /// Returns whether they are in a pipe.
    pub(super) fn is_piped(&self) -> bool {
        matches!(self.held, Held::Piped { .. })
    }

    /// Holds the first `len` bytes of the scratch, which are a header. A fill may follow at once, and then a flush must.
    pub(super) fn hold_header(&mut self, len: usize, buffers: &mut Buffers) {
        debug_assert!(matches!(self.held, Held::Nothing), "the header goes before all other bytes");
        buffers.hold(len);
        self.held = Held::Scratch;
    }

    /// Fills the conduit, which must hold no more than a header, from `source`.
    pub(super) fn fill<K: Kernel<Pipe = P>>(
        &mut self,
        kernel: &mut K,
        source: &Source<'_, K::Socket>,
        relay_buffers: &mut RelayBuffers<K>,
        stats: &WorkerStats,
        now: Instant,
    ) -> Outcome {
        debug_assert!(self.len() == 0, "a fill would mix with what is held");
        if !self.is_in_scratch()
            && self.wants_pipe()
            && let Some(pipe) = relay_buffers.pipes.borrow(kernel, stats, now)
            && let Some(outcome) = self.fill_pipe(pipe, kernel, source, relay_buffers, now)
        {
            return outcome;
        }
        self.fill_scratch(kernel, source, &mut relay_buffers.buffers)
    }

    /// When the end may be near, it is looked for right after the last bytes, so that it can go out with them.
    fn fill_scratch<K: Kernel>(
        &mut self,
        kernel: &mut K,
        source: &Source<'_, K::Socket>,
        buffers: &mut Buffers,
    ) -> Outcome {
        let header = if self.is_in_scratch() { buffers.held().len() } else { 0 };
        let room = &mut buffers.room()[header..];
        let bytes = match kernel.read(source.socket, room) {
            Ok(0) => return Outcome::Eof,
            Ok(bytes) => bytes,
            Err(error) => return refused(&error),
        };
        let is_full = bytes == room.len();
        self.pace.on_filled(bytes, is_full);
        let behind = (source.hides_more && !is_full).then(|| kernel.read(source.socket, &mut room[bytes..]));
        let (bytes, outcome) = match behind {
            None if is_full => (bytes, Outcome::Moved(bytes)),
            None => (bytes, Outcome::Drained(bytes)),
            Some(Ok(0)) => (bytes, Outcome::Last(bytes, None)),
            Some(Ok(more)) => (bytes + more, Outcome::Moved(bytes + more)),
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => (bytes, Outcome::Drained(bytes)),
            Some(Err(error)) => (bytes, Outcome::Last(bytes, Some(error.kind()))),
        };
        buffers.hold(header + bytes);
        self.held = Held::Scratch;
        outcome
    }

    /// Returns `None` when a read must find out what there is.
    fn fill_pipe<K: Kernel<Pipe = P>>(
        &mut self,
        pipe: P,
        kernel: &mut K,
        source: &Source<'_, K::Socket>,
        relay_buffers: &mut RelayBuffers<K>,
        now: Instant,
    ) -> Option<Outcome> {
        let is_little = self.has_stalled || relay_buffers.buffers.is_lean();
        let most = if is_little { source.splice_max.min(PIPE_LEN_MIN) } else { source.splice_max };
        let spliced = kernel.splice_in(source.socket, &pipe, most);
        if let Ok(bytes @ 1..) = spliced {
            let place = relay_buffers.pipes.lend(source.borrower, now);
            let bytes_held = u32::try_from(bytes).expect("a pipe holds less than 4 GiB");
            self.held = Held::Piped { pipe, bytes: bytes_held, place };
            self.pace.on_filled(bytes, bytes >= THIN_LEN);
            // However little: the pipe may have run out of slots.
            return Some(Outcome::Moved(bytes));
        }
        relay_buffers.pipes.give_back(pipe);
        match spliced {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && source.hides_more => None,
            Err(error) if !cannot_splice(&error) => Some(refused(&error)),
            Err(error) => {
                log::warn!(error:%; "this kernel does not splice, bytes are copied from now on");
                relay_buffers.pipes.close_all();
                None
            }
            // Some kernels have returned 0 where no end was near.
            Ok(_) => None,
        }
    }

    /// Writes the bytes held to `sink`. The rest stays, out of the way of other sessions. After the last bytes of a
    /// stream the caller must send the FIN at once; the kernel may combine them.
    pub(super) fn flush<K: Kernel<Pipe = P>>(
        &mut self,
        kernel: &mut K,
        sink: &K::Socket,
        is_last: bool,
        relay_buffers: &mut RelayBuffers<K>,
        now: Instant,
    ) -> Outcome {
        debug_assert!(!matches!(self.held, Held::Nothing), "a flush of nothing");
        let write = if is_last { K::write_last } else { K::write };
        let taken = match &self.held {
            Held::Nothing => Ok(0),
            Held::Scratch => write(kernel, sink, relay_buffers.buffers.held()),
            Held::Parked(leftover) => write(kernel, sink, leftover.bytes()),
            Held::Piped { pipe, bytes, .. } => kernel.splice_out(pipe, sink, *bytes as usize),
        };
        match taken {
            Ok(bytes @ 1..) => {
                self.consume(bytes, relay_buffers, now);
                Outcome::Moved(bytes)
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.discard(relay_buffers);
                Outcome::Failed(error.kind())
            }
            Ok(_) | Err(_) => {
                if let Held::Scratch = self.held {
                    self.held = Held::Parked(relay_buffers.buffers.park());
                }
                Outcome::WouldBlock
            }
        }
    }

    /// Removes the first `taken` bytes, which the sink has accepted.
    fn consume<K: Kernel<Pipe = P>>(
        &mut self,
        taken: usize,
        relay_buffers: &mut RelayBuffers<K>,
        now: Instant,
    ) {
        let rest = match &mut self.held {
            Held::Nothing => return,
            Held::Scratch => {
                relay_buffers.buffers.consume(taken);
                relay_buffers.buffers.held().len()
            }
            Held::Parked(leftover) => {
                leftover.consume(taken);
                leftover.bytes().len()
            }
            Held::Piped { bytes, place, .. } => {
                relay_buffers.pipes.note_progress(*place, now);
                *bytes -= u32::try_from(taken).expect("no more than was held");
                *bytes as usize
            }
        };
        if rest > 0 {
            return;
        }
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing | Held::Scratch => {}
            Held::Parked(leftover) => relay_buffers.buffers.unpark(leftover),
            Held::Piped { pipe, place, .. } => relay_buffers.pipes.take_back(pipe, place),
        }
    }

    /// Moves the bytes in a pipe into a buffer, so that another session can have the pipe; returns how many. The sink
    /// has stalled: from now on it gets little at a time.
    pub(super) fn leave_pipe<K: Kernel<Pipe = P>>(
        &mut self,
        kernel: &mut K,
        relay_buffers: &mut RelayBuffers<K>,
    ) -> io::Result<usize> {
        let Held::Piped { pipe, bytes, .. } = &self.held else {
            debug_assert!(false, "it holds no pipe");
            return Ok(0);
        };
        let bytes = *bytes as usize;
        let leftover = relay_buffers.buffers.park_from(bytes, |room| kernel.empty_pipe(pipe, room))?;
        if let Held::Piped { pipe, place, .. } = std::mem::replace(&mut self.held, Held::Parked(leftover)) {
            relay_buffers.pipes.take_back(pipe, place);
        }
        self.has_stalled = true;
        self.pace = Pace::Trickle;
        Ok(bytes)
    }

    /// Gives up the bytes held. A pipe is destroyed with its bytes.
    pub(super) fn discard<K: Kernel<Pipe = P>>(&mut self, relay_buffers: &mut RelayBuffers<K>) {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing | Held::Scratch => {}
            Held::Parked(leftover) => relay_buffers.buffers.unpark(leftover),
            Held::Piped { pipe, place, .. } => relay_buffers.pipes.destroy_lent(pipe, place),
        }
    }
}

fn refused(error: &io::Error) -> Outcome {
    let kind = error.kind();
    if kind == io::ErrorKind::WouldBlock { Outcome::WouldBlock } else { Outcome::Failed(kind) }
}
