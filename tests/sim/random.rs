//! Random numbers of the seed, in the forms that the simulation needs.

use l4lb::base::rng::Rng;

/// Returns true with this many chances in a million.
pub(crate) fn happens(rng: &mut Rng, chances: u64) -> bool {
    chances > 0 && rng.below(1_000_000) < chances
}

/// A place below `bound`.
pub(crate) fn below(rng: &mut Rng, bound: usize) -> usize {
    to_usize(rng.below(bound as u64))
}

/// Counts of the simulation fit in memory.
pub(crate) fn to_usize(count: u64) -> usize {
    usize::try_from(count).expect("a count of the simulation")
}
