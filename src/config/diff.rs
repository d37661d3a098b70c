//! Differences between two configurations, in the words of the file: one line per key. Every struct of the model is
//! destructured field by field, so that a new key cannot be forgotten here.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::agent;
use super::announce::Announce;
use super::discover::Discover;
use super::fleet::Fleet;
use super::model::{
    AccessLog, Account, Admin, Backend, Config, FurtherCheck, Global, Health, Keepalive, Listener, LogTarget,
    Pool, Tcp, Timeouts,
};
use super::proxy;
use super::routing::Routing;
use super::show::{check_keys, shown_list};
use super::units::show_duration;
use crate::admission::{Access, Rule};

/// One difference between two configurations, as a reload logs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The process, or the listener, pool or backend that differs.
    pub subject: Subject,
    /// Whether it was added, removed or edited, and for an edit the key.
    pub difference: Difference,
    /// Why it needs a restart, if it does.
    pub needs_restart: Option<&'static str>,
}

/// The part of the configuration that a change affects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The settings of the process: the `[global]` table.
    Global,
    /// The settings of the `[admin]` table.
    Admin,
    /// The settings of the `[announce]` table, or all of it.
    Announce,
    /// The settings of the `[fleet]` table, or all of it.
    Fleet,
    /// The listener of that name.
    Listener(String),
    /// The pool of that name.
    Pool(String),
    /// A backend, identified by its pool and its name.
    Backend {
        /// The name of its pool.
        pool: String,
        /// Its name, unique within the pool.
        name: String,
    },
    /// A further check, behind the name of its pool.
    Check(String, String),
    /// A source of backends, behind the name of its pool.
    Discover(String, String),
}

/// The kind of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only the new configuration has it.
    Added,
    /// Only the old configuration has it.
    Removed,
    /// The value of a key has changed. Another address makes it another listener or backend under the same name.
    Key {
        /// The key, behind the names of its tables.
        key: &'static str,
        /// The value before, written as in the file.
        old: String,
        /// The value after, written as in the file.
        new: String,
    },
}

/// Stands for the value of a key that is not set.
const UNSET: &str = "(not set)";
const PIN: &str = "a thread is bound to its processor when it starts";
const BUSY_POLL: &str = "the loop of a worker is made with it";
const SOCKET: &str = "the socket is opened once";
const STATE_FILE: &str = "it is read once, at the start";
const USER: &str = "the user is set once, when all listeners are bound";

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Global => write!(f, "global: ")?,
            Subject::Admin => write!(f, "admin: ")?,
            Subject::Announce => write!(f, "announce: ")?,
            Subject::Fleet => write!(f, "fleet: ")?,
            Subject::Listener(name) => write!(f, "listener {name:?}: ")?,
            Subject::Pool(name) => write!(f, "pool {name:?}: ")?,
            Subject::Backend { pool, name } => write!(f, "pool {pool:?}: backend {name:?}: ")?,
            Subject::Check(pool, name) => write!(f, "pool {pool:?}: check {name:?}: ")?,
            Subject::Discover(pool, source) => write!(f, "pool {pool:?}: discover {source:?}: ")?,
        }
        match &self.difference {
            Difference::Added => write!(f, "added")?,
            Difference::Removed => write!(f, "removed")?,
            Difference::Key { key, old, new } => write!(f, "{key} {old} -> {new}")?,
        }
        match self.needs_restart {
            Some(why) => write!(f, " (needs a restart: {why})"),
            None => Ok(()),
        }
    }
}

/// Returns all changes from `old` to `new`. Listeners, pools and backends are identified by name; their order is no
/// difference.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let Config { global, admin, announce, fleet, listeners, pools, hosts: _, notes: _, digest: _ } = new;
    let mut changes = Vec::new();
    of_global(&old.global, global, &mut Keys { subject: Subject::Global, changes: &mut changes });
    of_admin(&old.admin, admin, &mut Keys { subject: Subject::Admin, changes: &mut changes });

    let (were, are) = (old.announce.as_slice(), announce.as_slice());
    let of_all = |_: &Announce| String::new();
    of_lists(
        were,
        are,
        of_all,
        |_| Subject::Announce,
        &mut changes,
        |old, new, keys| {
            keys.all(old.keys(), new.keys());
        },
    );

    let (were, are) = (old.fleet.as_slice(), fleet.as_slice());
    of_lists(
        were,
        are,
        |_: &Fleet| String::new(),
        |_| Subject::Fleet,
        &mut changes,
        |old, new, keys| {
            keys.all(old.keys(), new.keys());
        },
    );

    let pool_of = |config: &Config, listener: &Listener| config.pools[listener.pool].name.clone();
    let name = |listener: &Listener| listener.name.clone();
    of_lists(&old.listeners, listeners, name, Subject::Listener, &mut changes, |before, now, keys| {
        keys.text("pool", &pool_of(old, before), &pool_of(new, now));
        of_listener(before, now, keys);
        let routes = |config: &Config, listener: &Listener| {
            let routes = listener.routing.as_ref().map(|routing| routing.show(|pool| config.pool_name(pool)));
            routes.filter(|routes| !routes.is_empty()).map(|routes| routes.join("; "))
        };
        keys.maybe("route", routes(old, before), routes(new, now));
    });
    let name = |pool: &Pool| pool.name.clone();
    of_lists(&old.pools, pools, name, Subject::Pool, &mut changes, |before, now, keys| {
        of_pool(before, now, keys);
        let name = |(name, _): &(String, Vec<Maybe>)| name.clone();
        let subject = |name| Subject::Backend { pool: now.name.clone(), name };
        let (were, are) = (backends_of(before), backends_of(now));
        of_lists(&were, &are, name, subject, keys.changes, |(_, old), (_, new), keys| {
            keys.all(old.iter().cloned(), new.iter().cloned());
        });
        let name = |check: &FurtherCheck| check.name.clone();
        let subject = |name| Subject::Check(now.name.clone(), name);
        of_lists(&before.health.more, &now.health.more, name, subject, keys.changes, of_check);
        let subject = |source| Subject::Discover(now.name.clone(), source);
        let name = |source: &&Discover| source.label();
        let (were, are) = (sources_of(before), sources_of(now));
        of_lists(&were, &are, name, subject, keys.changes, |old, new, keys| keys.all(old.keys(), new.keys()));
    });
    changes
}

/// Returns what was removed from a list, what was added to it, and the differences of the rest.
fn of_lists<T>(
    old: &[T],
    new: &[T],
    name: impl Fn(&T) -> String,
    subject: impl Fn(String) -> Subject,
    changes: &mut Vec<Change>,
    mut compare: impl FnMut(&T, &T, &mut Keys<'_>),
) {
    let names = |list: &[T]| list.iter().map(&name).zip(0..).collect::<HashMap<String, usize>>();
    let (before, now) = (names(old), names(new));
    let whole =
        |item: &T, difference| Change { subject: subject(name(item)), difference, needs_restart: None };
    let gone = old.iter().filter(|item| !now.contains_key(&name(item)));
    changes.extend(gone.map(|item| whole(item, Difference::Removed)));
    for item in new {
        match before.get(&name(item)) {
            None => changes.push(whole(item, Difference::Added)),
            Some(&place) => compare(&old[place], item, &mut Keys { subject: subject(name(item)), changes }),
        }
    }
}

type Maybe = (&'static str, Option<String>);

/// Collects the keys of one subject that differ.
struct Keys<'a> {
    subject: Subject,
    changes: &'a mut Vec<Change>,
}

impl Keys<'_> {
    fn text(&mut self, key: &'static str, old: &str, new: &str) {
        if old != new {
            let difference = Difference::Key { key, old: old.to_owned(), new: new.to_owned() };
            self.changes.push(Change { subject: self.subject.clone(), difference, needs_restart: None });
        }
    }

    fn value(&mut self, key: &'static str, old: impl Display, new: impl Display) {
        self.text(key, &old.to_string(), &new.to_string());
    }

    fn duration(&mut self, key: &'static str, old: Duration, new: Duration) {
        self.text(key, &show_duration(old), &show_duration(new));
    }

    fn maybe<T: Display>(&mut self, key: &'static str, old: Option<T>, new: Option<T>) {
        let show = |value: Option<T>| value.map_or(UNSET.to_owned(), |value| value.to_string());
        self.text(key, &show(old), &show(new));
    }

    fn all(&mut self, old: impl IntoIterator<Item = Maybe>, new: impl IntoIterator<Item = Maybe>) {
        old.into_iter().zip(new).for_each(|((key, old), (_, new))| self.maybe(key, old, new));
    }

    /// Marks the changes since there were `before` as needing a restart.
    fn restart_since(&mut self, before: usize, why: &'static str) {
        self.changes[before..].iter_mut().for_each(|change| change.needs_restart = Some(why));
    }
}

fn of_global(old: &Global, new: &Global, keys: &mut Keys<'_>) {
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
    } = new;
    keys.value("workers", old.workers, workers);
    let before = keys.changes.len();
    keys.value("pin", old.pin, pin);
    keys.restart_since(before, PIN);
    keys.value("splice", old.splice, splice);
    let before = keys.changes.len();
    keys.duration("busy_poll", old.busy_poll, *busy_poll);
    keys.restart_since(before, BUSY_POLL);
    keys.maybe("max_sessions", old.max_sessions, *max_sessions);
    keys.duration("drain_timeout", old.drain_timeout, *drain_timeout);
    keys.duration("shutdown_delay", old.shutdown_delay, *shutdown_delay);
    keys.duration("reload_timeout", old.reload_timeout, *reload_timeout);
    keys.value("watch", old.watch, watch);
    keys.text("resolve", old.resolve.as_str(), resolve.as_str());
    let level = |level: log::LevelFilter| level.as_str().to_ascii_lowercase();
    keys.text("log.level", &level(old.log_level), &level(*log_level));
    keys.text("log.format", old.log_format.as_str(), log_format.as_str());
    keys.text("log.target", old.log_target.as_str(), log_target.as_str());
    let socket = |log: &LogTarget| log.syslog().map(|syslog| syslog.socket.display().to_string());
    keys.maybe("log.socket", socket(&old.log_target), socket(log_target));
    let facility = |log: &LogTarget| log.syslog().map(|syslog| syslog.facility.as_str());
    keys.maybe("log.facility", facility(&old.log_target), facility(log_target));
    let app_name = |log: &LogTarget| log.syslog().map(|syslog| syslog.app_name.clone());
    keys.maybe("log.app_name", app_name(&old.log_target), app_name(log_target));
    let header = |log: &LogTarget| log.syslog().map(|syslog| syslog.header.as_str());
    keys.maybe("log.header", header(&old.log_target), header(log_target));
    let fields = |fields: &Option<Vec<&str>>| fields.as_ref().map(|fields| fields.join(","));
    keys.maybe("log.fields", fields(&old.log_fields), fields(log_fields));
    let path = |log: &Option<AccessLog>| log.as_ref().map(|log| log.path.display().to_string());
    keys.maybe("access_log.path", path(&old.access_log), path(access_log));
    let format = |log: &Option<AccessLog>| log.as_ref().map(|log| log.format.as_str());
    keys.maybe("access_log.format", format(&old.access_log), format(access_log));
    keys.text("access_log.at", &old.session_lines.at(), &session_lines.at());
    keys.maybe(
        "access_log.every",
        old.session_lines.every.map(show_duration),
        session_lines.every.map(show_duration),
    );
    let before = keys.changes.len();
    let name = |user: &Option<Account>| user.as_ref().map(|account| account.user.clone());
    keys.maybe("user", name(&old.user), name(user));
    let group = |user: &Option<Account>| user.as_ref().and_then(|account| account.group.clone());
    keys.maybe("group", group(&old.user), group(user));
    keys.restart_since(before, USER);
}

fn of_admin(old: &Admin, new: &Admin, keys: &mut Keys<'_>) {
    let Admin { socket, listen, token_file, read_token_file, metrics, state_file } = new;
    let before = keys.changes.len();
    keys.value("socket", &old.socket, socket);
    keys.restart_since(before, SOCKET);
    keys.maybe("listen", old.listen, *listen);
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    keys.maybe("token_file", path(&old.token_file), path(token_file));
    keys.maybe("read_token_file", path(&old.read_token_file), path(read_token_file));
    keys.maybe("metrics", old.metrics, *metrics);
    let before = keys.changes.len();
    keys.maybe("state_file", path(&old.state_file), path(state_file));
    keys.restart_since(before, STATE_FILE);
}

fn of_listener(old: &Listener, new: &Listener, keys: &mut Keys<'_>) {
    // The pool is identified by its name, and the names are equal.
    let Listener { name: _, pool: _, bind, backlog, accept, max_sessions, timeouts, .. } = new;
    let Listener { preread, access, on_refuse, proxy_protocol, routing, .. } = new;
    keys.value("bind", old.bind, bind);
    keys.value("backlog", old.backlog, backlog);
    keys.text("accept", old.accept.as_str(), accept.as_str());
    keys.maybe::<NonZeroUsize>("max_sessions", old.max_sessions, *max_sessions);
    of_timeouts(old.timeouts, *timeouts, keys);
    keys.duration("timeouts.preread", old.preread, *preread);
    let list = |access: &Option<Arc<Access>>, rule| shown_list(access.as_deref(), rule);
    keys.maybe("allow", list(&old.access, Rule::Allow), list(access, Rule::Allow));
    keys.maybe("deny", list(&old.access, Rule::Deny), list(access, Rule::Deny));
    keys.text("on_refuse", old.on_refuse.as_str(), on_refuse.as_str());
    keys.all(proxy::keys_in(old.proxy_protocol.as_ref()), proxy::keys_in(proxy_protocol.as_ref()));
    let words = |routing: &Option<Routing>| routing.as_ref().and_then(Routing::words).unzip();
    let (old, new) = (words(&old.routing), words(routing));
    keys.maybe("tls", old.0, new.0);
    keys.maybe("on_no_sni", old.1, new.1);
}

fn of_timeouts(old: Timeouts, new: Timeouts, keys: &mut Keys<'_>) {
    let Timeouts { connect, idle, half_close } = new;
    keys.duration("timeouts.connect", old.connect, connect);
    keys.duration("timeouts.idle", old.idle, idle);
    keys.duration("timeouts.half_close", old.half_close, half_close);
}

fn of_pool(old: &Pool, new: &Pool, keys: &mut Keys<'_>) {
    let Pool {
        name: _,
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
        discover: _,
        agent,
    } = new;
    keys.text("balance", old.balance.as_str(), balance.as_str());
    keys.value("retries", old.retries, retries);
    keys.text("when_all_down", old.when_all_down.as_str(), when_all_down.as_str());
    keys.text("relay", old.relay.as_str(), relay.as_str());
    keys.all(proxy::keys(old.proxy_protocol.as_ref()), proxy::keys(proxy_protocol.as_ref()));
    keys.text("on_remove", old.on_remove.as_str(), on_remove.as_str());
    keys.duration("drain_timeout", old.drain_timeout, *drain_timeout);
    of_timeouts(old.timeouts, *timeouts, keys);
    of_tcp(old.tcp, *tcp, keys);
    of_health(&old.health, health, keys);
    keys.all(agent::keys(old.agent.as_ref()), agent::keys(agent.as_ref()));
}

fn of_tcp(old: Tcp, new: Tcp, keys: &mut Keys<'_>) {
    let Tcp { nodelay, keepalive, user_timeout } = new;
    keys.value("tcp.nodelay", old.nodelay, nodelay);
    let figures = |keepalive: Option<Keepalive>| match keepalive {
        None => "false".to_owned(),
        Some(Keepalive { idle, interval, count }) => {
            let [idle, interval] = [idle, interval].map(show_duration);
            format!("{{ idle = {idle}, interval = {interval}, count = {count} }}")
        }
    };
    keys.text("tcp.keepalive", &figures(old.keepalive), &figures(keepalive));
    keys.duration("tcp.user_timeout", old.user_timeout.unwrap_or_default(), user_timeout.unwrap_or_default());
}

fn of_health(old: &Health, new: &Health, keys: &mut Keys<'_>) {
    let Health {
        check,
        written,
        interval,
        fast_interval,
        timeout,
        rise,
        fall,
        jitter_percent,
        port,
        initial_state,
        // Each has a name, and so is compared by `diff`.
        more: _,
        secrets: _,
    } = new;
    keys.all(check_keys(&old.check, &old.written), check_keys(check, written));
    keys.duration("health.interval", old.interval, *interval);
    keys.duration("health.fast_interval", old.fast_interval, *fast_interval);
    keys.duration("health.timeout", old.timeout, *timeout);
    keys.value("health.rise", old.rise, rise);
    keys.value("health.fall", old.fall, fall);
    keys.value("health.jitter_percent", old.jitter_percent, jitter_percent);
    keys.maybe("health.port", old.port, *port);
    keys.text("health.initial_state", old.initial_state.as_str(), initial_state.as_str());
}

fn of_check(old: &FurtherCheck, new: &FurtherCheck, keys: &mut Keys<'_>) {
    let FurtherCheck { name: _, check, written, secrets: _, port } = new;
    keys.all(
        check_keys(&old.check, &old.written).map(without_table),
        check_keys(check, written).map(without_table),
    );
    keys.maybe("port", old.port, *port);
}

/// The keys of `[[pool.check]]` are those of `[pool.health]`.
fn without_table((key, value): Maybe) -> Maybe {
    (key.trim_start_matches("health."), value)
}

/// Returns the keys of each `[[pool.backend]]`, with its name: those at an address, and those at a host name.
fn backends_of(pool: &Pool) -> Vec<(String, Vec<Maybe>)> {
    let at_addresses = pool.backends.iter().map(|backend| (backend.name.clone(), keys_of(backend)));
    let at_hosts =
        pool.discover.iter().filter_map(|source| Some((source.as_host()?.backend.clone(), source.keys())));
    at_addresses.chain(at_hosts).collect()
}

/// Returns the sources that are `[[pool.discover]]`.
fn sources_of(pool: &Pool) -> Vec<&Discover> {
    pool.discover.iter().filter(|source| source.as_host().is_none()).collect()
}

/// The same keys in the same order as those of a host.
fn keys_of(backend: &Backend) -> Vec<Maybe> {
    let Backend { name: _, address, weight, priority, check } = backend;
    let of_check = check.keys();
    let own = [
        ("address", address.to_string()),
        ("weight", weight.to_string()),
        ("priority", priority.to_string()),
    ];
    own.into_iter().map(|(key, value)| (key, Some(value))).chain(of_check).collect()
}

#[cfg(test)]
mod tests;
