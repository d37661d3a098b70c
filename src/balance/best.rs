//! The comparison behind `least_connections`: which of the members seen is next.

use std::cmp::Reverse;

use super::Members;
use super::pressure::Pressure;
use super::turns;

/// A member that may be picked at all.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub(super) member: u32,
    pub(super) weight: u16,
}

/// A member as it was seen in one pick.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) member: u32,
    pub(super) weight: u16,
    pub(super) load: u32,
    pub(super) stamp: u64,
}

/// The member to get the session.
#[derive(Clone, Copy)]
pub(super) struct Best {
    pub(super) seen: Seen,
    /// No other member is equal to it.
    pub(super) is_alone: bool,
}

/// Returns the member whose turn it is among those equal to the least loaded.
pub(super) fn best(all: impl Iterator<Item = Seen> + Clone, now: u64) -> Option<Best> {
    let with_one_more = |seen: Seen| Pressure::with_one_more(seen.load, seen.weight);
    let least = all.clone().map(with_one_more).min_by(|one, other| one.compare(*other))?;
    let mut even = all.filter(|seen| Pressure::of(seen.load, seen.weight).compare(least).is_lt());
    let first = Best { seen: even.next()?, is_alone: true };
    Some(even.fold(first, |Best { seen, .. }, other| {
        let is_later = other.place(now) >= seen.place(now);
        Best { seen: if is_later { seen } else { other }, is_alone: false }
    }))
}

impl Seen {
    pub(super) fn of(members: &dyn Members, member: u32, weight: u16) -> Self {
        let (load, stamp) = (members.load(member as usize), members.stamp(member as usize));
        Self { member, weight, load, stamp }
    }

    /// The order of turns. Of members that never had one, the heaviest is first.
    fn place(self, now: u64) -> (u64, Reverse<u16>) {
        (turns::order(self.stamp, now), Reverse(self.weight))
    }
}
