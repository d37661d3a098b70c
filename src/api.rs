//! The JSON of the admin API: what its routes take and give, the same types for server, `l4lb ctl` and `l4lb top`.
//! Shapes only; `control::admin` has the routes and the OpenAPI document that these types end up in.
//!
//! Counts are totals since the start of the process, sizes are bytes, durations are seconds as a decimal number, points in time
//! are RFC 3339 text in UTC.

mod events;
mod reload;
mod topology;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

pub use events::{Event, EventFilter, EventKind};
pub use reload::{
    Change, Config, RELOAD_ANSWER_MAX, ReadyFail, ReadyFilter, Reload, ReloadReport, RestartPending,
};
pub use topology::{PoolShares, Share, Topology};

/// Rows on one page, unless the request asks for fewer.
pub const PAGE_LEN: u32 = 100;
/// Rows on one page at most.
pub const PAGE_LEN_MAX: u32 = 1_000;

/// How long a lease may be.
pub const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// In words: what was wrong, and where.
    pub error: String,
}

/// How the process does.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Of the process.
    pub pid: u32,
    /// When the process began to serve.
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
    /// Seconds since then.
    pub uptime: f64,
    /// What the process does.
    pub stage: Stage,
    /// In words: why no clients should be sent here; `null` while it is ready.
    #[serde(default)]
    pub not_ready: Option<String>,
    /// Counts the snapshots that were published.
    pub epoch: u64,
    /// What each worker has done, by index.
    pub workers: Vec<Worker>,
    /// All sessions together.
    pub totals: Totals,
    /// Reloads so far.
    pub reload: Reload,
    /// Keys that were read and do not run, because that takes a restart.
    #[serde(default)]
    pub restart_pending: Option<RestartPending>,
    /// Log lines that were dropped because their sink did not keep up.
    pub log_lines_dropped: u64,
    /// Writes of the state file that have failed, each of which was or is tried again.
    pub state_file_failures: u64,
    /// Set while what is changed is not saved.
    #[serde(default)]
    pub not_saved: Option<NotSaved>,
}

/// The state file cannot be written: what is changed ends with the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotSaved {
    /// Since then.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Why the last try has failed.
    pub reason: String,
}

/// What the process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Accepts and serves.
    Serving,
    /// Finishes what runs, accepts nothing new.
    Draining,
    /// Cuts what is left.
    Stopping,
}

/// One worker's part of the work.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Which.
    pub worker: u32,
    /// Sessions that it has.
    pub sessions: u64,
    /// Connections taken from accept queues.
    pub accepted: u64,
    /// Those of them that another worker was given.
    pub handed_over: u64,
    /// Sessions that other workers have accepted.
    pub adopted: u64,
    /// Bytes given to backends.
    pub to_backend: u64,
    /// Bytes given to clients.
    pub to_client: u64,
    /// Times that accepting was paused.
    pub accept_pauses: u64,
}

/// All sessions of the process together.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// Sessions that are not over.
    pub sessions: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Sessions over, by reason; reasons that never occurred are left out.
    pub closed: std::collections::BTreeMap<String, u64>,
    /// Bytes given to backends.
    pub to_backend: u64,
    /// Bytes given to clients.
    pub to_client: u64,
    /// Dials begun.
    pub dials: u64,
    /// Dials that failed.
    pub dial_failures: u64,
}

/// One address that clients connect to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// The pool that serves.
    pub pool: String,
    /// Sessions through it that are not over.
    pub sessions: u64,
    /// Most of them at a time, if limited.
    pub max_sessions: Option<u64>,
}

/// A set of backends.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// How a backend is picked.
    pub balance: String,
    /// How many backends it has.
    pub backends: u64,
    /// How many of them may have new sessions now.
    pub eligible: u64,
    /// Sessions on its backends that are not over.
    pub sessions: u64,
}

/// One server of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backend {
    /// The pool that it belongs to.
    pub pool: String,
    /// Unique within the pool.
    pub name: String,
    /// Where it is dialed.
    pub address: String,
    /// Share of new sessions, 0..=256.
    pub weight: u16,
    /// Serves only when no other backend is eligible.
    pub backup: bool,
    /// What an operator lets it do.
    pub admin: Admin,
    /// Who has set `admin` at run time; `null` where nobody has since the process began.
    #[serde(default)]
    pub admin_by: Option<String>,
    /// When that was.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub admin_since: Option<Timestamp>,
    /// What its checks say, or the operator in their place.
    pub health: Health,
    /// Whether an operator has set `health`, so that checks do not change it.
    pub health_override: bool,
    /// In words: the last check that has changed what the checks say.
    pub health_reason: Option<String>,
    /// When `health` last changed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub health_since: Option<Timestamp>,
    /// Whether it may have new sessions now.
    pub eligible: bool,
    /// Sessions on it that are not over, dialing ones included.
    pub sessions: u64,
    /// Sessions that it was ever chosen for.
    pub sessions_total: u64,
    /// Dials that failed for a reason of its own.
    pub dial_failures: u64,
    /// Bytes given to it.
    pub to_backend: u64,
    /// Bytes taken from it and given to clients.
    pub to_client: u64,
    /// Who brought it in.
    pub source: Source,
    /// Seconds until its lease ends unless it is renewed; `null` without a lease.
    pub lease_left: Option<f64>,
}

impl Backend {
    /// Who keeps it out of service, and since when: `drained by uid 0 since 2026-01-02T03:04:05Z`. None where nobody has said
    /// so since the process began.
    pub fn kept_out(&self) -> Option<String> {
        let what = match self.admin {
            Admin::Ready => return None,
            Admin::Drain => "drained",
            Admin::Maint => "in maintenance",
        };
        let (who, since) = self.admin_by.as_ref().zip(self.admin_since)?;
        Some(format!("{what} by {who} since {since:.0}"))
    }
}

/// What an operator lets a backend do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Admin {
    /// It serves, as far as its health allows.
    Ready,
    /// No new sessions; those that run finish, checks go on.
    Drain,
    /// No new sessions; those that run finish, checks pause.
    Maint,
}

/// What is known of a backend's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Not known yet; serves.
    Unknown,
    /// Serves.
    Up,
    /// Gets no new sessions.
    Down,
}

/// Who brought a backend in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The config file or a flag.
    Config,
    /// A request to this API.
    Api,
}

/// A backend to be registered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBackend {
    /// IP or host with port; ":8081" is 127.0.0.1:8081. A host is resolved once.
    #[schema(example = "127.0.0.1:8081", pattern = r"^(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]*):[0-9]+$")]
    pub address: String,
    /// Unique within the pool; the address when left out.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9._:\[\]-]+$")]
    pub name: Option<String>,
    /// Share of new sessions, 0..=256; 1 when left out.
    #[schema(maximum = 256)]
    #[serde(default, deserialize_with = "whole")]
    pub weight: Option<u16>,
    /// Serve only when no other backend is eligible.
    #[serde(default)]
    pub backup: bool,
    /// A lease: the backend is drained and removed unless it is renewed within this time by the same request, or by that of
    /// another holder. A duration with a unit, "1s" to "24h". Left out, it stays until it is removed.
    #[schema(example = "10s", pattern = "^[0-9][0-9a-z.]*[a-z]$")]
    pub ttl: Option<String>,
    /// Renews the lease of this holder, which the answer to the first request has named: 404 if the backend is not there any
    /// more, 409 if the holder has no lease of it.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9._:\[\]-]+$")]
    #[serde(default)]
    pub holder: Option<String>,
    /// The lease is to be that of this holder, which has one or has none yet. A name of one's own choice is the same one
    /// when the answer to a first request was lost. Without either there is a new holder each time.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9._:\[\]-]+$")]
    #[serde(default)]
    pub new_holder: Option<String>,
    /// Gives a lease to a backend that was to stay, or lets one stay that others have leases of. Left out, both are refused.
    #[serde(default)]
    pub replace: bool,
}

/// A backend after a change of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// The backend.
    #[serde(flatten)]
    pub backend: Backend,
    /// Why the change is not in the state file, if it should be; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_saved: Option<String>,
}

/// A backend that was registered, and who holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Registered {
    /// The backend.
    #[serde(flatten)]
    pub backend: Backend,
    /// Whose lease it is: renewals and the deregistration name it. `null` without a lease.
    #[serde(default)]
    pub holder: Option<String>,
    /// Why that is not in the state file, if it should be; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_saved: Option<String>,
}

/// Whose lease ends.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct HolderFilter {
    /// The lease of this holder only: the backend is removed if it has no other. Left out, it is removed whoever has a lease.
    #[param(min_length = 1, max_length = 64)]
    pub holder: Option<String>,
}

/// A whole number as JSON means it, in which 7.0 is 7.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(from)? else { return Ok(None) };
    // Zero may come with a sign, which this takes off.
    let text = (number + 0.0).to_string();
    let wrong = |_| serde::de::Error::custom(format!("must be a whole number of 0..=65535, got {text}"));
    text.parse().map(Some).map_err(wrong)
}

/// What is to change on a backend; what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendChange {
    /// Share of new sessions, 0..=256.
    #[schema(maximum = 256)]
    #[serde(default, deserialize_with = "whole")]
    pub weight: Option<u16>,
    /// What it may do.
    pub admin: Option<Admin>,
}

/// The operator's word on a backend's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthOverride {
    /// What it is to be.
    pub health: OverrideTo,
}

/// What an operator may say of a backend's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverrideTo {
    /// Up, whatever its checks say.
    Up,
    /// Down, whatever its checks say.
    Down,
    /// What its checks say.
    Auto,
}

/// Whose backends are wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct BackendFilter {
    /// Those of this pool only.
    pub pool: Option<String>,
}

/// Which sessions are wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SessionFilter {
    /// Those through this pool only.
    pub pool: Option<String>,
    /// Those on this backend only.
    pub backend: Option<String>,
    /// Those of this client address only, IPv4 or IPv6 without port.
    #[param(format = "ipv4")]
    pub client: Option<String>,
    /// Rows wanted, 1..=1000 [default: 100]. A page may hold fewer though more follow.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[param(pattern = r"^[0-9]{1,9}\.[0-9]{1,9}$")]
    pub from: Option<String>,
    /// Those that are over in place of those that run: of the last 1,024 of each worker, the newest first, on one page.
    pub ended: Option<bool>,
    /// Of those that are over, those that ended for this reason only.
    pub reason: Option<String>,
    /// Of those that are over, those that ended within this time only, as `5m` or `1h30m`.
    pub since: Option<String>,
}

/// Some of the sessions. Those that run come and go while pages are read: one that was there all the time is on exactly one page.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionPage {
    /// The rows.
    pub sessions: Vec<Session>,
    /// `from` of the next page; `null` on the last.
    pub next: Option<String>,
    /// There are older ones that are over and did not fit.
    #[serde(default)]
    pub has_older: bool,
}

/// One client with one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Names it for the life of the process.
    #[schema(example = "0.12.3")]
    pub id: String,
    /// Through which listener it came.
    pub listener: String,
    /// The pool that serves it.
    pub pool: String,
    /// The backend that it is on; `null` while none is chosen.
    pub backend: Option<String>,
    /// Where that is dialed.
    #[serde(default)]
    pub backend_address: Option<String>,
    /// Where it came from.
    pub client: String,
    /// From where its backend was dialed. `null` while none is, and once it is over where its line was not logged.
    #[serde(default)]
    pub source: Option<String>,
    /// How far it is: dialing, open, half_closed or ending; ended once it is over.
    pub state: String,
    /// Seconds since it was accepted; once it is over, how long it lasted.
    pub age: f64,
    /// Seconds since a byte moved.
    pub idle: f64,
    /// Bytes given to the backend.
    pub to_backend: u64,
    /// Bytes given to the client.
    pub to_client: u64,
    /// Why it ended; `null` while it runs.
    #[serde(default)]
    pub reason: Option<String>,
    /// Seconds since it ended; `null` while it runs.
    #[serde(default)]
    pub ended_ago: Option<f64>,
}

/// What became of a request that concerns many sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Killed {
    /// Sessions that there were when they were told to end.
    pub sessions: u64,
}

/// A backend was removed, or one of its leases has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    /// Sessions that it has left.
    pub sessions: u64,
    /// False when other holders keep it in its pool.
    #[serde(default = "yes")]
    pub removed: bool,
    /// Why that is not in the state file, if it should be; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_saved: Option<String>,
}

const fn yes() -> bool {
    true
}

/// Why a session went where it went, and why it ended.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The session.
    pub session: Session,
    /// In words, in the order in which it happened.
    pub story: Vec<String>,
    /// The backends of the pool.
    pub candidates: Vec<Candidate>,
    /// Whether `candidates` are told as they were when the session chose. False when more has changed since than is kept: then as
    /// they are now.
    #[serde(default)]
    pub as_of_choice: bool,
    /// How it ended: two letters, see `l4lb ctl explain --codes`; `null` while it runs.
    pub end_code: Option<String>,
    /// The same in words.
    pub end: Option<String>,
}

/// A backend that a session could have gone to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    /// Its name.
    pub backend: String,
    /// Its weight.
    pub weight: u16,
    /// Whether the session went there.
    pub chosen: bool,
    /// Why it was passed over; `null` when it was eligible.
    pub skipped: Option<String>,
    /// What has become of it since; `null` when it is what it was.
    #[serde(default)]
    pub since: Option<String>,
}

/// What is being drained.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Drains {
    /// The process, from SIGTERM on.
    pub process: Option<Drain>,
    /// Backends that were removed or are in drain or maint, and have sessions left.
    pub backends: Vec<Drain>,
}

/// How far a drain is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Drain {
    /// Of the backend.
    pub pool: Option<String>,
    /// The backend.
    pub backend: Option<String>,
    /// Where it is dialed.
    pub address: Option<String>,
    /// Whether it is in its pool no more.
    pub removed: bool,
    /// Sessions left.
    pub sessions: u64,
    /// Sessions there were when it began.
    pub sessions_at_start: u64,
    /// Seconds since it began.
    pub age: f64,
    /// Seconds until what is left is cut; `null` when it is left to finish.
    pub deadline: Option<f64>,
    /// Seconds until the last session has gone, if they go on going as they have gone so far; `null` when none has gone yet.
    pub eta: Option<f64>,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLevel {
    /// off, error, warn, info, debug or trace.
    #[schema(example = "info", pattern = "^(off|error|warn|info|debug|trace)$")]
    pub level: String,
}

/// What a page or `l4lb top` shows, once a second: totals to take differences of.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The stage of the process.
    pub stage: Stage,
    /// The epoch.
    pub epoch: u64,
    /// All sessions together.
    pub totals: Totals,
    /// Pool by pool.
    pub pools: Vec<Pool>,
    /// Backend by backend, of at most 1,000 backends.
    pub backends: Vec<Backend>,
    /// Time to connect to backends, of the last second.
    pub connect: Latency,
    /// How long sessions that ended in the last second had lasted.
    pub duration: Latency,
}

/// Percentiles of what was measured, seconds; `null` when nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Half were faster.
    pub p50: Option<f64>,
    /// 90 of 100 were faster.
    pub p90: Option<f64>,
    /// 99 of 100 were faster.
    pub p99: Option<f64>,
}
