//! From the mirror of the file and the flags to the [`Config`]: the process, its listeners, and what belongs
//! where. Reports every mistake and goes on with a stand-in; a report that is not empty discards the result.

pub(super) mod admin;
pub(super) mod conflicts;
mod health;
mod pool;
pub(super) mod reader;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use log::LevelFilter;
use toml::Spanned;

use crate::base::nearest::did_you_mean;
use crate::config::address::{Resolver, parse_bind};
use crate::config::error::{Error, Invalid};
use crate::config::model::{
    Accept, AccessLog, Account, Config, Global, Listener, LogFormat, Resolve, SessionLines, Timeouts,
};
use crate::config::overrides::{BackendFlag, Overrides, workers_auto};
use crate::config::parse::raw::{
    Key, RawAccessLog, RawConfig, RawGlobal, RawListener, RawLog, RawPool, Table, label,
};
use crate::config::parse::report::{Placed, Report, Scope, Spot};
use crate::config::ranges::{
    BACKLOG_MAX, BUSY_POLL, DRAIN_TIMEOUT, LINES_EVERY, SESSIONS_MAX, TIMEOUT, WORKERS_MAX,
};
use pool::{Names, PoolDraft, TIMEOUTS};
use reader::{Reader, quote, spot_of, spot_of_table, str_of};

/// Connections that wait to be accepted, per worker, unless a listener says otherwise; the kernel caps it at
/// net.core.somaxconn.
pub const BACKLOG: u32 = 4096;

const LOG_LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

const ACCEPTS: [(&str, Accept); 2] = {
    let [a, b] = Accept::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

const LOG_FORMATS: [(&str, LogFormat); 2] = {
    let [a, b] = LogFormat::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

const RESOLVE: [(&str, Resolve); 2] = {
    let [a, b] = Resolve::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

/// The configuration that `raw` and `overrides` describe, or every mistake.
pub(super) fn check(
    raw: &RawConfig,
    overrides: &Overrides,
    resolve: Resolver,
    mut report: Report,
) -> Result<Config, Vec<Error>> {
    let global = global(raw.global.as_ref(), overrides, &mut report);
    let admin = admin::check(raw.admin.as_ref(), overrides, &mut report);
    let mut names = Names { resolve, policy: global.resolve };
    let pools = pools(&raw.pool, global.drain_timeout, overrides, &mut names, &mut report);
    let listeners = listeners(&raw.listener, overrides, &pools, &mut report);
    conflicts::report(&listeners, &pools, &admin, &mut report);
    let listeners = listeners.into_iter().map(|listener| listener.item).collect();
    let hosts = pools.iter().flat_map(|pool| pool.hosts.iter().cloned()).collect();
    let pools = pools.into_iter().map(PoolDraft::into_pool).collect();
    let notes = std::mem::take(&mut report.notes);
    report.finish(Config { global, admin: admin.admin, listeners, pools, hosts, notes })
}

fn global(raw: Option<&Spanned<Table<RawGlobal>>>, overrides: &Overrides, report: &mut Report) -> Global {
    let (absent, absent_log) = (RawGlobal::default(), RawLog::default());
    let scope = Scope::new(spot_of_table(raw), "global");
    let raw = raw.map_or(&absent, |raw| raw.get_ref());
    let log_scope = scope.part(spot_of_table(raw.log.as_ref()), "log");
    let log = raw.log.as_ref().map_or(&absent_log, |log| log.get_ref());

    let mut read = Reader { report, scope: &scope };
    let workers = workers(&mut read, &raw.workers);
    let pin = read.boolean("pin", &raw.pin);
    let splice = read.boolean("splice", &raw.splice);
    let busy_poll = read.duration("busy_poll", &raw.busy_poll, BUSY_POLL, Some("sleep at once"));
    let max_sessions = sessions(&mut read, &raw.max_sessions);
    let drain_timeout = read.duration("drain_timeout", &raw.drain_timeout, DRAIN_TIMEOUT, None);
    let shutdown_delay = read.duration("shutdown_delay", &raw.shutdown_delay, DRAIN_TIMEOUT, None);
    let reload_timeout = read.duration("reload_timeout", &raw.reload_timeout, TIMEOUT, None);
    let resolve = read.choice("resolve", &raw.resolve, &RESOLVE);
    let user = account(&mut read, &raw.user, &raw.group);
    let mut read = Reader { report, scope: &log_scope };
    let level = read.choice("level", &log.level, &LOG_LEVELS);
    let format = read.choice("format", &log.format, &LOG_FORMATS).unwrap_or(LogFormat::Text);
    let lines = raw.access_log.as_ref().map(|raw| session_lines(raw, &scope, report));
    let access_log = raw.access_log.as_ref().and_then(|raw| access_log(raw, &scope, format, report));

    Global {
        workers: overrides.workers.or(workers).unwrap_or_else(workers_auto),
        pin: pin.unwrap_or(false),
        splice: splice.unwrap_or(true),
        busy_poll: busy_poll.unwrap_or(Duration::ZERO),
        max_sessions: overrides.max_sessions.or(max_sessions),
        drain_timeout: drain_timeout.unwrap_or(Duration::from_secs(30)),
        shutdown_delay: shutdown_delay.unwrap_or(Duration::ZERO),
        reload_timeout: reload_timeout.unwrap_or(Duration::from_secs(30)),
        resolve: resolve.unwrap_or(Resolve::Require),
        log_level: overrides.log_level.or(level).unwrap_or(LevelFilter::Info),
        log_format: format,
        access_log,
        session_lines: lines.unwrap_or_default(),
        user,
    }
}

fn session_lines(raw: &Spanned<Table<RawAccessLog>>, scope: &Scope, report: &mut Report) -> SessionLines {
    let scope = scope.part(spot_of_table(Some(raw)), "access_log");
    let raw = raw.get_ref();
    let mut read = Reader { report, scope: &scope };
    let every = read.duration("every", &raw.every, LINES_EVERY, None);
    let SessionLines { mut at_start, mut at_end, .. } = SessionLines::default();
    if let Some(words) = read.words("at", &raw.at, &["start", "end"]) {
        (at_start, at_end) = (words.contains(&"start"), words.contains(&"end"));
        if words.is_empty() && every.is_none() {
            read.wrong(
                "at",
                &raw.at,
                "an empty list without every: no line would be written; leave access_log out",
            );
        }
    }
    SessionLines { at_start, at_end, every }
}

/// Written in `format` unless the table names another; `None` when its path says that there is none.
fn access_log(
    raw: &Spanned<Table<RawAccessLog>>,
    scope: &Scope,
    format: LogFormat,
    report: &mut Report,
) -> Option<AccessLog> {
    let scope = scope.part(spot_of_table(Some(raw)), "access_log");
    let raw = raw.get_ref();
    let mut read = Reader { report, scope: &scope };
    if raw.path.is_none() {
        read.wrong("path", &raw.path, "missing, write path = \"/var/log/l4lb/access.log\"");
    }
    let path = read.text("path", &raw.path);
    let own = read.choice("format", &raw.format, &LOG_FORMATS);
    let of = |path: &str| AccessLog { path: path.into(), format: own.unwrap_or(format) };
    match path? {
        STANDARD_ERROR if own.is_some() => {
            read.wrong("format", &raw.format, "what goes to standard error has the format of log");
            None
        }
        STANDARD_ERROR => None,
        "stdout" | "/dev/stdout" => Some(of(STDOUT)),
        "stderr" | "/dev/stderr" => Some(of(STDERR)),
        path if path.is_empty() || path.contains('\0') => {
            read.wrong(
                "path",
                &raw.path,
                format_args!("must be a file or {STANDARD_ERROR:?}, got {}", quote(path)),
            );
            None
        }
        path => Some(of(path)),
    }
}

/// The path that leaves the lines of sessions where the others go.
const STANDARD_ERROR: &str = "-";
/// The paths of what the process was started with: it has them open, and opens them by no name.
const STDOUT: &str = "/dev/stdout";
const STDERR: &str = "/dev/stderr";

fn account(read: &mut Reader, user: &Key, group: &Key) -> Option<Account> {
    let mut name = |key_name: &str, key: &Key| {
        let name = read.text(key_name, key)?;
        let is_name =
            !name.is_empty() && !name.contains(|c: char| c == ':' || c.is_whitespace() || c.is_control());
        if !is_name {
            read.wrong(key_name, key, format_args!("must be a name, got {}", quote(name)));
        }
        is_name.then(|| name.to_owned())
    };
    let (user_name, group_name) = (name("user", user), name("group", group));
    if user.is_none() && group.is_some() {
        read.wrong("group", group, "goes with user, which is missing");
    }
    user_name.map(|user| Account { user, group: group_name })
}

/// `"auto"` or a number.
fn workers(read: &mut Reader, key: &Key) -> Option<NonZeroUsize> {
    match str_of(key) {
        Some("auto") => Some(workers_auto()),
        Some(text) => {
            read.wrong(
                "workers",
                key,
                format_args!("must be \"auto\" or 1..={WORKERS_MAX}, got {}", quote(text)),
            );
            None
        }
        None => read.whole("workers", key, 1..=WORKERS_MAX).and_then(NonZeroUsize::new),
    }
}

fn sessions(read: &mut Reader, key: &Key) -> Option<NonZeroUsize> {
    read.whole("max_sessions", key, 1..=SESSIONS_MAX).and_then(NonZeroUsize::new)
}

/// The pools of the file, or the one that flags alone make.
fn pools(
    raw: &[Spanned<Table<RawPool>>],
    drain_timeout: Duration,
    overrides: &Overrides,
    names: &mut Names<'_>,
    report: &mut Report,
) -> Vec<PoolDraft> {
    let is_only = raw.len() == 1;
    let mut pools = Vec::new();
    for (index, raw) in raw.iter().enumerate() {
        pools.push(pool::check(raw, index, is_only, drain_timeout, overrides, names, report));
        if raw.get_ref().backend.is_empty() && (overrides.backends.is_empty() || !is_only) {
            let scope = &pools[index].scope;
            report.add(scope, &scope.spot, "no backend: add [[pool.backend]] with address = \"ADDR:PORT\"");
        }
    }
    if raw.is_empty() && !overrides.backends.is_empty() {
        let nothing = Spanned::new(0..0, Table::default());
        pools.push(pool::check(&nothing, 0, true, drain_timeout, overrides, names, report));
    }
    match pools.as_mut_slice() {
        [] => {
            report.add_bare(&Spot::Whole, "no pool: add [[pool]] with a [[pool.backend]], or use --backend");
        }
        [only] => only.add_flags(&overrides.backends, names, report),
        [_, _, ..] => {
            let flags = overrides.backends.iter().map(BackendFlag::to_string);
            refuse_flags("--backend", flags, "[[pool.backend]]", report);
        }
    }
    pools
}

/// Reports flags that would belong to one of several pools; in the file they would be a `header`.
fn refuse_flags(flag: &str, values: impl Iterator<Item = String>, header: &str, report: &mut Report) {
    for value in values {
        let spot = Spot::Flag(format!("{flag} {value}"));
        report.add_bare(&spot, format_args!("the file has several pools: write it there, as {header}"));
    }
}

/// The listeners of the file and those of flags.
fn listeners(
    raw: &[Spanned<Table<RawListener>>],
    overrides: &Overrides,
    pools: &[PoolDraft],
    report: &mut Report,
) -> Vec<Placed<Listener>> {
    if raw.is_empty() && overrides.listen.is_empty() {
        report.add_bare(
            &Spot::Whole,
            "no listener: add [[listener]] with bind = \"0.0.0.0:9090\", or use --listen",
        );
    }
    let pool_indices: HashMap<&str, usize> =
        pools.iter().enumerate().map(|(index, pool)| (pool.pool.name.as_str(), index)).collect();
    let mut listeners: Vec<_> = raw
        .iter()
        .enumerate()
        .filter_map(|(index, raw)| listener(raw, index, overrides, pools, &pool_indices, report))
        .collect();
    match pools {
        [] => {}
        [only] => {
            let flags = overrides.listen.iter().enumerate();
            listeners.extend(flags.map(|(index, bind)| listener_of_flag(index, *bind, only.pool.timeouts)));
        }
        [_, _, ..] => {
            let flags = overrides.listen.iter().map(SocketAddr::to_string);
            refuse_flags("--listen", flags, "[[listener]]", report);
        }
    }
    listeners
}

fn listener(
    raw: &Spanned<Table<RawListener>>,
    index: usize,
    overrides: &Overrides,
    pools: &[PoolDraft],
    pool_indices: &HashMap<&str, usize>,
    report: &mut Report,
) -> Option<Placed<Listener>> {
    let spot = Spot::Byte(raw.span().start);
    let raw = raw.get_ref();
    let scope = Scope::new(spot, label("listener", str_of(&raw.name), str_of(&raw.bind), index));
    let mut read = Reader { report, scope: &scope };
    let name = read.name(&raw.name).map(str::to_string);
    let bind = bind(&mut read, &raw.bind);
    let pool = pool_of(&mut read, &raw.pool, pools.len(), pool_indices);
    let backlog = read.whole("backlog", &raw.backlog, 1..=BACKLOG_MAX).unwrap_or(BACKLOG);
    let accept = read.choice("accept", &raw.accept, &ACCEPTS).unwrap_or(Accept::Reuseport);
    let max_sessions = sessions(&mut read, &raw.max_sessions);
    let inherited = pools.get(pool).map_or(TIMEOUTS, |pool| pool.pool.timeouts);
    let timeouts = pool::timeouts(raw.timeouts.as_ref(), &scope, inherited, overrides, report);
    let bind = bind?;
    let name = name.unwrap_or_else(|| if raw.name.is_none() { bind.to_string() } else { String::new() });
    Some(Placed {
        item: Listener { name, bind, pool, backlog, accept, max_sessions, timeouts },
        name_at: spot_of(&raw.name).unwrap_or_else(|| scope.spot.clone()),
        address_at: spot_of(&raw.bind).unwrap_or_else(|| scope.spot.clone()),
        scope,
    })
}

fn listener_of_flag(index: usize, bind: SocketAddr, timeouts: Timeouts) -> Placed<Listener> {
    let spot = Spot::Flag(format!("--listen {bind}"));
    // The kernel chooses a port for each 0: such listeners may share their address, but not their name.
    let name = if bind.port() == 0 { format!("{bind}-{index}") } else { bind.to_string() };
    Placed {
        item: Listener {
            name,
            bind,
            pool: 0,
            backlog: BACKLOG,
            accept: Accept::Reuseport,
            max_sessions: None,
            timeouts,
        },
        scope: Scope::new(spot.clone(), format!("listener {bind}")),
        name_at: spot.clone(),
        address_at: spot,
    }
}

fn bind(read: &mut Reader, key: &Key) -> Option<SocketAddr> {
    if key.is_none() {
        read.wrong("bind", key, "missing, write bind = \"ADDR:PORT\"");
    }
    match parse_bind(read.text("bind", key)?) {
        Ok(bind) => Some(bind),
        Err(Invalid(what)) => {
            read.wrong("bind", key, what);
            None
        }
    }
}

/// The index of the pool that a listener names; without a name, the only one. 0 stands in for a wrong one.
fn pool_of(read: &mut Reader, key: &Key, pools: usize, pool_indices: &HashMap<&str, usize>) -> usize {
    if key.is_none() && pools > 1 {
        read.wrong("pool", key, format_args!("missing: the file has {pools} pools, name the one to serve"));
    }
    let Some(name) = read.text("pool", key) else { return 0 };
    let index = pool_indices.get(name).copied();
    if index.is_none() {
        let hint = did_you_mean(name, pool_indices.keys().copied());
        read.wrong("pool", key, format_args!("there is no pool {}{hint}", quote(name)));
    }
    index.unwrap_or(0)
}
