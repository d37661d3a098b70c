//! Log lines go through a bounded queue to a thread that writes them to standard error.
//! A stuck standard error therefore never stalls a worker: lines that do not fit are dropped, counted and told.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use env_logger::Target;
use env_logger::fmt::Formatter;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{LevelFilter, Record};

use crate::config::model::LogFormat;

/// Lines that wait to be written at most.
const LINES_MAX: usize = 8192;
/// Lines are written together up to this many bytes.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the end of the process waits for lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines that were logged and are nowhere to be read, since the start of the process.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines that were logged and are nowhere to be read, since the start of the process.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Writes what is still in the queue when dropped, unless standard error is stuck.
#[must_use = "dropped, it waits for the lines to be written"]
pub struct Flush(SyncSender<Message>);

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Sets the logger of the process up: lines of `level` and worse, unless RUST_LOG says otherwise.
/// Fails when the process has a logger already or no thread can be started.
pub fn start(level: LevelFilter, format: LogFormat) -> io::Result<Flush> {
    let (queue, lines) = sync_channel(LINES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let sink = Sink { queue: queue.clone(), dropped: Arc::clone(&dropped) };
    // What tells of dropped lines must not be dropped itself: it does not go through the queue.
    let direct = logger(format).filter_level(LevelFilter::Warn).target(Target::Stderr).build();
    thread::Builder::new().name("l4lb-log".into()).spawn(move || write_lines(&lines, &dropped, &direct))?;
    let mut queued = logger(format);
    queued.filter_level(level).target(Target::Pipe(Box::new(sink)));
    if let Ok(filters) = std::env::var("RUST_LOG") {
        queued.parse_filters(&filters);
    }
    queued.try_init().map_err(io::Error::other)?;
    Ok(Flush(queue))
}

fn logger(format: LogFormat) -> env_logger::Builder {
    let mut builder = env_logger::Builder::new();
    builder.format(match format {
        LogFormat::Text => write_text,
        LogFormat::Json => write_json,
    });
    builder
}

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        // Full or stuck: what cannot be written within the timeout is given up, the process must end.
        if self.0.try_send(Message::Flush(done)).is_ok() {
            let _stuck = written.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// What env_logger writes to: one call a line.
struct Sink {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Message::Line(line.to_vec())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(lines: &Receiver<Message>, dropped: &AtomicU64, direct: &impl log::Log) {
    let mut batch = Vec::new();
    while let Ok(first) = lines.recv() {
        let mut flushed = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => batch.extend_from_slice(&line),
                Message::Flush(done) => flushed.push(done),
            }
            next = if batch.len() < BATCH_BYTES { lines.try_recv().ok() } else { None };
        }
        // Nobody is left to tell about an error of standard error itself.
        let _gone = io::stderr().write_all(&batch);
        batch.clear();
        for done in flushed {
            let _gave_up = done.try_send(());
        }
        match dropped.swap(0, Ordering::Relaxed) {
            0 => {}
            lines => {
                log::warn!(logger: direct, lines; "log lines were dropped: standard error did not keep up");
            }
        }
    }
}

fn write_text(to: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    write!(to, "{} {:<5} {}", to.timestamp_millis(), record.level(), record.args())?;
    record.key_values().visit(&mut Text(to)).map_err(io::Error::other)?;
    writeln!(to)
}

struct Text<'a>(&'a mut Formatter);

impl<'kvs> VisitSource<'kvs> for Text<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = if is_absent(&value) { "-".to_owned() } else { value.to_string() };
        // Quoted where it would not read as one word; that escapes line ends and control characters too.
        let is_word =
            !value.is_empty() && value.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '"');
        if is_word { write!(self.0, " {key}={value}") } else { write!(self.0, " {key}={value:?}") }?;
        Ok(())
    }
}

fn write_json(to: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let mut fields = Json(serde_json::Map::new());
    fields.0.insert("time".into(), to.timestamp_millis().to_string().into());
    fields.0.insert("level".into(), record.level().as_str().to_ascii_lowercase().into());
    fields.0.insert("message".into(), record.args().to_string().into());
    record.key_values().visit(&mut fields).map_err(io::Error::other)?;
    serde_json::to_writer(&mut *to, &fields.0)?;
    writeln!(to)
}

struct Json(serde_json::Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Json {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let json = match (value.to_u64(), value.to_f64(), value.to_bool()) {
            (Some(number), _, _) => number.into(),
            (None, Some(number), _) => number.into(),
            (None, None, Some(truth)) => truth.into(),
            (None, None, None) if is_absent(&value) => serde_json::Value::Null,
            (None, None, None) => value.to_string().into(),
        };
        self.0.insert(key.as_str().to_owned(), json);
        Ok(())
    }
}

/// Whether a field has no value this time: `None` would print as a word.
fn is_absent(value: &Value<'_>) -> bool {
    struct Absent(bool);
    impl VisitValue<'_> for Absent {
        fn visit_any(&mut self, _: Value<'_>) -> Result<(), Error> {
            Ok(())
        }

        fn visit_null(&mut self) -> Result<(), Error> {
            self.0 = true;
            Ok(())
        }
    }
    let mut absent = Absent(false);
    value.visit(&mut absent).is_ok() && absent.0
}
