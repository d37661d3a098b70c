//! The logger of a process, of which there is one: so this is the only test that this process has. It runs itself again
//! to read what that writes, and so that no RUST_LOG of whoever runs it has a say.

use std::env;
use std::process::Command;

use l4lb::logging;
use log::{Level, LevelFilter, log_enabled};

const TEST: &str = "the_level_can_be_changed_while_the_process_runs";
/// Set in the process whose logger is tested.
const INSIDE: &str = "L4LB_TEST_LOGGING_INSIDE";
const LEVELS: [LevelFilter; 4] = [LevelFilter::Warn, LevelFilter::Debug, LevelFilter::Off, LevelFilter::Info];

#[test]
fn the_level_can_be_changed_while_the_process_runs() {
    if env::var_os(INSIDE).is_some() {
        return change_the_level();
    }
    let mut again = Command::new(env::current_exe().unwrap());
    again.args(["--exact", TEST, "--nocapture"]).env(INSIDE, "1").env_remove("RUST_LOG");
    let output = again.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    let written: Vec<&str> =
        text.lines().filter_map(|line| line.split_once(" set=")).map(|(_, set)| set).collect();
    let expected = LEVELS.iter().flat_map(|&level| {
        Level::iter().filter(move |&line| line <= level).map(move |line| format!("{level} line={line}"))
    });
    assert_eq!(written, expected.collect::<Vec<_>>(), "{text}");
}

/// Logs a line of every level at every level.
fn change_the_level() {
    let logging = logging::start(LEVELS[0], &logging::Settings::plain());
    let logging = logging.expect("the first logger of this process");
    for level in LEVELS {
        // The first one is that of the start.
        if level != LEVELS[0] {
            logging::set_level(level);
        }
        assert_eq!(logging::level(), level);
        for line in Level::iter() {
            let is_written = log_enabled!(target: "l4lb::test", line);
            assert_eq!(is_written, line <= level, "a line of {line} at {level}");
            log::log!(target: "l4lb::test", line, set:% = level, line:%; "logged");
        }
    }
    // There is no access log, which is nothing to fail at.
    logging::reopen();
    drop(logging);
    assert_eq!(logging::dropped(), 0);
}
