//! The text of an error together with what has caused it.

use std::error::Error;
use std::fmt::Write;

/// Returns an error with what has caused it, separated by colons.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").expect("a String takes every write");
        cause = error.source();
    }
    text
}
