//! The history of backends: the weight of each in an epoch, and what kept it out of service. The control thread records
//! changes with each epoch that it publishes; for a choice a worker keeps only the epoch. So an explanation of a
//! session shows the backends at that moment, not as they are now.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use crate::pool::{Backend, BackendId, Pool, PoolId, SkipReason, Snapshot};

/// Changes kept for all backends together: some 300 KiB.
const CHANGES_MAX: usize = 4096;

/// The standing of a backend: its weight, its tier, and why it gets no sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) weight: u16,
    pub(crate) priority: u8,
    /// The reason that keeps it out of service.
    pub(crate) refusal: Option<SkipReason>,
}

impl Standing {
    /// Returns the standing of a backend of `pool`.
    pub(crate) fn of(pool: &Pool, backend: &Backend) -> Self {
        let priority = pool.priority_of(backend);
        Self { weight: backend.weight(), priority, refusal: SkipReason::now(backend) }
    }
}

/// A backend's standing in an epoch and now; `None` when it was not in the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StandingChange {
    pub(crate) backend: BackendId,
    /// The id of the worker.
    pub(crate) name: String,
    /// Its standing in that epoch.
    pub(crate) then: Option<Standing>,
    pub(crate) now: Option<Standing>,
    /// When it last changed since that epoch, if it has.
    pub(crate) changed: Option<Timestamp>,
}

#[derive(Default)]
pub(crate) struct History {
    /// The standing in the latest epoch, by ascending id.
    now: Vec<(Arc<Backend>, Standing)>,
    changes: VecDeque<Change>,
    /// Before this epoch changes are missing.
    complete_since: u64,
}

struct Change {
    /// The first epoch in which the old standing no longer held.
    epoch: u64,
    when: Timestamp,
    pool: PoolId,
    backend: BackendId,
    /// The name of a backend that has left its pool.
    name: Option<Box<str>>,
    before: Option<Standing>,
}

impl History {
    /// Returns a history that begins with this epoch.
    pub(crate) fn new(first: &Snapshot) -> Self {
        let standing = |backend: &Arc<Backend>| Standing::of(first.pool(backend.pool), backend);
        let now = first.backends().map(|backend| (Arc::clone(backend), standing(backend)));
        Self { now: now.collect(), changes: VecDeque::new(), complete_since: first.epoch }
    }

    /// Records the old standing of every backend that changes with `next`, published at `when`.
    pub(crate) fn note(&mut self, next: &Snapshot, when: Timestamp) {
        let mut before = std::mem::take(&mut self.now).into_iter().peekable();
        let mut now = Vec::with_capacity(before.len());
        for backend in next.backends() {
            while let Some((gone, standing)) = before.next_if(|(old, _)| old.id.0 < backend.id.0) {
                self.push(next.epoch, when, &gone, Some(standing), true);
            }
            let known = before.next_if(|(old, _)| old.id == backend.id).map(|(_, standing)| standing);
            let standing = Standing::of(next.pool(backend.pool), backend);
            if known != Some(standing) {
                self.push(next.epoch, when, backend, known, false);
            }
            now.push((Arc::clone(backend), standing));
        }
        for (gone, standing) in before {
            self.push(next.epoch, when, &gone, Some(standing), true);
        }
        self.now = now;
    }

    fn push(
        &mut self,
        epoch: u64,
        when: Timestamp,
        backend: &Backend,
        before: Option<Standing>,
        has_left: bool,
    ) {
        if self.changes.len() == CHANGES_MAX
            && let Some(oldest) = self.changes.pop_front()
        {
            self.complete_since = oldest.epoch;
        }
        let name = has_left.then(|| backend.name.as_str().into());
        self.changes.push_back(Change { epoch, when, pool: backend.pool, backend: backend.id, name, before });
    }

    /// Returns the backends that `pool` had in `epoch` or has now, by id; `None` when that is no longer known.
    pub(crate) fn of(&self, pool: PoolId, epoch: u64) -> Option<Vec<StandingChange>> {
        if epoch < self.complete_since {
            return None;
        }
        let of_now =
            self.now.iter().filter(|(backend, _)| backend.pool == pool).map(|(backend, standing)| {
                let (then, now) = (Some(*standing), Some(*standing));
                (
                    backend.id.0,
                    StandingChange {
                        backend: backend.id,
                        name: backend.name.clone(),
                        then,
                        now,
                        changed: None,
                    },
                )
            });
        let mut all: BTreeMap<u32, StandingChange> = of_now.collect();
        let later = self.changes.iter().rev().take_while(|change| change.epoch > epoch);
        for change in later.filter(|change| change.pool == pool) {
            let name = || change.name.as_deref().unwrap_or_default().to_owned();
            let past = all.entry(change.backend.0).or_insert_with(|| StandingChange {
                backend: change.backend,
                name: name(),
                then: None,
                now: None,
                changed: None,
            });
            past.then = change.before;
            // The newest comes first.
            past.changed.get_or_insert(change.when);
        }
        Some(all.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides, model};
    use crate::pool::Admin;

    const POOL: PoolId = PoolId(0);

    fn snapshot() -> Snapshot {
        let text = "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nbackend = [\
            { name = \"a\", address = \"127.0.0.1:1\" }, { name = \"b\", address = \"127.0.0.1:2\", weight = 3 }]";
        let no_names = &mut |_: &str| Ok(Vec::new());
        Snapshot::new(&config::parse(text, "test", &Overrides::default(), no_names).expect("a good config"))
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("the timestamp is in range")
    }

    fn lines(history: &History, epoch: u64) -> Vec<String> {
        let words = |standing: Option<Standing>| match standing {
            None => "absent".to_owned(),
            Some(Standing { weight, priority: 0, refusal: None }) => weight.to_string(),
            Some(Standing { weight, priority, refusal: None }) => format!("{weight} in tier {priority}"),
            Some(Standing { weight, refusal: Some(refusal), .. }) => format!("{weight} {}", refusal.as_str()),
        };
        let past = history.of(POOL, epoch).expect("the epoch is known");
        past.iter()
            .map(|past| {
                let changed = past.changed.map(|when| format!(" at {}", when.as_second()));
                let (then, now) = (words(past.then), words(past.now));
                format!("{}: {then}, now {now}{}", past.name, changed.unwrap_or_default())
            })
            .collect()
    }

    #[test]
    fn each_epoch_is_shown_as_it_was_with_the_changes_since() {
        let first = snapshot();
        let mut history = History::new(&first);
        first.pool(POOL).backends[0].set_admin(Admin::Maint);
        let second_epoch = first.refreshed(&[POOL]);
        history.note(&second_epoch, second(1));
        first.pool(POOL).backends[0].set_admin(Admin::Ready);
        let third = second_epoch.refreshed(&[POOL]);
        history.note(&third, second(2));
        let backend = |name: &str, port| model::Backend {
            name: name.into(),
            address: ([127, 0, 0, 1], port).into(),
            weight: 1,
            priority: 0,
            check: model::BackendCheck::default(),
        };
        let tier_1 = model::Backend { priority: 1, ..backend("c", 3) };
        let fourth = third.with_backends(POOL, &[backend("a", 1), tier_1]);
        history.note(&fourth, second(3));
        history.note(&fourth.refreshed(&[]), second(4));
        assert_eq!(
            lines(&history, 0),
            ["a: 1, now 1 at 2", "b: 3, now absent at 3", "c: absent, now 1 in tier 1 at 3"]
        );
        assert_eq!(
            lines(&history, 1),
            ["a: 1 in maintenance, now 1 at 2", "b: 3, now absent at 3", "c: absent, now 1 in tier 1 at 3"]
        );
        assert_eq!(lines(&history, 2)[0], "a: 1, now 1");
        assert_eq!(lines(&history, 3), ["a: 1, now 1", "c: 1 in tier 1, now 1 in tier 1"]);
    }

    #[test]
    fn an_epoch_with_missing_changes_is_not_described() {
        let mut snapshot = snapshot();
        let mut history = History::new(&snapshot);
        for round in 0..=CHANGES_MAX {
            let admin = if round % 2 == 0 { Admin::Drain } else { Admin::Ready };
            snapshot.pool(POOL).backends[0].set_admin(admin);
            snapshot = snapshot.refreshed(&[POOL]);
            history.note(&snapshot, second(0));
        }
        assert_eq!(history.of(POOL, 0), None);
        assert_eq!(lines(&history, 1)[0], "a: 1 in drain, now 1 in drain at 0");
        assert_eq!(history.changes.len(), CHANGES_MAX);
    }
}
