//! The application at the far end of a connection: what it sends, how it reads, how it ends.

use l4lb::base::rng::Rng;

use crate::conn::{Conn, Packet, Stage};

/// How a peer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its FIN follows its last byte.
    Fin,
    /// Its FIN follows its last byte and ours.
    FinAfterFin,
    /// It resets once it has sent that many bytes.
    Reset { after: u64 },
    /// It closes once it has sent that many bytes, and later bytes are answered with a reset.
    Close { after: u64 },
    /// It never ends.
    Never,
}

/// How a peer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// All there is.
    Eager,
    /// A little at a time.
    Slow,
    /// Nothing.
    Stopped,
}

/// The end of our stream as a peer has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Neither.
    Open,
    /// Our FIN, behind every byte.
    Fin,
    /// A reset.
    Reset,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Bytes that it sends in all.
    pub(crate) total: u64,
    /// It sends only after having read that many.
    pub(crate) after_received: u64,
    pub(crate) ending: Ending,
    pub(crate) reading: Reading,
    /// The size of its receive buffer.
    pub(crate) window: u64,
    /// Bytes that it has read.
    pub(crate) received: u64,
    pub(crate) seen: Seen,
    /// Its FIN is sent.
    pub(crate) has_ended: bool,
    /// It has reset or closed: its kernel answers bytes with a reset.
    left: bool,
}

impl Peer {
    pub(crate) fn new(
        total: u64,
        after_received: u64,
        ending: Ending,
        reading: Reading,
        window: u64,
    ) -> Self {
        Self {
            total,
            after_received,
            ending,
            reading,
            window,
            received: 0,
            seen: Seen::Open,
            has_ended: false,
            left: false,
        }
    }

    /// One that sends that many bytes, reads all and ends by a FIN.
    pub(crate) fn well_behaved(total: u64) -> Self {
        Self::new(total, 0, Ending::Fin, Reading::Eager, 1 << 18)
    }

    /// Makes it send that many bytes in all, and end by then.
    pub(crate) fn sends(&mut self, total: u64) {
        self.total = total;
        if let Ending::Reset { after } | Ending::Close { after } = &mut self.ending {
            *after = total.min(*after);
        }
    }

    /// Whether it has left the connection altogether.
    pub(crate) fn is_gone(&self) -> bool {
        self.left
    }

    /// Makes it behave from now on: it reads everything, sends the rest, and its FIN.
    pub(crate) fn behaves(&mut self) {
        self.reading = Reading::Eager;
        self.window = self.window.max(1 << 18);
        self.after_received = 0;
        if !matches!(self.ending, Ending::Reset { .. } | Ending::Close { .. }) {
            self.ending = Ending::Fin;
        }
    }
}

impl Conn {
    /// Lets the peer act, if there is something to do.
    pub(crate) fn peer_acts(&mut self, rng: &mut Rng) -> bool {
        if self.peer.left || self.peer.seen == Seen::Reset || matches!(self.stage, Stage::Dialing(_)) {
            return false;
        }
        let reads = self.peer_reads(rng);
        let sends = self.peer_sends(rng);
        self.peer_ends() || sends || reads
    }

    fn peer_reads(&mut self, rng: &mut Rng) -> bool {
        let there = self.delivered - self.peer.received;
        let read = match self.peer.reading {
            Reading::Eager => there,
            Reading::Slow => there.min(1 + rng.below(100)),
            Reading::Stopped => 0,
        };
        self.peer.received += read;
        let ends = self.peer.seen == Seen::Open
            && self.fin_delivered
            && self.peer.received == self.delivered
            && self.peer.reading != Reading::Stopped;
        if ends {
            self.peer.seen = Seen::Fin;
        }
        read > 0 || ends
    }

    fn peer_sends(&mut self, rng: &mut Rng) -> bool {
        let greets = self.sent < self.opening_len();
        let mut left = self.peer.total - self.sent;
        if greets && self.peer.received < self.peer.after_received {
            left = self.opening_len() - self.sent;
        }
        let waits = !greets && self.peer.received < self.peer.after_received;
        left = left.min(self.may_have_sent().saturating_sub(self.sent));
        if left == 0 || self.peer.has_ended || waits {
            return false;
        }
        let most = match rng.below(4) {
            0 => 1,
            1 => 100,
            2 => 1_448,
            _ => 64 * 1024,
        };
        let len = left.min(1 + rng.below(most));
        self.sent += len;
        self.flight.push_back(Packet::Data(u32::try_from(len).expect("a segment")));
        true
    }

    fn peer_ends(&mut self) -> bool {
        let all_sent = self.sent == self.peer.total;
        match self.peer.ending {
            Ending::Fin => all_sent && self.peer_fins(),
            Ending::FinAfterFin => all_sent && self.peer.seen == Seen::Fin && self.peer_fins(),
            Ending::Reset { after } => self.sent >= after && self.peer_resets(),
            Ending::Close { after } => self.sent >= after && self.peer_closes(),
            Ending::Never => false,
        }
    }

    /// The peer ends its stream. The end follows what it has sent.
    pub(crate) fn peer_fins(&mut self) -> bool {
        let first = !std::mem::replace(&mut self.peer.has_ended, true);
        if first {
            self.flight.push_back(Packet::Fin);
        }
        first
    }

    /// The peer closes: a reset if it has not read all that came (RFC 2525, 2.17), an end otherwise.
    pub(crate) fn peer_closes(&mut self) -> bool {
        if self.peer.received < self.delivered {
            return self.peer_resets();
        }
        let first = !std::mem::replace(&mut self.peer.left, true);
        self.peer_fins() || first
    }

    /// The peer resets the connection. The reset follows what it has sent.
    pub(crate) fn peer_resets(&mut self) -> bool {
        let first = !std::mem::replace(&mut self.peer.left, true);
        if first {
            self.peer.has_ended = true;
            self.flight.push_back(Packet::Rst);
        }
        first
    }
}
