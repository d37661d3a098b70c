//! A slab whose keys name one occupant: a key of an occupant that has left never reaches the next one.
//! epoll may still report a connection that was closed earlier in the same batch; its key then finds nothing.

use slab::Slab;

/// Bits of a generation: the rest of a token after kind, side and index.
pub const GENERATION_BITS: u32 = 29;
const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

/// Names one occupant of a [`Slots`] for as long as it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The place in the slab.
    pub index: u32,
    /// Counts the occupants of that place, modulo 2^[`GENERATION_BITS`].
    pub generation: u32,
}

/// Values under keys that are never mistaken for each other.
#[derive(Debug)]
pub struct Slots<T> {
    slab: Slab<(u32, T)>,
    generation: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slab: Slab::new(), generation: 0 }
    }
}

impl<T> Slots<T> {
    /// Puts `value` in and returns the key that names it.
    pub fn insert(&mut self, value: T) -> Key {
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
        let index = self.slab.insert((self.generation, value));
        let index = u32::try_from(index).expect("fewer than 2^32 sessions: each holds an open file");
        Key { index, generation: self.generation }
    }

    /// Returns the value under `key`, or `None` when its occupant has left.
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slab.get(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => Some(value),
            Some(_) | None => None,
        }
    }

    /// Returns the value under `key`, or `None` when its occupant has left.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slab.get_mut(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => Some(value),
            Some(_) | None => None,
        }
    }

    /// Takes the value under `key` out. The key and every copy of it must not be expected to find anything again.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        Some(self.slab.remove(key.index as usize).1)
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Returns whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Returns the number of places, taken or free.
    pub fn places(&self) -> u32 {
        u32::try_from(self.slab.capacity()).unwrap_or(u32::MAX)
    }

    /// Returns the value in a place and the key that names it.
    pub fn at(&self, place: u32) -> Option<(Key, &T)> {
        let (generation, value) = self.slab.get(place as usize)?;
        Some((Key { index: place, generation: *generation }, value))
    }

    /// Returns the keys of all values.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.slab.iter().map(|(index, (generation, _))| Key {
            index: u32::try_from(index).expect("insert checked the index"),
            generation: *generation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case 40.
    #[test]
    fn a_reused_place_does_not_answer_to_the_old_key() {
        let mut slots = Slots::default();
        let old = slots.insert("first");
        assert_eq!(slots.remove(old), Some("first"));
        let new = slots.insert("second");
        assert_eq!(old.index, new.index, "the place is reused, or this test shows nothing");
        assert_eq!(slots.get(old), None);
        assert_eq!(slots.remove(old), None);
        assert_eq!(slots.get(new), Some(&"second"));
    }

    #[test]
    fn keys_name_what_is_in() {
        let mut slots = Slots::default();
        let (a, b) = (slots.insert(1), slots.insert(2));
        slots.remove(a);
        assert_eq!(slots.keys().collect::<Vec<_>>(), [b]);
        assert_eq!((slots.at(a.index), slots.at(b.index)), (None, Some((b, &2))));
        assert!(slots.places() > b.index && slots.at(slots.places()).is_none());
        assert_eq!(slots.len(), 1);
    }
}
