//! The backends that this worker checks: those that belong to it in its epoch, except during maintenance. A removed
//! backend leaves nothing behind: no socket, no timer, no place in the queue.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::conversation::index_of;
use super::{DEFERRAL_LOG_PERIOD, Entry, Pace, Probes, Queue, Results};
use crate::base::address::Address;
use crate::base::token_bucket::TokenBucket;
use crate::config::model::{BackendCheck, Check, OneCheck};
use crate::health::{self, Cause, Probe, Timing, Verdict};
use crate::messages::report::CheckedBy;
use crate::pool::{Admin, Backend, Pool, Snapshot};
use crate::sys::Kernel;
use crate::worker::core::{Core, Timer};

impl<K: Kernel> Probes<K> {
    /// Those of the worker in its first epoch; `checks_max` at a time.
    pub(in crate::worker) fn new(core: &mut Core<K>, checks_max: usize) -> Self {
        let mut probes = Self {
            worker: Some(core.index),
            workers: core.mailboxes.len(),
            is_reassigned: false,
            entries: Slab::new(),
            by_backend: HashMap::new(),
            generation: 0,
            queue: Queue::new(checks_max),
            postponed: VecDeque::new(),
            deferral_log: TokenBucket::new(1, DEFERRAL_LOG_PERIOD, core.now),
        };
        probes.add_new(core);
        probes
    }

    /// Makes this `worker`, or none, of `workers`, from the next epoch on.
    pub(in crate::worker) fn assign(&mut self, worker: Option<usize>, workers: usize) {
        self.is_reassigned = (self.worker, self.workers) != (worker, workers);
        (self.worker, self.workers) = (worker, workers);
    }

    fn is_mine(&self, backend: &Backend) -> bool {
        self.worker == Some(backend.id.owner(self.workers))
    }

    /// Begins to check the backends of this worker that are not checked yet, each within one interval.
    fn add_new(&mut self, core: &mut Core<K>) {
        let &mut Core { ref snapshot, ref mut wheel, ref mut rng, now, .. } = core;
        for (backend, Pool { settings: pool, checks, .. }, own) in checked_backends(snapshot) {
            let checks = *checks;
            let is_mine = self.is_mine(backend) && pool.health.check != Check::Off;
            if !is_mine || self.by_backend.contains_key(&backend.id) {
                continue;
            }
            let place = self.entries.vacant_entry();
            let index = index_of(place.key());
            let timing = Timing::new(&pool.health, &own);
            let first = now + health::first_delay(&timing, rng);
            let (rise, fall) = (pool.health.rise, pool.health.fall);
            place.insert(Entry {
                backend: Arc::clone(backend),
                pool: Arc::clone(pool),
                by: CheckedBy { checks, own },
                timing,
                turn: 0,
                results: Results::default(),
                // It may have been checked before, in another way or by another worker.
                verdict: Verdict::new(backend.checked_health(), rise, fall),
                attempt: None,
                awaited: None,
                timer: Some((wheel.arm(first, Timer::Probe(index)), first)),
                due: now,
                started: now,
                began: now,
                spent: Duration::ZERO,
                limit: timing.timeout,
                // Unknown yet: a thousand new ones may all be silent.
                pace: Pace::Slow,
            });
            self.by_backend.insert(backend.id, index);
        }
    }

    /// Returns how many sockets and timers the checks hold.
    pub(in crate::worker) fn held(&self) -> (usize, usize) {
        let count = |wanted: fn(&Entry<K>) -> bool| self.entries.iter().filter(|(_, e)| wanted(e)).count();
        let (attempts, timers) =
            (count(|entry| entry.attempt.is_some()), count(|entry| entry.timer.is_some()));
        assert_eq!(timers + self.queue.len(), self.entries.len(), "each probe has a timer, or waits");
        assert_eq!(self.by_backend.len(), self.entries.len(), "each probe is found by its backend");
        (attempts, timers)
    }

    /// Panics unless the places are assigned as they should be at the end of a turn; returns how many checks wait, and
    /// how many slow ones have a place.
    pub(in crate::worker) fn audit_places(&self) -> [usize; 2] {
        let of = |pace| self.entries.iter().filter(|(_, e)| e.attempt.is_some() && e.pace == pace).count();
        let slow = of(Pace::Slow);
        self.queue.audit([of(Pace::Prompt), slow]);
        [self.queue.len(), slow]
    }
}

impl<K: Kernel> Entry<K> {
    /// Returns whether `snapshot`, which contains its backend with the settings `own`, has the same check settings as
    /// the epoch in which its checks began, and no other ones in between: their results were forgotten.
    fn is_checked_by(&self, snapshot: &Snapshot, own: BackendCheck) -> bool {
        self.by == CheckedBy { checks: snapshot.pool(self.backend.pool).checks, own }
    }

    /// Returns the next check, and the address to dial for it; `None` when there is nothing to check.
    pub(super) fn probe(&self) -> Option<(Probe, Address)> {
        let OneCheck { check, port, .. } = self.pool.health.checks().nth(self.turn)?;
        let target = health::target(port, &self.by.own, &self.backend.address);
        Some((Probe::new(check, &target)?, target))
    }

    /// Returns how long a check with a result may wait for the backend to close: one timeout for all of a round.
    pub(super) fn parting_max(&self) -> Duration {
        let checks = self.pool.health.checks().count();
        self.timing.timeout / u32::try_from(checks).unwrap_or(u32::MAX)
    }

    /// Returns the cause of a failure of the present check as it is reported.
    pub(super) fn judged(&self, cause: Cause) -> Cause {
        let secrets: &[_] = self.pool.health.checks().nth(self.turn).map_or(&[], |check| check.secrets);
        self.timing.judged(cause.hiding(secrets), self.limit)
    }

    /// Returns the name of the next check as reasons have it, if its pool has several; and whether it is the last one.
    pub(super) fn name_and_rank(&self) -> (String, bool) {
        let mut rest = self.pool.health.checks().skip(self.turn);
        let name = rest.next().and_then(|check| check.name).map(|name| format!(" {name:?}"));
        (name.unwrap_or_default(), rest.next().is_none())
    }

    /// Returns whether a check is under way.
    pub(super) fn is_under_way(&self) -> bool {
        self.attempt.is_some() || self.awaited.is_some()
    }

    /// Returns whether checks make no sense: the backend is in maintenance, or has no address, and keeps its health.
    pub(super) fn is_paused(&self) -> bool {
        self.backend.admin() == Admin::Maint || !self.backend.is_resolved()
    }
}

impl<K: Kernel> Probes<K> {
    /// Aligns the checks with the epoch that has followed `before`.
    pub(in crate::worker) fn align(&mut self, core: &mut Core<K>, before: &Snapshot) {
        let is_reassigned = std::mem::take(&mut self.is_reassigned);
        if is_reassigned || !core.snapshot.shares_backends(before) {
            self.drop_removed(core);
            self.add_new(core);
        }
        let to_pause = self.probes_where(|entry| entry.is_under_way() && entry.is_paused());
        to_pause.into_iter().for_each(|index| self.pause_probe(core, index));
    }

    /// Ends the check in progress and schedules the next one early, so that checks resume soon after the maintenance.
    pub(super) fn pause_probe(&mut self, core: &mut Core<K>, index: u32) {
        self.end_attempt(core, index);
        let entry = &mut self.entries[index as usize];
        entry.turn = 0;
        let delay = health::next_delay(&entry.timing, true, &mut core.rng);
        let when = core.now + delay;
        self.arm_probe(core, index, when);
    }

    /// Forgets the backends that are in no pool any more, belong to another worker now or are checked in another way,
    /// and gives the others the settings of this epoch.
    fn drop_removed(&mut self, core: &mut Core<K>) {
        let snapshot = Arc::clone(&core.snapshot);
        let special = checked_backends(&snapshot).filter(|(.., own)| *own != BackendCheck::default());
        let special: HashMap<_, _> = special.map(|(backend, _, own)| (backend.id, own)).collect();
        let is_kept = |entry: &Entry<K>| {
            self.is_mine(&entry.backend)
                && snapshot.backend(entry.backend.id).is_some()
                && entry.is_checked_by(&snapshot, special.get(&entry.backend.id).copied().unwrap_or_default())
        };
        for index in self.probes_where(|entry| !is_kept(entry)) {
            self.end_attempt(core, index);
            self.trust_unchecked(core, index, &snapshot);
            let entry = self.entries.remove(index as usize);
            let own = special.get(&entry.backend.id).copied().unwrap_or_default();
            // Of one that only moves to another worker it stays: the metric would be gone until the next check, or for
            // longer where that worker has checked already.
            if snapshot.backend(entry.backend.id).is_none() || !entry.is_checked_by(&snapshot, own) {
                entry.backend.stats.certificate_not_after.set(0);
            }
            self.by_backend.remove(&entry.backend.id);
            if let Some((timer, _)) = entry.timer {
                core.wheel.cancel(timer);
            }
        }
        let Probes { entries, queue, .. } = self;
        queue.retain(|index| entries.contains(index as usize));
        for (_, entry) in entries {
            // Settings of an older epoch would keep all its backends alive.
            entry.pool = Arc::clone(&snapshot.pool(entry.backend.pool).settings);
        }
    }

    /// Resets a backend that is no longer checked to the initial state of its pool: nothing else would ever bring it up
    /// again.
    fn trust_unchecked(&mut self, core: &mut Core<K>, index: u32, snapshot: &Snapshot) {
        let backend = &self.entries[index as usize].backend;
        if snapshot.backend(backend.id).is_none() {
            return;
        }
        let health = &snapshot.pool(backend.pool).settings.health;
        let (from, to) = (backend.checked_health(), health.initial_state);
        if health.check == Check::Off && from != to {
            self.on_transition(core, index, from, to, "checks are off".into());
        }
    }

    fn probes_where(&self, is_wanted: impl Fn(&Entry<K>) -> bool) -> Vec<u32> {
        let wanted = self.entries.iter().filter(|(_, entry)| is_wanted(entry));
        wanted.map(|(place, _)| index_of(place)).collect()
    }
}

/// Returns the backends of all pools, each with the settings of its pool and what is special about its checks.
fn checked_backends(snapshot: &Snapshot) -> impl Iterator<Item = (&Arc<Backend>, &Pool, BackendCheck)> {
    snapshot.pools.iter().flat_map(|pool| {
        let settings = pool.settings.backends.iter().map(|backend| backend.check);
        pool.backends.iter().zip(settings).map(|(backend, own)| (backend, &**pool, own))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides};
    use crate::messages::command::Command;
    use crate::messages::report::{Reports, WorkerId};
    use crate::pool::PoolId;
    use crate::sys::Linux;
    use crate::worker::{Admission, Assignment, Peers, Shared, Worker, WorkerHandle};

    const POOL: PoolId = PoolId(0);

    /// A worker that would check backends `a` and `b` in its first turn, which never comes.
    fn worker() -> Worker<Linux> {
        let text = "[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nbackend = [\
             { name = \"a\", address = \"127.0.0.1:1\" }, { name = \"b\", address = \"127.0.0.1:2\" }]\n";
        let no_names = &mut |_: &str| Ok(Vec::new());
        let config = config::parse(text, "test", &Overrides::default(), no_names).unwrap();
        let kernel = Linux::new().unwrap();
        let (handle, endpoints) = WorkerHandle::new(0, &kernel.waker());
        let shared = Shared {
            id: WorkerId(0),
            reports: Reports::new().0,
            admission: Arc::new(Admission::new(1)),
            stats: Arc::default(),
            seed: 1,
        };
        let assignment = Assignment {
            epoch: 0,
            listeners: Vec::new(),
            peers: Peers::of([&handle]),
            checks_max: 0,
            pipes_max: 0,
            pipe_len: 0,
            ticket: Arc::default(),
        };
        Worker::new(kernel, endpoints, assignment, Arc::new(Snapshot::new(&config)), shared)
    }

    impl Worker<Linux> {
        fn runs(&mut self, snapshot: Snapshot) {
            assert!(self.core.mailboxes[0].post(Command::Publish(Arc::new(snapshot))));
            self.read_mailbox();
            self.audit();
        }

        /// As if its timer had fired while the most checks were in flight.
        fn waits(&mut self, index: u32) {
            let (timer, _) = self.probes.entries[index as usize].timer.unwrap();
            self.core.wheel.cancel(timer);
            self.probes.on_timer(&mut self.core, index);
            assert_eq!(self.probes.queue.len(), 1);
        }
    }

    #[test]
    fn a_removed_backend_leaves_the_queue_to_its_successor() {
        let mut worker = worker();
        worker.waits(0);
        let both = worker.core.snapshot.pool(POOL).settings.backends.clone();
        let without = worker.core.snapshot.with_backends(POOL, &both[1..]);
        let again = without.with_backends(POOL, &both);
        worker.runs(without);
        assert_eq!(worker.probes.queue.len(), 0);
        worker.runs(again);
        let names: Vec<&str> =
            worker.probes.entries.iter().map(|(_, entry)| entry.backend.name.as_str()).collect();
        assert_eq!(names, ["a", "b"], "the place is used again, or this test shows nothing");
        assert!(worker.probes.queue.len() == 0 && worker.probes.entries[0].timer.is_some());
    }

    #[test]
    fn a_probe_keeps_no_settings_of_an_older_epoch() {
        let mut worker = worker();
        let both = worker.core.snapshot.pool(POOL).settings.backends.clone();
        let without = worker.core.snapshot.with_backends(POOL, &both[..1]);
        worker.runs(without);
        let settings = &worker.core.snapshot.pool(POOL).settings;
        assert!(worker.probes.entries.iter().all(|(_, entry)| Arc::ptr_eq(&entry.pool, settings)));
    }

    #[test]
    fn a_certificate_is_known_until_other_checks_show_another_whoever_runs_them() {
        let mut worker = worker();
        let backends = worker.core.snapshot.pool(POOL).backends.clone();
        let end = |backend: &Backend| backend.stats.certificate_not_after.get();
        backends.iter().for_each(|backend| backend.stats.certificate_not_after.set(7));
        // All of them move to another worker.
        worker.probes.assign(None, 2);
        let next = worker.core.snapshot.refreshed(&[POOL]);
        worker.runs(next);
        assert_eq!(worker.probes.entries.len(), 0);
        assert_eq!(backends.iter().map(|backend| end(backend)).collect::<Vec<_>>(), [7, 7]);
        worker.probes.assign(Some(0), 1);
        let next = worker.core.snapshot.refreshed(&[POOL]);
        worker.runs(next);
        let settings = worker.core.snapshot.pool(POOL).settings.backends.clone();
        let without = worker.core.snapshot.with_backends(POOL, &settings[1..]);
        worker.runs(without);
        assert_eq!(backends.iter().map(|backend| end(backend)).collect::<Vec<_>>(), [0, 7]);
    }

    #[test]
    fn new_tables_alone_touch_no_check() {
        let mut worker = worker();
        let timers = |worker: &Worker<Linux>| {
            worker.probes.entries.iter().map(|(_, entry)| entry.timer).collect::<Vec<_>>()
        };
        let before = timers(&worker);
        let next = worker.core.snapshot.refreshed(&[POOL]);
        worker.runs(next);
        assert_eq!(timers(&worker), before);
    }
}
