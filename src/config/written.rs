//! The tables and keys of the file as `l4lb ctl config --toml` writes them. A key that is `None` is left out, and keeps
//! its default.

use serde::Serialize;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Global {
    pub(super) workers: Option<u32>,
    pub(super) pin: Option<bool>,
    pub(super) splice: Option<bool>,
    pub(super) busy_poll: Option<String>,
    pub(super) max_sessions: Option<u64>,
    pub(super) drain_timeout: Option<String>,
    pub(super) shutdown_delay: Option<String>,
    pub(super) reload_timeout: Option<String>,
    pub(super) watch: Option<bool>,
    pub(super) resolve: Option<&'static str>,
    pub(super) user: Option<String>,
    pub(super) group: Option<String>,
    pub(super) log: Option<Log>,
    pub(super) access_log: Option<AccessLog>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Log {
    pub(super) level: String,
    pub(super) format: &'static str,
    pub(super) target: &'static str,
    pub(super) socket: Option<String>,
    pub(super) facility: Option<&'static str>,
    pub(super) app_name: Option<String>,
    pub(super) header: Option<&'static str>,
    pub(super) fields: Option<Vec<&'static str>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct AccessLog {
    pub(super) path: String,
    pub(super) format: Option<&'static str>,
    pub(super) at: Vec<&'static str>,
    pub(super) every: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Admin {
    pub(super) socket: Option<Switch<String>>,
    pub(super) listen: Option<String>,
    pub(super) token_file: Option<String>,
    pub(super) read_token_file: Option<String>,
    pub(super) metrics: Option<String>,
    pub(super) state_file: Option<String>,
}

/// A value, or `false`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Switch<T> {
    Off(bool),
    On(T),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) bind: String,
    pub(super) pool: String,
    pub(super) backlog: Option<u32>,
    pub(super) accept: Option<&'static str>,
    pub(super) max_sessions: Option<u64>,
    #[serde(skip_serializing_if = "Timeouts::is_default")]
    pub(super) timeouts: Timeouts,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Timeouts {
    pub(super) connect: Option<String>,
    pub(super) idle: Option<String>,
    pub(super) half_close: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) balance: Option<&'static str>,
    pub(super) retries: Option<u32>,
    pub(super) when_all_down: Option<&'static str>,
    pub(super) relay: Option<&'static str>,
    pub(super) on_remove: Option<&'static str>,
    pub(super) drain_timeout: Option<String>,
    #[serde(skip_serializing_if = "Timeouts::is_default")]
    pub(super) timeouts: Timeouts,
    pub(super) tcp: Option<Tcp>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    pub(super) health: Health,
    pub(super) agent: Option<Agent>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) check: Vec<Health>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) backend: Vec<Backend>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) discover: Vec<Discover>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Tcp {
    pub(super) nodelay: bool,
    pub(super) user_timeout: String,
    pub(super) keepalive: Switch<Keepalive>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Keepalive {
    pub(super) idle: String,
    pub(super) interval: String,
    pub(super) count: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ProxyProtocol {
    pub(super) version: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tlvs: Vec<&'static str>,
    pub(super) check: Option<&'static str>,
}

/// `[pool.health]`, and `[[pool.check]]` with a part of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Health {
    pub(super) name: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) send: Option<String>,
    pub(super) expect: Option<String>,
    pub(super) contains: Option<String>,
    pub(super) path: Option<String>,
    pub(super) host: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) user: Option<String>,
    pub(super) domain: Option<String>,
    pub(super) service: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) command: Option<Vec<String>>,
    pub(super) interval: Option<String>,
    pub(super) fast_interval: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) rise: Option<u32>,
    pub(super) fall: Option<u32>,
    pub(super) jitter_percent: Option<u32>,
    pub(super) port: Option<u16>,
    pub(super) initial_state: Option<&'static str>,
    pub(super) tls: Option<Tls>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) steps: Vec<Step>,
}

/// The TLS of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tls {
    pub(super) server_name: Option<String>,
    pub(super) verify: &'static str,
    pub(super) ca_file: Option<String>,
    pub(super) alpn: Option<Vec<String>>,
    pub(super) expires_within: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub(super) send: Option<String>,
    pub(super) expect: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Backend {
    /// Left out where it is empty: the address is the name then.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    pub(super) address: String,
    pub(super) weight: Option<u32>,
    pub(super) priority: Option<u8>,
    pub(super) check: Option<BackendCheck>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct BackendCheck {
    pub(super) address: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) interval: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Discover {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) name: Option<String>,
    pub(super) record: Option<&'static str>,
    pub(super) port: Option<u16>,
    pub(super) resolver: Option<Vec<String>>,
    pub(super) prefer: Option<&'static str>,
    pub(super) path: Option<String>,
    pub(super) url: Option<String>,
    pub(super) token_file: Option<String>,
    pub(super) prefix: Option<String>,
    pub(super) endpoints: Option<Vec<String>>,
    pub(super) user: Option<String>,
    pub(super) password_file: Option<String>,
    pub(super) when_absent: Option<&'static str>,
    pub(super) stale: Option<String>,
    pub(super) obsolete: Option<u32>,
    pub(super) negatives: Option<u32>,
    pub(super) min_backends: Option<u64>,
    pub(super) initial: Option<&'static str>,
    pub(super) interval: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Agent {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) send: Option<String>,
    pub(super) path: Option<String>,
    pub(super) host: Option<String>,
    pub(super) address: Option<String>,
    pub(super) port: u16,
    pub(super) interval: String,
    pub(super) timeout: String,
    pub(super) on_lost: String,
}

impl Timeouts {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
