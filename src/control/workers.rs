//! Every worker of the process: those that run, with their mailboxes, and the counters of all that ever ran. Readers
//! never delay a worker: none of them knows it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::messages::mailbox::Mailbox;
use crate::messages::report::WorkerId;
use crate::stats::{Totals, WorkerStats};

/// One worker that has not stopped.
#[derive(Clone)]
pub struct Member {
    /// Its id for the life of the process.
    pub id: WorkerId,
    /// Its index among the serving workers, present or past: a retiring worker and a serving one may share it.
    pub index: usize,
    /// The mailbox for its commands.
    pub mailbox: Mailbox,
    /// The counters, which stay when the worker stops.
    pub stats: Arc<WorkerStats>,
    /// Whether it is retiring: it finishes its sessions and stops.
    pub is_retiring: bool,
}

/// All workers. See the module.
#[derive(Default)]
pub struct Workers(Mutex<State>);

#[derive(Default)]
struct State {
    members: Arc<[Member]>,
    counters: Vec<Counters>,
    /// Ids are never reused.
    next_id: u32,
    /// Most sessions of all workers together.
    sessions_max: usize,
}

/// The counters of successive workers of one index, so that no count ever goes back. They have one writer at a time.
struct Counters {
    index: usize,
    stats: Arc<WorkerStats>,
    writer: Option<WorkerId>,
}

impl Workers {
    /// Returns the workers that have not stopped: serving ones by index, then retiring ones.
    pub fn members(&self) -> Arc<[Member]> {
        Arc::clone(&self.state().members)
    }

    /// Returns the counters of all workers, present and past, with their indices. An index may occur more than once.
    pub fn counters(&self) -> Vec<(usize, Arc<WorkerStats>)> {
        let state = self.state();
        state.counters.iter().map(|counters| (counters.index, Arc::clone(&counters.stats))).collect()
    }

    /// Returns the most sessions of all workers together.
    pub fn sessions_max(&self) -> usize {
        self.state().sessions_max
    }

    /// Sets the most sessions of all workers together.
    pub fn set_sessions_max(&self, sessions_max: usize) {
        self.state().sessions_max = sessions_max;
    }

    /// Returns the open sessions of all workers.
    pub fn sessions(&self) -> u64 {
        let counters = self.counters();
        Totals::of(counters.iter().map(|(_, stats)| stats.as_ref())).active()
    }

    /// Adds workers with these mailboxes, the first of them with index `first`. Workers with an index not below
    /// `serving` retire from now on. Returns the new ones.
    pub fn change(
        &self,
        serving: usize,
        first: usize,
        mailboxes: impl IntoIterator<Item = Mailbox>,
    ) -> Vec<Member> {
        let mut state = self.state();
        let new: Vec<Member> =
            mailboxes.into_iter().zip(first..).map(|(mailbox, index)| state.add(index, mailbox)).collect();
        let (mut serve, mut leave): (Vec<_>, Vec<_>) =
            state.members.iter().cloned().partition(|member| !member.is_retiring && member.index < serving);
        leave.iter_mut().for_each(|member| member.is_retiring = true);
        serve.extend(new.iter().cloned());
        serve.append(&mut leave);
        state.members = serve.into();
        new
    }

    /// Must be called when a worker has stopped. Its counters stay, and the next worker of its index continues them.
    pub fn on_stopped(&self, id: WorkerId) {
        let mut state = self.state();
        state.members = state.members.iter().filter(|member| member.id != id).cloned().collect();
        let its_own = state.counters.iter_mut().find(|counters| counters.writer == Some(id));
        if let Some(counters) = its_own {
            counters.writer = None;
        }
    }

    /// No code panics while it holds the lock, and its content is never half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, index: usize, mailbox: Mailbox) -> Member {
        let id = WorkerId(self.next_id);
        self.next_id = self.next_id.checked_add(1).expect("fewer than 2^32 workers in the life of a process");
        let is_free = |counters: &&mut Counters| counters.index == index && counters.writer.is_none();
        let stats = match self.counters.iter_mut().find(is_free) {
            Some(counters) => {
                counters.writer = Some(id);
                Arc::clone(&counters.stats)
            }
            None => {
                let stats = Arc::<WorkerStats>::default();
                self.counters.push(Counters { index, stats: Arc::clone(&stats), writer: Some(id) });
                stats
            }
        };
        Member { id, index, mailbox, stats, is_retiring: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Wake;

    struct NoWake;

    impl Wake for NoWake {
        fn wake(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn mailboxes(count: usize) -> Vec<Mailbox> {
        (0..count).map(|_| Mailbox::new(Arc::new(NoWake)).0).collect()
    }

    /// Returns ids and indices, with a `-` in front of retiring workers.
    fn roll(workers: &Workers) -> Vec<String> {
        let sign = |member: &Member| if member.is_retiring { "-" } else { "" };
        workers.members().iter().map(|m| format!("{}{}:{}", sign(m), m.id.0, m.index)).collect()
    }

    #[test]
    fn an_index_is_used_again_and_an_id_is_not() {
        let workers = Workers::default();
        workers.change(2, 0, mailboxes(2));
        assert_eq!(roll(&workers), ["0:0", "1:1"]);
        workers.change(1, 1, mailboxes(0));
        assert_eq!(roll(&workers), ["0:0", "-1:1"]);
        workers.change(3, 1, mailboxes(2));
        assert_eq!(roll(&workers), ["0:0", "2:1", "3:2", "-1:1"]);
        workers.on_stopped(WorkerId(1));
        assert_eq!(roll(&workers), ["0:0", "2:1", "3:2"]);
    }

    #[test]
    fn counters_continue_with_the_next_worker_and_never_have_two_writers() {
        let workers = Workers::default();
        let first = workers.change(1, 0, mailboxes(1)).remove(0);
        first.stats.accepted.add(7);
        workers.change(0, 0, mailboxes(0));
        let meanwhile = workers.change(1, 0, mailboxes(1)).remove(0);
        assert!(!Arc::ptr_eq(&first.stats, &meanwhile.stats), "the first one still counts");
        workers.change(0, 0, mailboxes(0));
        workers.on_stopped(first.id);
        let next = workers.change(1, 0, mailboxes(1)).remove(0);
        assert!(Arc::ptr_eq(&first.stats, &next.stats));
        let accepted: u64 = workers.counters().iter().map(|(_, stats)| stats.accepted.get()).sum();
        assert_eq!((workers.counters().len(), accepted), (2, 7));
    }
}
