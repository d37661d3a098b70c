//! The text of a haproxy.cfg as sections of words, quoted and escaped as section 2.2 of HAProxy's manual says.

use std::fmt;

/// A line that is not translated, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Counted from 1.
    pub line: usize,
    /// The line, with one blank between words.
    pub text: String,
    /// Why, for a person.
    pub why: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.line, self.text, self.why)
    }
}

/// One line, without its comment. It has at least one word.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) words: Vec<String>,
}

impl Line {
    /// Returns the words as `&str`, to match on.
    pub(super) fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }

    pub(super) fn note(&self, why: impl Into<String>) -> Note {
        Note { line: self.number, text: self.words.join(" "), why: why.into() }
    }
}

/// A section: the line that opens it, and those up to the next one.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) head: Line,
    pub(super) lines: Vec<Line>,
}
#[derive(Debug, Default)]
pub(super) struct Sections {
    pub(super) sections: Vec<Section>,
    /// Lines that cannot be read, and those in front of the first section.
    pub(super) notes: Vec<Note>,
}

/// Words that open a section.
const HEADS: [&str; 18] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "resolvers",
    "mailers",
    "userlist",
    "cache",
    "program",
    "http-errors",
    "ring",
    "log-forward",
    "fcgi-app",
    "crt-store",
    "traces",
    "acme",
];

/// Returns the sections of `text`.
pub(super) fn read(text: &str) -> Sections {
    let mut read = Sections::default();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let words = match split(line) {
            Ok(words) if words.is_empty() => continue,
            Ok(words) => words,
            Err(why) => {
                read.notes.push(Note { line: number, text: line.trim().to_owned(), why: why.to_owned() });
                continue;
            }
        };
        let line = Line { number, words };
        if HEADS.contains(&line.words[0].as_str()) {
            read.sections.push(Section { head: line, lines: Vec::new() });
        } else if line.words[0].starts_with('.') {
            read.notes.push(line.note("conditions are not evaluated: the lines between them are all read"));
        } else if let Some(section) = read.sections.last_mut() {
            section.lines.push(line);
        } else {
            read.notes.push(line.note("it is in front of the first section"));
        }
    }
    read
}

/// Returns the words of a line. An environment variable becomes `${NAME}`, and a literal `${` the `$${` of our file.
fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    let mut is_in_double = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let escaped = chars.next().ok_or("it continues behind its end")?;
                let meant = match escaped {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'x' => {
                        let digits: String = chars.by_ref().take(2).collect();
                        let code =
                            u8::from_str_radix(&digits, 16).map_err(|_| "an escape is no character")?;
                        char::from(code)
                    }
                    other => other,
                };
                word.get_or_insert_default().push(meant);
            }
            '"' => {
                is_in_double = !is_in_double;
                word.get_or_insert_default();
            }
            '$' if is_in_double => {
                let is_in_braces = chars.next_if_eq(&'{').is_some();
                let mut name = String::new();
                while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
                if name.is_empty() || (is_in_braces && chars.next() != Some('}')) {
                    return Err("the variable is not a plain name");
                }
                let text = word.get_or_insert_default();
                text.extend(["${", name.as_str(), "}"]);
            }
            '\'' if !is_in_double => {
                let text = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => text.push(c),
                        None => return Err("a quote is not closed"),
                    }
                }
            }
            '#' if !is_in_double => break,
            c if c.is_whitespace() && !is_in_double => words.extend(word.take()),
            '{' if word.as_ref().is_some_and(|word| word.ends_with('$')) => {
                let text = word.get_or_insert_default();
                text.push_str("${");
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    if is_in_double {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_and_escaped_as_haproxy_reads_them() {
        for (line, words) in [
            ("  bind :80 # all", vec!["bind", ":80"]),
            (r"tcp-check send PING\r\n", vec!["tcp-check", "send", "PING\r\n"]),
            (r"acl a hdr(x)\ y", vec!["acl", "a", "hdr(x) y"]),
            ("server a '1.2.3.4:80' # x", vec!["server", "a", "1.2.3.4:80"]),
            (r#"log "a b" c"#, vec!["log", "a b", "c"]),
            (r#"bind ":${PORT}""#, vec!["bind", ":${PORT}"]),
            (r#"bind ":$PORT""#, vec!["bind", ":${PORT}"]),
            ("http-request set-path ${x}", vec!["http-request", "set-path", "$${x}"]),
            (r#"log "" x"#, vec!["log", "", "x"]),
            (r"send \x41\#", vec!["send", "A#"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_read_becomes_a_note_and_hides_no_other() {
        let read = read("mode tcp\nlisten a\n  log \"x\n  mode tcp\n  log a\\");
        let notes: Vec<usize> = read.notes.iter().map(|note| note.line).collect();
        assert_eq!(notes, [1, 3, 5]);
        assert_eq!(read.sections[0].lines.len(), 1);
    }
}
