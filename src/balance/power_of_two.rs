//! Picks the less loaded of two members drawn by weight: nearly as even as asking all, at the price of asking two.

use super::lookup::Slots;
use super::pressure::Pressure;
use super::{Member, Members, Pick, schedule};

pub(super) struct PowerOfTwo {
    slots: Slots,
    weights: Box<[u16]>,
}

impl PowerOfTwo {
    pub(super) fn build(members: &[Member]) -> Self {
        let weights = members.iter().map(|member| member.weight).collect();
        Self { slots: schedule::slots(members), weights }
    }

    pub(super) fn owned(&self, members: usize) -> Vec<u64> {
        self.slots.owned(members)
    }

    /// Returns the less loaded, per weight, of two different members, or the only eligible one.
    pub(super) fn pick(&self, pick: &mut Pick<'_>, members: &dyn Members) -> Option<usize> {
        let first = self.slots.pick(members, |_| pick.rng.next_u64())?;
        let others = Others { members, than: first };
        let second = self.slots.pick(&others, |_| pick.rng.next_u64()).unwrap_or(first);
        let of = |member: usize| (members.load(member), self.weights[member]);
        let ((load, weight), (more, its_weight)) = (of(second), of(first));
        // When both are equal the first one wins, which was drawn by weight. Otherwise a light member equal to a heavy
        // one would never be picked while both have little to do.
        let is_lighter =
            Pressure::with_one_more(load, weight).compare(Pressure::of(more, its_weight)).is_le();
        Some(if is_lighter { second } else { first })
    }
}

struct Others<'a> {
    members: &'a dyn Members,
    than: usize,
}

impl Members for Others<'_> {
    fn is_eligible(&self, member: usize) -> bool {
        member != self.than && self.members.is_eligible(member)
    }

    fn load(&self, member: usize) -> u32 {
        self.members.load(member)
    }

    fn stamp(&self, member: usize) -> u64 {
        self.members.stamp(member)
    }

    fn claim(&self, member: usize, seen: u64, next: u64) -> bool {
        self.members.claim(member, seen, next)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Algorithm;
    use super::super::testing::TestPool;

    fn power_of_two(weights: &[u16], loads: &[u32]) -> TestPool {
        let mut test_pool = TestPool::new(Algorithm::PowerOfTwo, weights);
        test_pool.loads = loads.to_vec();
        test_pool
    }

    #[test]
    fn of_two_members_the_less_loaded_is_always_picked() {
        assert_eq!(power_of_two(&[1, 1], &[5, 4]).picks(50), [1; 50]);
    }

    #[test]
    fn load_counts_per_weight() {
        // With one more session 9 / 4, and 3 / 1 without.
        assert_eq!(power_of_two(&[4, 1], &[8, 3]).picks(50), [0; 50]);
    }

    /// The heavy one would have fewer per weight with the session, and got every one.
    #[test]
    fn members_that_are_even_share_by_weight() {
        for loads in [[0, 0], [4, 1], [8, 2]] {
            let counts = power_of_two(&[4, 1], &loads).counts(5_000);
            assert!((3_800..=4_200).contains(&counts[0]), "{counts:?} with {loads:?}");
        }
    }

    #[test]
    fn the_most_loaded_of_three_is_never_picked() {
        assert_eq!(power_of_two(&[1, 1, 1], &[3, 9, 3]).counts(300)[1], 0);
    }

    #[test]
    fn sessions_that_stay_even_out() {
        let mut test_pool = power_of_two(&[1; 100], &[0; 100]);
        for _ in 0..10_000 {
            let member = test_pool.pick().expect("all are eligible");
            test_pool.loads[member] += 1;
        }
        let most = test_pool.loads.iter().max().expect("a hundred members");
        assert!(*most <= 105, "100 each expected, one has {most}");
    }
}
