//! Picks the member with the fewest sessions per weight, and among equals the one whose turn it is.
//!
//! Sessions are whole, so weights cannot be met exactly at every moment. A member counts as equal to the least loaded
//! one if it has less per weight, before the session, than that one would have with it. Of equal weights those are the
//! members with the fewest sessions; of weights 1 and 3 with three sessions on the second, both. The turn among them is
//! by weight (`turns.rs`): without it the first in the table, or the heaviest, would get every session of a pool with
//! fewer sessions than members.

use std::sync::atomic::{AtomicU64, Ordering};

use super::best::{Best, Candidate, Seen, best};
use super::contest::Contest;
use super::lookup::candidates;
use super::turns::Turn;
use super::{Member, Members, Pick};

/// Up to this many members every pick asks all of them; in larger pools a contest finds the first.
pub(super) const ASKED_MAX: usize = 64;

/// After this many picks whose turn another worker took first, the pick ignores the turn.
const CLAIMS_MAX: u32 = 8;

pub(super) struct LeastConnections(Kind);

enum Kind {
    Few(Box<[Candidate]>),
    Many(Contest),
}

impl LeastConnections {
    pub(super) fn build(members: &[Member]) -> Self {
        let candidate = |member: u32| Candidate { member, weight: members[member as usize].weight };
        let candidates: Vec<Candidate> = candidates(members).into_iter().map(candidate).collect();
        Self(if candidates.len() <= ASKED_MAX {
            Kind::Few(candidates.into_boxed_slice())
        } else {
            Kind::Many(Contest::new(&candidates, members.len()))
        })
    }

    /// Returns the table for `workers` workers, with the present loads and stamps of the members.
    pub(super) fn begun(self, workers: usize, now: u64, members: &dyn Members) -> Self {
        Self(match self.0 {
            Kind::Many(contest) => Kind::Many(contest.begun(workers, now, members)),
            few @ Kind::Few(_) => few,
        })
    }

    /// Returns the eligible member whose turn it is among those with the fewest sessions per weight.
    pub(super) fn pick(&self, pick: &mut Pick<'_>, members: &dyn Members) -> Option<usize> {
        let mut picked = None;
        for _ in 0..CLAIMS_MAX {
            // Relaxed, as everything here: a claim fails when the stamp seen is old, and nothing else is published
            // through it.
            let now = pick.cursor.load(Ordering::Relaxed);
            let best = match &self.0 {
                Kind::Few(candidates) => ask_all(candidates, members, now),
                Kind::Many(contest) => contest.best(pick.worker, members, now),
            }?;
            let Seen { member, weight, stamp, load } = best.seen;
            let turn = if best.is_alone { Turn::alone } else { Turn::won }(stamp, now, weight);
            picked = Some(member as usize);
            if members.claim(member as usize, stamp, turn.stamp) {
                advance(pick.cursor, now, turn.now);
                if let Kind::Many(contest) = &self.0 {
                    contest.note(
                        pick.worker,
                        Seen { stamp: turn.stamp, load: load + 1, ..best.seen },
                        turn.now,
                    );
                }
                break;
            }
        }
        picked
    }

    /// Records the present number of sessions of a member, for the picks of `worker`.
    pub(super) fn note(&self, worker: usize, member: usize, load: u32, stamp: u64, now: u64) {
        if let Kind::Many(contest) = &self.0 {
            contest.note_load(worker, member, load, stamp, now);
        }
    }

    /// Returns whether [`Table::note`](super::Table::note) must be called for every session that ends.
    pub(super) fn wants_notes(&self) -> bool {
        matches!(self.0, Kind::Many(_))
    }
}

/// Moves the clock on. If another worker has moved it meanwhile, that is enough.
fn advance(clock: &AtomicU64, from: u64, to: u64) {
    if clock.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        clock.fetch_add(1, Ordering::Relaxed);
    }
}

fn ask_all(candidates: &[Candidate], members: &dyn Members, now: u64) -> Option<Best> {
    let mut seen = [Seen::default(); ASKED_MAX];
    let mut count = 0;
    for &Candidate { member, weight } in candidates {
        if members.is_eligible(member as usize) {
            seen[count] = Seen::of(members, member, weight);
            count += 1;
        }
    }
    best(seen[..count].iter().copied(), now)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::Algorithm;
    use super::super::pressure::Pressure;
    use super::super::testing::TestPool;

    fn least_connections(weights: &[u16], loads: &[u32]) -> TestPool {
        let mut test_pool = TestPool::new(Algorithm::LeastConnections, weights);
        test_pool.loads = loads.to_vec();
        test_pool
    }

    #[test]
    fn the_fewest_sessions_per_weight_win() {
        let cases: [(&[u16], &[u32], usize); 6] = [
            (&[1, 1, 1], &[2, 1, 3], 1),
            (&[1, 2], &[1, 2], 1),
            (&[1, 2], &[0, 2], 0),
            (&[0, 1], &[0, 100], 1),
            (&[256, 1], &[254, 0], 0),
            (&[1, 256], &[u32::MAX, u32::MAX], 1),
        ];
        for (weights, loads, expected) in cases {
            assert_eq!(least_connections(weights, loads).pick(), Some(expected), "{weights:?} {loads:?}");
        }
    }

    #[test]
    fn equal_members_alternate() {
        assert_eq!(least_connections(&[1, 1, 1], &[0; 3]).picks(6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn the_neighbour_of_a_member_that_is_down_gets_no_more_than_the_others() {
        let mut test_pool = least_connections(&[1, 1, 1], &[0; 3]);
        test_pool.down[1] = true;
        assert_eq!(test_pool.picks(4), [0, 2, 0, 2]);
    }

    #[test]
    fn without_eligible_members_none_is_picked() {
        // HAProxy once looped for ever here.
        let mut test_pool = least_connections(&[1, 1], &[0; 2]);
        test_pool.down = vec![true; 2];
        assert_eq!(test_pool.pick(), None);
    }

    #[test]
    fn sessions_that_stay_follow_weight() {
        let mut test_pool = least_connections(&[1, 2, 3], &[0; 3]);
        for _ in 0..60 {
            let member = test_pool.pick().expect("all are eligible");
            test_pool.loads[member] += 1;
        }
        assert_eq!(test_pool.loads, [10, 20, 30]);
    }

    /// A pool of members of these weights, for `workers` workers.
    fn pool(weights: &[u16], workers: usize) -> TestPool {
        TestPool::new(Algorithm::LeastConnections, weights).workers(workers)
    }

    /// Members that go down and up without a new table.
    const CHANGING: usize = 16;

    /// Sessions that end in the order in which they came, of workers in turn.
    struct Sessions {
        test_pool: TestPool,
        open: VecDeque<(usize, usize)>,
        counts: Vec<usize>,
        opened: usize,
        workers: usize,
    }

    impl Sessions {
        fn new(weights: &[u16], workers: usize) -> Self {
            let (test_pool, counts) = (pool(weights, workers), vec![0; weights.len()]);
            Self { test_pool, open: VecDeque::new(), counts, opened: 0, workers }
        }

        /// Begins a session; ends the oldest ones above `window`.
        fn next(&mut self, window: usize) -> usize {
            let worker = self.opened % self.workers;
            self.opened += 1;
            let member = self.test_pool.open(worker);
            self.counts[member] += 1;
            self.open.push_back((worker, member));
            while self.open.len() > window {
                let (worker, member) = self.open.pop_front().expect("one at least");
                self.test_pool.close(worker, member);
            }
            member
        }

        /// Returns the difference between the most and the fewest sessions of a member.
        fn spread(&self) -> usize {
            let (least, most) = (self.counts.iter().min(), self.counts.iter().max());
            most.expect("members") - least.expect("members")
        }
    }

    /// The turn was the pick's number modulo the number of equals: of three members one got none of 300 sessions.
    #[test]
    fn three_equal_members_share_sessions_of_which_the_next_comes_before_the_last_has_gone() {
        for workers in [1, 2] {
            let mut sessions = Sessions::new(&[1; 3], workers);
            (0..300).for_each(|_| _ = sessions.next(1));
            assert_eq!(sessions.counts, [100; 3], "{workers} workers");
        }
    }

    /// The heavy member would always have had less with the session, and got every one.
    #[test]
    fn light_members_get_their_share_where_there_is_less_to_do_than_members_could() {
        for (weights, counts) in
            [(&[1, 3][..], &[100, 300][..]), (&[1, 2, 5], &[50, 100, 250]), (&[4, 4, 2], &[160, 160, 80])]
        {
            for window in 0..4 {
                let mut sessions = Sessions::new(weights, 1);
                (0..400).for_each(|_| _ = sessions.next(window));
                let is_near = |(&count, expected): (&usize, &usize)| count.abs_diff(*expected) <= 1;
                let even = sessions.counts.iter().zip(counts).all(is_near);
                assert!(even, "{weights:?} with {window} at a time: {:?}", sessions.counts);
            }
        }
    }

    #[test]
    fn a_member_that_comes_back_is_owed_nothing() {
        let mut test_pool = pool(&[1, 1, 2], 1);
        test_pool.down[0] = true;
        test_pool.counts(1_000);
        test_pool.down[0] = false;
        assert_eq!(test_pool.counts(40), [10, 10, 20]);
    }

    #[test]
    fn a_member_that_was_better_for_long_is_not_punished_for_it() {
        let mut test_pool = pool(&[1, 1, 2], 1);
        test_pool.loads = vec![0, 5, 10];
        assert_eq!(test_pool.counts(1_000), [1_000, 0, 0]);
        test_pool.loads = vec![0; 3];
        let counts = test_pool.counts(40);
        assert!(counts[0] >= 9 && counts[1] >= 10 && counts[2] >= 20, "{counts:?}");
    }

    #[test]
    fn many_members_are_taken_in_turn_too() {
        for workers in [1, 2, 40] {
            let mut sessions = Sessions::new(&[1; 200], workers);
            let first: Vec<usize> = (0..200).map(|_| sessions.next(0)).collect();
            let mut sorted = first.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..200).collect::<Vec<_>>(), "{workers} workers");
        }
    }

    #[test]
    fn a_worker_learns_of_sessions_of_other_workers() {
        let mut test_pool = pool(&[1; 100], 2);
        let opened: Vec<usize> = (0..100).map(|_| test_pool.open(0)).collect();
        let second = test_pool.open(1);
        assert_eq!(test_pool.loads[second], 2, "all had one");
        opened.into_iter().filter(|&member| member != second).for_each(|member| test_pool.close(0, member));
        // It looks at one of them with every pick.
        (0..100).for_each(|_| {
            let member = test_pool.open(1);
            test_pool.close(1, member);
        });
        for _ in 0..99 {
            let member = test_pool.open(1);
            assert_eq!(test_pool.loads[member], 1, "another had none");
        }
    }

    #[test]
    fn any_number_of_many_members_may_be_down() {
        for up in [0, 1, 20, 100] {
            let mut test_pool = pool(&[1, 2].repeat(50), 1);
            test_pool.down = (0..100).map(|member| member >= up).collect();
            let picks: Vec<_> = (0..200).map(|_| test_pool.pick()).collect();
            let is_right = |pick: &Option<usize>| pick.map_or(up == 0, |member| member < up);
            assert!(picks.iter().all(is_right), "{up}: {picks:?}");
            test_pool.down = vec![false; 100];
            test_pool.picks(200);
            let again = test_pool.counts(300);
            assert!(again.iter().all(|&count| count > 0), "{up}: {again:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn equal_members_never_differ_by_more_than_one_session(
            members in 1usize..90, weight in 1u16..=256, windows in vec((0usize..200, 1usize..60), 1..12),
        ) {
            let mut sessions = Sessions::new(&vec![weight; members], 1);
            for (window, count) in windows {
                for _ in 0..count {
                    sessions.next(window);
                    prop_assert!(sessions.spread() <= 1, "{:?} with {} at a time", sessions.counts, window);
                }
            }
        }

        #[test]
        fn members_share_by_weight_whatever_the_window(
            weights in vec(1u16..=16, 1..90), window in 0usize..100, rounds in 1usize..4,
        ) {
            let mut sessions = Sessions::new(&weights, 1);
            let total: usize = weights.iter().copied().map(usize::from).sum();
            (0..rounds * total).for_each(|_| _ = sessions.next(window));
            for (&count, &weight) in sessions.counts.iter().zip(&weights) {
                let off = count.abs_diff(rounds * usize::from(weight));
                prop_assert!(off <= 2, "{:?} by {:?}", sessions.counts, weights);
            }
        }

        /// Sessions end in any order, and some members go down and up.
        #[test]
        fn no_member_with_the_session_would_have_less_than_the_picked_one_without(
            weights in vec(1u16..=5, 1..100), steps in vec((any::<bool>(), 0usize..100, 0usize..400), 1..300),
        ) {
            let mut test_pool = pool(&weights, 1);
            let mut open = Vec::new();
            for (flips, flipped, ended) in steps {
                let flipped = flipped % weights.len().min(CHANGING);
                test_pool.down[flipped] ^= flips;
                if ended < open.len() {
                    test_pool.close(0, open.swap_remove(ended));
                }
                let Some(picked) = test_pool.pick() else {
                    prop_assert!(test_pool.down.iter().all(|&down| down));
                    continue;
                };
                let with = |member: usize| Pressure::with_one_more(test_pool.loads[member], weights[member]);
                let without = Pressure::of(test_pool.loads[picked], weights[picked]);
                let is_less = |other: usize| !test_pool.down[other] && with(other).compare(without).is_le();
                prop_assert!(!test_pool.down[picked] && !(0..weights.len()).any(is_less));
                test_pool.loads[picked] += 1;
                open.push(picked);
            }
        }
    }
}
