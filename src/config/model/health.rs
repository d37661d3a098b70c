//! How backends are checked.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::units::show_duration;
use crate::tls::{Client, ServerName};

/// The settings of a pool's health checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// The kind of a check.
    pub check: Check,
    /// Of its keys in whose values the file names a variable, what the file has: their values may be secret, and are
    /// not shown.
    pub written: BTreeMap<&'static str, String>,
    /// The content of these variables.
    pub secrets: Vec<Secret>,
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
    /// Further checks of the same timing, which must pass too; none where `check` is off.
    pub more: Vec<FurtherCheck>,
}

/// A check of a pool besides the one in its health settings.
#[derive(Clone, Debug, PartialEq)]
pub struct FurtherCheck {
    /// Its name, unique in the pool.
    pub name: String,
    /// The kind of the check.
    pub check: Check,
    /// As in [`Health`].
    pub written: BTreeMap<&'static str, String>,
    /// As in [`Health`].
    pub secrets: Vec<Secret>,
    /// Check this port instead of the one that serves.
    pub port: Option<u16>,
}

/// The content of a variable that the file names in a key of a check. It may be secret: messages name the variable
/// instead.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// The name of the variable.
    pub variable: String,
    /// Its content, not empty.
    pub value: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${{{}}}", self.variable)
    }
}

/// One check of a pool, in whichever place the configuration has it.
#[derive(Clone, Copy, Debug)]
pub struct OneCheck<'h> {
    /// The kind of the check.
    pub check: &'h Check,
    /// The content of variables in its keys.
    pub secrets: &'h [Secret],
    /// Check this port instead of the one that serves.
    pub port: Option<u16>,
    /// Its name, if the pool has several checks.
    pub name: Option<&'h str>,
}

/// The name of the check in `[pool.health]` beside others.
pub const FIRST_CHECK: &str = "health";

impl Health {
    /// Returns the checks that must pass, in this order.
    pub fn checks(&self) -> impl Iterator<Item = OneCheck<'_>> {
        let has_more = !self.more.is_empty();
        let first = OneCheck {
            check: &self.check,
            secrets: &self.secrets,
            port: self.port,
            name: has_more.then_some(FIRST_CHECK),
        };
        let more = self.more.iter().map(|FurtherCheck { name, check, secrets, port, .. }| OneCheck {
            check,
            secrets,
            port: *port,
            name: Some(name),
        });
        std::iter::once(first).chain(more)
    }
}

/// The kind of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// None: the backend keeps its initial state, and failed dials do not change it.
    Off,
    /// Succeeds as soon as a connection is established.
    Tcp,
    /// Connects, sends bytes (may be none), and waits for an answer.
    SendExpect {
        /// The bytes sent after the connect.
        send: Vec<u8>,
        /// The condition that the answer must meet.
        expect: Expect,
    },
    /// Connects, sends a GET, and reads the status.
    Http {
        /// The target of the request, starts with '/'.
        path: String,
        /// The Host header; the backend's address when `None`.
        host: Option<String>,
        /// The status that counts as healthy.
        status: u16,
    },
    /// Connects, and sends and expects in several steps. At least one of them expects something.
    Script(Vec<ScriptStep>),
    /// Sends PING to a Redis server.
    Redis,
    /// Starts a PostgreSQL session up to the request for a password.
    Postgres {
        /// The user that it names.
        user: String,
    },
    /// Logs in to MySQL or MariaDB, without a password.
    Mysql {
        /// The user, who then must be let in.
        user: Option<String>,
    },
    /// Greets an SMTP server.
    Smtp {
        /// The name that it gives itself.
        domain: String,
    },
    /// Asks the health service of gRPC, over HTTP/2 without TLS.
    Grpc {
        /// The service that it asks for; the whole server when empty.
        service: String,
        /// The authority of the request; the backend's address when `None`.
        host: Option<String>,
    },
    /// Connects to an MQTT 3.1.1 broker.
    Mqtt {
        /// The client identifier; the broker chooses one when empty.
        client_id: String,
    },
    /// Runs a program: the absolute path, and its arguments.
    Command(Vec<String>),
    /// Makes a TLS handshake, and another check inside of it. [`Check::Tcp`] is satisfied with the handshake.
    Tls {
        /// How it is made.
        tls: Box<CheckTls>,
        /// The check inside; neither off nor TLS again.
        inside: Box<Check>,
    },
}

/// The TLS of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckTls {
    /// The name that it asks for, and that the certificate must have; when `None` the Host of the check inside, or the
    /// backend's address.
    pub server_name: Option<ServerName<'static>>,
    /// The file with the authorities that it trusts; those of the system when `None`.
    pub ca_file: Option<PathBuf>,
    /// How long before the end of a certificate warnings begin; zero for never.
    pub expires_within: Duration,
    /// Built once from the rest: what it trusts, how it verifies, and which protocols it offers.
    pub client: Client,
}

impl Check {
    /// Returns how it makes TLS, if it does.
    pub fn tls(&self) -> Option<&CheckTls> {
        let Self::Tls { tls, .. } = self else { return None };
        Some(tls)
    }

    /// Returns the word for it in config and API.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Tcp | Self::Script(_) => "tcp",
            Self::SendExpect { .. } => "send_expect",
            Self::Http { .. } => "http",
            Self::Redis => "redis",
            Self::Postgres { .. } => "postgres",
            Self::Mysql { .. } => "mysql",
            Self::Smtp { .. } => "smtp",
            Self::Grpc { .. } => "grpc",
            Self::Mqtt { .. } => "mqtt",
            Self::Tls { inside, .. } if matches!(**inside, Self::Tcp) => "tls",
            Self::Tls { inside, .. } if matches!(**inside, Self::Http { .. }) => "https",
            Self::Tls { inside, .. } => inside.type_name(),
            Self::Command(_) => "command",
        }
    }
}

/// A step of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptStep {
    /// The bytes sent when it begins; may be none.
    pub send: Vec<u8>,
    /// The bytes that must be somewhere in what arrives from then on; none when the next step begins at once.
    pub expect: Vec<u8>,
}

/// The condition that the answer to a check must meet. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It starts with these bytes.
    Prefix(Vec<u8>),
    /// The answer contains these bytes anywhere.
    Contains(Vec<u8>),
}

/// The health of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// Not known yet; serves until the first verdict.
    Unknown,
    /// Eligible for new sessions.
    Up,
    /// Not eligible, unless the pool tries anyway when all are down.
    Down,
}

impl HealthState {
    /// Returns the word for it in config, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// The settings of the checks of one backend that replace those of its pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCheck {
    /// Check this address instead of the one that serves.
    pub address: Option<IpAddr>,
    /// Check this port instead of that of the pool, or the one that serves.
    pub port: Option<u16>,
    /// Time between checks. Timeout and fast interval of the pool are cut to it.
    pub interval: Option<Duration>,
}

impl BackendCheck {
    /// Returns its keys behind their table; `None` where one is not set.
    pub(in crate::config) fn keys(&self) -> [(&'static str, Option<String>); 3] {
        let Self { address, port, interval } = self;
        [
            ("check.address", address.map(|address| address.to_string())),
            ("check.port", port.map(|port| port.to_string())),
            ("check.interval", interval.map(show_duration)),
        ]
    }
}
