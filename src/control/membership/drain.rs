//! Removed backends and their remaining sessions: they finish, or they are cut.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::base::address::Address;
use crate::base::time::Instant;
use crate::config::model::OnRemove;
use crate::control::control_loop::{ControlLoop, RETRY_INTERVAL};
use crate::control::membership::notes::{Note, Removed};
use crate::control::membership::origin::{Origin, Registration};
use crate::messages::command::Command;
use crate::pool::{Admin, Advice, Backend, BackendId, Pool, PoolId, Snapshot};

impl ControlLoop {
    /// Records the backends of `before` that are in no pool any more.
    pub(in crate::control) fn note_removed(&mut self, before: &Snapshot) {
        let now = self.clock.now();
        let snapshot = Arc::clone(&self.control.snapshot);
        let mut addresses_of: HashMap<PoolId, HashSet<&Address>> = HashMap::new();
        let mut gone: HashMap<(PoolId, &Address), Option<Instant>> = HashMap::new();
        for backend in before.backends().filter(|backend| snapshot.backend(backend.id).is_none()) {
            let old = before.pool(backend.pool);
            // A pool that still exists may have another policy by now.
            let still_there = snapshot.pools.iter().find(|pool| pool.id == old.id);
            let admin = backend.operator_admin();
            if still_there.is_some() {
                // Not even by a worker that has yet to read its mailbox. The listeners of a removed pool may outlive
                // it.
                backend.set_admin(Admin::Drain);
            }
            let pool = still_there.unwrap_or(old);
            let (name, policy) = (&pool.settings.name, pool.settings.on_remove);
            // The server is still there, under another name: its sessions end by themselves.
            let is_renamed = still_there.is_some_and(|pool| is_at(&mut addresses_of, pool, &backend.address));
            let deadline = match policy {
                OnRemove::Drain | OnRemove::Keep | OnRemove::Reset if is_renamed => None,
                OnRemove::Drain => Some(now + pool.settings.drain_timeout),
                OnRemove::Keep => None,
                OnRemove::Reset => Some(now),
            };
            if !is_renamed {
                gone.insert((backend.pool, &backend.address), deadline);
            }
            log::info!(
                pool:% = name, backend:% = backend.name, address:% = backend.address,
                on_remove:% = if is_renamed { OnRemove::Keep } else { policy }.as_str(), sessions = backend.active();
                "backend removed"
            );
            self.removed.push(Removed {
                pool: name.clone(),
                backend: Arc::clone(backend),
                since: now,
                deadline,
                sessions_at_start: backend.active(),
                next_cut: deadline,
                admin,
                is_renamed,
                note: self.control.view.state().notes.get(&backend.id).cloned().unwrap_or_default(),
                lease: None,
            });
        }
        // Sessions from the time of another name go with the server, and stay where it is back.
        for entry in self.removed.iter_mut().filter(|entry| entry.is_renamed) {
            let (pool, address) = (entry.backend.pool, &entry.backend.address);
            if let Some(&deadline) = gone.get(&(pool, address)) {
                (entry.deadline, entry.next_cut) = (deadline, deadline);
            } else if entry.deadline.is_some()
                && let Some(pool) = snapshot.pools.iter().find(|known| known.id == pool)
                && is_at(&mut addresses_of, pool, address)
            {
                (entry.deadline, entry.next_cut) = (None, None);
            }
        }
    }

    /// Records that the end of a lease has removed the backend.
    pub(in crate::control) fn remember_lease(&mut self, id: BackendId, registration: Arc<Registration>) {
        if let Some(entry) = self.removed.iter_mut().rfind(|entry| entry.backend.id == id) {
            entry.lease = Some(registration);
        }
    }

    /// Takes the wanted backends off the list of removed ones, to return to a pool as if they had never left it: their
    /// sessions are not cut.
    pub(in crate::control) fn take_returning(
        &mut self,
        is_wanted: impl Fn(&Removed) -> bool,
    ) -> Vec<Removed> {
        let back: Vec<Removed> = self.removed.extract_if(.., |entry| is_wanted(entry)).collect();
        for removed in &back {
            let Removed { backend, pool, .. } = removed;
            log::info!(
                pool:%, backend:% = backend.name, address:% = backend.address, sessions = backend.active();
                "a removed backend is back"
            );
            removed.overrides().put_on(backend);
            // Its agent is asked anew.
            backend.set_agent(Advice::NONE, false);
        }
        if !back.is_empty() {
            self.control.view.state().removed.clone_from(&self.removed);
        }
        back
    }

    /// Restores the facts about returning backends.
    pub(in crate::control) fn remember_notes(&self, back: &[Removed]) {
        let mut state = self.control.view.state();
        for Removed { backend, note, lease, .. } in back {
            let leaving = note.leaving.filter(|_| lease.is_some());
            let note = Note { leaving, origin: Origin::default(), agent: None, ..note.clone() };
            state.notes.insert(backend.id, note);
        }
    }

    /// Cuts the sessions of backends at their deadline, and forgets backends without sessions.
    pub(in crate::control) fn check_removed(&mut self) {
        if self.removed.is_empty() {
            return;
        }
        let (now, everybody_knows) = (self.clock.now(), !self.is_any_behind());
        let mut removed = std::mem::take(&mut self.removed);
        let is_findable =
            |backend: &Backend| self.control.snapshot.retired().iter().any(|pool| pool.id == backend.pool);
        removed.retain_mut(|entry| {
            let is_due = entry.next_cut.is_some_and(|next| next <= now);
            if is_due && entry.sessions() > 0 {
                // A worker that does not know of the removal would give it more sessions after the cut.
                if everybody_knows {
                    // A worker with a full mailbox gets the command again later.
                    self.post_to_all(&Command::CutBackend(entry.backend.id));
                }
                entry.next_cut = Some(now + RETRY_INTERVAL);
            }
            // A client in the queue of a listener may still be assigned to a pool that was removed with it.
            let is_over = everybody_knows && entry.sessions() == 0 && !is_findable(&entry.backend);
            if is_over {
                let (pool, backend) = (&entry.pool, &entry.backend);
                let (since, at_start) = (now - entry.since, entry.sessions_at_start);
                log::info!(
                    pool:%, backend:% = backend.name, address:% = backend.address, after:? = since, sessions = at_start;
                    "the last session of a removed backend is over"
                );
            }
            !is_over
        });
        self.control.view.state().removed.clone_from(&removed);
        self.removed = removed;
    }

    pub(in crate::control) fn next_cut(&self) -> Option<Instant> {
        let waiting = self.removed.iter().filter(|entry| entry.sessions() > 0);
        waiting.filter_map(|entry| entry.next_cut).min()
    }
}

/// Returns whether `pool` has a backend at that address; its addresses are noted in `known`.
fn is_at<'s>(known: &mut HashMap<PoolId, HashSet<&'s Address>>, pool: &'s Pool, address: &Address) -> bool {
    let addresses = || pool.backends.iter().map(|backend| &backend.address).collect();
    known.entry(pool.id).or_insert_with(addresses).contains(address)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::tests::{config, control, mailbox};
    use crate::pool::Lease;

    const POOL: PoolId = PoolId(0);

    /// Returns a control thread that has removed `b` of `a` and `b` with `sessions` sessions on it.
    fn removes(keys: &str, sessions: u32) -> (ControlLoop, std::sync::mpsc::Receiver<Command>, Vec<Lease>) {
        let (mailbox, inbox) = mailbox();
        let mut work = ControlLoop::new(control(Snapshot::new(&config(keys)), &[mailbox]));
        let pool = Arc::clone(work.control.snapshot.pool(POOL));
        let leases = (0..sessions).map(|_| pool.backends[1].lease(0)).collect();
        let next = work.control.snapshot.with_backends(POOL, &pool.settings.backends[..1]);
        work.replace_snapshot(Arc::new(next));
        (work, inbox, leases)
    }

    fn cuts(inbox: &std::sync::mpsc::Receiver<Command>) -> usize {
        inbox.try_iter().filter(|command| matches!(command, Command::CutBackend(_))).count()
    }

    #[test]
    fn a_backend_that_was_removed_is_not_chosen_by_the_old_tables_either() {
        let (work, _inbox, _leases) = removes("", 0);
        assert!(!work.removed[0].backend.admits());
        let (mailbox, _inbox) = mailbox();
        let mut work = ControlLoop::new(control(Snapshot::new(&config("")), &[mailbox]));
        let another = config("name = \"another\"");
        work.replace_snapshot(Arc::new(work.control.snapshot.reconfigured(&another)));
        assert!(
            work.removed.iter().all(|removed| removed.backend.admits()),
            "for connections that are still queued"
        );
        assert_eq!(work.removed.len(), 2);
    }

    #[test]
    fn no_session_is_cut_before_every_worker_knows_that_the_backend_is_removed() {
        let (mut work, inbox, _leases) = removes("on_remove = \"reset\"", 2);
        work.check_removed();
        assert_eq!((cuts(&inbox), work.removed.len()), (0, 1), "the epoch is not posted yet");
        work.removed[0].next_cut = work.removed[0].deadline;
        work.publish();
        work.check_removed();
        assert_eq!((cuts(&inbox), work.removed.len()), (1, 1));
        work.check_removed();
        assert_eq!(cuts(&inbox), 0, "the command is on its way");
        work.removed[0].next_cut = work.removed[0].deadline;
        work.check_removed();
        assert_eq!(cuts(&inbox), 1, "and may have met not all of them");
    }

    #[test]
    fn a_backend_is_forgotten_with_its_last_session() {
        for keys in ["on_remove = \"keep\"", "on_remove = \"drain\"\ndrain_timeout = \"1h\""] {
            let (mut work, inbox, mut leases) = removes(keys, 2);
            work.publish();
            leases.pop();
            work.check_removed();
            assert_eq!((work.removed.len(), work.removed[0].sessions()), (1, 1), "{keys}");
            leases.pop();
            work.check_removed();
            assert_eq!((work.removed.len(), cuts(&inbox)), (0, 0), "{keys}");
        }
    }

    #[test]
    fn the_time_until_the_drain_ends_is_estimated() {
        let keys = "drain_timeout = \"60s\"";
        let (work, _inbox, mut leases) = removes(keys, 4);
        let entry = &work.removed[0];
        let eta = |entry: &Removed, now| entry.leaving().eta(entry.sessions().into(), now);
        let later = |seconds| entry.since + Duration::from_secs(seconds);
        assert_eq!(eta(entry, later(10)), Some(Duration::from_secs(50)), "until the deadline");
        leases.pop();
        assert_eq!(eta(entry, later(10)), Some(Duration::from_secs(30)), "three more at this rate");
        assert_eq!(eta(entry, later(50)), Some(Duration::from_secs(10)), "but not for longer than that");
        let (work, _inbox, leases) = removes("on_remove = \"keep\"", 1);
        assert_eq!(eta(&work.removed[0], work.removed[0].since), None, "none has ended yet");
        drop(leases);
        assert_eq!(eta(&work.removed[0], later(10)), Some(Duration::ZERO));
    }
}
