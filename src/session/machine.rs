//! The state machine of a session: accept, preread, dial, relay, half-close, end.
//!
//! Its three promises: a FIN is passed on behind the last byte; a reset is passed on as a reset, behind the bytes that
//! came before it; and l4lb never originates a FIN. A session that cannot finish faithfully (a timeout, a stop)
//! therefore ends by a reset on both sides. When a client resets while its backend is dialed, the dial continues for
//! the bytes that wait to be read, and ends where there are none.
//!
//! After every [`Session::on_ready`], [`Session::on_connected`] and [`Session::on_deadline`] the caller must call
//! [`Session::next_op`] and [`Session::on_outcome`] in turn until there is no next op, and then look at
//! [`Session::end`] and [`Session::deadline`].

use std::io::ErrorKind;
use std::time::Duration;

use crate::base::ready::Ready;
use crate::base::time::Instant;
use crate::session::endpoint::Endpoint;
use crate::session::half::{Half, HalfState};
use crate::session::phase::{Phase, Poll};
use crate::session::timeouts::{NEVER, Timeouts};
use crate::session::{CloseMode, CloseReason, Direction, End, Op, Outcome, Side};

/// First wait before a side is asked again for its last unacknowledged bytes; doubles each time.
const SETTLE_POLL_FIRST: Duration = Duration::from_millis(2);
const SETTLE_POLL_LAST: Duration = Duration::from_millis(250);

/// One session. The module says how it must be driven.
#[derive(Debug)]
pub struct Session {
    pub(super) endpoints: [Endpoint; 2],
    pub(super) halves: [Half; 2],
    pub(super) phase: Phase,
    /// The direction filled last; the other one goes first next time, so neither starves the other.
    last_filled: Direction,
    pub(super) timeouts: Timeouts,
    pub(super) accepted: Instant,
    /// When nothing more was awaited of the client: from then on a backend could be dialed.
    pub(super) opened: Instant,
    /// `NEVER` before that, which takes less room than an `Option`.
    pub(super) connected: Instant,
    pub(super) last_activity: Instant,
    /// When the half-close timeout last found bytes in flight to a reader that pauses.
    pub(super) held_up: Instant,
    /// When the peers must be asked for a sign of life; `NEVER` while no bytes are in flight. Activity does not
    /// postpone it: the kernel accepts bytes for a vanished peer as long as its buffer has room.
    pub(super) ask_at: Instant,
    pub(super) retries: u32,
    pub(super) first_error: Option<(Side, ErrorKind)>,
    cut: Option<CloseReason>,
}

impl Session {
    /// Returns a session accepted at `now`; the caller must dial its backend.
    pub fn new(timeouts: Timeouts, now: Instant) -> Self {
        Self {
            endpoints: [Endpoint::default(); 2],
            halves: [Half::new(); 2],
            phase: Phase::Waiting { since: now },
            last_filled: Direction::ToClient,
            timeouts,
            accepted: now,
            opened: now,
            connected: NEVER,
            last_activity: now,
            held_up: now,
            ask_at: NEVER,
            retries: 0,
            first_error: None,
            cut: None,
        }
    }

    /// Returns a session accepted at `now` with a client that must send a header first, within `patience`. The caller
    /// must dial its backend as soon as [`Session::is_opening`] returns false.
    pub fn opening(timeouts: Timeouts, now: Instant, patience: Duration) -> Self {
        let mut session = Self::new(timeouts, now);
        session.phase = Phase::Opening { until: now + patience, is_late: false, lacks_room: false };
        session.endpoints[Side::Client as usize].is_awaited = true;
        session
    }

    /// Must be called before the first dial when the route has other timeouts.
    pub fn on_routed(&mut self, timeouts: Timeouts) {
        self.timeouts = timeouts;
        self.check_invariants();
    }

    /// Returns the readiness of this side that only an event can report and that would cause work: bytes to read and
    /// pass on, room for the bytes that wait, the death of the connection.
    pub fn awaits(&self, side: Side) -> Ready {
        let (endpoint, other) = (self.endpoint(side), self.endpoint(side.other()));
        let (outward, inward) = (self.half(side.outward()), self.half(side.inward()));
        let is_empty = |half: &Half| half.state == HalfState::Open && half.held() == 0;
        let nothing = Ready::default();
        match self.phase {
            _ if endpoint.error.is_some() => nothing,
            Phase::Relaying => Ready {
                readable: is_empty(outward) && !endpoint.readable && other.writable,
                writable: !endpoint.writable && (inward.held() > 0 || is_empty(inward) && other.readable),
                closing: false,
                failing: !endpoint.suspect,
            },
            Phase::Settling { side: settling, .. } if settling == side => {
                Ready { failing: !endpoint.suspect, ..nothing }
            }
            // Part of a header may wait in the kernel, which proves nothing. Its timeout finds what was lost.
            Phase::Opening { .. }
            | Phase::Waiting { .. }
            | Phase::Dialing { .. }
            | Phase::Settling { .. }
            | Phase::Asking { .. }
            | Phase::Expiring { .. }
            | Phase::Over => nothing,
        }
    }

    /// Returns whether no backend is connected yet.
    pub fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Opening { .. } | Phase::Waiting { .. } | Phase::Dialing { .. })
    }

    /// Returns whether the client has yet to send its header, or what its route depends on.
    pub fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Opening { .. })
    }

    /// Returns whether it looks for that for the last time.
    pub fn is_late(&self) -> bool {
        matches!(self.phase, Phase::Opening { is_late: true, .. })
    }

    /// Must be called when another backend is dialed, after the previous dial failed.
    pub fn on_redial(&mut self, now: Instant) {
        self.on_dial(now);
        self.retries += 1;
    }

    /// Must be called when a dial starts: the connect timeout counts from here.
    pub fn on_dial(&mut self, now: Instant) {
        self.connect_by(Phase::Dialing { since: now });
    }

    /// Must be called when a dial has ended without a connection: the next one must start within the connect timeout.
    pub fn on_undialed(&mut self, now: Instant) {
        self.connect_by(Phase::Waiting { since: now });
    }

    fn connect_by(&mut self, phase: Phase) {
        debug_assert!(self.is_connecting());
        self.endpoints[Side::Backend as usize] = Endpoint::default();
        self.phase = phase;
    }

    /// Returns how many times [`Session::on_redial`] was called.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// Must be called once the backend is connected.
    pub fn on_connected(&mut self, now: Instant) {
        debug_assert!(self.is_connecting());
        self.phase = Phase::Relaying;
        self.connected = now;
        self.last_activity = now;
        self.endpoints[Side::Backend as usize].writable = true;
        // Hints from before the connection was established mean nothing (epoll reports OUT|HUP for them).
        self.endpoints[Side::Backend as usize].suspect = false;
        self.check_invariants();
    }

    /// Must be called right after [`Session::on_connected`] when a header of that many bytes was put into the conduit to
    /// the backend: it is written before the first byte of the client, and with it if that has come.
    pub fn on_preface(&mut self, bytes: u16) {
        debug_assert!(self.phase == Phase::Relaying);
        self.halves[Direction::ToBackend as usize].put_in_front(bytes);
        self.check_invariants();
    }

    /// Must be called when a side has died and its error was taken before the machine could ask for it.
    pub fn on_lost(&mut self, side: Side, kind: ErrorKind, now: Instant) {
        self.latch(side, kind, now);
        // The client may have died before that, while the backend was dialed.
        self.settle_what_is_over(now);
        self.check_invariants();
    }

    /// Must be called for each event of a side.
    pub fn on_ready(&mut self, side: Side, ready: Ready) {
        self.endpoints[side as usize].on_ready(ready);
    }

    /// Ends the session now, for a reason that lies outside it.
    pub fn cut(&mut self, reason: CloseReason) {
        self.cut.get_or_insert(reason);
        self.phase = Phase::Over;
        self.check_invariants();
    }

    /// Returns the next thing to do; `None` until the next event or deadline.
    pub fn next_op(&self) -> Option<Op> {
        match self.phase {
            Phase::Opening { lacks_room, .. }
                if self.endpoint(Side::Client).readable
                    && (!lacks_room || self.endpoint(Side::Client).writable) =>
            {
                Some(Op::Preread)
            }
            Phase::Opening { .. } => self.take_error_op(&[Side::Client]),
            Phase::Waiting { .. } | Phase::Dialing { .. } => {
                self.take_error_op(&[Side::Client]).or_else(|| self.ask_unread_op())
            }
            Phase::Relaying => {
                self.flush_op().or_else(|| self.take_error_op(&Side::BOTH)).or_else(|| self.fill_op())
            }
            Phase::Asking { ask, .. } => Some(Op::AskSilence(ask)),
            Phase::Expiring { ask, .. } => Some(Op::AskDelivery(ask)),
            Phase::Settling { side, poll, .. } => match poll {
                Poll::Now { .. } => Some(Op::AskUnacked(side)),
                Poll::At { .. } => self.take_error_op(&[side]),
            },
            Phase::Over => None,
        }
    }

    /// Bytes that can be written, or an end of stream behind the last byte, come first.
    fn flush_op(&self) -> Option<Op> {
        Direction::BOTH.into_iter().find_map(|direction| {
            let (half, sink) = (self.half(direction), direction.sink());
            if half.held() > 0 {
                let may_grow = half.is_joinable() && self.endpoint(direction.source()).readable;
                (self.endpoint(sink).writable && !may_grow).then_some(Op::Flush(direction))
            } else {
                (half.state == HalfState::Ending).then_some(Op::ShutdownWrite(sink))
            }
        })
    }

    /// For a suspect side with no read due that would find the error.
    fn take_error_op(&self, sides: &[Side]) -> Option<Op> {
        let unexplained = |side: Side| {
            let endpoint = self.endpoint(side);
            let will_be_read = !self.is_connecting() && self.half(side.outward()).state == HalfState::Open;
            endpoint.suspect && endpoint.error.is_none() && !will_be_read
        };
        sides.iter().copied().find(|&side| unexplained(side)).map(Op::TakeError)
    }

    /// For a client that has just died while the backend is dialed.
    fn ask_unread_op(&self) -> Option<Op> {
        let is_new = self.endpoint(Side::Client).error.is_some()
            && self.half(Direction::ToClient).state == HalfState::Open;
        is_new.then_some(Op::AskUnread(Side::Client))
    }

    fn fill_op(&self) -> Option<Op> {
        let fillable = |direction: Direction| {
            let half = self.half(direction);
            half.state == HalfState::Open
                && (half.held() == 0 || half.is_joinable())
                && self.endpoint(direction.source()).readable
                && self.endpoint(direction.sink()).writable
        };
        [self.last_filled.reverse(), self.last_filled].into_iter().find(|&d| fillable(d)).map(Op::Fill)
    }

    /// Must be called with the outcome of the op that [`Session::next_op`] returned last.
    pub fn on_outcome(&mut self, op: Op, outcome: Outcome, now: Instant) {
        match op {
            Op::Fill(direction) => self.on_fill(direction, outcome, now),
            Op::Flush(direction) => self.on_flush(direction, outcome, now),
            Op::Preread => self.on_preread(outcome, now),
            Op::ShutdownWrite(side) => self.on_shutdown_write(side, outcome, now),
            Op::TakeError(side) => self.on_take_error(side, outcome),
            Op::AskUnread(side) => self.on_unread(side, outcome, now),
            Op::AskUnacked(_) => self.on_unacked(outcome, now),
            Op::AskDelivery(side) => self.on_delivery(side, outcome, now),
            Op::AskSilence(side) => self.on_silence(side, outcome, now),
        }
        self.settle_what_is_over(now);
        self.check_invariants();
    }

    fn settle_what_is_over(&mut self, now: Instant) {
        if self.phase == Phase::Relaying && self.halves.iter().all(Half::is_over) {
            self.phase = match self.side_to_reset() {
                Some(side) => {
                    Phase::Settling { side, since: now, poll: Poll::Now { wait: SETTLE_POLL_FIRST } }
                }
                None => Phase::Over,
            };
        }
    }

    fn on_preread(&mut self, outcome: Outcome, now: Instant) {
        let is_late = self.is_late();
        let client = &mut self.endpoints[Side::Client as usize];
        match outcome {
            Outcome::Done => {
                self.phase = Phase::Waiting { since: now };
                self.opened = now;
                self.endpoints[Side::Client as usize].is_awaited = false;
            }
            Outcome::WouldBlock | Outcome::NoRoom if client.error.is_some() => {
                self.cut(CloseReason::ClientGone);
            }
            Outcome::WouldBlock | Outcome::NoRoom if is_late => {
                self.cut(CloseReason::PrereadTimeout);
            }
            Outcome::WouldBlock => client.readable = false,
            Outcome::NoRoom => {
                client.writable = false;
                if let Phase::Opening { lacks_room, .. } = &mut self.phase {
                    *lacks_room = true;
                }
            }
            Outcome::Refused(reason) => self.cut(reason),
            Outcome::Failed(kind) => {
                self.first_error.get_or_insert((Side::Client, kind));
                self.cut(CloseReason::ClientGone);
            }
            Outcome::Eof => self.cut(CloseReason::ClientGone),
            Outcome::Moved(_)
            | Outcome::Drained(_)
            | Outcome::Last(..)
            | Outcome::Unread
            | Outcome::Unacked(_)
            | Outcome::Delivery { .. }
            | Outcome::Silent(_) => {
                debug_assert!(false, "{outcome:?} of a preread");
            }
        }
    }

    fn on_fill(&mut self, direction: Direction, outcome: Outcome, now: Instant) {
        let source = direction.source();
        match outcome {
            Outcome::Moved(bytes) | Outcome::Drained(bytes) => {
                self.on_filled(direction, bytes, now);
                self.endpoints[source as usize].readable = matches!(outcome, Outcome::Moved(_));
            }
            Outcome::Last(bytes, error) => {
                self.on_filled(direction, bytes, now);
                if let Some(kind) = error {
                    self.latch(source, kind, now);
                }
                self.on_source_over(direction);
            }
            // Nothing more comes from a side that was given up.
            Outcome::WouldBlock if self.endpoint(source).error.is_some() => self.on_source_over(direction),
            // The conduit was empty, so the socket had nothing.
            Outcome::WouldBlock => self.endpoints[source as usize].readable = false,
            Outcome::Eof => {
                self.last_activity = now;
                self.on_source_over(direction);
            }
            Outcome::Failed(kind) => {
                // A read returns the bytes before it returns the error, so all of them have been read.
                self.latch(source, kind, now);
                self.on_source_over(direction);
            }
            Outcome::Done
            | Outcome::Refused(_)
            | Outcome::NoRoom
            | Outcome::Unread
            | Outcome::Unacked(_)
            | Outcome::Delivery { .. }
            | Outcome::Silent(_) => {
                debug_assert!(false, "{outcome:?} of a fill");
            }
        }
    }

    fn on_filled(&mut self, direction: Direction, bytes: usize, now: Instant) {
        self.last_filled = direction;
        self.last_activity = now;
        self.halves[direction as usize].on_filled(bytes);
    }

    fn on_source_over(&mut self, direction: Direction) {
        let endpoint = &mut self.endpoints[direction.source() as usize];
        endpoint.readable = false;
        self.halves[direction as usize].state =
            if endpoint.eof_is_real() { HalfState::Ending } else { HalfState::Severed };
    }

    fn on_flush(&mut self, direction: Direction, outcome: Outcome, now: Instant) {
        let sink = direction.sink();
        self.halves[direction as usize].on_written();
        match outcome {
            Outcome::Moved(bytes) => {
                self.last_activity = now;
                self.halves[direction as usize].on_flushed(bytes);
                self.endpoints[sink as usize].unacked = None;
                self.ask_at = self.ask_at.min(now + self.timeouts.user());
            }
            Outcome::WouldBlock => self.endpoints[sink as usize].writable = false,
            Outcome::Failed(kind) => self.latch(sink, kind, now),
            Outcome::Drained(_)
            | Outcome::Last(..)
            | Outcome::Eof
            | Outcome::Refused(_)
            | Outcome::NoRoom
            | Outcome::Done
            | Outcome::Unread
            | Outcome::Unacked(_)
            | Outcome::Delivery { .. }
            | Outcome::Silent(_) => {
                debug_assert!(false, "{outcome:?} of a flush");
            }
        }
    }

    fn on_shutdown_write(&mut self, side: Side, outcome: Outcome, now: Instant) {
        if let Outcome::Failed(kind) = outcome {
            // The connection died meanwhile: bytes passed on may be lost, and the end was not passed on.
            return self.latch(side, kind, now);
        }
        self.halves[side.inward() as usize].state = HalfState::Ended;
        self.ask_at = self.ask_at.min(now + self.timeouts.user());
    }

    fn on_take_error(&mut self, side: Side, outcome: Outcome) {
        self.endpoints[side as usize].suspect = false;
        if let Outcome::Failed(kind) = outcome {
            if self.is_connecting() {
                // What came before may still be a header.
                self.endpoints[side as usize].readable |= self.is_opening();
                // The next step decides whether this ends the session.
                self.endpoints[side as usize].error = Some(kind);
                self.first_error.get_or_insert((side, kind));
            } else {
                self.latch(side, kind, self.last_activity);
            }
        }
    }

    /// A reset leaves earlier bytes in the receive queue (tcp_reset). Dials are worth it as long as that is not empty.
    fn on_unread(&mut self, side: Side, outcome: Outcome, now: Instant) {
        match self.endpoint(side).error {
            Some(kind) if outcome == Outcome::Unread => self.latch(side, kind, now),
            Some(_) | None => self.cut(CloseReason::ClientGone),
        }
    }

    fn on_unacked(&mut self, outcome: Outcome, now: Instant) {
        let Phase::Settling { side, since, poll } = self.phase else {
            debug_assert!(false, "unacked in {:?}", self.phase);
            return;
        };
        self.phase = match (outcome, poll) {
            (Outcome::Unacked(_), Poll::Now { wait }) => {
                let next = Poll::At { when: now + wait, wait: (wait * 2).min(SETTLE_POLL_LAST) };
                Phase::Settling { side, since, poll: next }
            }
            (Outcome::Unacked(_), Poll::At { .. }) => self.phase,
            // Nothing is unacknowledged, or the kernel cannot report it: there is nothing to wait for.
            (
                Outcome::Done
                | Outcome::Failed(_)
                | Outcome::Moved(_)
                | Outcome::Drained(_)
                | Outcome::Last(..)
                | Outcome::WouldBlock
                | Outcome::Eof
                | Outcome::Refused(_)
                | Outcome::NoRoom
                | Outcome::Unread
                | Outcome::Delivery { .. }
                | Outcome::Silent(_),
                _,
            ) => Phase::Over,
        };
    }

    /// A peer is also active when its kernel accepts bytes sent earlier; when it accepted the last is known only now.
    fn on_delivery(&mut self, side: Side, outcome: Outcome, now: Instant) {
        let Phase::Expiring { waiting, .. } = self.phase else { return };
        let mut waits = waiting;
        if let (Outcome::Delivery { quiet, unacked }, None) = (outcome, self.endpoint(side).error) {
            // A kernel also retransmits into a closed window, for ever: the peer accepted nothing then.
            let before = self.endpoints[side as usize].unacked.replace(unacked);
            if unacked == 0 || before != Some(unacked) {
                self.last_activity = self.last_activity.max(now - quiet);
            }
            waits |= unacked > 0;
        }
        match side {
            Side::Client => self.phase = Phase::Expiring { ask: Side::Backend, waiting: waits },
            Side::Backend if now < self.standstill() => self.phase = Phase::Relaying,
            // The FIN is in flight behind bytes that the reader has not reached yet. Only `idle` limits that, as long
            // as the peer's kernel answers.
            Side::Backend if waits && !self.is_breaking() && now < self.idle_at() => {
                self.held_up = now;
                self.phase = Phase::Relaying;
            }
            Side::Backend => self.cut(self.timeout_reason(now)),
        }
    }

    fn on_silence(&mut self, side: Side, outcome: Outcome, now: Instant) {
        let Phase::Asking { silence, .. } = self.phase else { return };
        let mut longest = silence;
        if let (Outcome::Silent(span), None) = (outcome, self.endpoint(side).error) {
            if span >= self.timeouts.user() {
                self.latch(side, ErrorKind::TimedOut, now);
            } else {
                longest = longest.max(Some(span));
            }
        }
        match side {
            Side::Client => self.phase = Phase::Asking { ask: Side::Backend, silence: longest },
            Side::Backend => {
                self.phase = Phase::Relaying;
                self.ask_at = longest.map_or(NEVER, |silence| now + self.timeouts.next_question_in(silence));
            }
        }
    }

    /// Records the first error of a side and applies it to both halves.
    fn latch(&mut self, side: Side, kind: ErrorKind, now: Instant) {
        self.last_activity = now;
        let endpoint = &mut self.endpoints[side as usize];
        endpoint.error.get_or_insert(kind);
        // A write or SO_ERROR met the error first: earlier bytes may still wait to be read.
        endpoint.readable = true;
        self.first_error.get_or_insert((side, kind));
        self.halves[side.inward() as usize].refuse();
        if matches!(self.phase, Phase::Settling { .. }) {
            self.phase = Phase::Over;
        }
    }

    /// Returns the side whose peer must be reset because the stream was not complete, if any. A side with an error
    /// knows already; where a peer must be reset, the error is on the other side.
    fn side_to_reset(&self) -> Option<Side> {
        Side::BOTH.into_iter().find(|&side| {
            self.endpoint(side).error.is_none()
                && (self.half(side.inward()).state == HalfState::Severed
                    || self.half(side.outward()).state == HalfState::Refused)
        })
    }

    /// Returns how the session ends, once nothing is left to do.
    pub fn end(&self) -> Option<End> {
        if self.phase != Phase::Over {
            return None;
        }
        if let Some(reason) = self.cut {
            return Some(End { reason, client: CloseMode::Reset, backend: CloseMode::Reset });
        }
        // A side with an error is dead, or was given up while its kernel may still retry.
        let close_mode = |side| {
            let reset = self.endpoint(side).error.is_some() || self.side_to_reset() == Some(side);
            if reset { CloseMode::Reset } else { CloseMode::Close }
        };
        let reason = match self.first_error {
            None => CloseReason::Done,
            Some((side, kind)) => CloseReason::lost_by(side, kind),
        };
        Some(End { reason, client: close_mode(Side::Client), backend: close_mode(Side::Backend) })
    }

    pub(super) fn half(&self, direction: Direction) -> &Half {
        &self.halves[direction as usize]
    }

    pub(super) fn endpoint(&self, side: Side) -> &Endpoint {
        &self.endpoints[side as usize]
    }

    fn check_invariants(&self) {
        if self.is_connecting() {
            debug_assert!(
                self.halves.iter().all(|half| half.flushed + half.unpassed() + u64::from(half.prefix()) == 0),
                "bytes wait in the kernel"
            );
        }
        for direction in Direction::BOTH {
            let half = self.half(direction);
            match half.state {
                HalfState::Ended => debug_assert_eq!(half.held(), 0, "FIN goes behind the last byte"),
                HalfState::Severed => {
                    debug_assert!(!self.endpoint(direction.source()).eof_is_real(), "severed by an error");
                }
                HalfState::Refused => {
                    debug_assert!(self.endpoint(direction.sink()).error.is_some(), "refused by an error");
                }
                HalfState::Open | HalfState::Ending => {}
            }
        }
    }
}
