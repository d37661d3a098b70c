//! The values that flags add to the file or override.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use log::LevelFilter;

use super::address::Target;
use super::admin_socket::check_socket;
use super::error::Invalid;
use super::model::AdminSocket;
use super::ranges::{SESSIONS_MAX, TIMEOUT, WEIGHT_MAX, WORKERS_MAX};
use super::units::{parse_duration, show_duration};
use crate::balance::Algorithm;

/// The values that flags add to the file or override; the default changes nothing. The only way to a listener on port
/// 0, for tests: neither file nor flags accept it.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Listeners of the only pool.
    pub listen: Vec<SocketAddr>,
    /// Backends of the only pool.
    pub backends: Vec<BackendFlag>,
    /// `--balance`, which applies to every pool.
    pub balance: Option<Algorithm>,
    /// `--workers`, in place of `global.workers`.
    pub workers: Option<NonZeroUsize>,
    /// `interval` of the checks of every pool.
    pub health_interval: Option<Duration>,
    /// `connect` of every pool and listener.
    pub connect_timeout: Option<Duration>,
    /// `idle` of every pool and listener.
    pub idle_timeout: Option<Duration>,
    /// `--max-sessions`, in place of `global.max_sessions`.
    pub max_sessions: Option<NonZeroUsize>,
    /// `socket` of the admin API.
    pub admin_socket: Option<AdminSocket>,
    /// `metrics` of the admin API.
    pub metrics: Option<SocketAddr>,
    /// The level of `-q` and `-v`, in place of `log.level`.
    pub log_level: Option<LevelFilter>,
}

/// The value of `--backend`: `ADDR` or `ADDR,weight=N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendFlag {
    /// The address or the host and port to dial.
    pub target: Target,
    /// Share of new sessions, 0..=256.
    pub weight: u16,
}

impl BackendFlag {
    /// Returns the backends of the tutorial: 127.0.0.1:8081, 8082 and 8083.
    pub fn tutorial() -> Vec<Self> {
        let backend = |port| Self { target: Target::Address(([127, 0, 0, 1], port).into()), weight: 1 };
        [8081, 8082, 8083].map(backend).into()
    }
}

impl fmt::Display for BackendFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.weight {
            1 => self.target.fmt(f),
            weight => write!(f, "{},weight={weight}", self.target),
        }
    }
}

impl FromStr for BackendFlag {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (address, option) = text.split_once(',').map_or((text, None), |(a, o)| (a, Some(o)));
        let target = Target::parse(address)?;
        let Some(option) = option else { return Ok(Self { target, weight: 1 }) };
        let Some(weight) = option.strip_prefix("weight=") else {
            return Err(Invalid(format!("after the address comes weight=N or nothing, got {option:?}")));
        };
        let weight =
            whole(weight, 0, WEIGHT_MAX.into()).map_err(|Invalid(what)| Invalid(format!("weight {what}")));
        let weight = u16::try_from(weight?).unwrap_or(WEIGHT_MAX);
        Ok(Self { target, weight })
    }
}

/// Parses the value of `--workers`: a number, or `auto` for one worker per processor that this process may use.
pub fn parse_workers(text: &str) -> Result<NonZeroUsize, Invalid> {
    if text == "auto" {
        return Ok(workers_auto());
    }
    count(text, WORKERS_MAX).map_err(|Invalid(what)| Invalid(what.replace("must be", "must be auto or")))
}

/// Parses the value of `--max-sessions`.
pub fn parse_sessions(text: &str) -> Result<NonZeroUsize, Invalid> {
    count(text, SESSIONS_MAX)
}

/// Parses the value of `--admin`: a path, or `off`.
pub fn parse_admin_socket(text: &str) -> Result<AdminSocket, Invalid> {
    if text == "off" {
        return Ok(AdminSocket::Off);
    }
    check_socket(Path::new(text))?;
    Ok(AdminSocket::At(text.into()))
}

/// Parses the value of a flag that is a timeout or an interval.
pub fn parse_timeout(text: &str) -> Result<Duration, Invalid> {
    let duration = parse_duration(text)?;
    if TIMEOUT.contains(&duration) {
        return Ok(duration);
    }
    let (min, max) = (show_duration(*TIMEOUT.start()), show_duration(*TIMEOUT.end()));
    Err(Invalid(format!("must be {min}..={max}, got {text:?}")))
}

/// Returns one worker per processor that this process may use, by affinity and cgroup.
pub(super) fn workers_auto() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN).min(WORKERS_LIMIT)
}

const WORKERS_LIMIT: NonZeroUsize = NonZeroUsize::new(WORKERS_MAX).expect("at least one worker");

fn count(text: &str, max: usize) -> Result<NonZeroUsize, Invalid> {
    whole(text, 1, max).map(|number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN))
}

fn whole(text: &str, min: usize, max: usize) -> Result<usize, Invalid> {
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| Invalid(format!("must be {min}..={max}, got {text:?}")))
}
