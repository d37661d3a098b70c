//! The listeners of one worker, and the next one to accept from. A turn costs as much as has happened to some of them,
//! however many there are: only a command goes through all.

use std::collections::VecDeque;

use slab::Slab;

use crate::base::timer_wheel::TimerId;
use crate::sys::Kernel;
use crate::worker::listen::listener_slot::ListenerSlot;

/// See the module. A listener is known by its place, which may be reused later.
pub(in crate::worker) struct Listeners<K: Kernel> {
    slots: Slab<ListenerSlot<K>>,
    /// Listeners to call accept on, the next one in front.
    ready: VecDeque<usize>,
    /// Paused listeners, the first one in front. After a pause that ended by itself a listener is still among them, and
    /// skipped.
    paused: VecDeque<usize>,
    /// How often all listeners were walked through.
    #[cfg(test)]
    pub(in crate::worker) walks: std::cell::Cell<u32>,
}

impl<K: Kernel> Default for Listeners<K> {
    fn default() -> Self {
        Self {
            slots: Slab::new(),
            ready: VecDeque::new(),
            paused: VecDeque::new(),
            #[cfg(test)]
            walks: std::cell::Cell::default(),
        }
    }
}

impl<K: Kernel> Listeners<K> {
    /// Adds `slot` and returns its place.
    pub(super) fn insert(&mut self, slot: ListenerSlot<K>) -> usize {
        self.slots.insert(slot)
    }

    /// Removes a listener and frees its place.
    pub(super) fn remove(&mut self, place: usize) -> Option<ListenerSlot<K>> {
        let slot = self.slots.try_remove(place)?;
        if slot.is_queued {
            forget(&mut self.ready, place);
        }
        if slot.is_among_paused {
            forget(&mut self.paused, place);
        }
        Some(slot)
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut ListenerSlot<K>> {
        self.slots.get_mut(place)
    }

    pub(in crate::worker) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns how many of them pause.
    pub(in crate::worker) fn paused(&self) -> usize {
        self.slots.iter().filter(|(_, slot)| slot.pause.is_some()).count()
    }

    pub(in crate::worker) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many timers they have armed.
    pub(in crate::worker) fn timers(&self) -> usize {
        self.slots.iter().map(|(_, slot)| slot.timers()).sum()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut ListenerSlot<K>> {
        #[cfg(test)]
        self.walks.set(self.walks.get() + 1);
        self.slots.iter_mut().map(|(_, slot)| slot)
    }

    /// Returns the places of all of them.
    pub(super) fn places(&self) -> Vec<usize> {
        #[cfg(test)]
        self.walks.set(self.walks.get() + 1);
        self.slots.iter().map(|(place, _)| place).collect()
    }

    /// Marks the queue of a listener as possibly not empty. Returns false when there is no such listener.
    pub(super) fn note_readable(&mut self, place: usize) -> bool {
        let Some(slot) = self.slots.get_mut(place) else { return false };
        slot.readable = true;
        self.queue_if_ready(place);
        true
    }

    /// Queues a listener behind the others that are ready, if accept may be called on it.
    pub(super) fn queue_if_ready(&mut self, place: usize) {
        if let Some(slot) = self.slots.get_mut(place).filter(|slot| slot.is_ready() && !slot.is_queued) {
            slot.is_queued = true;
            self.ready.push_back(place);
        }
    }

    /// Takes out the next listener to accept from. It must be queued again.
    pub(super) fn next_ready(&mut self) -> Option<usize> {
        let place = self.ready.pop_front()?;
        self.slots[place].is_queued = false;
        Some(place)
    }

    /// Returns true when a listener is ready.
    pub(in crate::worker) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Pauses a listener, which must not be queued, until `timer` fires or [`Listeners::next_paused`] returns it.
    pub(super) fn pause(&mut self, place: usize, timer: TimerId) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        debug_assert!(!slot.is_queued, "it would be accepted from");
        slot.pause = Some(timer);
        if !std::mem::replace(&mut slot.is_among_paused, true) {
            self.paused.push_back(place);
        }
    }

    /// Ends the oldest pause; returns the listener's place and its timer, which must be cancelled.
    pub(super) fn next_paused(&mut self) -> Option<(usize, TimerId)> {
        while let Some(place) = self.paused.pop_front() {
            let slot = &mut self.slots[place];
            slot.is_among_paused = false;
            if let Some(timer) = slot.pause.take() {
                return Some((place, timer));
            }
        }
        None
    }

    /// Panics unless each listener that is ready is queued once, and no other, and each that pauses is found.
    pub(in crate::worker) fn audit(&self) {
        for (place, slot) in &self.slots {
            let times = self.ready.iter().filter(|&&queued| queued == place).count();
            assert_eq!(
                (slot.is_ready(), usize::from(slot.is_ready())),
                (slot.is_queued, times),
                "in its turn"
            );
            let times = self.paused.iter().filter(|&&paused| paused == place).count();
            assert_eq!(usize::from(slot.is_among_paused), times, "among those that pause");
            assert!(slot.pause.is_none() || slot.is_among_paused, "its pause ends when a place is freed");
        }
    }
}

fn forget(places: &mut VecDeque<usize>, place: usize) {
    if let Some(at) = places.iter().position(|&queued| queued == place) {
        places.remove(at);
    }
}
