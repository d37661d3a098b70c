//! The configuration that l4lb runs: valid by construction, every default filled in. Made only by `config::check`;
//! later code must not check a port, a weight or a name again.

pub(super) mod health;
mod log_target;
pub(super) mod timeouts;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;

pub use health::{
    BackendCheck, Check, CheckTls, Expect, FIRST_CHECK, FurtherCheck, Health, HealthState, OneCheck,
    ScriptStep, Secret,
};
pub use log_target::{Facility, LogTarget, SESSION_FIELDS, Syslog, SyslogHeader};
pub use timeouts::Timeouts;

use super::agent::Agent;
use super::announce::Announce;
use super::discover::Discover;
use super::fleet::Fleet;
use super::proxy::{ProxyIn, ProxyOut};
use super::routing::Routing;
use crate::admission::Access;
use crate::balance::Algorithm;
use crate::base::address::Address;

/// The configuration of one process.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Settings of the whole process.
    pub global: Global,
    /// The admin API and the metrics.
    pub admin: Admin,
    /// The records by which clients find this process, if it keeps any.
    pub announce: Option<Announce>,
    /// What this process publishes for other balancers, if it is one of several.
    pub fleet: Option<Fleet>,
    /// The listeners, at least one.
    pub listeners: Vec<Listener>,
    /// The pools, at least one; a [`Listener::pool`] is an index into it.
    pub pools: Vec<Pool>,
    /// What was known of the host names of backends when they were read.
    pub hosts: Vec<Resolved>,
    /// Notes for the operator from reading the configuration.
    pub notes: Vec<String>,
    /// Stands for the texts of the files that it was read from; 0 where there is none.
    pub digest: u64,
}

/// A socket on which this process accepts: no backend may be one, because sessions would end at this process itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnSocket {
    /// A listener: each session would open the next.
    Listener(SocketAddr),
    /// The admin API: it would be open to every client of a listener.
    Admin(SocketAddr),
    /// The metrics: every client of a listener could read them.
    Metrics(SocketAddr),
}

impl OwnSocket {
    /// Returns the address that the socket is bound to, possibly a wildcard.
    pub fn bind(self) -> SocketAddr {
        let (Self::Listener(bind) | Self::Admin(bind) | Self::Metrics(bind)) = self;
        bind
    }
}

impl fmt::Display for OwnSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Listener(_) => "listener",
            Self::Admin(_) => "admin API",
            Self::Metrics(_) => "metrics address",
        };
        write!(f, "our own {what} {}", self.bind())
    }
}

impl Config {
    /// Returns the name of the pool at this index.
    pub(super) fn pool_name(&self, pool: usize) -> &str {
        self.pools.get(pool).map_or("", |pool| pool.name.as_str())
    }

    /// Returns the sockets on which the process accepts.
    pub fn own_sockets(&self) -> impl Iterator<Item = OwnSocket> + Clone {
        let listeners = self.listeners.iter().map(|listener| OwnSocket::Listener(listener.bind));
        listeners.chain(self.admin.own_sockets())
    }
}

impl Admin {
    /// Returns the TCP sockets of the admin API and the metrics.
    pub fn own_sockets(&self) -> impl Iterator<Item = OwnSocket> + Clone + use<> {
        let metrics = self.metrics.map(OwnSocket::Metrics);
        self.listen.map(OwnSocket::Admin).into_iter().chain(metrics)
    }
}

/// What was known of a host name when the configuration was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The pool that has a backend of that name.
    pub pool: String,
    /// Its source, see [`Discover::label`].
    pub source: String,
    /// Its addresses, at least one; or why it has none.
    pub found: Result<Vec<Address>, String>,
}

/// Stands for the address of a backend with an unresolved name. It cannot be dialed.
pub const UNRESOLVED: Address = Address::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));

/// The treatment of a backend with an unresolved name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// The backend is down until it resolves.
    KeepTrying,
    /// A host that cannot be resolved is a mistake, and the configuration is refused.
    Require,
}

impl Resolve {
    /// All of them, the default first.
    pub const ALL: [Self; 2] = [Self::KeepTrying, Self::Require];

    /// Returns the word for it in config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::KeepTrying => "keep_trying",
        }
    }
}

/// Settings of the whole process.
#[derive(Clone, Debug, PartialEq)]
pub struct Global {
    /// Number of worker threads, each with its own loop.
    pub workers: NonZeroUsize,
    /// Whether worker i is bound to the i-th processor that the process may use.
    pub pin: bool,
    /// Whether splice(2) may be used at all.
    pub splice: bool,
    /// How long a wait may poll before it sleeps, while that pays off; zero never polls.
    pub busy_poll: Duration,
    /// Most sessions at a time over all listeners; `None` takes as many as the open-files limit allows.
    pub max_sessions: Option<NonZeroUsize>,
    /// How long sessions may continue after SIGTERM.
    pub drain_timeout: Duration,
    /// How long accepting continues after SIGTERM, without being ready; zero ends it at once.
    pub shutdown_delay: Duration,
    /// Limit on the time to read the configuration again.
    pub reload_timeout: Duration,
    /// Whether it is read again as soon as its files change.
    pub watch: bool,
    /// The treatment of a backend with an unresolved name.
    pub resolve: Resolve,
    /// The level of the log.
    pub log_level: LevelFilter,
    /// The format of a line.
    pub log_format: LogFormat,
    /// Where lines go.
    pub log_target: LogTarget,
    /// The fields of the lines of sessions and their order, wherever these go; `None` is all.
    pub log_fields: Option<Vec<&'static str>>,
    /// A separate file for the lines of sessions; `None` leaves them among the others.
    pub access_log: Option<AccessLog>,
    /// The log lines of a session, in either place.
    pub session_lines: SessionLines,
    /// The user that a process started as root becomes once it listens; `None` changes nothing.
    pub user: Option<Account>,
}

/// The log lines of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLines {
    /// One as soon as its backend is connected.
    pub at_start: bool,
    /// Whether the end of each session is logged.
    pub at_end: bool,
    /// One per period while it is open.
    pub every: Option<Duration>,
}

impl SessionLines {
    /// Returns `at` as written in the file.
    pub fn at(&self) -> String {
        let words = [(self.at_start, "start"), (self.at_end, "end")];
        let words: Vec<&str> =
            words.into_iter().filter(|(is_there, _)| *is_there).map(|(_, word)| word).collect();
        words.join(",")
    }
}

impl Default for SessionLines {
    fn default() -> Self {
        Self { at_start: false, at_end: true, every: None }
    }
}

/// The file for the lines of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// The path of the file, which is appended to.
    pub path: PathBuf,
    /// The format of a line.
    pub format: LogFormat,
}

/// The account that the process keeps the rights of, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user that l4lb becomes once all listeners are bound.
    pub user: String,
    /// The group; the user's own when `None`.
    pub group: Option<String>,
}

/// The addresses of the admin API and the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admin {
    /// The admin API on a unix socket.
    pub socket: AdminSocket,
    /// The admin API over TCP: a loopback address, which requires a `token_file`.
    pub listen: Option<SocketAddr>,
    /// The file with the token that TCP clients must present.
    pub token_file: Option<PathBuf>,
    /// The file with the token that permits everything but changes, if there is one.
    pub read_token_file: Option<PathBuf>,
    /// The address of the metrics alone, read-only and without a token.
    pub metrics: Option<SocketAddr>,
    /// The file in which registered backends survive a restart.
    pub state_file: Option<PathBuf>,
}

/// The place of the admin API's unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdminSocket {
    /// The first place where `l4lb ctl` looks, unless another process has it.
    #[default]
    Default,
    /// This path, or the process does not start.
    At(PathBuf),
    /// The process has no admin socket.
    Off,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// As time, level, message, key=value.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// All of them, the default first.
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];

    /// Returns the word for it in config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// One address that clients connect to.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its name, unique among the listeners.
    pub name: String,
    /// The address to listen on; an IPv6 wildcard accepts IPv4 clients too.
    pub bind: SocketAddr,
    /// Index into [`Config::pools`].
    pub pool: usize,
    /// Length of the accept queue, per worker; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// The way to assign connections to workers.
    pub accept: Accept,
    /// Most sessions at a time through this listener.
    pub max_sessions: Option<NonZeroUsize>,
    /// Those of the pool, unless the listener has its own.
    pub timeouts: Timeouts,
    /// Time in which a client must have sent its header, and its hello.
    pub preread: Duration,
    /// The clients that are admitted, by the address of their socket; `None` admits all.
    pub access: Option<Arc<Access>>,
    /// The answer to clients that are refused before they are a session.
    pub on_refuse: OnRefuse,
    /// The clients that must begin with a header, if there are any.
    pub proxy_protocol: Option<ProxyIn>,
    /// Its routes to other pools, and what it reads for them, if there are any.
    pub routing: Option<Routing>,
}

impl Listener {
    /// Returns the pools that it serves: indices into [`Config::pools`], its own first.
    pub fn pools(&self) -> impl Iterator<Item = usize> {
        let targets = self.routing.iter().flat_map(|routing| &routing.targets);
        std::iter::once(self.pool).chain(targets.map(|target| target.pool))
    }

    /// Returns whether it differs in no more than the indices of its pools.
    pub fn is_alike(&self, other: &Self) -> bool {
        let without_pools = |listener: &Self| {
            let routing = listener.routing.as_ref().map(Routing::without_pools);
            Self { pool: 0, routing, ..listener.clone() }
        };
        without_pools(self) == without_pools(other)
    }
}

/// The answer to clients that are refused before they are a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRefuse {
    /// A reset.
    Reset,
    /// An end of stream; the kernel makes a reset of it where bytes of the client are unread.
    Close,
}

impl OnRefuse {
    /// All of them, the default first.
    pub const ALL: [Self; 2] = [Self::Reset, Self::Close];

    /// Returns the word for it in config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Close => "close",
        }
    }
}

/// The way to assign connections to workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// To the worker that the kernel chooses, by a hash of its addresses (socket(7), SO_REUSEPORT).
    Reuseport,
    /// To the worker with the fewest sessions.
    Balance,
}

impl Accept {
    /// All of them, the default first.
    pub const ALL: [Self; 2] = [Self::Reuseport, Self::Balance];

    /// Returns the word for it in config and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reuseport => "reuseport",
            Self::Balance => "balance",
        }
    }
}

/// A set of backends and how sessions are spread over them.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name, unique among the pools.
    pub name: String,
    /// The algorithm that picks a backend.
    pub balance: Algorithm,
    /// Dials after a failed first one, each to a backend not tried yet.
    pub retries: u32,
    /// See [`Timeouts`].
    pub timeouts: Timeouts,
    /// Options of the sockets, on both sides.
    pub tcp: Tcp,
    /// The settings of health checks.
    pub health: Health,
    /// The treatment of a client when no backend is eligible.
    pub when_all_down: WhenAllDown,
    /// The way bytes pass from socket to socket.
    pub relay: Relay,
    /// The header that a backend reads before the first byte of its client, if it reads one.
    pub proxy_protocol: Option<ProxyOut>,
    /// The treatment of sessions on a removed backend.
    pub on_remove: OnRemove,
    /// How long drained sessions may continue; the value of the process, unless the pool has its own.
    pub drain_timeout: Duration,
    /// At least one, unless others are discovered. No two have the same name or address.
    pub backends: Vec<Backend>,
    /// Where others come from by themselves. No two ask the same.
    pub discover: Vec<Discover>,
    /// The agents of its backends, if it has any.
    pub agent: Option<Agent>,
}

/// The treatment of a client when no backend is eligible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAllDown {
    /// It is reset at once.
    Close,
    /// Any backend of weight > 0 is dialed, healthy or not.
    TryAnyway,
}

impl WhenAllDown {
    /// Every value, the default first.
    pub const ALL: [Self; 2] = [Self::Close, Self::TryAnyway];

    /// Returns the word for it in config and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::TryAnyway => "try_anyway",
        }
    }
}

/// The treatment of sessions on a removed backend. It gets no new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRemove {
    /// They may continue for [`Pool::drain_timeout`] and are reset then.
    Drain,
    /// Its sessions run until they end by themselves.
    Keep,
    /// They are reset at once.
    Reset,
}

impl OnRemove {
    /// All of them, the default first.
    pub const ALL: [Self; 3] = [Self::Drain, Self::Keep, Self::Reset];

    /// Returns the word for it in config, logs and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Keep => "keep",
            Self::Reset => "reset",
        }
    }
}

/// The way bytes pass from socket to socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// By copy, and by splice(2) while a direction streams.
    Auto,
    /// Through a buffer of this process.
    Copy,
    /// Through a pipe, without a copy into this process.
    Splice,
}

impl Relay {
    /// All of them, the default first.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Copy, Self::Splice];

    /// Returns the word for it in config and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Copy => "copy",
            Self::Splice => "splice",
        }
    }
}

/// Options of the sockets, on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Value of TCP_NODELAY.
    pub nodelay: bool,
    /// SO_KEEPALIVE and its three figures; `None` is off.
    pub keepalive: Option<Keepalive>,
    /// How long a peer may leave sent data and probes unanswered before it counts as dead; with `None` the kernel's own
    /// limit applies (about 15 minutes). Unlike TCP_USER_TIMEOUT it does not end a reader that only pauses.
    pub user_timeout: Option<Duration>,
}

/// When an idle connection is probed by the kernel, see tcp(7). Whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between two keep-alive probes, TCP_KEEPINTVL.
    pub interval: Duration,
    /// Unanswered probes until the connection is dead.
    pub count: u32,
}

/// One server of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Its name, unique within the pool; the address as written when the file has none.
    pub name: String,
    /// The resolved address that sessions and checks dial.
    pub address: Address,
    /// Share of new sessions, 0..=256; 0 gets none.
    pub weight: u16,
    /// Its tier, 0..=15: serves only while no backend of a lower number is eligible.
    pub priority: u8,
    /// What is special about its checks.
    pub check: BackendCheck,
}

impl Backend {
    /// Returns whether it has an address.
    pub fn is_resolved(&self) -> bool {
        self.address != UNRESOLVED
    }
}
