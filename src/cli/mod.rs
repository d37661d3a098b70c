//! The command line: parses arguments into [`Overrides`](crate::config::Overrides) and a [`Command`], and runs it.
//! `run` dispatches, `serve` is the server in the foreground.

mod args;
mod completions;
mod import;
mod man;
mod names;
mod print;
mod run;
mod serve;

pub use args::{Cli, Command, Flags, usage_text};
pub use names::read;
pub use run::run;
