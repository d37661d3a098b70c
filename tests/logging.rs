//! The logger of a process, of which there is one: so these are all the tests that this process has.

use l4lb::config::model::LogFormat;
use l4lb::logging;
use log::{Level, LevelFilter, log_enabled};

#[test]
fn the_level_can_be_changed_while_the_process_runs() {
    let logging = logging::start(LevelFilter::Warn, LogFormat::Text, None);
    let logging = logging.expect("the first logger of this process");
    let is_written = |level| log_enabled!(target: "l4lb::test", level);
    for level in [LevelFilter::Warn, LevelFilter::Debug, LevelFilter::Off, LevelFilter::Info] {
        // The first one is that of the start.
        if level != LevelFilter::Warn {
            logging::set_level(level);
        }
        assert_eq!(logging::level(), level);
        for line in Level::iter() {
            assert_eq!(is_written(line), line <= level, "a line of {line} at {level}");
        }
    }
    // There is no access log, which is nothing to fail at.
    logging::reopen();
    drop(logging);
    assert_eq!(logging::dropped(), 0);
}
