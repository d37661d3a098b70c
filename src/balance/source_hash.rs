//! Picks by the client's address, consistently: a Maglev table (Eisenbud et al., NSDI 2016), weighted.
//!
//! Every member walks the slots in its own order, which only its identity decides, and takes the next free one when it
//! is its turn. So a table depends on the set of members alone, not on their order, the worker or the moment, and when
//! a member leaves, the others keep nearly all of their slots.

use std::net::IpAddr;

use super::lookup::{DRAWS_MAX, Slots, candidates, wrap};
use super::schedule::interleave;
use super::{Member, Members, Pick};
use crate::base::hash::{avalanche, hash_ip};

/// Sizes of a table, all prime so that every step walks every slot.
///
/// Few and far apart on purpose: in a table of another size every client maps to another slot, so with a size for every
/// pool all clients would move whenever adding or removing a backend crosses from one size to the next.
const SIZES: [usize; 2] = [65_521, 2_097_143];

/// The lightest member should own at least this many slots; rounding to whole slots then costs it at most 2 % of its
/// share.
const SLOTS_PER_LIGHTEST: u64 = 50;

/// Marks a free slot.
const FREE: u32 = u32::MAX;

/// Between the hashes of one client's attempts (the golden ratio of 2^64, as in SplitMix64).
const ATTEMPT_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

pub(super) struct SourceHash(pub(super) Slots);

impl SourceHash {
    pub(super) fn build(members: &[Member]) -> Self {
        let mut candidates = candidates(members);
        // Two members of one identity are ordered by weight; if that is equal too, swapping them changes nothing.
        candidates.sort_by_key(|&index| (members[index as usize].identity, members[index as usize].weight));
        let chosen = || candidates.iter().map(|&index| members[index as usize]);
        let owners = fill(&chosen().collect::<Vec<_>>());
        Self(Slots::new(candidates, owners))
    }

    /// Returns the member of the client's slot; if it is not eligible, that of the slot of its next hash, and so on.
    pub(super) fn pick(&self, pick: &mut Pick<'_>, members: &dyn Members) -> Option<usize> {
        let first = hash_ip(pick.client);
        self.0.pick(members, |attempt| draw(first, attempt))
    }

    /// Returns the members that a client maps to, in order of preference; some may appear twice.
    pub(super) fn homes(&self, client: IpAddr) -> impl Iterator<Item = usize> {
        let first = hash_ip(client);
        (0..DRAWS_MAX).map(move |attempt| self.0.member_at(draw(first, attempt)))
    }
}

/// Returns the number of a client's slot in its nth attempt.
fn draw(first: u64, attempt: u32) -> u64 {
    match attempt {
        0 => first,
        again => avalanche(first ^ ATTEMPT_STEP.wrapping_mul(u64::from(again))),
    }
}

/// Returns the owner of every slot, as an index into `members`.
fn fill(members: &[Member]) -> Vec<u32> {
    let weights: Vec<u16> = members.iter().map(|member| member.weight).collect();
    let size = size_for(&weights);
    let mut walks: Vec<Walk> = members.iter().map(|member| Walk::new(member.identity, size)).collect();
    let mut owners = vec![FREE; size];
    for &member in interleave(&weights).iter().cycle().take(size) {
        let slot = walks[member as usize].find(|&slot| owners[slot] == FREE);
        owners[slot.expect("a walk never ends")] = member;
    }
    owners
}

/// Returns the smallest size in which the lightest member owns enough slots, or the largest size; 0 without members.
fn size_for(weights: &[u16]) -> usize {
    let total: u64 = weights.iter().copied().map(u64::from).sum();
    let Some(lightest) = weights.iter().copied().min().map(u64::from) else { return 0 };
    let enough = |size: usize| size as u64 * lightest >= SLOTS_PER_LIGHTEST * total;
    let [.., largest] = SIZES;
    SIZES.into_iter().find(|&size| enough(size)).unwrap_or(largest)
}

/// The order in which one member wants the slots: round and round in equal steps.
struct Walk {
    at: usize,
    step: usize,
    size: usize,
}

impl Walk {
    fn new(identity: u64, size: usize) -> Self {
        let start = avalanche(identity);
        // A step is not 0; any other is prime to the size.
        Self { at: wrap(start, size), step: 1 + wrap(avalanche(start ^ ATTEMPT_STEP), size - 1), size }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let slot = self.at;
        self.at += self.step;
        if self.at >= self.size {
            self.at -= self.size;
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::Algorithm;
    use super::super::testing::{TestPool, members};
    use super::*;
    use crate::base::rng::Rng;

    /// The identity of the member that owns each slot.
    fn owners(members: &[Member]) -> Vec<u64> {
        let mut sorted = members.to_vec();
        sorted.sort_by_key(|member| (member.identity, member.weight));
        fill(&sorted).into_iter().map(|owner| sorted[owner as usize].identity).collect()
    }

    /// How many of `clients` each member gets, relative to its share: the largest deviation in percent.
    fn worst_deviation(weights: &[u16], clients: impl Iterator<Item = u32>) -> f64 {
        let mut test_pool = TestPool::new(Algorithm::SourceHash, weights);
        let mut counts = vec![0u32; weights.len()];
        for client in clients {
            let client = IpAddr::V4(Ipv4Addr::from_bits(client));
            counts[test_pool.pick_for(client).expect("all are eligible")] += 1;
        }
        let per_weight = f64::from(counts.iter().sum::<u32>()) / f64::from(weights.iter().sum::<u16>());
        let deviation = |(&count, &weight): (&u32, &u16)| {
            100.0 * (f64::from(count) / (per_weight * f64::from(weight)) - 1.0).abs()
        };
        counts.iter().zip(weights).map(deviation).fold(0.0, f64::max)
    }

    #[test]
    fn clients_spread_by_weight() {
        const NEIGHBOURS: u32 = 0x0A00_0000;
        // A fair coin already strays: of 100,000 clients each of 50 members expects 2,000 ± 45 (2.2 %), so the last
        // case shows the table itself, with enough clients to see it.
        let cases: [(&[u16], u32); 5] = [
            (&[1; 3], 100_000),
            (&[1, 2, 3], 100_000),
            (&[1; 10], 100_000),
            (&[5, 1, 3, 1], 100_000),
            (&[1; 50], 1_000_000),
        ];
        for (weights, clients) in cases {
            let neighbours = worst_deviation(weights, NEIGHBOURS..NEIGHBOURS + clients);
            assert!(neighbours <= 5.0, "{weights:?}: {neighbours:.2} % among neighbours");
            let mut rng = Rng::new(9);
            let anywhere = worst_deviation(weights, (0..clients).map(|_| (rng.next_u64() >> 32) as u32));
            assert!(anywhere <= 5.0, "{weights:?}: {anywhere:.2} % among random addresses");
        }
    }

    #[test]
    fn slots_follow_weight_to_one_slot() {
        for weights in [&[1; 50][..], &[1, 2, 3], &[1, 256, 256], &[247, 248, 251, 256]] {
            let owners = fill(&members(weights));
            let total: usize = weights.iter().copied().map(usize::from).sum();
            for (member, &weight) in (0u32..).zip(weights) {
                let slots = owners.iter().filter(|&&owner| owner == member).count();
                let share = owners.len() * usize::from(weight) / total;
                assert!(slots.abs_diff(share) <= 1, "{weights:?}: {slots} slots instead of {share}");
            }
        }
    }

    #[test]
    fn a_member_that_leaves_moves_its_own_clients_and_hardly_any_other() {
        for size in [2u16, 3, 5, 10, 11, 50, 200] {
            let weights: Vec<u16> = (0..size).map(|member| 1 + member % 3).collect();
            let mut members = members(&weights);
            let before = owners(&members);
            let gone = members.remove(usize::from(size) / 2).identity;
            let after = owners(&members);
            let moved =
                before.iter().zip(&after).filter(|&(owner, heir)| *owner != gone && owner != heir).count();
            assert!(moved * 100 <= before.len() * 3, "of {size}: {moved} of {} slots moved", before.len());
        }
    }

    #[test]
    fn a_member_that_is_down_moves_only_its_own_clients() {
        let clients = || (0..10_000).map(|client| IpAddr::V4(Ipv4Addr::from_bits(client)));
        let mut test_pool = TestPool::new(Algorithm::SourceHash, &[1; 10]);
        let before: Vec<_> = clients().map(|client| test_pool.pick_for(client)).collect();
        test_pool.down[3] = true;
        for (client, before) in clients().zip(before) {
            let after = test_pool.pick_for(client);
            assert!(before == Some(3) || before == after, "{client} moved from {before:?} to {after:?}");
            assert_eq!(after, test_pool.pick_for(client), "{client} has no fixed second choice");
        }
    }

    #[test]
    fn a_dual_stack_listener_sends_an_ipv4_client_to_the_same_member() {
        let mut test_pool = TestPool::new(Algorithm::SourceHash, &[1; 10]);
        for client in (0..1_000).map(Ipv4Addr::from_bits) {
            assert_eq!(test_pool.pick_for(client.into()), test_pool.pick_for(client.to_ipv6_mapped().into()));
        }
    }

    #[test]
    fn the_lightest_member_decides_the_size() {
        for (weights, size) in
            [(&[1u16; 3][..], 65_521), (&[1, 256], 65_521), (&[1; 1_311], 2_097_143), (&[], 0)]
        {
            assert_eq!(size_for(weights), size, "{} members", weights.len());
        }
    }

    #[test]
    fn a_client_keeps_its_member_across_versions() {
        // These picks are a promise to clients: a change of them moves every client of every pool once.
        let mut test_pool = TestPool::new(Algorithm::SourceHash, &[1, 2, 3]);
        let picks = (0..12).map(|client| test_pool.pick_for(Ipv4Addr::new(192, 0, 2, client).into()));
        assert_eq!(picks.flatten().collect::<Vec<_>>(), [2, 2, 2, 1, 0, 1, 1, 1, 2, 2, 2, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_order_of_members_does_not_matter(
            set in vec((0u64..30, 1u16..=8), 1..30).prop_flat_map(|set| (Just(set.clone()), Just(set).prop_shuffle())),
        ) {
            let table = |set: Vec<(u64, u16)>| {
                let members: Vec<_> = set.into_iter().map(|(identity, weight)| Member { identity, weight }).collect();
                let SourceHash(slots) = SourceHash::build(&members);
                (0..2_000).map(|slot| members[slots.member_at(slot)].identity).collect::<Vec<_>>()
            };
            prop_assert_eq!(table(set.0), table(set.1));
        }
    }
}
