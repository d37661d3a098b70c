//! The tables and keys that are written: those of our file that HAProxy has too. Keys that are `None` keep the
//! defaults of l4lb.

use std::net::SocketAddr;

use serde::Serialize;

use super::lines::Note;
use crate::config::{is_overlap, one_line};

#[derive(Debug, Default, Serialize)]
pub(super) struct File {
    #[serde(skip_serializing_if = "Global::is_default")]
    pub(super) global: Global,
    listener: Vec<Listener>,
    pool: Vec<Pool>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Global {
    pub(super) workers: Option<u32>,
    pub(super) splice: Option<bool>,
    pub(super) busy_poll: Option<String>,
    pub(super) max_sessions: Option<u64>,
    pub(super) drain_timeout: Option<String>,
    pub(super) user: Option<String>,
    pub(super) group: Option<String>,
    pub(super) log: Option<Log>,
}

/// Lines that went to the syslog daemon of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Log {
    pub(super) target: &'static str,
    pub(super) socket: Option<String>,
    pub(super) facility: String,
    pub(super) header: Option<&'static str>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) bind: String,
    pub(super) pool: String,
    pub(super) backlog: Option<u32>,
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

#[derive(Debug, Default, Serialize)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) balance: Option<&'static str>,
    pub(super) retries: Option<u32>,
    #[serde(skip_serializing_if = "Timeouts::is_default")]
    pub(super) timeouts: Timeouts,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    pub(super) health: Health,
    pub(super) agent: Option<Agent>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) backend: Vec<Backend>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) discover: Vec<Discover>,
}

#[derive(Debug, Serialize)]
pub(super) struct ProxyProtocol {
    pub(super) version: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tlvs: Vec<&'static str>,
    pub(super) check: Option<&'static str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Health {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) send: Option<String>,
    pub(super) expect: Option<String>,
    pub(super) contains: Option<String>,
    pub(super) user: Option<String>,
    pub(super) domain: Option<String>,
    pub(super) path: Option<String>,
    pub(super) host: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) interval: Option<String>,
    pub(super) fast_interval: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) rise: Option<u32>,
    pub(super) fall: Option<u32>,
    pub(super) jitter_percent: Option<u32>,
    pub(super) port: Option<u16>,
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
}

/// One step of a check over TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub(super) send: Option<String>,
    pub(super) expect: Option<String>,
}

/// The agents of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Agent {
    pub(super) send: Option<String>,
    pub(super) port: u16,
    pub(super) address: Option<String>,
    pub(super) interval: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) weight: Option<u32>,
    pub(super) backup: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(super) struct Discover {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) record: Option<&'static str>,
    pub(super) port: Option<u16>,
    pub(super) resolver: Option<Vec<String>>,
}

impl Global {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Timeouts {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl File {
    pub(super) fn add(&mut self, listener: Listener) {
        self.listener.push(listener);
    }

    pub(super) fn add_pool(&mut self, pool: Pool) {
        self.pool.push(pool);
    }

    /// Returns the listener that could not listen beside one at `bind`.
    pub(super) fn listener_beside(&mut self, bind: &str) -> Option<&mut Listener> {
        let socket: SocketAddr = bind.parse().ok()?;
        let overlaps = |other: SocketAddr| other.port() == socket.port() && is_overlap(socket, other);
        self.listener.iter_mut().find(|other| other.bind.parse().is_ok_and(overlaps))
    }

    pub(super) fn has_pool(&self, name: &str) -> bool {
        self.pool.iter().any(|pool| pool.name == name)
    }

    pub(super) fn has_no_listener(&self) -> bool {
        self.listener.is_empty()
    }

    /// Returns the text, with the lines of the configuration called `source` that are not in it as a comment on top.
    pub(super) fn write(&self, source: &str, notes: &[Note]) -> String {
        let mut text = format!("# Translated from {source} by `l4lb import`.\n");
        if !notes.is_empty() {
            text.push_str("# Not translated:\n");
        }
        for note in notes {
            text.push_str(&format!("#   {}\n", one_line(&note.to_string())));
        }
        text.push('\n');
        text.push_str(&toml::to_string(self).expect("structs of strings and numbers are tables"));
        text
    }
}
