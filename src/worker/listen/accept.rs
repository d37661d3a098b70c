//! Accepts connections from the accept queues, and from other workers: limits are checked here, before any resource is
//! spent on a client.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::config::model::{Accept, OnRefuse};
use crate::pool::{Listener, Snapshot};
use crate::stats::{PauseReason, RefuseReason};
use crate::sys::{Kernel, concerns_one_connection, lacks_resources};
use crate::worker::admission::Full;
use crate::worker::core::{Core, Timer};
use crate::worker::dispatch::{Arrival, HANDOFF_QUEUE_LEN};
use crate::worker::listen::listener_slot::{PAUSE_BROKEN, PAUSE_FIRST};
use crate::worker::listen::listeners::Listeners;

/// Calls of accept per turn, over all listeners, so that an accept storm leaves time for open sessions.
pub(in crate::worker) const ACCEPTS_PER_TURN: u32 = 64;
/// Pauses ended per turn because a session has ended: no more listeners than may be accepted from.
const RESUMES_PER_TURN: u32 = ACCEPTS_PER_TURN;
/// Sessions adopted per turn. Must be the length of the queue: the rest might wait for ever, because their wakes are
/// over.
pub(in crate::worker) const ADOPTIONS_PER_TURN: usize = HANDOFF_QUEUE_LEN;
/// Pause at a limit. A session that ends in this worker ends it sooner; one of another worker cannot, nor a place that
/// [`Admission`](crate::worker::Admission) gets back.
const PAUSE_AT_LIMIT: Duration = Duration::from_millis(50);
/// The longest pause when the machine has run out of something.
const PAUSE_LAST: Duration = Duration::from_millis(100);

/// The listeners of a worker, and what other workers have accepted for it.
pub(in crate::worker) struct Acceptor<K: Kernel> {
    pub(super) listeners: Listeners<K>,
    arrivals: Receiver<Arrival<K::Socket>>,
}

/// A connection that has a place among the sessions of this worker, but is not one yet.
pub(in crate::worker) struct Accepted<S> {
    /// The listener that it came through.
    pub(in crate::worker) listener: Arc<Listener>,
    pub(in crate::worker) client: S,
    pub(in crate::worker) peer: SocketAddr,
}

/// Result of one accept at the next ready listener.
pub(in crate::worker) enum Taken<S> {
    /// A connection for this worker.
    Session(Accepted<S>),
    /// None, or one for another worker.
    Nothing,
    /// It is no listener's turn.
    NoneReady,
}

impl<K: Kernel> Acceptor<K> {
    pub(in crate::worker) fn new(arrivals: Receiver<Arrival<K::Socket>>) -> Self {
        Self { listeners: Listeners::default(), arrivals }
    }

    pub(in crate::worker) fn listeners(&self) -> &Listeners<K> {
        &self.listeners
    }

    /// Something has happened to a listener.
    pub(in crate::worker) fn on_event(&mut self, core: &mut Core<K>, index: u32) {
        if !self.listeners.note_readable(index as usize) {
            core.stats.stale_events.add(1);
        }
    }

    /// The pause of a listener is over.
    pub(in crate::worker) fn on_timer(&mut self, core: &mut Core<K>, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.pause = None;
            self.resume_accepting_now(core, index);
        }
    }

    fn resume_accepting_now(&mut self, core: &mut Core<K>, index: usize) {
        self.watch_listener(core, index);
        self.listeners.queue_if_ready(index);
    }

    /// Ends pauses, the longest first: a session has ended, so a place and descriptors are free again.
    pub(in crate::worker) fn resume_accepting(&mut self, core: &mut Core<K>) {
        for _ in 0..RESUMES_PER_TURN {
            let Some((index, timer)) = self.listeners.next_paused() else { return };
            core.wheel.cancel(timer);
            self.resume_accepting_now(core, index);
        }
    }

    /// Ends the pause of a listener, if it pauses.
    pub(super) fn resume(&mut self, core: &mut Core<K>, index: usize) {
        let paused = self.listeners.get_mut(index).and_then(|listener| listener.pause.take());
        if let Some(timer) = paused {
            core.wheel.cancel(timer);
            self.resume_accepting_now(core, index);
        }
    }

    /// Accepts one connection from the next ready listener, in turn.
    pub(in crate::worker) fn accept_next(&mut self, core: &mut Core<K>) -> Taken<K::Socket> {
        let Some(index) = self.listeners.next_ready() else { return Taken::NoneReady };
        let accepted = self.accept_one(core, index);
        self.listeners.queue_if_ready(index);
        accepted.map_or(Taken::Nothing, Taken::Session)
    }

    /// The connection, if there is one and this worker is to have it.
    fn accept_one(&mut self, core: &mut Core<K>, index: usize) -> Option<Accepted<K::Socket>> {
        let slot = self.listeners.get_mut(index)?;
        if let Some((reason, since)) = slot.held_up.take() {
            core.stats.on_accept_paused(reason, core.now - since);
        }
        // An empty queue needs no place, and no client waits in it.
        if core.admission.is_scarce(&slot.listener) && !core.kernel.has_client(&slot.socket) {
            self.on_accept_error(core, index, &io::ErrorKind::WouldBlock.into());
            return None;
        }
        if let Err(full) = core.admission.enter(&slot.listener) {
            self.pause(core, index, PAUSE_AT_LIMIT, &PauseCause::Limit(full));
            return None;
        }
        match core.kernel.accept(&slot.socket) {
            Ok((client, peer)) => {
                slot.next_pause = PAUSE_FIRST;
                let is_late = || {
                    let listener = &slot.listener;
                    listener.awaits_more(peer.ip()) && !core.admission.enter_opening(listener)
                };
                let refused = slot.refuses(peer.ip());
                if let Some(reason) = refused.or_else(|| is_late().then_some(RefuseReason::PrereadLimit)) {
                    self.refuse(core, index, client, (peer, reason));
                    return None;
                }
                let (listener, accept) = (Arc::clone(&slot.listener), slot.accept());
                listener.stats().of(core.index).accepted.add(1);
                core.stats.accepted.add(1);
                self.count_down_queue(core, index);
                place(core, accept, Accepted { listener, client, peer })
            }
            Err(error) => {
                core.admission.leave(&slot.listener);
                self.on_accept_error(core, index, &error);
                None
            }
        }
    }

    /// Ends a client that may not connect here. It was no session, and gives its place back.
    fn refuse(
        &mut self,
        core: &mut Core<K>,
        index: usize,
        client: K::Socket,
        (peer, reason): (SocketAddr, RefuseReason),
    ) {
        let Some(slot) = self.listeners.get_mut(index) else { return core.kernel.reset(client) };
        match slot.listener.settings.on_refuse {
            OnRefuse::Reset => core.kernel.reset(client),
            OnRefuse::Close => core.kernel.close(client),
        }
        core.admission.leave(&slot.listener);
        slot.listener.stats().of(core.index).turned_away[reason.index()].add(1);
        if let Some(untold) = slot.refusal_log.take(core.now) {
            let (name, reason) = (&slot.listener.settings.name, reason.as_str());
            log::warn!(listener:% = name, client:% = peer, reason, untold; "a client is refused");
        }
        self.count_down_queue(core, index);
    }

    fn on_accept_error(&mut self, core: &mut Core<K>, index: usize, error: &io::Error) {
        let Some(listener) = self.listeners.get_mut(index) else { return };
        if error.kind() == io::ErrorKind::WouldBlock {
            listener.readable = false;
            if listener.is_closing() {
                self.stop_listening(core, index);
            }
            return;
        }
        core.stats.accept_errors.add(1);
        if lacks_resources(error) {
            let pause = listener.next_pause;
            listener.next_pause = (pause * 2).min(PAUSE_LAST);
            self.pause(core, index, pause, &PauseCause::Exhausted(error));
        } else if !concerns_one_connection(error) {
            self.pause(core, index, PAUSE_BROKEN, &PauseCause::Broken(error));
        }
    }

    fn pause(&mut self, core: &mut Core<K>, index: usize, pause: Duration, cause: &PauseCause<'_>) {
        let Some(listener) = self.listeners.get_mut(index) else { return };
        let reason = cause.reason();
        core.stats.accept_pauses[reason.index()].add(1);
        listener.held_up = Some((reason, core.now));
        if let Some(untold) = listener.pause_log.take(core.now) {
            let (name, cause) = (&listener.listener.settings.name, cause.to_string());
            log::warn!(listener:% = name, cause, untold; "accepting is paused, clients wait in the queue");
        }
        let timer = core.wheel.arm(core.now + pause, Timer::Accept(index));
        self.listeners.pause(index, timer);
    }

    /// The next of those that other workers have handed over, and what the one that has accepted it runs.
    pub(in crate::worker) fn next_arrival(
        &mut self,
        core: &Core<K>,
    ) -> Option<(Arc<Snapshot>, Accepted<K::Socket>)> {
        let Arrival { snapshot, listener, client, address } = self.arrivals.try_recv().ok()?;
        core.stats.adopted.add(1);
        Some((snapshot, Accepted { listener, client, peer: address }))
    }
}

/// Counts a session with the worker that is to have it. Returns it if that is this one.
fn place<K: Kernel>(
    core: &Core<K>,
    accept: Accept,
    accepted: Accepted<K::Socket>,
) -> Option<Accepted<K::Socket>> {
    match accept {
        Accept::Reuseport => {
            core.dispatcher.keep();
            Some(accepted)
        }
        Accept::Balance => {
            let Accepted { listener, client, peer } = accepted;
            let snapshot = Arc::clone(&core.snapshot);
            match core.dispatcher.spread(Arrival { snapshot, listener, client, address: peer }) {
                Some(Arrival { listener, client, address, .. }) => {
                    Some(Accepted { listener, client, peer: address })
                }
                None => {
                    core.stats.handed_over.add(1);
                    None
                }
            }
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
    use crate::worker::Worker;
    use crate::worker::test_worker::Bench;

    fn connect(address: SocketAddr, clients: u32) -> Vec<TcpStream> {
        (0..clients).map(|_| TcpStream::connect(address).unwrap()).collect()
    }

    /// Each of 4,000 listeners was looked at three times per turn, which made a request three times as expensive.
    #[test]
    fn a_turn_looks_at_no_listener_to_which_nothing_has_happened() {
        let mut bench = Bench::with_listeners("retries = 1", 3);
        let (client, served) = bench.session();
        let (walks, mut byte) = (bench.worker.acceptor.listeners.walks.get(), [0]);
        for _ in 0..10 {
            for (mut from, mut to) in [(&client, &served), (&served, &client)] {
                let given = |worker: &Worker<_>| {
                    let [to_backend, to_client] = &worker.core.stats.taken;
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
        assert_eq!(bench.worker.acceptor.listeners.walks.get(), walks);
        bench.worker.audit();
        drop(another);
    }

    /// The bound was per listener: two stormed listeners made a turn twice as long.
    #[test]
    fn all_listeners_share_the_bound_of_a_turn() {
        let mut bench = Bench::with_listeners("retries = 1", 3);
        let [one, other, quiet] = bench.addresses[..] else { panic!("three listeners") };
        bench.turn_until(|worker| !worker.acceptor.listeners.has_ready());
        let waiting = [connect(one, 80), connect(other, 40), connect(quiet, 1)];
        let (mut turns, mut accepted) = (Vec::new(), 0);
        while accepted < 121 {
            bench.turn_at_once();
            let now = bench.worker.core.stats.accepted.get();
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
        bench.turn_until(|worker| !worker.acceptor.listeners.has_ready());
        let (_many, one) = (connect(stormed, 120), connect(quiet, 1));
        let one = one[0].local_addr().unwrap();
        bench.turn_at_once();
        let worker = &bench.worker;
        let has = |place| worker.relay.at(place).is_some_and(|(_, slot)| slot.client() == one);
        assert!((0..worker.relay.places()).any(has), "of {} accepted", worker.core.stats.accepted.get());
    }
}
