//! The order in which weighted members take turns.
//!
//! Of `T` turns a member of weight `w` takes its `k`-th between turn `k*T/w` and turn `(k+1)*T/w`: each of its turns
//! has a window, and the windows of one member follow one another. A place for every turn within its window always
//! exists (one processor, total load 1: Baruah et al., "Proportionate progress", 1996). Assigning turns by the end of
//! their windows, each to the first free place of its window, finds it. So no member is ever a whole turn ahead of or
//! behind its share. (Midpoints of the windows, sorted, do not have this property: with weights 100, 1, 1, 1, … all the
//! ones share one midpoint and follow one another.)

use std::cmp::Reverse;

use super::Member;
use super::lookup::{Slots, candidates};

/// Most turns in one cycle: 16 MiB at four bytes. Weights that need more are coarsened until they fit.
const TURNS_MAX: u64 = 1 << 22;

/// Returns a table in which every member owns slots in proportion to its weight, evenly interleaved.
pub(super) fn slots(members: &[Member]) -> Slots {
    let candidates = candidates(members);
    let weights: Vec<u16> = candidates.iter().map(|&index| members[index as usize].weight).collect();
    Slots::new(candidates, interleave(&weights))
}

/// Returns one cycle of turns, each as an index into `weights`, none of which may be 0. Each index appears as often as
/// its weight says, in lowest terms; equal weights appear in order.
pub(super) fn interleave(weights: &[u16]) -> Vec<u32> {
    let shares = lowest_terms(weights);
    let total: u64 = shares.iter().sum();
    let mut taken = vec![0u64; shares.len()];
    let mut places = Places::new(total);
    let mut cycle = vec![0u32; places.len()];
    for index in by_end_of_window(&shares, total) {
        let member = index as usize;
        let place = places.take_first_from(taken[member] * total / shares[member]);
        cycle[place] = index;
        taken[member] += 1;
    }
    cycle
}

/// Returns the weights in lowest terms, coarser if their sum would pass [`TURNS_MAX`]; never 0.
fn lowest_terms(weights: &[u16]) -> Vec<u64> {
    let mut unit = weights.iter().fold(0, |unit, &weight| gcd(unit, weight)).max(1);
    let shares = |unit: u16| weights.iter().map(move |&weight| u64::from(weight.div_ceil(unit)));
    while shares(unit).sum::<u64>() > TURNS_MAX && unit < u16::MAX {
        unit = unit.saturating_mul(2);
    }
    shares(unit).collect()
}

const fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Returns the taker of every turn, in the order in which their windows end. Of those that end together the heaviest
/// comes first: a light member may wait anywhere in its long window, a heavy one would drift towards its next turn.
fn by_end_of_window(shares: &[u64], total: u64) -> impl Iterator<Item = u32> {
    let mut heaviest_first: Vec<u32> = (0u32..).zip(shares).map(|(index, _)| index).collect();
    heaviest_first.sort_by_key(|&index| Reverse(shares[index as usize]));
    let mut turns = Vec::new();
    for (rank, &index) in (0u64..).zip(&heaviest_first) {
        let share = shares[index as usize];
        // One word per turn, end above rank: there may be millions, and words sort fast.
        turns.extend((1..=share).map(|nth| (nth * total).div_ceil(share) << 32 | rank));
    }
    turns.sort_unstable();
    turns.into_iter().map(move |turn| heaviest_first[(turn & 0xFFFF_FFFF) as u32 as usize])
}

/// Places of a cycle, each taken once. A taken place points towards the next free one (union-find, path halving).
struct Places(Vec<u32>);

impl Places {
    fn new(total: u64) -> Self {
        Self((0u32..).zip(0..total).map(|(place, _)| place).collect())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes and returns the first free place from `first` on, which must exist.
    fn take_first_from(&mut self, first: u64) -> usize {
        let mut place = usize::try_from(first).expect("a place is below a length");
        while self.0[place] as usize != place {
            self.0[place] = self.0[self.0[place] as usize];
            place = self.0[place] as usize;
        }
        // The last place has no successor to point to: once it is taken, no window is left that could ask for it.
        if place + 1 < self.0.len() {
            self.0[place] += 1;
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn turns_are_interleaved() {
        let cases: [(&[u16], &[u32]); 9] = [
            (&[], &[]),
            (&[7], &[0]),
            (&[5, 5, 5], &[0, 1, 2]),
            (&[2, 1], &[0, 0, 1]),
            (&[1, 2], &[1, 1, 0]),
            (&[1, 2, 3], &[2, 1, 2, 1, 2, 0]),
            (&[5, 1, 1], &[0, 0, 0, 1, 0, 0, 2]),
            (&[1, 1, 1, 1, 2, 2], &[4, 5, 0, 1, 4, 5, 2, 3]),
            (&[256, 128, 128], &[0, 1, 0, 2]),
        ];
        for (weights, cycle) in cases {
            assert_eq!(interleave(weights), cycle, "{weights:?}");
        }
    }

    #[test]
    fn one_heavy_member_alternates_with_many_light_ones() {
        let mut weights = vec![1; 51];
        weights[0] = 100;
        let cycle = interleave(&weights);
        assert!(cycle.windows(2).all(|pair| pair[0] == 0 || pair[1] == 0), "{cycle:?}");
    }

    #[test]
    fn weights_too_fine_for_the_bound_are_coarsened() {
        let weights: Vec<u16> = (0..80).map(|index| u16::MAX - index).chain([1]).collect();
        let cycle = interleave(&weights);
        assert!(cycle.len() as u64 <= TURNS_MAX, "{}", cycle.len());
        assert_eq!(cycle.iter().filter(|&&index| index == 80).count(), 1);
    }

    proptest! {
        #[test]
        fn every_member_takes_as_many_turns_as_its_weight(weights in vec(1u16..=256, 1..60)) {
            let cycle = interleave(&weights);
            let unit = weights.iter().fold(0, |unit, &weight| gcd(unit, weight));
            for (index, &weight) in (0u32..).zip(&weights) {
                let turns = cycle.iter().filter(|&&taker| taker == index).count();
                prop_assert_eq!(turns, usize::from(weight / unit));
            }
        }

        #[test]
        fn no_member_is_ever_a_whole_turn_ahead_or_behind(weights in vec(1u16..=256, 1..40)) {
            let (shares, cycle) = (lowest_terms(&weights), interleave(&weights));
            let mut taken = vec![0u64; weights.len()];
            for (turns, &index) in (1u64..).zip(&cycle) {
                taken[index as usize] += 1;
                for (&share, &taken) in shares.iter().zip(&taken) {
                    let off = (taken * cycle.len() as u64).abs_diff(share * turns);
                    prop_assert!(off < cycle.len() as u64, "after {} turns of {:?}", turns, cycle);
                }
            }
        }

        #[test]
        fn equal_weights_take_turns_in_order(members in 1u32..500, weight in 1u16..=256) {
            let cycle = interleave(&vec![weight; members as usize]);
            prop_assert_eq!(cycle, (0..members).collect::<Vec<_>>());
        }
    }
}
