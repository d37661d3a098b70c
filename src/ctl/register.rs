//! `l4lb register`: keeps a backend in its pool for as long as it runs.
//!
//! `keeper` decides what is logged and when to try again, without I/O; [`register`] asks one l4lb, or etcd for all of
//! them. One log line per change, none per renewal.

mod etcd;
mod keeper;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use clap::Args;

use crate::api;
use crate::base::address::Address;
use crate::base::retries::{RENEWALS, jittered};
use crate::base::rng::Rng;
use crate::config::units::{parse_duration, show_duration};
use crate::config::{self, Invalid};
use crate::ctl::target::At;
use crate::ctl::{Client, ClientError, Failure, NOTHING, args, not_saved, routes};
use crate::sys::{look_up, unique_name};

use keeper::{Keeper, Outcome, RetryVerdict};

/// Longest wait for one renewal: a signal is not looked at meanwhile, and systemd gives 90 s to end.
const PATIENCE_MAX: Duration = Duration::from_secs(20);
/// Limit for the backend's own port to accept a connection.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  l4lb register --pool web --address :8081
  l4lb register --pool web --address 10.0.0.3:80 --name blue --weight 3 --ttl 30s --check
  l4lb register --etcd 10.0.0.1:2379,10.0.0.2:2379 --pool web --address 10.0.0.3:80 --check

Registers with a lease and renews it three times in its length. When this process dies, the lease
ends, and l4lb drains and removes the backend. TERM and INT remove it at once, unless another
process keeps it registered too: start the new one of a restart before the old one ends. A backend
that is registered again while it drains keeps its sessions.
While l4lb is down or restarts, registration is retried.
With --etcd the backend is a key of etcd, for all balancers that follow its prefix.
Exit codes: 0 ended by a signal, 1 refused, 2 wrong flags.";

/// The backend to keep registered, and where.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RegisterArgs {
    /// Pool to register with
    #[arg(long, required_unless_present = "prefix")]
    pool: Option<String>,
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
    #[command(flatten)]
    etcd: etcd::EtcdArgs,
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
    let local = if args.check { Some(resolve(&args.address)?) } else { None };
    let (ttl, patience) = (args.ttl, (args.ttl / RENEWALS / 2).min(PATIENCE_MAX));
    let mut rng = Rng::new(RandomState::new().hash_one("register"));
    let (name, mut registrar) = registrar(args, patience, &mut rng)?;
    let lost = match registrar {
        Registrar::Admin(_) => "l4lb had lost it",
        Registrar::Etcd(_) => "etcd had lost it",
    };
    let mut keeper = Keeper::new(name, ttl, lost);
    loop {
        let outcome = match local.as_ref().map(look_at) {
            Some(Err(closed)) => Outcome::PortClosed(closed),
            Some(Ok(())) | None => registrar.renew(&keeper),
        };
        let pause = keeper.on(outcome)?;
        match stop.recv_timeout(jittered(pause, &mut rng)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    registrar.leave(&keeper);
    Ok(())
}

/// Returns the name of the backend in logs, and what registers it.
fn registrar(args: RegisterArgs, patience: Duration, rng: &mut Rng) -> Result<(String, Registrar), Failure> {
    let RegisterArgs { pool, address, name, weight, priority, backup, ttl, check: _, replace, .. } = args;
    let RegisterArgs { socket, admin_address, token_file, etcd, .. } = args;
    let name = name.unwrap_or_else(|| address.to_string());
    if !etcd.etcd.is_empty() {
        let backend = etcd::Backend { name: &name, address: &address, weight, priority, backup };
        let registrar = etcd::Registrar::new(etcd, pool.as_deref(), &backend, [ttl, patience], replace, rng)?;
        return Ok((registrar.key().to_owned(), Registrar::Etcd(registrar)));
    }
    let pool = pool.unwrap_or_default();
    let at = At { socket, address: admin_address, address_flag: "--admin-address", token_file };
    let holder = unique_name();
    let own_path = routes::query(&routes::backend(&pool, &name), &[("holder", Some(holder.clone()))]);
    let registrar = AdminRegistrar {
        client: at.client()?.with_patience(patience),
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
    };
    Ok((format!("{pool}/{name}"), Registrar::Admin(registrar)))
}

fn resolve(address: &config::Target) -> Result<Address, Failure> {
    let resolved = address.resolve(&mut look_up);
    resolved.map_err(|Invalid(what)| Failure::Failed(format!("--address {address}: {what}")))
}

/// Where the backend is registered.
enum Registrar {
    /// With one l4lb.
    Admin(AdminRegistrar),
    /// In etcd.
    Etcd(etcd::Registrar),
}

impl Registrar {
    fn renew(&mut self, keeper: &Keeper) -> Outcome {
        match self {
            Self::Admin(admin) => {
                // Only once: a permanent registration made later must stay.
                admin.new.replace &= !keeper.was_registered;
                admin.renew()
            }
            Self::Etcd(etcd) => etcd.renew(),
        }
    }

    fn leave(&mut self, keeper: &Keeper) {
        match self {
            Self::Admin(admin) => admin.leave(keeper),
            Self::Etcd(etcd) => etcd.leave(keeper),
        }
    }
}

/// Sends the requests to the admin API.
struct AdminRegistrar {
    client: Client,
    path: String,
    own_path: String,
    new: api::NewBackend,
}

impl AdminRegistrar {
    fn renew(&self) -> Outcome {
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

/// Fails, with a sentence, unless the port accepts a connection.
fn look_at(local: &Address) -> Result<(), String> {
    connect_to(local).map_err(|error| format!("{local}: {error}"))
}

fn connect_to(local: &Address) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
