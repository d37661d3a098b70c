//! Reads the values of one table: a value of the wrong type or out of range is reported, with the expected ones.

use std::fmt::Display;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::{Spanned, Value};

use crate::base::nearest::did_you_mean;
use crate::base::network::{Network, NoNetwork};
use crate::config::address::Target;
use crate::config::error::Invalid;
use crate::config::model::Secret;
use crate::config::parse::raw::Key;
use crate::config::parse::report::{Report, Scope, Spot, Variable};
use crate::config::units::{parse_duration, show_duration};

/// The reader of the table that `scope` names. Every method returns `None` when the key is absent, and also when it is
/// wrong, after reporting it; the caller's default then stands in and is never run.
pub(super) struct Reader<'a> {
    pub(super) report: &'a mut Report,
    pub(super) scope: &'a Scope,
}

impl Reader<'_> {
    pub(super) fn whole<T>(&mut self, name: &str, key: &Key, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display,
    {
        let value = key.as_ref()?.get_ref();
        // The content of a variable is text.
        let number = value.as_integer().or_else(|| self.variable_text(key)?.parse().ok());
        let is_whole = number.is_some();
        let number = number.and_then(|number: i64| T::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (min, max) = range.into_inner();
            let kind = if is_whole { "" } else { "a whole number " };
            let got = self.got(key);
            self.wrong(name, key, format_args!("must be {kind}{min}..={max}, got {got}"));
        }
        number
    }

    /// A whole number of at least one.
    pub(super) fn count(&mut self, name: &str, key: &Key, max: usize) -> Option<NonZeroUsize> {
        self.whole(name, key, 1..=max).and_then(NonZeroUsize::new)
    }

    /// Returns a duration of whole seconds within `range`, as etcd and DNS count.
    pub(super) fn whole_seconds(
        &mut self,
        name: &str,
        key: &Key,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let duration = self.duration(name, key, range, None)?;
        if duration.subsec_nanos() > 0 {
            let got = self.got(key);
            self.wrong(name, key, format_args!("must be whole seconds, got {got}"));
            return None;
        }
        Some(duration)
    }

    /// Returns a duration within `range`, or zero if `zero` explains the meaning of zero.
    pub(super) fn duration(
        &mut self,
        name: &str,
        key: &Key,
        range: RangeInclusive<Duration>,
        zero: Option<&str>,
    ) -> Option<Duration> {
        let value = key.as_ref()?.get_ref();
        let parsed = parse_duration(value.as_str().unwrap_or_default());
        let Ok(duration) = parsed else {
            let expected = "must be a duration like \"500ms\", \"2s\", \"1m30s\" or \"1h\"";
            let got = self.got(key);
            self.wrong(name, key, format_args!("{expected}, got {got}"));
            return None;
        };
        if range.contains(&duration) || (duration.is_zero() && zero.is_some()) {
            return Some(duration);
        }
        let (min, max) = (show_duration(*range.start()), show_duration(*range.end()));
        let zero = zero.map(|meaning| format!("0s ({meaning}) or ")).unwrap_or_default();
        let got = self.got(key);
        self.wrong(name, key, format_args!("must be {zero}{min}..={max}, got {got}"));
        None
    }

    pub(super) fn boolean(&mut self, name: &str, key: &Key) -> Option<bool> {
        let value = key.as_ref()?.get_ref();
        let on = value.as_bool().or_else(|| self.variable_text(key)?.parse().ok());
        if on.is_none() {
            let got = self.got(key);
            self.wrong(name, key, format_args!("must be true or false, got {got}"));
        }
        on
    }

    pub(super) fn text<'k>(&mut self, name: &str, key: &'k Key) -> Option<&'k str> {
        let value = key.as_ref()?.get_ref();
        if value.as_str().is_none() {
            let got = self.got(key);
            self.wrong(name, key, format_args!("must be a string, got {got}"));
        }
        value.as_str()
    }

    /// Returns one of a few words.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, key: &Key, choices: &[(&str, T)]) -> Option<T> {
        let value = key.as_ref()?.get_ref();
        let chosen = choices.iter().find(|(word, _)| value.as_str() == Some(word));
        if chosen.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let hint = did_you_mean(value.as_str().unwrap_or_default(), words.iter().copied());
            let (words, got) = (words.join(", "), self.got(key));
            self.wrong(name, key, format_args!("must be one of {words}, got {got}{hint}"));
        }
        chosen.map(|(_, choice)| *choice)
    }

    /// Returns a list of some of a few words.
    pub(super) fn words<'w>(&mut self, name: &str, key: &Key, words: &[&'w str]) -> Option<Vec<&'w str>> {
        let value = key.as_ref()?.get_ref();
        let of = |value: &Value| words.iter().copied().find(|&word| value.as_str() == Some(word));
        let found = value.as_array().and_then(|values| values.iter().map(of).collect());
        if found.is_none() {
            let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
            let got = value.as_array().into_iter().flatten().find(|value| of(value).is_none());
            let got = got.map_or_else(|| self.got(key), |element| self.got_in(key, element));
            self.wrong(name, key, format_args!("must be a list of some of {}, got {got}", words.join(", ")));
        }
        found
    }

    /// Returns a list of at most `max` values that `parse` takes; its error names the mistake.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        key: &Key,
        max: usize,
        what: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = key.as_ref()?.get_ref();
        let Some(list) = value.as_array().filter(|list| (1..=max).contains(&list.len())) else {
            let got = self.got(key);
            self.wrong(name, key, format_args!("must be a list of 1..={max} {what}, got {got}"));
            return None;
        };
        let mut values = Vec::new();
        for element in list {
            match element.as_str().map(&parse) {
                Some(Ok(value)) => values.push(value),
                Some(Err(mistake)) => self.wrong(name, key, mistake),
                None => {
                    let got = self.got_in(key, element);
                    self.wrong(name, key, format_args!("must be a list of strings, got {got}"));
                }
            }
        }
        (values.len() == list.len()).then_some(values)
    }

    /// Returns a list of at most `max` networks.
    pub(super) fn networks(&mut self, name: &str, key: &Key, max: usize) -> Option<Vec<Network>> {
        self.list(name, key, max, "networks", |text| {
            text.parse().map_err(|error: NoNetwork| error.to_string())
        })
    }

    pub(super) fn name<'k>(&mut self, key: &'k Key) -> Option<&'k str> {
        let text = self.text("name", key)?;
        match check_name_as(text, &self.got(key)) {
            Ok(()) => Some(text),
            Err(Invalid(what)) => {
                self.wrong("name", key, what);
                None
            }
        }
    }

    /// The value of `key`, if it is text with a variable in it.
    pub(super) fn variable_text<'k>(&self, key: &'k Key) -> Option<&'k str> {
        self.written(key)?;
        str_of(key)
    }

    /// Returns the text of the file at the key, if it names a variable.
    pub(super) fn written(&self, key: &Key) -> Option<&str> {
        self.report.written_at(key.as_ref()?.span().start)
    }

    /// Returns whether there is a variable anywhere in the value of the key.
    pub(super) fn has_variable_within(&self, key: &Key) -> bool {
        key.as_ref().is_some_and(|value| self.report.has_variable_within(value.span()))
    }

    /// Returns the variables in the value of the key.
    pub(super) fn variables(&self, key: &Key) -> &[Variable] {
        key.as_ref().map_or(&[], |value| self.report.variables_at(value.span().start))
    }

    /// Returns the content of the variables in the value of the key.
    pub(super) fn secrets(&self, key: &Key) -> Vec<Secret> {
        let secret = |Variable { name, place }: &Variable| {
            let value = str_of(key)?.get(place.clone()).filter(|value| !value.is_empty())?;
            Some(Secret { variable: name.clone(), value: value.to_owned() })
        };
        self.variables(key).iter().filter_map(secret).collect()
    }

    /// The value of `key` as messages repeat it.
    pub(super) fn got(&self, key: &Key) -> String {
        match self.written(key) {
            Some(written) => quote(written),
            None => key.as_ref().map(|value| show(value.get_ref())).unwrap_or_default(),
        }
    }

    /// Returns a wrong element of the list `key` as messages repeat it.
    pub(super) fn got_in(&self, key: &Key, element: &Value) -> String {
        let span = key.as_ref().map(Spanned::span).unwrap_or_default();
        let written: Vec<String> = self.report.written_within(span).into_iter().map(quote).collect();
        // Which of the elements has the variable is not known here.
        if written.is_empty() { show(element) } else { format!("a list with {}", written.join(", ")) }
    }

    /// The folder of the file that has `key`.
    pub(super) fn folder(&self, key: &Key) -> &Path {
        self.report.folder(key.as_ref().map_or(0, |value| value.span().start))
    }

    /// The same for a key whose value is read already.
    pub(super) fn wrong_at<T>(&mut self, name: &str, key: Option<&Spanned<T>>, what: impl Display) {
        let spot = key.map_or_else(|| self.scope.spot.clone(), |key| Spot::Byte(key.span().start));
        self.report.add(self.scope, &spot, format_args!("{name}: {what}"));
    }

    pub(super) fn wrong(&mut self, name: &str, key: &Key, what: impl Display) {
        let spot = spot_of(key).unwrap_or_else(|| self.scope.spot.clone());
        self.report.add(self.scope, &spot, format_args!("{name}: {what}"));
    }
}

const NAME_LEN_MAX: usize = 64;

/// Fails unless `text` may be a name: it must fit unquoted into a log line, a metric and a URL of the admin API.
pub fn check_name(text: &str) -> Result<(), Invalid> {
    check_name_as(text, &quote(text))
}

/// The same for the name of a backend as it runs: an address of a host has its IP behind an `@`, which no name in the
/// file has.
pub fn check_running_name(text: &str) -> Result<(), Invalid> {
    let of_host = text.rsplit_once('@').filter(|(_, ip)| ip.parse::<IpAddr>().is_ok());
    let name = of_host.map_or(text, |(name, _)| name);
    // A host with its port is a name too, and may be longer.
    match Target::parse(name) {
        Ok(Target::Host { .. }) => Ok(()),
        Ok(Target::Address(_)) | Err(_) => check_name(name),
    }
}

/// The same for a name that messages repeat as `got`.
fn check_name_as(text: &str, got: &str) -> Result<(), Invalid> {
    let is_name = (1..=NAME_LEN_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-[]".contains(&byte));
    if is_name && text.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(());
    }
    if is_name {
        // "." and ".." mean something else in the path of a request.
        return Err(Invalid(format!("must have a letter or a digit, got {got}")));
    }
    let allowed = format!("must be 1..={NAME_LEN_MAX} characters of A-Z a-z 0-9 . _ : - [ ]");
    Err(Invalid(format!("{allowed}, got {got}")))
}

/// Returns the place of the value of `key`.
pub(super) fn spot_of(key: &Key) -> Option<Spot> {
    key.as_ref().map(|value| Spot::Byte(value.span().start))
}

/// Returns the place where a table starts; an absent table has no values, so no message points there.
pub(super) fn spot_of_table<T>(table: Option<&Spanned<T>>) -> Spot {
    table.map_or(Spot::Whole, |table| Spot::Byte(table.span().start))
}

/// Returns the string in `key`, if it is one.
pub(super) fn str_of(key: &Key) -> Option<&str> {
    key.as_ref().and_then(|value| value.get_ref().as_str())
}

/// Returns a value as messages quote it.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(on) => on.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(_) => "an array".into(),
        Value::Table(_) => "a table".into(),
    }
}

/// Returns `text` in quotes, shortened if it is long.
pub(in crate::config) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_LEN_MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Most characters of a value that a message repeats.
const QUOTE_LEN_MAX: usize = 64;
