//! One backend as all threads see it, and the lease that a session holds on it.

use std::sync::Arc;

use crate::base::address::Address;
use crate::base::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use crate::base::own_line::OwnLine;
use crate::config::model::{self, HealthState};
use crate::pool::{BackendId, PoolId};
use crate::stats::{BackendStats, DialFailure};

/// The administrative state of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// It serves, as far as its health allows.
    Ready,
    /// No new sessions; open ones finish, and checks continue.
    Drain,
    /// No new sessions; open ones finish, and checks pause. Its health stays unchanged.
    Maint,
}

impl Admin {
    /// Returns the word for it in commands, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// One backend as all threads see it. Its atomics are independent of each other, so all are `Relaxed`:
/// - `health` has one writer, the worker that owns the probe. A worker that reads an old value for a moment dials a
///   backend that has just gone down, and retries. The builder of a table gets a report, which shows the new value.
/// - `admin`, `weight` and `health_override` have one writer, the control thread, which also builds the tables and so
///   uses what it wrote. A worker that reads an old value for a moment gives the backend a session as if it had chosen
///   a moment earlier. The worker that must end or begin checks is notified by the next epoch, which shows the new
///   value.
/// - `active` is only added to and subtracted from, so nothing is lost.
/// - `stamp` is only exchanged for the one that was seen: of workers that choose the backend at the same moment one
///   gets its turn, and the others look again.
/// - `place` has the writer of `admin`. A worker of an older epoch finds another backend there, and notices it.
/// - `unreported_failures` is raised by any worker and taken by the owner. The worker that raises it from 0 notifies
///   the owner, and later failures are taken together: none stays unreported for longer than until the next check,
///   which takes them too, in case the mailbox of the owner was full.
#[derive(Debug)]
pub struct Backend {
    /// Its id in commands and reports.
    pub id: BackendId,
    /// The pool that it belongs to.
    pub pool: PoolId,
    /// Its name, unique within the pool.
    pub name: String,
    /// The resolved address that sessions and checks dial.
    pub address: Address,
    admin: AtomicU8,
    weight: AtomicU16,
    health: AtomicU8,
    health_override: AtomicU8,
    place: AtomicU32,
    busy: OwnLine<Busy>,
    /// Its counters, over all workers.
    pub stats: BackendStats,
}

/// Data that every session writes, apart from data that every choice reads: a choice that passes over a backend waits
/// for no cache line that another worker has just written. Its reference count is apart from both, because this begins
/// a line.
#[derive(Debug)]
struct Busy {
    active: AtomicU32,
    unreported_failures: AtomicU32,
    stamp: AtomicU64,
}

impl Backend {
    /// Returns a backend in its initial state of health, ready. `workers` is the expected number of workers; there may
    /// be more.
    pub fn new(
        id: BackendId,
        pool: PoolId,
        backend: &model::Backend,
        initial: HealthState,
        workers: usize,
    ) -> Self {
        let initial = if backend.is_resolved() { initial } else { HealthState::Down };
        Self {
            id,
            pool,
            name: backend.name.clone(),
            address: backend.address.clone(),
            admin: AtomicU8::new(Admin::Ready as u8),
            weight: AtomicU16::new(backend.weight),
            health: AtomicU8::new(initial as u8),
            health_override: AtomicU8::new(HealthState::Unknown as u8),
            place: AtomicU32::new(0),
            busy: OwnLine(Busy {
                active: AtomicU32::new(0),
                unreported_failures: AtomicU32::new(0),
                stamp: AtomicU64::new(0),
            }),
            stats: BackendStats::new(workers),
        }
    }

    /// Returns the state that operators last set: ready, drain or maint.
    pub fn admin(&self) -> Admin {
        match self.admin.load(Ordering::Relaxed) {
            x if x == Admin::Ready as u8 => Admin::Ready,
            x if x == Admin::Drain as u8 => Admin::Drain,
            _ => Admin::Maint,
        }
    }

    /// Sets its administrative state, for every choice from now on. Its place in the tables, and its checks, follow
    /// with the next epoch.
    pub fn set_admin(&self, admin: Admin) {
        self.admin.store(admin as u8, Ordering::Relaxed);
    }

    /// Returns its share of new sessions.
    pub fn weight(&self) -> u16 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Sets its weight. From now on no choice takes a backend of weight 0; other weights count from the next epoch's
    /// tables on.
    pub fn set_weight(&self, weight: u16) {
        self.weight.store(weight, Ordering::Relaxed);
    }

    /// Returns whether it can be dialed: its name has an address.
    pub fn is_resolved(&self) -> bool {
        self.address != model::UNRESOLVED
    }

    /// Returns whether it can be dialed and its administrative state allows new sessions, healthy or not.
    pub fn admits(&self) -> bool {
        self.admin() == Admin::Ready && self.weight() > 0 && self.is_resolved()
    }

    /// Returns whether it may get new sessions now.
    pub fn is_eligible(&self) -> bool {
        self.admits() && self.health() != HealthState::Down
    }

    /// Returns its health: as overridden by an operator, or else as its probe last found.
    pub fn health(&self) -> HealthState {
        self.health_override().unwrap_or_else(|| self.checked_health())
    }

    /// Returns its health as its probe last found, whatever the override. Checks must continue from this: judged by an
    /// override, each contradicting result would be a change again.
    pub fn checked_health(&self) -> HealthState {
        health_of(self.health.load(Ordering::Relaxed))
    }

    /// Returns the operator's override of its health.
    pub fn health_override(&self) -> Option<HealthState> {
        match health_of(self.health_override.load(Ordering::Relaxed)) {
            HealthState::Unknown => None,
            known @ (HealthState::Up | HealthState::Down) => Some(known),
        }
    }

    /// Overrides its health, whatever its checks find; `None` ends that. The caller must also build the tables, as for
    /// `admin`.
    pub fn override_health(&self, health: Option<HealthState>) {
        self.health_override.store(health.unwrap_or(HealthState::Unknown) as u8, Ordering::Relaxed);
    }

    /// Must be called by the worker that owns the probe only; all see it at once.
    pub fn set_health(&self, health: HealthState) {
        self.health.store(health as u8, Ordering::Relaxed);
    }

    /// Returns the sessions that hold a lease, dialing ones included.
    pub fn active(&self) -> u32 {
        self.busy.active.load(Ordering::Relaxed)
    }

    /// Returns the number of leases ever given, which includes failed dials.
    pub fn sessions(&self) -> u64 {
        self.stats.leases()
    }

    /// Returns the failed dials that the backend caused.
    pub fn dial_failures(&self) -> u64 {
        let its_own = |(failures, cause)| (cause != DialFailure::LocalLimit).then_some(failures);
        self.stats.dial_failures().into_iter().zip(DialFailure::ALL).filter_map(its_own).sum()
    }

    /// Counts a failed dial against it. Returns true when the caller must notify the owner of the probe, because it has
    /// not been notified since it last took the count.
    pub fn on_dial_failed(&self) -> bool {
        self.busy.unreported_failures.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Returns how many dials failed since the last call. Must be called by the owner of the probe only.
    pub fn take_dial_failures(&self) -> u32 {
        self.busy.unreported_failures.swap(0, Ordering::Relaxed)
    }

    /// Returns the stamp of the last claim; see [`Members::stamp`](crate::balance::Members::stamp).
    pub fn stamp(&self) -> u64 {
        self.busy.stamp.load(Ordering::Relaxed)
    }

    /// See [`Members::claim`](crate::balance::Members::claim).
    pub fn claim(&self, seen: u64, next: u64) -> bool {
        self.busy.stamp.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Returns its index among the backends of the newest epoch of its pool.
    pub fn place(&self) -> usize {
        self.place.load(Ordering::Relaxed) as usize
    }

    /// Must be called by the builder of the tables only.
    pub fn set_place(&self, place: usize) {
        // An index that does not fit finds another backend, which the reader notices.
        self.place.store(u32::try_from(place).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Returns a lease for one more session of `worker`; it must be released at the end of the session.
    pub fn lease(self: &Arc<Self>, worker: usize) -> Lease {
        self.lease_over_load(worker).0
    }

    /// The same, and the sessions that it had before.
    pub(super) fn lease_over_load(self: &Arc<Self>, worker: usize) -> (Lease, u32) {
        let load = self.busy.active.fetch_add(1, Ordering::Relaxed);
        self.stats.of(worker).leases.add(1);
        (Lease { backend: Arc::clone(self) }, load)
    }
}

fn health_of(stored: u8) -> HealthState {
    match stored {
        x if x == HealthState::Up as u8 => HealthState::Up,
        x if x == HealthState::Down as u8 => HealthState::Down,
        _ => HealthState::Unknown,
    }
}

/// One session's place on a backend. Only a lease changes [`Backend::active`].
#[must_use = "a lease counts as a session until it is released"]
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
}

impl Lease {
    /// Returns the backend on which the lease counts a session.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Must be called when the session has left the backend.
    pub fn release(self) {}
}

impl Drop for Lease {
    fn drop(&mut self) {
        let before = self.backend.busy.active.fetch_sub(1, Ordering::Relaxed);
        // A panic in progress is more useful than the wrong count that it leaves.
        debug_assert!(
            before > 0 || std::thread::panicking(),
            "{}: released more leases than were given",
            self.backend.name
        );
    }
}
