//! Formats lines for people (text) or for machines (JSON).

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use env_logger::fmt::Formatter;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};

use crate::config::model::LogFormat;
use crate::sys;

/// The target of the lines of sessions.
pub(super) const SESSIONS: &str = "l4lb::session";

/// The fields that lines of sessions have, in their order; `None` is all of them.
static FIELDS: RwLock<Option<Vec<&'static str>>> = RwLock::new(None);

/// Sets the fields of lines of sessions from now on.
pub(super) fn set_fields(fields: Option<Vec<&'static str>>) {
    *FIELDS.write().unwrap_or_else(PoisonError::into_inner) = fields;
}

/// Visits the fields of a line that are wanted.
fn visit<'kvs>(record: &'kvs Record<'_>, visitor: &mut dyn VisitSource<'kvs>) -> io::Result<()> {
    let all = record.key_values();
    // A list is never half replaced.
    let fields = FIELDS.read().unwrap_or_else(PoisonError::into_inner);
    let visited = match fields.as_ref().filter(|_| record.target() == SESSIONS) {
        None => all.visit(visitor),
        Some(fields) => fields.iter().try_for_each(|&name| {
            let value = all.get(Key::from_str(name));
            value.map_or(Ok(()), |value| visitor.visit_pair(Key::from_str(name), value))
        }),
    };
    visited.map_err(io::Error::other)
}

/// Whether lines are JSON; those of an access log have their own format.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Whether standard error goes to the journal, which reads the priority at the start of a line.
static IS_JOURNAL: OnceLock<bool> = OnceLock::new();

pub(super) fn set_format(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

pub(super) fn write_as_set(to: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    if *IS_JOURNAL.get_or_init(sys::is_journal) {
        write!(to, "<{}>", priority(record.level()))?;
    }
    if IS_JSON.load(Ordering::Relaxed) { write_json(to, record) } else { write_text(to, record) }
}

/// Returns whether lines are JSON.
pub(super) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// Returns the severity of a line as syslog(3) counts it, and sd-daemon(3) in front of a line.
pub(super) const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

pub(super) fn write_text(to: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    write!(to, "{} {:<5} ", to.timestamp_millis(), record.level())?;
    write_words(to, record)?;
    writeln!(to)
}

/// Writes the message and the fields.
pub(super) fn write_words(to: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    write!(to, "{}", record.args())?;
    visit(record, &mut Text { to, value: String::new() })
}

struct Text<'a, W> {
    to: &'a mut W,
    /// One field after the other, so that a line allocates once.
    value: String,
}

impl<'kvs, W: Write> VisitSource<'kvs> for Text<'_, W> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let Self { to, value: text } = self;
        text.clear();
        if is_absent(&value) {
            text.push('-');
        } else {
            fmt::Write::write_fmt(text, format_args!("{value}"))?;
        }
        // Quoted unless it is one plain word; that escapes line ends and control characters too.
        if is_word(text) {
            to.write_all(b" ")?;
            to.write_all(key.as_str().as_bytes())?;
            to.write_all(b"=")?;
            to.write_all(text.as_bytes())?;
        } else {
            write!(to, " {key}={text:?}")?;
        }
        Ok(())
    }
}

fn is_word(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
    let is_part = |c: char| !c.is_whitespace() && !c.is_control() && c != '"';
    !text.is_empty() && (text.bytes().all(is_plain) || text.chars().all(is_part))
}

pub(super) fn write_json(to: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let time = to.timestamp_millis().to_string();
    write_object(to, record, time)?;
    writeln!(to)
}

/// Writes the line as one JSON object.
pub(super) fn write_object(to: &mut impl Write, record: &Record<'_>, time: String) -> io::Result<()> {
    let mut fields = Json(serde_json::Map::new());
    fields.0.insert("time".into(), time.into());
    fields.0.insert("level".into(), record.level().as_str().to_ascii_lowercase().into());
    fields.0.insert("message".into(), record.args().to_string().into());
    visit(record, &mut fields)?;
    serde_json::to_writer(to, &fields.0)?;
    Ok(())
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

/// Returns whether a field has no value in this line: `None` would print as a word.
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
