//! Takes connections from the accept queues, and from other workers: limits decide here, before anything is spent on a
//! client.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::model::Accept;
use crate::pool::Listener;
use crate::session::{CloseReason, Session, Side, Timeouts};
use crate::stats::PauseReason;
use crate::sys::{Kernel, Token, concerns_one_connection, lacks_resources};
use crate::worker::admission::Full;
use crate::worker::conduit::Conduit;
use crate::worker::count::Counting;
use crate::worker::crew::{Arrival, DESK_LEN};
use crate::worker::listening::ListenerSlot;
use crate::worker::{Slot, Timer, Worker};

/// Connections taken from one listener in one turn, so that an accept storm leaves time for the others.
const ACCEPTS_PER_TURN: u32 = 64;
/// Sessions taken from other workers in one turn. Fewer, and the rest might wait for ever: their wakes are over.
const ADOPTIONS_PER_TURN: usize = DESK_LEN;
/// Pause at a limit. A session that ends in this worker ends it sooner; one of another worker cannot, nor a place
/// that [`Admission`](crate::worker::Admission) has back.
const PAUSE_AT_LIMIT: Duration = Duration::from_millis(50);
/// First pause when the machine has run out of something; doubles each time, up to the longest.
pub(super) const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_LAST: Duration = Duration::from_millis(100);
/// Pause after an error that accept(2) should never return.
pub(super) const PAUSE_BROKEN: Duration = Duration::from_secs(1);
/// Pauses are told at most that often.
pub(super) const PAUSE_LOG_PERIOD: Duration = Duration::from_secs(10);

impl<K: Kernel> Worker<K> {
    pub(super) fn on_listener_event(&mut self, index: u32) {
        match &mut self.listeners[index as usize] {
            Some(listener) => listener.readable = true,
            None => self.stats.stale_events.add(1),
        }
    }

    pub(super) fn on_accept_timer(&mut self, index: usize) {
        if let Some(listener) = &mut self.listeners[index] {
            listener.pause = None;
            self.watch_listener(index);
        }
    }

    /// Ends all pauses: a session has ended, so there is a place and there are descriptors again.
    pub(super) fn resume_accepting(&mut self) {
        for index in 0..self.listeners.len() {
            let Some(listener) = &mut self.listeners[index] else { continue };
            if let Some(timer) = listener.pause.take() {
                self.wheel.cancel(timer);
                self.watch_listener(index);
            }
        }
    }

    /// Takes what is in the queues, up to the bound of a turn.
    pub(super) fn accept_all(&mut self) {
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                let ready = self.listeners[index].as_ref().is_some_and(ListenerSlot::is_ready);
                if !ready || !self.starved.is_empty() {
                    break;
                }
                self.accept_one(index);
            }
        }
    }

    fn accept_one(&mut self, index: usize) {
        let Some(slot) = &mut self.listeners[index] else { return };
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
        let Some(listener) = &mut self.listeners[index] else { return };
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
        let Some(listener) = &mut self.listeners[index] else { return };
        let reason = cause.reason();
        self.stats.accept_pauses[reason.index()].add(1);
        listener.held_up = Some((reason, self.now));
        listener.pause = Some(self.wheel.arm(self.now + pause, Timer::Accept(index)));
        if let Some(untold) = listener.pause_log.take(self.now) {
            let (name, cause) = (&listener.listener.settings.name, cause.to_string());
            log::warn!(listener:% = name, cause, untold; "accepting is paused, clients wait in the queue");
        }
    }

    /// Counts a session with the worker that is to have it, and opens it if that is this one.
    fn place(&mut self, accept: Accept, listener: Arc<Listener>, client: K::Socket, address: SocketAddr) {
        match accept {
            Accept::Reuseport => {
                self.crew.keep();
                self.open(listener, client, address);
            }
            Accept::Balance => {
                let arrival = Arrival { snapshot: Arc::clone(&self.snapshot), listener, client, address };
                match self.crew.spread(arrival) {
                    Some(Arrival { listener, client, address, .. }) => self.open(listener, client, address),
                    None => self.stats.handed_over.add(1),
                }
            }
        }
    }

    /// Opens what other workers have handed over.
    pub(super) fn adopt(&mut self) {
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
            conduits: [Conduit::new(relay), Conduit::new(relay)],
            timer: None,
            client_address: address,
            listener,
            failed: None,
            queued: false,
            kept_alive: false,
            counting: Counting::Young,
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
