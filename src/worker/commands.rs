//! Takes commands from the mailbox, and what goes with a new epoch.

use std::sync::Arc;

use crate::messages::command::{Command, StopReason};
use crate::messages::mailbox::MAILBOX_LEN;
use crate::pool::Snapshot;
use crate::session::CloseReason;
use crate::sys::Kernel;
use crate::worker::Worker;
use crate::worker::assignment::Assignment;

/// Commands taken per turn. Must be the length of the mailbox: the rest might wait for ever, because their wakes are
/// over.
const COMMANDS_PER_TURN: usize = MAILBOX_LEN;

impl<K: Kernel> Worker<K> {
    pub(super) fn read_mailbox(&mut self) {
        for _ in 0..COMMANDS_PER_TURN {
            let Ok(command) = self.inbox.try_recv() else { return };
            self.apply(command);
        }
    }

    fn apply(&mut self, command: Command) {
        let Self { core, acceptor, relay, probes, inspection, .. } = self;
        match command {
            Command::Publish(snapshot) => self.run_epoch(snapshot),
            Command::DialFailed(backend) => probes.on_dials_failed(core, backend),
            Command::CutBackend(backend) => relay.leave_backend(core, backend),
            Command::Ran { key, ran, took } => probes.on_ran(core, key, ran, took),
            Command::Ask(query, reply) => reply.give(inspection.answer(core, relay, query)),
            Command::Drain => acceptor.drain(core),
            Command::Stop(StopReason::DrainTimeout) => self.stop(CloseReason::DrainTimeout),
            Command::Stop(StopReason::AtOnce) => self.stop(CloseReason::Stopped),
            Command::Wake => {}
        }
    }

    /// Switches to `snapshot`, unless it runs one as new: a handed-over session may have brought it.
    pub(super) fn run_epoch(&mut self, snapshot: Arc<Snapshot>) {
        if snapshot.epoch <= self.core.snapshot.epoch {
            return;
        }
        let before = std::mem::replace(&mut self.core.snapshot, snapshot);
        self.inspection.on_epoch(&before, &self.core.snapshot);
        self.acceptor.align(&self.core.snapshot);
        self.relay.on_epoch();
        self.take_assignment();
        self.probes.align(&mut self.core, &before);
        self.agents.align(&mut self.core, &before);
    }

    /// Applies the assignment of the epoch that it runs now, or of an earlier one.
    fn take_assignment(&mut self) {
        let waiting = self.assigned.take().or_else(|| self.assignments.try_recv().ok());
        match waiting {
            Some(assignment) if assignment.epoch <= self.core.snapshot.epoch => self.work_as(assignment),
            waiting => self.assigned = waiting,
        }
    }

    fn work_as(&mut self, assignment: Assignment<K::Listener, K::Socket>) {
        let Self { core, acceptor, relay, probes, agents, .. } = self;
        let Assignment { listeners, peers, checks_max, pipes_max, pipe_len, .. } = assignment;
        core.mailboxes = peers.mailboxes;
        core.dispatcher.regroup(peers.handoff_queues);
        let serves = core.dispatcher.is_serving();
        if !serves {
            log::info!(worker = core.index, sessions = core.dispatcher.sessions(); "worker retiring");
            core.dispatcher.close_handoff_queue();
        }
        probes.limit(checks_max);
        let (worker, workers) = (serves.then_some(core.index), core.mailboxes.len());
        probes.assign(worker, workers);
        agents.assign(worker, workers, checks_max);
        relay.limit_pipes(pipes_max, pipe_len);
        acceptor.reassign(core, listeners);
    }

    fn stop(&mut self, reason: CloseReason) {
        self.stopping = Some(reason);
        self.acceptor.stop(&mut self.core);
    }
}
