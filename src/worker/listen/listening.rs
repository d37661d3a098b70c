//! The listening sockets of this worker: they come with an assignment, and are closed when their queues are empty,
//! because close(2) resets the connections in a queue.
//!
//! A socket that is closed while the process stays is *retired* first. The sender of the assignment has ensured that no
//! new connection begins there; the worker continues to accept from it while handshakes in progress may complete, and
//! closes it once its queue is empty. When the process drains, a socket is closed as soon as its queue is empty:
//! clients must not wait for a process that ends. But where connections begin at a socket that outlives the process, no
//! client waits, and the other sockets at that address are retired.

use std::collections::HashMap;
use std::time::Duration;

use crate::pool::Snapshot;
use crate::sys::{Kernel, Token};
use crate::worker::assignment::{GroupId, Listening};
use crate::worker::core::{Core, Timer};
use crate::worker::listen::accept::Acceptor;
use crate::worker::listen::listener_slot::{ListenerSlot, PAUSE_BROKEN, Stage};

/// Time for handshakes in progress at a socket that will be closed. Their last segment may be lost, and Linux repeats
/// its answer after a second (TCP_TIMEOUT_INIT).
pub const RETIRE_GRACE: Duration = Duration::from_millis(1_500);

impl<K: Kernel> Acceptor<K> {
    /// Serves new connections by the listeners of `snapshot` from now on.
    pub(in crate::worker) fn align(&mut self, snapshot: &Snapshot) {
        for listener in self.listeners.iter_mut() {
            listener.align(snapshot);
        }
    }

    /// Listens where `assigned` says from now on. A socket of a group that is not among them goes once its queue is
    /// served.
    pub(in crate::worker) fn reassign(&mut self, core: &mut Core<K>, assigned: Vec<Listening<K::Listener>>) {
        let by_group: HashMap<GroupId, &Listening<K::Listener>> =
            assigned.iter().map(|listening| (listening.group, listening)).collect();
        for index in self.listeners.places() {
            let Some(slot) = self.listeners.get_mut(index) else { continue };
            match by_group.get(&slot.group) {
                Some(listening) => {
                    slot.turn_into(&listening.listener);
                    slot.is_partial = listening.is_partial;
                }
                None => self.retire(core, index),
            }
        }
        for listening in assigned {
            self.listen(core, listening);
        }
    }

    /// Accepts from the socket of `listening`, if there is one, from now on.
    pub(in crate::worker) fn listen(&mut self, core: &mut Core<K>, listening: Listening<K::Listener>) {
        let Some(mut slot) = ListenerSlot::new(listening, core.now) else { return };
        // It may differ from the snapshot that it was opened for.
        slot.align(&core.snapshot);
        let index = self.listeners.insert(slot);
        self.watch_listener(core, index);
        self.listeners.queue_if_ready(index);
    }

    /// Registers the listener with epoll. When that fails, for want of memory or of watches, both accepting and
    /// registering are retried after a pause. The caller must queue it.
    pub(super) fn watch_listener(&mut self, core: &mut Core<K>, index: usize) {
        let Some(slot) = self.listeners.get_mut(index) else { return };
        if slot.is_watched {
            return;
        }
        let token = Token::Listener(u32::try_from(index).expect("fewer than 2^32 listeners"));
        // Connections that were in the queue before cause no edge.
        slot.readable = true;
        match core.kernel.watch_listener(&slot.socket, token) {
            Ok(()) => slot.is_watched = true,
            Err(error) => {
                let name = &slot.listener.settings.name;
                log::error!(listener:% = name, error:%; "epoll does not watch a listener, it is asked again");
                let timer = core.wheel.arm(core.now + PAUSE_BROKEN, Timer::Accept(index));
                self.listeners.pause(index, timer);
            }
        }
    }

    /// Begins to close a listener at which no connection begins any more.
    fn retire(&mut self, core: &mut Core<K>, index: usize) {
        let Some(slot) = self.listeners.get_mut(index) else { return };
        if let Stage::Open = slot.stage {
            slot.stage = Stage::Retiring(core.wheel.arm(core.now + RETIRE_GRACE, Timer::Retire(index)));
        }
    }

    /// Must be called when the handshakes in progress have had their time.
    pub(in crate::worker) fn on_retire_timer(&mut self, index: usize) {
        let Some(slot) = self.listeners.get_mut(index) else { return };
        slot.stage = Stage::Closing { queue_left: slot.queue_max };
        self.listeners.note_readable(index);
    }

    /// Begins to close the listeners: the connections in their queues are served first.
    pub(in crate::worker) fn drain(&mut self, core: &mut Core<K>) {
        core.dispatcher.close_handoff_queue();
        for index in self.listeners.places() {
            self.resume(core, index);
            let Some(slot) = self.listeners.get_mut(index) else { continue };
            if slot.is_beside {
                self.retire(core, index);
                continue;
            }
            if let Stage::Retiring(timer) = slot.stage {
                core.wheel.cancel(timer);
            }
            slot.stage = Stage::Closing { queue_left: slot.queue_max };
            self.listeners.note_readable(index);
        }
    }

    /// Closes all listeners; connections in their accept queues are reset.
    pub(in crate::worker) fn stop(&mut self, core: &mut Core<K>) {
        core.dispatcher.close_handoff_queue();
        for index in self.listeners.places() {
            self.stop_listening(core, index);
        }
    }

    pub(super) fn count_down_queue(&mut self, core: &mut Core<K>, index: usize) {
        let Some(slot) = self.listeners.get_mut(index) else { return };
        if let Stage::Closing { queue_left } = &mut slot.stage {
            *queue_left -= 1;
            if *queue_left == 0 {
                self.stop_listening(core, index);
            }
        }
    }

    pub(super) fn stop_listening(&mut self, core: &mut Core<K>, index: usize) {
        let Some(slot) = self.listeners.remove(index) else { return };
        if let Some(timer) = slot.pause {
            core.wheel.cancel(timer);
        }
        if let Stage::Retiring(timer) = slot.stage {
            core.wheel.cancel(timer);
        }
        core.kernel.close_listener(slot.socket);
    }
}
