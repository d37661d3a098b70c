//! A table of slots, each owned by a member: a number names a slot, the slot names a member.
//! Owns the rule for slots of members that are not eligible, the same for every algorithm that draws from a table.

use super::{Member, Members};
use crate::base::hash::avalanche;

/// After this many draws a pick checks that there is a choice at all. With half of the members down, one pick in 2^32
/// gets there.
pub(super) const DRAWS_MAX: u32 = 32;
/// After this many draws a pick scans instead. Where one slot in a thousand belongs to an eligible member, one pick in
/// 60 gets there.
const DRAWS_LAST: u32 = 4096;

pub(super) struct Slots {
    owners: Owners,
    /// The members that own slots, by their index in the slice that the table was built from.
    candidates: Box<[u32]>,
}

/// The owner of each slot as a position in `candidates`: one byte each in a small pool, the usual case.
enum Owners {
    Narrow(Box<[u8]>),
    Wide(Box<[u32]>),
}

impl Slots {
    /// Returns a table in which slot `i` belongs to `candidates[owners[i]]`.
    pub(super) fn new(candidates: Vec<u32>, owners: Vec<u32>) -> Self {
        let narrow: Result<Box<[u8]>, _> = owners.iter().map(|&owner| u8::try_from(owner)).collect();
        let owners = narrow.map_or_else(|_| Owners::Wide(owners.into_boxed_slice()), Owners::Narrow);
        Self { owners, candidates: candidates.into_boxed_slice() }
    }

    /// Returns the member of the first drawn slot that is eligible; `draw` gets the number of draws before. After
    /// [`DRAWS_LAST`] draws returns any eligible member; `None` when there is none.
    pub(super) fn pick(&self, members: &dyn Members, mut draw: impl FnMut(u32) -> u64) -> Option<usize> {
        if self.candidates.is_empty() {
            return None;
        }
        let mut drawn = 0;
        for attempt in 0..DRAWS_LAST {
            if attempt == DRAWS_MAX && !self.has_choice(members) {
                break;
            }
            drawn = draw(attempt);
            let member = self.member_at(drawn);
            if members.is_eligible(member) {
                return Some(member);
            }
        }
        self.scan(drawn, members)
    }

    /// Returns whether more than one member is eligible: only then draws spread evenly and keep clients in place.
    fn has_choice(&self, members: &dyn Members) -> bool {
        let mut eligible = self.candidates.iter().filter(|&&member| members.is_eligible(member as usize));
        eligible.nth(1).is_some()
    }

    /// Returns any eligible member. The start is scattered: when a block of neighbours is down, consecutive starts
    /// would all end at the first member behind the block.
    fn scan(&self, drawn: u64, members: &dyn Members) -> Option<usize> {
        let (before, after) = self.candidates.split_at(wrap(avalanche(drawn), self.candidates.len()));
        after.iter().chain(before).map(|&member| member as usize).find(|&member| members.is_eligible(member))
    }

    /// Returns how many slots each of the first `members` members owns.
    pub(super) fn owned(&self, members: usize) -> Vec<u64> {
        let mut owned = vec![0; members];
        self.owners().for_each(|owner| owned[owner] += 1);
        owned
    }

    /// Returns the owner of each slot.
    pub(super) fn owners(&self) -> impl Iterator<Item = usize> {
        (0..).map(|slot| self.member_at(slot)).take(self.len())
    }

    fn len(&self) -> usize {
        match &self.owners {
            Owners::Narrow(owners) => owners.len(),
            Owners::Wide(owners) => owners.len(),
        }
    }

    /// Returns the owner of the slot with that number, modulo the size of the table.
    pub(super) fn member_at(&self, drawn: u64) -> usize {
        let position = match &self.owners {
            Owners::Narrow(owners) => usize::from(owners[wrap(drawn, owners.len())]),
            Owners::Wide(owners) => owners[wrap(drawn, owners.len())] as usize,
        };
        self.candidates[position] as usize
    }
}

/// Returns the indices of the members that may be picked at all.
pub(super) fn candidates(members: &[Member]) -> Vec<u32> {
    (0u32..).zip(members).filter(|(_, member)| member.weight > 0).map(|(index, _)| index).collect()
}

/// Returns `number` modulo `len`, as an index; `len` must not be 0.
#[expect(clippy::cast_possible_truncation, reason = "the result is below a usize")]
pub(super) const fn wrap(number: u64, len: usize) -> usize {
    (number % len as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::super::testing::members;
    use super::*;

    #[test]
    fn a_small_pool_spends_one_byte_per_slot_and_a_large_one_keeps_every_owner() {
        let narrow = Slots::new((0..256).collect(), (0..256).collect());
        let wide = Slots::new((0..257).collect(), (0..257).collect());
        assert!(matches!(narrow.owners, Owners::Narrow(_)) && matches!(wide.owners, Owners::Wide(_)));
        assert!((0..256).all(|slot| narrow.member_at(slot) == wrap(slot, 256)));
        assert!((0..257).all(|slot| wide.member_at(slot) == wrap(slot, 257)));
    }

    #[test]
    fn a_member_of_weight_0_is_no_candidate() {
        assert_eq!(candidates(&members(&[0, 3, 0, 1])), [1, 3]);
    }
}
