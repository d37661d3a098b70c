//! One end of a connection, which does its part of the script and looks at every byte that comes. Clients and backends
//! are the same here.
//!
//! What is asked of the balancer is what TCP lets one end know. A reset may overtake bytes that its sender has not seen
//! acknowledged, so behind one a prefix is enough; but bytes that were acknowledged before have to come, and an end of
//! stream may only ever come right behind the last byte.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::time::Duration;

use l4lb::base::hash::avalanche;
use l4lb::base::rng::Rng;
use l4lb::session::Side;
use l4lb::sys::{Kernel, Linux};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio::try_join;

use crate::books::{Books, Fault, Mismatch};
use crate::script::{Begin, Due, Leave, Pace, Part, Script};
use crate::stream::{HEADER_LEN, SLICE_MAX, Scratch, Stream, header};

/// How long a connection may take. Far longer than it does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE_MAX_MS: u64 = 8;
/// How long a reader that is late lets the bytes pile up.
const LATE: Duration = Duration::from_millis(150);
/// How often a sender asks whether its bytes are acknowledged.
const ACKNOWLEDGED_POLL: Duration = Duration::from_millis(1);

/// What all ends of all connections share. One thread runs them all.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) resets: bool,
    pub(crate) books: RefCell<Books>,
    scratch: RefCell<Scratch>,
    came: RefCell<Vec<u8>>,
    /// Knows how to ask what is unacknowledged.
    kernel: RefCell<Linux>,
}

impl World {
    pub(crate) fn new(seed: u64, resets: bool, connections: usize) -> io::Result<Self> {
        Ok(Self {
            seed,
            resets,
            books: RefCell::new(Books::new(connections)),
            scratch: RefCell::new(Scratch::new()),
            came: RefCell::new(vec![0; SLICE_MAX]),
            kernel: RefCell::new(Linux::new()?),
        })
    }
}

/// How a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Fin,
    Reset,
}

/// One end of a connection.
pub(crate) struct Wire<'a> {
    world: &'a World,
    side: Side,
    id: u64,
    script: Script,
    socket: TcpStream,
    /// Bytes behind the header.
    sent: Cell<u64>,
    received: Cell<u64>,
    /// A call has met the reset. The kernel reports it once; a read after it looks like an end of stream.
    reset_met: Cell<bool>,
    ended: Cell<Option<Ending>>,
}

/// Resets the connection when `socket` is closed.
pub(crate) fn close_by_reset(world: &World, side: Side, socket: &SockRef<'_>) {
    // It fails for a connection that is dead already, which the other end's books will show.
    let _dead = socket.set_linger(Some(Duration::ZERO));
    world.books.borrow_mut().resets[side as usize] += 1;
}

impl<'a> Wire<'a> {
    pub(crate) fn new(world: &'a World, side: Side, id: u64, script: Script, socket: TcpStream) -> Self {
        Self {
            world,
            side,
            id,
            script,
            socket,
            sent: Cell::new(0),
            received: Cell::new(0),
            reset_met: Cell::new(false),
            ended: Cell::new(None),
        }
    }

    /// Does its part, closes the connection and enters it into the books.
    pub(crate) async fn live(self) {
        let result = timeout(PATIENCE, self.carry_out()).await;
        let result = result.unwrap_or_else(|_| Err(self.mismatch(Fault::Stalled)));
        let (mut sent, mut received, kind) = (self.sent.get(), self.received.get(), self.script.kind);
        if kind.has_header() {
            match self.side {
                Side::Client => sent += HEADER_LEN as u64,
                Side::Backend => received += HEADER_LEN as u64,
            }
        }
        let mut books = self.world.books.borrow_mut();
        books.on_over(self.side, kind, sent, received);
        if let Err(mismatch) = result {
            books.on_mismatch(self.side, Some(kind), Some(self.id), &mismatch);
        }
    }

    async fn carry_out(&self) -> Result<(), Mismatch> {
        let part = self.part();
        if self.side == Side::Client && self.script.kind.has_header() {
            self.send_header().await?;
        }
        match part.begins {
            Begin::AtOnce => {}
            Begin::BehindBytes => self.receive(part.awaits).await?,
            Begin::BehindEnd => self.receive(u64::MAX).await?,
        }
        match part.leaves {
            Leave::Fin => {
                try_join!(self.send_and_fin(), self.receive(u64::MAX))?;
                self.judge_ending()
            }
            Leave::FinBehindBytes => {
                try_join!(self.send(), self.receive(part.awaits))?;
                self.fin();
                self.receive(u64::MAX).await?;
                self.judge_ending()
            }
            Leave::Reset { reads, acknowledged } => {
                self.send().await?;
                self.receive(reads).await?;
                self.expect_alive()?;
                if acknowledged {
                    self.wait_until_acknowledged().await?;
                }
                close_by_reset(self.world, self.side, &SockRef::from(&self.socket));
                Ok(())
            }
            Leave::CloseUnread => {
                self.send().await?;
                self.expect_alive()
            }
        }
    }

    async fn send_header(&self) -> Result<(), Mismatch> {
        let slice = usize::try_from(self.part().pace.slice_max).unwrap_or(HEADER_LEN);
        for bytes in header(self.world.seed, self.id).chunks(slice) {
            let mut rest = bytes;
            while !rest.is_empty() {
                self.socket.writable().await.map_err(|error| self.failed(&error))?;
                match self.socket.try_write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(self.failed(&error)),
                }
            }
        }
        Ok(())
    }

    async fn send_and_fin(&self) -> Result<(), Mismatch> {
        self.send().await?;
        self.fin();
        Ok(())
    }

    /// Sends all bytes of its stream, or as many as it can before the connection is reset.
    async fn send(&self) -> Result<(), Mismatch> {
        let (stream, mut rhythm) = (self.stream_of(self.side), self.rhythm(0));
        while self.sent.get() < self.part().sends && !self.reset_met.get() {
            let (at, slice) = (self.sent.get(), rhythm.slice(self.part().sends - self.sent.get()));
            let written = self.socket.try_write(self.world.scratch.borrow_mut().bytes(stream, at, slice));
            match written {
                Ok(written) => self.sent.set(at + written as u64),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.socket.writable().await.map_err(|error| self.failed(&error))?;
                    continue;
                }
                Err(error) if is_reset(&error) => self.reset_met.set(true),
                Err(error) => return Err(self.failed(&error)),
            }
            rhythm.pause().await;
        }
        Ok(())
    }

    /// Receives up to byte `until`, or to the end of the stream.
    async fn receive(&self, until: u64) -> Result<(), Mismatch> {
        let (stream, mut rhythm) = (self.stream_of(self.side.other()), self.rhythm(1));
        if self.part().reads_late && self.received.get() == 0 {
            sleep(LATE).await;
        }
        while self.received.get() < until && self.ended.get().is_none() {
            let slice = rhythm.slice(until - self.received.get());
            let read = self.socket.try_read(&mut self.world.came.borrow_mut()[..slice]);
            match read {
                Ok(0) if self.reset_met.get() => self.ended.set(Some(Ending::Reset)),
                Ok(0) => self.ended.set(Some(Ending::Fin)),
                Ok(bytes) => self.check(stream, bytes)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.socket.readable().await.map_err(|error| self.failed(&error))?;
                    continue;
                }
                Err(error) if is_reset(&error) => {
                    self.reset_met.set(true);
                    self.ended.set(Some(Ending::Reset));
                }
                Err(error) => return Err(self.failed(&error)),
            }
            rhythm.pause().await;
        }
        Ok(())
    }

    /// Compares what came with what is due.
    fn check(&self, stream: Stream, bytes: usize) -> Result<(), Mismatch> {
        let at = self.received.get();
        self.received.set(at + bytes as u64);
        if self.received.get() > self.part().awaits {
            return Err(self.mismatch(Fault::ByteTooMuch));
        }
        let came = self.world.came.borrow();
        match self.world.scratch.borrow_mut().first_wrong(stream, at, &came[..bytes]) {
            None => Ok(()),
            Some(place) => {
                Err(Mismatch::new(Fault::WrongByte, format!("at byte {place} of what it received")))
            }
        }
    }

    fn fin(&self) {
        // It fails for a connection that was reset, which the next read reports.
        let _reset = SockRef::from(&self.socket).shutdown(Shutdown::Write);
    }

    /// A side that leaves without a look at the end may not have been reset before.
    fn expect_alive(&self) -> Result<(), Mismatch> {
        match self.ended.get() {
            Some(Ending::Fin) if self.received.get() < self.part().awaits => {
                Err(self.mismatch(Fault::Truncated))
            }
            _ if self.reset_met.get() => Err(self.mismatch(Fault::ResetTooMuch)),
            Some(_) | None => Ok(()),
        }
    }

    fn judge_ending(&self) -> Result<(), Mismatch> {
        let is_complete = self.received.get() == self.part().awaits;
        let fault = match (self.part().due, self.ended.get()) {
            (_, None) => Fault::Failed,
            (Due::End | Due::EndOrReset, Some(Ending::Fin)) if is_complete => return Ok(()),
            (Due::End | Due::EndOrReset, Some(Ending::Fin)) => Fault::Truncated,
            (Due::End, Some(Ending::Reset)) => Fault::ResetTooMuch,
            (Due::EndOrReset, Some(Ending::Reset)) => return Ok(()),
            (Due::Reset { .. }, Some(Ending::Fin)) => Fault::NoReset,
            (Due::Reset { at_least }, Some(Ending::Reset)) if self.received.get() < at_least => {
                Fault::AcknowledgedLost
            }
            (Due::Reset { .. }, Some(Ending::Reset)) => return Ok(()),
        };
        Err(self.mismatch(fault))
    }

    async fn wait_until_acknowledged(&self) -> Result<(), Mismatch> {
        while self.unacknowledged()? > 0 {
            sleep(ACKNOWLEDGED_POLL).await;
        }
        Ok(())
    }

    fn unacknowledged(&self) -> Result<u32, Mismatch> {
        let socket = SockRef::from(&self.socket);
        self.world.kernel.borrow_mut().unacked(&socket).map_err(|error| self.failed(&error))
    }

    fn part(&self) -> &Part {
        &self.script.parts[self.side as usize]
    }

    fn stream_of(&self, sender: Side) -> Stream {
        Stream::of(self.world.seed, self.id, sender.outward())
    }

    fn rhythm(&self, half: u64) -> Rhythm {
        let end = self.id * 4 + self.side as u64 * 2 + half;
        let pace = self.part().pace;
        Rhythm { rng: Rng::new(avalanche(self.world.seed ^ avalanche(end))), pace, pauses: 0 }
    }

    fn mismatch(&self, fault: Fault) -> Mismatch {
        let (sent, received, part) = (self.sent.get(), self.received.get(), self.part());
        let (sends, awaits, ended) = (part.sends, part.awaits, self.ended.get());
        let detail = format!("sent {sent} of {sends}, received {received} of {awaits}, ended: {ended:?}");
        Mismatch::new(fault, detail)
    }

    fn failed(&self, error: &io::Error) -> Mismatch {
        let Mismatch { fault, detail } = self.mismatch(Fault::Failed);
        Mismatch::new(fault, format!("{error}; {detail}"))
    }
}

/// A write returns EPIPE when the reset was reported before, or came behind the end of the stream.
fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Slices and pauses of one direction.
struct Rhythm {
    rng: Rng,
    pace: Pace,
    pauses: u32,
}

impl Rhythm {
    /// Bytes for the next call, at most `left`.
    fn slice(&mut self, left: u64) -> usize {
        let drawn = 1 + self.rng.below(self.pace.slice_max);
        usize::try_from(drawn.min(left)).map_or(SLICE_MAX, |slice| slice.min(SLICE_MAX))
    }

    async fn pause(&mut self) {
        let Pace { pause_one_in, pauses_max, .. } = self.pace;
        if self.pauses < pauses_max && pause_one_in > 0 && self.rng.below(pause_one_in) == 0 {
            self.pauses += 1;
            sleep(Duration::from_millis(1 + self.rng.below(PAUSE_MAX_MS))).await;
        }
    }
}
