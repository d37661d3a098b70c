//! The entry to the algorithms: which of them runs is decided when the table is built.

use std::net::IpAddr;

use super::least_connections::LeastConnections;
use super::power_of_two::PowerOfTwo;
use super::random::Random;
use super::round_robin::RoundRobin;
use super::source_hash::SourceHash;
use super::{Algorithm, Member, Members, Pick};

/// Everything that can be computed ahead for a set of members; immutable and shared by all workers. Must be built again
/// only when a member is added, removed or changes its weight. A member that is down is skipped; a new table without it
/// only saves the skipping.
pub struct Table(Kind);

enum Kind {
    RoundRobin(RoundRobin),
    LeastConnections(LeastConnections),
    PowerOfTwo(PowerOfTwo),
    SourceHash(SourceHash),
    Random(Random),
}

impl Table {
    /// Returns the table of `algorithm` over `members`.
    pub fn build(algorithm: Algorithm, members: &[Member]) -> Self {
        Self(match algorithm {
            Algorithm::RoundRobin => Kind::RoundRobin(RoundRobin::build(members)),
            Algorithm::LeastConnections => Kind::LeastConnections(LeastConnections::build(members)),
            Algorithm::PowerOfTwo => Kind::PowerOfTwo(PowerOfTwo::build(members)),
            Algorithm::SourceHash => Kind::SourceHash(SourceHash::build(members)),
            Algorithm::Random => Kind::Random(Random::build(members)),
        })
    }

    /// Returns the table with absent members passed over ahead of every pick, if the algorithm keeps their places.
    #[must_use]
    pub fn without(self, is_absent: &dyn Fn(usize) -> bool) -> Self {
        Self(match self.0 {
            Kind::RoundRobin(table) => Kind::RoundRobin(table.without(is_absent)),
            kind @ (Kind::LeastConnections(_)
            | Kind::PowerOfTwo(_)
            | Kind::SourceHash(_)
            | Kind::Random(_)) => kind,
        })
    }

    /// Returns the table for `workers` workers, where members already have sessions and the cursor stands at `cursor`.
    #[must_use]
    pub fn begun(self, workers: usize, cursor: u64, members: &dyn Members) -> Self {
        Self(match self.0 {
            Kind::LeastConnections(table) => Kind::LeastConnections(table.begun(workers, cursor, members)),
            kind @ (Kind::RoundRobin(_) | Kind::PowerOfTwo(_) | Kind::SourceHash(_) | Kind::Random(_)) => {
                kind
            }
        })
    }

    /// Returns whether [`Table::note`] should be called.
    pub fn wants_notes(&self) -> bool {
        match &self.0 {
            Kind::LeastConnections(table) => table.wants_notes(),
            Kind::RoundRobin(_) | Kind::PowerOfTwo(_) | Kind::SourceHash(_) | Kind::Random(_) => false,
        }
    }

    /// Records for the picks of `worker` that a member has `load` sessions now, fewer than before. Sessions that begin
    /// are recorded by the pick; an end that is never noted is found out later.
    pub fn note(&self, worker: usize, cursor: u64, member: usize, (load, stamp): (u32, u64)) {
        if let Kind::LeastConnections(table) = &self.0 {
            table.note(worker, member, load, stamp, cursor);
        }
    }

    /// Returns the member for one session, as an index into the slice given to [`Table::build`]. Returns `None` exactly
    /// when no member of weight > 0 is eligible.
    pub fn pick(&self, pick: &mut Pick<'_>, members: &dyn Members) -> Option<usize> {
        match &self.0 {
            Kind::RoundRobin(table) => table.pick(pick, members),
            Kind::LeastConnections(table) => table.pick(pick, members),
            Kind::PowerOfTwo(table) => table.pick(pick, members),
            Kind::SourceHash(table) => table.pick(pick, members),
            Kind::Random(table) => table.pick(pick, members),
        }
    }

    /// Returns how many slots of the table each of the first `members` members owns: turns of a schedule, or places of
    /// a hash. Empty for least connections, which has no table.
    pub fn owned(&self, members: usize) -> Vec<u64> {
        match &self.0 {
            Kind::SourceHash(SourceHash(slots)) | Kind::Random(Random(slots)) => slots.owned(members),
            Kind::RoundRobin(table) => table.owned(members),
            Kind::PowerOfTwo(table) => table.owned(members),
            Kind::LeastConnections(_) => vec![0; members],
        }
    }
}

impl Table {
    /// Returns the members that `client` maps to, in order of preference, where that depends on the client alone; else
    /// none.
    pub fn homes(&self, client: IpAddr) -> impl Iterator<Item = usize> {
        let homes = match &self.0 {
            Kind::SourceHash(table) => Some(table.homes(client)),
            Kind::RoundRobin(_) | Kind::LeastConnections(_) | Kind::PowerOfTwo(_) | Kind::Random(_) => None,
        };
        homes.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::testing::{TestPool, members};
    use super::*;

    const ALGORITHMS: [Algorithm; 5] = [
        Algorithm::RoundRobin,
        Algorithm::LeastConnections,
        Algorithm::PowerOfTwo,
        Algorithm::SourceHash,
        Algorithm::Random,
    ];

    #[test]
    fn an_empty_table_picks_none() {
        for algorithm in ALGORITHMS {
            assert_eq!(TestPool::new(algorithm, &[]).pick(), None, "{algorithm:?}");
        }
    }

    #[test]
    fn a_lone_member_takes_every_session() {
        for algorithm in ALGORITHMS {
            assert_eq!(TestPool::new(algorithm, &[7]).picks(10), [0; 10], "{algorithm:?}");
        }
    }

    #[test]
    fn the_one_eligible_of_ten_thousand_is_found() {
        for algorithm in ALGORITHMS {
            let mut test_pool = TestPool::new(algorithm, &[1; 10_000]);
            test_pool.down = (0..10_000).map(|member| member != 7_777).collect();
            assert_eq!(test_pool.picks(20), [7_777; 20], "{algorithm:?}");
        }
    }

    #[test]
    fn when_half_the_members_are_down_the_other_half_shares_their_sessions() {
        // One block of neighbours, longer than DRAWS_MAX: the member behind it must not take all their turns.
        for algorithm in ALGORITHMS {
            let mut test_pool = TestPool::new(algorithm, &[1; 200]);
            test_pool.down = (0..200).map(|member| member < 100).collect();
            let counts = test_pool.counts(20_000);
            let most = counts.iter().max().expect("two hundred members");
            assert!(*most <= 600, "{algorithm:?}: 200 each expected, one has {most}");
        }
    }

    /// After enough vain draws the pick went to the next in the list: with 98 members down, one of the remaining two
    /// had three times as many sessions as the other, and with a heavy member down the light ones counted as equals.
    #[test]
    fn the_remaining_members_share_by_weight_however_many_slots_belong_to_members_that_are_down() {
        const PICKS: usize = 8_000;
        let block: Vec<(u16, bool)> = (0..100).map(|member| (1, member < 98)).collect();
        let heavy = vec![(256, true), (1, false), (3, false)];
        for algorithm in [Algorithm::PowerOfTwo, Algorithm::SourceHash, Algorithm::Random] {
            for members in [&block, &heavy] {
                let (weights, down): (Vec<u16>, Vec<bool>) = members.iter().copied().unzip();
                let mut test_pool = TestPool::new(algorithm, &weights);
                test_pool.down.clone_from(&down);
                let left: u16 = members.iter().filter(|(_, down)| !down).map(|(weight, _)| weight).sum();
                for (count, &(weight, down)) in test_pool.counts(PICKS).into_iter().zip(members) {
                    let share = if down { 0 } else { PICKS * usize::from(weight) / usize::from(left) };
                    assert!(count.abs_diff(share) <= PICKS / 40, "{algorithm:?}: {count} of weight {weight}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_pick_is_eligible_and_has_a_weight_and_is_none_only_without_eligible_members(
            weights in vec(0u16..=4, 0..40), down in vec(any::<bool>(), 40), loads in vec(0u32..5, 40),
        ) {
            for algorithm in ALGORITHMS {
                let mut test_pool = TestPool::new(algorithm, &weights);
                test_pool.down.copy_from_slice(&down[..weights.len()]);
                test_pool.loads.copy_from_slice(&loads[..weights.len()]);
                let may = |member: usize| weights[member] > 0 && !down[member];
                let anybody = (0..weights.len()).any(may);
                for _ in 0..20 {
                    let picked = test_pool.pick();
                    prop_assert_eq!(picked.is_some(), anybody, "{:?}", algorithm);
                    prop_assert!(picked.is_none_or(may), "{:?} picked {:?}", algorithm, picked);
                }
            }
        }

        #[test]
        fn the_same_seed_gives_the_same_picks(weights in vec(1u16..=9, 1..20)) {
            for algorithm in ALGORITHMS {
                let picks = || TestPool::new(algorithm, &weights).picks(50);
                prop_assert_eq!(picks(), picks(), "{:?}", algorithm);
            }
        }
    }

    #[test]
    fn members_of_a_test_have_distinct_identities() {
        let members = members(&[1; 1_000]);
        let distinct: std::collections::HashSet<u64> = members.iter().map(|member| member.identity).collect();
        assert_eq!(distinct.len(), 1_000);
    }
}
