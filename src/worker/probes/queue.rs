//! Checks that are due and wait for a place among those in flight, and the order of places.
//!
//! A silent backend holds its place for the whole timeout, one that answers only for a moment. A thousand silent ones
//! must not delay every other check. So backends with a slow last check, and those without one yet, get at most half of
//! the places, and pools take turns: problems of one pool do not affect the others.

use std::collections::{HashMap, VecDeque};

use crate::pool::PoolId;

/// Slow backends get at most one in this many places.
const SLOW_SHARE: usize = 2;

/// For how long the last check of a backend has held its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Pace {
    /// A small part of the timeout.
    Prompt,
    /// A large part of it, or all, or there was none yet.
    Slow,
}

impl Pace {
    const fn other(self) -> Self {
        match self {
            Self::Prompt => Self::Slow,
            Self::Slow => Self::Prompt,
        }
    }
}

/// The waiting checks and the taken places. A check is known by its index among the entries.
pub(in crate::worker) struct Queue {
    /// Limit on checks in flight.
    places: usize,
    /// Checks in flight, by [`Pace`].
    taken: [usize; 2],
    /// Checks that wait, by [`Pace`].
    lanes: [Lane; 2],
    /// The lane that got the last place: they take turns when both may have one.
    last: Pace,
}

impl Queue {
    pub(in crate::worker) fn new(places: usize) -> Self {
        Self { places, taken: [0; 2], lanes: <[Lane; 2]>::default(), last: Pace::Slow }
    }

    /// Sets the limit on checks in flight. Those in flight continue.
    pub(in crate::worker) fn limit(&mut self, places: usize) {
        self.places = places;
    }

    /// Queues a check of that pool.
    pub(in crate::worker) fn push(&mut self, pool: PoolId, index: u32, pace: Pace) {
        self.lanes[pace as usize].push(pool, index);
    }

    /// Returns the check that may start now, if any. It takes no place before [`Queue::enter`].
    pub(in crate::worker) fn pop(&mut self) -> Option<u32> {
        let pace = self.next_pace()?;
        self.last = pace;
        self.lanes[pace as usize].pop()
    }

    /// Returns the lane of the check that may start now, if any.
    pub(in crate::worker) fn next_pace(&self) -> Option<Pace> {
        let first = self.last.other();
        [first, first.other()].into_iter().find(|&pace| self.may_start(pace))
    }

    fn may_start(&self, pace: Pace) -> bool {
        let has_place = self.in_flight() < self.places
            && (pace == Pace::Prompt || self.taken[Pace::Slow as usize] < self.slow_max());
        has_place && self.lanes[pace as usize].len > 0
    }

    /// A single place is for all.
    fn slow_max(&self) -> usize {
        (self.places / SLOW_SHARE).max(1)
    }

    /// Must be called when a check has got a socket.
    pub(in crate::worker) fn enter(&mut self, pace: Pace) {
        self.taken[pace as usize] += 1;
    }

    /// Must be called with the pace of its `enter` when a check has given its socket back.
    pub(in crate::worker) fn leave(&mut self, pace: Pace) {
        self.taken[pace as usize] -= 1;
    }

    pub(in crate::worker) fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.len).sum()
    }

    pub(in crate::worker) fn in_flight(&self) -> usize {
        self.taken.iter().sum()
    }

    /// Forgets the waiting checks that must not be kept.
    pub(in crate::worker) fn retain(&mut self, is_kept: impl Fn(u32) -> bool) {
        self.lanes.iter_mut().for_each(|lane| lane.retain(&is_kept));
    }

    /// Panics unless `taken`, by [`Pace`], matches the checks in flight, and slow ones have no more than their part of
    /// the places.
    pub(in crate::worker) fn audit(&self, taken: [usize; 2]) {
        assert_eq!(taken, self.taken, "each attempt is counted");
        let [_, slow_taken] = taken;
        let leaves_half = slow_taken <= 1 || 2 * slow_taken <= self.places;
        assert!(leaves_half, "slow checks have {slow_taken} of {} places", self.places);
    }
}

/// The waiting checks of one pace: those of a pool in order, the pools in turn.
#[derive(Default)]
struct Lane {
    of_pools: HashMap<PoolId, VecDeque<u32>>,
    /// The pools that have any, the next one in front.
    turns: VecDeque<PoolId>,
    len: usize,
}

impl Lane {
    fn push(&mut self, pool: PoolId, index: u32) {
        let of_pool = self.of_pools.entry(pool).or_default();
        if of_pool.is_empty() {
            self.turns.push_back(pool);
        }
        of_pool.push_back(index);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<u32> {
        let pool = self.turns.pop_front()?;
        let of_pool = self.of_pools.get_mut(&pool)?;
        let index = of_pool.pop_front();
        self.len -= usize::from(index.is_some());
        if of_pool.is_empty() {
            self.of_pools.remove(&pool);
        } else {
            self.turns.push_back(pool);
        }
        index
    }

    fn retain(&mut self, is_kept: impl Fn(u32) -> bool) {
        let Self { of_pools, turns, len } = self;
        of_pools.values_mut().for_each(|of_pool| of_pool.retain(|&index| is_kept(index)));
        of_pools.retain(|_, of_pool| !of_pool.is_empty());
        turns.retain(|pool| of_pools.contains_key(pool));
        *len = of_pools.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: PoolId = PoolId(0);
    const B: PoolId = PoolId(1);

    /// Starts the checks that may start; their paces are in `paces`, by index.
    fn start(queue: &mut Queue, paces: &[Pace]) -> Vec<u32> {
        let mut started = Vec::new();
        while let Some(index) = queue.pop() {
            queue.enter(paces[index as usize]);
            started.push(index);
        }
        started
    }

    #[test]
    fn pools_take_turns() {
        let mut queue = Queue::new(5);
        (0..6).for_each(|index| queue.push(A, index, Pace::Prompt));
        (6..8).for_each(|index| queue.push(B, index, Pace::Prompt));
        assert_eq!(start(&mut queue, &[Pace::Prompt; 8]), [0, 6, 1, 7, 2]);
        queue.leave(Pace::Prompt);
        queue.push(B, 7, Pace::Prompt);
        assert_eq!(start(&mut queue, &[Pace::Prompt; 8]), [3]);
    }

    #[test]
    fn slow_ones_have_half_of_the_places_and_the_others_the_rest() {
        let mut queue = Queue::new(4);
        let paces =
            [Pace::Slow, Pace::Slow, Pace::Slow, Pace::Slow, Pace::Prompt, Pace::Prompt, Pace::Prompt];
        (0..4).for_each(|index| queue.push(A, index, Pace::Slow));
        assert_eq!(start(&mut queue, &paces), [0, 1], "though no other check wants a place");
        (4..7).for_each(|index| queue.push(A, index, Pace::Prompt));
        assert_eq!(start(&mut queue, &paces), [4, 5]);
        queue.leave(Pace::Slow);
        assert_eq!(start(&mut queue, &paces), [2], "both take turns where both may");
        queue.leave(Pace::Prompt);
        assert_eq!(start(&mut queue, &paces), [6], "half of the places are taken by slow ones");
    }

    #[test]
    fn neither_lane_waits_for_ever_behind_the_other() {
        let mut queue = Queue::new(2);
        let paces: Vec<Pace> = (0..40).map(|i| if i < 20 { Pace::Prompt } else { Pace::Slow }).collect();
        (0..40).for_each(|index| queue.push(A, index, paces[index as usize]));
        let mut started = start(&mut queue, &paces);
        for _ in 0..10 {
            // The first to start ends first.
            queue.leave(paces[started[started.len() - 2] as usize]);
            started.extend(start(&mut queue, &paces));
        }
        let slow = started.iter().filter(|&&index| index >= 20).count();
        assert!((4..=6).contains(&slow), "{started:?}");
    }

    #[test]
    fn a_single_place_is_for_all() {
        let mut queue = Queue::new(1);
        queue.push(A, 0, Pace::Slow);
        assert_eq!(queue.pop(), Some(0));
    }

    proptest! {
        #[test]
        fn a_waiting_probe_is_started_once_or_forgotten(
            places in 1_usize..6,
            checks in prop::collection::vec((0_u32..3, any::<bool>(), any::<bool>()), 0..40),
        ) {
            let mut queue = Queue::new(places);
            let pace = |slow| if slow { Pace::Slow } else { Pace::Prompt };
            let paces: Vec<Pace> = checks.iter().map(|&(_, slow, _)| pace(slow)).collect();
            for (index, &(pool, slow, _)) in (0..).zip(&checks) {
                queue.push(PoolId(pool), index, pace(slow));
            }
            queue.retain(|index| checks[index as usize].2);
            let mut expected: Vec<u32> = (0..).zip(&checks).filter(|(_, check)| check.2).map(|(i, _)| i).collect();
            prop_assert_eq!(queue.len(), expected.len());
            let (mut started, mut over) = (Vec::new(), 0);
            loop {
                started.extend(start(&mut queue, &paces));
                let mut taken = [0; 2];
                started[over..].iter().for_each(|&index| taken[paces[index as usize] as usize] += 1);
                queue.audit(taken);
                prop_assert_eq!(queue.next_pace(), None, "no check waits for a free place");
                prop_assert!(queue.in_flight() <= places);
                if over == started.len() {
                    break;
                }
                queue.leave(paces[started[over] as usize]);
                over += 1;
            }
            started.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(started, expected);
            prop_assert_eq!(queue.len(), 0);
        }
    }
}
