//! The output of all lines without a file of their own, with its queue and its thread.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use env_logger::fmt::Formatter;
use env_logger::{Logger, Target};
use log::{LevelFilter, Record};

use crate::config::model::LogTarget;
use crate::logging::daemon::Daemon;
use crate::logging::format::{is_json, write_as_set, write_object, write_words};
use crate::logging::queue::{self, Queue, Sink, StandardError};
use crate::logging::syslog::{Header, kind_of};
use crate::sys;

/// When dropped, its thread ends behind the lines in its queue, unless the syslog daemon cannot be reached.
pub(super) struct Outlet {
    target: LogTarget,
    logger: Logger,
    queue: Queue,
    is_abandoned: Arc<AtomicBool>,
}

impl Outlet {
    /// Starts the thread. A syslog daemon need not be there yet.
    pub(super) fn open(target: &LogTarget) -> io::Result<Self> {
        let (queue, lines) = Queue::new();
        let is_abandoned = Arc::<AtomicBool>::default();
        // Reports of dropped lines must not be dropped themselves: they do not go through the queue.
        let direct = builder(write_as_set).filter_level(LevelFilter::Warn).target(Target::Stderr).build();
        let logger = match target {
            LogTarget::StandardError => {
                queue::spawn("l4lb-log", lines, StandardError::new(io::stderr(), direct))?;
                unfiltered(write_as_set, &queue)
            }
            LogTarget::Syslog(settings) => {
                let header = Header::new(settings, sys::host_name().as_deref(), std::process::id());
                let socket = settings.socket.clone();
                let daemon = Daemon::new(socket, header.clone(), direct, Arc::clone(&is_abandoned));
                queue::spawn("l4lb-log", lines, daemon)?;
                unfiltered(move |to, record| write_message(&header, to, record), &queue)
            }
        };
        Ok(Self { target: target.clone(), logger, queue, is_abandoned })
    }

    pub(super) fn is_at(&self, target: &LogTarget) -> bool {
        self.target == *target
    }

    pub(super) const fn is_syslog(&self) -> bool {
        matches!(self.target, LogTarget::Syslog(_))
    }

    pub(super) const fn parts(&self) -> (&Logger, &Queue) {
        (&self.logger, &self.queue)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.queue.close();
        self.is_abandoned.store(true, Ordering::Relaxed);
    }
}

/// Writes one line as a syslog message.
fn write_message(header: &Header, to: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let time = sys::timestamp();
    let mut words = Vec::new();
    if is_json() {
        write_object(&mut words, record, format!("{time:.6}"))?;
    } else {
        write_words(&mut words, record)?;
    }
    let words = String::from_utf8_lossy(&words);
    writeln!(to, "{}", header.message(record.level(), time, kind_of(record.target()), &words))
}

/// Returns a logger that writes every line into `queue`.
pub(super) fn unfiltered(
    format: impl Fn(&mut Formatter, &Record<'_>) -> io::Result<()> + Send + Sync + 'static,
    queue: &Queue,
) -> Logger {
    let sink = Target::Pipe(Box::new(Sink::new(queue)));
    builder(format).filter_level(LevelFilter::Trace).target(sink).build()
}

fn builder(
    format: impl Fn(&mut Formatter, &Record<'_>) -> io::Result<()> + Send + Sync + 'static,
) -> env_logger::Builder {
    let mut builder = env_logger::Builder::new();
    builder.format(format);
    builder
}
