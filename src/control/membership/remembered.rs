//! The settings that operators have made of discovered backends that are not listed now.

use std::collections::BTreeMap;

use crate::control::membership::origin::RuntimeOverrides;
use crate::control::membership::state_file::SavedAuthor;

/// Backends of which it is remembered.
pub(super) const REMEMBERED_MAX: usize = 4096;

/// By pool and name. Beyond the bound, the backend that left first is forgotten.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    all: BTreeMap<(String, String), Left>,
    /// In the order in which they have left.
    turns: BTreeMap<u64, (String, String)>,
    /// The turn of the next one.
    next: u64,
}

#[derive(Debug)]
struct Left {
    turn: u64,
    /// The weight that was said of it then.
    said: u16,
    set: RuntimeOverrides,
    /// The author of its administrative state, where that is known.
    author: Option<SavedAuthor>,
}

/// What is remembered of one, see [`Remembered::iter`].
pub(super) type Known<'r> = (&'r str, &'r str, u16, RuntimeOverrides, Option<&'r SavedAuthor>);

impl Remembered {
    /// One has left of which the weight `said` was said, and of which `author` has set the administrative state.
    pub(super) fn put(
        &mut self,
        pool: &str,
        backend: &str,
        said: u16,
        set: RuntimeOverrides,
        author: Option<SavedAuthor>,
    ) {
        self.take(pool, backend);
        if self.all.len() >= REMEMBERED_MAX
            && let Some((_, first)) = self.turns.pop_first()
        {
            self.all.remove(&first);
            let (pool, backend) = first;
            log::warn!(pool, backend; "what was set of it is forgotten: too many backends have left");
        }
        let (turn, key) = (self.next, (pool.to_owned(), backend.to_owned()));
        self.next += 1;
        self.turns.insert(turn, key.clone());
        self.all.insert(key, Left { turn, said, set, author });
    }

    /// Returns the weight that was said of one, and what was set.
    pub(super) fn get(&self, pool: &str, backend: &str) -> Option<(u16, RuntimeOverrides)> {
        let left = self.all.get(&(pool.to_owned(), backend.to_owned()))?;
        Some((left.said, left.set))
    }

    /// Returns the author of the administrative state of one.
    pub(super) fn author_of(&self, pool: &str, backend: &str) -> Option<SavedAuthor> {
        self.all.get(&(pool.to_owned(), backend.to_owned()))?.author.clone()
    }

    /// Same as [`Remembered::get`], and forgets it.
    pub(super) fn take(&mut self, pool: &str, backend: &str) -> Option<(u16, RuntimeOverrides)> {
        let left = self.all.remove(&(pool.to_owned(), backend.to_owned()))?;
        self.turns.remove(&left.turn);
        Some((left.said, left.set))
    }

    /// Returns the names of the addresses of a host of which something is remembered.
    pub(super) fn addresses_of(&self, pool: &str, host: &str) -> Vec<String> {
        let first = (pool.to_owned(), format!("{host}@"));
        let from = self.all.range(first.clone()..).map(|(key, _)| key);
        from.take_while(|key| key.0 == first.0 && key.1.starts_with(&first.1))
            .map(|key| key.1.clone())
            .collect()
    }

    /// Returns all: pool, backend, the weight that was said then, what was set, and its author. The one that left first
    /// comes first, so that a later process that remembers them in this order forgets the same one.
    pub(super) fn iter(&self) -> impl Iterator<Item = Known<'_>> {
        self.turns.values().filter_map(|key| {
            let left = self.all.get(key)?;
            Some((key.0.as_str(), key.1.as_str(), left.said, left.set, left.author.as_ref()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Admin;

    fn drained() -> RuntimeOverrides {
        RuntimeOverrides { admin: Admin::Drain, ..RuntimeOverrides::default() }
    }

    /// The newest was refused, for ever once the names of an hour of restarts had filled it.
    #[test]
    fn beyond_the_bound_the_one_that_left_first_is_forgotten() {
        let mut all = Remembered::default();
        for number in 0..REMEMBERED_MAX {
            all.put("web", &number.to_string(), 1, drained(), None);
        }
        all.put("web", "0", 2, drained(), None);
        assert_eq!(all.iter().count(), REMEMBERED_MAX, "it has left again");
        all.put("web", "new", 1, drained(), None);
        assert_eq!(all.iter().count(), REMEMBERED_MAX);
        assert_eq!(all.get("web", "1"), None);
        assert_eq!(all.get("web", "0"), Some((2, drained())));
        assert_eq!(all.take("web", "new"), Some((1, drained())));
        assert_eq!((all.get("web", "new"), all.turns.len()), (None, REMEMBERED_MAX - 1));
        assert_eq!(all.iter().next().map(|(_, name, ..)| name), Some("2"));
    }
}
