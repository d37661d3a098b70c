//! The flags of `l4lb ctl`: the request, its target and the format of the answer.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::api;
use crate::base::network::Network;
use crate::config;
use crate::ctl::target::At;
use crate::session::CloseReason;

const EXAMPLES: &str = "\
Examples:
  l4lb ctl status
  l4lb ctl backends web                      the backends of one pool
  l4lb ctl add 10.0.0.3:80 --pool web        add a backend
  l4lb ctl drain web/10.0.0.1:80 --wait      no new sessions; return when the last one has ended
  l4lb ctl drain '*/10.0.0.7:80' web/c       several at once, in all pools; --dry-run shows them first
  l4lb ctl set web/a address=10.0.0.9:80     new sessions go to another address; =default undoes it
  l4lb ctl sessions --client 192.0.2.0/24    the sessions of a client, or of a network
  l4lb ctl sessions --sort bytes -n 10       the ten that have moved most
  l4lb ctl sessions --ended --reason connect_refused --since 5m
  l4lb ctl explain 0.12.3                    why that session got its backend
  l4lb ctl check web/10.0.0.1:80             run its health checks now, and show the exchange
  l4lb ctl reload --dry-run                  what the file would change, and the sessions affected
  l4lb ctl events --follow | head
  l4lb ctl fleet                             all balancers of [fleet]
  l4lb ctl drain web/a --fleet               on all of them; ends with l4lb ctl ready web/a --fleet
  l4lb ctl counters clear web                show the totals of a pool from now on
  l4lb ctl stop --wait                       end the process once its sessions have finished
  l4lb ctl backends --json | jq '.[] | select(.eligible | not)'

A backend is named POOL/BACKEND; with only one pool, BACKEND is enough.
Without --socket and --address the default socket of l4lb is used: admin.sock in
$RUNTIME_DIRECTORY, in $XDG_RUNTIME_DIR/l4lb, or in /run/l4lb for root.
Exit codes: 0 done, 1 refused or unreachable, 2 wrong flags; those of check are in its help.";

/// The command line of `l4lb ctl`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CtlArgs {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    pub(super) action: Action,
}

/// The target and the format of the answer.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
struct Place {
    /// Unix socket of the admin API
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Address of the admin API over TCP; needs --token-file
    #[arg(long, global = true, value_name = "ADDR")]
    address: Option<SocketAddr>,
    /// File with the token to present over TCP
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// With drain, ready and maint: on all balancers of [fleet]
    #[arg(long, global = true)]
    fleet: bool,
    /// Print the answer of the API as JSON
    #[arg(long, global = true)]
    json: bool,
}

impl CtlArgs {
    /// Returns whether answers are printed unchanged.
    pub(super) const fn json(&self) -> bool {
        self.place.json
    }

    /// Returns whether the change is one of all balancers.
    pub(super) const fn fleet(&self) -> bool {
        self.place.fleet
    }

    /// Returns where the API is.
    pub(super) fn at(&self) -> At {
        let Place { socket, address, token_file, .. } = self.place.clone();
        At { socket, address, address_flag: "--address", token_file }
    }
}

/// The information to show or the change to make.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub(super) enum Action {
    /// Process status: stage, sessions, bytes, workers, reloads, keys that need a restart
    Status,
    /// Addresses that clients connect to
    Listeners,
    /// Pause a listener, or make it listen again
    #[command(
        after_help = "A paused listener closes its sockets: connections in its queue are served, its sessions live on, and new\n\
                            clients are refused. A reload leaves it paused, a restart does not."
    )]
    Listener {
        /// The listener, as in `l4lb ctl listeners`
        #[arg(value_name = "LISTENER")]
        name: String,
        /// pause or resume
        #[arg(value_enum)]
        verb: Verb,
    },
    /// Pools, and how many of their backends are eligible
    Pools,
    /// Backends of one pool or of all
    Backends {
        /// Only backends of this pool
        pool: Option<String>,
    },
    /// Open sessions, or the latest ended ones
    Sessions(SessionArgs),
    /// Recent events
    Events {
        /// Keep printing events as they happen
        #[arg(short, long)]
        follow: bool,
        /// Only changes made by operators and programs, which are kept longer
        #[arg(long)]
        audit: bool,
        /// Only events after the one with this ID
        #[arg(long, value_name = "ID")]
        after: Option<u64>,
        /// At most this many, the newest ones [default: 100]
        #[arg(short = 'n', long, value_name = "N", value_parser = page_len())]
        limit: Option<u32>,
    },
    /// Sources of backends, and their state; with a POOL, query its sources now, without a change
    Discover {
        /// Query the sources of this pool now, and show the difference
        pool: Option<String>,
    },
    /// All balancers of the fleet: version, load, configuration, and the backends on which they disagree
    Fleet,
    /// Share of new sessions per backend
    Topology,
    /// Register a backend with a pool
    #[command(
        after_help = "With --ttl the backend is removed unless this command is repeated in time, as `l4lb register` does.\n\
                      The answer names the holder of the lease; --holder renews that lease only."
    )]
    Add {
        /// IP or host with port; ":8081" is 127.0.0.1:8081
        #[arg(value_name = "ADDR")]
        server: String,
        /// The pool; optional when there is only one
        #[arg(long)]
        pool: Option<String>,
        /// Its name in the pool [default: the address]
        #[arg(long)]
        name: Option<String>,
        /// Share of new sessions, 0..=256 [default: 1]
        #[arg(long, value_name = "N", value_parser = weight())]
        weight: Option<u16>,
        /// Its tier, 0..=15: serves only while no backend of a lower number is eligible [default: 0]
        #[arg(long, value_name = "N", value_parser = priority())]
        priority: Option<u16>,
        /// Same as --priority 15
        #[arg(long)]
        backup: bool,
        /// Remove it unless it is registered again within this time, 1s..=24h [default: never]
        #[arg(long, value_name = "DUR")]
        ttl: Option<String>,
        /// Renew the lease of this holder
        #[arg(long, value_name = "ID")]
        holder: Option<String>,
        /// Put a lease on a permanent backend, or make a leased backend permanent
        #[arg(long)]
        replace: bool,
    },
    /// Remove a backend; on_remove of its pool decides how its sessions end
    Remove {
        /// The backend
        #[arg(value_name = "POOL/BACKEND")]
        backend: String,
        /// End the lease of this holder only; the backend stays while others hold one
        #[arg(long, value_name = "ID")]
        holder: Option<String>,
    },
    /// Give a backend no new sessions; open ones finish, checks continue
    Drain {
        #[command(flatten)]
        chosen: Chosen,
        /// Show the progress, and return when the last session has ended
        #[arg(long, conflicts_with = "dry_run")]
        wait: bool,
        /// Stop waiting after this long, with exit code 1
        #[arg(long, value_name = "DUR", requires = "wait", value_parser = config::parse_timeout)]
        timeout: Option<Duration>,
    },
    /// Return a backend to service; it gets new sessions once its health allows
    Ready(Chosen),
    /// Give a backend no new sessions and no checks; open sessions finish
    Maint(Chosen),
    /// Change a backend's share of new sessions
    Weight {
        #[command(flatten)]
        chosen: Chosen,
        /// Weight, 0..=256; 0 gives it no new sessions
        #[arg(value_name = "N", value_parser = weight())]
        weight: u16,
    },
    /// Set the address or the priority of a backend, over the file, its registration and discovery
    #[command(
        override_usage = "l4lb ctl set [OPTIONS] <POOL/BACKEND>... <KEY=VALUE>...",
        after_help = "Settings:\n  \
                      address=ADDR    new sessions go there, open ones stay where they are; its health is found anew. One backend\n  \
                      priority=N      its tier, 0..=15\n  \
                      weight=N        same as l4lb ctl weight\n\n\
                      address=default and priority=default undo it. Until then a setting holds over reloads, answers of sources and, with a\n\
                      state_file, restarts; ctl backends, top, the page and ctl config --toml show it."
    )]
    Set(Chosen),
    /// Set a backend's health, overriding its checks
    Health {
        #[command(flatten)]
        chosen: Chosen,
        /// up or down, or auto to follow its checks again
        #[arg(value_enum)]
        health: Word,
    },
    /// Run the checks of a backend now, and show what they send and receive; changes nothing
    #[command(
        after_help = "The checks of the running configuration, also of a backend in maintenance. Its health stays as it is.\n\
                      Exit codes: 0 all checks pass, 1 one fails, 2 there is no result: a name is wrong, the checks are\n\
                      off, or l4lb cannot run them."
    )]
    Check {
        /// Backends; * is any characters and ? any one, in either part: 'web/a*', '*/10.0.0.7:80'
        #[arg(value_name = "POOL/BACKEND", required = true)]
        backends: Vec<String>,
    },
    /// Reset a session, or all sessions of a backend
    #[command(group(clap::ArgGroup::new("whom").required(true)))]
    Kill {
        /// The session id, as in `l4lb ctl sessions`
        #[arg(value_name = "ID", group = "whom")]
        session: Option<String>,
        /// All sessions of this backend
        #[arg(long, value_name = "POOL/BACKEND", group = "whom")]
        backend: Option<String>,
    },
    /// Read the config file again and apply its changes
    Reload {
        /// Show the changes and how many sessions they affect, and apply nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Lists of networks, by which listeners admit clients
    Acl {
        #[command(subcommand)]
        action: AclAction,
    },
    /// Explain why a session got its backend, and why it ended
    #[command(group(clap::ArgGroup::new("what").required(true)))]
    Explain {
        /// The session id, as in `l4lb ctl sessions` and its log line
        #[arg(value_name = "ID", group = "what")]
        session: Option<String>,
        /// Explain the two-letter end codes
        #[arg(long, group = "what")]
        codes: bool,
    },
    /// Show the log level, or change it until the process ends
    LogLevel {
        /// off, error, warn, info, debug or trace
        level: Option<String>,
    },
    /// Make /ready answer 503 (on) or not (off), or show the setting; connections are still served
    ReadyFail {
        /// on or off
        #[arg(value_parser = ["on", "off"])]
        fail: Option<String>,
    },
    /// Counters as they are shown
    Counters {
        #[command(subcommand)]
        action: CountersAction,
    },
    /// End the process as SIGTERM does: no new sessions, open ones may finish for drain_timeout
    #[command(
        after_help = "Once more changes nothing; --now, or a signal during the drain, resets the sessions that are left.\n\
                      The process exits with status 0: systemd starts it again only with Restart=always."
    )]
    Stop {
        /// Reset all sessions at once, as a second signal does
        #[arg(long)]
        now: bool,
        /// Show the progress, and return when the process has ended
        #[arg(long)]
        wait: bool,
        /// Stop waiting after this long, with exit code 1
        #[arg(long, value_name = "DUR", requires = "wait", value_parser = config::parse_timeout)]
        timeout: Option<Duration>,
    },
    /// Drains in progress: sessions left, and until when
    Drains,
    /// The running configuration, with every default filled in
    Config {
        /// As a file that starts an l4lb with the running state; what no key can express is a comment
        #[arg(long)]
        toml: bool,
    },
}

/// What happens to lists of networks.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub(super) enum AclAction {
    /// Show whether listeners admit a client, and which entry of which list decides
    #[command(
        after_help = "The address of the socket counts: behind a balancer that sends a PROXY header, that of the balancer."
    )]
    Test {
        /// The address of the client
        #[arg(value_name = "ADDR")]
        client: IpAddr,
        /// Only this listener, as in `l4lb ctl listeners` [default: all]
        #[arg(value_name = "LISTENER")]
        listener: Option<String>,
    },
    /// Read the files of the lists again, and nothing else
    #[command(
        after_help = "The lists of all listeners are replaced in one step. A file that cannot be read, or a line that is no network,\n\
                      changes nothing. Open sessions stay."
    )]
    Reload,
}

/// What happens to counters.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub(super) enum CountersAction {
    /// Show totals from now on, until the process ends; metrics and rates are not affected
    Clear {
        /// Only those of this pool's backends, or of one backend [default: all]
        #[arg(value_name = "POOL[/BACKEND]")]
        what: Option<String>,
    },
}

/// Selects backends to change.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub(super) struct Chosen {
    /// Backends; * is any characters and ? any one, in either part: 'web/a*', '*/10.0.0.7:80'
    #[arg(value_name = "POOL/BACKEND", required = true)]
    pub(super) backends: Vec<String>,
    /// Show the backends and what would change, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Also when a pool loses its last eligible backend
    #[arg(long)]
    pub(super) force: bool,
}

/// Selects sessions.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub(super) struct SessionArgs {
    /// Only sessions through this pool
    #[arg(long)]
    pub(super) pool: Option<String>,
    /// Only sessions on this backend, or on those that match 'web/a*' or '*/10.0.0.7:80'
    #[arg(long, value_name = "POOL/BACKEND", conflicts_with = "pool")]
    pub(super) backend: Option<String>,
    /// Only sessions of this client address, or of clients in this network
    #[arg(long, value_name = "CIDR")]
    pub(super) client: Option<Network>,
    /// Order: bytes, age, idle (the most first), backend or client; --limit prints the first of them
    #[arg(long, value_name = "KEY", value_enum, conflicts_with_all = ["from", "all"])]
    pub(super) sort: Option<Order>,
    /// Ended sessions instead of open ones, newest first; each worker keeps its last 1024
    #[arg(long, conflicts_with_all = ["from", "all"])]
    pub(super) ended: bool,
    /// Only sessions that ended for this reason
    #[arg(long, value_name = "REASON", requires = "ended", value_parser = reason(), hide_possible_values = true)]
    pub(super) reason: Option<String>,
    /// Only sessions that ended within this time
    #[arg(long, value_name = "DUR", requires = "ended", value_parser = config::parse_duration)]
    pub(super) since: Option<Duration>,
    /// Rows on a page, 1..=1000 [default: 100]
    #[arg(short = 'n', long, value_name = "N", value_parser = page_len())]
    pub(super) limit: Option<u32>,
    /// Continue at the place that the previous page printed
    #[arg(long, value_name = "PLACE")]
    pub(super) from: Option<String>,
    /// All pages; with --json one page per line
    #[arg(long)]
    pub(super) all: bool,
}

/// The order of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Order {
    /// Those that have moved most bytes first
    Bytes,
    /// The oldest first
    Age,
    /// Those without a byte for the longest time first
    Idle,
    /// By pool and backend
    Backend,
    /// By the address of the client
    Client,
}

impl From<Order> for api::SessionSort {
    fn from(order: Order) -> Self {
        match order {
            Order::Bytes => Self::Bytes,
            Order::Age => Self::Age,
            Order::Idle => Self::Idle,
            Order::Backend => Self::Backend,
            Order::Client => Self::Client,
        }
    }
}

/// An operator's setting of a backend's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Word {
    /// Up, regardless of its checks
    Up,
    /// Down, regardless of its checks
    Down,
    /// As its checks report
    Auto,
}

/// What becomes of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Verb {
    /// Accept no more connections
    Pause,
    /// Listen again
    Resume,
}

impl From<Word> for api::OverrideTo {
    fn from(word: Word) -> Self {
        match word {
            Word::Up => Self::Up,
            Word::Down => Self::Down,
            Word::Auto => Self::Auto,
        }
    }
}

pub(super) fn weight() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(0..=i64::from(config::WEIGHT_MAX))
}

pub(super) fn priority() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(0..=i64::from(config::PRIORITY_MAX))
}

fn reason() -> clap::builder::PossibleValuesParser {
    CloseReason::ALL.map(CloseReason::as_str).into()
}

fn page_len() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(api::PAGE_LEN_MAX))
}
