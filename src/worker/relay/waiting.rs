//! Sessions that cannot be dialed because this worker is short of something. They wait in order of arrival, for at
//! most the connect timeout.
//!
//! A session short of *resources* (a descriptor, memory) could not be dialed to any backend, so accepting stops: a
//! client that is reset at once only frees the descriptor that the next client takes, until the accept queue is empty.
//!
//! A session short of a *source port* waits for the address at which the kernel found none last. Ports are per
//! destination, so accepting continues. A later session is never dialed to that address first, which also spares the
//! kernel the search for a port among thousands that are taken.
//!
//! A session short of *tables* has found no backend, and the control thread has begun a change of which this worker has
//! seen a part: the backends that have left, not yet those that have come. It waits for the next epoch. Each epoch is
//! another for every one of these sessions, of whatever pool: all of them are tried, however many wait on.

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

/// Time between tries. A session that ends in this worker, or one to the same address, brings the next one forward; one
/// of another worker cannot, nor a port that leaves TIME_WAIT.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Addresses for which ports are looked for each time, in turn.
const ADDRESSES_PER_TRY: usize = 64;
/// Sessions that wait for a port towards one address, or for tables; one more is reset at once.
const WAITING_MAX: usize = 16 * 1024;
/// Each kind of shortage is logged at most that often.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// The thing that a dial is short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shortage {
    /// Descriptors or memory.
    Resources,
    /// The tables of an epoch that was announced.
    Tables,
    /// A source port towards that address.
    Port(SocketAddr),
}

pub(super) struct Waiting {
    /// Ordered by key, so that a seed decides which is next. No queue is empty.
    queues: BTreeMap<Shortage, VecDeque<Key>>,
    /// May be available again: the sessions that wait for it are dialed, in this turn or the next.
    due: VecDeque<Shortage>,
    /// Sessions short of tables that are yet to be tried since there may be others.
    untried: usize,
    /// The shortage at the head of `due` while its first session is being dialed.
    served: Option<Shortage>,
    /// The last one tried by the timer.
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
            untried: 0,
            served: None,
            last: Shortage::Resources,
            timer: None,
            resources_log: TokenBucket::new(1, LOG_PERIOD, now),
            ports_log: TokenBucket::new(1, LOG_PERIOD, now),
        }
    }

    /// Returns true when sessions wait for it. A new dial must not overtake them, unless it is their turn.
    pub(super) fn is_awaited(&self, shortage: Shortage) -> bool {
        self.queues.contains_key(&shortage) && self.served != Some(shortage)
    }

    /// Returns true while a session waits for a descriptor or memory.
    pub(super) fn lacks_resources(&self) -> bool {
        self.queues.contains_key(&Shortage::Resources)
    }

    /// Returns whether a session waits for that.
    pub(super) fn is_short_of(&self, key: Key, shortage: Shortage) -> bool {
        self.queues.get(&shortage).is_some_and(|queue| queue.contains(&key))
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.queues.values().any(|queue| queue.contains(&key))
    }

    pub(super) fn has_timer(&self) -> bool {
        self.timer.is_some()
    }

    /// Returns true when a session can be dialed at once.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Puts a session behind those that wait for the same. Returns false when too many wait already.
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

    /// It is time to try again. Arms the next timer, as long as a session waits.
    pub(super) fn on_timer(&mut self, now: Instant, wheel: &mut TimerWheel<Timer>) {
        self.timer = None;
        self.note_freed(Shortage::Resources);
        self.note_freed(Shortage::Tables);
        for shortage in self.next_ports() {
            self.note_freed(shortage);
            self.last = shortage;
        }
        if !self.queues.is_empty() {
            self.arm(now, wheel);
        }
    }

    /// Returns the addresses to try next for a port, in turn.
    fn next_ports(&self) -> Vec<Shortage> {
        let behind = self.queues.range((Bound::Excluded(self.last), Bound::Unbounded));
        let again = self.queues.range(..=self.last);
        let ports = behind.chain(again).map(|(shortage, _)| *shortage);
        ports.filter(|shortage| matches!(shortage, Shortage::Port(_))).take(ADDRESSES_PER_TRY).collect()
    }

    /// There may be some of it again.
    pub(super) fn note_freed(&mut self, shortage: Shortage) {
        let Some(queue) = self.queues.get(&shortage) else { return };
        if shortage == Shortage::Tables {
            self.untried = queue.len();
        }
        if !self.due.contains(&shortage) {
            self.due.push_back(shortage);
        }
    }

    /// Returns the session to dial next, and what it waits for. The caller must then call [`Waiting::served`].
    pub(super) fn serve_next(&mut self) -> Option<(Key, Shortage)> {
        loop {
            let &shortage = self.due.front()?;
            if let Some(key) = self.queues.get_mut(&shortage).and_then(VecDeque::pop_front) {
                self.served = Some(shortage);
                if shortage == Shortage::Tables {
                    self.untried = self.untried.saturating_sub(1);
                }
                return Some((key, shortage));
            }
            self.due.pop_front();
        }
    }

    /// Must be called after the dial of a session that [`Self::serve_next`] returned. `waits`: it is short of something
    /// again; of the same, and its queue rests until the next try, or of another. What one finds in the tables says
    /// nothing of the next one: there the rest is tried.
    pub(super) fn served(&mut self, key: Key, shortage: Shortage, waits: bool) {
        self.served = None;
        let Some(queue) = self.queues.get_mut(&shortage) else { return };
        let is_back = queue.back() == Some(&key);
        let rests = match shortage {
            Shortage::Tables => self.untried == 0,
            Shortage::Resources => is_back,
            Shortage::Port(_) => waits,
        };
        if is_back && shortage != Shortage::Tables {
            // It came first, and still does.
            queue.rotate_right(1);
        }
        if queue.is_empty() {
            self.queues.remove(&shortage);
        }
        if rests {
            self.due.retain(|due| *due != shortage);
        } else {
            // Other shortages that are due come before its next session: accepting may wait for one of them.
            self.due.rotate_left(1);
        }
    }

    /// Warns that a dial waits, at most once per period.
    pub(super) fn warn_of_resources(&mut self, error: &io::Error, now: Instant) {
        if let Some(untold) = self.resources_log.take(now) {
            log::warn!(error:%, untold; "a dial is put off, and accepting with it");
        }
    }

    /// Warns that no source port is left, at most once per period.
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

    /// Serves `waiting` until it is done; sessions in `lack` wait again. Returns the order.
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
    fn a_session_that_waits_again_keeps_its_place() {
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
        assert_eq!(serve(&mut waiting, &mut wheel, &[0, 4]), [0, 1, 2, 4, 5]);
        assert!(waiting.is_awaited(port(1)) && !waiting.is_awaited(port(2)));
        waiting.on_timer(Instant::default(), &mut wheel);
        assert_eq!(serve(&mut waiting, &mut wheel, &[]), [0, 4, 3]);
        assert!(!waiting.lacks_resources() && !waiting.has_due() && waiting.has_timer());
        waiting.on_timer(Instant::default(), &mut wheel);
        assert!(!waiting.has_timer(), "no timer for an empty queue");
    }

    /// The session short of a descriptor waited until the last one short of a port was dialed, and accepting with it.
    #[test]
    fn due_work_takes_turns_whatever_the_length_of_its_queues() {
        let mut wheel = TimerWheel::new(Instant::default());
        let mut waiting = Waiting::new(Instant::default());
        for index in 0..100 {
            waiting.push(key(index), port(1), Instant::default(), &mut wheel);
        }
        waiting.push(key(100), Shortage::Resources, Instant::default(), &mut wheel);
        waiting.push(key(101), port(2), Instant::default(), &mut wheel);
        for shortage in [port(1), Shortage::Resources, port(2)] {
            waiting.note_freed(shortage);
        }
        assert_eq!(serve(&mut waiting, &mut wheel, &[])[..4], [0, 100, 101, 1]);
    }

    /// The first one, of a pool that was replaced twice, had all others wait with it.
    #[test]
    fn each_session_that_waits_for_tables_is_tried_once_though_others_wait_on() {
        let mut wheel = TimerWheel::new(Instant::default());
        let mut waiting = Waiting::new(Instant::default());
        for index in 0..4 {
            waiting.push(key(index), Shortage::Tables, Instant::default(), &mut wheel);
        }
        waiting.note_freed(Shortage::Tables);
        assert_eq!(serve(&mut waiting, &mut wheel, &[0, 2]), [0, 1, 2, 3]);
        assert!(!waiting.has_due() && waiting.is_awaited(Shortage::Tables));
        waiting.push(key(4), Shortage::Tables, Instant::default(), &mut wheel);
        waiting.on_timer(Instant::default(), &mut wheel);
        assert_eq!(serve(&mut waiting, &mut wheel, &[4]), [0, 2, 4]);
        waiting.note_freed(Shortage::Tables);
        assert_eq!(serve(&mut waiting, &mut wheel, &[]), [4]);
        assert!(!waiting.is_awaited(Shortage::Tables));
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
