//! `l4lb`: flags and file, then the server until a signal ends it.

use std::io;
use std::panic;
use std::path::Path;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use l4lb::cli::{self, Cli, Command};
use l4lb::config::model::{Global, LogFormat};
use l4lb::config::{self, Config, Overrides, one_line};
use l4lb::ctl::RegisterArgs;
use l4lb::demo::{self, HttpBackend, Ports};
use l4lb::messages::reload::Source;
use l4lb::server::{Actions, Origin, StartError, Watchdog};
use l4lb::sys::{Inherited, Notice};
use l4lb::{doctor, logging, server, sys};

fn main() -> ExitCode {
    abort_at_panics();
    match Cli::read(std::env::args_os()).map(run) {
        Ok(Ok(code)) | Err(code) => code,
        Ok(Err(error)) => {
            logging::print_last_words(&one_line(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// A panic in any thread ends the process at once, in every build alike: what the others would go on with is half changed, and
/// the service manager starts a new one. What was logged before is written first.
fn abort_at_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        logging::flush();
        process::abort();
    }));
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        None => serve_configured(cli.config.as_deref(), &cli.flags.overrides()),
        Some(Command::Check { file, flags }) => {
            let config = match cli::load(Some(&file), &flags.overrides()) {
                Ok(config) => config,
                Err(code) => return Ok(code),
            };
            let open_files = sys::open_files_max().context("cannot read the limit of open files")?;
            let pipe_bytes = sys::pipe_bytes_max(config.global.user.is_some());
            Ok(cli::check(&config, &file, open_files, pipe_bytes.context("cannot read what pipes may hold")?))
        }
        Some(Command::Doctor { config, json }) => {
            let file = config.as_deref();
            let config = file.map(|file| cli::load(Some(file), &Overrides::default())).transpose();
            let examine = |config: Option<Config>| cli::doctor(&doctor::examine(config.as_ref(), file), json);
            Ok(config.map_or_else(|code| code, examine))
        }
        Some(Command::Demo { port_base }) => {
            serve_demo(port_base.map_or_else(Ports::default, Ports::from_base))
        }
        Some(Command::Backend { port }) => {
            let backend = HttpBackend::bind(port)?;
            backend.print_what_to_try(&mut io::stdout())?;
            backend.serve()?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Ctl(args)) => Ok(cli::ctl(&args)),
        // A terminal that is closed sends HUP.
        Some(Command::Top(args)) => Ok(cli::top(&args, &signalled(&[SIGTERM, SIGINT, SIGHUP])?)),
        Some(Command::Register(args)) => register(args),
        Some(Command::Man { out }) => cli::man(out.as_deref()).context("cannot write the pages"),
        Some(Command::Completions { shell }) => Ok(cli::completions(shell)),
    }
}

fn serve_configured(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<ExitCode> {
    // Before anything else is opened.
    let inherited = Inherited::take().context("cannot take what was passed to this process (LISTEN_FDS)")?;
    let signals = prepare_process()?;
    match config::load_and_look_up(file, overrides, sys::open_regular, sys::look_up) {
        Ok(config) => serve(&config, origin_of(file, overrides), inherited, &signals, || Ok(())),
        Err(errors) => {
            let format = file.map_or(LogFormat::Text, |file| config::log_format(file, sys::open_regular));
            let errors = errors.iter().map(|error| one_line(&error.to_string()));
            errors.for_each(|error| logging::print_mistake(&error, format));
            Ok(ExitCode::from(cli::EXIT_USAGE))
        }
    }
}

/// What reads the configuration again. Without a file there is nothing that could have changed.
fn origin_of(file: Option<&Path>, overrides: &Overrides) -> Option<Origin> {
    let (path, overrides) = (file?.to_owned(), overrides.clone());
    let file = path.display().to_string();
    let source: Source = Arc::new(move || {
        let config = config::load_and_look_up(Some(&path), &overrides, sys::open_regular, sys::look_up);
        config.map_err(|errors| errors.iter().map(|error| one_line(&error.to_string())).collect())
    });
    Some(Origin { file, source })
}

fn serve_demo(ports: Ports) -> anyhow::Result<ExitCode> {
    let signals = prepare_process()?;
    let no_names = &mut |_: &str| Ok(Vec::new());
    let config = config::parse(&ports.config(), "demo", &Overrides::default(), no_names);
    let mut config =
        config.map_err(|errors| anyhow::anyhow!("the demo has a wrong configuration: {errors:?}"))?;
    demo::start_backends(&ports)?;
    let token = demo::Token::make().context("cannot make a token for the dashboard")?;
    config.admin.listen = Some(ports.dashboard());
    config.admin.token_file = Some(token.file().to_owned());
    let when_started = move || demo::print_what_to_try(&ports, &token, &mut io::stdout());
    serve(&config, None, Inherited::default(), &signals, when_started)
}

/// What has to be settled before anything waits, and before there is another thread: each has what the one has that starts it.
fn prepare_process() -> anyhow::Result<server::Signals> {
    sys::renounce_new_privileges().context("cannot renounce new privileges")?;
    let leave = || {
        log::info!("stopped before it served");
        logging::flush();
        process::exit(0);
    };
    server::Signals::catch(Actions { reopen_logs: logging::reopen, leave }).context("cannot handle signals")
}

/// Serves until a signal has ended it.
fn serve(
    config: &Config,
    origin: Option<Origin>,
    inherited: Inherited,
    signals: &server::Signals,
    when_started: impl FnOnce() -> io::Result<()>,
) -> anyhow::Result<ExitCode> {
    let Global { log_level, log_format, access_log, .. } = &config.global;
    let logging = logging::start(*log_level, *log_format, access_log.as_ref());
    let mut logging = logging.context("cannot start the log")?;
    let running = server::start_service(config, origin, inherited, |reports| {
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

/// Keeps a backend registered until a signal ends it.
fn register(args: RegisterArgs) -> anyhow::Result<ExitCode> {
    let _flush =
        logging::start(log::LevelFilter::Info, LogFormat::Text, None).context("cannot start the log")?;
    Ok(cli::register(args, &signalled(&[SIGTERM, SIGINT])?))
}

/// Is told each of the signals, none of which ends the process any more.
fn signalled(signals: &[i32]) -> anyhow::Result<mpsc::Receiver<()>> {
    let mut signals = Signals::new(signals).context("cannot handle signals")?;
    let (tell, told) = mpsc::channel();
    thread::Builder::new().name("l4lb-signals".into()).spawn(move || {
        // Ends when nobody waits for a signal any more.
        signals.forever().try_for_each(|_| tell.send(()))
    })?;
    Ok(told)
}
