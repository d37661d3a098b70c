//! Chooses a backend for a session and dials it; on failure the next one. Client bytes stay in the kernel meanwhile,
//! even those of a client that resets (measured on 6.18: recv(2) returns them before ECONNRESET, and after a SO_ERROR
//! that has taken it). So a retry loses nothing; the waiting bytes are bounded by one receive buffer per session, and
//! by the connect timeout of each dial. No dial must follow once a backend may have seen a byte.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use crate::base::address::Address;
use crate::base::ready::Ready;
use crate::base::slots::Key;
use crate::messages::command::Command;
use crate::messages::mailbox::Mailbox;
use crate::pool::{Backend, Chosen, Lease, Snapshot, choose};
use crate::session::{CloseReason, Side};
use crate::stats::{DialFailure, PauseReason, WorkerStats};
use crate::sys::{Dial, DialSpec, Kernel, Token, is_exhausted, lacks_port, lacks_resources};
use crate::worker::core::Core;
use crate::worker::relay::slot::{Encryption, FailedDials};
use crate::worker::relay::waiting::Shortage;
use crate::worker::relay::{Relay, Slot};

/// How far a session has come that had no backend.
enum Progress {
    /// A dial is under way.
    Dialing,
    /// This machine lacks something for a dial, or this worker the tables of a change that has begun.
    Short(Shortage),
    /// Ends a session with no backend left to try.
    Over(CloseReason),
}

impl<K: Kernel> Relay<K> {
    /// Takes a session that has no backend as far as it gets now, from its opening or from a wait: until a dial is
    /// under way, until it waits for what this machine lacks, or to its end.
    pub(super) fn proceed(&mut self, core: &mut Core<K>, key: Key) {
        match self.choose_and_dial(core, key) {
            None => {}
            Some(Progress::Dialing) => self.arm(core, key),
            Some(Progress::Short(shortage)) => self.wait_for(core, key, shortage),
            Some(Progress::Over(reason)) => self.cut(core, key, reason),
        }
    }

    /// Dials backends until a dial is under way. `None` when there is no such session any more.
    fn choose_and_dial(&mut self, core: &mut Core<K>, key: Key) -> Option<Progress> {
        forget_portless(self.sessions.get_mut(key)?);
        loop {
            let slot = self.sessions.get_mut(key)?;
            let pool = core.snapshot.pool(slot.pool);
            let (tried, portless) =
                slot.failed.as_ref().map_or((&[][..], 0), |failed| (&failed.tried, failed.portless.len()));
            let client: IpAddr = slot.client().ip();
            let may_try = portless <= pool.settings.retries as usize;
            let chosen = match may_try {
                true => choose(pool, core.index, client, tried, &mut core.rng),
                false => Chosen::NoBackend,
            };
            let (lease, choice) = match chosen {
                Chosen::Leased(lease, choice) => (lease, choice),
                // The part of a change that shows already is no reason to refuse a client.
                Chosen::NoBackend if may_try && may_await(slot, &core.snapshot) && pool.serves() => {
                    return Some(Progress::Short(Shortage::Tables));
                }
                Chosen::NoBackend => return Some(without_backend(slot)),
            };
            let Address::Ip(address) = lease.backend().address;
            if self.waiting.is_awaited(Shortage::Port(address)) {
                let lease = pass_over(slot, lease);
                core.release(lease);
                continue;
            }
            core.stats.dials.add(1);
            let token = Token::Session(key, Side::Backend);
            let dialed =
                core.kernel.dial(&DialSpec { address: &lease.backend().address, tcp: &pool.settings.tcp });
            if dialed.as_ref().is_err_and(lacks_port) {
                let cause = DialFailure::LocalLimit.index();
                core.stats.dial_failures[cause].add(1);
                lease.backend().stats.of(core.index).dial_failures[cause].add(1);
                let lease = pass_over(slot, lease);
                core.release(lease);
                continue;
            }
            (slot.lease, slot.choice) = (Some(lease), choice.in_epoch(core.snapshot.epoch));
            let watched = dialed.and_then(|socket| {
                let watched = core.kernel.watch(&socket, token);
                slot.backend = Some(socket);
                self.dialed += 1;
                watched
            });
            if let Some(error) = watched.as_ref().err().filter(|error| is_exhausted(error)) {
                self.postpone_dial(core, key, error);
                return Some(Progress::Short(Shortage::Resources));
            }
            if let Some(failed) = slot.failed.as_ref().filter(|failed| failed.has_blame()) {
                slot.session.on_redial(core.now);
                core.stats.retries.add(1);
                failed.last.stats.of(core.index).retried_away.add(1);
            } else {
                slot.session.on_dial(core.now);
            }
            let Err(error) = watched else { return Some(Progress::Dialing) };
            if let Some(reason) = self.give_up_dial(core, key, &error) {
                return Some(Progress::Over(reason));
            }
        }
    }

    /// Puts a session behind those that wait for the same. Its connect timeout bounds the wait: tries do not count as
    /// dials.
    fn wait_for(&mut self, core: &mut Core<K>, key: Key, shortage: Shortage) {
        match shortage {
            Shortage::Resources => self.note_starved(core),
            Shortage::Tables => {}
            Shortage::Port(address) => self.waiting.warn_of_ports(address, core.now),
        }
        if self.waiting.push(key, shortage, core.now, &mut core.wheel) {
            self.arm(core, key);
        } else {
            self.refuse(core, key, shortage);
        }
    }

    /// Ends a session that has waited for too long.
    pub(super) fn give_up_waiting(&mut self, core: &mut Core<K>, key: Key) {
        let lacks_tables = self.waiting.is_short_of(key, Shortage::Tables);
        self.refuse(core, key, if lacks_tables { Shortage::Tables } else { Shortage::Resources });
    }

    fn refuse(&mut self, core: &mut Core<K>, key: Key, shortage: Shortage) {
        let Some(slot) = self.sessions.get(key) else { return };
        let reason = match shortage {
            // No backend is to blame.
            Shortage::Resources | Shortage::Port(_) => CloseReason::LocalLimit,
            Shortage::Tables => slot.failed.as_ref().map_or(CloseReason::NoBackend, |failed| failed.reason),
        };
        self.cut(core, key, reason);
    }

    /// The worker runs another epoch.
    pub(in crate::worker) fn on_epoch(&mut self) {
        self.waiting.note_freed(Shortage::Tables);
    }

    /// Accepting waits for sessions that lack resources.
    fn note_starved(&mut self, core: &mut Core<K>) {
        if self.starved_since.is_none() {
            self.starved_since = Some(core.now);
            core.stats.accept_pauses[PauseReason::DialPutOff.index()].add(1);
        }
    }

    /// It is time to try again for those that wait.
    pub(in crate::worker) fn on_waiting_timer(&mut self, core: &mut Core<K>) {
        self.waiting.on_timer(core.now, &mut core.wheel);
    }

    /// Dials for waiting sessions whose shortage may have ended, as many as the turn allows. The next turn dials the
    /// rest.
    pub(in crate::worker) fn serve_waiting(&mut self, core: &mut Core<K>) {
        while self.waiting.has_due()
            && core.turn.take_dial()
            && let Some((key, shortage)) = self.waiting.serve_next()
        {
            // The session may have ended, with its client or by its timeout.
            self.proceed(core, key);
            let waits = self.sessions.get(key).is_some_and(|slot| slot.backend.is_none());
            self.waiting.served(key, shortage, waits);
        }
        if !self.waiting.lacks_resources()
            && let Some(since) = self.starved_since.take()
        {
            core.stats.on_accept_paused(PauseReason::DialPutOff, core.now - since);
        }
    }

    /// Handles an event of a connection that is being dialed.
    pub(super) fn on_dial_event(&mut self, core: &mut Core<K>, key: Key, ready: Ready) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        if slot.origin.request().is_some() {
            return self.await_tls(core, key);
        }
        let (Some(backend), Some(lease)) = (&slot.backend, &slot.lease) else { return };
        let asks_for_tls = slot.origin.encryption() == Encryption::Granted;
        match core.kernel.dial_result_of_event(backend, &lease.backend().address, ready) {
            Dial::Pending => {}
            Dial::Connected if asks_for_tls => self.ask_for_tls(core, key),
            Dial::Connected => {
                self.on_dialed(core, key);
                self.begin_with_header(core, key);
                self.drive(core, key);
            }
            Dial::Lost(error) if asks_for_tls => self.on_dial_failed(core, key, &error),
            Dial::Lost(error) => {
                slot.session.on_connected(core.now);
                count_connected(&core.stats, core.index, slot);
                self.log_start(core, key);
                let Some(slot) = self.sessions.get_mut(key) else { return };
                slot.session.on_lost(Side::Backend, error.kind(), core.now);
                self.drive(core, key);
            }
            Dial::ToItself => self.on_dial_failed(core, key, &io::ErrorKind::ConnectionRefused.into()),
            Dial::Failed(error) => self.on_dial_failed(core, key, &error),
        }
    }

    /// A backend is connected. The session must be driven then.
    pub(super) fn on_dialed(&mut self, core: &mut Core<K>, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        slot.session.on_connected(core.now);
        count_connected(&core.stats, core.index, slot);
        let keepalive = core.snapshot.pool(slot.pool).settings.tcp.keepalive;
        if keepalive.is_some_and(|keepalive| keepalive.idle < slot.session.connect_timeout()) {
            self.keep_alive(core, key);
        }
        self.log_start(core, key);
    }

    /// Enables keepalive probes of the backend: once, and late, because few sessions live long enough to need them.
    pub(super) fn keep_alive(&mut self, core: &mut Core<K>, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        let keepalive = core.snapshot.pool(slot.pool).settings.tcp.keepalive;
        let (Some(backend), Some(keepalive), false) = (&slot.backend, keepalive, slot.kept_alive) else {
            return;
        };
        slot.kept_alive = true;
        if let Err(error) = core.kernel.keep_alive(backend, keepalive) {
            log::debug!(error:%; "keepalive: the connection is gone already");
        }
    }

    /// This machine has run out of a resource: no other backend would fare better now.
    fn postpone_dial(&mut self, core: &mut Core<K>, key: Key, error: &io::Error) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        let cause = DialFailure::LocalLimit.index();
        core.stats.dial_failures[cause].add(1);
        hang_up(&mut core.kernel, &core.stats, &mut self.dialed, slot);
        if let Some(lease) = slot.lease.take() {
            lease.backend().stats.of(core.index).dial_failures[cause].add(1);
            core.release(lease);
        }
        self.waiting.warn_of_resources(error, core.now);
    }

    /// The backend was removed before it has seen a byte: dials the next one, or ends the session.
    pub(super) fn dial_another(&mut self, core: &mut Core<K>, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        hang_up(&mut core.kernel, &core.stats, &mut self.dialed, slot);
        if let Some(lease) = slot.lease.take() {
            remember(slot, lease.backend(), CloseReason::BackendRemoved);
            core.release(lease);
        }
        slot.session.on_undialed(core.now);
        self.proceed(core, key);
    }

    /// A dial has failed: dials the next backend, or ends the session.
    pub(super) fn on_dial_failed(&mut self, core: &mut Core<K>, key: Key, error: &io::Error) {
        match self.give_up_dial(core, key, error) {
            None => self.proceed(core, key),
            Some(reason) => self.cut(core, key, reason),
        }
    }

    /// Leaves the backend that could not be dialed. Returns why the session is to end, unless another dial may follow.
    fn give_up_dial(&mut self, core: &mut Core<K>, key: Key, error: &io::Error) -> Option<CloseReason> {
        let slot = self.sessions.get_mut(key)?;
        let cause = dial_failure(error);
        core.stats.dial_failures[cause.index()].add(1);
        hang_up(&mut core.kernel, &core.stats, &mut self.dialed, slot);
        let reason = close_reason(cause);
        if let Some(lease) = slot.lease.take() {
            lease.backend().stats.of(core.index).dial_failures[cause.index()].add(1);
            remember(slot, lease.backend(), reason);
            // A lack of resources here is not the backend's fault, and one without TLS may serve other clients.
            if !matches!(cause, DialFailure::LocalLimit | DialFailure::TlsRefused) {
                blame(lease.backend(), &core.mailboxes);
            }
            let backend = &lease.backend().name;
            log::debug!(backend:% = backend, error:%; "dial failed");
            core.release(lease);
        }
        // Should this machine have to put the next dial off, the patience with it begins here.
        slot.session.on_undialed(core.now);
        let retries = core.snapshot.pool(slot.pool).settings.retries;
        (slot.session.retries() >= retries).then_some(reason)
    }
}

/// Ends a session for which no backend is left to try, or lets it wait for a source port.
fn without_backend<K: Kernel>(slot: &Slot<K>) -> Progress {
    match &slot.failed {
        None => Progress::Over(CloseReason::NoBackend),
        Some(failed) => match failed.portless.last() {
            Some(&(_, address)) => Progress::Short(Shortage::Port(address)),
            None => Progress::Over(failed.reason),
        },
    }
}

/// Leaves a backend that has not seen a byte of the client.
fn hang_up<K: Kernel>(kernel: &mut K, stats: &WorkerStats, dialed: &mut u64, slot: &mut Slot<K>) {
    if let Some(request) = slot.origin.take_request() {
        stats.on_header_lost(request.unwritten_header());
    }
    if let Some(socket) = slot.backend.take() {
        *dialed -= 1;
        kernel.reset(socket);
    }
}

impl FailedDials {
    fn new(last: &Arc<Backend>, reason: CloseReason) -> Box<Self> {
        let last = Arc::clone(last);
        Box::new(Self { tried: Vec::new(), last, reason, portless: Vec::new(), awaited: None })
    }

    /// Returns whether one of them failed for more than the lack of a port.
    fn has_blame(&self) -> bool {
        self.tried.len() > self.portless.len()
    }
}

fn remember<K: Kernel>(slot: &mut Slot<K>, backend: &Arc<Backend>, reason: CloseReason) {
    let failed = slot.failed.get_or_insert_with(|| FailedDials::new(backend, reason));
    failed.tried.push(backend.id);
    failed.last.clone_from(backend);
    failed.reason = reason;
    failed.awaited = None;
}

/// Returns whether a session without a backend may wait for tables that were announced. After failed dials it
/// waits for one epoch: that it finds none need not be due to a change, and another may always be under way.
fn may_await<K: Kernel>(slot: &mut Slot<K>, snapshot: &Snapshot) -> bool {
    let announced = snapshot.announced();
    match &mut slot.failed {
        Some(failed) => snapshot.epoch < *failed.awaited.get_or_insert(announced),
        None => snapshot.epoch < announced,
    }
}

/// No source port is left towards the backend: another may be dialed meanwhile. It is not to blame, and this counts as
/// no dial. Returns the lease, which the caller must release.
fn pass_over<K: Kernel>(slot: &mut Slot<K>, lease: Lease) -> Lease {
    let backend = lease.backend();
    let failed = slot.failed.get_or_insert_with(|| FailedDials::new(backend, CloseReason::LocalLimit));
    failed.tried.push(backend.id);
    let Address::Ip(address) = backend.address;
    failed.portless.push((backend.id, address));
    lease
}

/// Backends that were passed over may have a port by now.
fn forget_portless<K: Kernel>(slot: &mut Slot<K>) {
    let Some(failed) = &mut slot.failed else { return };
    let FailedDials { tried, portless, .. } = &mut **failed;
    tried.retain(|id| portless.iter().all(|(passed_over, _)| passed_over != id));
    portless.clear();
    if tried.is_empty() {
        slot.failed = None;
    }
}

/// Notifies the worker that checks the backend, unless it has an unread notification already.
fn blame(backend: &Backend, mailboxes: &[Mailbox]) {
    if backend.on_dial_failed() {
        let owner = backend.id.owner(mailboxes.len());
        // A full mailbox only loses a hint: the next check finds the count.
        mailboxes[owner].post(Command::DialFailed(backend.id));
    }
}

fn count_connected<K: Kernel>(stats: &WorkerStats, worker: usize, slot: &Slot<K>) {
    stats.connected.add(1);
    if let Some(lease) = &slot.lease {
        lease.backend().stats.of(worker).connected.add(1);
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours")]
fn dial_failure(error: &io::Error) -> DialFailure {
    if lacks_resources(error) {
        return DialFailure::LocalLimit;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialFailure::Refused,
        io::ErrorKind::TimedOut => DialFailure::Timeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            DialFailure::Unreachable
        }
        // Of no dial: see `postgres`.
        io::ErrorKind::InvalidData => DialFailure::TlsRefused,
        _ => DialFailure::Other,
    }
}

/// Returns the close reason of a session after its last dial failed so.
fn close_reason(cause: DialFailure) -> CloseReason {
    match cause {
        DialFailure::Refused => CloseReason::ConnectRefused,
        DialFailure::Timeout => CloseReason::ConnectTimeout,
        DialFailure::Unreachable => CloseReason::ConnectUnreachable,
        DialFailure::TlsRefused => CloseReason::TlsRefused,
        DialFailure::LocalLimit => CloseReason::LocalLimit,
        DialFailure::Other => CloseReason::ConnectFailed,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::config::model;
    use crate::pool::{Admin, PoolId};
    use crate::worker::Worker;
    use crate::worker::test_worker::Bench;

    /// Drains all backends, as the control thread does with those that leave. Returns the next epoch, in which the pool
    /// has the one that answers under another name.
    fn replaced(bench: &Bench) -> Snapshot {
        let snapshot = &bench.worker.core.snapshot;
        let pool = &snapshot.pools[0];
        let settings = &pool.settings.backends;
        let other = settings.last().map(|last| model::Backend { name: "other".into(), ..last.clone() });
        let next = snapshot.with_backends(pool.id, other.as_slice());
        pool.backends.iter().for_each(|backend| backend.set_admin(Admin::Drain));
        next
    }

    /// It was refused: the backends that leave were drained before its worker knew of those that come.
    #[test]
    fn a_client_that_comes_while_a_list_is_replaced_waits_for_the_new_one() {
        let mut bench = Bench::new("retries = 1");
        let next = replaced(&bench);
        let client = TcpStream::connect(bench.address).unwrap();
        bench.turn_until(|worker| worker.core.stats.accepted.get() == 1);
        for _ in 0..3 {
            bench.turn_at_once();
            bench.worker.audit();
            assert_eq!(waiting(&bench.worker.relay), 1);
        }
        assert!(bench.mailbox.post(Command::Publish(Arc::new(next))));
        bench.turn_until(|worker| worker.core.stats.connected.get() == 1);
        bench.worker.audit();
        drop(client);
    }

    #[test]
    fn a_client_is_refused_at_once_when_no_other_list_is_on_its_way() {
        let mut bench = Bench::new("retries = 1");
        let next = replaced(&bench);
        assert!(bench.mailbox.post(Command::Publish(Arc::new(next.with_backends(PoolId(0), &[])))));
        let client = TcpStream::connect(bench.address).unwrap();
        bench.turn_until(|worker| worker.core.stats.closed[CloseReason::NoBackend.index()].get() == 1);
        bench.worker.audit();
        drop(client);
    }

    /// Its worker awaits a change of something else, as with weights that change all the time.
    #[test]
    fn a_client_of_a_pool_without_backends_is_refused_though_an_epoch_is_announced() {
        let mut bench = Bench::new("retries = 1");
        bench.worker.core.snapshot.backends().for_each(|backend| backend.set_admin(Admin::Drain));
        let mut latest = Arc::new(bench.worker.core.snapshot.refreshed(&[PoolId(0)]));
        assert!(bench.mailbox.post(Command::Publish(Arc::clone(&latest))));
        latest.announce();
        let client = TcpStream::connect(bench.address).unwrap();
        bench.turn_until(|worker| worker.core.stats.accepted.get() == 1);
        for _ in 0..3 {
            bench.turn_at_once();
            latest = Arc::new(latest.refreshed(&[]));
            latest.announce();
            assert!(bench.mailbox.post(Command::Publish(Arc::clone(&latest))));
        }
        assert_eq!(bench.worker.core.stats.closed[CloseReason::NoBackend.index()].get(), 1);
        bench.worker.audit();
        drop(client);
    }

    /// It waited on with each epoch that was announced meanwhile, until the connect timeout.
    #[test]
    fn a_client_whose_dials_have_failed_waits_for_one_epoch() {
        let mut bench = Bench::new("retries = 3");
        let only_dead = bench.worker.core.snapshot.backends().find(|backend| backend.name == "b").cloned();
        only_dead.unwrap().set_admin(Admin::Drain);
        let mut latest = Arc::new(bench.worker.core.snapshot.refreshed(&[PoolId(0)]));
        assert!(bench.mailbox.post(Command::Publish(Arc::clone(&latest))));
        bench.turn_at_once();
        latest.announce();
        let client = TcpStream::connect(bench.address).unwrap();
        bench.turn_until(|worker| waiting(&worker.relay) == 1);
        for _ in 0..2 {
            latest = Arc::new(latest.refreshed(&[]));
            latest.announce();
            assert!(bench.mailbox.post(Command::Publish(Arc::clone(&latest))));
            bench.turn_at_once();
        }
        assert_eq!(bench.worker.core.stats.closed[CloseReason::ConnectRefused.index()].get(), 1);
        bench.worker.audit();
        drop(client);
    }

    /// More than a turn may dial, and no more than wait at a listener.
    const CLIENTS: usize = 100;

    fn waiting<K: Kernel>(relay: &Relay<K>) -> usize {
        let waits = |key: &Key| relay.sessions.get(*key).is_some_and(|slot| slot.backend.is_none());
        relay.sessions.keys().filter(waits).count()
    }

    /// All were dialed in one turn, however many had waited for a descriptor.
    #[test]
    fn a_turn_dials_for_no_more_of_those_that_wait_than_it_may() {
        let mut bench = Bench::new("retries = 1");
        let clients = [(); CLIENTS].map(|()| TcpStream::connect(bench.address).unwrap());
        bench.turn_until(|worker| worker.core.stats.accepted.get() > 0);
        bench.worker.accept_all();
        let Worker { core, relay, .. } = &mut bench.worker;
        for key in relay.sessions.keys().collect::<Vec<_>>() {
            relay.postpone_dial(core, key, &io::ErrorKind::OutOfMemory.into());
            relay.sessions.get_mut(key).unwrap().session.on_undialed(core.now);
            relay.wait_for(core, key, Shortage::Resources);
        }
        assert!(relay.is_starved() && waiting(relay) == CLIENTS, "{} wait", waiting(relay));
        relay.waiting.note_freed(Shortage::Resources);
        let mut left = CLIENTS;
        while left > 0 {
            bench.turn_at_once();
            bench.worker.audit();
            let dialed = left - waiting(&bench.worker.relay);
            assert!((1..=64).contains(&dialed), "{dialed} dialed in a turn, of {left}");
            left -= dialed;
        }
        assert!(!bench.worker.relay.is_starved());
        drop(clients);
    }
}
