//! What exchanges wait for, and bytes of theirs, in words for operators.

use crate::config::model::Secret;
use crate::health::cause::hidden;

/// What an exchange waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    what: &'static str,
    /// The very bytes, if the configuration has them.
    bytes: Vec<u8>,
}

impl Expected {
    /// Returns something that the name of its protocol is enough for.
    pub(super) const fn answer(what: &'static str) -> Self {
        Self { what, bytes: Vec::new() }
    }

    /// Returns something with these bytes.
    pub(super) fn bytes(what: &'static str, bytes: &[u8]) -> Self {
        Self { what, bytes: bytes.to_vec() }
    }

    /// Returns it in words, with the names of variables in place of their content.
    pub fn in_words(&self, secrets: &[Secret]) -> String {
        let Self { what, bytes } = self;
        if bytes.is_empty() {
            return (*what).to_owned();
        }
        format!("{what} \"{}\"", printable(bytes, secrets, false))
    }
}

/// Returns `bytes` on one line, escaped, with the names of variables in place of their content; also in place of the
/// beginning of it at the end of bytes that are cut.
pub fn printable(bytes: &[u8], secrets: &[Secret], is_cut: bool) -> String {
    hidden(bytes, secrets, is_cut).escape_ascii().to_string()
}

/// Returns whether `bytes` end within the content of a variable, so that what follows may be the rest of it.
pub fn may_go_on(bytes: &[u8], secrets: &[Secret]) -> bool {
    let ends_within = |value: &[u8]| (1..value.len()).any(|len| bytes.ends_with(&value[..len]));
    secrets.iter().any(|secret| ends_within(secret.value.as_bytes()))
}
