//! In turn, by weight. The turn is one number shared by all workers, so the shares are exact over the whole process.

use std::sync::atomic::Ordering;

use super::slots::Slots;
use super::{Member, Members, Pick, schedule};

pub(super) struct RoundRobin(pub(super) Slots);

impl RoundRobin {
    pub(super) fn build(members: &[Member]) -> Self {
        Self(schedule::slots(members))
    }

    /// The member whose turn it is; a member that is not eligible loses its turn.
    pub(super) fn pick(&self, pick: &mut Pick<'_>, members: &dyn Members) -> Option<usize> {
        // One operation reads and raises it, so each turn is given once, whoever comes when.
        // Relaxed: only the count matters, nothing is published through it.
        self.0.pick(members, |_| pick.cursor.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use proptest::prelude::*;

    use super::super::fleet::{Fleet, members};
    use super::super::{Algorithm, Table};
    use super::*;
    use crate::base::rng::Rng;

    fn round_robin(weights: &[u16]) -> Fleet {
        Fleet::new(Algorithm::RoundRobin, weights)
    }

    #[test]
    fn equal_members_take_turns() {
        assert_eq!(round_robin(&[1, 1, 1]).picks(7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_member_that_is_down_loses_its_turn_and_the_others_keep_alternating() {
        for (down, expected) in [(0, [1, 2, 1, 2]), (1, [0, 2, 0, 2]), (2, [0, 1, 0, 1])] {
            let mut fleet = round_robin(&[1, 1, 1]);
            fleet.down[down] = true;
            assert_eq!(fleet.picks(4), expected, "member {down} down");
        }
    }

    #[test]
    fn a_cursor_of_any_value_names_a_member() {
        let (table, mut rng) = (Table::build(Algorithm::RoundRobin, &members(&[1, 2, 3])), Rng::new(1));
        let cursor = AtomicU64::new(u64::MAX);
        let mut pick = Pick { cursor: &cursor, client: Ipv4Addr::LOCALHOST.into(), rng: &mut rng };
        assert!(table.pick(&mut pick, &Everybody).is_some());
        assert!(table.pick(&mut pick, &Everybody).is_some());
    }

    struct Everybody;

    impl Members for Everybody {
        fn is_eligible(&self, _: usize) -> bool {
            true
        }

        fn load(&self, _: usize) -> u32 {
            0
        }
    }

    #[test]
    fn four_threads_over_one_cursor_share_exactly() {
        const THREADS: u64 = 4;
        const PICKS: usize = 30_000;
        let weights = [1, 2, 3, 6];
        let (table, cursor) = (Table::build(Algorithm::RoundRobin, &members(&weights)), AtomicU64::new(0));
        let one_worker = |seed| {
            let (mut rng, mut counts) = (Rng::new(seed), [0usize; 4]);
            for _ in 0..PICKS {
                let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
                let mut pick = Pick { cursor: &cursor, client, rng: &mut rng };
                counts[table.pick(&mut pick, &Everybody).expect("all are eligible")] += 1;
            }
            counts
        };
        let counts = thread::scope(|scope| {
            let one_worker = &one_worker;
            let workers: Vec<_> = (0..THREADS).map(|seed| scope.spawn(move || one_worker(seed))).collect();
            workers.into_iter().map(|worker| worker.join().expect("a worker")).collect::<Vec<_>>()
        });
        let total = |member: usize| counts.iter().map(|counts| counts[member]).sum::<usize>();
        for (member, &weight) in weights.iter().enumerate() {
            assert_eq!(total(member), PICKS * 4 / 12 * usize::from(weight), "member {member}");
        }
    }

    proptest! {
        #[test]
        fn equal_members_never_differ_by_more_than_one(size in 1usize..100, picks in 0usize..1_000) {
            let counts = round_robin(&vec![3; size]).counts(picks);
            let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
            prop_assert!(most.unwrap_or(0) - least.unwrap_or(0) <= 1, "{:?}", counts);
        }

        #[test]
        fn one_cycle_gives_each_member_its_weight(weights in proptest::collection::vec(0u16..=20, 1..30)) {
            let total: u16 = weights.iter().sum();
            prop_assume!(total > 0);
            let counts = round_robin(&weights).counts(usize::from(total));
            prop_assert_eq!(counts, weights.into_iter().map(usize::from).collect::<Vec<_>>());
        }
    }
}
