//! The tables of former epochs, by which choices that were made then are explained.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::pool::{Pool, PoolId, Snapshot};

/// Replaced tables kept to explain choices made by them. A table of a large pool takes megabytes, which all workers
/// share.
pub(super) const TABLES_MAX: usize = 8;

#[derive(Default)]
pub(super) struct Tables {
    /// With the last epoch that they belonged to, oldest first.
    former: VecDeque<(u64, Arc<Pool>)>,
    /// The last epochs of tables that are no longer kept.
    gone: HashMap<PoolId, u64>,
}

impl Tables {
    /// Keeps the tables that `after` no longer has.
    pub(super) fn replaced(&mut self, before: &Snapshot, after: &Snapshot) {
        let stays = |old: &Arc<Pool>| after.pools.iter().any(|new| Arc::ptr_eq(old, new));
        // Both are in the order of their ids, so nearly all are found at the same place.
        let mut same_place = after.pools.iter();
        for pool in &before.pools {
            let is_there = same_place.next().is_some_and(|new| Arc::ptr_eq(pool, new)) || stays(pool);
            if !is_there {
                self.keep(before.epoch, Arc::clone(pool));
            }
        }
    }

    fn keep(&mut self, epoch: u64, pool: Arc<Pool>) {
        if self.former.len() == TABLES_MAX
            && let Some((last, oldest)) = self.former.pop_front()
        {
            self.gone.insert(oldest.id, last);
        }
        self.former.push_back((epoch, pool));
    }

    /// Returns whether the tables of a pool in that epoch are gone.
    pub(super) fn are_gone(&self, id: PoolId, epoch: u64) -> bool {
        self.gone.get(&id).is_some_and(|&last| epoch <= last)
    }

    /// Returns the tables of a pool in an epoch; `None` if those are the present ones.
    pub(super) fn of(&self, id: PoolId, epoch: u64) -> Option<&Arc<Pool>> {
        self.former.iter().find(|(last, pool)| pool.id == id && *last >= epoch).map(|(_, pool)| pool)
    }
}
