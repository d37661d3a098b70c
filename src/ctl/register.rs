//! `l4lb register`: keeps a backend in its pool for as long as it runs.
//!
//! [`Keeper`] decides what is logged and when to try again, without I/O; [`register`] asks. One log line per change,
//! none per renewal.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use clap::Args;

use crate::api;
use crate::base::address::Address;
use crate::config::units::{parse_duration, show_duration};
use crate::config::{self, Invalid};
use crate::ctl::target::At;
use crate::ctl::{Client, ClientError, Failure, NOTHING, args, not_saved, routes};
use crate::sys::{look_up, unique_name};

/// Renewals per lease time: two may be lost, since each waits half that long for its answer.
const RENEWALS: u32 = 3;
/// Pause before the first retry; doubles with each.
const RETRY_MIN: Duration = Duration::from_millis(250);
/// Longest pause between retries, and between checks of a port that does not answer.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Limit for the backend's own port to accept a connection.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  l4lb register --pool web --address :8081
  l4lb register --pool web --address 10.0.0.3:80 --name blue --weight 3 --ttl 30s --check

Registers with a lease and renews it three times in its length. When this process dies, the lease
ends, and l4lb drains and removes the backend. TERM and INT remove it at once, unless another
process keeps it registered too: start the new one of a restart before the old one ends. A backend
that is registered again while it drains keeps its sessions.
While l4lb is down or restarts, registration is retried.
Exit codes: 0 ended by a signal, 1 refused, 2 wrong flags.";

/// The backend to keep registered, and where.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RegisterArgs {
    /// Pool to register with
    #[arg(long)]
    pool: String,
    /// Address for l4lb to dial, IP or host with port; ":8081" is 127.0.0.1:8081
    #[arg(long, value_name = "ADDR", value_parser = config::Target::parse)]
    address: config::Target,
    /// Its name in the pool [default: the address]
    #[arg(long)]
    name: Option<String>,
    /// Share of new sessions, 0..=256 [default: 1]
    #[arg(long, value_name = "N", value_parser = args::weight())]
    weight: Option<u16>,
    /// Its tier, 0..=15: serves only while no backend of a lower number is eligible [default: 0]
    #[arg(long, value_name = "N", value_parser = args::priority())]
    priority: Option<u16>,
    /// Same as --priority 15
    #[arg(long)]
    backup: bool,
    /// Time until removal unless renewed, 1s..=24h
    #[arg(long, value_name = "DUR", default_value = "10s", value_parser = parse_ttl)]
    ttl: Duration,
    /// Renew only while its port accepts a connection
    #[arg(long)]
    check: bool,
    /// Take over a permanent backend, such as one of `l4lb ctl add`
    #[arg(long)]
    replace: bool,
    /// Unix socket of the admin API
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Address of the admin API over TCP; needs --token-file
    #[arg(long, value_name = "ADDR")]
    admin_address: Option<SocketAddr>,
    /// File with the token to present over TCP
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

fn parse_ttl(text: &str) -> Result<Duration, Invalid> {
    let ttl = parse_duration(text)?;
    let (min, max) = (show_duration(*api::TTL.start()), show_duration(*api::TTL.end()));
    if api::TTL.contains(&ttl) {
        Ok(ttl)
    } else {
        Err(Invalid(format!("must be {min}..={max}, got {text:?}")))
    }
}

/// Registers the backend and keeps it registered until `stop` receives a message; then removes it from its pool.
pub(crate) fn register(args: RegisterArgs, stop: &Receiver<()>) -> Result<(), Failure> {
    let RegisterArgs { pool, address, name, weight, priority, backup, ttl, check, replace, .. } = args;
    let RegisterArgs { socket, admin_address, token_file, .. } = args;
    let local = if check { Some(resolve(&address)?) } else { None };
    let name = name.unwrap_or_else(|| address.to_string());
    let at = At { socket, address: admin_address, address_flag: "--admin-address", token_file };
    let holder = unique_name();
    let own_path = routes::query(&routes::backend(&pool, &name), &[("holder", Some(holder.clone()))]);
    let mut registrar = Registrar {
        client: at.client()?.with_patience(ttl / RENEWALS / 2),
        path: routes::path(&["pools", &pool, "backends"]),
        own_path,
        new: api::NewBackend {
            address: address.to_string(),
            name: Some(name.clone()),
            weight,
            priority,
            backup: backup.then_some(true),
            ttl: Some(show_duration(ttl)),
            holder: None,
            // The same in each request: a lost answer leaves no second holder behind.
            new_holder: Some(holder),
            replace,
        },
        local,
    };
    let mut keeper = Keeper::new(format!("{pool}/{name}"), ttl);
    loop {
        let pause = keeper.on(registrar.renew())?;
        // Only once: a permanent registration made later must stay.
        registrar.new.replace &= !keeper.was_registered;
        match stop.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    registrar.leave(&keeper);
    Ok(())
}

fn resolve(address: &config::Target) -> Result<Address, Failure> {
    let resolved = address.resolve(&mut look_up);
    resolved.map_err(|Invalid(what)| Failure::Failed(format!("--address {address}: {what}")))
}

/// Sends the requests for the backend.
struct Registrar {
    client: Client,
    path: String,
    own_path: String,
    new: api::NewBackend,
    /// The port to check before each renewal.
    local: Option<Address>,
}

impl Registrar {
    fn renew(&self) -> Outcome {
        if let Some(local) = &self.local
            && let Err(error) = look_at(local)
        {
            return Outcome::PortClosed(format!("{local}: {error}"));
        }
        match self.client.answer(Method::POST, &self.path, Some(&self.new)) {
            Ok(answer) if answer.status == StatusCode::CREATED => {
                if let Some(reason) = not_saved(&answer.body) {
                    log::warn!(reason; "registered but not saved: lost when l4lb ends");
                }
                Outcome::Created
            }
            Ok(_) => Outcome::Renewed,
            Err(error) => Outcome::Failed { retry_verdict: retry_verdict(&error), error: error.to_string() },
        }
    }

    /// Removes the backend if it is ours.
    fn leave(&self, keeper: &Keeper) {
        let backend = &keeper.name;
        if !keeper.is_ours {
            return;
        }
        let removed: Result<api::Removed, ClientError> =
            self.client.ask(Method::DELETE, &self.own_path, NOTHING);
        match removed {
            Ok(api::Removed { sessions, removed: true, .. }) => log::info!(backend, sessions; "removed"),
            Ok(api::Removed { sessions, removed: false, .. }) => {
                log::info!(backend, sessions; "left: another holder keeps it registered");
            }
            Err(error) => {
                log::warn!(backend, error:%; "cannot remove it: its lease ends by itself");
            }
        }
    }
}

fn look_at(local: &Address) -> io::Result<()> {
    let Address::Ip(local) = local;
    let stream = TcpStream::connect_timeout(local, CHECK_TIMEOUT)?;
    // When nothing listens there, the kernel may choose the port itself as source and connect the socket to itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(())
}

fn retry_verdict(error: &ClientError) -> RetryVerdict {
    match error {
        ClientError::Refused { status: StatusCode::CONFLICT, .. } => RetryVerdict::Taken,
        ClientError::Refused { status, .. } if status.is_client_error() => RetryVerdict::Hopeless,
        ClientError::Refused { .. } | ClientError::Unreachable { .. } | ClientError::Broken { .. } => {
            RetryVerdict::Open
        }
    }
}

/// The prospects of another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RetryVerdict {
    Open,
    /// Another holder has the name or the address, perhaps with a lease that will end.
    Taken,
    /// It would fail in the same way.
    Hopeless,
}

/// The result of one try.
#[derive(Clone, Debug)]
enum Outcome {
    Created,
    /// It existed, and its lease was renewed.
    Renewed,
    /// It was refused, or l4lb could not be reached.
    Failed {
        error: String,
        retry_verdict: RetryVerdict,
    },
    /// No request was sent, because the backend's own port does not answer.
    PortClosed(String),
}

/// The state of the registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Registered,
    Failing {
        tries: u32,
    },
    /// Its port does not answer.
    PortClosed,
}

/// The progress of the registration.
struct Keeper {
    /// As POOL/BACKEND.
    name: String,
    ttl: Duration,
    state: State,
    /// It was registered once, so its parameters are valid.
    was_registered: bool,
    /// The backend in the pool is this one, so it must be removed at the end.
    is_ours: bool,
}

impl Keeper {
    fn new(name: String, ttl: Duration) -> Self {
        Self { name, ttl, state: State::New, was_registered: false, is_ours: false }
    }

    /// Logs changes; returns the time until the next try. Fails when there must be none.
    fn on(&mut self, outcome: Outcome) -> Result<Duration, Failure> {
        let renewal = self.ttl / RENEWALS;
        let (backend, ttl) = (&self.name, show_duration(self.ttl));
        match outcome {
            Outcome::Created | Outcome::Renewed => self.is_ours = true,
            Outcome::Failed { retry_verdict: RetryVerdict::Taken, .. } => self.is_ours = false,
            Outcome::Failed { .. } | Outcome::PortClosed(_) => {}
        }
        let (state, pause) = match (self.state, outcome) {
            // At the start that is the user's mistake. Later, a change at the other end may be reverted.
            (_, Outcome::Failed { error, retry_verdict: RetryVerdict::Hopeless }) if !self.was_registered => {
                return Err(Failure::Failed(error));
            }
            (State::Registered, Outcome::Renewed) => (State::Registered, renewal),
            (State::Registered, Outcome::Created) => {
                log::warn!(backend, ttl; "registered again: l4lb had lost it");
                (State::Registered, renewal)
            }
            (State::New | State::Failing { .. } | State::PortClosed, Outcome::Created | Outcome::Renewed) => {
                log::info!(backend, ttl; "registered");
                (State::Registered, renewal)
            }
            (State::Failing { tries }, Outcome::Failed { .. }) => {
                let tries = tries.saturating_add(1);
                (State::Failing { tries }, retry_pause(tries, renewal))
            }
            (State::New | State::Registered | State::PortClosed, Outcome::Failed { error, .. }) => {
                log::warn!(backend, error; "cannot register: retrying");
                (State::Failing { tries: 0 }, retry_pause(0, renewal))
            }
            (State::PortClosed, Outcome::PortClosed(_)) => (State::PortClosed, renewal.min(RETRY_MAX)),
            (State::New | State::Registered | State::Failing { .. }, Outcome::PortClosed(error)) => {
                log::warn!(backend, error; "its port does not answer: not renewed until it does");
                (State::PortClosed, renewal.min(RETRY_MAX))
            }
        };
        self.was_registered |= state == State::Registered;
        self.state = state;
        Ok(pause)
    }
}

/// Returns a pause that doubles with each try and is never longer than the time between renewals.
fn retry_pause(tries: u32, renewal: Duration) -> Duration {
    let doubled = RETRY_MIN.saturating_mul(1 << tries.min(16));
    doubled.min(RETRY_MAX).min(renewal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeper() -> Keeper {
        Keeper::new("web/a".into(), Duration::from_secs(9))
    }

    fn failed(retry_verdict: RetryVerdict) -> Outcome {
        Outcome::Failed { error: "no".into(), retry_verdict }
    }

    #[test]
    fn a_lease_is_renewed_three_times_in_its_length() {
        let mut keeper = keeper();
        for outcome in [Outcome::Created, Outcome::Renewed, Outcome::Created] {
            assert_eq!(keeper.on(outcome).unwrap(), Duration::from_secs(3));
            assert_eq!(keeper.state, State::Registered);
        }
    }

    #[test]
    fn failures_are_retried_less_and_less_often_but_at_least_as_often_as_renewals() {
        let mut keeper = keeper();
        keeper.on(Outcome::Created).unwrap();
        let pauses: Vec<u128> =
            (0..6).map(|_| keeper.on(failed(RetryVerdict::Open)).unwrap().as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 3_000, 3_000]);
        assert_eq!(keeper.on(Outcome::Renewed).unwrap(), Duration::from_secs(3));
        assert_eq!(keeper.on(failed(RetryVerdict::Open)).unwrap(), RETRY_MIN);
        assert_eq!(retry_pause(u32::MAX, Duration::MAX), RETRY_MAX);
    }

    #[test]
    fn a_mistake_ends_it_at_the_start_only() {
        assert!(keeper().on(failed(RetryVerdict::Hopeless)).is_err());
        let mut waiting = keeper();
        waiting.on(failed(RetryVerdict::Open)).unwrap();
        assert!(waiting.on(failed(RetryVerdict::Hopeless)).is_err());
        let mut registered = keeper();
        registered.on(Outcome::Created).unwrap();
        assert!(registered.on(failed(RetryVerdict::Hopeless)).is_ok());
    }

    #[test]
    fn a_port_that_does_not_answer_is_not_renewed_until_it_does() {
        let mut keeper = keeper();
        keeper.on(Outcome::PortClosed("refused".into())).unwrap();
        assert!(!keeper.is_ours);
        keeper.on(Outcome::Created).unwrap();
        keeper.on(Outcome::PortClosed("refused".into())).unwrap();
        assert_eq!((keeper.state, keeper.is_ours), (State::PortClosed, true));
    }

    #[test]
    fn a_backend_of_another_holder_is_not_removed() {
        let mut keeper = keeper();
        keeper.on(Outcome::Created).unwrap();
        keeper.on(failed(RetryVerdict::Open)).unwrap();
        assert!(keeper.is_ours, "the backend counts as ours");
        keeper.on(failed(RetryVerdict::Taken)).unwrap();
        assert!(!keeper.is_ours);
        keeper.on(Outcome::PortClosed("refused".into())).unwrap();
        assert!(!keeper.is_ours);
        keeper.on(Outcome::Created).unwrap();
        assert!(keeper.is_ours, "their lease has ended");
    }

    #[test]
    fn only_a_request_that_can_never_succeed_is_hopeless() {
        let refused = |status| ClientError::Refused { status, error: "no".into() };
        for (status, expected) in [
            (StatusCode::BAD_REQUEST, RetryVerdict::Hopeless),
            (StatusCode::NOT_FOUND, RetryVerdict::Hopeless),
            (StatusCode::UNAUTHORIZED, RetryVerdict::Hopeless),
            (StatusCode::CONFLICT, RetryVerdict::Taken),
            (StatusCode::SERVICE_UNAVAILABLE, RetryVerdict::Open),
        ] {
            assert_eq!(retry_verdict(&refused(status)), expected, "{status}");
        }
    }
}
