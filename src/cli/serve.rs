//! The server in the foreground, until a signal ends it.

use std::io::{self, Write};
use std::path::Path;
use std::process::{self, ExitCode};
use std::sync::Arc;

use anyhow::Context;

use crate::config::model::LogFormat;
use crate::config::{self, Config, KnownNames, Overrides, one_line};
use crate::demo::{self, Ports};
use crate::logging;
use crate::messages::reload::{Look, Source};
use crate::server::{self, Actions, ConfigFile, StartError, Watchdog};
use crate::sys::{self, Inherited, Notice};

/// Serves the configuration of file and flags.
pub(super) fn configured(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<ExitCode> {
    // Must come before anything else is opened.
    let inherited = Inherited::take().context("cannot take the passed sockets (LISTEN_FDS)")?;
    let signals = prepare_process()?;
    match config::load_and_look_up(file, overrides, sys::INPUTS, &KnownNames::default(), sys::look_up) {
        Ok(config) => serve(&config, file_of(file, overrides), inherited, &signals, || Ok(())),
        Err(errors) => {
            let format = file.map_or(LogFormat::Text, |file| config::log_format(file, sys::INPUTS));
            let errors = errors.iter().map(|error| one_line(&error.to_string()));
            errors.for_each(|error| logging::print_mistake(&error, format));
            Ok(ExitCode::from(super::print::EXIT_USAGE))
        }
    }
}

/// Returns the source for reloads; `None` without a file, because flags cannot change.
fn file_of(file: Option<&Path>, overrides: &Overrides) -> Option<ConfigFile> {
    let (path, overrides) = (file?.to_owned(), overrides.clone());
    let name = path.display().to_string();
    let lines =
        |errors: Vec<config::Error>| errors.iter().map(|error| one_line(&error.to_string())).collect();
    let look: Look = {
        let (path, overrides) = (path.clone(), overrides.clone());
        Arc::new(move || {
            let looked = config::look(&path, sys::INPUTS);
            let (seen, overrides) = (looked.clone(), overrides.clone());
            let source: Source = Arc::new(move |known| {
                config::load_looked(&seen, &overrides, sys::INPUTS, known, sys::look_up).map_err(lines)
            });
            (looked, source)
        })
    };
    let source: Source = Arc::new(move |known| {
        config::load_and_look_up(Some(&path), &overrides, sys::INPUTS, known, sys::look_up).map_err(lines)
    });
    Some(ConfigFile { name, source, look })
}

/// Serves the backends of the demo.
pub(super) fn demo(ports: Ports) -> anyhow::Result<ExitCode> {
    let signals = prepare_process()?;
    demo::start_backends(&ports)?;
    let (config, token) = demo_config(&ports, &ports.config())?;
    let when_started = move || demo::print_what_to_try(&ports, &token, &mut io::stdout());
    serve(&config, None, Inherited::default(), &signals, when_started)
}

/// Serves backends that come and go. Prints the outcomes of the requests of its clients at the end.
pub(super) fn demo_of_discovery(ports: Ports) -> anyhow::Result<ExitCode> {
    let signals = prepare_process()?;
    let discovery = demo::Discovery::bind(&ports)?;
    let visits = discovery.visits();
    let (mut config, token) = demo_config(&ports, &ports.discovery_config())?;
    // It prints a line for each change itself, and its clients have very many sessions.
    config.global.log_level = log::LevelFilter::Warn;
    let when_started = move || discovery.start(&ports, &token, io::stdout());
    let code = serve(&config, None, Inherited::default(), &signals, when_started)?;
    writeln!(io::stdout(), "{visits}")?;
    Ok(code)
}

/// Returns the configuration of a demo, and the token for its dashboard.
fn demo_config(ports: &Ports, text: &str) -> anyhow::Result<(Config, demo::Token)> {
    let no_names = &mut |_: &str| Ok(Vec::new());
    let config = config::parse(text, "demo", &Overrides::default(), no_names);
    let mut config =
        config.map_err(|errors| anyhow::anyhow!("the demo has a wrong configuration: {errors:?}"))?;
    let token = demo::Token::make().context("cannot create a token for the dashboard")?;
    config.admin.listen = Some(ports.dashboard());
    config.admin.token_file = Some(token.file().to_owned());
    Ok((config, token))
}

/// Prepares the process. Must be called before anything waits and before there is another thread: threads inherit these
/// settings.
fn prepare_process() -> anyhow::Result<server::Signals> {
    sys::renounce_new_privileges().context("cannot renounce new privileges")?;
    let leave = || {
        log::info!("stopped before serving");
        logging::flush();
        process::exit(0);
    };
    server::Signals::catch(Actions { reopen_logs: logging::reopen, leave }).context("cannot handle signals")
}

/// Serves until a signal ends it.
fn serve(
    config: &Config,
    file: Option<ConfigFile>,
    inherited: Inherited,
    signals: &server::Signals,
    when_started: impl FnOnce() -> io::Result<()>,
) -> anyhow::Result<ExitCode> {
    let logging = logging::start(config.global.log_level, &logging::Settings::of(&config.global));
    let mut logging = logging.context("cannot start the log")?;
    let running = server::start_service(config, file, inherited, |reports| {
        signals.report_to(reports);
        logging.open_access_log().map_err(|(path, error)| StartError::AccessLog { path, error })
    })?;
    let _watchdog = Watchdog::start(running.watched()).context("cannot start a thread")?;
    sys::notify(&[Notice::Ready, Notice::Status("serving")]);
    when_started()?;
    let totals = running.wait().context("stopped by an error")?;
    log::info!("stopped: {totals}");
    Ok(ExitCode::SUCCESS)
}
