//! Writes a configuration as a file that would be read as that configuration again, with every default filled in.
//!
//! A value that the file takes from a variable is written as the file has it, because it may be secret; files of tokens
//! are written as their paths. What no key can express is a comment.

mod clusters;
mod listener;

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::agent::{Agent, AgentQuestion};
use super::cluster::Cluster;
use super::discover::{Discover, Dns, Etcd, FOREVER, Host, Http, Kind, ListFile, Record};
use super::error::one_line;
use super::model::{
    AccessLog, Admin, AdminSocket, Backend, BackendCheck, Check, CheckTls, Config, Expect, FurtherCheck,
    Global, Health, Keepalive, Pool, ScriptStep, SessionLines, Syslog, Tcp, Timeouts,
};
use super::proxy::ProxyOut;
use super::units::show_duration;
use super::written;
use clusters::{announce, fleet, literal, path, server_tls};

/// What no key can express, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// About the whole process.
    pub process: Vec<String>,
    /// About pools, by their name.
    pub pools: HashMap<String, Vec<String>>,
    /// About backends, by the names of pool and backend.
    pub backends: HashMap<(String, String), Vec<String>>,
}

impl Config {
    /// Returns the text of a file for it, with `remarks` as comments in their places.
    pub fn to_toml(&self, remarks: &Remarks) -> String {
        let mut text = String::new();
        comment(&mut text, &remarks.process);
        let announce = self.announce.as_ref().map(announce);
        let fleet = self.fleet.as_ref().map(fleet);
        let top = Top { global: global(&self.global), admin: admin(&self.admin), announce, fleet };
        append(&mut text, &top);
        for listener in &self.listeners {
            append(&mut text, &Listeners { listener: [self.listener(listener)] });
        }
        for pool in &self.pools {
            text.push('\n');
            comment(&mut text, remarks.pools.get(&pool.name).map_or(&[], Vec::as_slice));
            append(&mut text, &Pools { pool: [self::pool(pool)] });
            let hosts = pool.discover.iter().filter_map(Discover::as_host).map(host);
            for (name, backend) in pool.backends.iter().map(backend).chain(hosts) {
                let about = remarks.backends.get(&(pool.name.clone(), name));
                text.push('\n');
                comment(&mut text, about.map_or(&[], Vec::as_slice));
                append(&mut text, &Backends { pool: OneBackend { backend: [backend] } });
            }
        }
        text
    }
}

/// Returns the name of a backend, and its table.
fn backend(backend: &Backend) -> (String, written::Backend) {
    let Backend { name, address, weight, priority, check } = backend;
    (name.clone(), table(name, address.to_string(), *weight, *priority, check))
}

/// Returns the name of a backend with a host name, and its table.
fn host(host: &Host) -> (String, written::Backend) {
    let Host { backend, name: _, port: _, weight, priority, check } = host;
    (backend.clone(), table(backend, host.target(), *weight, *priority, check))
}

fn table(name: &str, address: String, weight: u16, priority: u8, check: &BackendCheck) -> written::Backend {
    let BackendCheck { address: checked, port, interval } = check;
    let check = written::BackendCheck {
        address: checked.map(|address| address.to_string()),
        port: *port,
        interval: interval.map(show_duration),
    };
    written::Backend {
        name: if name == address { String::new() } else { name.to_owned() },
        address,
        weight: Some(u32::from(weight)),
        priority: Some(priority).filter(|&priority| priority > 0),
        backup: None,
        check: Some(check).filter(|check| *check != written::BackendCheck::default()),
    }
}

#[derive(Serialize)]
struct Top {
    global: written::Global,
    admin: written::Admin,
    announce: Option<written::Announce>,
    fleet: Option<written::Fleet>,
}

#[derive(Serialize)]
struct Listeners {
    listener: [written::Listener; 1],
}

#[derive(Serialize)]
struct Pools {
    pool: [written::Pool; 1],
}

/// A backend of the pool that stands before it.
#[derive(Serialize)]
struct Backends {
    pool: OneBackend,
}

#[derive(Serialize)]
struct OneBackend {
    backend: [written::Backend; 1],
}

fn append(text: &mut String, tables: &impl Serialize) {
    if !text.is_empty() && !text.ends_with("\n\n") {
        text.push('\n');
    }
    text.push_str(&toml::to_string(tables).expect("structs of strings and numbers are tables"));
}

fn comment(text: &mut String, lines: &[String]) {
    for line in lines {
        text.push_str("# ");
        text.push_str(&one_line(line));
        text.push('\n');
    }
}

fn global(global: &Global) -> written::Global {
    let Global {
        workers,
        pin,
        splice,
        busy_poll,
        max_sessions,
        drain_timeout,
        shutdown_delay,
        reload_timeout,
        watch,
        resolve,
        log_level,
        log_format,
        log_target,
        log_fields,
        access_log,
        session_lines,
        user,
    } = global;
    written::Global {
        workers: u32::try_from(workers.get()).ok(),
        pin: Some(*pin),
        splice: Some(*splice),
        busy_poll: Some(show_duration(*busy_poll)),
        max_sessions: max_sessions.map(|max| max.get() as u64),
        drain_timeout: Some(show_duration(*drain_timeout)),
        shutdown_delay: Some(show_duration(*shutdown_delay)),
        reload_timeout: Some(show_duration(*reload_timeout)),
        watch: Some(*watch),
        resolve: Some(resolve.as_str()),
        user: user.as_ref().map(|account| literal(&account.user)),
        group: user.as_ref().and_then(|account| account.group.as_deref().map(literal)),
        log: Some(written::Log {
            level: Some(log_level.as_str().to_ascii_lowercase()),
            format: Some(log_format.as_str()),
            target: log_target.as_str(),
            fields: log_fields.clone(),
            ..log_target.syslog().map(syslog).unwrap_or_default()
        }),
        access_log: self::access_log(access_log.as_ref(), *session_lines),
    }
}

fn syslog(syslog: &Syslog) -> written::Log {
    let Syslog { socket, facility, app_name, header } = syslog;
    written::Log {
        socket: Some(path(socket)),
        facility: Some(facility.as_str()),
        app_name: Some(literal(app_name)),
        header: Some(header.as_str()),
        ..written::Log::default()
    }
}

fn access_log(file: Option<&AccessLog>, lines: SessionLines) -> Option<written::AccessLog> {
    if file.is_none() && lines == SessionLines::default() {
        return None;
    }
    let SessionLines { at_start, at_end, every } = lines;
    let at = [(at_start, "start"), (at_end, "end")];
    Some(written::AccessLog {
        // Among the lines of the process.
        path: file.map_or_else(|| "-".to_owned(), |file| path(&file.path)),
        format: file.map(|file| file.format.as_str()),
        at: at.into_iter().filter(|(is_there, _)| *is_there).map(|(_, word)| word).collect(),
        every: every.map(show_duration),
    })
}

fn admin(admin: &Admin) -> written::Admin {
    let Admin { socket, listen, token_file, read_token_file, metrics, state_file } = admin;
    let file = |file: &Option<std::path::PathBuf>| file.as_deref().map(path);
    written::Admin {
        socket: match socket {
            AdminSocket::Default => None,
            AdminSocket::At(at) => Some(written::Switch::On(path(at))),
            AdminSocket::Off => Some(written::Switch::Off(false)),
        },
        listen: listen.map(|address| address.to_string()),
        token_file: file(token_file),
        read_token_file: file(read_token_file),
        metrics: metrics.map(|address| address.to_string()),
        state_file: file(state_file),
    }
}

fn timeouts(timeouts: &Timeouts) -> written::Timeouts {
    let Timeouts { connect, idle, half_close } = timeouts;
    let [connect, idle, half_close] =
        [connect, idle, half_close].map(|timeout| Some(show_duration(*timeout)));
    written::Timeouts { connect, idle, half_close, preread: None }
}

/// Its backends are written behind it, each with its remarks.
fn pool(pool: &Pool) -> written::Pool {
    let Pool {
        name,
        balance,
        retries,
        timeouts,
        tcp,
        health,
        when_all_down,
        relay,
        proxy_protocol,
        on_remove,
        drain_timeout,
        backends: _,
        discover,
        agent,
    } = pool;
    written::Pool {
        name: name.clone(),
        balance: Some(balance.as_str()),
        retries: Some(*retries),
        when_all_down: Some(when_all_down.as_str()),
        relay: Some(relay.as_str()),
        on_remove: Some(on_remove.as_str()),
        drain_timeout: Some(show_duration(*drain_timeout)),
        timeouts: self::timeouts(timeouts),
        tcp: Some(self::tcp(*tcp)),
        proxy_protocol: proxy_protocol.as_ref().map(proxy),
        health: self::health(health),
        agent: agent.as_ref().map(self::agent),
        check: health.more.iter().map(further).collect(),
        backend: Vec::new(),
        discover: discover.iter().filter_map(source).collect(),
    }
}

fn proxy(proxy: &ProxyOut) -> written::ProxyProtocol {
    let ProxyOut { version, unique_id: _, crc32c: _, authority: _, alpn: _, check } = proxy;
    written::ProxyProtocol {
        version: version.as_str(),
        tlvs: proxy.tlvs().collect(),
        check: Some(check.as_str()),
    }
}

fn tcp(tcp: Tcp) -> written::Tcp {
    let Tcp { nodelay, keepalive, user_timeout } = tcp;
    let keepalive = match keepalive {
        None => written::Switch::Off(false),
        Some(Keepalive { idle, interval, count }) => written::Switch::On(written::Keepalive {
            idle: show_duration(idle),
            interval: show_duration(interval),
            count,
        }),
    };
    written::Tcp { nodelay, user_timeout: show_duration(user_timeout.unwrap_or_default()), keepalive }
}

fn health(health: &Health) -> written::Health {
    let Health {
        check,
        written,
        // The variables are named in `written`.
        secrets: _,
        interval,
        fast_interval,
        timeout,
        rise,
        fall,
        jitter_percent,
        port,
        initial_state,
        more: _,
    } = health;
    written::Health {
        interval: Some(show_duration(*interval)),
        fast_interval: Some(show_duration(*fast_interval)),
        timeout: Some(show_duration(*timeout)),
        rise: Some(*rise),
        fall: Some(*fall),
        jitter_percent: Some(u32::from(*jitter_percent)),
        port: *port,
        initial_state: Some(initial_state.as_str()),
        ..exchange(check, written)
    }
}

fn further(check: &FurtherCheck) -> written::Health {
    let FurtherCheck { name, check, written, secrets: _, port } = check;
    written::Health { name: Some(name.clone()), port: *port, ..exchange(check, written) }
}

/// Returns what a check sends and expects; for a key with a variable, what the file has.
fn exchange(check: &Check, file: &BTreeMap<&'static str, String>) -> written::Health {
    let of_file = |key: &str| file.get(key).cloned();
    let text = |key: &str, value: &str| Some(of_file(key).unwrap_or_else(|| literal(value)));
    let maybe = |key: &str, value: &Option<String>| value.as_deref().and_then(|value| text(key, value));
    // Text in the file, so the bytes are UTF-8.
    let bytes = |key: &str, value: &[u8]| text(key, &String::from_utf8_lossy(value));
    let mut health = written::Health { kind: check.type_name(), ..written::Health::default() };
    match check {
        // It may keep the keys of another type; of those without a variable nothing is known.
        Check::Off => {
            health.send = of_file("send");
            health.expect = of_file("expect");
            health.contains = of_file("contains");
            health.path = of_file("path");
            health.host = of_file("host");
            health.user = of_file("user");
            health.domain = of_file("domain");
            health.service = of_file("service");
            health.client_id = of_file("client_id");
        }
        Check::Tcp | Check::Redis => {}
        Check::SendExpect { send, expect } => {
            health.send = bytes("send", send);
            match expect {
                Expect::Prefix(expected) => health.expect = bytes("expect", expected),
                Expect::Contains(expected) => health.contains = bytes("contains", expected),
            }
        }
        Check::Http { path, host, status } => {
            health.path = text("path", path);
            health.host = maybe("host", host);
            health.status = Some(*status);
        }
        Check::Script(steps) => health.steps = self::steps(steps, of_file("steps")),
        Check::Postgres { user } => health.user = text("user", user),
        Check::Mysql { user } => health.user = maybe("user", user),
        Check::Smtp { domain } => health.domain = text("domain", domain),
        Check::Grpc { service, host } => {
            health.service = text("service", service).filter(|service| !service.is_empty());
            health.host = maybe("host", host);
        }
        Check::Tls { tls, inside } => {
            health = exchange(inside, file);
            health.kind = check.type_name();
            health.tls = Some(self::tls(tls, file));
        }
        Check::Command(command) => health.command = Some(command.iter().map(|word| literal(word)).collect()),
        Check::Mqtt { client_id } => {
            health.client_id = text("client_id", client_id).filter(|id| !id.is_empty());
        }
    }
    health
}

fn tls(tls: &CheckTls, file: &BTreeMap<&'static str, String>) -> written::Tls {
    let CheckTls { server_name, ca_file, expires_within, client } = tls;
    let of_file = |key: &str| file.get(key).cloned();
    let name = server_name.as_ref().map(|name| literal(&name.to_str()));
    written::Tls {
        server_name: of_file("tls.server_name").or(name),
        verify: client.verify().as_str(),
        ca_file: of_file("tls.ca_file").or(ca_file.as_deref().map(path)),
        alpn: Some(client.alpn().map(|name| literal(&name.to_string())).collect()),
        expires_within: Some(show_duration(*expires_within)),
    }
}

/// Returns the steps of a script: where the file names a variable in one, all as the file has them.
fn steps(steps: &[ScriptStep], of_file: Option<String>) -> Vec<written::Step> {
    let table: Option<toml::Table> = of_file.and_then(|text| format!("steps = {text}").parse().ok());
    let listed = table.as_ref().and_then(|table| table.get("steps")?.as_array());
    if let Some(listed) = listed {
        let text = |step: &toml::Value, key| step.get(key)?.as_str().map(str::to_owned);
        return listed
            .iter()
            .map(|step| written::Step { send: text(step, "send"), expect: text(step, "expect") })
            .collect();
    }
    let bytes = |bytes: &[u8]| (!bytes.is_empty()).then(|| escape(bytes));
    steps
        .iter()
        .map(|ScriptStep { send, expect }| written::Step { send: bytes(send), expect: bytes(expect) })
        .collect()
}

/// Returns the text with escapes that stands for `bytes`.
fn escape(bytes: &[u8]) -> String {
    let text: String = bytes
        .iter()
        .map(|byte| match byte {
            b'\r' => "\\r".to_owned(),
            b'\n' => "\\n".to_owned(),
            b'\t' => "\\t".to_owned(),
            b'\\' => "\\\\".to_owned(),
            b' '..=b'~' => char::from(*byte).to_string(),
            _ => format!("\\x{byte:02x}"),
        })
        .collect();
    literal(&text)
}

fn agent(agent: &Agent) -> written::Agent {
    let Agent { question, written: file, address, port, interval, timeout, on_lost } = agent;
    let text = |key: &str, value: &str| file.get(key).cloned().unwrap_or_else(|| literal(value));
    let base = written::Agent {
        address: address.map(|address| address.to_string()),
        port: *port,
        interval: Some(show_duration(*interval)),
        timeout: Some(show_duration(*timeout)),
        on_lost: Some(on_lost.to_string()),
        ..written::Agent::default()
    };
    match question {
        AgentQuestion::Tcp { send } => {
            written::Agent { kind: Some("tcp"), send: Some(text("send", send)), ..base }
        }
        AgentQuestion::Http { path, host } => written::Agent {
            kind: Some("http"),
            path: Some(text("path", path)),
            host: host.as_deref().map(|host| text("host", host)),
            ..base
        },
    }
}

/// Returns the table of a source; `None` for a host name, which is a backend in the file.
fn source(source: &Discover) -> Option<written::Discover> {
    let Discover { kind, stale, obsolete, negatives, min_backends, initial, interval } = source;
    let base = written::Discover {
        stale: Some(stale.map_or_else(|| FOREVER.to_owned(), show_duration)),
        min_backends: Some(*min_backends as u64),
        initial: Some(initial.as_str()),
        interval: interval.map(show_duration),
        ..written::Discover::default()
    };
    let asked = written::Discover { obsolete: Some(*obsolete), negatives: Some(*negatives), ..base.clone() };
    Some(match kind {
        Kind::Host(_) => return None,
        Kind::Dns(Dns { name, record, resolvers, prefer }) => {
            let (record, port) = match record {
                Record::Address { port } => ("a", Some(*port)),
                Record::Service => ("srv", None),
            };
            let resolvers: Vec<String> = resolvers.iter().map(ToString::to_string).collect();
            written::Discover {
                kind: "dns",
                name: Some(literal(name)),
                record: Some(record),
                port,
                resolver: Some(resolvers).filter(|resolvers| !resolvers.is_empty()),
                prefer: Some(prefer.as_str()),
                ..asked
            }
        }
        Kind::File(ListFile { path: at, format: _ }) => {
            written::Discover { kind: "file", path: Some(path(at)), ..base }
        }
        Kind::Http(Http { url, tls, token_file }) => written::Discover {
            kind: "http",
            url: Some(literal(&url.to_string())),
            tls: tls.as_ref().map(server_tls),
            token_file: token_file.as_deref().map(path),
            ..asked
        },
        Kind::Etcd(Etcd { prefix, cluster: Cluster { endpoints, tls, login }, when_absent }) => {
            written::Discover {
                kind: "etcd",
                prefix: Some(literal(prefix)),
                endpoints: Some(endpoints.iter().map(ToString::to_string).collect()),
                tls: tls.as_ref().map(server_tls),
                user: login.as_ref().map(|(user, _)| literal(user)),
                password_file: login.as_ref().map(|(_, file)| path(file)),
                when_absent: Some(when_absent.as_str()),
                ..base
            }
        }
    })
}

#[cfg(test)]
mod tests;
