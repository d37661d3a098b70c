//! Sessions for which no source port is left towards their backends. They wait, first come first, for the address that
//! they found without one last, and only they: what is missing towards one address is there towards every other, so
//! accepting goes on. Nobody who comes later is dialed in front of them, which also spares the kernel the search for a
//! port among thousands that are taken. Like all whose dial is put off they wait no longer than a dial may take.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Bound;
use std::time::Duration;

use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::base::timer_wheel::TimerId;
use crate::base::token_bucket::TokenBucket;
use crate::session::CloseReason;
use crate::sys::Kernel;
use crate::worker::{Timer, Worker};

/// Time between tries. A connection to the same address that ends in this worker brings the next one forward; one of
/// another worker cannot, nor a port that leaves TIME_WAIT.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Addresses tried each time, in turn.
const ADDRESSES_PER_TRY: usize = 64;
/// Sessions dialed each time for one address.
const DIALS_PER_TRY: usize = 64;
/// Sessions that wait for one address; one more is reset at once.
const WAITING_MAX: usize = 16 * 1024;
/// Told at most that often.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// The sessions that wait for a source port.
pub(in crate::worker) struct Ports {
    /// In the order of addresses, so that a seed decides who is next. No queue is empty.
    waiting: BTreeMap<SocketAddr, VecDeque<Key>>,
    /// Addresses that somebody waits for, and a connection to which has ended in this turn.
    freed: Vec<SocketAddr>,
    /// The address whose first in line is being dialed.
    served: Option<SocketAddr>,
    /// The address that was tried last.
    last: SocketAddr,
    timer: Option<TimerId>,
    log: TokenBucket,
}

impl Ports {
    pub(in crate::worker) fn new(now: Instant) -> Self {
        Self {
            waiting: BTreeMap::new(),
            freed: Vec::new(),
            served: None,
            last: (Ipv4Addr::UNSPECIFIED, 0).into(),
            timer: None,
            log: TokenBucket::new(1, LOG_PERIOD, now),
        }
    }

    /// Whether whoever dials that address now would come in front of those that wait.
    pub(in crate::worker) fn are_awaited(&self, address: SocketAddr) -> bool {
        self.waiting.contains_key(&address) && self.served != Some(address)
    }

    pub(in crate::worker) fn contains(&self, key: Key) -> bool {
        self.waiting.values().any(|queue| queue.contains(&key))
    }

    pub(in crate::worker) fn has_timer(&self) -> bool {
        self.timer.is_some()
    }

    /// A connection to that address has ended.
    pub(in crate::worker) fn on_freed(&mut self, address: SocketAddr) {
        if self.waiting.contains_key(&address) && !self.freed.contains(&address) {
            self.freed.push(address);
        }
    }

    /// The addresses whose turn it is.
    fn next(&self) -> Vec<SocketAddr> {
        let behind = self.waiting.range((Bound::Excluded(self.last), Bound::Unbounded));
        let again = self.waiting.range(..=self.last);
        behind.chain(again).map(|(address, _)| *address).take(ADDRESSES_PER_TRY).collect()
    }
}

impl<K: Kernel> Worker<K> {
    /// Puts a session behind those that wait for a port towards `address`.
    pub(in crate::worker) fn await_port(&mut self, key: Key, address: SocketAddr) {
        let queue = self.ports.waiting.entry(address).or_default();
        if queue.len() >= WAITING_MAX {
            return self.cut(key, CloseReason::LocalLimit);
        }
        queue.push_back(key);
        if self.ports.timer.is_none() {
            self.ports.timer = Some(self.wheel.arm(self.now + TRY_AGAIN, Timer::Ports));
        }
        if let Some(untold) = self.ports.log.take(self.now) {
            log::warn!(address:%, untold; "no source port is left towards a backend, its sessions wait for one");
        }
        // Its connect timeout bounds the wait: tries do not count as dials.
        self.arm(key);
    }

    pub(in crate::worker) fn on_ports_timer(&mut self) {
        self.ports.timer = None;
        for address in self.ports.next() {
            self.ports.last = address;
            self.dial_waiting(address);
        }
        if !self.ports.waiting.is_empty() && self.ports.timer.is_none() {
            self.ports.timer = Some(self.wheel.arm(self.now + TRY_AGAIN, Timer::Ports));
        }
    }

    /// Dials where connections have ended in this turn.
    pub(in crate::worker) fn dial_where_freed(&mut self) {
        while let Some(address) = self.ports.freed.pop() {
            self.dial_waiting(address);
        }
    }

    /// Dials for those that wait for `address`, until one has to wait again.
    fn dial_waiting(&mut self, address: SocketAddr) {
        for _ in 0..DIALS_PER_TRY {
            let Some(queue) = self.ports.waiting.get_mut(&address) else { return };
            let (key, left) = (queue.pop_front(), queue.len());
            let Some(key) = key else { break };
            // It may be gone: the client, or the patience with this machine.
            self.ports.served = Some(address);
            self.choose_and_dial(key);
            self.ports.served = None;
            if self.sessions.get(key).is_some_and(|slot| slot.backend.is_none()) {
                // It came first, and still does, unless it waits for something else now.
                if let Some(queue) = self.ports.waiting.get_mut(&address).filter(|queue| queue.len() > left) {
                    queue.rotate_right(1);
                }
                break;
            }
        }
        if self.ports.waiting.get(&address).is_some_and(VecDeque::is_empty) {
            self.ports.waiting.remove(&address);
        }
    }
}
