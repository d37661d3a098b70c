//! Mistakes in a configuration, one line each.

use std::fmt::Write;

/// One mistake. Its `Display` is one line: the place, the mistake, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// At a line of the file.
    #[error("{file}:{line}: {what}")]
    Line {
        /// The file as the user named it.
        file: String,
        /// The number of the line, counted from 1.
        line: usize,
        /// The place, the key and the mistake.
        what: String,
    },
    /// In the file as a whole.
    #[error("{file}: {what}")]
    File {
        /// The file as the user named it.
        file: String,
        /// The mistake, with the key and the value that was got.
        what: String,
    },
    /// A mistake in a flag of the command line.
    #[error("{flag}: {what}")]
    Flag {
        /// The flag with its value.
        flag: String,
        /// The mistake, without the name of the flag.
        what: String,
    },
    /// Neither a file nor a listener.
    #[error("nothing to listen on: try `l4lb -l :9090`, `l4lb -c FILE` or `l4lb demo`; see `l4lb --help`")]
    NothingToDo,
}

/// The mistake in one value, as the end of a line that begins with its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Returns `text` with control characters and bidirectional ones escaped, so that a message stays on its line and reads
/// as written, whatever the file contains.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() || is_direction(char) {
            write!(line, "{}", char.escape_default()).expect("a String takes every write");
        } else {
            line.push(char);
        }
    }
    line
}

/// Returns whether it is a mark, embedding, override or isolate of Unicode's bidirectional algorithm, or a separator of
/// lines.
fn is_direction(char: char) -> bool {
    matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_its_line() {
        assert_eq!(one_line("a\nb\u{7f}ü"), "a\\nb\\u{7f}ü");
    }
}
