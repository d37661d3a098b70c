//! A backend as a key of etcd, under a lease: for all balancers that follow the prefix.
//!
//! The key is put unless it is there. The new process of a restart takes it from the old one, so that the end of the old
//! one's lease does not end it. A key that stays without a lease is not taken, and neither is one with another address:
//! that is another backend.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::keeper::{Keeper, Outcome, RetryVerdict};
use crate::base::address::Address;
use crate::base::rng::Rng;
use crate::config::cluster::{Cluster, Endpoint, check_prefix, check_user, is_over_tls, parse_endpoint};
use crate::config::ranges::ENDPOINTS_MAX;
use crate::config::server_tls::ServerTls;
use crate::config::{self, Invalid, check_name, parse_backend};
use crate::ctl::Failure;
use crate::etcd::client::Client;
use crate::etcd::lease::KeptLease;
use crate::etcd::request::EtcdError;
use crate::sys::INPUTS;
use crate::tls::{self, Verify};

/// Limit for the requests that end it: a member that is silent and one that answers.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(8);

/// Where keys are put, and by which user.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of --etcd")]
pub(super) struct EtcdArgs {
    /// Register in etcd, for all balancers that follow it: its members, as IP:PORT, or https://IP:PORT for TLS
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', value_parser = parse_endpoint,
        conflicts_with_all = ["socket", "admin_address", "token_file"])]
    pub(super) etcd: Vec<Endpoint>,
    /// What its key begins with, as in the source of the pool [default: /l4lb/POOL/]
    #[arg(long, requires = "etcd", conflicts_with = "pool", value_parser = parse_prefix)]
    pub(super) prefix: Option<String>,
    /// Authorities to trust over TLS, in PEM [default: those of this system]
    #[arg(long, value_name = "FILE", requires = "etcd")]
    pub(super) ca_file: Option<PathBuf>,
    /// User to sign in as, where authentication is enabled
    #[arg(long, requires_all = ["etcd", "password_file"], value_parser = parse_user)]
    pub(super) user: Option<String>,
    /// File with the password in its first line; read for each sign-in
    #[arg(long, value_name = "FILE", requires = "user")]
    pub(super) password_file: Option<PathBuf>,
}

fn parse_prefix(text: &str) -> Result<String, Invalid> {
    check_prefix(text).map(|()| text.to_owned())
}

fn parse_user(text: &str) -> Result<String, Invalid> {
    check_user(text).map(|()| text.to_owned())
}

/// What is put.
pub(super) struct Backend<'a> {
    pub(super) name: &'a str,
    pub(super) address: &'a config::Target,
    pub(super) weight: Option<u16>,
    pub(super) priority: Option<u16>,
    pub(super) backup: bool,
}

/// Sends the requests.
pub(super) struct Registrar {
    runtime: Runtime,
    kept: Kept,
    patience: Duration,
}

/// A key that is kept.
struct Kept {
    client: Client,
    key: String,
    name: String,
    value: String,
    address: Address,
    /// A key without a lease is taken over.
    replace: bool,
    lease: KeptLease,
    /// The key was ours, so another one with the same address belongs to a newer process.
    was_put: bool,
}

impl Registrar {
    /// Fails when the flags are contradictory.
    pub(super) fn new(
        args: EtcdArgs,
        pool: Option<&str>,
        backend: &Backend<'_>,
        [ttl, patience]: [Duration; 2],
        replace: bool,
        rng: &mut Rng,
    ) -> Result<Self, Failure> {
        let EtcdArgs { etcd, prefix, ca_file, user, password_file } = args;
        let Backend { name, address, weight, priority, backup } = *backend;
        let tls = tls(&etcd, ca_file)?;
        let endpoints = distinct(etcd.iter().map(|member| member.address).collect())?;
        let config::Target::Address(dialed) = address else {
            return Err(usage(
                "--address",
                format_args!("{address}: with --etcd it must be an IP with a port"),
            ));
        };
        check_name(name).map_err(|Invalid(what)| usage("--name", what))?;
        let prefix = match (prefix, pool) {
            (Some(prefix), _) => prefix,
            (None, pool) => {
                let pool = pool.unwrap_or_default();
                check_name(pool).map_err(|Invalid(what)| usage("--pool", what))?;
                format!("/l4lb/{pool}/")
            }
        };
        let mut value = json!({"address": dialed.to_string()});
        if let Some(weight) = weight {
            value["weight"] = weight.into();
        }
        if let Some(priority) = priority {
            value["priority"] = priority.into();
        }
        if backup {
            value["backup"] = true.into();
        }
        // As balancers read it.
        parse_backend(value.to_string().as_bytes(), name)
            .map_err(|mistake| usage("--backup", mistake.what))?;
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        let kept = Kept {
            client: Client::new(Cluster { endpoints, tls, login: user.zip(password_file) }, rng),
            key: format!("{prefix}{name}"),
            name: name.to_owned(),
            value: value.to_string(),
            address: dialed.clone(),
            replace,
            lease: KeptLease::new(ttl),
            was_put: false,
        };
        Ok(Self {
            runtime: runtime.map_err(|error| Failure::Failed(format!("cannot start: {error}")))?,
            kept,
            patience,
        })
    }

    /// Returns the key, which is what the backend is called here.
    pub(super) fn key(&self) -> &str {
        &self.kept.key
    }

    pub(super) fn renew(&mut self) -> Outcome {
        let (kept, patience) = (&mut self.kept, self.patience);
        match self.runtime.block_on(async { timeout(patience, kept.keep()).await }) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                let retry_verdict =
                    if error.is_final() { RetryVerdict::Hopeless } else { RetryVerdict::Open };
                Outcome::Failed { error: error.to_string(), retry_verdict }
            }
            Err(_) => {
                let member = self.kept.client.member();
                self.kept.client.next_member();
                let error = format!("{member}: it took longer than {patience:?}");
                Outcome::Failed { error, retry_verdict: RetryVerdict::Open }
            }
        }
    }

    /// Ends the lease, and with it the key if that is ours still.
    pub(super) fn leave(&mut self, keeper: &Keeper) {
        let Kept { client, key, lease, .. } = &mut self.kept;
        if lease.id().is_none() {
            return;
        }
        let (backend, key) = (&keeper.name, key.as_bytes());
        let left = self.runtime.block_on(async {
            let left = async {
                lease.end(client).await?;
                client.holding(key).await
            };
            timeout(LEAVE_TIMEOUT, left).await
        });
        let error = match left {
            Ok(Ok(holding)) => {
                match (keeper.is_ours, holding) {
                    (true, None) => log::info!(backend; "removed"),
                    (true, Some(_)) => log::info!(backend; "left: another holder keeps it registered"),
                    (false, _) => {}
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it took longer than {LEAVE_TIMEOUT:?}"),
        };
        log::warn!(backend, error; "cannot remove it: its lease ends by itself");
    }
}

impl Kept {
    /// Renews the lease, or begins one, and puts the key unless it is there.
    async fn keep(&mut self) -> Result<Outcome, EtcdError> {
        let lease = self.lease.keep(&mut self.client).await?;
        let (key, value) = (self.key.as_bytes(), self.value.as_bytes());
        let Some(there) = self.client.create(key, value, lease).await? else {
            self.was_put = true;
            return Ok(Outcome::Created);
        };
        if there.lease == lease {
            self.was_put = true;
            return Ok(Outcome::Renewed);
        }
        if there.lease == 0 && (self.was_put || !self.replace) {
            return Ok(taken(
                "it is there to stay until it is removed: a lease in its place has to be asked for (--replace)",
            ));
        }
        let backend = parse_backend(&there.value, &self.name);
        if there.lease != 0 && !backend.is_ok_and(|backend| backend.address == self.address) {
            return Ok(taken("it has another address, under a lease of another process"));
        }
        if there.lease != 0 && self.was_put && self.lease.ended() != Some(there.lease) {
            return Ok(Outcome::Renewed);
        }
        if self.client.replace(key, value, lease, there.mod_revision).await? {
            self.was_put = true;
            return Ok(Outcome::Created);
        }
        Ok(Outcome::Failed { error: "it changes".into(), retry_verdict: RetryVerdict::Open })
    }
}

fn taken(why: &str) -> Outcome {
    Outcome::Failed { error: why.to_owned(), retry_verdict: RetryVerdict::Taken }
}

fn usage(flag: &str, what: impl Display) -> Failure {
    Failure::Usage(format!("{flag}: {what}"))
}

/// Returns how the members are spoken to over TLS, if they are.
fn tls(members: &[Endpoint], ca_file: Option<PathBuf>) -> Result<Option<ServerTls>, Failure> {
    let over_tls = is_over_tls(members, ca_file.is_some());
    if !over_tls.map_err(|Invalid(what)| usage("--etcd", what))? {
        return Ok(None);
    }
    let authorities = (INPUTS.authorities)(ca_file.as_deref()).map_err(|what| {
        let file = ca_file.as_ref().map(|file| format!("{}: ", file.display())).unwrap_or_default();
        Failure::Failed(format!("--ca-file: {file}{what}"))
    })?;
    let client = tls::Client::new(authorities, Verify::Full, &[]);
    Ok(Some(ServerTls { server_name: None, ca_file, client }))
}

/// Returns the members, each once.
fn distinct(all: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Failure> {
    if all.len() > ENDPOINTS_MAX {
        return Err(usage("--etcd", format_args!("must be 1..={ENDPOINTS_MAX} members, got {}", all.len())));
    }
    let twice = all.iter().enumerate().find(|(n, member)| all[..*n].contains(member));
    match twice {
        Some((_, member)) => Err(usage("--etcd", format_args!("{member} is there twice"))),
        None => Ok(all),
    }
}
