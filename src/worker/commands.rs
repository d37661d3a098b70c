//! Takes commands from the mailbox.

use std::sync::Arc;

use crate::base::slots::Key;
use crate::messages::command::{Command, StopReason};
use crate::messages::mailbox::MAILBOX_LEN;
use crate::pool::{BackendId, Snapshot};
use crate::session::CloseReason;
use crate::sys::Kernel;
use crate::worker::Worker;

/// Commands taken in one turn. Fewer, and the rest might wait for ever: their wakes are over.
const COMMANDS_PER_TURN: usize = MAILBOX_LEN;

impl<K: Kernel> Worker<K> {
    pub(super) fn read_mailbox(&mut self) {
        for _ in 0..COMMANDS_PER_TURN {
            let Ok(command) = self.inbox.try_recv() else { return };
            self.apply(command);
        }
    }

    fn apply(&mut self, command: Command) {
        match command {
            Command::Publish(snapshot) => self.run_epoch(snapshot),
            Command::DialFailed(backend) => self.on_dials_failed(backend),
            Command::CutBackend(backend) => self.cut_backend(backend),
            Command::Ask(query, reply) => reply.give(self.answer(query)),
            Command::Drain => self.drain_listeners(),
            Command::Stop(StopReason::DrainTimeout) => self.stop(CloseReason::DrainTimeout),
            Command::Stop(StopReason::AtOnce) => self.stop(CloseReason::Stopped),
            Command::Wake => {}
        }
    }

    /// Goes on with `snapshot`, unless what it runs is as new: who has handed a session over may have brought it.
    pub(super) fn run_epoch(&mut self, snapshot: Arc<Snapshot>) {
        if snapshot.epoch <= self.snapshot.epoch {
            return;
        }
        let before = std::mem::replace(&mut self.snapshot, snapshot);
        self.tables.replaced(&before, &self.snapshot);
        for listener in self.listeners.iter_mut() {
            listener.align(&self.snapshot);
        }
        self.take_assignment();
        self.align_probes(&before);
    }

    fn stop(&mut self, reason: CloseReason) {
        self.dispatcher.close_handoff_queue();
        self.stopping = Some(reason);
        for index in self.listeners.places() {
            self.stop_listening(index);
        }
    }

    /// Ends what is on a backend that was removed. Looks at every session: backends are removed rarely.
    fn cut_backend(&mut self, backend: BackendId) {
        for key in self.sessions_on(backend) {
            if self.sessions.get(key).is_some_and(|slot| slot.session.is_dialing()) {
                self.dial_another(key);
            } else {
                self.cut(key, CloseReason::BackendRemoved);
            }
        }
    }

    pub(super) fn sessions_on(&self, backend: BackendId) -> Vec<Key> {
        let is_on_it = |key: &Key| {
            let lease = self.sessions.get(*key).and_then(|slot| slot.lease.as_ref());
            lease.is_some_and(|lease| lease.backend().id == backend)
        };
        self.sessions.keys().filter(is_on_it).collect()
    }

    pub(super) fn cut_all(&mut self, reason: CloseReason) {
        for key in self.sessions.keys().collect::<Vec<Key>>() {
            self.cut(key, reason);
        }
    }
}
