//! What an operator asks of the control thread, and how it answers. Whoever asks may wait; the control thread never does.

use std::fmt;
use std::time::Duration;

use log::LevelFilter;
use tokio::sync::oneshot;

use crate::base::address::Address;
use crate::config::model::HealthState;
use crate::pool::{Admin, BackendId};

/// Where an answer is put.
pub type Reply<T> = oneshot::Sender<Result<Done<T>, Refusal>>;

/// What was asked for is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done<T> {
    /// What has come of it.
    pub result: T,
    /// Why it will not survive the process, if it should and is not on the disk.
    pub not_saved: Option<String>,
}

/// Something that is asked for.
#[derive(Debug)]
pub struct Ask {
    /// Who asks, as logs and events name it.
    pub who: String,
    /// What for.
    pub request: Request,
}

/// What is asked for.
#[derive(Debug)]
pub enum Request {
    /// One more backend, or the renewal of its lease.
    Register {
        /// The pool that it is to serve in.
        pool: String,
        /// What it is.
        backend: NewBackend,
        /// Whether it is new.
        reply: Reply<Registered>,
    },
    /// One backend less.
    Deregister {
        /// Which.
        backend: Named,
        /// Whose lease ends; `None` ends all of them.
        holder: Option<String>,
        /// What became of it.
        reply: Reply<Left>,
    },
    /// Another weight, or another administrative state.
    Change {
        /// Which.
        backend: Named,
        /// `None` leaves it as it is.
        weight: Option<u16>,
        /// `None` leaves it as it is.
        admin: Option<Admin>,
        /// It is changed.
        reply: Reply<()>,
    },
    /// A word on its health that its checks do not change; `None` takes it back.
    OverrideHealth {
        /// Which.
        backend: Named,
        /// [`HealthState::Up`] or [`HealthState::Down`].
        health: Option<HealthState>,
        /// It is so.
        reply: Reply<()>,
    },
    /// To be ready, or not, whatever else there is.
    ReadyFail {
        /// Whether it fails.
        fail: bool,
        /// It is so.
        reply: Reply<()>,
    },
    /// Another level of the log.
    LogLevel {
        /// The least severe lines that are written.
        level: LevelFilter,
        /// It is so.
        reply: Reply<()>,
    },
}

/// A backend by the names that people use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its pool.
    pub pool: String,
    /// Its name in there.
    pub backend: String,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool {:?}: backend {:?}", self.pool, self.backend)
    }
}

/// A backend to be registered: legal by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBackend {
    /// Unique within the pool.
    pub name: String,
    /// Where to dial.
    pub address: Address,
    /// 0..=256.
    pub weight: u16,
    /// Serves only when no primary backend is eligible.
    pub backup: bool,
    /// How long its lease is; `None` is for ever.
    pub ttl: Option<Duration>,
    /// Whose lease is renewed.
    pub holder: Option<Holder>,
    /// A lease may take the place of what was to stay, and what is to stay that of the leases of others.
    pub replace: bool,
}

/// Who asks for a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Somebody who has a lease.
    Known(String),
    /// Somebody who has this name, with a lease or without one yet.
    Named(String),
}

/// A backend was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Which it is.
    pub id: BackendId,
    /// False when it was there already and its lease was renewed.
    pub is_new: bool,
    /// Whose lease it is, if it is one.
    pub holder: Option<String>,
}

/// A backend was deregistered, or one of its leases has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Sessions on the backend.
    pub sessions: u32,
    /// False when others have a lease: it stays in its pool.
    pub is_removed: bool,
}

/// Why what was asked for is not done. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It contradicts what there is.
    #[error("{0}")]
    Conflict(String),
    /// It can never be done.
    #[error("{0}")]
    Invalid(String),
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
}
