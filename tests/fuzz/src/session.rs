//! A session, whatever the kernel and the clock do, held against books that are kept apart from it.
//!
//! The input chooses events, outcomes that Linux may give to the op that is due, and times. The books know what was
//! told, and so what may be done next; at the end the script falls silent, and the session has to end by itself.

use std::io::ErrorKind;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use l4lb::base::ready::Ready;
use l4lb::base::time::Instant;
use l4lb::session::{CloseMode, CloseReason, Direction, End, Expiry, Op, Outcome, Session, Side, Timeouts};

const STEPS_MAX: usize = 300;
/// Ops until nothing is left to do when each says that nothing more is there: no state asks for more.
const QUIET_OPS_MAX: usize = 16;
/// Deadlines that may be due at one moment: dial, standstill, question, settling.
const TIMERS_AT_ONCE_MAX: usize = 4;
/// Deadlines that pass while peers hold everything up: the second look at them differs from the first.
const STUBBORN_MOMENTS: usize = 3;
/// Deadlines until a session ends to which nothing happens any more.
const TIMERS_TO_THE_END_MAX: usize = 8;
/// The most that one read takes.
const READ_MAX: usize = 64 * 1024;

const DAY: u64 = 86_400_000_000_000;

/// What is known of one direction.
#[derive(Clone, Copy, Default)]
struct Flow {
    filled: u64,
    flushed: u64,
    /// The source has said that no more will come: an end, or an error.
    is_over: bool,
    /// That was the end of the stream, and not what a read returns after an error.
    is_complete: bool,
    /// The end has been passed on.
    fin_sent: bool,
}

/// What is known of one connection.
#[derive(Clone, Copy, Default)]
struct Wire {
    readable: bool,
    writable: bool,
    suspect: bool,
    error: Option<ErrorKind>,
}

struct Books {
    session: Session,
    now: Instant,
    accepted: Instant,
    /// When its header was taken, or else accepted.
    opened: Instant,
    connected: Option<Instant>,
    redials: u32,
    /// Silence for which a peer is given up; `None`: never.
    user: Option<Duration>,
    /// The first reason of [`Session::cut`].
    cut: Option<CloseReason>,
    first_to_fail: Option<Side>,
    is_dialing: bool,
    /// The client has yet to send a header.
    is_opening: bool,
    /// Its time for that is over.
    is_late: bool,
    wires: [Wire; 2],
    flows: [Flow; 2],
    /// Bytes of the header to the backend that are not written.
    header: u64,
    /// No write has been tried since it was put in front.
    is_header_new: bool,
}

pub fn check(data: &[u8]) {
    let mut choices = Unstructured::new(data);
    let mut books = Books::open(&mut choices);
    // An input that ends within a choice ends the script.
    let _ended = books.run(&mut choices);
    books.expect_end_in_silence();
}

fn side(choices: &mut Unstructured) -> Result<Side> {
    Ok(if choices.arbitrary()? { Side::Client } else { Side::Backend })
}

fn ready(choices: &mut Unstructured) -> Result<Ready> {
    let flags: u8 = choices.arbitrary()?;
    let [readable, writable, closing, failing] = [1, 2, 4, 8].map(|flag| flags & flag != 0);
    Ok(Ready { readable, writable, closing, failing })
}

/// Errors of a connection. EPIPE stands for a reset that came behind the peer's FIN: Linux gives it only then.
fn kind(choices: &mut Unstructured) -> Result<ErrorKind> {
    let kinds =
        [ErrorKind::ConnectionReset, ErrorKind::TimedOut, ErrorKind::HostUnreachable, ErrorKind::BrokenPipe];
    Ok(*choices.choose(&kinds)?)
}

/// From nothing to a day, as often short as long.
fn span(choices: &mut Unstructured) -> Result<Duration> {
    let shift = choices.int_in_range(0..=40)?;
    Ok(Duration::from_nanos((u64::from(choices.arbitrary::<u8>()?) << shift).min(DAY)))
}

/// Whole milliseconds, one at least, as a session keeps them.
fn timeout(choices: &mut Unstructured) -> Result<Duration> {
    let millis = u64::try_from(span(choices)?.as_millis()).unwrap_or(u64::MAX);
    Ok(Duration::from_millis(millis.max(1)))
}

/// The outcome that says that there is nothing (more) to say.
fn quiet(op: Op) -> Outcome {
    match op {
        Op::Fill(_) | Op::Flush(_) => Outcome::WouldBlock,
        Op::AskDelivery(_) => Outcome::Delivery { quiet: Duration::MAX, unacked: 0 },
        Op::Preread => Outcome::WouldBlock,
        Op::ShutdownWrite(_)
        | Op::TakeError(_)
        | Op::AskUnread(_)
        | Op::AskUnacked(_)
        | Op::AskSilence(_) => Outcome::Done,
    }
}

/// The outcome of peers that are there and take nothing.
fn stubborn(op: Op) -> Outcome {
    match op {
        Op::AskUnacked(_) => Outcome::Unacked(1_000),
        Op::AskDelivery(_) => Outcome::Delivery { quiet: Duration::MAX, unacked: 1_000 },
        Op::AskSilence(_) => Outcome::Silent(Duration::ZERO),
        Op::AskUnread(_) => Outcome::Unread,
        Op::Fill(_) | Op::Flush(_) | Op::Preread | Op::ShutdownWrite(_) | Op::TakeError(_) => quiet(op),
    }
}

impl Books {
    fn open(choices: &mut Unstructured) -> Self {
        let now = Instant::from_nanos(DAY);
        let [connect, idle, half_close, user] =
            [(); 4].map(|()| timeout(choices).unwrap_or(Duration::from_mins(1)));
        // Half of the sessions leave it to the kernel.
        let user = user.as_millis().is_multiple_of(2).then_some(user);
        let timeouts = Timeouts::new(connect, idle, half_close, user);
        let is_opening = choices.ratio(1, 4).unwrap_or(false);
        let session = if is_opening {
            Session::opening(timeouts, now, half_close)
        } else {
            Session::new(timeouts, now)
        };
        Self {
            session,
            now,
            user,
            accepted: now,
            opened: now,
            connected: None,
            redials: 0,
            cut: None,
            first_to_fail: None,
            is_dialing: true,
            is_opening,
            is_late: false,
            wires: [Wire::default(); 2],
            flows: [Flow::default(); 2],
            header: 0,
            is_header_new: false,
        }
    }

    fn run(&mut self, choices: &mut Unstructured) -> Result<()> {
        for _ in 0..STEPS_MAX {
            if choices.is_empty() || self.session.end().is_some() {
                break;
            }
            self.step(choices)?;
            self.drive(choices)?;
        }
        Ok(())
    }

    /// One thing that happens.
    fn step(&mut self, choices: &mut Unstructured) -> Result<()> {
        match choices.int_in_range(0..=15)? {
            0..=7 => {
                let (side, ready) = (side(choices)?, ready(choices)?);
                self.deliver(side, ready);
            }
            8 | 9 => self.now = self.now + span(choices)?,
            10 => {
                self.now = self.now.max(self.session.deadline());
                self.on_timer(choices)?;
            }
            11 => self.on_timer(choices)?,
            12..=15 if self.is_opening => {}
            12 if self.is_dialing => self.dial_again(choices.arbitrary()?),
            13 if self.is_dialing => {
                self.connect();
                let kind = kind(choices)?;
                self.fails(Side::Backend, kind);
                self.session.on_lost(Side::Backend, kind, self.now);
            }
            14 if choices.ratio(1, 8)? => self.cut(*choices.choose(&CloseReason::ALL)?),
            12..=15 if self.is_dialing => {
                self.connect();
                if choices.arbitrary()? {
                    self.begin_with_header(choices.int_in_range(1..=512)?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn deliver(&mut self, side: Side, ready: Ready) {
        self.session.on_ready(side, ready);
        let wire = &mut self.wires[side as usize];
        wire.readable |= ready.readable;
        wire.writable |= ready.writable;
        wire.suspect |= ready.failing;
    }

    fn connect(&mut self) {
        self.session.on_connected(self.now);
        self.is_dialing = false;
        self.connected = Some(self.now);
        let backend = &mut self.wires[Side::Backend as usize];
        (backend.writable, backend.suspect) = (true, false);
    }

    fn begin_with_header(&mut self, bytes: u16) {
        self.session.on_preface(bytes);
        (self.header, self.is_header_new) = (bytes.into(), true);
    }

    fn dial_again(&mut self, is_redial: bool) {
        if is_redial {
            self.session.on_redial(self.now);
            self.redials += 1;
        } else {
            self.session.on_undialed(self.now);
            self.session.on_dial(self.now);
        }
        self.wires[Side::Backend as usize] = Wire::default();
    }

    /// The session ends before a backend was dialed.
    fn expect_turned_away(&mut self, reason: CloseReason) {
        let reason = *self.cut.get_or_insert(reason);
        assert_eq!(self.session.end().map(|end| end.reason), Some(reason));
    }

    /// An event may have been lost.
    fn expect_last_look(&mut self) {
        self.is_late = true;
        self.wires[Side::Client as usize].readable = true;
        assert_eq!(self.session.next_op(), Some(Op::Preread));
    }

    fn cut(&mut self, reason: CloseReason) {
        self.session.cut(reason);
        self.cut.get_or_insert(reason);
    }

    fn on_timer(&mut self, choices: &mut Unstructured) -> Result<()> {
        match self.session.on_deadline(self.now) {
            Expiry::Early => assert!(self.now < self.session.deadline()),
            Expiry::Wait | Expiry::Dial if choices.arbitrary()? => self.dial_again(true),
            Expiry::Wait | Expiry::Dial => self.cut(CloseReason::ConnectTimeout),
            Expiry::Drive if self.is_opening => self.expect_last_look(),
            Expiry::Drive => assert!(!self.is_dialing),
        }
        Ok(())
    }

    /// Ops until none is left, or until the share of the turn is spent: only fills may be left for later.
    fn drive(&mut self, choices: &mut Unstructured) -> Result<()> {
        while let Some(op) = self.session.next_op() {
            self.expect_due(op);
            if matches!(op, Op::Fill(_)) && choices.ratio(1, 8)? {
                break;
            }
            let outcome = self.outcome(op, choices)?;
            self.perform(op, outcome);
        }
        Ok(())
    }

    /// Something that the kernel may say to this op.
    fn outcome(&self, op: Op, choices: &mut Unstructured) -> Result<Outcome> {
        if choices.is_empty() {
            return Ok(quiet(op));
        }
        let choice = choices.int_in_range(0..=9)?;
        Ok(match (op, choice) {
            (_, 0) => Outcome::Failed(kind(choices)?),
            (Op::Preread, 1..=4) => Outcome::Done,
            (Op::Preread, 5) => Outcome::Eof,
            (Op::Preread, 6) => Outcome::Refused(CloseReason::ProxyBad),
            (Op::Fill(_), 1 | 2) => Outcome::Eof,
            (Op::Fill(_), 3..=5) => Outcome::Moved(choices.int_in_range(1..=READ_MAX)?),
            (Op::Fill(_), 6 | 7) => Outcome::Drained(choices.int_in_range(1..=READ_MAX)?),
            (Op::Fill(_), 8) => {
                let error = if choices.arbitrary()? { Some(kind(choices)?) } else { None };
                Outcome::Last(choices.int_in_range(1..=READ_MAX)?, error)
            }
            (Op::Flush(direction), 1..=3) => Outcome::Moved(choices.int_in_range(1..=self.held(direction))?),
            (Op::Flush(direction), 4..=7) => Outcome::Moved(self.held(direction)),
            (Op::AskUnread(_), 1..=6) => Outcome::Unread,
            (Op::AskUnacked(_), 1..=5) => Outcome::Unacked(choices.int_in_range(1..=u32::MAX)?),
            (Op::AskDelivery(_), 1..=8) => {
                Outcome::Delivery { quiet: span(choices)?, unacked: choices.arbitrary()? }
            }
            (Op::AskSilence(_), 1..=4) => Outcome::Silent(span(choices)?),
            (Op::AskSilence(_), 5) => Outcome::Silent(self.user.unwrap_or_default()),
            _ => quiet(op),
        })
    }

    fn held(&self, direction: Direction) -> usize {
        let flow = self.flows[direction as usize];
        usize::try_from(self.header_of(direction) + flow.filled - flow.flushed)
            .expect("no more than one read")
    }

    fn header_of(&self, direction: Direction) -> u64 {
        if direction == Direction::ToBackend { self.header } else { 0 }
    }

    fn wire(&self, side: Side) -> Wire {
        self.wires[side as usize]
    }

    /// What has to hold for an op to be asked for.
    fn expect_due(&self, op: Op) {
        let may_be_dialing =
            [Op::Preread, Op::TakeError(Side::Client), Op::AskUnread(Side::Client)].contains(&op);
        assert!(!self.is_opening || [Op::Preread, Op::TakeError(Side::Client)].contains(&op), "{op:?}");
        assert!(!self.is_dialing || may_be_dialing, "{op:?} while dialing");
        assert_eq!(self.session.end(), None, "{op:?} after the end");
        match op {
            Op::Fill(direction) => {
                let flow = self.flows[direction as usize];
                assert!(!flow.is_over && flow.filled == flow.flushed, "{op:?} over or behind bytes");
                assert!(
                    self.header_of(direction) == 0 || self.is_header_new,
                    "{op:?} behind the rest of a header"
                );
                assert!(self.wire(direction.source()).readable, "{op:?} for nothing");
                let sink = self.wire(direction.sink());
                assert!(sink.writable && sink.error.is_none(), "{op:?} that cannot go on");
            }
            Op::Flush(direction) => {
                let (flow, sink) = (self.flows[direction as usize], self.wire(direction.sink()));
                assert!(self.held(direction) > 0 && !flow.fin_sent, "{op:?} of nothing");
                assert!(sink.writable && sink.error.is_none(), "{op:?} for nothing");
            }
            Op::ShutdownWrite(side) => {
                let flow = self.flows[side.inward() as usize];
                assert!(flow.is_complete, "a FIN that nobody sent");
                assert!(
                    self.held(side.inward()) == 0 && !flow.fin_sent,
                    "a FIN before the last byte, or a second one"
                );
                assert_eq!(self.wire(side).error, None, "a FIN into a dead connection");
            }
            Op::Preread => assert!(self.is_opening && self.wire(Side::Client).readable, "{op:?} for nothing"),
            Op::TakeError(side) => assert!(self.wire(side).suspect, "{op:?} without a hint"),
            Op::AskUnread(side) => {
                assert!(self.is_dialing && self.wire(side).error.is_some(), "{op:?} of a side that lives");
            }
            Op::AskUnacked(_) | Op::AskDelivery(_) | Op::AskSilence(_) => {}
        }
    }

    /// Reports the outcome to the session and enters it into the books.
    fn perform(&mut self, op: Op, outcome: Outcome) {
        self.session.on_outcome(op, outcome, self.now);
        let side = op.side();
        self.is_header_new &= op != Op::Flush(Direction::ToBackend);
        match (op, outcome) {
            (Op::Preread, Outcome::Done) => (self.is_opening, self.opened) = (false, self.now),
            (Op::Preread, Outcome::Refused(reason)) => self.expect_turned_away(reason),
            (Op::Preread, Outcome::WouldBlock) if self.wire(side).error.is_some() => {
                self.expect_turned_away(CloseReason::ClientGone);
            }
            (Op::Preread, Outcome::WouldBlock) if self.is_late => {
                self.expect_turned_away(CloseReason::PrereadTimeout);
            }
            (Op::Preread, Outcome::WouldBlock) => self.wires[side as usize].readable = false,
            (Op::Preread, Outcome::Failed(kind)) => {
                self.fails(side, kind);
                self.expect_turned_away(CloseReason::ClientGone);
            }
            (Op::Preread, _) => self.expect_turned_away(CloseReason::ClientGone),
            (Op::Fill(direction), Outcome::Moved(bytes)) => {
                self.flows[direction as usize].filled += bytes as u64;
            }
            (Op::Fill(direction), Outcome::Drained(bytes)) => {
                self.flows[direction as usize].filled += bytes as u64;
                self.wires[side as usize].readable = false;
            }
            (Op::Fill(direction), Outcome::Last(bytes, error)) => {
                self.flows[direction as usize].filled += bytes as u64;
                if let Some(kind) = error {
                    self.fails(side, kind);
                }
                self.source_is_over(direction);
            }
            (Op::Fill(direction), Outcome::Eof) => self.source_is_over(direction),
            (Op::Fill(direction), Outcome::Failed(kind)) => {
                self.fails(side, kind);
                self.source_is_over(direction);
            }
            (Op::Fill(direction), Outcome::WouldBlock) if self.wire(side).error.is_some() => {
                self.source_is_over(direction);
            }
            (Op::Fill(_), Outcome::WouldBlock) => self.wires[side as usize].readable = false,
            (Op::Flush(direction), Outcome::Moved(bytes)) => {
                let of_header = self.header_of(direction).min(bytes as u64);
                self.header -= of_header;
                self.flows[direction as usize].flushed += bytes as u64 - of_header;
            }
            (Op::Flush(_), Outcome::WouldBlock) => self.wires[side as usize].writable = false,
            (Op::ShutdownWrite(_), Outcome::Done) => self.flows[side.inward() as usize].fin_sent = true,
            (Op::Flush(_) | Op::ShutdownWrite(_), Outcome::Failed(kind)) => self.fails(side, kind),
            (Op::TakeError(_), Outcome::Failed(kind)) => {
                self.wires[side as usize].suspect = false;
                self.fails(side, kind);
            }
            (Op::AskUnread(_), Outcome::Unread) => {}
            (Op::AskUnread(_), _) => _ = self.cut.get_or_insert(CloseReason::ClientGone),
            (Op::TakeError(_), _) => self.wires[side as usize].suspect = false,
            (Op::AskSilence(_), Outcome::Silent(span)) if self.user.is_some_and(|user| span >= user) => {
                self.fails(side, ErrorKind::TimedOut);
            }
            // Moves no byte and reports no error.
            _ => {}
        }
        self.expect_conservation();
    }

    fn source_is_over(&mut self, direction: Direction) {
        let error = self.wire(direction.source()).error;
        let flow = &mut self.flows[direction as usize];
        flow.is_over = true;
        // EPIPE: the reset came after the peer's FIN. After any other error a read returns 0 though bytes are missing.
        flow.is_complete = matches!(error, None | Some(ErrorKind::BrokenPipe));
    }

    /// A connection has died. What was on its way to it will not arrive.
    fn fails(&mut self, side: Side, kind: ErrorKind) {
        self.first_to_fail.get_or_insert(side);
        let wire = &mut self.wires[side as usize];
        wire.error.get_or_insert(kind);
        wire.readable = true;
    }

    /// What was filled is what was flushed, held and discarded; and the other figures of the summary.
    fn expect_conservation(&self) {
        let summary = self.session.summary(CloseReason::Done, self.now);
        let [to_backend, to_client] = self.flows;
        assert_eq!((summary.to_backend, summary.to_client), (to_backend.flushed, to_client.flushed));
        assert_eq!(
            summary.to_backend + summary.to_client + summary.discarded.iter().sum::<u64>(),
            to_backend.filled + to_client.filled
        );
        assert_eq!(u64::from(self.session.unwritten_preface()), self.header);
        assert_eq!(summary.reset_by, self.first_to_fail);
        assert_eq!(summary.connect_time, self.connected.map(|connected| connected - self.opened));
        assert_eq!((summary.duration, summary.retries), (self.now - self.accepted, self.redials));
    }

    /// From here on nothing happens but time: the session ends, and asks for little on the way.
    fn expect_end_in_silence(&mut self) {
        self.drive_by(quiet);
        for _ in 0..STUBBORN_MOMENTS {
            self.expect_timers_move_on();
        }
        for _ in 0..TIMERS_TO_THE_END_MAX {
            self.drive_by(quiet);
            if let Some(end) = self.session.end() {
                return self.expect_faithful(end);
            }
            self.fire(|books| books.cut(CloseReason::ConnectTimeout));
        }
        panic!("no end after {TIMERS_TO_THE_END_MAX} timers: {:?}", self.session);
    }

    /// A timer that has fired is not due again at once, also while peers hold everything up.
    fn expect_timers_move_on(&mut self) {
        for _ in 0..TIMERS_AT_ONCE_MAX {
            if self.session.end().is_some() {
                return;
            }
            self.fire(|books| books.dial_again(true));
            self.drive_by(stubborn);
            if self.session.end().is_some() || self.session.deadline() > self.now {
                return;
            }
        }
        panic!("due again and again: {:?}", self.session);
    }

    /// Lets time pass until the deadline.
    fn fire(&mut self, on_dial: impl FnOnce(&mut Self)) {
        self.now = self.now.max(self.session.deadline());
        match self.session.on_deadline(self.now) {
            Expiry::Early => panic!("the deadline had come"),
            Expiry::Wait | Expiry::Dial => on_dial(self),
            Expiry::Drive if self.is_opening => self.expect_last_look(),
            Expiry::Drive => {}
        }
    }

    fn drive_by(&mut self, outcome: impl Fn(Op) -> Outcome) {
        for _ in 0..QUIET_OPS_MAX {
            let Some(op) = self.session.next_op() else { return };
            self.expect_due(op);
            self.perform(op, outcome(op));
        }
        panic!("still busy after {QUIET_OPS_MAX} ops: {:?}", self.session);
    }

    /// Nobody takes a part for the whole: where something is missing the connection is reset.
    fn expect_faithful(&mut self, end: End) {
        self.expect_conservation();
        let timed_out = matches!(end.reason, CloseReason::IdleTimeout | CloseReason::HalfCloseTimeout);
        if self.cut.is_some() || timed_out {
            assert_eq!(end.reason, self.cut.unwrap_or(end.reason));
            assert_eq!((end.client, end.backend), (CloseMode::Reset, CloseMode::Reset));
        } else {
            assert_eq!(end.reason == CloseReason::Done, self.first_to_fail.is_none(), "{end:?}");
        }
        for direction in Direction::BOTH {
            let flow = self.flows[direction as usize];
            let close_mode = |side| if side == Side::Client { end.client } else { end.backend };
            if !flow.fin_sent {
                assert_eq!(
                    close_mode(direction.sink()),
                    CloseMode::Reset,
                    "{direction:?} has no end: {end:?}"
                );
            }
            if flow.filled > flow.flushed {
                assert_eq!(
                    close_mode(direction.source()),
                    CloseMode::Reset,
                    "{direction:?} lacks bytes: {end:?}"
                );
            }
        }
        for side in Side::BOTH {
            self.deliver(side, Ready { readable: true, writable: true, closing: true, failing: true });
            assert_eq!((self.session.next_op(), self.session.end()), (None, Some(end)), "over is over");
        }
    }
}
