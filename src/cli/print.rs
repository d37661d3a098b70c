//! The output of commands, and their exit codes.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::config;
use crate::ctl::Failure;

/// The exit code for wrong flags and wrong files.
pub(super) const EXIT_USAGE: u8 = 2;

/// Returns the exit code of a command, after printing why it failed.
pub(super) fn exit_code(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) | Err(Failure::NoReader) => ExitCode::SUCCESS,
        Err(Failure::Unwell) => ExitCode::FAILURE,
        Err(Failure::NoResult) => ExitCode::from(EXIT_USAGE),
        Err(failure @ Failure::Usage(_)) => {
            print_error(failure);
            ExitCode::from(EXIT_USAGE)
        }
        Err(failure @ (Failure::Failed(_) | Failure::Unanswered(_) | Failure::Unwritten(_))) => {
            print_error(format_args!("l4lb: {failure}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes to stdout; a closed one must not cause a panic.
pub(super) fn print(text: &[u8]) {
    let _ = io::stdout().write_all(text);
}

pub(super) fn print_error(error: impl Display) {
    let _ = writeln!(io::stderr(), "{}", config::one_line(&error.to_string()));
}
