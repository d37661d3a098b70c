//! Dispatches from commands to the code that runs them.

use std::io;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::{self, Cli, Command};
use super::completions::completions;
use super::man::man;
use super::serve;
use crate::config::model::LogFormat;
use crate::config::{Config, Overrides};
use crate::ctl::RegisterArgs;
use crate::demo::{HttpBackend, Ports};
use crate::doctor;
use crate::logging;
use crate::sys;

/// Runs the command line. Returns the exit code; fails with an error of this machine.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        None => serve::configured(cli.config.as_deref(), &cli.flags.overrides()),
        Some(Command::Check { file, flags }) => {
            let config = match args::load(Some(&file), &flags.overrides()) {
                Ok(config) => config,
                Err(code) => return Ok(code),
            };
            let open_files = sys::open_files_max().context("cannot read the limit of open files")?;
            let pipe_bytes = sys::pipe_bytes_max(config.global.user.is_some());
            Ok(args::check(
                &config,
                &file,
                open_files,
                pipe_bytes.context("cannot read the limit on pipes")?,
            ))
        }
        Some(Command::Doctor { config, json }) => {
            let file = config.as_deref();
            let config = file.map(|file| args::load(Some(file), &Overrides::default())).transpose();
            let examine =
                |config: Option<Config>| args::doctor(&doctor::examine(config.as_ref(), file), json);
            Ok(config.map_or_else(|code| code, examine))
        }
        Some(Command::Demo { port_base }) => {
            serve::demo(port_base.map_or_else(Ports::default, Ports::from_base))
        }
        Some(Command::Backend { port }) => {
            let backend = HttpBackend::bind(port)?;
            backend.print_what_to_try(&mut io::stdout())?;
            backend.serve()?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Ctl(args)) => Ok(args::ctl(&args)),
        // Closing a terminal sends HUP.
        Some(Command::Top(args)) => Ok(args::top(&args, &signalled(&[SIGTERM, SIGINT, SIGHUP])?)),
        Some(Command::Register(args)) => register(args),
        Some(Command::Man { out }) => man(out.as_deref()).context("cannot write the pages"),
        Some(Command::Completions { shell }) => Ok(completions(shell)),
    }
}

/// Keeps a backend registered until a signal ends it.
fn register(args: RegisterArgs) -> anyhow::Result<ExitCode> {
    let _flush =
        logging::start(log::LevelFilter::Info, LogFormat::Text, None).context("cannot start the log")?;
    Ok(args::register(args, &signalled(&[SIGTERM, SIGINT])?))
}

/// Returns a channel that receives each of the signals; none of them ends the process any more.
fn signalled(signals: &[i32]) -> anyhow::Result<mpsc::Receiver<()>> {
    let mut signals = Signals::new(signals).context("cannot handle signals")?;
    let (tell, told) = mpsc::channel();
    thread::Builder::new().name("l4lb-signals".into()).spawn(move || {
        // Ends when the receiver has gone.
        signals.forever().try_for_each(|_| tell.send(()))
    })?;
    Ok(told)
}
