//! Series of each worker. A new worker of the same index continues the counts of the old one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::families::Families;
use crate::stats::{Share, WorkerStats};

/// The counts of all workers of one index, past and present.
#[derive(Default)]
struct Sum {
    active: u64,
    accepted: u64,
    handed_over: u64,
    adopted: u64,
    turns: u64,
}

impl Sum {
    fn add(&mut self, stats: &WorkerStats) {
        let share = Share::of(stats);
        self.active += share.sessions;
        self.accepted += share.accepted;
        self.handed_over += share.handed_over;
        self.adopted += share.adopted;
        self.turns += stats.turns.get();
    }
}

pub(super) fn write(families: &mut Families, counters: &[(usize, Arc<WorkerStats>)]) -> fmt::Result {
    let mut sums: BTreeMap<usize, Sum> = BTreeMap::new();
    for (index, stats) in counters {
        sums.entry(*index).or_default().add(stats);
    }
    let each = |read: fn(&Sum) -> u64| {
        sums.iter().map(move |(worker, sum)| ([("worker", *worker as u64)], read(sum)))
    };
    families.gauges("l4lb_worker_active_sessions", "Its open sessions.", each(|sum| sum.active))?;
    families.counters(
        "l4lb_worker_accepted_sessions_total",
        "Connections that it accepted.",
        each(|sum| sum.accepted),
    )?;
    families.counters(
        "l4lb_worker_handed_over_sessions_total",
        "Accepted connections that it handed over to other workers.",
        each(|sum| sum.handed_over),
    )?;
    families.counters(
        "l4lb_worker_adopted_sessions_total",
        "Sessions that it adopted from other workers.",
        each(|sum| sum.adopted),
    )?;
    families.counters("l4lb_worker_turns_total", "Turns of its loop.", each(|sum| sum.turns))
}
