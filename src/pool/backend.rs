//! One backend as all threads see it, and the lease that a session holds on it.

use std::sync::Arc;

use crate::base::address::Address;
use crate::base::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use crate::base::own_line::OwnLine;
use crate::config::model::{self, HealthState};
use crate::pool::{Admin, Advice, AgentWeight, BackendId, PoolId};
use crate::stats::{BackendStats, DialFailure};

/// One backend as all threads see it. Its atomics are independent of each other, so all are `Relaxed`:
/// - `health` has one writer, the worker that owns the probe. A worker that reads an old value for a moment dials a
///   backend that has just gone down, and retries. The builder of a table gets a report, which shows the new value.
/// - `admin`, `weight` and `ruling` have one writer, the control thread, which also builds the tables and so uses what
///   it wrote. They are the outcome of `parties`, which it alone writes too. A worker that reads an old value for a
///   moment gives the backend a session as if it had chosen a moment earlier. The worker that must end or begin checks
///   is notified by the next epoch, which shows the new value.
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
    /// The health that holds whatever checks find: [`HealthState::Unknown`] if there is none.
    ruling: AtomicU8,
    place: AtomicU32,
    parties: Parties,
    busy: OwnLine<Busy>,
    /// Its counters, over all workers. One at another address that continues it has the same.
    pub stats: Arc<BackendStats>,
}

/// What an operator, the origin and the agent of a backend say of it, each for itself. No choice reads them.
#[derive(Debug)]
struct Parties {
    /// The administrative state that an operator has set.
    admin: AtomicU8,
    /// The weight that an operator has set, or else that of its origin.
    weight: AtomicU16,
    /// Whether an operator has set it: 1 if so.
    is_weight_held: AtomicU8,
    /// The operator's override of its health; [`HealthState::Unknown`] if there is none.
    health: AtomicU8,
    /// What its agent says, packed.
    agent: AtomicU64,
    /// Whether its health is what the agent says, because no check contradicts: 1 if so.
    is_agent_alone: AtomicU8,
}

/// What an operator sets of a backend; a field that is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Its share of new sessions, 0..=256.
    pub weight: Option<u16>,
    /// Its administrative state.
    pub admin: Option<Admin>,
    /// The override of its health; [`HealthState::Unknown`] ends one.
    pub health: Option<HealthState>,
}

impl Parties {
    fn new(weight: u16) -> Self {
        Self {
            admin: AtomicU8::new(Admin::Ready as u8),
            weight: AtomicU16::new(weight),
            is_weight_held: AtomicU8::new(0),
            health: AtomicU8::new(HealthState::Unknown as u8),
            agent: AtomicU64::new(Advice::NONE.pack()),
            is_agent_alone: AtomicU8::new(0),
        }
    }

    /// Returns what they would say after `setting`.
    fn with(&self, setting: Setting) -> Self {
        let Setting { weight, admin, health } = setting;
        let load = |atomic: &AtomicU8| atomic.load(Ordering::Relaxed);
        Self {
            admin: AtomicU8::new(admin.map_or_else(|| load(&self.admin), |admin| admin as u8)),
            weight: AtomicU16::new(weight.unwrap_or_else(|| self.weight.load(Ordering::Relaxed))),
            is_weight_held: AtomicU8::new(weight.map_or_else(|| load(&self.is_weight_held), |_| 1)),
            health: AtomicU8::new(health.map_or_else(|| load(&self.health), |health| health as u8)),
            agent: AtomicU64::new(self.agent.load(Ordering::Relaxed)),
            is_agent_alone: AtomicU8::new(load(&self.is_agent_alone)),
        }
    }

    fn agent(&self) -> Advice {
        Advice::unpack(self.agent.load(Ordering::Relaxed))
    }

    /// Returns the administrative state: the strictest that anybody asks for.
    fn strictest_admin(&self) -> Admin {
        let operator = Admin::of(self.admin.load(Ordering::Relaxed));
        self.agent().admin.map_or(operator, |agent| agent.max(operator))
    }

    /// Returns the weight: of the operator's or the origin's, what the agent makes of it. A percentage is of either; a
    /// weight in its place is only over that of the origin.
    fn merged_weight(&self) -> u16 {
        let plain = self.weight.load(Ordering::Relaxed);
        let is_held = self.is_weight_held.load(Ordering::Relaxed) == 1;
        match self.agent().weight {
            None => plain,
            Some(AgentWeight::Absolute(_)) if is_held => plain,
            Some(weight) => weight.over(plain),
        }
    }

    /// Returns the health that holds whatever checks find. The operator decides over the agent; the agent may take the
    /// backend down, and brings it up only where no check contradicts.
    fn ruling(&self) -> HealthState {
        let operator = health_of(self.health.load(Ordering::Relaxed));
        let is_alone = self.is_agent_alone.load(Ordering::Relaxed) == 1;
        match (operator, self.agent().health) {
            (HealthState::Up | HealthState::Down, _) => operator,
            (HealthState::Unknown, Some(HealthState::Down)) => HealthState::Down,
            (HealthState::Unknown, Some(HealthState::Up)) if is_alone => HealthState::Up,
            (HealthState::Unknown, Some(HealthState::Up | HealthState::Unknown) | None) => {
                HealthState::Unknown
            }
        }
    }
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
            ruling: AtomicU8::new(HealthState::Unknown as u8),
            place: AtomicU32::new(0),
            parties: Parties::new(backend.weight),
            busy: OwnLine(Busy {
                active: AtomicU32::new(0),
                unreported_failures: AtomicU32::new(0),
                stamp: AtomicU64::new(0),
            }),
            stats: Arc::new(BackendStats::new(workers)),
        }
    }

    /// Returns it with the counters of `former`, which had its name at another address.
    pub(super) fn continuing(self, former: &Self) -> Self {
        let stats = Arc::clone(&former.stats);
        // Those of the former address.
        stats.last_check_nanos.set(0);
        stats.certificate_not_after.set(0);
        stats.last_transition_nanos.set(0);
        Self { stats, ..self }
    }

    /// Returns the state that operators last set: ready, drain or maint.
    pub fn admin(&self) -> Admin {
        Admin::of(self.admin.load(Ordering::Relaxed))
    }

    /// Returns the administrative state that an operator has set; that of its agent may be stricter.
    pub fn operator_admin(&self) -> Admin {
        Admin::of(self.parties.admin.load(Ordering::Relaxed))
    }

    /// Sets its administrative state as an operator does, for every choice from now on, unless its agent is stricter.
    /// Its place in the tables, and its checks, follow with the next epoch.
    pub fn set_admin(&self, admin: Admin) {
        self.parties.admin.store(admin as u8, Ordering::Relaxed);
        self.settle();
    }

    /// Returns its share of new sessions.
    pub fn weight(&self) -> u16 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Returns the weight that an operator has set, or else that of its origin, whatever its agent makes of it.
    pub fn plain_weight(&self) -> u16 {
        self.parties.weight.load(Ordering::Relaxed)
    }

    /// Sets the weight that [`Backend::plain_weight`] returns. From now on no choice takes a backend of weight 0; other
    /// weights count from the next epoch's tables on. Another weight than before is not held, see
    /// [`Backend::hold_weight`].
    pub fn set_weight(&self, weight: u16) {
        if self.parties.weight.swap(weight, Ordering::Relaxed) != weight {
            self.parties.is_weight_held.store(0, Ordering::Relaxed);
        }
        self.settle();
    }

    /// Sets whether an operator has set its weight, so that the agent sets no other in its place.
    pub fn hold_weight(&self, is_held: bool) {
        self.parties.is_weight_held.store(is_held.into(), Ordering::Relaxed);
        self.settle();
    }

    /// Returns whether an operator has set its weight, see [`Backend::hold_weight`].
    pub fn holds_weight(&self) -> bool {
        self.parties.is_weight_held.load(Ordering::Relaxed) == 1
    }

    /// Returns what its agent says.
    pub fn agent(&self) -> Advice {
        self.parties.agent()
    }

    /// Sets what its agent says. With `is_alone` no check finds its health, and the agent decides over it. The caller
    /// must also build the tables, as for `admin`.
    pub fn set_agent(&self, advice: Advice, is_alone: bool) {
        self.parties.agent.store(advice.pack(), Ordering::Relaxed);
        self.parties.is_agent_alone.store(is_alone.into(), Ordering::Relaxed);
        self.settle();
    }

    /// Returns whether [`Backend::set_agent`] would change its state, its weight or its health.
    pub fn changes_by_agent(&self, advice: Advice, is_alone: bool) -> bool {
        let after = self.parties.with(Setting::default());
        after.agent.store(advice.pack(), Ordering::Relaxed);
        after.is_agent_alone.store(is_alone.into(), Ordering::Relaxed);
        (after.strictest_admin(), after.merged_weight(), known(after.ruling()))
            != (self.admin(), self.weight(), self.ruling())
    }

    /// Puts in force what all parties say.
    fn settle(&self) {
        self.admin.store(self.parties.strictest_admin() as u8, Ordering::Relaxed);
        self.weight.store(self.parties.merged_weight(), Ordering::Relaxed);
        self.ruling.store(self.parties.ruling() as u8, Ordering::Relaxed);
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

    /// Returns what `setting` would change of it, in words, one each. Must be called before it is put on.
    pub fn changes_by(&self, setting: Setting) -> Vec<String> {
        let after = self.parties.with(setting);
        let mut changes = Vec::new();
        if let Some(weight) = setting.weight {
            let before = self.plain_weight();
            if weight != before || after.merged_weight() != self.weight() {
                changes.push(format!("weight {before} -> {weight}"));
            }
        }
        let before = self.operator_admin();
        if let Some(admin) = setting.admin.filter(|&admin| admin != before) {
            changes.push(format!("admin state {} -> {}", before.as_str(), admin.as_str()));
        }
        match setting.health.map(known) {
            Some(wanted) if wanted == self.health_override() => {}
            Some(Some(health)) => {
                changes.push(format!("health is {} whatever its checks say", health.as_str()));
            }
            Some(None) => {
                let health = known(after.ruling()).unwrap_or_else(|| self.checked_health());
                changes.push(format!("health is what its checks say: {}", health.as_str()));
            }
            None => {}
        }
        changes
    }

    /// Returns whether it may get new sessions after `setting`.
    pub fn is_eligible_after(&self, setting: Setting) -> bool {
        let after = self.parties.with(setting);
        let health = known(after.ruling()).unwrap_or_else(|| self.checked_health());
        let admits = after.strictest_admin() == Admin::Ready && after.merged_weight() > 0;
        admits && self.is_resolved() && health != HealthState::Down
    }

    /// Returns its health: as an operator or its agent rules, or else as its probe last found.
    pub fn health(&self) -> HealthState {
        self.ruling().unwrap_or_else(|| self.checked_health())
    }

    /// Returns the health that holds whatever its probe finds, because an operator or its agent says so.
    pub fn ruling(&self) -> Option<HealthState> {
        known(health_of(self.ruling.load(Ordering::Relaxed)))
    }

    /// Returns its health as its probe last found, whatever the ruling. Checks must continue from this: judged by a
    /// ruling, each contradicting result would be a change again.
    pub fn checked_health(&self) -> HealthState {
        health_of(self.health.load(Ordering::Relaxed))
    }

    /// Returns the operator's override of its health.
    pub fn health_override(&self) -> Option<HealthState> {
        known(health_of(self.parties.health.load(Ordering::Relaxed)))
    }

    /// Overrides its health, whatever its checks and its agent say; `None` ends that. The caller must also build the
    /// tables, as for `admin`.
    pub fn override_health(&self, health: Option<HealthState>) {
        let stored = health.unwrap_or(HealthState::Unknown);
        self.parties.health.store(stored as u8, Ordering::Relaxed);
        self.settle();
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

const fn known(health: HealthState) -> Option<HealthState> {
    match health {
        HealthState::Unknown => None,
        HealthState::Up | HealthState::Down => Some(health),
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
