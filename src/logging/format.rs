//! Formats lines for people (text) or for machines (JSON).

use std::fmt;
use std::io::{self, Write};

use env_logger::fmt::Formatter;
use log::Record;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};

pub(super) fn write_text(to: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    write!(to, "{} {:<5} {}", to.timestamp_millis(), record.level(), record.args())?;
    record.key_values().visit(&mut Text { to, value: String::new() }).map_err(io::Error::other)?;
    writeln!(to)
}

struct Text<'a> {
    to: &'a mut Formatter,
    /// One field after the other, so that a line allocates once.
    value: String,
}

impl<'kvs> VisitSource<'kvs> for Text<'_> {
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
