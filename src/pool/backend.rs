//! One backend as all threads see it, and the lease that a session holds on it.

use std::sync::Arc;

use crate::base::address::Address;
use crate::base::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use crate::base::own_line::OwnLine;
use crate::config::model::{self, HealthState};
use crate::pool::{BackendId, PoolId};
use crate::stats::{BackendStats, DialFailure};

/// What an operator lets a backend do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// It serves, as far as its health allows.
    Ready,
    /// No new sessions; those that run finish, and checks go on.
    Drain,
    /// No new sessions; those that run finish, and checks pause. Its health stays what it was.
    Maint,
}

impl Admin {
    /// The word for it in commands, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// One backend as all threads see it. Its atomics are independent of each other, so all are `Relaxed`:
/// - `health` has one writer, the worker that owns the probe. Who sees an old value for a moment dials a backend that
///   has just gone down, and retries. Who is to build a table by it is told by a report, which shows the new one.
/// - `admin`, `weight` and `health_override` have one writer, who also builds the tables and so builds them by what it wrote. A worker that
///   sees an old value for a moment gives the backend a session as if it had chosen that moment earlier. Who is to end
///   or begin checks is told by the epoch published next, which shows the new one.
/// - `active` is only added to and subtracted from, so nothing is lost.
/// - `stamp` is only exchanged for the one that was seen: of workers that choose the backend at the same moment one has
///   its turn, and the others look again.
/// - `place` has the writer of `admin`. A worker of an older epoch finds another backend there, and knows that it does.
/// - `unreported_failures` is raised by whoever has failed and taken by the owner. Who raises it from 0 tells the
///   owner, and what is raised before the owner takes it is taken with it: no failure goes untold for longer than until
///   the next check, which takes them too, should the mailbox of the owner have been full.
#[derive(Debug)]
pub struct Backend {
    /// Names it in commands and reports.
    pub id: BackendId,
    /// The pool that it belongs to.
    pub pool: PoolId,
    /// Unique within the pool.
    pub name: String,
    /// Where to dial.
    pub address: Address,
    admin: AtomicU8,
    weight: AtomicU16,
    health: AtomicU8,
    health_override: AtomicU8,
    place: AtomicU32,
    busy: OwnLine<Busy>,
    /// What else is counted of it, by all workers.
    pub stats: BackendStats,
}

/// What every session writes, apart from what every choice reads: one that passes over a backend waits for no line that
/// another worker has just written. The count of its holders is apart from both, because this begins a line.
#[derive(Debug)]
struct Busy {
    active: AtomicU32,
    unreported_failures: AtomicU32,
    stamp: AtomicU64,
}

impl Backend {
    /// A backend in its initial state of health, ready. So many workers are expected to use it; there may be more.
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

    /// What an operator lets it do.
    pub fn admin(&self) -> Admin {
        match self.admin.load(Ordering::Relaxed) {
            x if x == Admin::Ready as u8 => Admin::Ready,
            x if x == Admin::Drain as u8 => Admin::Drain,
            _ => Admin::Maint,
        }
    }

    /// Heeded by every choice from now on. The next epoch's tables have it again once it is ready again, and with that
    /// epoch checks pause or go on.
    pub fn set_admin(&self, admin: Admin) {
        self.admin.store(admin as u8, Ordering::Relaxed);
    }

    /// Its share of new sessions.
    pub fn weight(&self) -> u16 {
        self.weight.load(Ordering::Relaxed)
    }

    /// No choice from now on takes a backend of weight 0; any other weight counts from the next epoch's tables on.
    pub fn set_weight(&self, weight: u16) {
        self.weight.store(weight, Ordering::Relaxed);
    }

    /// Whether it can be dialed: its name has an address.
    pub fn is_resolved(&self) -> bool {
        self.address != model::UNRESOLVED
    }

    /// Whether it can be dialed and an operator lets it have new sessions at all, healthy or not.
    pub fn admits(&self) -> bool {
        self.admin() == Admin::Ready && self.weight() > 0 && self.is_resolved()
    }

    /// Whether it may have new sessions now.
    pub fn is_eligible(&self) -> bool {
        self.admits() && self.health() != HealthState::Down
    }

    /// Its health: what an operator says, or else what its probe saw last.
    pub fn health(&self) -> HealthState {
        self.health_override().unwrap_or_else(|| self.checked_health())
    }

    /// What its probe saw last, whatever an operator says. Checks go on from this: judged by the word of an operator, each
    /// result that contradicts it would be a change again.
    pub fn checked_health(&self) -> HealthState {
        health_of(self.health.load(Ordering::Relaxed))
    }

    /// What an operator says of its health.
    pub fn health_override(&self) -> Option<HealthState> {
        match health_of(self.health_override.load(Ordering::Relaxed)) {
            HealthState::Unknown => None,
            known @ (HealthState::Up | HealthState::Down) => Some(known),
        }
    }

    /// Its health is this from now on, whatever its checks say; with `None` what they say. Who overrides also builds
    /// the tables, as for `admin`.
    pub fn override_health(&self, health: Option<HealthState>) {
        self.health_override.store(health.unwrap_or(HealthState::Unknown) as u8, Ordering::Relaxed);
    }

    /// Set by the worker that owns the probe, seen by all at once.
    pub fn set_health(&self, health: HealthState) {
        self.health.store(health as u8, Ordering::Relaxed);
    }

    /// Sessions that hold a lease, dialing ones included.
    pub fn active(&self) -> u32 {
        self.busy.active.load(Ordering::Relaxed)
    }

    /// Leases ever given.
    pub fn sessions(&self) -> u64 {
        self.stats.leases()
    }

    /// Dials that failed for a reason of the backend's.
    pub fn dial_failures(&self) -> u64 {
        let its_own = |(failures, cause)| (cause != DialFailure::LocalLimit).then_some(failures);
        self.stats.dial_failures().into_iter().zip(DialFailure::ALL).filter_map(its_own).sum()
    }

    /// Blames a failed dial on it; true when the owner of the probe has to be told, because nobody has told it since
    /// it last took them.
    pub fn on_dial_failed(&self) -> bool {
        self.busy.unreported_failures.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// How many dials failed since the last call. For the owner of the probe.
    pub fn take_dial_failures(&self) -> u32 {
        self.busy.unreported_failures.swap(0, Ordering::Relaxed)
    }

    /// What the last claim has left; see [`Members::stamp`](crate::balance::Members::stamp).
    pub fn stamp(&self) -> u64 {
        self.busy.stamp.load(Ordering::Relaxed)
    }

    /// See [`Members::claim`](crate::balance::Members::claim).
    pub fn claim(&self, seen: u64, next: u64) -> bool {
        self.busy.stamp.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Where it is among the backends of the newest epoch of its pool.
    pub fn place(&self) -> usize {
        self.place.load(Ordering::Relaxed) as usize
    }

    /// Set by who builds the tables.
    pub fn set_place(&self, place: usize) {
        // A place that does not fit is none: who looks there finds somebody else.
        self.place.store(u32::try_from(place).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// One more session on this backend, of `worker`, until the lease is released.
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

/// One session's place on a backend: the only thing that raises and lowers [`Backend::active`].
#[must_use = "a lease counts as a session until it is released"]
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
}

impl Lease {
    /// The backend that it is on.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// The session has left the backend.
    pub fn release(self) {}
}

impl Drop for Lease {
    fn drop(&mut self) {
        let before = self.backend.busy.active.fetch_sub(1, Ordering::Relaxed);
        // A panic that is under way tells more than the count that it leaves wrong.
        debug_assert!(
            before > 0 || std::thread::panicking(),
            "{}: released more leases than were given",
            self.backend.name
        );
    }
}
