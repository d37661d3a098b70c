//! Requests of operators to the control thread, and its answers. The requester may wait; the control thread never does.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use log::LevelFilter;
use tokio::sync::oneshot;

use crate::base::address::Address;
use crate::config::model::HealthState;
use crate::messages::reload::Listening;
use crate::pool::{Admin, BackendId, Setting};

/// Receives the answer to a request.
pub type Reply<T> = oneshot::Sender<Result<Done<T>, Refusal>>;

/// The answer to a request that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done<T> {
    /// The result as far as the control thread knows it.
    pub result: T,
    /// Why the change will be lost with the process, if it should be in the state file and is not.
    pub not_saved: Option<String>,
}

/// A request and its requester.
#[derive(Debug)]
pub struct Ask {
    /// The requester, as logs and events name it.
    pub who: String,
    /// The change that is requested.
    pub request: Request,
}

/// A request of an operator.
#[derive(Debug)]
pub enum Request {
    /// Registers a backend, or renews its lease.
    Register {
        /// Name of the pool to register with.
        pool: String,
        /// The address, the name and the settings to register.
        backend: NewBackend,
        /// Receives whether it is new.
        reply: Reply<Registered>,
    },
    /// Removes a backend, or only the lease of one of its holders.
    Deregister {
        /// Pool and name of the backend to remove.
        backend: Named,
        /// The holder whose lease ends; `None` ends all leases.
        holder: Option<String>,
        /// Receives the number of sessions left on the backend.
        reply: Reply<Left>,
    },
    /// Sets the weight or the administrative state.
    Change {
        /// Pool and name of the backend to change.
        backend: Named,
        /// `None` leaves it unchanged.
        weight: Option<u16>,
        /// `None` leaves it unchanged.
        admin: Option<Admin>,
        /// Receives the confirmation, or the reason of a refusal.
        reply: Reply<()>,
    },
    /// Sets a backend's health until further notice; its checks do not change it. `None` ends that.
    OverrideHealth {
        /// The backend whose health is set.
        backend: Named,
        /// [`HealthState::Up`] or [`HealthState::Down`].
        health: Option<HealthState>,
        /// Receives the confirmation, or the reason of a refusal.
        reply: Reply<()>,
    },
    /// Changes all backends of a set in one step, or none.
    ChangeSet {
        /// The backends, and the change.
        set: ChangeSet,
        /// Receives what has changed of each, in the order of the set.
        reply: Reply<Vec<Changed>>,
    },
    /// Pauses a listener, or makes it listen again.
    Listen {
        /// The listener, and whether it pauses.
        listening: Listening,
        /// Receives the confirmation, or the reason of a refusal.
        reply: Reply<()>,
    },
    /// Sets whether the process reports itself as not ready, regardless of its state.
    ReadyFail {
        /// True for not ready.
        fail: bool,
        /// Receives the confirmation, or the reason of a refusal.
        reply: Reply<()>,
    },
    /// Ends the process.
    Stop {
        /// True resets all sessions at once; false drains first. A drain under way continues.
        now: bool,
        /// Receives how it ends.
        reply: Reply<Stopping>,
    },
    /// Shows counters from now on, in place of since the start. The counters themselves continue.
    ClearCounters {
        /// The counters that are meant.
        scope: Scope,
        /// Receives what was cleared.
        reply: Reply<CountersCleared>,
    },
    /// Dismisses a refused reload.
    Dismiss {
        /// Its number among the refused ones.
        number: u64,
        /// Receives the confirmation, or the reason of a refusal.
        reply: Reply<()>,
    },
    /// Sets the level of the log.
    LogLevel {
        /// The most detailed level that is logged from now on.
        level: LevelFilter,
        /// Receives the confirmation, or the reason of a refusal.
        reply: Reply<()>,
    },
}

/// A backend by the names that people use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Name of the pool that has the backend.
    pub pool: String,
    /// Its name in the pool.
    pub backend: String,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool {:?}: backend {:?}", self.pool, self.backend)
    }
}

/// Counters that were cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountersCleared {
    /// Time from which on they are shown.
    pub since: Timestamp,
    /// Number of backends among them.
    pub backends: usize,
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The process, and all backends.
    All,
    /// The backends of the pool of that name.
    Pool(String),
    /// One backend.
    Backend(Named),
}

/// A change of several backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeSet {
    /// Names and patterns: POOL/BACKEND, or BACKEND where there is one pool.
    pub names: Vec<String>,
    /// The change of each.
    pub setting: Setting,
    /// Another place of each.
    pub placing: Placing,
    /// Permits a pool to lose its last eligible backend by it.
    pub is_forced: bool,
    /// Changes nothing, and answers what would change.
    pub is_dry_run: bool,
}

/// Where an operator puts backends, whatever lists them; a field that is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placing {
    /// The resolved address to dial.
    pub address: Option<Wish<Address>>,
    /// The tier, 0..=15.
    pub priority: Option<Wish<u8>>,
}

/// A setting, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish<T> {
    /// This, in place of what the origin of the backend says.
    To(T),
    /// What its origin says.
    Default,
}

/// What has changed of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its names.
    pub backend: Named,
    /// The changes in words, one each; none where it was so already.
    pub changes: Vec<String>,
}

/// A backend to register. Every field is valid by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBackend {
    /// Its name, unique within the pool.
    pub name: String,
    /// The resolved address that sessions and checks dial.
    pub address: Address,
    /// Its share of new sessions, 0..=256; 0 gives it none.
    pub weight: u16,
    /// Its tier, 0..=15.
    pub priority: u8,
    /// Duration of its lease; `None` for no end.
    pub ttl: Option<Duration>,
    /// The holder of the lease.
    pub holder: Option<Holder>,
    /// Allows a lease to replace a permanent registration, and a permanent one to replace the leases of others.
    pub replace: bool,
}

/// The requester of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A holder that must have a lease.
    Known(String),
    /// A holder of this name, with or without a lease.
    Named(String),
}

/// The result of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The id of the backend, new or known.
    pub id: BackendId,
    /// False when it was there already and its lease was renewed.
    pub is_new: bool,
    /// The holder of its lease, if it has one.
    pub holder: Option<String>,
}

/// The result of a deregistration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Open sessions on the backend.
    pub sessions: u32,
    /// False when other holders have a lease: it stays in its pool.
    pub is_removed: bool,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// Time until it accepts no more connections; `None` when it accepts none already.
    pub drains_in: Option<Duration>,
    /// Time until the sessions that are left are reset.
    pub cut_in: Duration,
}

/// Explains why a request was refused. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The object does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The request contradicts the present state.
    #[error("{0}")]
    Conflict(String),
    /// The request can never succeed.
    #[error("{0}")]
    Invalid(String),
    /// The request may succeed later.
    #[error("{0}")]
    Unavailable(String),
}
