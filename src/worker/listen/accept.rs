//! Takes connections from the accept queues, and from other workers: limits decide here, before anything is spent on a
//! client.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::model::Accept;
use crate::pool::{Choice, Listener};
use crate::session::{CloseReason, Session, Side, Timeouts};
use crate::stats::PauseReason;
use crate::sys::{Kernel, Token, concerns_one_connection, lacks_resources};
use crate::worker::admission::Full;
use crate::worker::dispatch::{Arrival, HANDOFF_QUEUE_LEN};
use crate::worker::relay::byte_accounting::Counting;
use crate::worker::relay::conduit::Conduit;
use crate::worker::{Slot, Timer, Worker};

/// Calls of accept in one turn, over all listeners, so that an accept storm leaves time for whoever is connected.
const ACCEPTS_PER_TURN: u32 = 64;
/// Listeners whose pause is ended in one turn because a session has: no more than may be accepted from.
const RESUMES_PER_TURN: u32 = ACCEPTS_PER_TURN;
/// Sessions taken from other workers in one turn. Fewer, and the rest might wait for ever: their wakes are over.
const ADOPTIONS_PER_TURN: usize = HANDOFF_QUEUE_LEN;
/// Pause at a limit. A session that ends in this worker ends it sooner; one of another worker cannot, nor a place
/// that [`Admission`](crate::worker::Admission) has back.
const PAUSE_AT_LIMIT: Duration = Duration::from_millis(50);
/// First pause when the machine has run out of something; doubles each time, up to the longest.
pub(in crate::worker) const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_LAST: Duration = Duration::from_millis(100);
/// Pause after an error that accept(2) should never return.
pub(in crate::worker) const PAUSE_BROKEN: Duration = Duration::from_secs(1);
/// Pauses are told at most that often.
pub(in crate::worker) const PAUSE_LOG_PERIOD: Duration = Duration::from_secs(10);

impl<K: Kernel> Worker<K> {
    pub(in crate::worker) fn on_listener_event(&mut self, index: u32) {
        if !self.listeners.note_readable(index as usize) {
            self.stats.stale_events.add(1);
        }
    }

    pub(in crate::worker) fn on_accept_timer(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.pause = None;
            self.go_on_accepting(index);
        }
    }

    fn go_on_accepting(&mut self, index: usize) {
        self.watch_listener(index);
        self.listeners.queue_if_ready(index);
    }

    /// Ends pauses, the longest first: a session has ended, so there is a place and there are descriptors again.
    pub(in crate::worker) fn resume_accepting(&mut self) {
        for _ in 0..RESUMES_PER_TURN {
            let Some((index, timer)) = self.listeners.next_paused() else { return };
            self.wheel.cancel(timer);
            self.go_on_accepting(index);
        }
    }

    /// Ends the pause of a listener, if it pauses.
    pub(in crate::worker) fn resume(&mut self, index: usize) {
        let paused = self.listeners.get_mut(index).and_then(|listener| listener.pause.take());
        if let Some(timer) = paused {
            self.wheel.cancel(timer);
            self.go_on_accepting(index);
        }
    }

    /// Takes what is in the queues, up to the bound of a turn: from the listeners in turn, one by one.
    pub(in crate::worker) fn accept_all(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.starved.is_empty() {
                return;
            }
            let Some(index) = self.listeners.next_ready() else { return };
            self.accept_one(index);
            self.listeners.queue_if_ready(index);
        }
    }

    fn accept_one(&mut self, index: usize) {
        let Some(slot) = self.listeners.get_mut(index) else { return };
        if let Some((reason, since)) = slot.held_up.take() {
            self.stats.on_accept_paused(reason, self.now - since);
        }
        // A queue that is empty needs no place, and nobody waits in it.
        if self.admission.is_scarce(&slot.listener) && !self.kernel.has_client(&slot.socket) {
            return self.on_accept_error(index, &io::ErrorKind::WouldBlock.into());
        }
        if let Err(full) = self.admission.enter(&slot.listener) {
            self.pause(index, PAUSE_AT_LIMIT, &PauseCause::Limit(full));
            return;
        }
        match self.kernel.accept(&slot.socket) {
            Ok((client, address)) => {
                slot.next_pause = PAUSE_FIRST;
                let (listener, accept) = (Arc::clone(&slot.listener), slot.accept());
                listener.stats().of(self.index).accepted.add(1);
                self.stats.accepted.add(1);
                self.place(accept, listener, client, address);
                self.count_down_queue(index);
            }
            Err(error) => {
                self.admission.leave(&slot.listener);
                self.on_accept_error(index, &error);
            }
        }
    }

    fn on_accept_error(&mut self, index: usize, error: &io::Error) {
        let Some(listener) = self.listeners.get_mut(index) else { return };
        if error.kind() == io::ErrorKind::WouldBlock {
            listener.readable = false;
            if listener.is_closing() {
                self.stop_listening(index);
            }
            return;
        }
        self.stats.accept_errors.add(1);
        if lacks_resources(error) {
            let pause = listener.next_pause;
            listener.next_pause = (pause * 2).min(PAUSE_LAST);
            self.pause(index, pause, &PauseCause::Exhausted(error));
        } else if !concerns_one_connection(error) {
            self.pause(index, PAUSE_BROKEN, &PauseCause::Broken(error));
        }
    }

    fn pause(&mut self, index: usize, pause: Duration, cause: &PauseCause<'_>) {
        let Some(listener) = self.listeners.get_mut(index) else { return };
        let reason = cause.reason();
        self.stats.accept_pauses[reason.index()].add(1);
        listener.held_up = Some((reason, self.now));
        if let Some(untold) = listener.pause_log.take(self.now) {
            let (name, cause) = (&listener.listener.settings.name, cause.to_string());
            log::warn!(listener:% = name, cause, untold; "accepting is paused, clients wait in the queue");
        }
        let timer = self.wheel.arm(self.now + pause, Timer::Accept(index));
        self.listeners.pause(index, timer);
    }

    /// Counts a session with the worker that is to have it, and opens it if that is this one.
    fn place(&mut self, accept: Accept, listener: Arc<Listener>, client: K::Socket, address: SocketAddr) {
        match accept {
            Accept::Reuseport => {
                self.dispatcher.keep();
                self.open(listener, client, address);
            }
            Accept::Balance => {
                let arrival = Arrival { snapshot: Arc::clone(&self.snapshot), listener, client, address };
                match self.dispatcher.spread(arrival) {
                    Some(Arrival { listener, client, address, .. }) => self.open(listener, client, address),
                    None => self.stats.handed_over.add(1),
                }
            }
        }
    }

    /// Opens what other workers have handed over.
    pub(in crate::worker) fn adopt(&mut self) {
        for _ in 0..ADOPTIONS_PER_TURN {
            let Ok(arrival) = self.arrivals.try_recv() else { return };
            let Arrival { snapshot, listener, client, address } = arrival;
            self.stats.adopted.add(1);
            self.run_epoch(snapshot);
            self.open(listener, client, address);
        }
    }

    /// A session begins that is counted already: one slab entry, one dial.
    fn open(&mut self, listener: Arc<Listener>, client: K::Socket, address: SocketAddr) {
        let timeouts = listener.settings.timeouts;
        let pool = &self.snapshot.pool(listener.pool).settings;
        let (tcp, relay) = (&pool.tcp, pool.relay);
        let slot = Slot {
            session: Session::new(
                Timeouts::new(timeouts.connect, timeouts.idle, timeouts.half_close, tcp.user_timeout),
                self.now,
            ),
            client,
            backend: None,
            lease: None,
            choice: Choice::default(),
            conduits: [Conduit::new(relay), Conduit::new(relay)],
            timer: None,
            client_address: address,
            listener,
            failed: None,
            queued: false,
            kept_alive: false,
            counting: Counting::Young,
            line_age: 0,
        };
        let key = self.sessions.insert(slot);
        self.sweep.begin(self.now, &mut self.wheel);
        let slot = self.sessions.get_mut(key).expect("inserted just now");
        match self.kernel.watch(&slot.client, Token::Session(key, Side::Client)) {
            Ok(()) => self.choose_and_dial(key),
            // epoll(7): the system has a limit on watches.
            Err(_) => self.cut(key, CloseReason::LocalLimit),
        }
    }
}

enum PauseCause<'a> {
    Limit(Full),
    Exhausted(&'a io::Error),
    Broken(&'a io::Error),
}

impl PauseCause<'_> {
    fn reason(&self) -> PauseReason {
        match self {
            Self::Limit(Full { of_listener: true, .. }) => PauseReason::ListenerLimit,
            Self::Limit(Full { of_listener: false, .. }) => PauseReason::ProcessLimit,
            Self::Exhausted(_) => PauseReason::Exhausted,
            Self::Broken(_) => PauseReason::Broken,
        }
    }
}

impl std::fmt::Display for PauseCause<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Limit(Full { limit, of_listener: true }) => {
                write!(f, "max_sessions of the listener ({limit})")
            }
            Self::Limit(Full { limit, of_listener: false }) => write!(f, "max_sessions ({limit})"),
            Self::Exhausted(error) | Self::Broken(error) => write!(f, "{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::worker::test_worker::Bench;

    fn connect(address: SocketAddr, clients: u32) -> Vec<TcpStream> {
        (0..clients).map(|_| TcpStream::connect(address).unwrap()).collect()
    }

    /// Each of 4,000 listeners was looked at three times in each turn, which made a request three times as dear.
    #[test]
    fn a_turn_looks_at_no_listener_to_which_nothing_has_happened() {
        let mut bench = Bench::with_listeners("retries = 1", 3);
        let (client, served) = bench.session();
        let (walks, mut byte) = (bench.worker.listeners.walks.get(), [0]);
        for _ in 0..10 {
            for (mut from, mut to) in [(&client, &served), (&served, &client)] {
                let given = |worker: &Worker<_>| {
                    let [to_backend, to_client] = &worker.stats.taken;
                    to_backend.get() + to_client.get()
                };
                let before = given(&bench.worker);
                from.write_all(b"x").unwrap();
                bench.turn_until(|worker| given(worker) > before);
                to.read_exact(&mut byte).unwrap();
            }
        }
        let another = bench.session();
        bench.turn_at_once();
        assert_eq!(bench.worker.listeners.walks.get(), walks);
        bench.worker.audit();
        drop(another);
    }

    /// It was a bound for each listener: two that were stormed made a turn twice as long.
    #[test]
    fn all_listeners_share_the_bound_of_a_turn() {
        let mut bench = Bench::with_listeners("retries = 1", 3);
        let [one, other, quiet] = bench.addresses[..] else { panic!("three listeners") };
        bench.turn_until(|worker| !worker.listeners.has_ready());
        let waiting = [connect(one, 80), connect(other, 40), connect(quiet, 1)];
        let (mut turns, mut accepted) = (Vec::new(), 0);
        while accepted < 121 {
            bench.turn_at_once();
            let now = bench.worker.stats.accepted.get();
            turns.push(now - accepted);
            accepted = now;
            bench.worker.audit();
        }
        assert!(turns.iter().all(|&accepted| accepted <= u64::from(ACCEPTS_PER_TURN)), "{turns:?}");
        drop(waiting);
    }

    #[test]
    fn a_listener_that_is_stormed_does_not_keep_the_others_waiting() {
        let mut bench = Bench::with_listeners("retries = 1", 2);
        let [stormed, quiet] = bench.addresses[..] else { panic!("two listeners") };
        bench.turn_until(|worker| !worker.listeners.has_ready());
        let (_many, one) = (connect(stormed, 120), connect(quiet, 1));
        let one = one[0].local_addr().unwrap();
        bench.turn_at_once();
        let worker = &bench.worker;
        let has = |key| worker.sessions.get(key).is_some_and(|slot| slot.client_address == one);
        assert!(worker.sessions.keys().any(has), "of {}", worker.sessions.len());
    }
}
