//! `${NAME}` in the values of a file: the environment variable of that name; `$${` is a `${` as it stands.
//!
//! Put in once the file is parsed, so that what a variable holds is always text of one value: no line, key or table
//! comes out of it. Keys and the names of tables hold none.

use std::ffi::OsString;

use toml::de::{DeTable, DeValue};

use super::file::Inputs;
use super::label::label_of;
use super::report::{Report, Spot, Variable, Written};
use crate::config::ranges::EXPANDED_LEN_MAX;

/// Puts the variables into the values of `document`, and reports those that cannot be put in; false if there is one.
pub(super) fn put_in(document: &mut DeTable, inputs: Inputs, report: &mut Report) -> bool {
    let mut variables = Variables { inputs, report, left: EXPANDED_LEN_MAX, is_good: true };
    variables.of_table(document, &[]);
    variables.is_good
}

/// `text` with the variables put in, unless one cannot be.
pub(super) fn put_into_one(text: &str, inputs: Inputs) -> Option<String> {
    let mut left = EXPANDED_LEN_MAX;
    put_into(text, |name| value_of(name, inputs, &mut left)).ok().map(|put| put.text)
}

struct Variables<'a> {
    inputs: Inputs,
    report: &'a mut Report,
    /// Bytes that may still be put in.
    left: usize,
    is_good: bool,
}

impl Variables<'_> {
    fn of_table(&mut self, table: &mut DeTable, path: &[String]) {
        for (key, value) in table.iter_mut() {
            let byte = value.span().start;
            match value.get_mut() {
                DeValue::Array(array) => {
                    for (index, element) in array.iter_mut().enumerate() {
                        let byte = element.span().start;
                        let label = match element.get_ref() {
                            DeValue::Table(table) => label_of(key.get_ref(), table, index),
                            DeValue::String(_)
                            | DeValue::Array(_)
                            | DeValue::Integer(_)
                            | DeValue::Float(_)
                            | DeValue::Boolean(_)
                            | DeValue::Datetime(_) => key.get_ref().to_string(),
                        };
                        self.of_value(element.get_mut(), byte, &[path, &[label]].concat());
                    }
                }
                DeValue::Table(_)
                | DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_) => {
                    let path = [path, &[key.get_ref().to_string()]].concat();
                    self.of_value(value.get_mut(), byte, &path);
                }
            }
        }
    }

    fn of_value(&mut self, value: &mut DeValue, byte: usize, path: &[String]) {
        match value {
            DeValue::Table(table) => self.of_table(table, path),
            DeValue::String(text) => {
                let (written, left) = (text.as_ref(), &mut self.left);
                match put_into(written, |name| value_of(name, self.inputs, left)) {
                    Ok(put) if put.text == written => {}
                    Ok(Put { text: put, variables }) => {
                        self.report.note_written(byte, Written { text: written.to_owned(), variables });
                        *text = put.into();
                    }
                    Err(what) => {
                        self.report.add_bare(&Spot::Byte(byte), format_args!("{}: {what}", path.join(": ")));
                        self.is_good = false;
                    }
                }
            }
            // A list in a list belongs to no key that there is.
            DeValue::Array(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }
}

fn value_of(name: &str, inputs: Inputs, left: &mut usize) -> Result<String, String> {
    let value =
        (inputs.variable)(name).ok_or_else(|| format!("the environment variable {name} is not set"))?;
    let value = OsString::into_string(value);
    let value = value.map_err(|_| format!("the environment variable {name} is not UTF-8"))?;
    *left = left.checked_sub(value.len()).ok_or_else(|| {
        format!("the environment variable {name} makes it more than {EXPANDED_LEN_MAX} bytes of variables")
    })?;
    Ok(value)
}

/// A text with the variables in it.
#[derive(Debug)]
struct Put {
    text: String,
    variables: Vec<Variable>,
}

/// `text` with what `value_of` returns in place of each `${NAME}`, or what is wrong with the first that is.
fn put_into(text: &str, mut value_of: impl FnMut(&str) -> Result<String, String>) -> Result<Put, String> {
    let (mut put, mut variables) = (String::with_capacity(text.len()), Vec::new());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            put.push_str(before);
            put.push_str("${");
            rest = &from["${".len()..];
            continue;
        }
        put.push_str(before);
        let end = from.find('}').ok_or("${ without }: write ${NAME}, or $${ for what is no variable")?;
        let name = &from["${".len()..end];
        if !is_name(name) {
            let must = "must be letters, digits and _, and begin with no digit";
            return Err(format!(
                "${{{name}}}: the name of a variable {must}; $${{ is for what is no variable"
            ));
        }
        let start = put.len();
        put.push_str(&value_of(name)?);
        variables.push(Variable { name: name.to_owned(), place: start..put.len() });
        rest = &from[end + 1..];
    }
    put.push_str(rest);
    Ok(Put { text: put, variables })
}

/// Returns whether a shell can set a variable of that name.
fn is_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(text: &str) -> Result<String, String> {
        let put = put_into(text, |name| match name {
            "HOST" => Ok("10.0.0.1".into()),
            "NONE" => Ok(String::new()),
            "LIKE" => Ok("${HOST}".into()),
            _ => Err(format!("no {name}")),
        })?;
        for Variable { name, place } in put.variables {
            assert!(["HOST", "NONE", "LIKE"].contains(&name.as_str()) && put.text.get(place).is_some());
        }
        Ok(put.text)
    }

    #[test]
    fn a_variable_stands_anywhere_in_a_value() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("${HOST}", "10.0.0.1"),
            ("${HOST}:80", "10.0.0.1:80"),
            ("a${HOST}b${NONE}c${HOST}", "a10.0.0.1bc10.0.0.1"),
            // The content of a variable is not searched for variables again.
            ("${LIKE}", "${HOST}"),
            ("$HOST $ {HOST} $", "$HOST $ {HOST} $"),
            ("$${HOST}", "${HOST}"),
            ("$$${HOST}", "$${HOST}"),
            ("$${${HOST}}", "${10.0.0.1}"),
            ("\u{fc}$${\u{fc}", "\u{fc}${\u{fc}"),
        ] {
            assert_eq!(put(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_variable_is_refused() {
        for (text, expected) in [
            ("${MISSING} and ${GONE}", "no MISSING"),
            ("${", "${ without }"),
            ("${HOST", "${ without }"),
            ("${}", "${}: the name of a variable must be"),
            ("${1}", "${1}: the name"),
            ("${A-B}", "${A-B}: the name"),
            ("${HOST:-x}", "${HOST:-x}: the name"),
            ("${\u{fc}}", "${\u{fc}}: the name"),
            ("${ HOST }", "${ HOST }: the name"),
        ] {
            let error = put(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
