//! The JSON of the admin API: requests and answers, the same types for the server, `l4lb ctl` and `l4lb top`. Shapes
//! only; `control::admin` has the routes and the OpenAPI document that contains these types.
//!
//! Counts are totals since the start of the process, whatever was cleared; `cleared` has what they were then. Sizes are bytes, durations are seconds as a decimal number, points
//! in time are RFC 3339 text in UTC.

mod access;
mod agent;
mod announce;
mod check_now;
mod checks;
mod discovery;
mod events;
mod fleet;
mod history;
mod listeners;
mod placing;
mod reload;
mod session_filter;
mod sets;
mod state;
mod stop;
mod topology;
mod totals;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

pub use access::{AccessDecision, AccessQuery};
pub use agent::Agent;
pub use announce::{Announce, AnnouncedListener};
pub use check_now::{Act, ActKind, CheckDone, CheckRun};
pub use checks::{Certificate, CheckResult, HealthOverride, OverrideTo, findings};
pub use discovery::{Discovered, DiscoveredBackend, Discovery, Source};
pub use events::{Event, EventFilter, EventKind};
pub use fleet::{Balancer, Disagreement, Failing, Fleet, FleetChange, FleetChanged, FleetPool, FleetWanted};
pub use history::{History, NamedSeries, Series};
pub use listeners::{Listener, ListenerChange};
pub use placing::{Placed, PlacingKey};
pub use reload::{
    AppliedReload, Change, Config, ConfigToml, RELOAD_ANSWER_MAX, ReadyFail, ReadyFilter, RefusedReload,
    Reload, ReloadReport, RestartPending,
};
pub use session_filter::{SessionFilter, SessionSort};
pub use sets::{
    BackendChanged, BackendsChange, BackendsChanged, GoneChanged, NAMES_MAX, PATTERN_LEN_MAX, PATTERNS_MAX,
};
pub use state::{Admin, Health};
pub use stop::{Stage, Stop, Stopping};
pub use topology::{PoolShares, Share, Topology};
pub use totals::{ClearScope, Cleared, ClearedBackend, CountersCleared, Totals, Worker};

/// Rows per page, unless the request asks for fewer.
pub const PAGE_LEN: u32 = 100;
/// Most rows per page.
pub const PAGE_LEN_MAX: u32 = 1_000;

/// Permitted durations of a lease.
pub const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// The reason why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The mistake and its place, in words.
    pub error: String,
}

/// The state of the process and its totals since the start.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The version as `l4lb --version` prints it.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Time when the process began to serve.
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
    /// Seconds since the process started.
    pub uptime: f64,
    /// The stage of the process.
    pub stage: Stage,
    /// Why no clients should be sent here, in words; `null` while it is ready.
    #[serde(default)]
    pub not_ready: Option<String>,
    /// Number of the snapshot; rises with each one published.
    pub epoch: u64,
    /// Each worker's part of the work, by index.
    pub workers: Vec<Worker>,
    /// Totals over all sessions since the start.
    pub totals: Totals,
    /// The reloads since the start, and the result of the last one.
    pub reload: Reload,
    /// Keys that were read and need a restart to take effect.
    #[serde(default)]
    pub restart_pending: Option<RestartPending>,
    /// The records by which clients find the process in DNS; `null` where it keeps none.
    #[serde(default)]
    pub announce: Option<Announce>,
    /// Log lines dropped because their output did not keep up.
    pub log_lines_dropped: u64,
    /// Failed writes of the state file; each is retried.
    pub state_file_failures: u64,
    /// Present while run-time changes cannot be saved.
    #[serde(default)]
    pub not_saved: Option<NotSaved>,
    /// The counters when they were last cleared; `null` when they never were.
    #[serde(default)]
    pub cleared: Option<Cleared>,
    /// Whether the requester of this answer may change anything; false with the read-only token.
    #[serde(default = "yes")]
    pub may_change: bool,
}

/// The state file cannot be written: run-time changes are lost with the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotSaved {
    /// Time of the first failure.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Why the last try failed.
    pub reason: String,
}

/// A pool: a set of backends and the way one is picked.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The algorithm that picks a backend.
    pub balance: String,
    /// Number of backends in the pool, whatever their state.
    pub backends: u64,
    /// Number of backends that may get new sessions now.
    pub eligible: u64,
    /// Open sessions on its backends.
    pub sessions: u64,
}

/// One server of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backend {
    /// The pool that it belongs to.
    pub pool: String,
    /// Unique within the pool.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Share of new sessions, 0..=256, as its agent has changed it.
    pub weight: u16,
    /// Its tier, 0..=15: serves only while no backend of a lower number is eligible.
    pub priority: u8,
    /// The state set by operators: ready, drain or maint.
    pub admin: Admin,
    /// Author of the last run-time change of `admin`, `agent` for its agent; `null` when there was none.
    #[serde(default)]
    pub admin_by: Option<String>,
    /// Time at which an operator last set that state.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub admin_since: Option<Timestamp>,
    /// Its health, as its checks found, or an operator or its agent set it.
    pub health: Health,
    /// Whether an operator has set `health`, so that checks do not change it.
    pub health_override: bool,
    /// The last check that changed its health, in words.
    pub health_reason: Option<String>,
    /// Time of the last change of `health`.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub health_since: Option<Timestamp>,
    /// The last result of each of its checks, in their order; none where checks are off. All must pass.
    #[serde(default)]
    pub checks: Vec<CheckResult>,
    /// Whether it may get new sessions now.
    pub eligible: bool,
    /// Open sessions on it, dialing ones included.
    pub sessions: u64,
    /// Sessions ever assigned to it.
    pub sessions_total: u64,
    /// Failed dials that it caused itself.
    pub dial_failures: u64,
    /// Bytes written to the backend since it was added.
    pub to_backend: u64,
    /// Bytes read from it and written to clients.
    pub to_client: u64,
    /// Whether the file, a request or a source of the pool lists it.
    pub source: Source,
    /// The address or the tier that an operator has set in place of that one; `null` without.
    #[serde(default)]
    pub placed: Option<Placed>,
    /// Seconds until its lease ends unless renewed; `null` without a lease.
    pub lease_left: Option<f64>,
    /// The words of its agent; `null` without one.
    #[serde(default)]
    pub agent: Option<Agent>,
    /// Its counters when they were last cleared; `null` when they never were.
    #[serde(default)]
    pub cleared: Option<ClearedBackend>,
}

impl Backend {
    /// Returns it with its counters since they were last cleared.
    #[must_use]
    pub fn since_cleared(&self) -> Self {
        let Some(before) = &self.cleared else { return self.clone() };
        Self {
            sessions_total: self.sessions_total.saturating_sub(before.sessions_total),
            dial_failures: self.dial_failures.saturating_sub(before.dial_failures),
            to_backend: self.to_backend.saturating_sub(before.to_backend),
            to_client: self.to_client.saturating_sub(before.to_client),
            ..self.clone()
        }
    }

    /// Returns what its checks have found, in words.
    pub fn findings(&self) -> Option<String> {
        findings(&self.checks, self.health_reason.as_deref())
    }

    /// Returns the reason why it is out of service, with the uid that set it and the time: `drained by uid 0 since
    /// 2026-01-02T03:04:05Z`; `None` when no request has done so since the process started.
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

/// A request to register a backend with a pool.
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
    /// Its tier, 0..=15: it serves only while no backend of a lower number is eligible. 0 when left out.
    #[schema(maximum = 15)]
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// `true` is priority 15, the last tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<bool>,
    /// A lease: the backend is drained and removed unless it is renewed within this time, by this holder or another
    /// one. A duration with a unit, "1s" to "24h". Left out, the backend is permanent.
    #[schema(example = "10s", pattern = "^[0-9][0-9a-z.]*[a-z]$")]
    pub ttl: Option<String>,
    /// Renews the lease of this holder, as named by the answer to the first request: 404 if the backend has gone, 409
    /// if the holder has no lease of it.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9._:\[\]-]+$")]
    #[serde(default)]
    pub holder: Option<String>,
    /// The holder of the lease, which may have one already. A name of your own choice stays the same when the answer to
    /// a first request is lost. Without either field there is a new holder each time.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9._:\[\]-]+$")]
    #[serde(default)]
    pub new_holder: Option<String>,
    /// Gives a lease to a permanent backend, or makes one permanent that others have leases of. Left out, both are
    /// refused.
    #[serde(default)]
    pub replace: bool,
}

/// A backend after a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// The backend.
    #[serde(flatten)]
    pub backend: Backend,
    /// Why the change is not in the state file, if it should be; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_saved: Option<String>,
}

/// A registered backend and its holder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Registered {
    /// The backend.
    #[serde(flatten)]
    pub backend: Backend,
    /// The holder of its lease, which renewals and the deregistration must name; `null` without a lease.
    #[serde(default)]
    pub holder: Option<String>,
    /// Why the change is not in the state file, if it should be; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_saved: Option<String>,
}

/// Selects the lease to end.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct HolderFilter {
    /// Only the lease of this holder: the backend is removed if it has no other. Left out, the backend is removed.
    #[param(min_length = 1, max_length = 64)]
    pub holder: Option<String>,
}

/// Accepts a whole number as JSON defines it: 7.0 is 7.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(from)? else { return Ok(None) };
    // Zero may have a sign, which this removes.
    let text = (number + 0.0).to_string();
    let wrong = |_| serde::de::Error::custom(format!("must be a whole number of 0..=65535, got {text}"));
    text.parse().map(Some).map_err(wrong)
}

/// Changes to a backend; fields left out stay unchanged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendChange {
    /// Share of new sessions, 0..=256.
    #[schema(maximum = 256)]
    #[serde(default, deserialize_with = "whole")]
    pub weight: Option<u16>,
    /// The new administrative state; absent leaves it unchanged.
    pub admin: Option<Admin>,
}

/// The parameters that select backends.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct BackendFilter {
    /// Only backends of this pool.
    pub pool: Option<String>,
}

/// A page of sessions. Sessions begin and end while pages are read: one that is open all the time is on exactly one
/// page.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionPage {
    /// The sessions of this page.
    pub sessions: Vec<Session>,
    /// `from` of the next page; `null` on the last.
    pub next: Option<String>,
    /// Whether older ended sessions did not fit.
    #[serde(default)]
    pub has_older: bool,
}

/// One client with one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Id of the session for the life of the process.
    #[schema(example = "0.12.3")]
    pub id: String,
    /// The listener that accepted it.
    pub listener: String,
    /// Its pool.
    pub pool: String,
    /// Its backend; `null` while none is chosen.
    pub backend: Option<String>,
    /// The address of the backend.
    #[serde(default)]
    pub backend_address: Option<String>,
    /// Address and port of the client.
    pub client: String,
    /// Address and port of the balancer in front that has sent the PROXY header of the client; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The name of the server in the TLS hello of the client; absent where its listener reads none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The protocols in that hello, with commas between them; escaped, and not all of many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
    /// The number of its route in the file, from 1; absent when it took none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<u64>,
    /// The source address of the connection to the backend. `null` before the dial, and after the end if its line was
    /// not logged.
    #[serde(default)]
    pub source: Option<String>,
    /// Its stage: preread, dialing, open, half_closed or ending; ended once it has ended.
    pub state: String,
    /// Seconds since accept; for an ended session its duration.
    pub age: f64,
    /// Seconds since a byte moved.
    pub idle: f64,
    /// Bytes written to the backend.
    pub to_backend: u64,
    /// Bytes written to the client.
    pub to_client: u64,
    /// Why it ended; `null` while it is open.
    #[serde(default)]
    pub reason: Option<String>,
    /// Seconds since it ended; `null` while it is open.
    #[serde(default)]
    pub ended_ago: Option<f64>,
}

/// The result of a request to end sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Killed {
    /// Sessions that were asked to end.
    pub sessions: u64,
}

/// The result of a deregistration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    /// Open sessions on the backend.
    pub sessions: u64,
    /// False when other holders keep it in its pool.
    #[serde(default = "yes")]
    pub removed: bool,
    /// Why the change is not in the state file, if it should be; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_saved: Option<String>,
}

const fn yes() -> bool {
    true
}

/// Explains why a session got its backend, and why it ended.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The session.
    pub session: Session,
    /// The explanation in words, in the order of events.
    pub story: Vec<String>,
    /// The backends of the pool.
    pub candidates: Vec<Candidate>,
    /// Whether `candidates` are shown as they were when the session chose. False when more has changed since than is
    /// kept: then they are as they are now.
    #[serde(default)]
    pub as_of_choice: bool,
    /// End code: two letters, see `l4lb ctl explain --codes`; `null` while it is open.
    pub end_code: Option<String>,
    /// How and why it ended; absent while it is open.
    pub end: Option<String>,
}

/// A backend that the session could have got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    /// Its name.
    pub backend: String,
    /// Its weight.
    pub weight: u16,
    /// Its tier, 0..=15.
    #[serde(default)]
    pub priority: u8,
    /// Whether the session got it.
    pub chosen: bool,
    /// Why it was passed over; `null` when it was eligible.
    pub skipped: Option<String>,
    /// Its changes since; `null` when there are none.
    #[serde(default)]
    pub since: Option<String>,
    /// The words of its agent now; `null` when there are none.
    #[serde(default)]
    pub agent: Option<String>,
}

/// The drains in progress, of backends and of the process.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Drains {
    /// The drain of the process, from SIGTERM on.
    pub process: Option<Drain>,
    /// Backends that were removed or are in drain or maint, and still have sessions.
    pub backends: Vec<Drain>,
}

/// The progress of a drain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Drain {
    /// Pool of the backend.
    pub pool: Option<String>,
    /// The backend.
    pub backend: Option<String>,
    /// Its address.
    pub address: Option<String>,
    /// Whether it was removed from its pool.
    pub removed: bool,
    /// Open sessions that the drain waits for.
    pub sessions: u64,
    /// Sessions when the drain began.
    pub sessions_at_start: u64,
    /// Seconds since the drain began.
    pub age: f64,
    /// Seconds until the remaining sessions are cut; `null` when they may finish.
    pub deadline: Option<f64>,
    /// Seconds until the last session ends at the present rate; `null` when none has ended yet.
    pub eta: Option<f64>,
}

/// The level of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLevel {
    /// off, error, warn, info, debug or trace.
    #[schema(example = "info", pattern = "^(off|error|warn|info|debug|trace)$")]
    pub level: String,
}

/// A sample for the dashboard and `l4lb top`, once a second: totals to take differences of.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// Time of the sample.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The stage of the process.
    pub stage: Stage,
    /// The epoch that runs at that moment.
    pub epoch: u64,
    /// Totals over all sessions since the start.
    pub totals: Totals,
    /// One entry per pool.
    pub pools: Vec<Pool>,
    /// One entry per backend, for at most 1,000 backends.
    pub backends: Vec<Backend>,
    /// Time to connect to backends, in the last second.
    pub connect: Latency,
    /// Duration of the sessions that ended in the last second.
    pub duration: Latency,
    /// The counters when they were last cleared; `null` when they never were.
    #[serde(default)]
    pub cleared: Option<Cleared>,
}

/// Percentiles in seconds; `null` when nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Latency {
    /// Number of measurements in the period of the sample.
    pub count: u64,
    /// Median in seconds: half of the measurements are below it.
    pub p50: Option<f64>,
    /// 90 of 100 were faster.
    pub p90: Option<f64>,
    /// 99 of 100 were faster.
    pub p99: Option<f64>,
}
