//! The tables and keys of the file as `l4lb ctl config --toml` and `l4lb import` write them. A key that is `None` is left
//! out, and keeps its default.

use serde::Serialize;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Global {
    pub(crate) workers: Option<u32>,
    pub(crate) pin: Option<bool>,
    pub(crate) splice: Option<bool>,
    pub(crate) busy_poll: Option<String>,
    pub(crate) max_sessions: Option<u64>,
    pub(crate) drain_timeout: Option<String>,
    pub(crate) shutdown_delay: Option<String>,
    pub(crate) reload_timeout: Option<String>,
    pub(crate) watch: Option<bool>,
    pub(crate) resolve: Option<&'static str>,
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) log: Option<Log>,
    pub(crate) access_log: Option<AccessLog>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Log {
    pub(crate) level: Option<String>,
    pub(crate) format: Option<&'static str>,
    pub(crate) target: &'static str,
    pub(crate) socket: Option<String>,
    pub(crate) facility: Option<&'static str>,
    pub(crate) app_name: Option<String>,
    pub(crate) header: Option<&'static str>,
    pub(crate) fields: Option<Vec<&'static str>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct AccessLog {
    pub(crate) path: String,
    pub(crate) format: Option<&'static str>,
    pub(crate) at: Vec<&'static str>,
    pub(crate) every: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Admin {
    pub(crate) socket: Option<Switch<String>>,
    pub(crate) listen: Option<String>,
    pub(crate) token_file: Option<String>,
    pub(crate) read_token_file: Option<String>,
    pub(crate) metrics: Option<String>,
    pub(crate) state_file: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Announce {
    pub(crate) domain: String,
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) prefix: String,
    pub(crate) endpoints: Vec<String>,
    pub(crate) tls: Option<Tls>,
    pub(crate) user: Option<String>,
    pub(crate) password_file: Option<String>,
    pub(crate) ttl: String,
    pub(crate) lease: String,
    pub(crate) only_with_backends: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Fleet {
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) endpoints: Vec<String>,
    pub(crate) tls: Option<Tls>,
    pub(crate) user: Option<String>,
    pub(crate) password_file: Option<String>,
    pub(crate) lease: String,
    pub(crate) leave_when_alone: bool,
}

/// A value, or `false`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Switch<T> {
    Off(bool),
    On(T),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) bind: String,
    pub(crate) pool: String,
    pub(crate) backlog: Option<u32>,
    pub(crate) accept: Option<&'static str>,
    pub(crate) max_sessions: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) deny: Vec<String>,
    pub(crate) on_refuse: Option<&'static str>,
    pub(crate) proxy_protocol: Option<ProxyIn>,
    pub(crate) tls: Option<&'static str>,
    pub(crate) on_no_sni: Option<&'static str>,
    #[serde(skip_serializing_if = "Timeouts::is_default")]
    pub(crate) timeouts: Timeouts,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) route: Vec<Route>,
}

/// A condition without a value is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Route {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sni: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) alpn: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) client: Vec<String>,
    pub(crate) pool: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ProxyIn {
    pub(crate) from: Vec<String>,
    pub(crate) others: Option<&'static str>,
}

/// Those of a listener or of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Timeouts {
    pub(crate) connect: Option<String>,
    pub(crate) idle: Option<String>,
    pub(crate) half_close: Option<String>,
    /// Only of a listener.
    pub(crate) preread: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) balance: Option<&'static str>,
    pub(crate) retries: Option<u32>,
    pub(crate) when_all_down: Option<&'static str>,
    pub(crate) relay: Option<&'static str>,
    pub(crate) on_remove: Option<&'static str>,
    pub(crate) drain_timeout: Option<String>,
    #[serde(skip_serializing_if = "Timeouts::is_default")]
    pub(crate) timeouts: Timeouts,
    pub(crate) tcp: Option<Tcp>,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    pub(crate) health: Health,
    pub(crate) agent: Option<Agent>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) check: Vec<Health>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) backend: Vec<Backend>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) discover: Vec<Discover>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Tcp {
    pub(crate) nodelay: bool,
    pub(crate) user_timeout: String,
    pub(crate) keepalive: Switch<Keepalive>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Keepalive {
    pub(crate) idle: String,
    pub(crate) interval: String,
    pub(crate) count: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ProxyProtocol {
    pub(crate) version: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tlvs: Vec<&'static str>,
    pub(crate) check: Option<&'static str>,
}

/// `[pool.health]`, and `[[pool.check]]` with a part of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Health {
    pub(crate) name: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) send: Option<String>,
    pub(crate) expect: Option<String>,
    pub(crate) contains: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) user: Option<String>,
    pub(crate) domain: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) client_id: Option<String>,
    pub(crate) command: Option<Vec<String>>,
    pub(crate) interval: Option<String>,
    pub(crate) fast_interval: Option<String>,
    pub(crate) timeout: Option<String>,
    pub(crate) rise: Option<u32>,
    pub(crate) fall: Option<u32>,
    pub(crate) jitter_percent: Option<u32>,
    pub(crate) port: Option<u16>,
    pub(crate) initial_state: Option<&'static str>,
    pub(crate) tls: Option<Tls>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) steps: Vec<Step>,
}

/// The TLS of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tls {
    pub(crate) server_name: Option<String>,
    pub(crate) verify: &'static str,
    pub(crate) ca_file: Option<String>,
    pub(crate) alpn: Option<Vec<String>>,
    pub(crate) expires_within: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    pub(crate) send: Option<String>,
    pub(crate) expect: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Backend {
    /// Left out where it is empty: the address is the name then.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) weight: Option<u32>,
    pub(crate) priority: Option<u8>,
    pub(crate) backup: Option<bool>,
    pub(crate) check: Option<BackendCheck>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct BackendCheck {
    pub(crate) address: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) interval: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Discover {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) name: Option<String>,
    pub(crate) record: Option<&'static str>,
    pub(crate) port: Option<u16>,
    pub(crate) resolver: Option<Vec<String>>,
    pub(crate) prefer: Option<&'static str>,
    pub(crate) path: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) token_file: Option<String>,
    pub(crate) tls: Option<Tls>,
    pub(crate) prefix: Option<String>,
    pub(crate) endpoints: Option<Vec<String>>,
    pub(crate) user: Option<String>,
    pub(crate) password_file: Option<String>,
    pub(crate) when_absent: Option<&'static str>,
    pub(crate) stale: Option<String>,
    pub(crate) obsolete: Option<u32>,
    pub(crate) negatives: Option<u32>,
    pub(crate) min_backends: Option<u64>,
    pub(crate) initial: Option<&'static str>,
    pub(crate) interval: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Agent {
    #[serde(rename = "type")]
    pub(crate) kind: Option<&'static str>,
    pub(crate) send: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) port: u16,
    pub(crate) interval: Option<String>,
    pub(crate) timeout: Option<String>,
    pub(crate) on_lost: Option<String>,
}

impl Global {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Timeouts {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
