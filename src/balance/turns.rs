//! The turn among members of equal load: start-time fair queueing (Goyal et al., 1996).
//!
//! All picks of a pool share a clock of virtual time. A session costs its member a span of that time, shorter for
//! heavier members, and the member with the least time has the next turn. So members that stay equal share by weight,
//! and equal weights take turns. A member that was not among them for a while continues from the present time: it is
//! owed nothing for the turns of others.
//!
//! A stamp is the time up to which a member has been served. Time wraps around and only its low bits are compared: a
//! member with its last turn thousands of rounds ago may come a round later than it could.

/// The cost of a session for a member of weight 1: divisible by small weights, and by the sum of the largest weights of
/// 10,000 members.
const SPAN: u64 = 720_720 << 9;

/// Bits of the time that are compared.
pub(super) const TIME_BITS: u32 = 40;

/// Time wraps around behind this.
pub(super) const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// Returns the place of a stamp in the order of turns, the first the least.
pub(super) const fn order(stamp: u64, now: u64) -> u64 {
    // No stamp is more than a span ahead of the clock, so a stamp that seems to be is the oldest.
    stamp.wrapping_sub(now).wrapping_sub(SPAN + 1) & TIME_MASK
}

/// The stamp of a member that gets a session, and the clock after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) stamp: u64,
    pub(super) now: u64,
}

impl Turn {
    /// The member was equal to others, and it was its turn.
    pub(super) fn won(stamp: u64, now: u64, weight: u16) -> Self {
        let start = now.wrapping_add(ahead(stamp, now));
        Self { stamp: start.wrapping_add(span(weight)), now: start.wrapping_add(1) }
    }

    /// The member was alone. That costs it turns too, but at most a span of them; the others are owed nothing.
    pub(super) fn alone(stamp: u64, now: u64, weight: u16) -> Self {
        let ahead = (ahead(stamp, now) + span(weight)).min(SPAN);
        // The clock moves with every session, so that no two equal members have the same stamp.
        Self { stamp: now.wrapping_add(ahead), now: now.wrapping_add(1) }
    }
}

/// Returns how far the stamp of a member that was served lately is ahead of the clock.
const fn ahead(stamp: u64, now: u64) -> u64 {
    let ahead = stamp.wrapping_sub(now) & TIME_MASK;
    if ahead <= SPAN { ahead } else { 0 }
}

fn span(weight: u16) -> u64 {
    SPAN / u64::from(weight)
}
