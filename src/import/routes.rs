//! `use_backend` rules by the server that a TLS client names, as routes.
//!
//! HAProxy takes the first rule that fits, and our routes the one with the most exact name. Both agree once each name
//! that an earlier rule takes anyway is left out of the later ones.

use std::time::Duration;

use super::lines::{Line, Note};
use crate::preread::ServerName;

/// The names that a condition is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Names(Vec<ServerName>),
    /// Each client of TLS has a hello.
    Hello,
}

/// One rule that is translated.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) line: Line,
    pub(super) names: Vec<ServerName>,
    pub(super) backend: String,
}

/// The rules of a section on the hellos of its clients.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) rules: Vec<Rule>,
    /// The time in which a hello must have come.
    pub(super) patience: Option<(Line, Duration)>,
    /// The conditions that have names; `None` for one that is not known here.
    named: Vec<(String, Option<Condition>)>,
}

const ONLY_NAMES: &str = "only conditions on req.ssl_sni are translated, with -i, as a whole or -m end .NAME";

impl Rules {
    /// Takes an `acl` line. Fails with the reason when it is not translated.
    pub(super) fn acl(&mut self, name: &str, words: &[&str]) -> Result<(), String> {
        let condition = condition(words);
        self.named.push((name.to_owned(), condition.clone()));
        condition.map(|_| ()).ok_or_else(|| ONLY_NAMES.to_owned())
    }

    /// Takes a `use_backend` line, of which `words` follow the name of the backend. Fails as [`Rules::acl`] does.
    pub(super) fn use_backend(
        &mut self,
        line: &Line,
        backend: &str,
        words: &[&str],
    ) -> Result<Vec<Note>, String> {
        let left_out = || format!("{ONLY_NAMES}: its sessions are served as if it was not there");
        let ["if", ref condition @ ..] = *words else { return Err(left_out()) };
        if backend.starts_with('%') {
            return Err(left_out());
        }
        let (mut names, mut notes) = (Vec::new(), Vec::new());
        for name in self.names(condition).ok_or_else(left_out)? {
            match self.taken(&name) {
                Some(other) => {
                    notes.push(line.note(format!("line {other} takes all clients that ask for {name}")));
                }
                None if names.contains(&name) => {}
                None => names.push(name),
            }
        }
        if !names.is_empty() {
            self.rules.push(Rule { line: line.clone(), names, backend: backend.to_owned() });
        }
        Ok(notes)
    }

    /// Returns whether a `tcp-request content` line only lets clients with a hello pass, as the routes do anyway.
    pub(super) fn is_met(&self, words: &[&str]) -> bool {
        let ["accept", "if", ref condition @ ..] = *words else { return false };
        self.conditions(condition).is_some_and(|any| any.iter().flatten().all(|one| *one == Condition::Hello))
    }

    /// Returns the line of the rule that takes all clients that ask for this name.
    fn taken(&self, name: &ServerName) -> Option<usize> {
        let takes = |rule: &&Rule| rule.names.iter().any(|own| covers(own, name));
        self.rules.iter().find(takes).map(|rule| rule.line.number)
    }

    /// Returns the names of a condition; `None` when it is on more than them.
    fn names(&self, words: &[&str]) -> Option<Vec<ServerName>> {
        let mut names = Vec::new();
        for all in self.conditions(words)? {
            let lists: Vec<Vec<ServerName>> = all
                .into_iter()
                .filter_map(|one| match one {
                    Condition::Names(names) => Some(names),
                    Condition::Hello => None,
                })
                .collect();
            let [only] = &lists[..] else { return None };
            names.extend(only.iter().cloned());
        }
        Some(names)
    }

    /// Returns the conditions, those within a list joined by and, the lists by or.
    fn conditions(&self, words: &[&str]) -> Option<Vec<Vec<Condition>>> {
        let mut any = vec![Vec::new()];
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            let all = any.last_mut()?;
            match word {
                "or" | "||" if !all.is_empty() => any.push(Vec::new()),
                "{" => {
                    let within: Vec<&str> = words.by_ref().take_while(|word| *word != "}").collect();
                    all.push(condition(&within)?);
                }
                name => all.push(self.named(name)?),
            }
        }
        any.iter().all(|all| !all.is_empty()).then_some(any)
    }

    /// Returns what the lines with this name are for, which are joined by or.
    fn named(&self, name: &str) -> Option<Condition> {
        let lines: Vec<&Option<Condition>> =
            self.named.iter().filter(|(own, _)| own == name).map(|(_, condition)| condition).collect();
        let mut names = Vec::new();
        for line in &lines {
            match line.as_ref()? {
                Condition::Hello if lines.len() == 1 => return Some(Condition::Hello),
                Condition::Hello => return None,
                Condition::Names(own) => names.extend(own.iter().cloned()),
            }
        }
        (!names.is_empty()).then_some(Condition::Names(names))
    }
}

/// Returns what one condition is for; `None` when it is not translated.
fn condition(words: &[&str]) -> Option<Condition> {
    let [sample, rest @ ..] = words else { return None };
    let (sample, mut is_folded) = match sample.strip_suffix(",lower") {
        Some(sample) => (sample, true),
        None => (*sample, false),
    };
    let (mut is_end, mut rest) = (false, rest);
    loop {
        rest = match rest {
            ["-i", rest @ ..] => {
                is_folded = true;
                rest
            }
            ["-m", "str", rest @ ..] => rest,
            ["-m", "end", rest @ ..] => {
                is_end = true;
                rest
            }
            ["--", rest @ ..] => rest,
            _ => break,
        };
    }
    match sample {
        "req.ssl_hello_type" | "req_ssl_hello_type" => (*rest == ["1"]).then_some(Condition::Hello),
        "req.ssl_sni" | "req_ssl_sni" if is_folded && !rest.is_empty() => {
            let name = |text: &&str| match (is_end, text.strip_prefix('.')) {
                (true, Some(name)) => below(name),
                (false, None) => exact(text),
                // A name without a dot in front is also the end of others.
                (true, None) | (false, Some(_)) => None,
            };
            rest.iter().map(name).collect::<Option<Vec<_>>>().map(Condition::Names)
        }
        _ => None,
    }
}

fn exact(name: &str) -> Option<ServerName> {
    name.parse().ok().filter(|name| matches!(name, ServerName::Exact(_)))
}

fn below(name: &str) -> Option<ServerName> {
    format!("*.{name}").parse().ok()
}

/// Returns whether all clients that ask for `other` ask for `name`, too.
fn covers(name: &ServerName, other: &ServerName) -> bool {
    match (name, other) {
        (ServerName::Exact(name), ServerName::Exact(other)) => name == other,
        (ServerName::Exact(_), ServerName::Below(_)) => false,
        (ServerName::Below(name), ServerName::Exact(other)) => is_below(other, name),
        (ServerName::Below(name), ServerName::Below(other)) => name == other || is_below(other, name),
    }
}

fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|label| label.ends_with('.'))
}
