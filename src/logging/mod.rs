//! Log lines go through bounded queues to threads that write them: one to standard error, and one to the access log, if
//! finished sessions have a file of their own. Neither a stuck standard error nor a slow disk therefore ever stalls a
//! worker, nor do they stall each other: lines that do not fit are dropped, counted and told.

mod backlog;
mod file;
mod format;
mod lines;
mod queue;

use std::io;
use std::path::PathBuf;
use std::sync::{OnceLock, PoisonError, RwLock};

use env_logger::{Logger, Target};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::base::AUDIT;
use crate::config::model::{AccessLog, LogFormat};

use file::AccessFile;
pub use queue::dropped;
use queue::{Queue, Sink, StandardError, Waiting};

/// What the lines of finished sessions are logged as.
const SESSIONS: &str = "l4lb::session";

/// The logger of this process.
static ROUTER: OnceLock<Router> = OnceLock::new();

/// Writes what is still in the queues when dropped, unless their other end is stuck.
#[must_use = "dropped, it waits for the lines to be written"]
pub struct Logging {
    lines: Queue,
    access: Option<Access>,
}

/// The access log, whose lines wait until it is opened.
struct Access {
    path: PathBuf,
    queue: Queue,
    waiting: Option<Waiting>,
}

/// Sets the logger of the process up: lines of `level` and worse, unless RUST_LOG says otherwise.
/// Fails when the process has a logger already or no thread can be started.
pub fn start(level: LevelFilter, format: LogFormat, access_log: Option<&AccessLog>) -> io::Result<Logging> {
    let (queue, lines) = Queue::new();
    // What tells of dropped lines must not be dropped itself: it does not go through the queue.
    let direct = builder(format).filter_level(LevelFilter::Warn).target(Target::Stderr).build();
    queue::spawn("l4lb-log", lines, StandardError::new(io::stderr(), direct))?;
    let access = access_log.map(|access| {
        let (queue, waiting) = Queue::new();
        (access.format, Access { path: access.path.clone(), queue, waiting: Some(waiting) })
    });
    let filters = Filters { rust_log: std::env::var("RUST_LOG").ok(), has_access_log: access.is_some() };
    let router = Router {
        filter: RwLock::new(filters.at_start(level)),
        filters,
        lines: unfiltered(format, &queue),
        queue: queue.clone(),
        sessions: access
            .as_ref()
            .map(|(format, access)| (unfiltered(*format, &access.queue), access.queue.clone())),
    };
    let level = router.level();
    if ROUTER.set(router).is_err() {
        return Err(io::Error::other("this process has a logger already"));
    }
    log::set_logger(ROUTER.get().expect("set just now")).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(Logging { lines: queue, access: access.map(|(_, access)| access) })
}

impl Logging {
    /// Opens the access log, if there is one; with the rights that the process will have when it opens it again.
    pub fn open_access_log(&mut self) -> Result<(), (PathBuf, io::Error)> {
        let Some(Access { path, waiting, .. }) = &mut self.access else { return Ok(()) };
        let Some(waiting) = waiting.take() else { return Ok(()) };
        AccessFile::open(path)
            .and_then(|file| queue::spawn("l4lb-access", waiting, file))
            .map_err(|error| (path.clone(), error))
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        if let Some(Access { path, queue, .. }) =
            self.access.as_ref().filter(|access| access.waiting.is_none())
            && let Err(lines) = queue.flush()
        {
            log::warn!(path:% = path.display(), lines; "the end comes before these lines of the access log are written");
        }
        // Nobody is left to tell of its own.
        let _left = self.lines.flush();
    }
}

/// Has the access log, if there is one, opened again by its name before another line is written: whoever rotates it has
/// renamed it.
pub fn reopen() {
    if let Some((_, queue)) = ROUTER.get().and_then(|router| router.sessions.as_ref()) {
        queue.reopen();
    }
}

/// Writes what is still in the queues, unless their other end is stuck.
pub fn flush() {
    let Some(router) = ROUTER.get() else { return };
    for queue in router.sessions.iter().map(|(_, queue)| queue).chain([&router.queue]) {
        // Nobody is left to tell.
        let _left = queue.flush();
    }
}

/// The least severe lines that are written now.
pub fn level() -> LevelFilter {
    ROUTER.get().map_or(LevelFilter::Off, Router::level)
}

/// Writes lines of `level` and worse from now on. What RUST_LOG says of single targets still holds.
pub fn set_level(level: LevelFilter) {
    if let Some(router) = ROUTER.get() {
        router.set_filter(router.filters.set_later(level));
        log::set_max_level(router.filter(Logger::filter));
    }
}

/// Which lines are written, and where they go.
struct Router {
    filters: Filters,
    /// Only asked, never written to.
    filter: RwLock<Logger>,
    lines: Logger,
    /// Where `lines` go.
    queue: Queue,
    /// Those of finished sessions, if they go elsewhere.
    sessions: Option<(Logger, Queue)>,
}

impl Router {
    fn filter<T>(&self, ask: impl FnOnce(&Logger) -> T) -> T {
        // A filter is replaced whole: nobody has left it half done.
        ask(&self.filter.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_filter(&self, filter: Logger) {
        let mut current = self.filter.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, filter);
        // Nobody waits while the old one is taken apart.
        drop(current);
        drop(before);
    }

    fn level(&self) -> LevelFilter {
        self.filter(Logger::filter)
    }
}

impl Log for Router {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter(|filter| filter.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        if record.target() != AUDIT && !self.filter(|filter| filter.matches(record)) {
            return;
        }
        let is_of_session = record.target() == SESSIONS;
        let (logger, queue) = match &self.sessions {
            Some((sessions, queue)) if is_of_session => (sessions, queue),
            Some(_) | None => (&self.lines, &self.queue),
        };
        logger.log(record);
        // There may be as many as there are sessions: they wait for each other. Nobody waits for the others.
        let may_wait = is_of_session && record.level() > Level::Warn;
        if !may_wait {
            queue.hurry();
        }
    }

    fn flush(&self) {}
}

/// What decides which lines are written, besides the level.
struct Filters {
    rust_log: Option<String>,
    has_access_log: bool,
}

impl Filters {
    /// RUST_LOG overrides `level`.
    fn at_start(&self, level: LevelFilter) -> Logger {
        self.builder(level).build()
    }

    /// `level` overrides what RUST_LOG says of everything.
    fn set_later(&self, level: LevelFilter) -> Logger {
        self.builder(level).filter_level(level).build()
    }

    fn builder(&self, level: LevelFilter) -> env_logger::Builder {
        let mut builder = env_logger::Builder::new();
        builder.filter_level(level);
        if self.has_access_log {
            // Whoever asks for a file of them wants them in it, also where other lines are too many.
            builder.filter_module(SESSIONS, LevelFilter::Info);
        }
        if let Some(rust_log) = &self.rust_log {
            builder.parse_filters(rust_log);
        }
        builder
    }
}

/// A logger that writes whatever it is given into `queue`.
fn unfiltered(format: LogFormat, queue: &Queue) -> Logger {
    let sink = Target::Pipe(Box::new(Sink::new(queue)));
    builder(format).filter_level(LevelFilter::Trace).target(sink).build()
}

fn builder(format: LogFormat) -> env_logger::Builder {
    let mut builder = env_logger::Builder::new();
    builder.format(match format {
        LogFormat::Text => format::write_text,
        LogFormat::Json => format::write_json,
    });
    builder
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
        let (start, later) = (filters.at_start(LevelFilter::Info), filters.set_later(LevelFilter::Info));
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
            assert!(writes(&filters.at_start(level), SESSIONS, Level::Info), "{level}");
            assert!(writes(&filters.set_later(level), SESSIONS, Level::Info), "{level}");
        }
        let silenced = Filters { rust_log: Some("info,l4lb::session=off".into()), ..filters };
        assert!(!writes(&silenced.at_start(LevelFilter::Info), SESSIONS, Level::Error));
        assert!(!writes(&silenced.set_later(LevelFilter::Trace), SESSIONS, Level::Error));
    }
}
