//! The lent pipes and their borrowers, in the order in which their sinks last accepted bytes.
//!
//! A linked list in a slab: each step costs the same however many are lent.

use slab::Slab;

use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::session::Direction;

/// The borrower of a pipe: one direction of a session.
pub(super) type Borrower = (Key, Direction);

/// Most pipes lent at a time: more have no place.
pub(super) const LENT_MAX: usize = u16::MAX as usize;
const NONE: u16 = u16::MAX;

/// The place of a lent pipe in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u16);

#[derive(Debug)]
struct Entry {
    borrower: Borrower,
    /// When its sink last accepted bytes, or it was filled.
    since: Instant,
    previous: u16,
    next: u16,
}

#[derive(Debug)]
pub(super) struct Lent {
    entries: Slab<Entry>,
    first: u16,
    last: u16,
}

impl Lent {
    pub(super) fn new() -> Self {
        Self { entries: Slab::new(), first: NONE, last: NONE }
    }

    /// Adds a newly filled one behind the others.
    pub(super) fn add(&mut self, borrower: Borrower, now: Instant) -> Place {
        let entry = Entry { borrower, since: now, previous: NONE, next: NONE };
        let index = u16::try_from(self.entries.insert(entry)).expect("fewer than LENT_MAX are lent");
        self.link(index);
        Place(index)
    }

    /// Moves one behind the others after its sink has accepted bytes.
    pub(super) fn touch(&mut self, place: Place, now: Instant) {
        self.unlink(place.0);
        self.entries[place.0.into()].since = now;
        self.link(place.0);
    }

    pub(super) fn remove(&mut self, place: Place) {
        self.unlink(place.0);
        self.entries.remove(place.0.into());
    }

    /// Returns the borrower with the longest stalled sink, and since when.
    pub(super) fn first(&self) -> Option<(Borrower, Instant)> {
        let entry = self.entries.get(self.first.into())?;
        Some((entry.borrower, entry.since))
    }

    fn link(&mut self, index: u16) {
        let last = std::mem::replace(&mut self.last, index);
        let entry = &mut self.entries[index.into()];
        (entry.previous, entry.next) = (last, NONE);
        match last {
            NONE => self.first = index,
            last => self.entries[last.into()].next = index,
        }
    }

    fn unlink(&mut self, index: u16) {
        let Entry { previous, next, .. } = self.entries[index.into()];
        match previous {
            NONE => self.first = next,
            previous => self.entries[previous.into()].next = next,
        }
        match next {
            NONE => self.last = previous,
            next => self.entries[next.into()].previous = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn the_first_is_the_one_whose_sink_has_waited_longest() {
        let mut rng = Rng::new(7);
        let (mut lent, mut model) = (Lent::new(), VecDeque::new());
        for step in 0..5_000 {
            let now = Instant::from_nanos(step);
            let chosen = usize::try_from(rng.below(1 + model.len() as u64)).unwrap();
            match (rng.below(3), model.len()) {
                (0, _) | (_, 0) => {
                    let key = Key { index: u32::try_from(step).unwrap(), generation: 1 };
                    let borrower = (key, Direction::ToClient);
                    model.push_back((lent.add(borrower, now), borrower, now));
                }
                (1, len) => {
                    let (place, ..) = model.remove(chosen % len).unwrap();
                    lent.remove(place);
                }
                (_, len) => {
                    let (place, borrower, _) = model.remove(chosen % len).unwrap();
                    lent.touch(place, now);
                    model.push_back((place, borrower, now));
                }
            }
            assert_eq!(lent.first(), model.front().map(|&(_, borrower, since)| (borrower, since)));
        }
    }
}
