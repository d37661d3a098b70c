//! Picks by weight at random, each session independently.

use super::lookup::Slots;
use super::{Member, Members, Pick, schedule};

pub(super) struct Random(pub(super) Slots);

impl Random {
    pub(super) fn build(members: &[Member]) -> Self {
        Self(schedule::slots(members))
    }

    /// Returns a random member, in proportion to weight.
    pub(super) fn pick(&self, pick: &mut Pick<'_>, members: &dyn Members) -> Option<usize> {
        self.0.pick(members, |_| pick.rng.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Algorithm;
    use super::super::testing::TestPool;

    #[test]
    fn chance_follows_weight() {
        let counts = TestPool::new(Algorithm::Random, &[1, 2, 0, 3]).counts(60_000);
        for (count, expected) in counts.iter().zip([10_000, 20_000, 0, 30_000]) {
            assert!(count.abs_diff(expected) <= expected / 20, "{counts:?}");
        }
    }
}
