//! One listener of a worker, and how far it is from being closed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::time::Instant;
use crate::base::timer_wheel::TimerId;
use crate::base::token_bucket::TokenBucket;
use crate::config::model::Accept;
use crate::config::proxy::Welcome;
use crate::pool::{Listener, Snapshot};
use crate::stats::{PauseReason, RefuseReason};
use crate::sys::Kernel;
use crate::worker::assignment::{GroupId, Listening};

/// First pause when the machine has run out of a resource; doubles each time, up to the longest.
pub(super) const PAUSE_FIRST: Duration = Duration::from_millis(10);
/// Pause after an error that accept(2) or epoll should never return.
pub(super) const PAUSE_BROKEN: Duration = Duration::from_secs(1);
/// Pauses are logged at most this often.
const PAUSE_LOG_PERIOD: Duration = Duration::from_secs(10);

/// Refused clients are logged at most this often.
const REFUSAL_LOG_PERIOD: Duration = Duration::from_secs(10);

/// One listener of this worker.
pub(in crate::worker) struct ListenerSlot<K: Kernel> {
    pub(super) group: GroupId,
    /// Its version in the epoch of the worker, or the last one when it was removed.
    pub(super) listener: Arc<Listener>,
    pub(super) socket: K::Listener,
    pub(super) is_partial: bool,
    /// Another socket at its address outlives the process.
    pub(super) is_beside: bool,
    /// There may be more in the queue. Must be cleared only when accept finds the queue empty: an edge-triggered
    /// listener reports once, and after EMFILE it reports nothing, not even when descriptors are free again.
    pub(super) readable: bool,
    /// It is queued to be accepted from.
    pub(super) is_queued: bool,
    /// True while epoll watches it.
    pub(super) is_watched: bool,
    pub(super) pause: Option<TimerId>,
    /// It is or was among the paused ones.
    pub(super) is_among_paused: bool,
    pub(super) next_pause: Duration,
    /// Why accept is not called, and since when.
    pub(super) held_up: Option<(PauseReason, Instant)>,
    pub(super) pause_log: TokenBucket,
    pub(super) refusal_log: TokenBucket,
    /// The longest that its queue may have become.
    pub(super) queue_max: u32,
    pub(super) stage: Stage,
}

/// The progress of closing a listener.
pub(super) enum Stage {
    Open,
    /// Handshakes in progress may complete until this timer fires.
    Retiring(TimerId),
    /// It is closed when its queue is empty, or after this many more were accepted: more cannot have been in it.
    Closing {
        queue_left: u32,
    },
}

impl<K: Kernel> ListenerSlot<K> {
    /// Returns `None` when this worker has no socket of it, or has it already.
    pub(super) fn new(listening: Listening<K::Listener>, now: Instant) -> Option<Self> {
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
            refusal_log: TokenBucket::new(1, REFUSAL_LOG_PERIOD, now),
            queue_max,
            stage: Stage::Open,
        })
    }

    /// Serves later connections as `snapshot` says.
    pub(super) fn align(&mut self, snapshot: &Snapshot) {
        if let Some(listener) = snapshot.listener(self.listener.id) {
            self.turn_into(listener);
        }
    }

    pub(super) fn turn_into(&mut self, listener: &Arc<Listener>) {
        self.listener.clone_from(listener);
        self.queue_max = self.queue_max.max(queue_max(listener));
    }

    /// Returns why a client with this address may not connect, if it may not.
    pub(super) fn refuses(&self, peer: IpAddr) -> Option<RefuseReason> {
        let settings = &self.listener.settings;
        if settings.access.as_ref().is_some_and(|access| !access.admits(peer)) {
            return Some(RefuseReason::Denied);
        }
        let proxy = settings.proxy_protocol.as_ref();
        let is_rejected = proxy.is_some_and(|proxy| proxy.welcome(peer) == Welcome::Reject);
        is_rejected.then_some(RefuseReason::ProxyUntrusted)
    }

    /// Returns how the sessions accepted from it are assigned to workers.
    pub(super) fn accept(&self) -> Accept {
        if self.is_partial { Accept::Balance } else { self.listener.settings.accept }
    }

    /// Returns how many timers it has armed.
    pub(super) fn timers(&self) -> usize {
        usize::from(self.pause.is_some()) + usize::from(matches!(self.stage, Stage::Retiring(_)))
    }

    /// Returns whether accept should be called now.
    pub(super) fn is_ready(&self) -> bool {
        self.readable && self.pause.is_none()
    }

    /// Returns whether it closes as soon as its queue is empty.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing { .. })
    }
}

/// listen(2): the queue holds one more than the backlog.
fn queue_max(listener: &Listener) -> u32 {
    listener.settings.backlog.saturating_add(1)
}
