//! `[global]`: the process, its log, and whose account it runs under.

use std::num::NonZeroUsize;
use std::time::Duration;

use log::LevelFilter;
use toml::Spanned;

use super::log_target;
use super::reader::{Reader, quote, spot_of_table, str_of};
use crate::config::model::{AccessLog, Account, Global, LogFormat, Resolve, SessionLines};
use crate::config::overrides::{Overrides, workers_auto};
use crate::config::parse::raw::{Key, RawAccessLog, RawGlobal, RawLog, Table};
use crate::config::parse::report::{Report, Scope};
use crate::config::ranges::{BUSY_POLL, DRAIN_TIMEOUT, LINES_EVERY, SESSIONS_MAX, TIMEOUT, WORKERS_MAX};

const LOG_LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

const LOG_FORMATS: [(&str, LogFormat); 2] = {
    let [a, b] = LogFormat::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

const RESOLVE: [(&str, Resolve); 2] = {
    let [a, b] = Resolve::ALL;
    [(a.as_str(), a), (b.as_str(), b)]
};

/// The table with the flags of the process put over it.
pub(super) fn check(
    raw: Option<&Spanned<Table<RawGlobal>>>,
    overrides: &Overrides,
    report: &mut Report,
) -> Global {
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
    let max_sessions = read.count("max_sessions", &raw.max_sessions, SESSIONS_MAX);
    let drain_timeout = read.duration("drain_timeout", &raw.drain_timeout, DRAIN_TIMEOUT, None);
    let shutdown_delay = read.duration("shutdown_delay", &raw.shutdown_delay, DRAIN_TIMEOUT, None);
    let reload_timeout = read.duration("reload_timeout", &raw.reload_timeout, TIMEOUT, None);
    let watch = read.boolean("watch", &raw.watch);
    let resolve = read.choice("resolve", &raw.resolve, &RESOLVE);
    let user = account(&mut read, &raw.user, &raw.group);
    let mut read = Reader { report, scope: &log_scope };
    let level = read.choice("level", &log.level, &LOG_LEVELS);
    let format = read.choice("format", &log.format, &LOG_FORMATS).unwrap_or(LogFormat::Text);
    let log_target = log_target::target(&mut read, log);
    let log_fields = log_target::fields(&mut read, log);
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
        watch: watch.unwrap_or(false),
        resolve: resolve.unwrap_or(Resolve::KeepTrying),
        log_level: overrides.log_level.or(level).unwrap_or(LevelFilter::Info),
        log_format: format,
        log_target,
        log_fields,
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

/// Written in `format` unless the table names another; `None` when its path disables it.
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

/// The path that leaves the lines of sessions among the others.
const STANDARD_ERROR: &str = "-";
/// The standard streams of the process: they are open already, and must not be opened by name.
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
        Some(text) if read.variable_text(key).is_none() || text.parse::<u64>().is_err() => {
            let got = read.got(key);
            read.wrong("workers", key, format_args!("must be \"auto\" or 1..={WORKERS_MAX}, got {got}"));
            None
        }
        Some(_) | None => read.count("workers", key, WORKERS_MAX),
    }
}
