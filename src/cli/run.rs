//! Dispatches from commands to the code that runs them.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::{Cli, Command};
use super::completions::completions;
use super::import::import;
use super::man::man;
use super::print::{EXIT_USAGE, exit_code, print, print_error};
use super::serve;
use crate::config::fd_budget::FdBudget;
use crate::config::{self, Config, KnownNames, Overrides};
use crate::ctl::{self, RegisterArgs};
use crate::demo::{HttpBackend, Ports};
use crate::doctor::{self, Finding, Verdict};
use crate::logging;
use crate::sys;
use crate::top;

/// Runs the command line. Returns the exit code; fails with an error of this machine.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        None => serve::configured(cli.config.as_deref(), &cli.flags.overrides()),
        Some(Command::Check { file, flags }) => {
            let config = match load(Some(&file), &flags.overrides()) {
                Ok(config) => config,
                Err(code) => return Ok(code),
            };
            let open_files = sys::open_files_max().context("cannot read the limit of open files")?;
            let pipe_bytes = sys::pipe_bytes_max(config.global.user.is_some());
            Ok(check(&config, &file, open_files, pipe_bytes.context("cannot read the limit on pipes")?))
        }
        Some(Command::Doctor { config, json }) => {
            let file = config.as_deref();
            let config = file.map(|file| load(Some(file), &Overrides::default())).transpose();
            let examine = |config: Option<Config>| doctor(&doctor::examine(config.as_ref(), file), json);
            Ok(config.map_or_else(|code| code, examine))
        }
        Some(Command::Demo { discover, port_base }) => {
            let ports = port_base.map_or_else(Ports::default, Ports::from_base);
            if discover { serve::demo_of_discovery(ports) } else { serve::demo(ports) }
        }
        Some(Command::Backend { port }) => {
            let backend = HttpBackend::bind(port)?;
            backend.print_what_to_try(&mut io::stdout())?;
            backend.serve()?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Ctl(args)) => Ok(exit_code(ctl::run(&args))),
        // Closing a terminal sends HUP.
        Some(Command::Top(args)) => Ok(exit_code(top::run(&args, &signalled(&[SIGTERM, SIGINT, SIGHUP])?))),
        Some(Command::Register(args)) => register(args),
        Some(Command::Import { file, strict }) => Ok(import(&file, strict)),
        Some(Command::Man { out }) => man(out.as_deref()).context("cannot write the pages"),
        Some(Command::Completions { shell }) => Ok(completions(shell)),
    }
}

/// Keeps a backend registered until a signal ends it.
fn register(args: RegisterArgs) -> anyhow::Result<ExitCode> {
    let _flush = logging::start(log::LevelFilter::Info, &logging::Settings::plain())
        .context("cannot start the log")?;
    Ok(exit_code(ctl::register(args, &signalled(&[SIGTERM, SIGINT])?)))
}

/// Returns a channel that receives each of the signals; none of them ends the process any more.
fn signalled(signals: &[i32]) -> anyhow::Result<mpsc::Receiver<()>> {
    let mut signals = Signals::new(signals).context("cannot handle signals")?;
    let (interrupt, interrupts) = mpsc::channel();
    thread::Builder::new().name("l4lb-signals".into()).spawn(move || {
        // Ends when the receiver has gone.
        signals.forever().try_for_each(|_| interrupt.send(()))
    })?;
    Ok(interrupts)
}

/// Returns the configuration of the file and the flags. Prints every mistake and returns the exit code otherwise.
fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Config, ExitCode> {
    let known = KnownNames::default();
    config::load_and_look_up(file, overrides, sys::INPUTS, &known, sys::look_up).map_err(|errors| {
        errors.iter().for_each(print_error);
        ExitCode::from(EXIT_USAGE)
    })
}

/// Prints what the configuration of `file` would run, or why it cannot when at most `nofile` files may be open and
/// pipes may hold `pipe_bytes`.
fn check(config: &Config, file: &Path, nofile: u64, pipe_bytes: Option<u64>) -> ExitCode {
    let budget = FdBudget::of(config, nofile, pipe_bytes);
    match budget.sessions_max(config) {
        Ok(sessions) => {
            for Finding { name, found, consequence, .. } in doctor::preflight(config, Some(file)) {
                let consequence = consequence.map(|what| format!(": {what}")).unwrap_or_default();
                print_error(format!("warning: {name}: {found}{consequence}"));
            }
            print(format!("{config}limits: max_sessions={sessions}, {budget}\n").as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            print_error(format!("{}: {error}", file.display()));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Prints the findings of the doctor.
fn doctor(findings: &[Finding], as_json: bool) -> ExitCode {
    let text = if as_json { doctor::json(findings) } else { doctor::table(findings) };
    print(text.as_bytes());
    match doctor::worst(findings) {
        Verdict::Ok | Verdict::Warn => ExitCode::SUCCESS,
        Verdict::Fail => ExitCode::FAILURE,
    }
}
