//! Sessions whose dial this machine lacks something for: they wait for it, first come first, and no longer than a dial may
//! take.
//!
//! What lacks *resources* (a descriptor, memory) could not be dialed to any backend, so nothing is accepted meanwhile: a
//! client that is reset at once would only free the descriptor that the next client takes, until the queue is gone. But
//! unlike a client in the accept queue theirs has been told that it is connected.
//!
//! What lacks a *source port* waits for the address that it found without one last: what is missing towards one address is
//! there towards every other, so accepting goes on. Nobody who comes later is dialed in front of it, which also spares the
//! kernel the search for a port among thousands that are taken.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::ops::Bound;
use std::time::Duration;

use crate::base::slots::Key;
use crate::base::time::Instant;
use crate::base::timer_wheel::{TimerId, TimerWheel};
use crate::base::token_bucket::TokenBucket;
use crate::worker::core::Timer;

/// Time between tries. A session that ends in this worker, or one to the same address, brings the next one forward; one of
/// another worker cannot, nor a port that leaves TIME_WAIT.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Addresses for which ports are looked for each time, in turn.
const ADDRESSES_PER_TRY: usize = 64;
/// Sessions that wait for a port towards one address; one more is reset at once.
const WAITING_MAX: usize = 16 * 1024;
/// What is lacking is told at most that often.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// What this machine lacks for a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shortage {
    /// Descriptors or memory.
    Resources,
    /// A source port towards that address.
    Port(SocketAddr),
}

/// See the module.
pub(super) struct Waiting {
    /// In an order of their own, so that a seed decides who is next. No queue is empty.
    queues: BTreeMap<Shortage, VecDeque<Key>>,
    /// What may be there again: who waits for it is dialed, in this turn or the next.
    due: VecDeque<Shortage>,
    /// Whose first in line is being dialed.
    served: Option<Shortage>,
    /// What was tried last upon the timer.
    last: Shortage,
    timer: Option<TimerId>,
    resources_log: TokenBucket,
    ports_log: TokenBucket,
}

impl Waiting {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            queues: BTreeMap::new(),
            due: VecDeque::new(),
            served: None,
            last: Shortage::Resources,
            timer: None,
            resources_log: TokenBucket::new(1, LOG_PERIOD, now),
            ports_log: TokenBucket::new(1, LOG_PERIOD, now),
        }
    }

    /// Whether somebody waits for it. Whoever is dialed without it now would come in front of them, unless it is their turn.
    pub(super) fn is_awaited(&self, shortage: Shortage) -> bool {
        self.queues.contains_key(&shortage) && self.served != Some(shortage)
    }

    /// Whether somebody waits for what every dial takes.
    pub(super) fn lacks_resources(&self) -> bool {
        self.queues.contains_key(&Shortage::Resources)
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.queues.values().any(|queue| queue.contains(&key))
    }

    pub(super) fn has_timer(&self) -> bool {
        self.timer.is_some()
    }

    /// Whether somebody is to be dialed at once.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Puts a session behind those that wait for the same. False where there are too many already.
    pub(super) fn push(
        &mut self,
        key: Key,
        shortage: Shortage,
        now: Instant,
        wheel: &mut TimerWheel<Timer>,
    ) -> bool {
        let queue = self.queues.entry(shortage).or_default();
        if shortage != Shortage::Resources && queue.len() >= WAITING_MAX {
            return false;
        }
        queue.push_back(key);
        self.arm(now, wheel);
        true
    }

    fn arm(&mut self, now: Instant, wheel: &mut TimerWheel<Timer>) {
        if self.timer.is_none() {
            self.timer = Some(wheel.arm(now + TRY_AGAIN, Timer::Waiting));
        }
    }

    /// It is time to try again. Arms the next timer, as long as somebody waits.
    pub(super) fn on_timer(&mut self, now: Instant, wheel: &mut TimerWheel<Timer>) {
        self.timer = None;
        self.note_freed(Shortage::Resources);
        for shortage in self.next_ports() {
            self.note_freed(shortage);
            self.last = shortage;
        }
        if !self.queues.is_empty() {
            self.arm(now, wheel);
        }
    }

    /// The ports whose turn it is.
    fn next_ports(&self) -> Vec<Shortage> {
        let behind = self.queues.range((Bound::Excluded(self.last), Bound::Unbounded));
        let again = self.queues.range(..=self.last);
        let ports = behind.chain(again).map(|(shortage, _)| *shortage);
        ports.filter(|shortage| *shortage != Shortage::Resources).take(ADDRESSES_PER_TRY).collect()
    }

    /// There may be some of it again.
    pub(super) fn note_freed(&mut self, shortage: Shortage) {
        if self.queues.contains_key(&shortage) && !self.due.contains(&shortage) {
            self.due.push_back(shortage);
        }
    }

    /// The session that is to be dialed next, and what it waits for. Then [`Waiting::served`] is to be called.
    pub(super) fn serve_next(&mut self) -> Option<(Key, Shortage)> {
        loop {
            let &shortage = self.due.front()?;
            if let Some(key) = self.queues.get_mut(&shortage).and_then(VecDeque::pop_front) {
                self.served = Some(shortage);
                return Some((key, shortage));
            }
            self.due.pop_front();
        }
    }

    /// That session has been dialed, or `waits` again: where it is for the same, or for what every dial takes, nobody else is
    /// dialed before that is tried again.
    pub(super) fn served(&mut self, key: Key, shortage: Shortage, waits: bool) {
        self.served = None;
        let Some(queue) = self.queues.get_mut(&shortage) else { return };
        let is_back = queue.back() == Some(&key);
        if is_back {
            // It came first, and still does.
            queue.rotate_right(1);
        }
        if queue.is_empty() {
            self.queues.remove(&shortage);
        }
        if is_back || waits && shortage != Shortage::Resources {
            self.due.retain(|due| *due != shortage);
        }
    }

    /// Warns of a dial that was put off, now and then.
    pub(super) fn warn_of_resources(&mut self, error: &io::Error, now: Instant) {
        if let Some(untold) = self.resources_log.take(now) {
            log::warn!(error:%, untold; "a dial is put off, and accepting with it");
        }
    }

    /// Warns of a port that is lacking, now and then.
    pub(super) fn warn_of_ports(&mut self, address: SocketAddr, now: Instant) {
        if let Some(untold) = self.ports_log.take(now) {
            log::warn!(address:%, untold; "no source port is left towards a backend, its sessions wait for one");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> Key {
        Key { index, generation: 1 }
    }

    fn port(port: u16) -> Shortage {
        Shortage::Port(([127, 0, 0, 1], port).into())
    }

    /// Those of `waiting` that are served before nobody is, while those that `lack` what they waited for wait again.
    fn serve(waiting: &mut Waiting, wheel: &mut TimerWheel<Timer>, lack: &[u32]) -> Vec<u32> {
        let mut served = Vec::new();
        while let Some((key, shortage)) = waiting.serve_next() {
            served.push(key.index);
            let waits = lack.contains(&key.index);
            assert!(!waiting.is_awaited(shortage), "it is its turn");
            if waits {
                waiting.push(key, shortage, Instant::default(), wheel);
            }
            waiting.served(key, shortage, waits);
        }
        served
    }

    #[test]
    fn whoever_waits_again_is_still_the_first_and_nobody_passes() {
        let mut wheel = TimerWheel::new(Instant::default());
        let mut waiting = Waiting::new(Instant::default());
        for (index, shortage) in
            [Shortage::Resources, port(1), port(2), Shortage::Resources, port(1), port(2)]
                .into_iter()
                .enumerate()
        {
            waiting.push(key(u32::try_from(index).unwrap()), shortage, Instant::default(), &mut wheel);
        }
        assert!(serve(&mut waiting, &mut wheel, &[]).is_empty(), "there is nothing to serve them with");
        waiting.note_freed(port(1));
        assert_eq!(serve(&mut waiting, &mut wheel, &[1]), [1]);
        waiting.on_timer(Instant::default(), &mut wheel);
        assert_eq!(serve(&mut waiting, &mut wheel, &[0, 4]), [0, 1, 4, 2, 5]);
        assert!(waiting.is_awaited(port(1)) && !waiting.is_awaited(port(2)));
        waiting.on_timer(Instant::default(), &mut wheel);
        assert_eq!(serve(&mut waiting, &mut wheel, &[]), [0, 3, 4]);
        assert!(!waiting.lacks_resources() && !waiting.has_due() && waiting.has_timer());
        waiting.on_timer(Instant::default(), &mut wheel);
        assert!(!waiting.has_timer(), "nobody is woken for an empty queue");
    }

    #[test]
    fn ports_are_looked_for_towards_so_many_addresses_at_a_time_in_turn() {
        let mut wheel = TimerWheel::new(Instant::default());
        let mut waiting = Waiting::new(Instant::default());
        let addresses = u32::try_from(ADDRESSES_PER_TRY).unwrap() * 3 / 2;
        for index in 0..addresses {
            let shortage = port(1 + u16::try_from(index).unwrap());
            waiting.push(key(index), shortage, Instant::default(), &mut wheel);
        }
        let all: Vec<u32> = (0..addresses).collect();
        waiting.on_timer(Instant::default(), &mut wheel);
        let (first, rest) = all.split_at(ADDRESSES_PER_TRY);
        assert_eq!(serve(&mut waiting, &mut wheel, &all), first);
        waiting.on_timer(Instant::default(), &mut wheel);
        assert_eq!(
            serve(&mut waiting, &mut wheel, &all),
            [rest, &first[..first.len() - rest.len()]].concat()
        );
    }
}
