//! Budgets of a turn, and of each session within it: every event that arrives meanwhile waits for the whole turn.
//!
//! Events come first. A session that moves little is served as soon as its event is read; a stream is only queued. The
//! queue is served after all events, checks and timers, in shares, until the turn has moved its limit or has lasted
//! long enough, and continues in the next turn. So an event waits for no more than one turn of streams, however many
//! there are.

use std::time::Duration;

use crate::base::time::Instant;
use crate::config::fd_budget::PIPE_LEN_MAX;
use crate::session::{Op, Outcome};

/// The budget of a turn for events. The queue has the same budget, and the rest of this one.
const UPON_EVENTS: Allowance = Allowance { fills: 1024, bytes: 2 << 20 };
const OF_QUEUE: Allowance = Allowance { fills: 512, bytes: 2 << 20 };
/// Timers fired and checks started per turn: the rest is due in the next turn, which starts at once. The most expensive
/// ones take about 20 µs.
const TIMERS: u32 = 256;
const CHECKS: u32 = 64;
/// Steps of TLS handshakes of checks, each of which takes some 0.1 ms: the rest waits for the next turn.
const HANDSHAKE_STEPS: u32 = 8;
/// Dials of sessions that have waited to be dialed, each as expensive as a check. The next turn dials the rest.
const DIALS: u32 = 64;
/// Once a turn has lasted this long, no further session of the queue gets a share in it.
const TURN_TIME: Duration = Duration::from_millis(2);

/// The budget of a session upon an event. A session that moves more is a stream.
const SHARE_UPON_EVENT: Allowance = Allowance { fills: 16, bytes: 256 << 10 };
/// The budget of a session of the queue while other sessions are active, and while none is.
const SHARE_IN_COMPANY: Allowance = Allowance { fills: 16, bytes: 512 << 10 };
const SHARE_ALONE: Allowance = Allowance { fills: 16, bytes: 2 << 20 };
/// After an event of another session it counts as active for this long: its next event may come at any time.
const COMPANY_TIME: Duration = Duration::from_millis(100);
/// A splice is asked for at least this much: below it costs more than a copy.
const SPLICE_LEN_MIN: usize = 64 << 10;

/// Fills, and bytes moved: a relayed byte counts when it comes in and when it goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allowance {
    fills: u32,
    bytes: usize,
}

impl Allowance {
    fn is_used_up(self) -> bool {
        self.fills == 0 || self.bytes == 0
    }

    fn min(self, other: Self) -> Self {
        Self { fills: self.fills.min(other.fills), bytes: self.bytes.min(other.bytes) }
    }

    fn spend(&mut self, used: Self) {
        self.fills = self.fills.saturating_sub(used.fills);
        self.bytes = self.bytes.saturating_sub(used.bytes);
    }
}

/// The rest of a turn's budgets.
#[derive(Debug)]
pub(super) struct Turn {
    began: Instant,
    /// When something last happened to a session that does not stream.
    company: Option<Instant>,
    upon_events: Allowance,
    of_queue: Allowance,
    timers: u32,
    checks: u32,
    handshake_steps: u32,
    dials: u32,
}

impl Turn {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            company: None,
            upon_events: UPON_EVENTS,
            of_queue: OF_QUEUE,
            timers: TIMERS,
            checks: CHECKS,
            handshake_steps: HANDSHAKE_STEPS,
            dials: DIALS,
        }
    }

    pub(super) fn begin(&mut self, now: Instant) {
        *self = Self { company: self.company, ..Self::new(now) };
    }

    /// Counts one more timer and returns true, if the turn allows it.
    pub(super) fn take_timer(&mut self) -> bool {
        take_one(&mut self.timers)
    }

    /// Counts one more check and returns true, if the turn allows it.
    pub(super) fn take_check(&mut self) -> bool {
        take_one(&mut self.checks)
    }

    /// Counts one more step of a handshake and returns true, if the turn allows it.
    pub(super) fn take_handshake_step(&mut self) -> bool {
        take_one(&mut self.handshake_steps)
    }

    /// Takes one of the dials that a turn grants to waiting sessions; returns false when none is left.
    pub(super) fn take_dial(&mut self) -> bool {
        take_one(&mut self.dials)
    }

    /// Returns whether timers and checks of this turn may be left over: the limit was reached.
    pub(super) fn leaves(&self) -> (bool, bool) {
        (self.timers == 0, self.checks == 0)
    }

    /// Must be called when something has happened to a session that does not stream.
    pub(super) fn note_other_session(&mut self) {
        self.company = Some(self.began);
    }

    /// Returns the share of a session upon an event.
    pub(super) fn share_upon_event(&self) -> Share {
        Share::new(SHARE_UPON_EVENT.min(self.upon_events), false)
    }

    /// Must be called before the queue is served.
    pub(super) fn begin_queue(&mut self) {
        self.of_queue.bytes += self.upon_events.bytes;
        self.upon_events = Allowance { fills: 0, bytes: 0 };
    }

    /// Returns the share of the next session of the queue; `None` when it must wait for the next turn.
    pub(super) fn next_share(&self, now: Instant) -> Option<Share> {
        if self.of_queue.is_used_up() || now.since(self.began) >= TURN_TIME {
            return None;
        }
        let has_company = self.company.is_some_and(|last| self.began.since(last) < COMPANY_TIME);
        let share = if has_company { SHARE_IN_COMPANY } else { SHARE_ALONE };
        Some(Share::new(share.min(self.of_queue), true))
    }

    /// Deducts the share that a session has used.
    pub(super) fn spend(&mut self, share: &Share) {
        let left = if share.is_of_queue { &mut self.of_queue } else { &mut self.upon_events };
        left.spend(share.used);
    }
}

fn take_one(left: &mut u32) -> bool {
    let is_left = *left > 0;
    *left = left.saturating_sub(1);
    is_left
}

/// The budget of a session in a turn, and what it has used.
#[derive(Debug)]
pub(super) struct Share {
    left: Allowance,
    used: Allowance,
    is_of_queue: bool,
    /// Bytes taken by the session, by direction.
    pub(super) taken: [u64; 2],
}

impl Share {
    fn new(left: Allowance, is_of_queue: bool) -> Self {
        Self { left, used: Allowance { fills: 0, bytes: 0 }, is_of_queue, taken: [0; 2] }
    }

    /// Returns whether an op of a streaming direction is allowed.
    pub(super) fn takes_streams(&self) -> bool {
        self.is_of_queue
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.left.is_used_up()
    }

    /// Returns how much a splice may take: about as much as it and its flush use up together.
    pub(super) fn splice_max(&self) -> usize {
        (self.left.bytes / 2).clamp(SPLICE_LEN_MIN, PIPE_LEN_MAX)
    }

    pub(super) fn spend(&mut self, op: Op, outcome: Outcome) {
        let (Outcome::Moved(bytes) | Outcome::Drained(bytes) | Outcome::Last(bytes, _)) = outcome else {
            return;
        };
        let fills = u32::from(matches!(op, Op::Fill(_)));
        let used = Allowance { fills, bytes };
        self.left.spend(used);
        self.used = Allowance { fills: self.used.fills + fills, bytes: self.used.bytes + bytes };
        if let Op::Fill(direction) = op {
            self.taken[direction as usize] += bytes as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Direction::ToClient;

    const START: Instant = Instant::from_nanos(1_000_000_000);

    fn turn() -> Turn {
        let mut turn = Turn::new(START);
        turn.begin_queue();
        turn
    }

    /// Serves a session with more work than its share allows.
    fn serve(turn: &mut Turn, mut share: Share) -> u64 {
        let mut moved = 0;
        while !share.is_used_up() {
            let bytes = share.splice_max();
            share.spend(Op::Fill(ToClient), Outcome::Moved(bytes));
            share.spend(Op::Flush(ToClient), Outcome::Moved(bytes));
            moved += 2 * bytes as u64;
        }
        turn.spend(&share);
        moved
    }

    #[test]
    fn a_turn_moves_no_more_than_it_may_however_many_sessions_wait() {
        for company in [false, true] {
            let mut turn = turn();
            if company {
                turn.note_other_session();
            }
            let most = (UPON_EVENTS.bytes + OF_QUEUE.bytes + SPLICE_LEN_MIN) as u64;
            let mut moved = 0;
            while let Some(share) = turn.next_share(START)
                && moved <= most
            {
                moved += serve(&mut turn, share);
            }
            assert!((4 << 20..=most).contains(&moved), "{moved} bytes");
        }
    }

    #[test]
    fn sessions_with_events_leave_the_ready_queue_its_part() {
        let mut turn = Turn::new(START);
        for _ in 0..100 {
            let share = turn.share_upon_event();
            serve(&mut turn, share);
        }
        assert!(turn.share_upon_event().is_used_up());
        turn.begin_queue();
        let share = turn.next_share(START).expect("its own part");
        assert_eq!(share.left, SHARE_ALONE.min(OF_QUEUE));
    }

    #[test]
    fn shares_are_small_for_a_while_after_another_session_was_active() {
        let mut turn = turn();
        assert_eq!(turn.next_share(START).expect("a share").left, SHARE_ALONE);
        turn.note_other_session();
        for (since, share) in [(Duration::ZERO, SHARE_IN_COMPANY), (COMPANY_TIME, SHARE_ALONE)] {
            let now = START + since;
            turn.begin(now);
            turn.begin_queue();
            assert_eq!(turn.next_share(now).expect("a share").left, share, "after {since:?}");
        }
    }

    #[test]
    fn a_turn_that_has_lasted_long_enough_begins_with_no_other_session() {
        let mut turn = turn();
        assert!(turn.next_share(START + TURN_TIME).is_none());
        turn.begin(START + TURN_TIME);
        assert!(turn.next_share(START + TURN_TIME).is_some());
    }

    #[test]
    fn small_fills_are_counted_too() {
        let mut share = turn().next_share(START).expect("a share");
        for _ in 0..SHARE_ALONE.fills {
            assert!(!share.is_used_up());
            share.spend(Op::Fill(ToClient), Outcome::Drained(1));
            share.spend(Op::Flush(ToClient), Outcome::Moved(1));
        }
        assert!(share.is_used_up());
        assert_eq!(share.taken, [0, u64::from(SHARE_ALONE.fills)]);
    }
}
