//! Log lines go through bounded queues to threads that write them: one to standard error or to the syslog daemon, and
//! one to the access log if it is configured. So neither a stuck standard error or daemon nor a slow disk stalls a
//! worker, nor do they stall each other: lines that do not fit are dropped, counted and reported.

mod backlog;
mod daemon;
mod file;
mod format;
mod lines;
mod outlet;
mod queue;
mod syslog;

use std::io;
use std::path::PathBuf;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard};

use env_logger::Logger;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::base::AUDIT;
use crate::config::model::{AccessLog, Global, LogFormat, LogTarget};
use crate::sys;

use file::AccessFile;
use format::{SESSIONS, set_format};
use outlet::{Outlet, unfiltered};
pub use queue::dropped;
use queue::{Queue, Waiting};

/// The logger of this process.
static ROUTER: OnceLock<Router> = OnceLock::new();

/// Writes the lines left in the queues when dropped, unless an output is stuck.
#[must_use = "dropped, it waits for the lines to be written"]
pub struct Logging {
    /// The access log from the start; its lines wait until it is opened.
    waiting: Option<(PathBuf, Waiting)>,
}

/// Installs the logger of the process: lines of `level` and worse, unless RUST_LOG says otherwise, as `settings` want
/// them. Fails when the process has a logger already or no thread can be started.
pub fn start(level: LevelFilter, settings: &Settings) -> io::Result<Logging> {
    let Settings { format, fields, target, access_log } = settings;
    set_format(*format);
    format::set_fields(fields.clone());
    let (sessions, waiting) = access_log
        .as_ref()
        .map(|access| {
            let (sessions, waiting) = Sessions::new(access);
            (sessions, (access.path.clone(), waiting))
        })
        .unzip();
    let filters = Filters { rust_log: std::env::var("RUST_LOG").ok(), has_access_log: sessions.is_some() };
    let wiring = Wiring {
        filter: filters.build(Chosen::AtStart(level)),
        chosen: Chosen::AtStart(level),
        filters,
        lines: Outlet::open(target)?,
        sessions,
    };
    let router = Router { wiring: RwLock::new(wiring) };
    let level = router.read().filter.filter();
    if ROUTER.set(router).is_err() {
        return Err(io::Error::other("this process has a logger already"));
    }
    log::set_logger(ROUTER.get().expect("the router was set above")).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(Logging { waiting })
}

/// What the configuration says about log lines, besides their level.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The format of a line.
    pub format: LogFormat,
    /// The fields of lines of sessions and their order; `None` is all.
    pub fields: Option<Vec<&'static str>>,
    /// Where lines go.
    pub target: LogTarget,
    /// The file for the lines of sessions, if they have one.
    pub access_log: Option<AccessLog>,
}

impl Settings {
    /// Returns the settings of a process without a configuration.
    pub const fn plain() -> Self {
        Self { format: LogFormat::Text, fields: None, target: LogTarget::StandardError, access_log: None }
    }

    /// Returns those of a configuration.
    pub fn of(global: &Global) -> Self {
        Self {
            format: global.log_format,
            fields: global.log_fields.clone(),
            target: global.log_target.clone(),
            access_log: global.access_log.clone(),
        }
    }
}

impl Logging {
    /// Opens the access log, if there is one. Must be called with the rights that the process will have when it reopens
    /// it.
    pub fn open_access_log(&mut self) -> Result<(), (PathBuf, io::Error)> {
        let Some((path, waiting)) = self.waiting.take() else { return Ok(()) };
        AccessFile::open(&path)
            .and_then(|file| queue::spawn("l4lb-access", waiting, file))
            .map_err(|error| (path, error))
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let access = ROUTER.get().filter(|_| self.waiting.is_none()).and_then(Router::access_log);
        if let Some((path, queue)) = access
            && let Err(lines) = queue.flush()
        {
            log::warn!(path:% = path.display(), lines; "the process ends before these access log lines are written");
        }
        if let Some(router) = ROUTER.get() {
            router.flush_lines();
        }
    }
}

/// Requests that the access log, if there is one, is reopened by its name before the next line: log rotation has
/// renamed it.
pub fn reopen() {
    if let Some((_, queue)) = ROUTER.get().and_then(Router::access_log) {
        queue.reopen();
    }
}

/// Writes the lines left in the queues, unless an output is stuck.
pub fn flush() {
    let Some(router) = ROUTER.get() else { return };
    if let Some((_, queue)) = router.access_log() {
        // Its lines count as dropped.
        let _left = queue.flush();
    }
    router.flush_lines();
}

/// Writes why the process ends, in the format of the log, to standard error and behind the lines in the queues.
pub fn print_last_words(error: &str) {
    if ROUTER.get().is_some_and(|router| router.read().lines.is_syslog()) {
        log::error!(error; "l4lb ends");
    }
    flush();
    if format::is_json() {
        print_json("l4lb ends", error);
    } else {
        eprintln!("l4lb: {error}");
    }
}

/// Writes one mistake of a configuration that does not start, in the format that it configures.
pub fn print_mistake(error: &str, format: LogFormat) {
    match format {
        LogFormat::Json => print_json("the configuration is wrong", error),
        LogFormat::Text => eprintln!("{error}"),
    }
}

fn print_json(message: &str, error: &str) {
    let time = sys::timestamp().to_string();
    eprintln!(
        "{}",
        serde_json::json!({ "time": time, "level": "error", "message": message, "error": error })
    );
}

/// Returns the present level of the log.
pub fn level() -> LevelFilter {
    ROUTER.get().map_or(LevelFilter::Off, |router| router.read().filter.filter())
}

/// Sets the level of the log. Settings of RUST_LOG for single targets stay in force.
pub fn set_level(level: LevelFilter) {
    match ROUTER.get() {
        Some(router) => router.rewire(|wiring| wiring.chosen = Chosen::Later(level)),
        // Another logger, as in a test.
        None => log::set_max_level(level),
    }
}

/// The outputs that a new configuration needs, open but not in use yet. Dropping it closes them.
pub struct Change {
    format: LogFormat,
    fields: Option<Vec<&'static str>>,
    /// The new output of all other lines, if it changes.
    lines: Option<Outlet>,
    /// The new output of the lines of finished sessions, if it changes.
    sessions: Option<Option<Sessions>>,
}

/// Opens the outputs of `settings` that are not open yet. Does nothing when this process has no logger. Fails with the
/// path that cannot be opened.
pub fn open(settings: &Global) -> Result<Change, (PathBuf, io::Error)> {
    let Settings { format, fields, target, access_log } = Settings::of(settings);
    let Some(router) = ROUTER.get() else {
        return Ok(Change { format, fields, lines: None, sessions: None });
    };
    let (running, is_there) = {
        let wiring = router.read();
        (wiring.sessions.as_ref().map(|sessions| sessions.settings.clone()), wiring.lines.is_at(&target))
    };
    let lines = if is_there {
        None
    } else {
        let path = target.syslog().map_or_else(PathBuf::new, |syslog| syslog.socket.clone());
        Some(Outlet::open(&target).map_err(|error| (path, error))?)
    };
    if running == access_log {
        return Ok(Change { format, fields, lines, sessions: None });
    }
    let sessions = access_log.as_ref().map(|access| {
        let (sessions, waiting) = Sessions::new(access);
        AccessFile::open(&access.path)
            .and_then(|file| queue::spawn("l4lb-access", waiting, file))
            .map(|()| sessions)
            .map_err(|error| (access.path.clone(), error))
    });
    Ok(Change { format, fields, lines, sessions: Some(sessions.transpose()?) })
}

impl Change {
    /// Switches to the new outputs. Earlier lines are still written to the old ones.
    pub fn begin(self) {
        let Self { format, fields, lines, sessions } = self;
        set_format(format);
        format::set_fields(fields);
        let Some(router) = ROUTER.get() else { return };
        if lines.is_none() && sessions.is_none() {
            return;
        }
        router.rewire(|wiring| {
            if let Some(lines) = lines {
                wiring.lines = lines;
            }
            if let Some(sessions) = sessions {
                wiring.filters.has_access_log = sessions.is_some();
                wiring.sessions = sessions;
            }
        });
    }
}

/// Decides which lines are written, and where to.
struct Router {
    wiring: RwLock<Wiring>,
}

/// The parts that may change while lines are logged.
struct Wiring {
    filter: Logger,
    filters: Filters,
    chosen: Chosen,
    /// The output of all lines without another one.
    lines: Outlet,
    /// The separate output of the lines of finished sessions, if any.
    sessions: Option<Sessions>,
}

/// An access log. When dropped, its file is closed behind the lines in its queue.
struct Sessions {
    settings: AccessLog,
    logger: Logger,
    queue: Queue,
}

impl Sessions {
    fn new(settings: &AccessLog) -> (Self, Waiting) {
        let (queue, waiting) = Queue::new();
        let format = match settings.format {
            LogFormat::Text => format::write_text,
            LogFormat::Json => format::write_json,
        };
        (Self { settings: settings.clone(), logger: unfiltered(format, &queue), queue }, waiting)
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Router {
    fn read(&self) -> RwLockReadGuard<'_, Wiring> {
        // It is replaced as a whole, so a panic cannot leave it half changed.
        self.wiring.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn access_log(&self) -> Option<(PathBuf, Queue)> {
        self.read().sessions.as_ref().map(|sessions| (sessions.settings.path.clone(), sessions.queue.clone()))
    }

    fn flush_lines(&self) {
        let (queue, is_syslog) = {
            let lines = &self.read().lines;
            (lines.parts().1.clone(), lines.is_syslog())
        };
        // Standard error has no place to report its own lines.
        if let Err(lines) = queue.flush()
            && is_syslog
            && sys::has_room_on_standard_error()
        {
            eprintln!(
                "l4lb: {lines} log lines did not reach the syslog daemon before the end of the process"
            );
        }
    }

    fn rewire(&self, change: impl FnOnce(&mut Wiring)) {
        let mut wiring = self.wiring.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut wiring);
        wiring.filter = wiring.filters.build(wiring.chosen);
        log::set_max_level(wiring.filter.filter());
    }
}

impl Log for Router {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.read().filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let wiring = self.read();
        if record.target() != AUDIT && !wiring.filter.matches(record) {
            return;
        }
        let is_of_session = record.target() == SESSIONS;
        let (logger, queue) = match &wiring.sessions {
            Some(sessions) if is_of_session => (&sessions.logger, &sessions.queue),
            Some(_) | None => wiring.lines.parts(),
        };
        logger.log(record);
        // There may be as many as sessions: they may wait for one another. No other line may wait for them.
        let may_wait = is_of_session && record.level() > Level::Warn;
        if !may_wait {
            queue.write_now();
        }
    }

    fn flush(&self) {}
}

/// The settings besides the level that decide which lines are written.
struct Filters {
    rust_log: Option<String>,
    has_access_log: bool,
}

/// The origin of the level of the log.
#[derive(Clone, Copy)]
enum Chosen {
    /// The configuration or a flag, at the start: RUST_LOG overrides it.
    AtStart(LevelFilter),
    /// A later change: it overrides the general level of RUST_LOG.
    Later(LevelFilter),
}

impl Filters {
    fn build(&self, chosen: Chosen) -> Logger {
        match chosen {
            Chosen::AtStart(level) => self.builder(level).build(),
            Chosen::Later(level) => self.builder(level).filter_level(level).build(),
        }
    }

    fn builder(&self, level: LevelFilter) -> env_logger::Builder {
        let mut builder = env_logger::Builder::new();
        builder.filter_level(level);
        if self.has_access_log {
            // A file of their own must get these lines, also when the level drops others.
            builder.filter_module(SESSIONS, LevelFilter::Info);
        }
        if let Some(rust_log) = &self.rust_log {
            builder.parse_filters(rust_log);
        }
        builder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(filter: &Logger, target: &str, level: Level) -> bool {
        filter.enabled(&Metadata::builder().target(target).level(level).build())
    }

    #[test]
    fn rust_log_decides_at_the_start_and_a_level_set_later_decides_then() {
        let filters = Filters { rust_log: Some("warn,l4lb::workers=debug".into()), has_access_log: false };
        let (start, later) = (
            filters.build(Chosen::AtStart(LevelFilter::Info)),
            filters.build(Chosen::Later(LevelFilter::Info)),
        );
        for (target, level, at_start, when_set) in [
            ("l4lb::control", Level::Warn, true, true),
            ("l4lb::control", Level::Info, false, true),
            ("l4lb::control", Level::Debug, false, false),
            ("l4lb::workers", Level::Debug, true, true),
        ] {
            assert_eq!(writes(&start, target, level), at_start, "{target} {level} at the start");
            assert_eq!(writes(&later, target, level), when_set, "{target} {level} later");
        }
    }

    #[test]
    fn an_access_log_has_its_lines_at_every_level_but_what_rust_log_silences() {
        let filters = Filters { rust_log: None, has_access_log: true };
        for level in [LevelFilter::Off, LevelFilter::Error, LevelFilter::Info, LevelFilter::Trace] {
            assert!(writes(&filters.build(Chosen::AtStart(level)), SESSIONS, Level::Info), "{level}");
            assert!(writes(&filters.build(Chosen::Later(level)), SESSIONS, Level::Info), "{level}");
        }
        let silenced = Filters { rust_log: Some("info,l4lb::session=off".into()), ..filters };
        assert!(!writes(&silenced.build(Chosen::AtStart(LevelFilter::Info)), SESSIONS, Level::Error));
        assert!(!writes(&silenced.build(Chosen::Later(LevelFilter::Trace)), SESSIONS, Level::Error));
    }
}
