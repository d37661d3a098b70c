//! The arguments: what may be written on the command line, and what each means.

use std::error::Error as _;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};
use log::LevelFilter;

use super::print::{EXIT_USAGE, print, print_error};
use crate::balance::Algorithm;
use crate::base::nearest::did_you_mean;
use crate::config::model::AdminSocket;
use crate::config::{self, BackendFlag, Overrides};
use crate::ctl::{CtlArgs, RegisterArgs};
use crate::demo::PORT_BASE_MAX;
use crate::top::TopArgs;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "l4lb", version = env!("L4LB_VERSION"), about = "A Layer-4 TCP load balancer", after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// Config file (TOML); flags add to it or override it
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The flags of the server.
    #[command(flatten)]
    pub flags: Flags,
    /// The subcommand; without one l4lb balances.
    #[command(subcommand)]
    pub command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  l4lb demo                              try it: three backends and a balancer
  l4lb demo --discover                   backends that come and go, announced in DNS
  l4lb -l :9090                          balance 127.0.0.1:8081, 8082 and 8083
  l4lb -l :9090 -b 10.0.0.1:80 -b 10.0.0.2:80,weight=3 --balance least_connections
  l4lb -c /etc/l4lb.toml --workers 4     the file, but with 4 worker threads
  l4lb check /etc/l4lb.toml              the effective configuration, or every mistake in it
  l4lb doctor -c /etc/l4lb.toml          whether this machine can run it, and the fixes
  l4lb ctl backends                      the backends of a running l4lb
  l4lb top                               the same live, with rates, charts and events

Manual: README.md and src/manual/ of the source, or `cargo doc --open`; `l4lb man` prints a page for each command.
Durations are written 500ms, 2s, 1m30s, 1h.
Signals: TERM, INT and QUIT drain and exit; another one during the drain ends all sessions at once, and one during
shutdown_delay begins the drain. HUP reloads the config file; so does a change of it with [global] watch = true. USR1
logs the counters of each worker and reopens the access log.
Exit codes: 0 done, 1 failed while running, 2 wrong flags or config.";

/// The subcommands of `l4lb`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a config file: print the effective configuration, or every mistake in it
    #[command(
        after_help = "Flags are applied as with -c. Problems of this machine are warnings here, and failures in\n\
                      `l4lb doctor -c FILE`.\n\
                      Exit codes: 0 valid, 2 a mistake in the flags or the file."
    )]
    Check {
        /// The file to check
        file: PathBuf,
        /// The flags of the server.
        #[command(flatten)]
        flags: Flags,
    },
    /// Check whether this machine can run l4lb, or a given config file, and print the fixes
    #[command(
        after_help = "An l4lb that runs on the same admin socket is asked for its sources of backends.\n\
                      Exit codes: 0 ok or warnings, 1 a failed check, 2 wrong flags or config."
    )]
    Doctor {
        /// The config file to check for [default: one listener and one backend with default settings]
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run three small HTTP backends on 127.0.0.1:8081-8083 and balance them on 127.0.0.1:9090
    Demo {
        /// Let three to six backends start and stop by themselves, announced by a name server on 127.0.0.1:9092
        #[arg(long)]
        discover: bool,
        /// Balance on port N, with the dashboard on N+1 and the backends from N+2 on; --discover uses the ports up to
        /// N+8
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(PORT_BASE_MAX)))]
        port_base: Option<u16>,
    },
    /// Run one small HTTP backend on 127.0.0.1, for experiments
    Backend {
        /// Port to serve on
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
    },
    /// Inspect and control a running l4lb
    Ctl(CtlArgs),
    /// Watch a running l4lb on a terminal, and drain its backends from the keyboard
    Top(TopArgs),
    /// Keep a backend registered with a running l4lb while this command runs
    Register(RegisterArgs),
    /// Translate a haproxy.cfg: print the file for l4lb, and every line that is not in it
    #[command(
        after_help = "The file goes to standard output and is accepted by `l4lb check`. It begins with the lines that are not\n\
                      translated, which are also on standard error.\n\
                      Example: l4lb import /etc/haproxy/haproxy.cfg > l4lb.toml\n\
                      Exit codes: 0 translated, 1 no frontend could be translated, or a line could not with --strict,\n\
                      2 wrong flags, or a file that cannot be read."
    )]
    Import {
        /// The configuration of HAProxy; - reads standard input
        file: PathBuf,
        /// Fail if a line is not translated
        #[arg(long)]
        strict: bool,
    },
    /// Print the manual pages of l4lb, its commands and its config file
    #[command(
        after_help = "Read one with: mkdir -p /tmp/l4lb && l4lb man --out /tmp/l4lb && man /tmp/l4lb/l4lb-ctl.1"
    )]
    Man {
        /// Write each page to its own file in this directory, which must exist
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Print the completion script for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// The flags that add to the file or override it.
#[derive(Clone, Debug, Default, Args)]
pub struct Flags {
    /// Address to listen on; repeatable [with neither -b nor -c: balances 127.0.0.1:8081-8083]
    #[arg(short, long, value_name = "ADDR", value_parser = config::parse_bind)]
    listen: Vec<std::net::SocketAddr>,
    /// Backend of the only pool, IP or host with port; repeatable [default weight: 1]
    #[arg(short, long = "backend", value_name = "ADDR[,weight=N]")]
    backends: Vec<BackendFlag>,
    /// How a backend is picked [default: round_robin]
    #[arg(long, value_name = "NAME", value_parser = algorithm())]
    balance: Option<Algorithm>,
    /// Worker threads, or auto [default: auto, one per processor]
    #[arg(short, long, value_name = "N", value_parser = config::parse_workers)]
    workers: Option<NonZeroUsize>,
    /// Time between health checks of one backend [default: 2s]
    #[arg(long, value_name = "DUR", value_parser = config::parse_timeout)]
    health_interval: Option<Duration>,
    /// Time limit for one dial to a backend [default: 5s]
    #[arg(long, value_name = "DUR", value_parser = config::parse_timeout)]
    connect_timeout: Option<Duration>,
    /// End a session in which no byte is delivered for this long [default: 1h]
    #[arg(long, value_name = "DUR", value_parser = config::parse_timeout)]
    idle_timeout: Option<Duration>,
    /// Most sessions at a time [default: what the open-files limit allows]
    #[arg(long, value_name = "N", value_parser = config::parse_sessions)]
    max_sessions: Option<NonZeroUsize>,
    /// Unix socket of the admin API, or off [default: admin.sock in the run-time directory]
    #[arg(long, value_name = "PATH", value_parser = config::parse_admin_socket)]
    admin: Option<AdminSocket>,
    /// Address to serve metrics on, for Prometheus [default: none]
    #[arg(long, value_name = "ADDR", value_parser = config::parse_bind)]
    metrics: Option<std::net::SocketAddr>,
    /// Log more: -v debug, -vv trace
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Log less: -q warnings and errors, -qq errors
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "verbose")]
    quiet: u8,
}

impl Flags {
    /// Returns the changes that the flags make to a configuration.
    pub fn overrides(self) -> Overrides {
        Overrides {
            log_level: self.log_level(),
            listen: self.listen,
            backends: self.backends,
            balance: self.balance,
            workers: self.workers,
            health_interval: self.health_interval,
            connect_timeout: self.connect_timeout,
            idle_timeout: self.idle_timeout,
            max_sessions: self.max_sessions,
            admin_socket: self.admin,
            metrics: self.metrics,
        }
    }

    const fn log_level(&self) -> Option<LevelFilter> {
        match (self.verbose, self.quiet) {
            (0, 0) => None,
            (0, 1) => Some(LevelFilter::Warn),
            (0, _) => Some(LevelFilter::Error),
            (1, _) => Some(LevelFilter::Debug),
            (_, _) => Some(LevelFilter::Trace),
        }
    }
}

/// Accepts the names of the algorithms; shells complete them.
fn algorithm() -> impl TypedValueParser<Value = Algorithm> {
    PossibleValuesParser::new(Algorithm::ALL.map(Algorithm::as_str)).map(|name| {
        let named = Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name);
        named.expect("clap lets only these names through")
    })
}

impl Cli {
    /// Parses the command line. Prints the help, or one line about a mistake, and returns the exit code instead when
    /// there is nothing to run.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, ExitCode> {
        Self::try_parse_from(args).map_err(|error| {
            if error.use_stderr() {
                print_error(usage_text(&error));
                return ExitCode::from(EXIT_USAGE);
            }
            print(error.render().to_string().as_bytes());
            ExitCode::SUCCESS
        })
    }
}

/// Returns a usage error in one line; for a wrong value in the form of errors in the file: the place, then the mistake.
pub fn usage_text(error: &clap::Error) -> String {
    // Only `ctl` has subcommands; clap would print its whole help.
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "what to ask is missing: see `l4lb ctl --help`".into();
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let flag = text(ContextKind::InvalidArg).map(|arg| arg.split(' ').next().unwrap_or(arg));
    let (Some(flag), Some(value)) = (flag, text(ContextKind::InvalidValue)) else {
        return first_paragraphs(error);
    };
    match (error.get(ContextKind::ValidValue), error.source()) {
        _ if value.is_empty() => format!("{flag}: value missing"),
        (Some(ContextValue::Strings(words)), _) => {
            let hint = did_you_mean(value, words.iter().map(String::as_str));
            format!("{flag} {value}: must be one of {}{hint}", words.join(", "))
        }
        (_, Some(source)) => format!("{flag} {value}: {source}"),
        (_, None) => first_paragraphs(error),
    }
}

/// Returns clap's message, without its heading and usage.
fn first_paragraphs(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
    let text = lines.join(", ").replace(":, ", ": ");
    format!("{}; see `l4lb --help`", text.strip_prefix("error: ").unwrap_or(&text))
}
