//! Picks in turn, by weight. The turn is one number shared by all workers, so the shares are exact over the whole
//! process.
//!
//! A member that is down keeps its turns in the cycle, and they are jumped over. So a turn keeps its number whichever
//! members are down, and each cycle gives every other member exactly its turns. (In a cycle without the absent member,
//! the same number would be another member's turn, and a member that flaps in a certain rhythm would pass all its turns
//! to one.)

use std::sync::atomic::{AtomicU64, Ordering};

use super::lookup::{Slots, wrap};
use super::{Member, Members, Pick, schedule};

pub(super) struct RoundRobin {
    slots: Slots,
    /// The distance from each turn to the next one of a present member, itself included; empty when no member is
    /// absent.
    jumps: Box<[u32]>,
}

impl RoundRobin {
    pub(super) fn build(members: &[Member]) -> Self {
        Self { slots: schedule::slots(members), jumps: Box::default() }
    }

    /// Returns the table in which absent members have turns but get no session.
    pub(super) fn without(self, is_absent: &dyn Fn(usize) -> bool) -> Self {
        let jumps = jumps(&self.slots.owners().map(is_absent).collect::<Vec<_>>());
        Self { jumps, ..self }
    }

    /// Returns the member whose turn it is; a member that is not eligible loses its turn.
    pub(super) fn pick(&self, pick: &mut Pick<'_>, members: &dyn Members) -> Option<usize> {
        // One operation reads and increments, so each turn is given once. Relaxed: only the count matters, nothing is
        // published through it.
        let next = || pick.cursor.fetch_add(1, Ordering::Relaxed);
        if self.jumps.is_empty() {
            self.slots.pick(members, |_| next())
        } else {
            self.slots.pick(members, |_| take_turn(pick.cursor, &self.jumps))
        }
    }

    /// Returns how many turns of a cycle each of the first `members` members has; none for absent ones.
    pub(super) fn owned(&self, members: usize) -> Vec<u64> {
        let mut owned = vec![0; members];
        for (turn, owner) in self.slots.owners().enumerate() {
            owned[owner] += u64::from(self.jumps.get(turn).is_none_or(|&jump| jump == 0));
        }
        owned
    }
}

/// Returns the next turn that is not jumped over, and moves the cursor behind it.
fn take_turn(cursor: &AtomicU64, jumps: &[u32]) -> u64 {
    let mut turn = cursor.load(Ordering::Relaxed);
    loop {
        let taken = turn.wrapping_add(jumps[wrap(turn, jumps.len())].into());
        let behind = taken.wrapping_add(1);
        match cursor.compare_exchange_weak(turn, behind, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return taken,
            Err(now) => turn = now,
        }
    }
}

/// Returns [`RoundRobin::jumps`] for the turns of one cycle; a full cycle each where all are absent.
fn jumps(absent: &[bool]) -> Box<[u32]> {
    if !absent.contains(&true) {
        return Box::default();
    }
    let mut jumps = vec![0; absent.len()];
    let mut jump = 0u32;
    // Twice round: the last turns of the cycle jump over the first of the next.
    for turn in (0..absent.len()).rev().cycle().take(2 * absent.len()) {
        jump = if absent[turn] { jump + 1 } else { 0 };
        jumps[turn] = jump;
    }
    jumps.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::testing::{TestPool, members};
    use super::super::{Algorithm, Table};
    use super::*;
    use crate::base::rng::Rng;

    fn round_robin(weights: &[u16]) -> TestPool {
        TestPool::new(Algorithm::RoundRobin, weights)
    }

    #[test]
    fn equal_members_take_turns() {
        assert_eq!(round_robin(&[1, 1, 1]).picks(7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_member_that_is_down_loses_its_turn_and_the_others_keep_alternating() {
        for (down, expected) in [(0, [1, 2, 1, 2]), (1, [0, 2, 0, 2]), (2, [0, 1, 0, 1])] {
            let mut test_pool = round_robin(&[1, 1, 1]);
            test_pool.down[down] = true;
            assert_eq!(test_pool.picks(4), expected, "member {down} down");
        }
    }

    #[test]
    fn a_cursor_of_any_value_names_a_member() {
        let (table, mut rng) = (Table::build(Algorithm::RoundRobin, &members(&[1, 2, 3])), Rng::new(1));
        let cursor = AtomicU64::new(u64::MAX);
        let mut pick = Pick { cursor: &cursor, worker: 0, client: Ipv4Addr::LOCALHOST.into(), rng: &mut rng };
        assert!(table.pick(&mut pick, &AllEligible).is_some());
        assert!(table.pick(&mut pick, &AllEligible).is_some());
    }

    /// The members for which it returns true.
    struct Only<F>(F);

    impl<F: Fn(usize) -> bool> Members for Only<F> {
        fn is_eligible(&self, member: usize) -> bool {
            self.0(member)
        }

        fn load(&self, _: usize) -> u32 {
            0
        }

        fn stamp(&self, _: usize) -> u64 {
            0
        }

        fn claim(&self, _: usize, _: u64, _: u64) -> bool {
            true
        }
    }

    #[test]
    fn a_member_that_is_absent_loses_its_turns_without_being_asked() {
        let weights = [1, 1, 2];
        let table = |absent: [bool; 3]| {
            Table::build(Algorithm::RoundRobin, &members(&weights)).without(&|member| absent[member])
        };
        let picks = |absent: [bool; 3]| {
            let (table, cursor, mut rng) = (table(absent), AtomicU64::new(0), Rng::new(1));
            let present = Only(|member: usize| {
                assert!(!absent[member], "it was asked");
                true
            });
            let mut pick = || {
                table.pick(
                    &mut Pick {
                        cursor: &cursor,
                        worker: 0,
                        client: Ipv4Addr::LOCALHOST.into(),
                        rng: &mut rng,
                    },
                    &present,
                )
            };
            (0..4).filter_map(|_| pick()).collect::<Vec<_>>()
        };
        assert_eq!(picks([false; 3]), [2, 0, 2, 1]);
        assert_eq!(picks([true, false, false]), [2, 2, 1, 2]);
        assert_eq!(picks([false, false, true]), [0, 1, 0, 1]);
        assert_eq!(picks([true, true, false]), [2; 4]);
        assert_eq!(table([false, true, false]).owned(3), [1, 0, 2]);
    }

    struct AllEligible;

    impl Members for AllEligible {
        fn is_eligible(&self, _: usize) -> bool {
            true
        }

        fn load(&self, _: usize) -> u32 {
            0
        }

        fn stamp(&self, _: usize) -> u64 {
            0
        }

        fn claim(&self, _: usize, _: u64, _: u64) -> bool {
            true
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
                let mut pick = Pick { cursor: &cursor, worker: 0, client, rng: &mut rng };
                counts[table.pick(&mut pick, &AllEligible).expect("all are eligible")] += 1;
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

        /// A table gets the members that are down when it is built, and finds out by itself about the others.
        #[test]
        fn a_member_that_is_always_up_gets_its_share_however_the_others_flap(
            weights in vec(1u16..=4, 2..12),
            epochs in vec((vec(any::<bool>(), 12), vec(any::<bool>(), 12), 1usize..9), 1..40),
        ) {
            // The first two never flap.
            let may_flap = |member: usize| member > 1;
            let (cursor, mut rng) = (AtomicU64::new(0), Rng::new(1));
            let mut counts = vec![0u32; weights.len()];
            for (absent, down, picks) in &epochs {
                let table = Table::build(Algorithm::RoundRobin, &members(&weights));
                let table = table.without(&|member| may_flap(member) && absent[member]);
                let up = |member: usize| !(may_flap(member) && (down[member] || absent[member]));
                for _ in 0..*picks {
                    let client = Ipv4Addr::LOCALHOST.into();
                    let mut pick = Pick { cursor: &cursor, worker: 0, client, rng: &mut rng };
                    let picked = table.pick(&mut pick, &Only(up)).expect("two are up");
                    prop_assert!(up(picked));
                    counts[picked] += 1;
                }
            }
            let [one, other] = [0, 1].map(|member| f64::from(counts[member]) / f64::from(weights[member]));
            // Within one turn of either.
            let turn = weights[..2].iter().map(|&weight| 1.0 / f64::from(weight)).sum::<f64>();
            prop_assert!((one - other).abs() <= turn, "{:?} by {:?}", counts, weights);
        }

        #[test]
        fn one_cycle_gives_each_member_its_weight(weights in vec(0u16..=20, 1..30)) {
            let total: u16 = weights.iter().sum();
            prop_assume!(total > 0);
            let counts = round_robin(&weights).counts(usize::from(total));
            prop_assert_eq!(counts, weights.into_iter().map(usize::from).collect::<Vec<_>>());
        }
    }
}
