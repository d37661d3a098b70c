//! Frontends and backends as listeners and pools.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::file::File;
use super::lines::{Line, Note, Section, Sections};
use super::proxy::{Bind, Proxy, Times};
use super::server::{Header, Server, Settings};
use super::values::{number, time};
use crate::config::check_name;
use crate::config::model::Facility;
use crate::config::ranges::{CHECK_INTERVAL, JITTER_PERCENT_MAX, SESSIONS_MAX, SOURCES_MAX, WORKERS_MAX};
use crate::config::units::show_duration;
use crate::config::written::{
    Agent, Backend, Discover, Global, Health, Listener, Log, Pool, ProxyIn, ProxyProtocol, Route, Timeouts,
};

/// HAProxy reads a header from every client.
const EVERYONE: [&str; 2] = ["0.0.0.0/0", "::/0"];
/// What `busy_poll` begins with, by the words of our own file.
const BUSY_POLL: &str = "50us";

/// Returns the tables of our file, and a note for each line that is not in them.
pub(super) fn translate(read: &Sections) -> (File, Vec<Note>) {
    let mut whole = Whole { notes: read.notes.clone(), ..Whole::default() };
    let mut defaults: Option<&Section> = None;
    for section in &read.sections {
        match section.head.words().as_slice() {
            ["global", ..] => section.lines.iter().for_each(|line| whole.global(line)),
            ["defaults", ..] => defaults = Some(section),
            ["resolvers", name, ..] => whole.resolvers(name, section),
            ["frontend" | "backend" | "listen", name, rest @ ..] => {
                let defaults = match rest {
                    ["from", from] => named_defaults(read, from),
                    _ => defaults,
                };
                let proxy = Proxy::read(defaults, section, &mut whole.notes);
                whole.proxies.push((section, (*name).to_owned(), proxy));
            }
            _ => whole.notes.push(section.head.note("the section is not translated")),
        }
    }
    whole.put_together()
}

fn named_defaults<'a>(read: &'a Sections, name: &str) -> Option<&'a Section> {
    read.sections.iter().find(|section| section.head.words().starts_with(&["defaults", name]))
}

/// The state while sections are read.
#[derive(Default)]
struct Whole<'a> {
    file: File,
    notes: Vec<Note>,
    jitter: Option<u32>,
    /// The name servers of each `resolvers` section.
    resolvers: HashMap<String, Vec<String>>,
    proxies: Vec<(&'a Section, String, Proxy)>,
}

impl Whole<'_> {
    fn global(&mut self, line: &Line) {
        let Global {
            workers, splice, busy_poll, max_sessions, drain_timeout, user, group, log: logged, ..
        } = &mut self.file.global;
        let read = match line.words().as_slice() {
            ["maxconn", max] => {
                number(Some(max), 1..=SESSIONS_MAX as u64).map(|max| *max_sessions = Some(max))
            }
            ["nbthread", threads] => {
                number(Some(threads), 1..=WORKERS_MAX as u64).map(|threads| *workers = Some(threads))
            }
            ["hard-stop-after", after] => {
                time(Some(after)).map(|after| *drain_timeout = Some(show_duration(after)))
            }
            ["user", name] => {
                *user = Some((*name).to_owned());
                Ok(())
            }
            ["group", name] => {
                *group = Some((*name).to_owned());
                Ok(())
            }
            ["nosplice"] => {
                *splice = Some(false);
                Ok(())
            }
            ["busy-polling"] => {
                *busy_poll = Some(BUSY_POLL.to_owned());
                Ok(())
            }
            ["spread-checks", percent] => number(Some(percent), 0..=u64::from(JITTER_PERCENT_MAX))
                .map(|percent| self.jitter = Some(percent)),
            ["daemon" | "master-worker" | "pidfile", ..] => {
                Err("l4lb stays in the foreground, where systemd wants it".to_owned())
            }
            ["stats", ..] => Err("the admin socket is there by default: l4lb ctl".to_owned()),
            ["log", ..] if logged.is_some() => {
                Err("lines go to one place: the first is translated".to_owned())
            }
            ["log", address, rest @ ..] => syslog(address, rest).map(|log| *logged = Some(log)),
            ["uid" | "gid", ..] => Err("l4lb takes the names: [global] user and group".to_owned()),
            ["chroot", ..] => Err("the unit file of systemd confines the process".to_owned()),
            _ => Err("not known here".to_owned()),
        };
        if let Err(why) = read {
            self.notes.push(line.note(why));
        }
    }

    fn resolvers(&mut self, name: &str, section: &Section) {
        let mut servers = Vec::new();
        for line in &section.lines {
            match line.words().as_slice() {
                ["nameserver", _, address] => {
                    let address = ["udp@", "tcp@"]
                        .iter()
                        .find_map(|kind| address.strip_prefix(kind))
                        .unwrap_or(address);
                    servers.push(address.to_owned());
                }
                ["parse-resolv-conf"] => {}
                _ => self.notes.push(line.note("answers are believed as the keys of [[pool.discover]] say")),
            }
        }
        self.resolvers.insert(name.to_owned(), servers);
    }

    fn put_together(mut self) -> (File, Vec<Note>) {
        let proxies = std::mem::take(&mut self.proxies);
        // The pool of each frontend, and the ports by which its clients come in.
        let mut ports: HashMap<String, BTreeSet<String>> = HashMap::new();
        for (section, name, proxy) in proxies.iter().filter(|(.., proxy)| !proxy.is_disabled) {
            let of_rules = proxy.rules.rules.iter().map(|rule| rule.backend.clone());
            for pool in pool_of(section, name, proxy).into_iter().chain(of_rules) {
                let of_section = proxy.binds.iter().filter_map(|bind| bind.address.rsplit_once(':'));
                ports.entry(pool).or_default().extend(of_section.map(|(_, port)| port.to_owned()));
            }
        }
        let mut pools = HashMap::new();
        for (section, name, proxy) in &proxies {
            if section.head.words[0] == "frontend" || proxy.is_disabled || proxy.servers.is_empty() {
                continue;
            }
            if pools.contains_key(name) || self.file.has_pool(&legal(name)) {
                self.notes.push(section.head.note("another section has this name: it is left out"));
                continue;
            }
            let in_by = ports.get(name).filter(|ports| ports.len() == 1).and_then(|ports| ports.first());
            if let Some(pool) = self.pool(section, name, proxy, in_by.map(String::as_str)) {
                pools.insert(name.clone(), proxy.times);
                self.file.add_pool(pool);
            }
        }
        let mut names = HashSet::new();
        for (section, name, proxy) in &proxies {
            if section.head.words[0] == "backend" || proxy.is_disabled {
                continue;
            }
            let pool = pool_of(section, name, proxy);
            let Some((pool, times)) = pool.and_then(|pool| pools.get(&pool).map(|times| (pool, *times)))
            else {
                self.notes.push(section.head.note("it has no backend that is translated: it is left out"));
                continue;
            };
            let routes = self.routes(proxy, &pools);
            for bind in &proxy.binds {
                match self.file.listener_beside(&bind.address) {
                    // HAProxy takes both for IPv4 and IPv6; ours is one socket for both.
                    Some(other)
                        if other.pool == legal(&pool) && is_both_families(&other.bind, &bind.address) =>
                    {
                        other.bind.clone_from(&bind.address);
                    }
                    Some(other) => {
                        let why =
                            format!("it overlaps {} of listener {}: it is left out", other.bind, other.name);
                        self.notes.push(bind.line.note(why));
                    }
                    None => {
                        let mut listener = listener(name, &legal(&pool), proxy, bind, times, &mut names);
                        if !routes.is_empty() {
                            listener.tls = Some("passthrough");
                            listener.timeouts.preread =
                                proxy.rules.patience.as_ref().map(|(_, delay)| show_duration(*delay));
                            listener.route.clone_from(&routes);
                        }
                        self.file.add(listener);
                    }
                }
            }
        }
        self.notes.sort();
        self.notes.dedup();
        (self.file, self.notes)
    }

    /// Returns the routes of a frontend or listen section to these pools.
    fn routes(&mut self, proxy: &Proxy, pools: &HashMap<String, Times>) -> Vec<Route> {
        let mut routes = Vec::new();
        for rule in &proxy.rules.rules {
            if pools.contains_key(&rule.backend) {
                let sni = rule.names.iter().map(ToString::to_string).collect();
                routes.push(Route { sni, pool: legal(&rule.backend), ..Route::default() });
            } else {
                self.notes.push(rule.line.note("it has no backend that is translated: it is left out"));
            }
        }
        if let (true, Some((line, _))) = (routes.is_empty(), &proxy.rules.patience) {
            self.notes
                .push(line.note("nothing is awaited of clients: no rule on their hellos is translated"));
        }
        routes
    }

    /// Returns the pool of a backend or listen section; `in_by` is the port of its clients, if they have only one.
    fn pool(&mut self, section: &Section, name: &str, proxy: &Proxy, in_by: Option<&str>) -> Option<Pool> {
        let mut pool = Pool {
            name: legal(name),
            balance: proxy.balance.filter(|algorithm| *algorithm != "round_robin"),
            retries: proxy.retries,
            timeouts: timeouts(proxy.times, proxy.times.server),
            health: self.health(section, proxy),
            agent: self.agent(proxy),
            ..Pool::default()
        };
        let header = proxy.servers.first().map_or(Header::default(), |first| first.settings.header);
        pool.proxy_protocol = proxy_protocol(header, pool.health.port);
        for server in &proxy.servers {
            let own = server.settings.header;
            if own.of_sessions() != header.of_sessions() {
                let why = "the servers of a pool all read the same PROXY header: it is left out";
                self.notes.push(server.line.note(why));
                continue;
            }
            if own.version.is_none() && own.is_checked_with {
                self.notes.push(server.line.note("check-send-proxy: only with send-proxy"));
            }
            let port = server.place.port.as_deref().or(in_by);
            if server.is_template {
                self.source(server, port, &mut pool.discover);
                continue;
            }
            let Some(port) = port else {
                self.notes.push(server.line.note(
                    "its port is that of the client, of which there are several or none: it is left out",
                ));
                continue;
            };
            if server.settings.resolvers.is_some() {
                self.notes
                    .push(server.line.note("resolvers: its name is asked of the system's name servers"));
            }
            let (name, address) = (legal(&server.name), format!("{}:{port}", server.place.host));
            if let Some(other) =
                pool.backend.iter().find(|other| other.address == address || other.name == name)
            {
                let why = format!("its name or address is that of {}: it is left out", other.name);
                self.notes.push(server.line.note(why));
                continue;
            }
            pool.backend.push(Backend {
                name,
                address,
                weight: if server.settings.is_disabled { Some(0) } else { server.settings.weight },
                backup: server.settings.is_backup.then_some(true),
                ..Backend::default()
            });
        }
        if pool.backend.is_empty() && pool.discover.is_empty() {
            self.notes.push(section.head.note("it has no server that is translated: it is left out"));
            return None;
        }
        Some(pool)
    }

    /// Adds the source that a `server-template` becomes, with this port unless the records have the ports.
    fn source(&mut self, server: &Server, port: Option<&str>, sources: &mut Vec<Discover>) {
        let is_service = server.place.host.starts_with('_');
        let port = port.and_then(|port| port.parse().ok()).filter(|_| !is_service);
        let resolver = server.settings.resolvers.as_ref().and_then(|name| self.resolvers.get(name)).cloned();
        let source = Discover {
            kind: "dns",
            name: Some(server.place.host.clone()),
            record: is_service.then_some("srv"),
            port,
            resolver: resolver.filter(|servers| !servers.is_empty()),
            ..Discover::default()
        };
        let why = if port.is_none() && !is_service {
            "its port is not known: it is left out"
        } else if sources.iter().any(|other| (&other.name, other.port) == (&source.name, source.port)) {
            "another one asks for this name: it is left out"
        } else if sources.len() == SOURCES_MAX {
            "the pool has as many sources as it may have: it is left out"
        } else {
            sources.push(source);
            return;
        };
        self.notes.push(server.line.note(why));
    }

    /// Returns the agents of the servers: that of the first that has one, with a note for each that differs.
    fn agent(&mut self, proxy: &Proxy) -> Option<Agent> {
        let first = proxy.servers.iter().find(|server| server.settings.agent.is_asked)?;
        let agent = &first.settings.agent;
        let Some(port) = agent.port else {
            self.notes.push(first.line.note("agent-check: its port is not known: no agent is asked"));
            return None;
        };
        for server in proxy.servers.iter().filter(|server| server.settings.agent != *agent) {
            self.notes.push(server.line.note(format!("its agent is asked as that of {}", first.name)));
        }
        Some(Agent {
            send: agent.send.clone(),
            port,
            address: agent.address.clone(),
            interval: agent.interval.map(show_duration),
            ..Agent::default()
        })
    }

    /// Returns the checks of the servers: those of the first that is checked, with a note for each that differs.
    fn health(&mut self, section: &Section, proxy: &Proxy) -> Health {
        let Some(first) = proxy.servers.iter().find(|server| server.settings.is_checked) else {
            return Health { kind: "off", ..Health::default() };
        };
        let (health, weaker) = proxy.check.health();
        if let Some(why) = weaker {
            self.notes.push(section.head.note(why));
        }
        let of = |Server { settings, .. }: &Server| {
            let Settings { is_checked, interval, fast_interval, rise, fall, check_port, .. } = *settings;
            (is_checked, interval, fast_interval, rise, fall, check_port, settings.check_tls.keys())
        };
        for server in proxy.servers.iter().filter(|server| of(server) != of(first)) {
            self.notes.push(server.line.note(format!("it is checked as {}", first.name)));
        }
        let (_, interval, fast_interval, rise, fall, port, tls) = of(first);
        let kind = match (health.kind, &tls) {
            ("http", Some(_)) => "https",
            ("tcp", Some(_)) => "tls",
            (kind, _) => kind,
        };
        // Neither one check nor the faster interval may last longer than the interval.
        let longest = interval.unwrap_or(CHECK_INTERVAL);
        let [fast_interval, timeout] =
            [fast_interval, proxy.times.check].map(|time| time.map(|time| time.min(longest)));
        let [interval, fast_interval, timeout] =
            [interval, fast_interval, timeout].map(|time| time.map(show_duration));
        let jitter_percent = self.jitter;
        Health { kind, interval, fast_interval, timeout, rise, fall, jitter_percent, port, tls, ..health }
    }
}

/// Returns the header of a pool with checks of that port, if they have one of their own.
fn proxy_protocol(header: Header, port: Option<u16>) -> Option<ProxyProtocol> {
    let (_, crc32c, unique_id) = header.of_sessions();
    let tlvs = [("crc32c", crc32c), ("unique_id", unique_id)];
    let tlvs = tlvs.into_iter().filter(|(_, is_set)| *is_set).map(|(tlv, _)| tlv).collect();
    // HAProxy expects another server behind another port, unless it is said to be the same.
    let check = (port.is_some() && !header.is_checked_with).then_some("none");
    header.version.map(|version| ProxyProtocol { version, tlvs, check })
}

/// Returns the target of a `log` line, if it is a syslog daemon of this machine.
fn syslog(address: &str, words: &[&str]) -> Result<Log, String> {
    if !address.starts_with('/') {
        let why = "lines go to standard error or to a syslog daemon of this machine; see [global] log and access_log";
        return Err(why.to_owned());
    }
    let (mut facility, mut is_rfc5424) = (None, false);
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "len" | "sample" => _ = words.next(),
            "format" => is_rfc5424 = words.next() == Some("rfc5424"),
            word => facility = facility.or(Some(word)),
        }
    }
    let wanted = facility.unwrap_or("local0");
    let named = Facility::named();
    let Some(&(facility, _)) = named.iter().find(|(name, _)| *name == wanted) else {
        return Err(format!("facility {wanted:?} is not known"));
    };
    Ok(Log {
        target: "syslog",
        socket: (address != "/dev/log").then(|| address.to_owned()),
        facility: Some(facility),
        header: (!is_rfc5424).then_some("local"),
        ..Log::default()
    })
}

fn timeouts(times: Times, side: Option<Duration>) -> Timeouts {
    let idle = times.tunnel.or(side).map(show_duration);
    let half_close = times.client_fin.max(times.server_fin).map(show_duration);
    Timeouts { connect: times.connect.map(show_duration), idle, half_close, preread: None }
}

/// `of_pool` are the timeouts of its pool: a side may be silent for the longer of both times.
fn listener(
    section: &str,
    pool: &str,
    proxy: &Proxy,
    bind: &Bind,
    of_pool: Times,
    names: &mut HashSet<String>,
) -> Listener {
    let Proxy { times, max_sessions, backlog, .. } = proxy;
    let client = Times {
        tunnel: of_pool.tunnel.or(times.tunnel),
        client_fin: of_pool.client_fin.max(times.client_fin),
        ..of_pool
    };
    let own = timeouts(client, times.client.max(of_pool.server));
    let shared = timeouts(of_pool, of_pool.server);
    let base = legal(bind.name.as_deref().unwrap_or(section));
    let mut number = 1;
    let mut name = base.clone();
    while !names.insert(name.clone()) {
        number += 1;
        name = legal(&format!("{base}-{number}"));
    }
    Listener {
        name,
        bind: bind.address.clone(),
        pool: pool.to_owned(),
        backlog: bind.backlog.or(*backlog),
        max_sessions: bind.max_sessions.or(*max_sessions),
        proxy_protocol: bind
            .reads_header
            .then(|| ProxyIn { from: EVERYONE.map(str::to_owned).to_vec(), others: None }),
        timeouts: if own == shared { Timeouts::default() } else { own },
        ..Listener::default()
    }
}

/// Returns the name of the section that serves the clients of this one.
fn pool_of(section: &Section, name: &str, proxy: &Proxy) -> Option<String> {
    let own = match section.head.words[0].as_str() {
        "listen" => Some(name),
        _ => None,
    };
    proxy.default_backend.as_deref().or(own).map(str::to_owned)
}

fn is_both_families(first: &str, second: &str) -> bool {
    first.starts_with("0.0.0.0:") && second.starts_with("[::]:")
}

/// Returns the name with each character that our names cannot have as a `-`.
fn legal(name: &str) -> String {
    if check_name(name).is_ok() {
        return name.to_owned();
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._:-[]".contains(c) { c } else { '-' };
    name.chars().map(plain).take(64).collect()
}
