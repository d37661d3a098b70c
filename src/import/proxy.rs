//! A `frontend`, `backend` or `listen` section, on top of its `defaults`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::address;
use super::check::Check;
use super::lines::{Line, Note, Section};
use super::routes::Rules;
use super::server::{self, Server, Settings};
use super::values::{number, time};
use crate::config::ranges::{BACKLOG_MAX, RETRIES_MAX, SESSIONS_MAX};

/// One address of a `bind` line.
#[derive(Clone, Debug)]
pub(super) struct Bind {
    pub(super) line: Line,
    pub(super) address: String,
    pub(super) name: Option<String>,
    pub(super) max_sessions: Option<u64>,
    pub(super) backlog: Option<u32>,
    /// Its clients begin with a PROXY header.
    pub(super) reads_header: bool,
}

/// The `timeout` lines, which bound what their names say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    pub(super) connect: Option<Duration>,
    pub(super) client: Option<Duration>,
    pub(super) server: Option<Duration>,
    pub(super) tunnel: Option<Duration>,
    pub(super) client_fin: Option<Duration>,
    pub(super) server_fin: Option<Duration>,
    pub(super) check: Option<Duration>,
}

/// The settings of the lines of a section.
#[derive(Debug, Default)]
pub(super) struct Proxy {
    pub(super) is_disabled: bool,
    pub(super) binds: Vec<Bind>,
    pub(super) default_backend: Option<String>,
    pub(super) balance: Option<&'static str>,
    pub(super) retries: Option<u32>,
    pub(super) max_sessions: Option<u64>,
    pub(super) backlog: Option<u32>,
    pub(super) times: Times,
    pub(super) check: Check,
    pub(super) servers: Vec<Server>,
    pub(super) rules: Rules,
    server_defaults: Settings,
}

const SESSIONS: RangeInclusive<u64> = 1..=SESSIONS_MAX as u64;
const RETRIES: RangeInclusive<u64> = 0..=RETRIES_MAX as u64;
const BACKLOGS: RangeInclusive<u64> = 1..=BACKLOG_MAX as u64;

/// Options that l4lb does anyway, or that change nothing for it.
const MET: [&str; 24] = [
    "abortonclose",
    "allbackups",
    "clitcpka",
    "contstats",
    "dontlog-normal",
    "dontlognull",
    "forwardfor",
    "http-keep-alive",
    "http-server-close",
    "httpclose",
    "httplog",
    "log-health-checks",
    "log-separate-errors",
    "logasap",
    "redispatch",
    "socket-stats",
    "splice-auto",
    "splice-request",
    "splice-response",
    "srvtcpka",
    "tcp-smart-accept",
    "tcp-smart-connect",
    "tcpka",
    "tcplog",
];

impl Proxy {
    /// Returns what `section` says on top of its `defaults`, and adds a note for each line that is not translated.
    pub(super) fn read<'a>(
        defaults: impl IntoIterator<Item = &'a Section>,
        section: &'a Section,
        notes: &mut Vec<Note>,
    ) -> Self {
        let mut proxy = Self::default();
        for section in defaults.into_iter().chain([section]) {
            section.lines.iter().for_each(|line| proxy.take(line, notes));
        }
        proxy
    }

    fn take(&mut self, line: &Line, notes: &mut Vec<Note>) {
        let words = line.words();
        let is_off = words[0] == "no";
        let words = if is_off { &words[1..] } else { words.as_slice() };
        let read = match *words {
            ["mode", "tcp"] | ["log" | "description" | "id" | "guid" | "enabled" | "hash-type", ..] => Ok(()),
            ["mode", "http"] => Err("HTTP is relayed as TCP: rules on requests do not apply".to_owned()),
            ["disabled"] => {
                self.is_disabled = true;
                Err("it is left out".to_owned())
            }
            ["bind", address, ref rest @ ..] => self.bind(line, address, rest, notes),
            ["default_backend", name] => {
                self.default_backend = Some(name.to_owned());
                Ok(())
            }
            ["use_backend", backend, ref rest @ ..] => {
                self.rules.use_backend(line, backend, rest).map(|more| notes.extend(more))
            }
            ["acl", name, ref rest @ ..] => self.rules.acl(name, rest),
            ["tcp-request", "inspect-delay", delay] => {
                time(Some(delay)).map(|delay| self.rules.patience = Some((line.clone(), delay)))
            }
            ["tcp-request", "content", ref rest @ ..] if self.rules.is_met(rest) => Ok(()),
            ["balance", ref rest @ ..] => self.balance(rest),
            ["retries", times] => number(Some(times), RETRIES).map(|times| self.retries = Some(times)),
            ["maxconn", max] => number(Some(max), SESSIONS).map(|max| self.max_sessions = Some(max)),
            ["backlog", length] => number(Some(length), BACKLOGS).map(|length| self.backlog = Some(length)),
            ["timeout", name, value] => self.timeout(name, value),
            ["option", ref rest @ ..] if !is_off && self.check.option(line, rest, notes) => Ok(()),
            ["option", name, ..] if is_off || MET.contains(&name) => Ok(()),
            ["tcp-check", ..] => {
                self.check.tcp_check(line, notes);
                Ok(())
            }
            ["http-check", ..] => {
                self.check.http_check(line, notes);
                Ok(())
            }
            ["default-server", ref rest @ ..] => {
                self.server_defaults.read(line, rest, notes);
                Ok(())
            }
            ["server" | "server-template", ..] => {
                self.servers.extend(server::read(line.clone(), &self.server_defaults, notes));
                Ok(())
            }
            ["dispatch", address] => {
                let words = ["server", "dispatch", address].map(str::to_owned).to_vec();
                let line = Line { number: line.number, words };
                self.servers.extend(server::read(line, &Settings::default(), notes));
                Ok(())
            }
            [
                "acl"
                | "tcp-request"
                | "tcp-response"
                | "http-request"
                | "http-response"
                | "http-after-response",
                ..,
            ] => Err("no rule is applied: what it refused or changed is not".to_owned()),
            ["source", ..] => Err("backends are dialed from the address that the kernel picks".to_owned()),
            ["stick-table" | "stick" | "cookie" | "appsession", ..] => {
                Err("clients do not stick to a backend; balance = \"source_hash\" does that by their address"
                    .to_owned())
            }
            ["stats", ..] => Err("the dashboard is part of the admin API".to_owned()),
            ["rate-limit", ..] => Err("rates are not limited".to_owned()),
            _ => Err("not known here".to_owned()),
        };
        if let Err(why) = read {
            notes.push(line.note(why));
        }
    }

    fn bind(
        &mut self,
        line: &Line,
        address: &str,
        words: &[&str],
        notes: &mut Vec<Note>,
    ) -> Result<(), String> {
        let (mut name, mut max_sessions, mut backlog) = (None, None, None);
        let mut reads_header = false;
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            let read = match word {
                "name" => {
                    name = words.next().map(str::to_owned);
                    Ok(())
                }
                "maxconn" => number(words.next(), SESSIONS).map(|max| max_sessions = Some(max)),
                "backlog" => number(words.next(), BACKLOGS).map(|length| backlog = Some(length)),
                "ssl" => return Err("l4lb does not end TLS: the listener is left out".into()),
                "accept-proxy" => {
                    reads_header = true;
                    Err("any client may send a header: list the balancers in front in its `from`".to_owned())
                }
                "accept-netscaler-cip" => {
                    return Err("l4lb does not read that header: the listener is left out".into());
                }
                "v4v6" | "defer-accept" | "allow-0rtt" => Ok(()),
                word => {
                    // Keywords with a value are those of TLS and of the socket.
                    if !matches!(word, "transparent" | "tfo" | "v6only" | "strict-sni" | "shards") {
                        words.next();
                    }
                    Err("not known here".to_owned())
                }
            };
            if let Err(why) = read {
                notes.push(line.note(format!("{word}: {why}")));
            }
        }
        for address in address::binds(address)? {
            let (line, name) = (line.clone(), name.clone());
            self.binds.push(Bind { line, address, name, max_sessions, backlog, reads_header });
        }
        Ok(())
    }

    fn balance(&mut self, words: &[&str]) -> Result<(), String> {
        let (algorithm, why) = match words {
            ["roundrobin" | "static-rr"] => ("round_robin", None),
            ["leastconn"] => ("least_connections", None),
            ["source"] => ("source_hash", None),
            // Of two random servers the one with fewer connections, as the default.
            ["random" | "random(2)"] => ("power_of_two", None),
            ["random(1)"] => ("random", None),
            _ => ("round_robin", Some("backends are picked in turn")),
        };
        self.balance = Some(algorithm);
        why.map_or(Ok(()), |why| Err(why.to_owned()))
    }

    fn timeout(&mut self, name: &str, value: &str) -> Result<(), String> {
        let times = &mut self.times;
        let slot = match name {
            "connect" => &mut times.connect,
            "client" => &mut times.client,
            "server" => &mut times.server,
            "tunnel" => &mut times.tunnel,
            "client-fin" => &mut times.client_fin,
            "server-fin" => &mut times.server_fin,
            "check" => &mut times.check,
            "http-request" | "http-keep-alive" => {
                return Err("requests are not timed, only sessions".to_owned());
            }
            "queue" => return Err("sessions do not wait for a backend".to_owned()),
            _ => return Err("not known here".to_owned()),
        };
        *slot = Some(time(Some(value))?);
        Ok(())
    }
}
