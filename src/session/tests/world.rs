//! Two TCP connections as Linux shows them to their owner, a session between them, and a clock.
//! Every step is one action of a peer, the network or time; then its events are delivered and the machine runs until it
//! waits. Inside [`World::at_once`] the events of all steps arrive as one.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::Duration;

use crate::base::ready::Ready;
use crate::base::time::Instant;
use crate::session::tests::wire::Wire;
use crate::session::{CloseMode, CloseReason, Direction, End, Expiry, Op, Outcome, Session, Side, Timeouts};

pub(super) const CONNECT: Duration = Duration::from_secs(5);
pub(super) const IDLE: Duration = Duration::from_secs(3600);
pub(super) const HALF_CLOSE: Duration = Duration::from_secs(30);
pub(super) const USER: Duration = Duration::from_secs(20);

/// No event is worth that many ops here: the machine would be spinning.
const OPS_PER_EVENT: usize = 20_000;
/// No wait in a test takes that many timers.
const TIMERS_PER_WAIT: usize = 20_000;

pub(super) struct World {
    session: Session,
    wires: [Wire; 2],
    conduits: [VecDeque<u8>; 2],
    /// What the backend reads first.
    header: Vec<u8>,
    /// The writes to the backend, in bytes.
    writes: Vec<usize>,
    now: Instant,
    read_len: usize,
    holding: bool,
    /// Fills that the machine may still do, as the budget of a turn.
    fills_left: usize,
    fills: [usize; 2],
    settles: usize,
}

/// A session that dials its backend.
pub(super) fn dialing() -> World {
    dialing_with(None)
}

fn dialing_with(user_timeout: Option<Duration>) -> World {
    let now = Instant::from_nanos(1_000_000_000);
    let mut world = World {
        session: Session::new(Timeouts::new(CONNECT, IDLE, HALF_CLOSE, user_timeout), now),
        wires: [Wire::new(), Wire::new()],
        conduits: [VecDeque::new(), VecDeque::new()],
        header: Vec::new(),
        writes: Vec::new(),
        now,
        read_len: 1024,
        holding: false,
        fills_left: usize::MAX,
        fills: [0; 2],
        settles: 0,
    };
    world.deliver(Side::Client);
    world
}

/// A session with a connected backend.
pub(super) fn relay() -> World {
    dialing().connects()
}

/// A session with a connected backend that probes its peers every [`USER`].
pub(super) fn probing_relay() -> World {
    probing_relay_behind(b"")
}

/// The same with a header for the backend.
pub(super) fn probing_relay_behind(header: &[u8]) -> World {
    dialing_with(Some(USER)).connects_behind(header)
}

impl World {
    pub(super) fn connects(self) -> Self {
        self.connects_behind(b"")
    }

    /// The backend is connected, and reads this header first.
    pub(super) fn connects_behind(mut self, header: &[u8]) -> Self {
        self.session.on_connected(self.now);
        if !header.is_empty() {
            self.session.on_preface(u16::try_from(header.len()).expect("a short header"));
            self.conduits[Direction::ToBackend as usize].extend(header);
            self.header = header.to_vec();
        }
        self.deliver(Side::Backend);
        self
    }

    pub(super) fn redials(mut self) -> Self {
        self.session.on_redial(self.now);
        self.drive();
        self
    }

    /// Delivers all events of `steps` together, as when epoll_wait returns late.
    pub(super) fn at_once(mut self, steps: impl FnOnce(Self) -> Self) -> Self {
        self.holding = true;
        let mut world = steps(self);
        world.holding = false;
        world.deliver_all()
    }

    pub(super) fn sends(mut self, side: Side, bytes: &[u8]) -> Self {
        let wire = &mut self.wires[side as usize];
        if !wire.fin_in && !wire.dead {
            wire.sent.extend_from_slice(bytes);
            wire.incoming.extend(bytes);
            wire.edge = true;
        }
        self.deliver_all()
    }

    pub(super) fn fin(mut self, side: Side) -> Self {
        let wire = &mut self.wires[side as usize];
        wire.edge |= !wire.fin_in;
        wire.fin_in |= !wire.dead;
        self.deliver_all()
    }

    pub(super) fn resets(mut self, side: Side) -> Self {
        self.wires[side as usize].reset();
        self.deliver_all()
    }

    /// The peer stops reading: our send buffer is full.
    pub(super) fn blocks(self, side: Side) -> Self {
        self.takes(side, 0)
    }

    /// From now on our send buffer has room for that many bytes.
    pub(super) fn takes(mut self, side: Side, room: usize) -> Self {
        let wire = &mut self.wires[side as usize];
        wire.room = room;
        wire.edge |= room > 0 && std::mem::take(&mut wire.short_of_room);
        self.deliver_all()
    }

    /// The peer acknowledges nothing by itself any more.
    pub(super) fn stops_acking(mut self, side: Side) -> Self {
        self.wires[side as usize].acks = false;
        self
    }

    /// The peer disappears without a FIN or a reset, or the network in between does.
    pub(super) fn vanishes(mut self, side: Side) -> Self {
        self.wires[side as usize].vanished = Some(self.now);
        self
    }

    pub(super) fn acks(mut self, side: Side, bytes: usize) -> Self {
        self.wires[side as usize].acknowledge(bytes, self.now);
        self
    }

    /// Our kernel sends again what the peer has no room for.
    pub(super) fn sends_again(mut self, side: Side) -> Self {
        self.wires[side as usize].sent_again = self.now;
        self
    }

    /// An event that may mean nothing.
    pub(super) fn hints(mut self, side: Side, ready: Ready) -> Self {
        self.session.on_ready(side, ready);
        self.drive();
        self
    }

    pub(super) fn reads_at_most(mut self, read_len: usize) -> Self {
        self.read_len = read_len;
        self
    }

    /// The budget of a turn: the machine runs that many fills.
    pub(super) fn turn_of(mut self, fills: usize) -> Self {
        self.fills_left = fills;
        self.fills = [0; 2];
        self.drive();
        self
    }

    pub(super) fn cut(mut self, reason: CloseReason) -> Self {
        self.session.cut(reason);
        self
    }

    /// Time passes and the timer fires whenever it is due.
    pub(super) fn waits(mut self, span: Duration) -> Self {
        let until = self.now + span;
        for _ in 0..TIMERS_PER_WAIT {
            let deadline = self.session.deadline();
            if deadline > until || self.session.end().is_some() {
                self.now = until;
                return self;
            }
            self.now = self.now.max(deadline);
            match self.session.on_deadline(self.now) {
                Expiry::Early => panic!("the deadline has come"),
                Expiry::Wait | Expiry::Dial => {
                    self.now = until;
                    return self;
                }
                Expiry::Drive => self.drive(),
            }
        }
        panic!("the timer spins at {:?}", self.session);
    }

    /// Delivers the event of a side, though events are held back.
    pub(super) fn delivers(mut self, side: Side) -> Self {
        let holding = std::mem::replace(&mut self.holding, false);
        self.deliver(side);
        self.holding = holding;
        self
    }

    fn deliver_all(mut self) -> Self {
        // What the machine does may cause an event in turn: HUP, once both FINs are through.
        while !self.holding && Side::BOTH.into_iter().any(|side| self.deliver(side)) {}
        self
    }

    /// Delivers the event of a side and lets the machine run; returns false when nothing has changed.
    fn deliver(&mut self, side: Side) -> bool {
        let connected = side == Side::Client || !self.session.is_connecting();
        let delivers = !self.holding && connected && std::mem::take(&mut self.wires[side as usize].edge);
        if delivers {
            self.session.on_ready(side, self.wires[side as usize].ready());
            self.drive();
        }
        delivers
    }

    /// Holds events back until called again with false.
    pub(super) fn holds_events(mut self, holding: bool) -> Self {
        self.holding = holding;
        if holding { self } else { self.deliver_all() }
    }

    fn drive(&mut self) {
        for _ in 0..OPS_PER_EVENT {
            let Some(op) = self.session.next_op() else {
                return self.on_waiting();
            };
            if let Op::Fill(direction) = op {
                if self.fills_left == 0 {
                    return;
                }
                self.fills_left -= 1;
                self.fills[direction as usize] += 1;
            }
            let outcome = self.run(op);
            self.session.on_outcome(op, outcome, self.now);
        }
        panic!("the machine spins: {:?} of {:?}", self.session.next_op(), self.session);
    }

    fn run(&mut self, op: Op) -> Outcome {
        let wire = &mut self.wires[op.side() as usize];
        match op {
            Op::Fill(direction) => {
                let held = &self.conduits[direction as usize];
                let is_header =
                    direction == Direction::ToBackend && *held == self.header && self.writes.is_empty();
                assert!(held.is_empty() || is_header, "a fill behind bytes");
                match wire.read(self.read_len) {
                    Err(outcome) => outcome,
                    Ok(bytes) => {
                        let short = bytes.len() < self.read_len;
                        self.conduits[direction as usize].extend(&bytes);
                        let len = bytes.len();
                        if !short {
                            return Outcome::Moved(len);
                        }
                        if !self.session.hides_more(direction.source()) {
                            return Outcome::Drained(len);
                        }
                        match wire.read(self.read_len - len) {
                            Ok(more) => {
                                self.conduits[direction as usize].extend(&more);
                                Outcome::Moved(len + more.len())
                            }
                            Err(Outcome::Eof) => Outcome::Last(len, None),
                            Err(Outcome::Failed(kind)) => Outcome::Last(len, Some(kind)),
                            Err(_) => Outcome::Drained(len),
                        }
                    }
                }
            }
            Op::Preread => panic!("no session of these scripts waits for a header"),
            Op::Flush(direction) => {
                let conduit = &mut self.conduits[direction as usize];
                let fin_follows = self.session.holds_the_last(direction);
                let outcome = wire.write(conduit.make_contiguous(), fin_follows, self.now);
                if let Outcome::Moved(bytes) = outcome {
                    conduit.drain(..bytes);
                    if direction == Direction::ToBackend {
                        self.writes.push(bytes);
                    }
                } else if let Outcome::Failed(_) = outcome {
                    conduit.clear();
                }
                outcome
            }
            Op::ShutdownWrite(_) if wire.dead => {
                Outcome::Failed(wire.error.take().unwrap_or(ErrorKind::NotConnected))
            }
            Op::ShutdownWrite(side) => {
                wire.fin_out = true;
                if wire.acks {
                    wire.acknowledge(usize::MAX, self.now);
                }
                wire.edge |= wire.fin_in;
                self.assert_fin_is_the_sources(side);
                Outcome::Done
            }
            Op::TakeError(_) => wire.error.take().map_or(Outcome::Done, Outcome::Failed),
            Op::AskUnread(_) if wire.incoming.is_empty() => Outcome::Done,
            Op::AskUnread(_) => Outcome::Unread,
            // Only what is retransmitted goes unanswered.
            Op::AskSilence(_) if wire.in_flight.is_empty() => Outcome::Done,
            // Bytes sent before the peer vanished may wait, but only the time since counts.
            Op::AskSilence(_) => {
                let since = wire.vanished.map_or(self.now, |vanished| vanished.max(wire.first_in_flight));
                Outcome::Silent(self.now - since)
            }
            Op::AskDelivery(_) => {
                let unacked = u32::try_from(wire.in_flight.len()).expect("a short script");
                Outcome::Delivery { quiet: self.now - wire.taken_at.max(wire.sent_again), unacked }
            }
            Op::AskUnacked(_) => {
                self.settles += 1;
                match wire.in_flight.len() {
                    0 => Outcome::Done,
                    bytes => Outcome::Unacked(u32::try_from(bytes).expect("a short script")),
                }
            }
        }
    }

    fn assert_fin_is_the_sources(&self, side: Side) {
        let source = &self.wires[side.other() as usize];
        assert!(source.fin_in, "a FIN to the {} that no peer sent", side.as_str());
        let header = self.header_to(side).len();
        let written = self.wires[side as usize].written();
        assert_eq!(written, header + source.sent.len(), "a FIN before the last byte");
    }

    /// Checks the invariants of a machine that waits or is done.
    fn on_waiting(&self) {
        for direction in Direction::BOTH {
            let (source, sink) =
                (&self.wires[direction.source() as usize], &self.wires[direction.sink() as usize]);
            let all = [self.header_to(direction.sink()), &source.sent].concat();
            assert!(all.starts_with(&sink.received), "bytes out are a prefix of bytes in");
        }
        let Some(end) = self.session.end().filter(|_| !self.was_cut()) else { return };
        for side in Side::BOTH {
            let [this, that] = [side, side.other()].map(|side| &self.wires[side as usize]);
            let plainly = close_mode(end, side) == CloseMode::Close;
            assert!(
                !plainly || this.dead || (this.fin_out && that.fin_out),
                "the {} is left plainly, and its stream was not whole: {:?}",
                side.as_str(),
                self.session
            );
        }
    }

    fn was_cut(&self) -> bool {
        use CloseReason as R;
        self.session.end().is_some_and(|end| {
            !matches!(end.reason, R::Done | R::ClientReset | R::BackendReset | R::ClientLost | R::BackendLost)
        })
    }

    pub(super) fn end(&self) -> Option<End> {
        self.session.end()
    }

    /// Returns whether the peer of `side` has received everything that the other peer sent, and the end of it.
    pub(super) fn received_all(&self, side: Side) -> bool {
        let wire = &self.wires[side as usize];
        let all = [self.header_to(side), &self.wires[side.other() as usize].sent].concat();
        wire.fin_out && wire.received == all
    }

    fn header_to(&self, side: Side) -> &[u8] {
        if side == Side::Backend { &self.header } else { b"" }
    }

    pub(super) fn expect_writes(self, expected: &[usize]) -> Self {
        assert_eq!(self.writes, expected);
        self
    }

    pub(super) fn expect_unwritten_header(self, bytes: u16) -> Self {
        assert_eq!(self.session.unwritten_preface(), bytes);
        self
    }

    pub(super) fn was_reset(&self, side: Side) -> bool {
        self.wires[side as usize].dead
    }

    pub(super) fn has_vanished(&self, side: Side) -> bool {
        self.wires[side as usize].vanished.is_some()
    }

    pub(super) fn expect_bytes(self, side: Side, bytes: &[u8]) -> Self {
        assert_eq!(
            self.wires[side as usize].received.escape_ascii().to_string(),
            bytes.escape_ascii().to_string()
        );
        self
    }

    pub(super) fn expect_fin(self, side: Side) -> Self {
        assert!(self.wires[side as usize].fin_out, "no FIN to the {}: {:?}", side.as_str(), self.session);
        self
    }

    pub(super) fn expect_no_fin(self, side: Side) -> Self {
        assert!(!self.wires[side as usize].fin_out, "a FIN to the {}: {:?}", side.as_str(), self.session);
        self
    }

    pub(super) fn expect_running(self) -> Self {
        assert_eq!(self.session.end(), None);
        assert_eq!(self.session.next_op(), None, "no operation is runnable after driving");
        self
    }

    /// The end, and the sides that must be reset. For a dead connection either way is fine.
    pub(super) fn expect_end(self, reason: CloseReason, reset: &[Side]) -> Self {
        let end = self.session.end().unwrap_or_else(|| panic!("still running: {:?}", self.session));
        assert_eq!(end.reason, reason);
        for side in Side::BOTH.into_iter().filter(|&side| !self.wires[side as usize].dead) {
            assert_eq!(
                close_mode(end, side) == CloseMode::Reset,
                reset.contains(&side),
                "{side:?} of {end:?}"
            );
        }
        self
    }

    pub(super) fn expect_half_closed_by(self, side: Option<Side>) -> Self {
        assert_eq!(self.session.summary(CloseReason::Done, self.now).half_closed_by, side);
        self
    }

    pub(super) fn expect_awaits(self, side: Side, expected: Ready) -> Self {
        assert_eq!(self.session.awaits(side), expected, "{side:?} of {:?}", self.session);
        self
    }

    pub(super) fn expect_buffered(self, direction: Direction, bytes: usize) -> Self {
        assert_eq!(self.conduits[direction as usize].len(), bytes);
        self
    }

    pub(super) fn expect_fills(self, to_backend: usize, to_client: usize) -> Self {
        assert_eq!(self.fills, [to_backend, to_client]);
        self
    }

    pub(super) fn expect_settles(self, within: std::ops::RangeInclusive<usize>) -> Self {
        assert!(within.contains(&self.settles), "asked {} times", self.settles);
        self
    }

    pub(super) fn expect_deadline_in(self, span: Duration) -> Self {
        assert_eq!(self.session.deadline() - self.now, span);
        self
    }

    pub(super) fn expect_discarded(self, bytes: u64) -> Self {
        let summary = self.session.summary(CloseReason::Done, self.now);
        assert_eq!(summary.discarded.iter().sum::<u64>(), bytes);
        self
    }
}

fn close_mode(end: End, side: Side) -> CloseMode {
    match side {
        Side::Client => end.client,
        Side::Backend => end.backend,
    }
}
