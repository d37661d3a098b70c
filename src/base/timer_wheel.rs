//! Deadlines by the million: arming, cancelling and firing cost the same however many are armed.
//!
//! A hierarchical wheel: level 0 has a slot for each of the next 64 ticks, level 1 one for each of the next
//! 64 × 64, and so on. An entry waits in the level of the highest digit (base 64) in which its tick differs
//! from now; when time enters its slot it moves down, and from level 0 it falls due. A tick is one millisecond.
//! Due entries are taken one at a time and can be cancelled until then, since one timer may end the session of another.
//! Never fires early: a deadline is rounded up to a tick. Never reads a clock.
#![expect(clippy::cast_possible_truncation, reason = "levels and slots are below 64")]

use std::time::Duration;

use slab::Slab;

use crate::base::time::Instant;

const TICK_NANOS: u64 = 1_000_000;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 64^8 ticks are more than an [`Instant`] can count, so no deadline is ever too far away.
const LEVELS: usize = 8;
const NONE: u32 = u32::MAX;
/// The level of an entry that is due.
const DUE: u8 = LEVELS as u8;

/// Names one armed entry. Spent by [`TimerWheel::cancel`] or when [`TimerWheel::pop_due`] returns the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId {
    index: u32,
    /// Differs from that of a spent timer in the same place.
    serial: u32,
}

#[derive(Debug)]
struct Entry<T> {
    tick: u64,
    serial: u32,
    payload: T,
    level: u8,
    slot: u8,
    previous: u32,
    next: u32,
}

/// Deadlines with a payload each.
#[derive(Debug)]
pub struct TimerWheel<T> {
    /// Every tick up to here is due.
    tick: u64,
    entries: Slab<Entry<T>>,
    /// The serial of the entry armed last.
    serial: u32,
    /// First entry of each slot, level by level.
    heads: [[u32; SLOTS]; LEVELS],
    /// One bit a slot: whether it holds an entry.
    occupied: [u64; LEVELS],
    first_due: u32,
    last_due: u32,
}

impl<T> TimerWheel<T> {
    /// Returns an empty wheel whose time starts at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            tick: now.as_nanos() / TICK_NANOS,
            entries: Slab::new(),
            serial: 0,
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            first_due: NONE,
            last_due: NONE,
        }
    }

    /// Arms an entry and returns its id. It falls due at the first [`TimerWheel::advance`] to `deadline` or later.
    pub fn arm(&mut self, deadline: Instant, payload: T) -> TimerId {
        let tick = deadline.as_nanos().div_ceil(TICK_NANOS).max(self.tick + 1);
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let entry = Entry { tick, serial, payload, level: 0, slot: 0, previous: NONE, next: NONE };
        let index = u32::try_from(self.entries.insert(entry))
            .expect("fewer than 2^32 timers: each belongs to an open file");
        self.link(index);
        TimerId { index, serial }
    }

    /// Takes an entry out and returns its payload, also when it is due already. `timer` must not be spent.
    ///
    /// # Panics
    /// When `timer` is spent and its place free; with debug assertions also when another entry has taken the place.
    pub fn cancel(&mut self, timer: TimerId) -> T {
        let TimerId { index, serial } = timer;
        debug_assert_eq!(self.entries[index as usize].serial, serial, "a spent timer is cancelled");
        self.take(index)
    }

    fn take(&mut self, index: u32) -> T {
        self.unlink(index);
        self.entries.remove(index as usize).payload
    }

    /// Moves time to `now`; an earlier moment than before changes nothing. Every entry whose deadline, rounded up to a
    /// tick, has come is due.
    pub fn advance(&mut self, now: Instant) {
        let target = now.as_nanos() / TICK_NANOS;
        while let Some((level, slot, start)) = self.next_slot() {
            if start > target {
                break;
            }
            self.tick = self.tick.max(start);
            self.empty_slot(level, slot);
        }
        self.tick = self.tick.max(target);
    }

    /// Takes the next entry that is due and returns its payload, earliest tick first; `None` when nothing is due.
    pub fn pop_due(&mut self) -> Option<T> {
        let first = self.first_due;
        (first != NONE).then(|| self.take(first))
    }

    /// Returns the time from `now` until [`TimerWheel::advance`] must be called; `None` when nothing is armed. May be
    /// too short (a distant entry only moves down a level), never too long.
    pub fn next_timeout(&self, now: Instant) -> Option<Duration> {
        if self.first_due != NONE {
            return Some(Duration::ZERO);
        }
        let (_, _, start) = self.next_slot()?;
        Some(Instant::from_nanos(start.saturating_mul(TICK_NANOS)).since(now))
    }

    /// Returns the number of entries, armed or due.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether no entry is armed or due.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the slot that time enters next, and the tick at which it does.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        // A lower level comes first: all of it is due before the level above moves on by one slot.
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = SLOT_BITS * level as u32;
        let lap = self.tick >> (shift + SLOT_BITS) << SLOT_BITS;
        Some((level, slot, (lap | slot as u64) << shift))
    }

    /// Makes the entries of a slot due, or moves them down a level.
    fn empty_slot(&mut self, level: usize, slot: usize) {
        let mut index = std::mem::replace(&mut self.heads[level][slot], NONE);
        self.occupied[level] &= !(1 << slot);
        while index != NONE {
            let next = self.entries[index as usize].next;
            if self.entries[index as usize].tick <= self.tick {
                self.link_due(index);
            } else {
                self.link(index);
            }
            index = next;
        }
    }

    /// Puts an entry into the slot that time enters first.
    fn link(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let highest_difference = (entry.tick ^ self.tick).ilog2();
        let level = (highest_difference / SLOT_BITS) as usize;
        let slot = (entry.tick >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let head = std::mem::replace(&mut self.heads[level][slot], index);
        self.occupied[level] |= 1 << slot;
        (entry.level, entry.slot) = (level as u8, slot as u8);
        (entry.previous, entry.next) = (NONE, head);
        if head != NONE {
            self.entries[head as usize].previous = index;
        }
    }

    /// Puts an entry behind those that are due.
    fn link_due(&mut self, index: u32) {
        let last = std::mem::replace(&mut self.last_due, index);
        let entry = &mut self.entries[index as usize];
        (entry.level, entry.previous, entry.next) = (DUE, last, NONE);
        match last {
            NONE => self.first_due = index,
            last => self.entries[last as usize].next = index,
        }
    }

    fn unlink(&mut self, index: u32) {
        let Entry { level, slot, previous, next, .. } = self.entries[index as usize];
        match previous {
            NONE if level == DUE => self.first_due = next,
            NONE => self.unlink_head(level as usize, slot as usize, next),
            previous => self.entries[previous as usize].next = next,
        }
        match next {
            NONE if level == DUE => self.last_due = previous,
            NONE => {}
            next => self.entries[next as usize].previous = previous,
        }
    }

    fn unlink_head(&mut self, level: usize, slot: usize, next: u32) {
        self.heads[level][slot] = next;
        if next == NONE {
            self.occupied[level] &= !(1 << slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::rng::Rng;

    const NOTHING: [u64; 0] = [];

    fn at_millis(millis: u64) -> Instant {
        Instant::from_nanos(millis * TICK_NANOS)
    }

    fn due_at(wheel: &mut TimerWheel<u64>, now: Instant) -> Vec<u64> {
        wheel.advance(now);
        std::iter::from_fn(|| wheel.pop_due()).collect()
    }

    #[test]
    fn a_due_timer_can_still_be_cancelled() {
        let mut wheel = TimerWheel::new(at_millis(0));
        let timers: Vec<TimerId> = (0..4).map(|serial| wheel.arm(at_millis(serial + 1), serial)).collect();
        wheel.advance(at_millis(10));
        assert_eq!(wheel.pop_due(), Some(0));
        // The first, a middle and the last of the rest, and then one that was armed in between.
        assert_eq!(wheel.cancel(timers[2]), 2);
        assert_eq!(wheel.cancel(timers[1]), 1);
        assert_eq!(wheel.cancel(timers[3]), 3);
        assert_eq!((wheel.pop_due(), wheel.len()), (None, 0));
        wheel.arm(at_millis(5), 4);
        assert_eq!(wheel.pop_due(), None, "it waits for time to move");
        assert_eq!(due_at(&mut wheel, at_millis(11)), [4]);
    }

    /// Case 69.
    #[test]
    fn an_entry_fires_at_its_deadline_and_not_before() {
        for span in [1, 63, 64, 65, 4_095, 4_096, 86_400_000, u64::from(u32::MAX) + 5] {
            for start in [0, 1, 63, 64, 1_000_003] {
                let mut wheel = TimerWheel::new(at_millis(start));
                wheel.arm(at_millis(start + span), 7);
                assert_eq!(
                    due_at(&mut wheel, at_millis(start + span - 1)),
                    NOTHING,
                    "{span} ms after {start}"
                );
                assert_eq!(due_at(&mut wheel, at_millis(start + span)), [7], "{span} ms after {start}");
            }
        }
    }

    #[test]
    fn a_deadline_inside_a_tick_waits_for_the_end_of_the_tick() {
        let mut wheel = TimerWheel::new(at_millis(0));
        wheel.arm(Instant::from_nanos(5 * TICK_NANOS + 1), 1);
        assert_eq!(due_at(&mut wheel, at_millis(5)), NOTHING);
        assert_eq!(due_at(&mut wheel, at_millis(6)), [1]);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic = "a spent timer is cancelled"]
    fn a_spent_timer_is_not_mistaken_for_the_one_in_its_place() {
        let mut wheel = TimerWheel::new(at_millis(0));
        let spent = wheel.arm(at_millis(1), 1);
        assert_eq!(due_at(&mut wheel, at_millis(1)), [1]);
        wheel.arm(at_millis(2), 2);
        wheel.cancel(spent);
    }

    /// Case 74.
    #[test]
    fn a_deadline_at_the_end_of_time_can_be_armed_and_cancelled() {
        let mut wheel = TimerWheel::new(at_millis(3));
        let timer = wheel.arm(Instant::from_nanos(u64::MAX), 9);
        assert_eq!(due_at(&mut wheel, at_millis(1 << 40)), NOTHING);
        assert_eq!(wheel.cancel(timer), 9);
        assert_eq!(wheel.next_timeout(at_millis(1 << 40)), None);
    }

    /// Cases 70 and 71.
    #[test]
    fn the_wheel_agrees_with_a_sorted_map_over_random_operations() {
        for seed in 0..60 {
            let mut rng = Rng::new(seed);
            let mut now = rng.below(1 << 40);
            let mut wheel = TimerWheel::new(Instant::from_nanos(now));
            let mut model: BTreeMap<u64, (u64, TimerId)> = BTreeMap::new();
            for serial in 0..2_000 {
                match rng.below(4) {
                    0 | 1 => {
                        let deadline = now + (rng.next_u64() >> rng.below(64)) % (1 << 50);
                        model.insert(serial, (deadline, wheel.arm(Instant::from_nanos(deadline), serial)));
                    }
                    2 => {
                        let chosen = rng.below(serial + 1);
                        if let Some((&serial, &(_, timer))) = model.range(chosen..).next() {
                            assert_eq!(wheel.cancel(timer), serial);
                            model.remove(&serial);
                        }
                    }
                    _ => {
                        now += (rng.next_u64() >> rng.below(64)) % (1 << 45);
                        let due = due_at(&mut wheel, Instant::from_nanos(now));
                        for serial in due {
                            let (deadline, _) = model.remove(&serial).expect("fires once");
                            assert!(deadline <= now, "early, seed {seed}");
                        }
                        let a_tick_ago = now.saturating_sub(2 * TICK_NANOS);
                        let late = model.values().filter(|(deadline, _)| *deadline < a_tick_ago).count();
                        assert_eq!(late, 0, "later than a tick, seed {seed}");
                    }
                }
                assert_eq!(wheel.len(), model.len());
            }
        }
    }

    #[test]
    fn sleeping_for_the_timeout_is_never_too_long() {
        let mut rng = Rng::new(5);
        let mut now = at_millis(77);
        let mut wheel = TimerWheel::new(now);
        for serial in 0..200 {
            wheel.arm(now + Duration::from_micros(rng.below(10_000_000)), serial);
        }
        let mut wakes = 0;
        while let Some(timeout) = wheel.next_timeout(now) {
            now = now + timeout;
            due_at(&mut wheel, now);
            wakes += 1;
            assert!(wakes < 1_000, "the wheel must not spin");
        }
        assert!(wheel.is_empty());
    }
}
