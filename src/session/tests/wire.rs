//! One of the two connections of a world.

use std::collections::VecDeque;
use std::io::ErrorKind;

use crate::base::ready::Ready;
use crate::base::time::Instant;
use crate::session::Outcome;

/// One connection of the session: the socket on our end of it and the peer on the other.
#[derive(Debug)]
pub(super) struct Wire {
    /// Bytes that the peer has sent, ever.
    pub(super) sent: Vec<u8>,
    /// Those of them in our receive queue.
    pub(super) incoming: VecDeque<u8>,
    /// The peer's FIN has come.
    pub(super) fin_in: bool,
    /// The connection was reset, by its peer.
    pub(super) dead: bool,
    /// The error that the kernel will report for that, once.
    pub(super) error: Option<ErrorKind>,
    /// Room in our send buffer.
    pub(super) room: usize,
    /// A write has met a full send buffer, so an event will report room (SOCK_NOSPACE).
    pub(super) short_of_room: bool,
    /// Written by us and not acknowledged. A reset destroys it.
    pub(super) in_flight: VecDeque<u8>,
    /// Whether the peer acknowledges at once.
    pub(super) acks: bool,
    /// Since when nothing reaches the peer any more.
    pub(super) vanished: Option<Instant>,
    /// When the oldest byte in flight was sent.
    pub(super) first_in_flight: Instant,
    /// Bytes that reached the peer.
    pub(super) received: Vec<u8>,
    /// When the last of them arrived.
    pub(super) taken_at: Instant,
    /// When our kernel last sent something again.
    pub(super) sent_again: Instant,
    /// We have sent our FIN.
    pub(super) fin_out: bool,
    /// A change that no event has reported yet.
    pub(super) edge: bool,
}

impl Wire {
    pub(super) fn new() -> Self {
        Self {
            sent: Vec::new(),
            incoming: VecDeque::new(),
            fin_in: false,
            dead: false,
            error: None,
            room: usize::MAX,
            short_of_room: false,
            in_flight: VecDeque::new(),
            acks: true,
            vanished: None,
            first_in_flight: Instant::default(),
            received: Vec::new(),
            taken_at: Instant::default(),
            sent_again: Instant::default(),
            fin_out: false,
            edge: true,
        }
    }

    pub(super) fn ready(&self) -> Ready {
        Ready {
            readable: !self.incoming.is_empty() || self.fin_in || self.dead,
            writable: self.room > 0 || self.dead,
            closing: self.fin_in || self.dead,
            failing: self.dead || (self.fin_in && self.fin_out),
        }
    }

    /// tcp_recvmsg: what is queued, then the end if a FIN came, then the error once, then zero for ever.
    pub(super) fn read(&mut self, buffer_len: usize) -> Result<Vec<u8>, Outcome> {
        if !self.incoming.is_empty() {
            let len = buffer_len.min(self.incoming.len());
            return Ok(self.incoming.drain(..len).collect());
        }
        match (self.fin_in, self.error.take_if(|_| !self.fin_in)) {
            (true, _) => Err(Outcome::Eof),
            (false, Some(error)) => Err(Outcome::Failed(error)),
            (false, None) if self.dead => Err(Outcome::Eof),
            (false, None) => Err(Outcome::WouldBlock),
        }
    }

    /// Bytes that a FIN follows at once wait for it.
    pub(super) fn write(&mut self, bytes: &[u8], fin_follows: bool, now: Instant) -> Outcome {
        assert!(!self.fin_out, "bytes behind our FIN");
        if self.dead {
            return Outcome::Failed(self.error.take().unwrap_or(ErrorKind::BrokenPipe));
        }
        let len = self.room.min(bytes.len());
        if len == 0 {
            self.short_of_room = true;
            return Outcome::WouldBlock;
        }
        self.room = if self.room == usize::MAX { self.room } else { self.room - len };
        if self.in_flight.is_empty() {
            self.first_in_flight = now;
        }
        self.in_flight.extend(&bytes[..len]);
        if self.acks && !(fin_follows && len == bytes.len()) {
            self.acknowledge(usize::MAX, now);
        }
        Outcome::Moved(len)
    }

    pub(super) fn acknowledge(&mut self, bytes: usize, now: Instant) {
        let bytes = if self.vanished.is_some() { 0 } else { bytes.min(self.in_flight.len()) };
        if bytes > 0 {
            self.taken_at = now;
        }
        self.received.extend(self.in_flight.drain(..bytes));
    }

    /// tcp_reset: EPIPE in CLOSE_WAIT, ECONNRESET elsewhere. The send buffer is gone, the receive queue stays.
    pub(super) fn reset(&mut self) {
        if !self.dead {
            let in_close_wait = self.fin_in && !self.fin_out;
            self.error = Some(if in_close_wait { ErrorKind::BrokenPipe } else { ErrorKind::ConnectionReset });
            self.dead = true;
            self.in_flight.clear();
            self.edge = true;
        }
    }

    pub(super) fn written(&self) -> usize {
        self.received.len() + self.in_flight.len()
    }
}
