//! The listeners of one worker, and which of them is accepted from next. A turn costs what has happened to some of them,
//! however many there are: nobody goes through all, except upon a command.

use std::collections::VecDeque;

use slab::Slab;

use crate::base::timer_wheel::TimerId;
use crate::sys::Kernel;
use crate::worker::listen::listener_slot::ListenerSlot;

/// See the module. A listener is known by its place, which another one may have later.
pub(in crate::worker) struct Listeners<K: Kernel> {
    slots: Slab<ListenerSlot<K>>,
    /// Those that accept is to be called on, the next one in front.
    ready: VecDeque<usize>,
    /// Those that pause, the first one in front. One whose pause is over by itself is still among them, and passed over.
    paused: VecDeque<usize>,
    /// How often somebody went through all of them.
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
    /// The place of `slot` from now on.
    pub(super) fn insert(&mut self, slot: ListenerSlot<K>) -> usize {
        self.slots.insert(slot)
    }

    /// Gives the place of a listener free.
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

    /// How many of them pause.
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

    /// All of them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut ListenerSlot<K>> {
        #[cfg(test)]
        self.walks.set(self.walks.get() + 1);
        self.slots.iter_mut().map(|(_, slot)| slot)
    }

    /// Where all of them are.
    pub(super) fn places(&self) -> Vec<usize> {
        #[cfg(test)]
        self.walks.set(self.walks.get() + 1);
        self.slots.iter().map(|(place, _)| place).collect()
    }

    /// There may be somebody in its queue. False when there is no such listener.
    pub(super) fn note_readable(&mut self, place: usize) -> bool {
        let Some(slot) = self.slots.get_mut(place) else { return false };
        slot.readable = true;
        self.queue_if_ready(place);
        true
    }

    /// Puts a listener that accept may be called on behind the others of which that is true.
    pub(super) fn queue_if_ready(&mut self, place: usize) {
        if let Some(slot) = self.slots.get_mut(place).filter(|slot| slot.is_ready() && !slot.is_queued) {
            slot.is_queued = true;
            self.ready.push_back(place);
        }
    }

    /// Takes the listener out whose turn it is to be accepted from. It has to be queued again.
    pub(super) fn next_ready(&mut self) -> Option<usize> {
        let place = self.ready.pop_front()?;
        self.slots[place].is_queued = false;
        Some(place)
    }

    /// Whether there is one.
    pub(in crate::worker) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Nothing is accepted from a listener, which is not queued, before `timer` fires or [`Listeners::next_paused`] names
    /// it.
    pub(super) fn pause(&mut self, place: usize, timer: TimerId) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        debug_assert!(!slot.is_queued, "it would be accepted from");
        slot.pause = Some(timer);
        if !std::mem::replace(&mut slot.is_among_paused, true) {
            self.paused.push_back(place);
        }
    }

    /// Ends the pause of the listener that began it first; returns its place and its timer, which is to be cancelled.
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

    /// Panics unless each listener that accept is to be called on is queued once, and no other, and each that pauses is found.
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
            assert!(slot.pause.is_none() || slot.is_among_paused, "its pause is ended by who frees a place");
        }
    }
}

fn forget(places: &mut VecDeque<usize>, place: usize) {
    if let Some(at) = places.iter().position(|&queued| queued == place) {
        places.remove(at);
    }
}
