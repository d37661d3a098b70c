//! `l4lb`: flags and file, then the server until a signal ends it.

use std::panic;
use std::process::{self, ExitCode};

use l4lb::cli;
use l4lb::config::one_line;
use l4lb::logging;

fn main() -> ExitCode {
    abort_at_panics();
    match cli::read(std::env::args_os()).map(cli::run) {
        Ok(Ok(code)) | Err(code) => code,
        Ok(Err(error)) => {
            logging::print_last_words(&one_line(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// Makes a panic in any thread end the process at once, in every build: shared state may be half changed, and the
/// service manager starts a new process. Earlier log lines are written first.
fn abort_at_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        logging::flush();
        process::abort();
    }));
}
