//! The flags of `l4lb ctl`: what to ask, of whom, and how the answer is written.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::api;
use crate::config;
use crate::ctl::target::At;
use crate::session::CloseReason;

const EXAMPLES: &str = "\
Examples:
  l4lb ctl status
  l4lb ctl backends web                      the backends of one pool
  l4lb ctl add 10.0.0.3:80 --pool web        one more backend, at once
  l4lb ctl drain web/10.0.0.1:80 --wait      no new sessions; come back when the last has gone
  l4lb ctl sessions --client 192.0.2.7       who is on, and where
  l4lb ctl sessions --ended --reason connect_refused --since 5m
  l4lb ctl explain 0.12.3                    why that session went where it went
  l4lb ctl reload --dry-run                  what the file would change, and whom that touches
  l4lb ctl events --follow | head
  l4lb ctl backends --json | jq '.[] | select(.eligible | not)'

A backend is named POOL/BACKEND; with only one pool, BACKEND is enough.
Without --socket and --address it is asked where l4lb listens unless told otherwise: admin.sock in
$RUNTIME_DIRECTORY, in $XDG_RUNTIME_DIR/l4lb, or in /run/l4lb for root.
Exit codes: 0 done, 1 refused or not reached, 2 wrong flags.";

/// What `l4lb ctl` is asked to do.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CtlArgs {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    pub(super) action: Action,
}

/// The process that is asked, and how its answer is written.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
struct Place {
    /// Unix socket of the admin API
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Address of the admin API over TCP; needs --token-file
    #[arg(long, global = true, value_name = "ADDR")]
    address: Option<SocketAddr>,
    /// File with the token that is shown over TCP
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print the answer as JSON, as it came
    #[arg(long, global = true)]
    json: bool,
}

impl CtlArgs {
    /// Whether answers are printed as they come.
    pub(super) const fn json(&self) -> bool {
        self.place.json
    }

    /// Where to ask.
    pub(super) fn at(&self) -> At {
        let Place { socket, address, token_file, .. } = self.place.clone();
        At { socket, address, address_flag: "--address", token_file }
    }
}

/// What to show or to change.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub(super) enum Action {
    /// How the process does: stage, sessions, bytes, workers, reloads
    Status,
    /// Where clients connect
    Listeners,
    /// The pools, and how many of their backends serve
    Pools,
    /// The backends, of one pool or of all
    Backends {
        /// Those of this pool only
        pool: Option<String>,
    },
    /// The sessions that are not over, or the latest that are
    Sessions(SessionArgs),
    /// What has happened lately
    Events {
        /// Go on with what happens from now on
        #[arg(short, long)]
        follow: bool,
        /// Only what operators and programs have asked for, which is kept longer
        #[arg(long)]
        audit: bool,
        /// Those behind the event with this number only
        #[arg(long, value_name = "ID")]
        after: Option<u64>,
        /// So many at most, the newest ones [default: 100]
        #[arg(short = 'n', long, value_name = "N", value_parser = page_len())]
        limit: Option<u32>,
    },
    /// What share of the new sessions each backend has
    Topology,
    /// Register a backend with a pool
    #[command(
        after_help = "With --ttl it goes again unless this is repeated in time: see `l4lb register`. The answer names the\nholder of the lease; --holder renews that one and refuses another."
    )]
    Add {
        /// IP or host with port; ":8081" is 127.0.0.1:8081
        #[arg(value_name = "ADDR")]
        server: String,
        /// The pool; may be left out when there is only one
        #[arg(long)]
        pool: Option<String>,
        /// Its name in the pool [default: the address]
        #[arg(long)]
        name: Option<String>,
        /// Share of new sessions, 0..=256 [default: 1]
        #[arg(long, value_name = "N", value_parser = weight())]
        weight: Option<u16>,
        /// Serve only when no other backend can
        #[arg(long)]
        backup: bool,
        /// Remove it unless it is registered again within this time
        #[arg(long, value_name = "DUR")]
        ttl: Option<String>,
        /// Renew the lease of this holder
        #[arg(long, value_name = "ID")]
        holder: Option<String>,
        /// Give a lease to what was to stay, or let stay what others have leases of
        #[arg(long)]
        replace: bool,
    },
    /// Remove a backend; its pool's on_remove says what becomes of its sessions
    Remove {
        /// Which
        #[arg(value_name = "POOL/BACKEND")]
        backend: String,
        /// End the lease of this holder only: the backend stays while others have one
        #[arg(long, value_name = "ID")]
        holder: Option<String>,
    },
    /// Give a backend no new sessions; those that it has finish, checks go on
    Drain {
        /// Which
        #[arg(value_name = "POOL/BACKEND")]
        backend: String,
        /// Come back when its last session has gone, and show how far it is until then
        #[arg(long)]
        wait: bool,
        /// Wait no longer than this; then the exit code is 1
        #[arg(long, value_name = "DUR", requires = "wait", value_parser = config::parse_timeout)]
        timeout: Option<Duration>,
    },
    /// Let a backend serve, as far as its health allows
    Ready {
        /// Which
        #[arg(value_name = "POOL/BACKEND")]
        backend: String,
    },
    /// Give a backend no new sessions and no checks; sessions that it has finish
    Maint {
        /// Which
        #[arg(value_name = "POOL/BACKEND")]
        backend: String,
    },
    /// Change a backend's share of new sessions
    Weight {
        /// Which
        #[arg(value_name = "POOL/BACKEND")]
        backend: String,
        /// 0..=256; 0 gives it none
        #[arg(value_name = "N", value_parser = weight())]
        weight: u16,
    },
    /// Say what a backend's health is, in place of its checks
    Health {
        /// Which
        #[arg(value_name = "POOL/BACKEND")]
        backend: String,
        /// auto: what its checks say
        #[arg(value_enum)]
        health: Word,
    },
    /// Cut a session, or all sessions of a backend
    #[command(group(clap::ArgGroup::new("whom").required(true)))]
    Kill {
        /// The session, as `l4lb ctl sessions` names it
        #[arg(value_name = "ID", group = "whom")]
        session: Option<String>,
        /// All sessions of this backend
        #[arg(long, value_name = "POOL/BACKEND", group = "whom")]
        backend: Option<String>,
    },
    /// Read the config file again and apply what has changed in it
    Reload {
        /// Only show what would change, and how many sessions that touches
        #[arg(long)]
        dry_run: bool,
    },
    /// Why a session went where it went, and why it ended
    #[command(group(clap::ArgGroup::new("what").required(true)))]
    Explain {
        /// The session, as `l4lb ctl sessions` and its log line name it
        #[arg(value_name = "ID", group = "what")]
        session: Option<String>,
        /// What the two letters mean that tell how a session ended
        #[arg(long, group = "what")]
        codes: bool,
    },
    /// Show what is logged, or log more or less until the process ends
    LogLevel {
        /// off, error, warn, info, debug or trace
        level: Option<String>,
    },
    /// Have /ready answer 503, or not any more, or show which: clients are sent elsewhere, and all that come are served
    ReadyFail {
        /// on or off
        #[arg(value_parser = ["on", "off"])]
        fail: Option<String>,
    },
    /// What is being drained, and how far it is
    Drains,
    /// The configuration that runs, every default filled in
    Config,
}

/// Which sessions are wanted.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub(super) struct SessionArgs {
    /// Those through this pool only
    #[arg(long)]
    pub(super) pool: Option<String>,
    /// Those on this backend only
    #[arg(long, value_name = "POOL/BACKEND", conflicts_with = "pool")]
    pub(super) backend: Option<String>,
    /// Those of this client address only
    #[arg(long, value_name = "IP")]
    pub(super) client: Option<std::net::IpAddr>,
    /// The latest that are over, of the last 1024 of each worker, the newest first
    #[arg(long, conflicts_with_all = ["from", "all"])]
    pub(super) ended: bool,
    /// Those that ended for this reason only
    #[arg(long, value_name = "REASON", requires = "ended", value_parser = reason(), hide_possible_values = true)]
    pub(super) reason: Option<String>,
    /// Those that ended within this time only
    #[arg(long, value_name = "DUR", requires = "ended", value_parser = config::parse_duration)]
    pub(super) since: Option<Duration>,
    /// Rows on a page, 1..=1000 [default: 100]
    #[arg(short = 'n', long, value_name = "N", value_parser = page_len())]
    pub(super) limit: Option<u32>,
    /// Go on where the page before says so
    #[arg(long, value_name = "PLACE")]
    pub(super) from: Option<String>,
    /// All pages; as JSON one page a line
    #[arg(long)]
    pub(super) all: bool,
}

/// What may be said of a backend's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Word {
    /// It is up, whatever its checks say
    Up,
    /// It is down, whatever its checks say
    Down,
    /// It is what its checks say
    Auto,
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

fn reason() -> clap::builder::PossibleValuesParser {
    CloseReason::ALL.map(CloseReason::as_str).into()
}

fn page_len() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(api::PAGE_LEN_MAX))
}
