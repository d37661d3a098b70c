//! The mistakes found so far, and where in the file they are.
//! Never stops a check: who finds a mistake reports it and goes on with a stand-in.

use std::collections::HashMap;
use std::fmt::Display;

use crate::config::error::{Error, one_line};

/// Where a mistake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum Spot {
    /// At this byte of the file.
    Byte(usize),
    /// In this flag; the string is the flag with its value.
    Flag(String),
    /// In the file as a whole.
    Whole,
}

/// A part of the configuration: where it starts and what messages call it, such as `pool "web": health`.
#[derive(Clone, Debug)]
pub(in crate::config) struct Scope {
    pub(in crate::config) spot: Spot,
    pub(in crate::config) name: String,
}

impl Scope {
    /// A part without a part around it.
    pub(in crate::config) fn new(spot: Spot, name: impl Into<String>) -> Self {
        Self { spot, name: name.into() }
    }

    /// The part called `name` inside of this one.
    pub(in crate::config) fn part(&self, spot: Spot, name: &str) -> Self {
        Self { spot, name: format!("{}: {name}", self.name) }
    }
}

/// A part of the configuration with the places that messages about it point at.
pub(in crate::config) struct Placed<T> {
    pub(in crate::config) item: T,
    pub(in crate::config) scope: Scope,
    pub(in crate::config) name_at: Spot,
    pub(in crate::config) address_at: Spot,
}

impl<T> Placed<T> {
    /// Whether the file gives it a name; otherwise its address is its name.
    pub(in crate::config) fn is_named(&self) -> bool {
        self.name_at != self.scope.spot
    }
}

/// Collects mistakes.
pub(in crate::config) struct Report {
    file: String,
    /// The byte after each newline.
    line_starts: Vec<usize>,
    errors: Vec<Error>,
    /// By the place of a value in which there is a variable, what the file has there.
    written: HashMap<usize, String>,
    /// What is no mistake, and an operator should hear of.
    pub(in crate::config) notes: Vec<String>,
}

impl Report {
    /// An empty report on the file called `file`.
    pub(in crate::config) fn new(file: &str, text: &str) -> Self {
        let line_starts = text.match_indices('\n').map(|(byte, _)| byte + 1).collect();
        Self { file: one_line(file), line_starts, errors: Vec::new(), written: HashMap::new(), notes: Vec::new() }
    }

    /// Adds a mistake in `scope`, at `spot`. A flag needs no scope: its value says which.
    pub(in crate::config) fn add(&mut self, scope: &Scope, spot: &Spot, what: impl Display) {
        match spot {
            Spot::Byte(_) | Spot::Whole => self.add_bare(spot, format_args!("{}: {what}", scope.name)),
            Spot::Flag(_) => self.add_bare(spot, what),
        }
    }

    /// Adds a mistake that needs no scope to be understood.
    pub(in crate::config) fn add_bare(&mut self, spot: &Spot, what: impl Display) {
        let (file, what) = (self.file.clone(), one_line(&what.to_string()));
        self.errors.push(match spot {
            Spot::Byte(byte) => Error::Line { file, line: self.line(*byte), what },
            Spot::Flag(flag) => Error::Flag { flag: flag.clone(), what },
            Spot::Whole => Error::File { file, what },
        });
    }

    /// Notes that the value at `byte` is not what the file has there: `written`, with a variable in it.
    pub(in crate::config) fn note_written(&mut self, byte: usize, written: String) {
        self.written.insert(byte, written);
    }

    /// What the file has at `byte`, where that names a variable: messages repeat this and not its value, which may be secret.
    pub(in crate::config) fn written_at(&self, byte: usize) -> Option<&str> {
        self.written.get(&byte).map(String::as_str)
    }

    /// The end of a sentence that points at `spot` from `here`.
    pub(in crate::config) fn see(&self, spot: &Spot, here: &Spot) -> String {
        match (spot, here) {
            (Spot::Byte(byte), Spot::Byte(here)) if self.line(*byte) == self.line(*here) => {
                " in the same line".to_owned()
            }
            (Spot::Byte(byte), _) => format!(", see line {}", self.line(*byte)),
            (Spot::Flag(flag), _) => format!(", see {flag}"),
            (Spot::Whole, _) => format!(", see {}", self.file),
        }
    }

    /// The line of a byte, counted from 1.
    pub(in crate::config) fn line(&self, byte: usize) -> usize {
        1 + self.line_starts.partition_point(|start| *start <= byte)
    }

    /// `good`, unless there are mistakes.
    pub(in crate::config) fn finish<T>(self, good: T) -> Result<T, Vec<Error>> {
        if self.errors.is_empty() { Ok(good) } else { Err(self.into_errors()) }
    }

    /// The mistakes in the order of the file, those of flags last.
    pub(in crate::config) fn into_errors(mut self) -> Vec<Error> {
        self.errors.sort_by_key(|error| match error {
            Error::File { .. } | Error::NothingToDo => 0,
            Error::Line { line, .. } => *line,
            Error::Flag { .. } => usize::MAX,
        });
        self.errors
    }
}
