//! Which sockets this worker listens on: they come with an assignment, and go when nothing is left in their queues,
//! because what is in the queue of a socket when it is closed is reset.
//!
//! A socket that is to go while the process stays is *retired* first. Whoever made the assignment has seen to it that no
//! connection begins there any more; it goes on being accepted from while handshakes that are under way may complete,
//! and is closed once its queue is empty. One that goes because the process drains is closed as soon as its queue is
//! empty: nobody is to be kept waiting by a process that ends. But where connections begin at a socket that outlives the
//! process from then on, nobody waits, and the others at that address are retired.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::time::Instant;
use crate::base::timer_wheel::TimerId;
use crate::base::token_bucket::TokenBucket;
use crate::config::model::Accept;
use crate::pool::{Listener, Snapshot};
use crate::stats::PauseReason;
use crate::sys::{Kernel, Token};
use crate::worker::assignment::{Assignment, GroupId, Listening};
use crate::worker::listen::accept::{PAUSE_BROKEN, PAUSE_FIRST, PAUSE_LOG_PERIOD};
use crate::worker::{Timer, Worker};

/// How long a handshake may be under way at a socket that is to be closed. The last segment of one is lost at times, and
/// Linux repeats what it answers to after a second (TCP_TIMEOUT_INIT).
pub const RETIRE_GRACE: Duration = Duration::from_millis(1_500);

/// One listener of this worker.
pub(in crate::worker) struct ListenerSlot<K: Kernel> {
    group: GroupId,
    /// As it is in the epoch of the worker, or was when it was removed.
    pub(in crate::worker) listener: Arc<Listener>,
    pub(in crate::worker) socket: K::Listener,
    /// Some workers have none.
    is_partial: bool,
    /// Another one at its address outlives the process.
    is_beside: bool,
    /// There may be more in the queue. Cleared only when accept says that there is not: an edge-triggered
    /// listener tells once, and after EMFILE it tells nothing, not even when descriptors are free again.
    pub(in crate::worker) readable: bool,
    /// It is among those that are accepted from.
    pub(in crate::worker) is_queued: bool,
    /// Whether the kernel tells.
    is_watched: bool,
    pub(in crate::worker) pause: Option<TimerId>,
    /// It is among those that pause, or were.
    pub(in crate::worker) is_among_paused: bool,
    pub(in crate::worker) next_pause: Duration,
    /// Why accept was not called since then.
    pub(in crate::worker) held_up: Option<(PauseReason, Instant)>,
    pub(in crate::worker) pause_log: TokenBucket,
    /// The longest that its queue may have become.
    queue_max: u32,
    stage: Stage,
}

/// How far a listener is from being closed.
enum Stage {
    /// It stays.
    Open,
    /// Handshakes that are under way may complete until this timer fires.
    Retiring(TimerId),
    /// It goes when its queue is empty, or when so many more were taken from it: more cannot have been in it.
    Closing { queue_left: u32 },
}

impl<K: Kernel> ListenerSlot<K> {
    /// `None` where this worker has no socket of it, or has it already.
    fn new(listening: Listening<K::Listener>, now: Instant) -> Option<Self> {
        let Listening { group, listener, socket, is_partial, is_beside } = listening;
        let socket = socket?;
        let queue_max = queue_max(&listener);
        Some(Self {
            group,
            listener,
            socket,
            is_partial,
            is_beside,
            readable: false,
            is_queued: false,
            is_watched: false,
            pause: None,
            is_among_paused: false,
            next_pause: PAUSE_FIRST,
            held_up: None,
            pause_log: TokenBucket::new(1, PAUSE_LOG_PERIOD, now),
            queue_max,
            stage: Stage::Open,
        })
    }

    /// Who comes from now on is served as `snapshot` says.
    pub(in crate::worker) fn align(&mut self, snapshot: &Snapshot) {
        if let Some(listener) = snapshot.listener(self.listener.id) {
            self.turn_into(listener);
        }
    }

    fn turn_into(&mut self, listener: &Arc<Listener>) {
        self.listener.clone_from(listener);
        self.queue_max = self.queue_max.max(queue_max(listener));
    }

    /// Who has the sessions that are accepted from it.
    pub(in crate::worker) fn accept(&self) -> Accept {
        if self.is_partial { Accept::Balance } else { self.listener.settings.accept }
    }

    /// How many timers it has armed.
    pub(in crate::worker) fn timers(&self) -> usize {
        usize::from(self.pause.is_some()) + usize::from(matches!(self.stage, Stage::Retiring(_)))
    }

    /// Whether accept is to be called now.
    pub(in crate::worker) fn is_ready(&self) -> bool {
        self.readable && self.pause.is_none()
    }

    /// Whether it is to be closed as soon as its queue is empty.
    pub(in crate::worker) fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing { .. })
    }
}

/// listen(2): the queue holds one more than the backlog.
fn queue_max(listener: &Listener) -> u32 {
    listener.settings.backlog.saturating_add(1)
}

impl<K: Kernel> Worker<K> {
    /// Takes on what it was assigned with the epoch that it runs now, or with an earlier one.
    pub(in crate::worker) fn take_assignment(&mut self) {
        let waiting = self.assigned.take().or_else(|| self.assignments.try_recv().ok());
        match waiting {
            Some(assignment) if assignment.epoch <= self.snapshot.epoch => self.work_as(assignment),
            waiting => self.assigned = waiting,
        }
    }

    fn work_as(&mut self, assignment: Assignment<K::Listener, K::Socket>) {
        let Assignment { listeners, peers, checks_max, pipes_max, pipe_len, .. } = assignment;
        self.probes.limit(checks_max);
        self.relay_buffers.pipes.limit(pipes_max, pipe_len);
        self.mailboxes = peers.mailboxes;
        self.dispatcher.regroup(peers.handoff_queues);
        let serves = self.dispatcher.is_serving();
        self.probes.assign(serves.then_some(self.index), self.mailboxes.len());
        if !serves {
            log::info!(worker = self.index, sessions = self.dispatcher.sessions(); "leaving: sessions go on");
            self.dispatcher.close_handoff_queue();
        }
        let by_group: HashMap<GroupId, &Listening<K::Listener>> =
            listeners.iter().map(|listening| (listening.group, listening)).collect();
        for index in self.listeners.places() {
            let Some(slot) = self.listeners.get_mut(index) else { continue };
            match by_group.get(&slot.group) {
                Some(listening) => {
                    slot.turn_into(&listening.listener);
                    slot.is_partial = listening.is_partial;
                }
                None => self.retire(index),
            }
        }
        for listening in listeners {
            self.listen(listening);
        }
    }

    /// Accepts from its socket, if there is one, from now on.
    pub(in crate::worker) fn listen(&mut self, listening: Listening<K::Listener>) {
        let Some(mut slot) = ListenerSlot::new(listening, self.now) else { return };
        // It may not be as it was in the snapshot that it was opened for.
        slot.align(&self.snapshot);
        let index = self.listeners.insert(slot);
        self.watch_listener(index);
        self.listeners.queue_if_ready(index);
    }

    /// Has the kernel tell of connections. Where it cannot, for want of memory or of watches, accepting is tried, and
    /// this too, once a pause has passed. The caller must queue it.
    pub(in crate::worker) fn watch_listener(&mut self, index: usize) {
        let Some(slot) = self.listeners.get_mut(index) else { return };
        if slot.is_watched {
            return;
        }
        let token = Token::Listener(u32::try_from(index).expect("fewer than 2^32 listeners"));
        // What was in the queue before makes no edge of its own.
        slot.readable = true;
        match self.kernel.watch_listener(&slot.socket, token) {
            Ok(()) => slot.is_watched = true,
            Err(error) => {
                let name = &slot.listener.settings.name;
                log::error!(listener:% = name, error:%; "epoll does not watch a listener, it is asked again");
                let timer = self.wheel.arm(self.now + PAUSE_BROKEN, Timer::Accept(index));
                self.listeners.pause(index, timer);
            }
        }
    }

    /// Begins to close a listener of which no connection begins any more.
    fn retire(&mut self, index: usize) {
        let Some(slot) = self.listeners.get_mut(index) else { return };
        if let Stage::Open = slot.stage {
            slot.stage = Stage::Retiring(self.wheel.arm(self.now + RETIRE_GRACE, Timer::Retire(index)));
        }
    }

    /// The handshakes that were under way are over.
    pub(in crate::worker) fn on_retire_timer(&mut self, index: usize) {
        let Some(slot) = self.listeners.get_mut(index) else { return };
        slot.stage = Stage::Closing { queue_left: slot.queue_max };
        self.listeners.note_readable(index);
    }

    /// Begins to close the listeners: what is in their queues now is served first.
    pub(in crate::worker) fn drain_listeners(&mut self) {
        self.dispatcher.close_handoff_queue();
        for index in self.listeners.places() {
            self.resume(index);
            let Some(slot) = self.listeners.get_mut(index) else { continue };
            if slot.is_beside {
                self.retire(index);
                continue;
            }
            if let Stage::Retiring(timer) = slot.stage {
                self.wheel.cancel(timer);
            }
            slot.stage = Stage::Closing { queue_left: slot.queue_max };
            self.listeners.note_readable(index);
        }
    }

    pub(in crate::worker) fn count_down_queue(&mut self, index: usize) {
        let Some(slot) = self.listeners.get_mut(index) else { return };
        if let Stage::Closing { queue_left } = &mut slot.stage {
            *queue_left -= 1;
            if *queue_left == 0 {
                self.stop_listening(index);
            }
        }
    }

    pub(in crate::worker) fn stop_listening(&mut self, index: usize) {
        let Some(slot) = self.listeners.remove(index) else { return };
        if let Some(timer) = slot.pause {
            self.wheel.cancel(timer);
        }
        if let Stage::Retiring(timer) = slot.stage {
            self.wheel.cancel(timer);
        }
        self.kernel.close_listener(slot.socket);
    }
}
