//! Whose turn it is among members that are even: start-time fair queueing (Goyal et al., 1996).
//!
//! A clock that all picks of a pool share runs in virtual time. A session costs its member a span of that time, the shorter
//! the heavier the member, and whoever's time is the least has the next turn: so members that are even for long share by
//! weight, and equal ones take turns. Who was not among them for a while starts from the time that it is now: nothing is
//! owed for turns of others.
//!
//! A stamp is the time to which a member has been served. Time goes round and only its low bits are compared: a member
//! whose last turn is thousands of rounds ago may come a round later than it could have.

/// What a session costs a member of weight 1: can be divided by small weights, and by the sum of those of 10,000 members
/// of the largest.
const SPAN: u64 = 720_720 << 9;

/// Bits of the time that are compared.
pub(super) const TIME_BITS: u32 = 40;

/// Time goes round behind this.
pub(super) const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// Where a stamp is in the order of turns, the first the least.
pub(super) const fn order(stamp: u64, now: u64) -> u64 {
    // No stamp is more than a span ahead of the clock, so what seems to be is the oldest.
    stamp.wrapping_sub(now).wrapping_sub(SPAN + 1) & TIME_MASK
}

/// The stamp of a member that gets a session, and what the clock is then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) stamp: u64,
    pub(super) now: u64,
}

impl Turn {
    /// It was even with others, and it was its turn.
    pub(super) fn won(stamp: u64, now: u64, weight: u16) -> Self {
        let start = now.wrapping_add(ahead(stamp, now));
        Self { stamp: start.wrapping_add(span(weight)), now: start.wrapping_add(1) }
    }

    /// It was alone. That costs it turns too, but no more than there are in a span, and those that were not there none.
    pub(super) fn alone(stamp: u64, now: u64, weight: u16) -> Self {
        let ahead = (ahead(stamp, now) + span(weight)).min(SPAN);
        // The clock moves with every session, so that no two of equal members have one stamp.
        Self { stamp: now.wrapping_add(ahead), now: now.wrapping_add(1) }
    }
}

/// How far the stamp of a member that was served lately is ahead of the clock.
const fn ahead(stamp: u64, now: u64) -> u64 {
    let ahead = stamp.wrapping_sub(now) & TIME_MASK;
    if ahead <= SPAN { ahead } else { 0 }
}

fn span(weight: u16) -> u64 {
    SPAN / u64::from(weight)
}
