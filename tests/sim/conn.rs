//! One TCP connection as Linux shows it to the owner of one end, and the network behind it.
//!
//! Results of calls follow tcp(7) and net/ipv4/tcp.c: bytes first, then an end that came as a FIN, then the error,
//! once; after it a read returns 0 as if the stream had ended. `tests/sim/conformance` compares it with the kernel of
//! this machine.

use std::collections::VecDeque;

use l4lb::base::ready::Ready;
use l4lb::session::CloseMode;
use l4lb::sys::Token;
use nix::libc;

use crate::greeting::Greeting;
use crate::hello::Hello;
use crate::negotiation::Negotiation;
use crate::peer::{Peer, Seen};
use crate::pipe::Pipe;
use crate::random::to_usize;
use crate::stream::Stream;

/// Nanoseconds of the simulation.
pub(crate) type Nanos = u64;

/// A packet from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// A segment of that many bytes.
    Data(u32),
    /// The end of the peer's stream.
    Fin,
    /// A reset.
    Rst,
}

/// The network's answer to a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The backend accepts.
    Accept,
    /// The dial fails with this error.
    Refuse(i32),
    /// Nothing, ever.
    Silence,
    /// Nothing listens, and the source port is the same.
    Itself,
}

/// When written bytes may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// Now.
    Now,
    /// Together with the FIN that follows: MSG_MORE of send(2).
    WithFin,
}

/// The progress of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// We dial.
    Dialing(Answer),
    /// In an accept queue.
    Queued,
    /// Connected, or once was.
    Open,
}

/// Our descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Descriptor {
    /// Not accepted yet.
    NotYet,
    /// Ours.
    Open,
    /// Given back, and how.
    Closed(CloseMode),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) stage: Stage,
    pub(crate) descriptor: Descriptor,
    /// The worker that accepted or dialed it, or was handed it.
    pub(crate) worker: usize,
    pub(crate) token: Option<Token>,
    /// A change that no event has reported yet.
    pub(crate) edge: bool,

    /// What the peer sends first, where it is a balancer in front.
    pub(crate) greeting: Greeting,
    /// What it says of encryption behind that.
    pub(crate) negotiation: Negotiation,
    /// What its stream begins with behind that.
    pub(crate) hello: Hello,
    /// A worker has looked at a part of it after a reset, behind which nothing comes.
    pub(crate) has_left_its_hello: bool,
    /// Its socket has the address of a balancer in front.
    pub(crate) is_behind: bool,
    /// It comes from a network that the lists of the listeners name.
    pub(crate) is_listed: bool,
    /// The bytes that the peer sends behind it.
    pub(crate) stream: Stream,
    /// Bytes that the peer has sent, those of the greeting and of the negotiation included.
    pub(crate) sent: u64,
    /// Packets in flight to us.
    pub(crate) flight: VecDeque<Packet>,
    /// Bytes that came.
    pub(crate) arrived: u64,
    /// The part of them that we have read.
    pub(crate) read: u64,
    /// The unread bytes, in the segments in which they came.
    segments: VecDeque<u32>,
    pub(crate) fin_in: bool,

    /// Keepalive was asked for.
    pub(crate) kept_alive: bool,
    /// Bytes that we have written, a header included.
    pub(crate) written: u64,
    /// The header that its peer must get before the bytes of the other side.
    pub(crate) header: Vec<u8>,
    /// The last so many of them wait for the announced FIN. Linux would not wait for ever.
    pub(crate) corked: u64,
    /// The part of them that the peer's kernel has acknowledged.
    pub(crate) delivered: u64,
    pub(crate) fin_out: bool,
    pub(crate) fin_delivered: bool,
    /// The size of our send buffer.
    pub(crate) send_buffer: u64,
    /// A write has met a full send buffer, perhaps with a part of its bytes, so room will be reported (SOCK_NOSPACE).
    short_of_room: bool,
    reset_out: bool,
    unacked_since: Nanos,

    /// The connection was reset or given up by the kernel.
    pub(crate) dead: bool,
    /// The error that the kernel will report for that, once.
    pub(crate) error: Option<i32>,
    /// Since when nothing passes either way.
    pub(crate) vanished: Option<Nanos>,

    pub(crate) peer: Peer,
    /// The connection that it is paired with, once both are watched.
    pub(crate) partner: Option<usize>,
    /// When a byte or an end last went through it.
    pub(crate) moved: Nanos,
    /// When the session of a client began.
    pub(crate) opened: Nanos,
    /// When the peer's kernel last accepted bytes of ours.
    pub(crate) taken_at: Nanos,
    /// When a worker last learned of an end or of an error.
    pub(crate) noted_at: Option<Nanos>,
    /// When a worker last learned that something waits for the peer.
    pub(crate) waited_at: Nanos,
    /// When a worker learned that its dial has connected.
    pub(crate) connected_at: Option<Nanos>,
    /// When it was dialed or came.
    pub(crate) born: Nanos,
    /// The ports that we have dialed for it.
    pub(crate) dialed: Vec<u16>,
    /// The same, and those that belong to other backends by now.
    pub(crate) dialed_ever: Vec<u16>,
    /// Whether a drain found it in an accept queue.
    pub(crate) queued_at_drain: bool,
    /// The port of the backend that we have dialed.
    pub(crate) dialed_port: Option<u16>,
    /// epoll had no room for it.
    pub(crate) is_unwatchable: bool,
    /// It has connected to itself.
    pub(crate) is_itself: bool,
    /// Whether its last bytes were read by splice.
    pub(crate) by_splice: Option<bool>,
    /// The backend's answer if it turns out to be a check.
    pub(crate) literal: Option<&'static [u8]>,
}

/// Like a system call: a count, or an errno.
pub(crate) type Called<T> = Result<T, i32>;

impl Conn {
    pub(crate) fn new(stage: Stage, stream: Stream, peer: Peer, send_buffer: u64, now: Nanos) -> Self {
        let descriptor = if stage == Stage::Queued { Descriptor::NotYet } else { Descriptor::Open };
        Self {
            stage,
            descriptor,
            worker: 0,
            token: None,
            edge: false,
            greeting: Greeting::default(),
            negotiation: Negotiation::default(),
            hello: Hello::default(),
            has_left_its_hello: false,
            is_behind: false,
            is_listed: false,
            stream,
            sent: 0,
            flight: VecDeque::new(),
            arrived: 0,
            read: 0,
            segments: VecDeque::new(),
            fin_in: false,
            kept_alive: false,
            written: 0,
            header: Vec::new(),
            corked: 0,
            delivered: 0,
            fin_out: false,
            fin_delivered: false,
            send_buffer,
            short_of_room: false,
            reset_out: false,
            unacked_since: 0,
            dead: false,
            error: None,
            vanished: None,
            peer,
            partner: None,
            moved: now,
            opened: now,
            taken_at: now,
            noted_at: None,
            waited_at: now,
            connected_at: None,
            born: now,
            dialed: Vec::new(),
            dialed_ever: Vec::new(),
            queued_at_drain: false,
            dialed_port: None,
            is_unwatchable: false,
            is_itself: false,
            by_splice: None,
            literal: None,
        }
    }

    // --- events ----------------------------------------------------------------------------------------------------

    /// Returns the readiness that an event would report now.
    pub(crate) fn ready(&self) -> Ready {
        if let Stage::Dialing(_) = self.stage
            && !self.dead
        {
            return Ready::default();
        }
        Ready {
            readable: self.unread() > 0 || self.fin_in || self.dead,
            writable: self.room() * 3 >= self.send_buffer || self.fin_out || self.dead,
            closing: self.fin_in || self.dead,
            failing: self.dead || (self.fin_in && self.fin_out),
        }
    }

    /// Returns the result of poll(2). Room that is not reported yet does not count.
    pub(crate) fn state(&self) -> Ready {
        let ready = self.ready();
        Ready {
            writable: ready.writable && (self.dead || !self.short_of_room),
            failing: self.error.is_some(),
            ..ready
        }
    }

    pub(crate) fn unread(&self) -> u64 {
        self.arrived - self.read
    }

    /// Returns whether it died before all its bytes were read.
    pub(crate) fn has_left_bytes(&self) -> bool {
        self.dead && self.unread() > 0
    }

    /// Returns how many bytes it sends that belong to no stream.
    pub(crate) fn prefix(&self) -> u64 {
        self.greeting.len() + self.negotiation.len()
    }

    /// Returns how many of its first `bytes` are behind the greeting and the negotiation.
    pub(crate) fn payload(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.prefix())
    }

    /// Writes what the peer has sent from `position` on into `buffer`.
    pub(crate) fn copy_to(&self, position: u64, buffer: &mut [u8]) {
        if position >= self.prefix() {
            return self.stream.read(self.payload(position), buffer);
        }
        let prefix = [&self.greeting.bytes[..], &self.negotiation.bytes].concat();
        let rest = &prefix[to_usize(position)..];
        let (ours, behind) = buffer.split_at_mut(buffer.len().min(rest.len()));
        ours.copy_from_slice(&rest[..ours.len()]);
        self.stream.read(0, behind);
    }

    /// recv(2) with MSG_PEEK of at most `len` bytes.
    pub(crate) fn peek(&mut self, len: u64, now: Nanos) -> Called<u64> {
        self.check_answered()?;
        if self.unread() == 0 {
            return self.read_end(now);
        }
        Ok(len.min(self.unread()))
    }

    /// Returns the bytes written behind the header.
    pub(crate) fn relayed(&self) -> u64 {
        self.written.saturating_sub(self.header.len() as u64)
    }

    fn room(&self) -> u64 {
        self.send_buffer - (self.written - self.delivered)
    }

    // --- system calls ----------------------------------------------------------------------------------------------

    /// read(2) of at most `len` bytes.
    pub(crate) fn read(&mut self, len: u64, now: Nanos) -> Called<u64> {
        self.check_answered()?;
        if self.unread() == 0 {
            return self.read_end(now);
        }
        let taken = len.min(self.unread());
        self.take_segments(taken);
        self.moved = now;
        Ok(taken)
    }

    /// tcp_recvmsg with an empty queue: an end that came as a FIN, then the error once, then 0 for ever.
    fn read_end(&mut self, now: Nanos) -> Called<u64> {
        if self.fin_in || self.dead {
            self.noted_at = Some(now);
        }
        if self.fin_in {
            return Ok(0);
        }
        match self.error.take() {
            Some(error) => Err(error),
            None if self.dead => Ok(0),
            None => Err(libc::EAGAIN),
        }
    }

    fn take_segments(&mut self, mut bytes: u64) {
        self.read += bytes;
        while bytes > 0 {
            let first = self.segments.front_mut().expect("as many bytes as segments");
            let taken = bytes.min(u64::from(*first));
            *first -= u32::try_from(taken).expect("at most the segment");
            bytes -= taken;
            if *first == 0 {
                self.segments.pop_front();
            }
        }
    }

    /// write(2) of `len` bytes.
    pub(crate) fn write(&mut self, len: u64, push: Push, now: Nanos) -> Called<u64> {
        self.check_writable(now)?;
        let taken = len.min(self.room());
        self.corked = match push {
            Push::WithFin if taken == len => self.corked + taken,
            Push::WithFin | Push::Now => 0,
        };
        if taken < len {
            self.meet_full_buffer();
        }
        if taken == 0 {
            return Err(libc::EAGAIN);
        }
        if self.written == self.delivered {
            self.unacked_since = now;
        }
        self.written += taken;
        self.moved = now;
        Ok(taken)
    }

    /// Before a dial is answered there is nothing to read and no room to write.
    fn check_answered(&self) -> Called<()> {
        let is_dialing = matches!(self.stage, Stage::Dialing(_)) && !self.dead;
        if is_dialing { Err(libc::EAGAIN) } else { Ok(()) }
    }

    fn check_writable(&mut self, now: Nanos) -> Called<()> {
        self.check_answered()?;
        if self.dead {
            self.noted_at = Some(now);
        }
        match self.error.take() {
            Some(error) => Err(error),
            None if self.dead || self.fin_out => Err(libc::EPIPE),
            None => Ok(()),
        }
    }

    /// Reports room once there is enough, which may be at once.
    pub(crate) fn meet_full_buffer(&mut self) {
        self.short_of_room = true;
    }

    /// splice(2) into a pipe: a slot for each segment, and a full pipe hides what the socket has, even its end.
    pub(crate) fn splice_in(&mut self, id: usize, pipe: &mut Pipe, len: u64, now: Nanos) -> Called<u64> {
        if pipe.is_full() {
            return Err(libc::EAGAIN);
        }
        if self.unread() == 0 {
            return self.read_end(now);
        }
        let mut moved = 0;
        let len = len.min(pipe.call_max());
        while moved < len
            && !pipe.is_full()
            && let Some(&segment) = self.segments.front()
        {
            let taken = u64::from(segment).min(len - moved);
            pipe.push(id, self.payload(self.read), taken);
            self.take_segments(taken);
            moved += taken;
        }
        self.moved = now;
        Ok(moved)
    }

    /// getsockopt(2) SO_ERROR.
    pub(crate) fn take_error(&mut self, now: Nanos) -> Option<i32> {
        if self.error.is_some() {
            self.noted_at = Some(now);
        }
        self.error.take()
    }

    /// shutdown(2) for writing.
    pub(crate) fn shutdown_write(&mut self, now: Nanos) -> Called<()> {
        // inet_shutdown wakes all waiters, whatever its result.
        self.edge = true;
        if self.dead || self.stage != Stage::Open {
            self.noted_at = Some(now);
            return Err(libc::ENOTCONN);
        }
        if self.written == self.delivered {
            self.unacked_since = now;
        }
        self.fin_out = true;
        self.corked = 0;
        self.moved = now;
        Ok(())
    }

    /// SIOCOUTQ: a FIN takes one.
    pub(crate) fn unacked(&self) -> u64 {
        self.written - self.delivered + u64::from(self.fin_out && !self.fin_delivered)
    }

    /// Returns for how long the peer's kernel has left transmissions unanswered.
    pub(crate) fn silence(&self, now: Nanos) -> Option<Nanos> {
        (self.unacked() > 0 && !self.dead)
            .then(|| self.vanished.map_or(0, |since| now - since.max(self.unacked_since)))
    }

    /// close(2). With unread bytes it is a reset, and so it is with SO_LINGER of zero.
    pub(crate) fn close(&mut self, close_mode: CloseMode) {
        self.descriptor = Descriptor::Closed(close_mode);
        self.token = None;
        if self.dead || matches!(self.stage, Stage::Dialing(_)) {
            return;
        }
        if close_mode == CloseMode::Reset || self.unread() > 0 {
            self.reset_out = true;
        } else {
            self.fin_out = true;
            self.corked = 0;
        }
    }

    // --- the network -----------------------------------------------------------------------------------------------

    /// The dial is answered.
    pub(crate) fn answer(&mut self) {
        let Stage::Dialing(answer) = self.stage else { return };
        if self.dead {
            return;
        }
        match answer {
            Answer::Silence => return,
            Answer::Accept => self.stage = Stage::Open,
            Answer::Itself => {
                self.stage = Stage::Open;
                self.is_itself = true;
            }
            Answer::Refuse(error) => {
                self.error = Some(error);
                self.dead = true;
            }
        }
        self.edge = true;
    }

    /// Delivers the next packet; returns false when there is none.
    pub(crate) fn arrive(&mut self) -> bool {
        if self.vanished.is_some() || matches!(self.stage, Stage::Dialing(_)) {
            return false;
        }
        let Some(packet) = self.flight.pop_front() else { return false };
        let is_closed = matches!(self.descriptor, Descriptor::Closed(_));
        match packet {
            Packet::Rst => self.die_of_reset(),
            // The socket is closed: the kernel answers with a reset.
            Packet::Data(_) if is_closed => self.reset_out = true,
            Packet::Data(_) | Packet::Fin if self.dead => {}
            Packet::Data(bytes) => {
                self.arrived += u64::from(bytes);
                self.segments.push_back(bytes);
                self.edge = true;
            }
            Packet::Fin => {
                self.fin_in = true;
                self.edge = true;
            }
        }
        true
    }

    /// tcp_reset: EPIPE in CLOSE_WAIT, ECONNRESET elsewhere. The send buffer is gone, the receive queue stays.
    /// A connection that has ended both ways has nothing left to be reset.
    fn die_of_reset(&mut self) {
        if self.fin_in && self.fin_delivered {
            return;
        }
        let in_close_wait = self.fin_in && !self.fin_out;
        self.die(if in_close_wait { libc::EPIPE } else { libc::ECONNRESET });
    }

    /// The kernel gives the connection up.
    pub(crate) fn die(&mut self, error: i32) {
        if !self.dead {
            self.dead = true;
            self.error = Some(error);
            self.edge = true;
        }
    }

    /// Delivers up to `bytes` of the written bytes to the peer's kernel, and the end or the reset behind them; returns
    /// false when there is nothing to deliver.
    pub(crate) fn deliver(&mut self, bytes: u64, now: Nanos) -> bool {
        if self.vanished.is_some() || self.dead || self.stage != Stage::Open {
            return false;
        }
        if self.reset_out {
            self.peer.seen = Seen::Reset;
            self.dead = true;
            return true;
        }
        let window = self.peer.window.saturating_sub(self.delivered - self.peer.received);
        let passed = bytes.min(self.written - self.corked - self.delivered).min(window);
        if passed > 0 && self.peer.is_gone() {
            self.die_of_reset();
            return true;
        }
        self.delivered += passed;
        if passed > 0 {
            self.taken_at = now;
        }
        let tells_room = self.short_of_room && self.room() * 3 >= self.send_buffer;
        if tells_room {
            self.short_of_room = false;
            self.edge = true;
        }
        let ends = self.fin_out && !self.fin_delivered && self.delivered == self.written;
        self.fin_delivered |= ends;
        // FIN_WAIT2, or the end of LAST_ACK: sk_state_change.
        self.edge |= ends;
        passed > 0 || ends
    }

    /// Returns whether nothing can happen to it any more.
    pub(crate) fn is_over(&self) -> bool {
        let is_closed = matches!(self.descriptor, Descriptor::Closed(_));
        let unanswered = matches!(self.stage, Stage::Dialing(_));
        let reported = self.peer.seen != Seen::Open || self.peer.is_gone();
        let stuck = self.dead || unanswered || self.vanished.is_some();
        is_closed && (stuck || (self.fin_delivered && reported && self.flight.is_empty()))
    }
}
