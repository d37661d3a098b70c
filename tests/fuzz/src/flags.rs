//! Command lines: a configuration, the help, or one line on what is wrong. Never the end of the process.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Parser;
use l4lb::cli::{Cli, Command, usage_text};
use l4lb::config::{self, Error, Overrides, one_line};

use super::config::{expect_legal, expect_one_line, resolve};

/// A file to which flags add.
const FILE: &str = "[[listener]]\nbind = \":9090\"\n[[pool]]\nbackend = [{ address = \"10.0.0.1:80\" }]\n";

/// Each line is one argument.
pub fn check(data: &[u8]) {
    let arguments = data.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).map(OsString::from_vec);
    match Cli::try_parse_from([OsString::from("l4lb")].into_iter().chain(arguments)) {
        Ok(Cli { command: None, config, flags }) => apply(&flags.overrides(), config.is_some()),
        Ok(Cli { command: Some(Command::Check { flags, .. }), .. }) => apply(&flags.overrides(), true),
        Ok(Cli { command: Some(Command::Backend { port }), .. }) => assert_ne!(port, 0),
        // What these do with their flags needs more than flags.
        Ok(Cli {
            command: Some(Command::Ctl(_) | Command::Top(_) | Command::Register(_) | Command::Man { .. }),
            ..
        }) => {}
        Ok(Cli {
            command:
                Some(
                    Command::Demo { .. }
                    | Command::Doctor { .. }
                    | Command::Import { .. }
                    | Command::Completions { .. },
                ),
            ..
        }) => {}
        Err(error) if error.use_stderr() => expect_one_line(&one_line(&usage_text(&error))),
        Err(help) => assert!(!help.render().to_string().is_empty()),
    }
}

/// What the server would run.
fn apply(overrides: &Overrides, has_file: bool) {
    let config = if has_file {
        config::parse(FILE, "fuzz.toml", overrides, &mut resolve)
    } else {
        config::load(None, overrides, l4lb::sys::INPUTS, &mut resolve)
    };
    match config {
        Ok(config) => expect_legal(&config),
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a reason");
            for error in errors {
                expect_one_line(&one_line(&error.to_string()));
                if let Error::Flag { flag, .. } = error {
                    assert!(flag.starts_with('-'), "{flag:?}");
                }
            }
        }
    }
}
