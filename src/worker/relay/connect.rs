//! Chooses a backend for a session and dials it; on failure the next one. Client bytes stay in the kernel
//! meanwhile, also those of a client that resets (measured on 6.18: recv(2) returns them in front of ECONNRESET, and behind
//! a SO_ERROR that has taken it). So a retry loses nothing; what waits is bounded by one receive buffer for each session,
//! and by the connect timeout of each dial. No dial follows once a backend may have seen a byte.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use crate::base::address::Address;
use crate::base::ready::Ready;
use crate::base::slots::Key;
use crate::messages::command::Command;
use crate::messages::mailbox::Mailbox;
use crate::pool::{Backend, Chosen, Lease, choose};
use crate::session::{CloseReason, Side};
use crate::stats::{DialFailure, WorkerStats};
use crate::sys::{Dial, Kernel, Token, is_exhausted, lacks_port, lacks_resources};
use crate::worker::{FailedDials, Slot, Worker};

impl<K: Kernel> Worker<K> {
    /// Dials backends until a dial is under way. When none is left to try the session waits for a source port towards one
    /// that lacks only that, or is cut.
    pub(in crate::worker) fn choose_and_dial(&mut self, key: Key) {
        if let Some(slot) = self.sessions.get_mut(key) {
            forget_portless(slot);
        }
        while let Some(slot) = self.sessions.get_mut(key) {
            let pool = self.snapshot.pool(slot.listener.pool);
            let (tried, portless) =
                slot.failed.as_ref().map_or((&[][..], 0), |failed| (&failed.tried, failed.portless.len()));
            let client: IpAddr = slot.client_address.ip();
            let may_try = portless <= pool.settings.retries as usize;
            let chosen = match may_try {
                true => choose(pool, self.index, client, tried, &mut self.rng),
                false => Chosen::Nobody,
            };
            let (lease, choice) = match chosen {
                Chosen::Leased(lease, choice) => (lease, choice),
                Chosen::Nobody => return self.go_without(key),
            };
            let Address::Ip(address) = lease.backend().address;
            if self.ports.are_awaited(address) {
                let lease = pass_over(slot, lease);
                self.snapshot.release(lease, self.index);
                continue;
            }
            self.stats.dials.add(1);
            let token = Token::Session(key, Side::Backend);
            let dialed = self.kernel.dial(&lease.backend().address, &pool.settings.tcp);
            if dialed.as_ref().is_err_and(lacks_port) {
                let cause = DialFailure::LocalLimit.index();
                self.stats.dial_failures[cause].add(1);
                lease.backend().stats.of(self.index).dial_failures[cause].add(1);
                let lease = pass_over(slot, lease);
                self.snapshot.release(lease, self.index);
                continue;
            }
            (slot.lease, slot.choice) = (Some(lease), choice.in_epoch(self.snapshot.epoch));
            let watched = dialed.and_then(|socket| {
                let watched = self.kernel.watch(&socket, token);
                slot.backend = Some(socket);
                self.dialed += 1;
                watched
            });
            if let Some(error) = watched.as_ref().err().filter(|error| is_exhausted(error)) {
                return self.put_off_dial(key, error);
            }
            if let Some(failed) = slot.failed.as_ref().filter(|failed| failed.has_blame()) {
                slot.session.on_redial(self.now);
                self.stats.retries.add(1);
                failed.last.stats.of(self.index).retried_away.add(1);
            } else {
                slot.session.on_dial(self.now);
            }
            match watched {
                Ok(()) => return self.arm(key),
                Err(error) => {
                    if !self.give_up_dial(key, &error) {
                        return;
                    }
                }
            }
        }
    }

    /// No backend is left to try.
    fn go_without(&mut self, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        let Some(failed) = &slot.failed else { return self.cut(key, CloseReason::NoBackend) };
        match failed.portless.last() {
            Some(&(_, address)) => self.await_port(key, address),
            None => {
                let reason = failed.reason;
                self.cut(key, reason);
            }
        }
    }

    /// Something has happened to a connection that is being dialed.
    pub(in crate::worker) fn on_dial_event(&mut self, key: Key, ready: Ready) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        let (Some(backend), Some(lease)) = (&slot.backend, &slot.lease) else { return };
        match self.kernel.dial_told(backend, &lease.backend().address, ready) {
            Dial::Pending => {}
            Dial::Connected => {
                slot.session.on_connected(self.now);
                count_connected(&self.stats, self.index, slot);
                let timeouts = slot.listener.settings.timeouts;
                let keepalive = self.snapshot.pool(slot.listener.pool).settings.tcp.keepalive;
                if keepalive.is_some_and(|keepalive| keepalive.idle < timeouts.connect) {
                    self.keep_alive(key);
                }
                self.log_start(key);
                self.drive(key);
            }
            Dial::Lost(error) => {
                slot.session.on_connected(self.now);
                count_connected(&self.stats, self.index, slot);
                self.log_start(key);
                let Some(slot) = self.sessions.get_mut(key) else { return };
                slot.session.on_lost(Side::Backend, error.kind(), self.now);
                self.drive(key);
            }
            Dial::ToItself => self.on_dial_failed(key, &io::ErrorKind::ConnectionRefused.into()),
            Dial::Failed(error) => self.on_dial_failed(key, &error),
        }
    }

    /// Asks for keepalive probes of the backend: once, and late, because few sessions live long enough to need them.
    pub(in crate::worker) fn keep_alive(&mut self, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        let keepalive = self.snapshot.pool(slot.listener.pool).settings.tcp.keepalive;
        let (Some(backend), Some(keepalive), false) = (&slot.backend, keepalive, slot.kept_alive) else {
            return;
        };
        slot.kept_alive = true;
        if let Err(error) = self.kernel.keep_alive(backend, keepalive) {
            log::debug!(error:%; "keepalive: the connection is gone already");
        }
    }

    /// This machine has run out of something: no other backend would fare better now.
    fn put_off_dial(&mut self, key: Key, error: &io::Error) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        let cause = DialFailure::LocalLimit.index();
        self.stats.dial_failures[cause].add(1);
        hang_up(&mut self.kernel, &mut self.dialed, slot);
        if let Some(lease) = slot.lease.take() {
            lease.backend().stats.of(self.index).dial_failures[cause].add(1);
            self.snapshot.release(lease, self.index);
        }
        self.starve(key, error);
    }

    /// The backend was removed before it has seen a byte: the next one, or the end.
    pub(in crate::worker) fn dial_another(&mut self, key: Key) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        hang_up(&mut self.kernel, &mut self.dialed, slot);
        if let Some(lease) = slot.lease.take() {
            remember(slot, lease.backend(), CloseReason::BackendRemoved);
            self.snapshot.release(lease, self.index);
        }
        self.choose_and_dial(key);
    }

    /// A dial has failed: the next backend, or the end.
    pub(in crate::worker) fn on_dial_failed(&mut self, key: Key, error: &io::Error) {
        if self.give_up_dial(key, error) {
            self.choose_and_dial(key);
        }
    }

    /// Leaves the backend that could not be dialed. True when another dial may follow; otherwise the session
    /// has been cut.
    fn give_up_dial(&mut self, key: Key, error: &io::Error) -> bool {
        let Some(slot) = self.sessions.get_mut(key) else { return false };
        let cause = dial_failure(error);
        self.stats.dial_failures[cause.index()].add(1);
        hang_up(&mut self.kernel, &mut self.dialed, slot);
        let reason = close_reason(cause);
        if let Some(lease) = slot.lease.take() {
            lease.backend().stats.of(self.index).dial_failures[cause.index()].add(1);
            remember(slot, lease.backend(), reason);
            // What this machine lacks is not the backend's fault.
            if cause != DialFailure::LocalLimit {
                blame(lease.backend(), &self.mailboxes);
            }
            let backend = &lease.backend().name;
            log::debug!(backend:% = backend, error:%; "dial failed");
            self.snapshot.release(lease, self.index);
        }
        let retries = self.snapshot.pool(slot.listener.pool).settings.retries;
        if slot.session.retries() >= retries {
            self.cut(key, reason);
            return false;
        }
        // Its patience begins here, should this machine have to put the next dial off.
        slot.session.on_dial(self.now);
        true
    }
}

/// Leaves a backend that has not seen a byte.
fn hang_up<K: Kernel>(kernel: &mut K, dialed: &mut u64, slot: &mut Slot<K>) {
    if let Some(socket) = slot.backend.take() {
        *dialed -= 1;
        kernel.reset(socket);
    }
}

impl FailedDials {
    fn new(last: &Arc<Backend>, reason: CloseReason) -> Box<Self> {
        Box::new(Self { tried: Vec::new(), last: Arc::clone(last), reason, portless: Vec::new() })
    }

    /// Whether one of them failed for more than the want of a port.
    fn has_blame(&self) -> bool {
        self.tried.len() > self.portless.len()
    }
}

fn remember<K: Kernel>(slot: &mut Slot<K>, backend: &Arc<Backend>, reason: CloseReason) {
    let failed = slot.failed.get_or_insert_with(|| FailedDials::new(backend, reason));
    failed.tried.push(backend.id);
    failed.last.clone_from(backend);
    failed.reason = reason;
}

/// No source port is left towards the backend: another may be dialed meanwhile. It is not to blame, and this is no dial.
/// Returns the lease, which the caller must release.
fn pass_over<K: Kernel>(slot: &mut Slot<K>, lease: Lease) -> Lease {
    let backend = lease.backend();
    let failed = slot.failed.get_or_insert_with(|| FailedDials::new(backend, CloseReason::LocalLimit));
    failed.tried.push(backend.id);
    let Address::Ip(address) = backend.address;
    failed.portless.push((backend.id, address));
    lease
}

/// Those that were passed over may have a port by now.
fn forget_portless<K: Kernel>(slot: &mut Slot<K>) {
    let Some(failed) = &mut slot.failed else { return };
    let FailedDials { tried, portless, .. } = &mut **failed;
    tried.retain(|id| portless.iter().all(|(passed_over, _)| passed_over != id));
    portless.clear();
    if tried.is_empty() {
        slot.failed = None;
    }
}

/// Tells the worker that checks the backend, unless it has yet to read what it was told before.
fn blame(backend: &Backend, mailboxes: &[Mailbox]) {
    if backend.on_dial_failed() {
        let owner = backend.id.owner(mailboxes.len());
        // A full mailbox loses a hint only: the next check finds the count.
        mailboxes[owner].post(Command::DialFailed(backend.id));
    }
}

/// A backend is connected.
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
        _ => DialFailure::Other,
    }
}

/// How a session ends whose last dial failed so.
fn close_reason(cause: DialFailure) -> CloseReason {
    match cause {
        DialFailure::Refused => CloseReason::ConnectRefused,
        DialFailure::Timeout => CloseReason::ConnectTimeout,
        DialFailure::Unreachable => CloseReason::ConnectUnreachable,
        DialFailure::LocalLimit => CloseReason::LocalLimit,
        DialFailure::Other => CloseReason::ConnectFailed,
    }
}
