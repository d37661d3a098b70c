//! How hard a member is worked: what it would have with one more session, per unit of weight.

use std::cmp::Ordering;

use super::Members;

/// Sessions per weight as a fraction, compared without rounding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pressure {
    sessions: u64,
    weight: u64,
}

impl Pressure {
    /// The pressure on `member` if it got this session; `weight` must not be 0.
    pub(super) fn with_one_more(members: &dyn Members, member: usize, weight: u16) -> Self {
        Self { sessions: u64::from(members.load(member)) + 1, weight: u64::from(weight) }
    }

    /// How the two compare; exact, and transitive because no weight is 0.
    pub(super) fn compare(self, other: Self) -> Ordering {
        (self.sessions * other.weight).cmp(&(other.sessions * self.weight))
    }
}
