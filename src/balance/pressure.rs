//! The load of a member relative to its weight.

use std::cmp::Ordering;

/// Sessions per weight as a fraction, compared without rounding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pressure {
    sessions: u64,
    weight: u64,
}

impl Pressure {
    /// Returns the pressure of `load` sessions; `weight` must not be 0.
    pub(super) fn of(load: u32, weight: u16) -> Self {
        Self { sessions: load.into(), weight: weight.into() }
    }

    /// Returns the pressure with one more session.
    pub(super) fn with_one_more(load: u32, weight: u16) -> Self {
        Self { sessions: u64::from(load) + 1, weight: weight.into() }
    }

    /// Compares exactly; transitive because no weight is 0.
    pub(super) fn compare(self, other: Self) -> Ordering {
        (self.sessions * other.weight).cmp(&(other.sessions * self.weight))
    }
}
