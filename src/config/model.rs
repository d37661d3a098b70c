//! The configuration that l4lb runs: legal by construction, every default filled in.
//! Made only by `config::check`; nothing behind it re-checks a port, a weight or a name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::address::Target;
use super::discover::Discover;
use crate::balance::Algorithm;
use crate::base::address::Address;

/// Everything that one process runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What belongs to the whole process.
    pub global: Global,
    /// Where operators and Prometheus reach the process.
    pub admin: Admin,
    /// At least one.
    pub listeners: Vec<Listener>,
    /// At least one; a [`Listener::pool`] is an index into it.
    pub pools: Vec<Pool>,
    /// The backends whose addresses are those of names.
    pub hosts: Vec<Host>,
    /// What was found while it was read, and an operator should hear of.
    pub notes: Vec<String>,
    /// Stands for the texts of the files that it was read from; 0 where there is none.
    pub digest: u64,
}

/// A socket on which this process accepts: no backend may be one, because sessions would end at ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnSocket {
    /// A listener: each session would open the next.
    Listener(SocketAddr),
    /// The admin API: it would be open to whoever reaches a listener.
    Admin(SocketAddr),
    /// The metrics: likewise.
    Metrics(SocketAddr),
}

impl OwnSocket {
    /// Where it is bound.
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
    /// The sockets on which the process accepts.
    pub fn own_sockets(&self) -> impl Iterator<Item = OwnSocket> + Clone {
        let listeners = self.listeners.iter().map(|listener| OwnSocket::Listener(listener.bind));
        listeners.chain(self.admin.own_sockets())
    }
}

impl Admin {
    /// Those of TCP on which operators and Prometheus are answered.
    pub fn own_sockets(&self) -> impl Iterator<Item = OwnSocket> + Clone + use<> {
        let metrics = self.metrics.map(OwnSocket::Metrics);
        self.listen.map(OwnSocket::Admin).into_iter().chain(metrics)
    }
}

/// A backend that is dialed at the address of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its pool.
    pub pool: String,
    /// Its name in there.
    pub backend: String,
    /// What is resolved.
    pub target: Target,
    /// Why it has no address, while that is so: its address is [`UNRESOLVED`] then.
    pub unresolved: Option<String>,
}

/// Stands for the address of a backend whose name does not resolve. Nothing can be dialed there.
pub const UNRESOLVED: Address = Address::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));

/// What becomes of a backend whose name does not resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// The configuration is refused.
    Require,
    /// The backend is down until it resolves.
    KeepTrying,
}

impl Resolve {
    /// All of them, the default first.
    pub const ALL: [Self; 2] = [Self::Require, Self::KeepTrying];

    /// The word for it in config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::KeepTrying => "keep_trying",
        }
    }
}

/// What belongs to the whole process.
#[derive(Clone, Debug, PartialEq)]
pub struct Global {
    /// Threads that relay, each with its own loop.
    pub workers: NonZeroUsize,
    /// Bind worker i to the i-th processor that the process may use.
    pub pin: bool,
    /// Whether splice(2) may be used at all.
    pub splice: bool,
    /// How long a wait may poll before it sleeps, while that pays; zero never does.
    pub busy_poll: Duration,
    /// Most sessions at a time over all listeners; `None` takes what the open-files limit allows.
    pub max_sessions: Option<NonZeroUsize>,
    /// How long sessions may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// How long accepting goes on after SIGTERM, not ready any more; zero ends it at once.
    pub shutdown_delay: Duration,
    /// How long reading the configuration again may take.
    pub reload_timeout: Duration,
    /// Whether it is read again as soon as its files change.
    pub watch: bool,
    /// What becomes of a backend whose name does not resolve.
    pub resolve: Resolve,
    /// The least severe lines that are written.
    pub log_level: LevelFilter,
    /// How a line is written.
    pub log_format: LogFormat,
    /// Where the lines of finished sessions go; `None` leaves them among the others.
    pub access_log: Option<AccessLog>,
    /// Which lines sessions have, wherever those go.
    pub session_lines: SessionLines,
    /// Who a process that starts as root becomes once it listens; `None` changes nothing.
    pub user: Option<Account>,
}

/// Which lines a session has in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLines {
    /// One as soon as its backend is connected.
    pub at_start: bool,
    /// One when it is over.
    pub at_end: bool,
    /// One every so often while it lasts.
    pub every: Option<Duration>,
}

impl SessionLines {
    /// `at` as the file has it.
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

/// Where the lines of finished sessions go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// The file, which is appended to.
    pub path: PathBuf,
    /// How a line is written.
    pub format: LogFormat,
}

/// Whose rights the process keeps, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub user: String,
    /// The group; the user's own when `None`.
    pub group: Option<String>,
}

/// Where operators and Prometheus reach the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admin {
    /// The admin API on a unix socket.
    pub socket: AdminSocket,
    /// The admin API over TCP: a loopback address, and then there is a `token_file`.
    pub listen: Option<SocketAddr>,
    /// Holds the token that TCP clients have to show.
    pub token_file: Option<PathBuf>,
    /// Holds the token that permits everything but changes, if there is one.
    pub read_token_file: Option<PathBuf>,
    /// Metrics alone, read-only, for whoever can reach it.
    pub metrics: Option<SocketAddr>,
    /// Where registered backends survive a restart.
    pub state_file: Option<PathBuf>,
}

/// Where the unix socket of the admin API is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdminSocket {
    /// Where `l4lb ctl` looks first, unless another process has that place.
    #[default]
    Default,
    /// There, or the process does not start.
    At(PathBuf),
    /// Nowhere.
    Off,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Time, level, message, key=value.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// All of them, the default first.
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];

    /// The word for it in config.
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
    /// Unique among the listeners.
    pub name: String,
    /// The address to listen on; an IPv6 wildcard takes IPv4 clients too.
    pub bind: SocketAddr,
    /// Index into [`Config::pools`].
    pub pool: usize,
    /// Connections that wait to be accepted, per worker; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// Which worker serves a connection.
    pub accept: Accept,
    /// Most sessions at a time through this listener.
    pub max_sessions: Option<NonZeroUsize>,
    /// Those of the pool, unless the listener names its own.
    pub timeouts: Timeouts,
}

/// Which worker serves a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// The one that the kernel gives it to, by a hash of its addresses (socket(7), SO_REUSEPORT).
    Reuseport,
    /// The one that has the fewest sessions.
    Balance,
}

impl Accept {
    /// All of them, the default first.
    pub const ALL: [Self; 2] = [Self::Reuseport, Self::Balance];

    /// The word for it in config and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reuseport => "reuseport",
            Self::Balance => "balance",
        }
    }
}

/// How long each phase of a session may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// One dial.
    pub connect: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
    /// Without a byte after one side has ended, unless bytes are on their way to a reader that pauses.
    pub half_close: Duration,
}

/// A set of backends and how sessions are spread over them.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Unique among the pools.
    pub name: String,
    /// How a backend is picked.
    pub balance: Algorithm,
    /// Dials after a failed first one, each to a backend not tried yet.
    pub retries: u32,
    /// See [`Timeouts`].
    pub timeouts: Timeouts,
    /// Options of the sockets, on both sides.
    pub tcp: Tcp,
    /// How backends are checked.
    pub health: Health,
    /// What a client gets when no backend is eligible.
    pub when_all_down: WhenAllDown,
    /// How bytes pass from socket to socket.
    pub relay: Relay,
    /// What becomes of the sessions of a backend that is removed.
    pub on_remove: OnRemove,
    /// How long they may go on where they are drained; that of the process, unless the pool has its own.
    pub drain_timeout: Duration,
    /// At least one, unless others are discovered. No two have the same name or address.
    pub backends: Vec<Backend>,
    /// Where others come from by themselves. No two ask the same.
    pub discover: Vec<Discover>,
}

/// What a client gets when no backend is eligible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAllDown {
    /// A reset, at once.
    Close,
    /// A dial to any backend of weight > 0, healthy or not.
    TryAnyway,
}

impl WhenAllDown {
    /// Both, the default first.
    pub const ALL: [Self; 2] = [Self::Close, Self::TryAnyway];

    /// The word for it in config and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::TryAnyway => "try_anyway",
        }
    }
}

/// What becomes of the sessions of a backend that is removed. It gets no new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRemove {
    /// They may go on for [`Pool::drain_timeout`]; who still does then is reset.
    Drain,
    /// They go on.
    Keep,
    /// They are reset at once.
    Reset,
}

impl OnRemove {
    /// All of them, the default first.
    pub const ALL: [Self; 3] = [Self::Drain, Self::Keep, Self::Reset];

    /// The word for it in config, logs and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Keep => "keep",
            Self::Reset => "reset",
        }
    }
}

/// How bytes pass from socket to socket.
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

    /// The word for it in config and logs.
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
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// SO_KEEPALIVE and its three figures; `None` is off.
    pub keepalive: Option<Keepalive>,
    /// How long a peer may leave sent data and probes unanswered until it counts as dead; `None` leaves it to the
    /// kernel (about 15 minutes). Unlike TCP_USER_TIMEOUT it does not end a reader that only pauses.
    pub user_timeout: Option<Duration>,
}

/// When an idle connection is probed by the kernel, see tcp(7). Whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes until the connection is dead.
    pub count: u32,
}

/// How the backends of a pool are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// What one check does.
    pub check: Check,
    /// Of its keys in whose values the file names a variable, what the file has: their values may be secret, and are not shown.
    pub written: BTreeMap<&'static str, String>,
    /// Time between checks of one backend.
    pub interval: Duration,
    /// Time between checks while the state is changing.
    pub fast_interval: Duration,
    /// Longest time that one check may take.
    pub timeout: Duration,
    /// Successes in a row that bring a backend up.
    pub rise: u32,
    /// Failures in a row that take a backend down.
    pub fall: u32,
    /// Each interval is longer or shorter by at most this many percent, 0..=50.
    pub jitter_percent: u8,
    /// Check this port instead of the one that serves.
    pub port: Option<u16>,
    /// The state before the first verdict.
    pub initial_state: HealthState,
}

/// What one check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing: the backend keeps its initial state, and failed dials do not change it.
    Off,
    /// Connects.
    Tcp,
    /// Connects, sends bytes (may be none), waits for an answer.
    SendExpect {
        /// Sent after the connect.
        send: Vec<u8>,
        /// What the answer must hold.
        expect: Expect,
    },
    /// Connects, sends a GET, reads the status.
    Http {
        /// The target of the request, starts with '/'.
        path: String,
        /// The Host header; the backend's address when `None`.
        host: Option<String>,
        /// The status that counts as healthy.
        status: u16,
    },
}

/// What the answer to a check must hold. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It starts with these bytes.
    Prefix(Vec<u8>),
    /// These bytes are somewhere in it.
    Contains(Vec<u8>),
}

/// What is known of a backend's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// Not known yet; serves, and the first verdict decides.
    Unknown,
    /// Serves.
    Up,
    /// Gets no new sessions.
    Down,
}

impl HealthState {
    /// The word for it in config, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// One server of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Unique within the pool; the address as written when the file gives none.
    pub name: String,
    /// Where to dial.
    pub address: Address,
    /// Share of new sessions, 0..=256; 0 gets none.
    pub weight: u16,
    /// Serves only when no primary backend is eligible.
    pub backup: bool,
}

impl Backend {
    /// Whether it has an address.
    pub fn is_resolved(&self) -> bool {
        self.address != UNRESOLVED
    }
}
