//! The events that a worker gets: those of edges, late and in any order, and some that mean nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use l4lb::base::ready::Ready;
use l4lb::sys::{Event, Token};

use super::{Listener, Net, READABLE};
use crate::conn::Conn;
use crate::random::happens;

impl Net {
    /// epoll_wait(2).
    pub(crate) fn wait(&mut self, worker: usize, timeout: Option<Duration>, events: &mut Vec<Event>) {
        self.shortage.begin_turn();
        self.deliver_edges(worker, events);
        // Case 46.
        if happens(&mut self.rng, self.faults.spurious_event) {
            self.deliver_no_event(worker, events);
        }
        if events.is_empty() {
            let most = timeout.map_or(u64::MAX, |span| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
            self.now += self.stride.min(most);
        }
        if happens(&mut self.rng, self.faults.stop) {
            self.now += 1_000_000 << self.rng.below(22);
        }
        for event in events.iter() {
            self.trace.event(self.now, worker, event);
        }
    }

    fn deliver_edges(&mut self, worker: usize, events: &mut Vec<Event>) {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        let edges = self.live.iter().filter_map(|&id| {
            let conn = &self.conns[id];
            conn.token.filter(|_| conn.edge && conn.worker == worker)
        });
        candidates.extend(edges);
        let listeners = self.listeners.iter().filter(|listener| listener.edge && listener.worker == worker);
        candidates.extend(listeners.filter_map(|listener| listener.token));
        if self.wakes[worker].load(Ordering::Relaxed) {
            candidates.push(Token::Wake);
        }
        let most = if happens(&mut self.rng, self.faults.small_batch) { 1 } else { usize::MAX };
        while events.len() < most && !candidates.is_empty() {
            let token = candidates.swap_remove(self.below(candidates.len()));
            if !happens(&mut self.rng, self.faults.late_event) {
                events.extend(self.deliver(worker, token));
            }
        }
        self.candidates = candidates;
    }

    /// Returns the event of an edge; `None` when its subject is over.
    fn deliver(&mut self, worker: usize, token: Token) -> Option<Event> {
        let ready = match token {
            Token::Wake => {
                self.wakes[worker].store(false, Ordering::Relaxed);
                READABLE
            }
            Token::Listener(_) => {
                let is_it =
                    |listener: &&mut Listener| listener.worker == worker && listener.token == Some(token);
                let listener = self.listeners.iter_mut().find(is_it).expect("its edge was seen");
                listener.edge = false;
                if listener.queue.is_empty() { Ready::default() } else { READABLE }
            }
            Token::Session(..) | Token::Probe(_) | Token::Agent(_) => {
                let conn = self.find(worker, token).expect("its edge was seen");
                conn.edge = false;
                let (ready, is_dialing) =
                    (conn.ready(), conn.dialed_port.is_some() && conn.connected_at.is_none());
                self.lose(token, is_dialing, ready)
            }
        };
        (ready != Ready::default()).then_some(Event { token, ready })
    }

    fn find(&mut self, worker: usize, token: Token) -> Option<&mut Conn> {
        let is_it = |&&id: &&usize| {
            let conn = &self.conns[id];
            conn.worker == worker && conn.token == Some(token)
        };
        let id = *self.live.iter().find(is_it)?;
        Some(&mut self.conns[id])
    }

    /// Adds an event that means nothing, is wrong, or belongs to a connection that is over.
    fn deliver_no_event(&mut self, worker: usize, events: &mut Vec<Event>) {
        let old = self.old_tokens.pop_front().filter(|&(of, _)| of == worker);
        let of_worker = |&&id: &&usize| self.conns[id].worker == worker && self.conns[id].token.is_some();
        let watched: Vec<usize> = self.live.iter().filter(of_worker).copied().collect();
        let token = match old {
            Some((_, token)) => {
                // Cases 39 and 40.
                self.stale_told += 1;
                token
            }
            None if watched.is_empty() => return,
            None => {
                let id = watched[self.below(watched.len())];
                self.conns[id].token.expect("it is watched")
            }
        };
        let flags = self.rng.below(16);
        let ready = Ready {
            readable: flags & 1 > 0,
            writable: flags & 2 > 0,
            closing: flags & 4 > 0,
            failing: flags & 8 > 0,
        };
        events.push(Event { token, ready });
    }
}
