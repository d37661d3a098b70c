//! The mistakes found so far, and where in the files they are.
//! Never stops a check: each mistake is reported, and the check continues with a stand-in.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::file::Text;
use crate::config::error::{Error, one_line};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum Spot {
    /// At this byte of all files together.
    Byte(usize),
    /// In this flag; the string is the flag with its value.
    Flag(String),
    /// In the configuration as a whole.
    Whole,
}

/// A part of the configuration: its place and its name in messages, such as `pool "web": health`.
#[derive(Clone, Debug)]
pub(in crate::config) struct Scope {
    pub(in crate::config) spot: Spot,
    pub(in crate::config) name: String,
}

impl Scope {
    /// Returns a part without a part around it.
    pub(in crate::config) fn new(spot: Spot, name: impl Into<String>) -> Self {
        Self { spot, name: name.into() }
    }

    /// Returns the part called `name` inside of this one.
    pub(in crate::config) fn part(&self, spot: Spot, name: &str) -> Self {
        Self { spot, name: format!("{}: {name}", self.name) }
    }
}

/// A part of the configuration with the places that messages about it point to.
pub(in crate::config) struct Placed<T> {
    pub(in crate::config) item: T,
    pub(in crate::config) scope: Scope,
    pub(in crate::config) name_at: Spot,
    pub(in crate::config) address_at: Spot,
}

impl<T> Placed<T> {
    /// Returns whether the file gives it a name; otherwise its address is its name.
    pub(in crate::config) fn is_named(&self) -> bool {
        self.name_at != self.scope.spot
    }
}

/// Where the lines of one file begin, in bytes of all files together.
struct Lines {
    file: String,
    folder: PathBuf,
    starts: Vec<usize>,
}

/// What the file has for a value with variables in it.
pub(in crate::config) struct Written {
    pub(in crate::config) text: String,
    pub(in crate::config) variables: Vec<Variable>,
}

/// The content of a variable in a value, at these bytes of it.
#[derive(Debug)]
pub(in crate::config) struct Variable {
    pub(in crate::config) name: String,
    pub(in crate::config) place: Range<usize>,
}

pub(in crate::config) struct Report {
    /// The file, and behind it those that it includes.
    files: Vec<Lines>,
    /// Each with its place among the others.
    errors: Vec<(usize, Error)>,
    /// By the place of a value in which there is a variable, what the file has there.
    written: HashMap<usize, Written>,
    /// Notes: not mistakes, but worth reporting to an operator.
    pub(in crate::config) notes: Vec<String>,
}

impl Report {
    /// An empty report on `texts`, of which there is one at least.
    pub(in crate::config) fn new(texts: &[Text]) -> Self {
        let lines = |Text { file, text, start, folder, .. }: &Text| {
            let behind = text.match_indices('\n').map(|(byte, _)| start + byte + 1);
            let starts = [*start].into_iter().chain(behind).collect();
            Lines { file: file.clone(), folder: folder.clone(), starts }
        };
        let files = texts.iter().map(lines).collect();
        Self { files, errors: Vec::new(), written: HashMap::new(), notes: Vec::new() }
    }

    /// Adds a mistake in `scope`, at `spot`. A flag needs no scope: its value identifies it.
    pub(in crate::config) fn add(&mut self, scope: &Scope, spot: &Spot, what: impl Display) {
        match spot {
            Spot::Byte(_) | Spot::Whole => self.add_bare(spot, format_args!("{}: {what}", scope.name)),
            Spot::Flag(_) => self.add_bare(spot, what),
        }
    }

    /// Adds a mistake that is clear without a scope.
    pub(in crate::config) fn add_bare(&mut self, spot: &Spot, what: impl Display) {
        let what = one_line(&what.to_string());
        self.errors.push(match spot {
            Spot::Byte(byte) => {
                let (file, line) = self.line(*byte);
                // Those of one line stay in the order in which they were found.
                (self.line_start(*byte), Error::Line { file: file.to_owned(), line, what })
            }
            Spot::Flag(flag) => (usize::MAX, Error::Flag { flag: flag.clone(), what }),
            Spot::Whole => (0, Error::File { file: self.main_file().to_owned(), what }),
        });
    }

    /// Adds what an included file cannot be read for.
    pub(in crate::config) fn add_unreadable(&mut self, error: Error) {
        self.errors.push((usize::MAX - 1, error));
    }

    /// Notes that the value at `byte` is not what the file has there: `written`, with a variable in it.
    pub(in crate::config) fn note_written(&mut self, byte: usize, written: Written) {
        self.written.insert(byte, written);
    }

    /// What the file has at `byte`, where that names a variable: messages repeat this and not its value, which may be
    /// secret.
    pub(in crate::config) fn written_at(&self, byte: usize) -> Option<&str> {
        self.written.get(&byte).map(|written| written.text.as_str())
    }

    /// Returns the variables in the value at `byte`.
    pub(in crate::config) fn variables_at(&self, byte: usize) -> &[Variable] {
        self.written.get(&byte).map_or(&[], |written| &written.variables)
    }

    /// Returns whether there is a variable in a value within `bytes`.
    pub(in crate::config) fn has_variable_within(&self, bytes: Range<usize>) -> bool {
        self.written.iter().any(|(byte, written)| bytes.contains(byte) && !written.variables.is_empty())
    }

    /// Returns what the file has within `bytes` where it names variables, in the order of the file.
    pub(in crate::config) fn written_within(&self, bytes: Range<usize>) -> Vec<&str> {
        let mut found: Vec<(usize, &str)> = self
            .written
            .iter()
            .filter(|(byte, _)| bytes.contains(byte))
            .map(|(byte, written)| (*byte, written.text.as_str()))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, text)| text).collect()
    }

    /// Returns the end of a sentence that points at `spot` from `here`.
    pub(in crate::config) fn see(&self, spot: &Spot, here: &Spot) -> String {
        match (spot, here) {
            (Spot::Byte(byte), Spot::Byte(here)) if self.line(*byte) == self.line(*here) => {
                " in the same line".to_owned()
            }
            (Spot::Byte(byte), here) => {
                let (file, line) = self.line(*byte);
                let here = match here {
                    Spot::Byte(here) => self.line(*here).0,
                    Spot::Flag(_) | Spot::Whole => self.main_file(),
                };
                if file == here { format!(", see line {line}") } else { format!(", see {file}:{line}") }
            }
            (Spot::Flag(flag), _) => format!(", see {flag}"),
            (Spot::Whole, _) => format!(", see {}", self.main_file()),
        }
    }

    fn main_file(&self) -> &str {
        self.files.first().map_or("", |lines| &lines.file)
    }

    /// The file of a byte, and its line there, counted from 1.
    pub(in crate::config) fn line(&self, byte: usize) -> (&str, usize) {
        let lines = self.lines(byte);
        let line = lines.map_or(1, |lines| lines.starts.partition_point(|start| *start <= byte));
        (lines.map_or("", |lines| &lines.file), line)
    }

    /// The folder of the file of a byte, to which the paths in that file are relative.
    pub(in crate::config) fn folder(&self, byte: usize) -> &Path {
        self.lines(byte).map_or_else(|| Path::new(""), |lines| &lines.folder)
    }

    /// The first byte of the line of a byte.
    pub(in crate::config) fn line_start(&self, byte: usize) -> usize {
        let starts = self.lines(byte).map_or(&[][..], |lines| &lines.starts);
        starts[..starts.partition_point(|start| *start <= byte)].last().copied().unwrap_or(byte)
    }

    fn lines(&self, byte: usize) -> Option<&Lines> {
        let begins_before = |lines: &Lines| lines.starts.first().is_some_and(|start| *start <= byte);
        self.files[..self.files.partition_point(begins_before)].last()
    }

    /// Returns `good`, unless there are mistakes.
    pub(in crate::config) fn finish<T>(self, good: T) -> Result<T, Vec<Error>> {
        if self.errors.is_empty() { Ok(good) } else { Err(self.into_errors()) }
    }

    /// Returns the mistakes in the order of the file, those of flags last.
    pub(in crate::config) fn into_errors(mut self) -> Vec<Error> {
        self.errors.sort_by_key(|(place, _)| *place);
        self.errors.into_iter().map(|(_, error)| error).collect()
    }
}
