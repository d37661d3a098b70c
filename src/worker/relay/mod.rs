//! The sessions of a worker, from the dial to the last byte: the only part that has them.
//!
//! In reading order: `slot` is what is held for one session; `connect` chooses and dials a backend, for which a session
//! may have to wait in `waiting`; `opening` is what a client may have to send before that, by a `look`, with
//! `encryption` in between; `header` and `postgres` are what a backend may read first; `drive` relays; `conduit` holds
//! the bytes in between, in `buffers` or `pipes`, which are `lent`; `stalled` takes pipes from sinks that have stopped;
//! `byte_accounting` counts the bytes of sessions that last; `lines` logs; `lost_wakeups` finds sessions whose event was
//! lost. Only `close` frees a session.

mod audit;
mod buffers;
mod byte_accounting;
mod close;
mod conduit;
mod connect;
mod drive;
mod encryption;
mod header;
mod lent;
mod lines;
mod look;
mod lost_wakeups;
mod opening;
mod pipes;
mod postgres;
mod routing;
mod slot;
mod stalled;
mod suspects;
mod uncounted;
mod waiting;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::slots::{Key, Slots};
use crate::base::time::Instant;
use crate::pool::{BackendId, Choice, Listener};
use crate::session::{CloseReason, Side};
use crate::sys::{Kernel, Token};
use crate::worker::core::Core;

use buffers::Buffers;
use conduit::{Conduit, RelayBuffers};
use pipes::Pipes;
use slot::Origin;
pub(super) use slot::Slot;
use suspects::Sweep;
use uncounted::{Counting, Uncounted};
use waiting::Waiting;

pub(super) struct Relay<K: Kernel> {
    sessions: Slots<Slot<K>>,
    /// Sessions that wait for a descriptor, memory or a source port.
    waiting: Waiting,
    /// Since when accepting waits for some of them.
    starved_since: Option<Instant>,
    /// Sessions that wait for their share of a turn.
    ready_queue: VecDeque<Key>,
    /// Sessions that have had a share of this turn and have more to do.
    served: Vec<Key>,
    /// Long sessions with uncounted bytes.
    uncounted: Uncounted,
    buffers: RelayBuffers<K>,
    sweep: Sweep,
    /// The place at which the next look for lines that are due begins.
    next_line: u32,
    /// Connections to backends, open or dialed.
    dialed: u64,
    /// A session has ended: what others wait for may be there again.
    freed: bool,
}

impl<K: Kernel> Relay<K> {
    /// No session yet. At most `pipes_max` pipes are opened, each of which is asked to hold `pipe_len`.
    pub(super) fn new(core: &Core<K>, pipes_max: usize, pipe_len: usize) -> Self {
        Self {
            sessions: Slots::default(),
            waiting: Waiting::new(core.now),
            starved_since: None,
            ready_queue: VecDeque::new(),
            served: Vec::new(),
            uncounted: Uncounted::new(),
            buffers: RelayBuffers {
                buffers: Buffers::new(),
                pipes: Pipes::new(pipes_max, pipe_len, core.now),
            },
            sweep: Sweep::new(core.now),
            next_line: 0,
            dialed: 0,
            freed: false,
        }
    }

    /// From now on at most so many pipes are opened, each of which is asked to hold `pipe_len`.
    pub(super) fn limit_pipes(&mut self, pipes_max: usize, pipe_len: usize) {
        self.buffers.pipes.limit(pipes_max, pipe_len);
    }

    pub(super) fn get(&self, key: Key) -> Option<&Slot<K>> {
        self.sessions.get(key)
    }

    /// The session at a place, if there is one.
    pub(super) fn at(&self, place: u32) -> Option<(Key, &Slot<K>)> {
        self.sessions.at(place)
    }

    /// Places that are or were taken.
    pub(super) fn places(&self) -> u32 {
        self.sessions.places()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Sessions that wait for their share of a turn.
    pub(super) fn queued(&self) -> usize {
        self.ready_queue.len()
    }

    /// Returns true while descriptors or memory are short: nothing must be accepted then.
    pub(super) fn is_starved(&self) -> bool {
        self.waiting.lacks_resources()
    }

    /// Returns true when work is left that no event announces: the next wait must not block.
    pub(super) fn has_work_left(&self) -> bool {
        self.freed || self.waiting.has_due() || !self.ready_queue.is_empty()
    }

    /// Returns true when a session has ended since the last call.
    pub(super) fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.freed)
    }

    /// Opens a session that is counted already: one slab entry, one dial, or before it a header of its client.
    pub(super) fn open(
        &mut self,
        core: &mut Core<K>,
        listener: Arc<Listener>,
        client: K::Socket,
        peer: SocketAddr,
    ) {
        let pool = &core.snapshot.pool(listener.pool).settings;
        let relay = pool.relay;
        let timeouts = opening::timeouts(&listener.settings.timeouts, pool);
        let session = opening::session(&listener, timeouts, peer, core.now);
        let is_opening = session.is_opening();
        let slot = Slot {
            session,
            client,
            backend: None,
            lease: None,
            choice: Choice::default(),
            conduits: [Conduit::new(relay), Conduit::new(relay)],
            timer: None,
            origin: Origin::Peer(peer),
            pool: listener.pool,
            listener,
            failed: None,
            queued: false,
            kept_alive: false,
            counting: Counting::Young,
            line_age: 0,
        };
        let key = self.sessions.insert(slot);
        self.sweep.begin(core.now, &mut core.wheel);
        let slot = self.sessions.get_mut(key).expect("inserted just now");
        match core.kernel.watch(&slot.client, Token::Session(key, Side::Client)) {
            // The kernel reports what has come already.
            Ok(()) if is_opening => self.arm(core, key),
            Ok(()) => self.begin(core, key),
            // epoll(7): the system has a limit on watches.
            Err(_) => self.cut(core, key, CloseReason::LocalLimit),
        }
    }

    /// Ends the sessions on a backend that was removed. Looks at every session: backends are removed rarely.
    pub(super) fn leave_backend(&mut self, core: &mut Core<K>, backend: BackendId) {
        for key in self.sessions_on(backend) {
            if self.sessions.get(key).is_some_and(|slot| slot.session.is_connecting()) {
                self.dial_another(core, key);
            } else {
                self.cut(core, key, CloseReason::BackendRemoved);
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

    pub(super) fn cut_all(&mut self, core: &mut Core<K>, reason: CloseReason) {
        for key in self.sessions.keys().collect::<Vec<Key>>() {
            self.cut(core, key, reason);
        }
    }
}
