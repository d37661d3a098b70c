//! The lists of sources in their pools: put in, put in once more when something has left, and what was left out.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use super::state::Followed;
use crate::base::address::Address;
use crate::config::model::Pool;
use crate::control::control_loop::ControlLoop;
use crate::messages::discovery::Found;

/// Backends that get a line of their own of those that one answer newly leaves out; of more there is one with their
/// number.
const LEFT_OUT_EACH: usize = 16;

impl ControlLoop {
    /// Puts `list` into the pool, and what other sources list there in place of what has gone with it.
    pub(super) fn apply_list(&mut self, pool: &str, label: &str, list: Vec<Found>) {
        if self.put(pool, label, list) {
            self.fill_up(pool);
        }
    }

    /// Puts `list` into the pool and notes what is left out. Returns true when a backend was removed.
    fn put(&mut self, pool: &str, label: &str, list: Vec<Found>) -> bool {
        let backends = list.len() as u64;
        let put = self.put_discovered(pool, label, list);
        self.note_left_out(pool, label, backends, &put.left_out);
        put.has_removed
    }

    /// Puts into `pool` what sources list there and had to be left out. Must be called when backends have left by
    /// themselves: they may have been in the way.
    pub(in crate::control) fn fill_up(&mut self, pool: &str) {
        let state = self.control.view.state();
        let rows = state.sources.iter().filter(|row| row.pool == pool && !row.left_out.is_empty());
        let labels: HashSet<String> = rows.map(|row| row.source.clone()).collect();
        drop(state);
        if !labels.is_empty() {
            self.reapply_lists(|known| known.pool == pool && labels.contains(&known.settings.label()));
        }
    }

    /// Puts what is believed of such sources into their pools once more.
    pub(super) fn reapply_lists(&mut self, is_meant: impl Fn(&Followed) -> bool) {
        if self.is_ending() {
            return;
        }
        let meant = self.sources.all.iter().filter(|known| !known.last.is_empty() && is_meant(known));
        let lists: Vec<(String, String, Vec<Found>)> =
            meant.map(|known| (known.pool.clone(), known.settings.label(), known.last.clone())).collect();
        for (pool, label, list) in lists {
            // A backend removed here is not replaced again: `fill_up` calls this.
            self.put(&pool, &label, list);
        }
    }

    /// Returns what the sources of `pool` that run already are believed to have: by address, with the source. Of two
    /// that list an address the first one counts.
    pub(in crate::control) fn believed_in(&self, pool: &Pool) -> HashMap<Address, (Arc<str>, Found)> {
        let mut believed = HashMap::new();
        for source in &pool.discover {
            let label: Arc<str> = source.label().into();
            let of_pool = self.sources.all.iter().filter(|known| known.pool == pool.name);
            for found in
                of_pool.filter(|known| known.settings.label() == *label).flat_map(|known| &known.last)
            {
                let listed = || (Arc::clone(&label), found.clone());
                believed.entry(found.address.clone()).or_insert_with(listed);
            }
        }
        believed
    }

    /// A line for each that was not left out before.
    fn note_left_out(&self, pool: &str, label: &str, backends: u64, left_out: &[String]) {
        let (mut before, shown) = (Vec::new(), left_out.to_vec());
        self.with_source(pool, label, |row| {
            row.backends = backends;
            before = mem::replace(&mut row.left_out, shown);
        });
        let new = news(&before, left_out);
        for why in new.iter().take(LEFT_OUT_EACH) {
            log::warn!(pool, source = label, why; "discovered, and left out");
        }
        if let Some(count) = new.len().checked_sub(LEFT_OUT_EACH).filter(|&count| count > 0) {
            log::warn!(pool, source = label, count; "more were discovered, and left out");
        }
    }
}

/// Returns those of `now` that are not in `before`.
fn news<'now>(before: &[String], now: &'now [String]) -> Vec<&'now str> {
    let before: HashSet<&str> = before.iter().map(String::as_str).collect();
    now.iter().map(String::as_str).filter(|why| !before.contains(why)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_backend_newly_left_out_is_reported() {
        let all = |words: &[&str]| -> Vec<String> { words.iter().map(ToString::to_string).collect() };
        assert_eq!(news(&all(&["a", "b"]), &all(&["b", "c", "a", "d"])), ["c", "d"]);
        assert!(news(&all(&["a"]), &[]).is_empty());
    }
}
