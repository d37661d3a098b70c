//! The agents that this worker asks: those of the backends that belong to it in its epoch. A removed backend leaves
//! nothing behind: no socket, no timer, no place in the queue.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::{Agents, DEFERRAL_LOG_PERIOD, Entry, Pace, Queue, Reported};
use crate::base::time::Instant;
use crate::base::token_bucket::TokenBucket;
use crate::config::agent::Agent;
use crate::config::fd_budget::agents_max;
use crate::health;
use crate::pool::{Advice, Backend, BackendId, Snapshot};
use crate::sys::Kernel;
use crate::worker::core::{Core, Timer};
use crate::worker::probes::conversation::index_of;

/// What is known of an agent that is asked no more by these settings.
struct Asked {
    agent: Arc<Agent>,
    answered_at: Instant,
    reported: Reported,
    sent: Advice,
}

impl<K: Kernel> Agents<K> {
    /// Those of the worker in its first epoch; it does `checks_max` checks at a time.
    pub(in crate::worker) fn new(core: &mut Core<K>, checks_max: usize) -> Self {
        let mut agents = Self {
            worker: Some(core.index),
            workers: core.mailboxes.len(),
            is_reassigned: false,
            entries: Slab::new(),
            by_backend: HashMap::new(),
            generation: 0,
            queue: Queue::new(agents_max(checks_max)),
            deferral_log: TokenBucket::new(1, DEFERRAL_LOG_PERIOD, core.now),
        };
        agents.add_new(core, &HashMap::new());
        agents
    }

    /// Makes this `worker`, or none, of `workers`, which does `checks_max` checks at a time, from the next epoch on.
    pub(in crate::worker) fn assign(&mut self, worker: Option<usize>, workers: usize, checks_max: usize) {
        self.is_reassigned = (self.worker, self.workers) != (worker, workers);
        (self.worker, self.workers) = (worker, workers);
        self.queue.limit(agents_max(checks_max));
    }

    fn is_mine(&self, backend: &Backend) -> bool {
        self.worker == Some(backend.id.owner(self.workers))
    }

    /// Begins to ask the agents of this worker that are not asked yet, each within one interval.
    /// How long one has been silent does not change with other settings, if `before` has asked it in the same way.
    fn add_new(&mut self, core: &mut Core<K>, before: &HashMap<BackendId, Asked>) {
        let &mut Core { ref snapshot, ref mut wheel, ref mut rng, now, .. } = core;
        for pool in &snapshot.pools {
            let Some(agent) = &pool.settings.agent else { continue };
            let agent = Arc::new(agent.clone());
            for backend in &pool.backends {
                if !self.is_mine(backend) || self.by_backend.contains_key(&backend.id) {
                    continue;
                }
                let same = before.get(&backend.id).filter(|asked| asked.agent.asks_as(&agent));
                let place = self.entries.vacant_entry();
                let index = index_of(place.key());
                let first = now + health::part_of(agent.interval, rng);
                place.insert(Entry {
                    backend: Arc::clone(backend),
                    target: health::agent_target(&agent, &backend.address),
                    agent: Arc::clone(&agent),
                    attempt: None,
                    timer: Some((wheel.arm(first, Timer::Agent(index)), first)),
                    started: now,
                    answered_at: same.map_or(now, |asked| asked.answered_at),
                    reported: same.map_or(Reported::Nothing, |asked| asked.reported.clone()),
                    sent: same.map_or(Advice::NONE, |asked| asked.sent),
                    unsent: Advice::NONE,
                    // Unknown yet: a thousand new ones may all be silent.
                    pace: Pace::Slow,
                    is_waiting: false,
                    is_forgotten: false,
                });
                self.by_backend.insert(backend.id, index);
            }
        }
    }

    /// Aligns the agents with the epoch that has followed `before`.
    pub(in crate::worker) fn align(&mut self, core: &mut Core<K>, before: &Snapshot) {
        let is_reassigned = std::mem::take(&mut self.is_reassigned);
        if is_reassigned || !core.snapshot.shares_backends(before) {
            let before = self.drop_removed(core);
            self.add_new(core, &before);
        }
    }

    /// Forgets the agents of backends that are in no pool any more or belong to another worker now, and those that are
    /// asked in another way.
    /// Returns what is known of those that have gone.
    fn drop_removed(&mut self, core: &mut Core<K>) -> HashMap<BackendId, Asked> {
        let mut asked = HashMap::new();
        let snapshot = Arc::clone(&core.snapshot);
        let is_kept = |entry: &Entry<K>| {
            self.is_mine(&entry.backend)
                && snapshot.backend(entry.backend.id).is_some()
                && snapshot.pool(entry.backend.pool).settings.agent.as_ref() == Some(&*entry.agent)
        };
        // In the order of their places: that of the map differs from run to run.
        let gone = self.entries.iter().filter(|(_, entry)| !is_kept(entry)).map(|(place, _)| index_of(place));
        for index in gone.collect::<Vec<u32>>() {
            self.end_attempt(core, index);
            let entry = self.entries.remove(index as usize);
            self.by_backend.remove(&entry.backend.id);
            if let Some((timer, _)) = entry.timer {
                core.wheel.cancel(timer);
            }
            let Entry { backend, agent, answered_at, reported, sent, .. } = entry;
            asked.insert(backend.id, Asked { agent, answered_at, reported, sent });
        }
        let Agents { entries, queue, .. } = self;
        queue.retain(|index| entries.contains(index as usize));
        asked
    }

    /// Returns how many sockets and timers the exchanges hold.
    pub(in crate::worker) fn held(&self) -> (usize, usize) {
        let count = |wanted: fn(&Entry<K>) -> bool| self.entries.iter().filter(|(_, e)| wanted(e)).count();
        let (attempts, timers) =
            (count(|entry| entry.attempt.is_some()), count(|entry| entry.timer.is_some()));
        assert_eq!(
            count(|entry| entry.is_waiting),
            self.queue.len(),
            "each agent that waits is in the queue once"
        );
        let is_awaited = |entry: &Entry<K>| entry.timer.is_some() || entry.is_waiting;
        assert!(self.entries.iter().all(|(_, entry)| is_awaited(entry)), "each agent has a timer, or waits");
        assert_eq!(self.by_backend.len(), self.entries.len(), "each agent is found by its backend");
        let is_own = |(_, entry): (usize, &Entry<K>)| self.is_reassigned || self.is_mine(&entry.backend);
        assert!(self.entries.iter().all(is_own), "each agent is asked by the worker of its backend");
        let of = |pace| self.entries.iter().filter(|(_, e)| e.attempt.is_some() && e.pace == pace).count();
        self.queue.audit([of(Pace::Prompt), of(Pace::Slow)]);
        (attempts, timers)
    }
}
