//! The metrics in the Prometheus text format 0.0.4, which every reader of metrics understands. Built anew for every
//! scrape from the present state and counters: removed objects have no series.
//!
//! Runs on the admin thread. It holds the control thread's lock for a few clones and builds the text afterwards;
//! workers are not involved. No label has a value that a client could choose.
//!
//! `moment` is the state when a scrape begins. `families` writes families of series, `totals` the sums over all
//! workers, `workers`, `listeners` and `backends` (with their pools) the series of one of them, `process` the kernel's
//! view of the process.

mod backends;
mod discovery;
mod families;
mod listeners;
mod moment;
mod process;
mod totals;
mod workers;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use crate::api::Stage;
use crate::control::denials::Denial;
use crate::control::readiness::why_not_ready;
use crate::control::{ReloadStatus, Removed, View};
use crate::logging;
use crate::messages::announce::Announced;
use crate::stats::{Totals, violations};

use families::Families;
use moment::{FleetFigures, Moment};

/// The media type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) struct Metrics(Registry);

impl Metrics {
    /// Returns the metrics of the process that `view` shows.
    pub(crate) fn new(view: Arc<View>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process { view, reported: AtomicUsize::new(0) }));
        Self(registry)
    }

    /// Returns all series with their present values.
    pub(crate) fn scrape(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode_registry(&mut page, &self.0)?;
        Ok(page)
    }
}

/// The process, read at each scrape.
struct Process {
    view: Arc<View>,
    /// The number of invariant violations when that was last logged: frequent scrapes must not fill the log.
    reported: AtomicUsize,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Process")
    }
}

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let began = self.view.clock.now();
        let moment = self.moment();
        let mut families = Families::new(encoder);
        let totals = Totals::of(moment.workers());
        let mut violated = violations(&totals);
        state(&mut families, &moment)?;
        totals::write(&mut families, &totals, &moment)?;
        workers::write(&mut families, &moment.counters)?;
        violated.extend(listeners::write(&mut families, &moment.snapshot, &moment.pauses)?);
        backends::write(&mut families, &moment.snapshot)?;
        discovery::write(&mut families, &moment.sources, began)?;
        announced(&mut families, &moment.announced)?;
        fleet(&mut families, &moment.fleet)?;
        families.gauge(
            "l4lb_fleet_alone",
            "1 while more than half of its backends are down here and up for most of the other balancers.",
            u64::from(moment.is_alone),
        )?;
        self.state_file(&mut families)?;
        let denied =
            Denial::ALL.map(|denial| ([("reason", denial.as_str())], self.view.denials.count(denial)));
        families.counters(
            "l4lb_admin_denied_total",
            "Denied requests to the admin API, by reason.",
            denied,
        )?;
        families.counter("l4lb_dropped_log_lines_total", "Log lines dropped or lost.", logging::dropped())?;
        process::write(&mut families, &totals, self.view.started)?;
        families.gauge(
            "l4lb_invariant_violations",
            "Violated counter invariants; must be 0.",
            violated.len() as u64,
        )?;
        self.log_violations(&violated);
        let took = self.view.clock.now() - began;
        families.gauge("l4lb_scrape_seconds", "Duration of this scrape.", took.as_secs_f64())
    }
}

/// The records by which clients find the process.
fn announced(families: &mut Families, announced: &Announced) -> fmt::Result {
    let (records, is_failing) = match announced {
        Announced::Withdrawn => (0, false),
        Announced::Kept(records) => (*records as u64, false),
        Announced::Failing(_) => (0, true),
    };
    families.gauge("l4lb_announced_records", "Records by which clients find the process in DNS.", records)?;
    families.gauge(
        "l4lb_announce_failing",
        "1 while these records are not as they should be.",
        u64::from(is_failing),
    )
}

/// The fleet as this process sees it.
fn fleet(families: &mut Families, fleet: &FleetFigures) -> fmt::Result {
    families.gauge("l4lb_fleet_balancers", "Balancers in the fleet, with this one.", fleet.balancers)?;
    families.gauge(
        "l4lb_fleet_other_configs",
        "Balancers of the fleet with another configuration than this one.",
        fleet.other_configs,
    )?;
    families.gauge(
        "l4lb_fleet_failing",
        "1 while this process cannot publish what it does, or cannot read the other balancers.",
        u64::from(fleet.is_failing),
    )
}

impl Process {
    fn moment(&self) -> Moment {
        let fleet = FleetFigures::of(&self.view.fleet());
        let state = self.view.state();
        Moment {
            snapshot: Arc::clone(&state.snapshot),
            pauses: state.pauses.clone(),
            counters: state.workers.counters(),
            stage: state.stage,
            reload: state.reload.clone(),
            restart_pending: state.pending.len() as u64,
            unresolved: state.sources.iter().filter(|source| source.is_unresolved_host()).count() as u64,
            is_ready: why_not_ready(&state, None).is_none(),
            removed: [
                state.removed.len() as u64,
                state.removed.iter().map(Removed::sessions).map(u64::from).sum(),
            ],
            sessions_max: state.workers.sessions_max(),
            sources: state.sources.to_vec(),
            announced: state
                .announce
                .as_ref()
                .map_or(Announced::Withdrawn, |standing| standing.announced.clone()),
            fleet,
            is_alone: state.alone.is_some(),
        }
    }

    fn state_file(&self, families: &mut Families) -> fmt::Result {
        let writes = self.view.state_writes.get();
        let failed = writes.map_or(0, |writes| writes.failed.load(Ordering::Relaxed));
        families.counter(
            "l4lb_state_file_failures_total",
            "Failed writes of state_file; each is retried.",
            failed,
        )?;
        families.gauge(
            "l4lb_state_not_saved",
            "1 while state_file cannot be written: run-time changes are lost with the process.",
            u64::from(writes.is_some_and(|writes| writes.unsaved().is_some())),
        )
    }

    fn log_violations(&self, violated: &[String]) {
        if violated.len() > self.reported.swap(violated.len(), Ordering::Relaxed) {
            log::error!(laws = violated.join("; "); "counter invariants violated");
        }
    }
}

/// Writes the state of the process and of its configuration.
fn state(families: &mut Families, moment: &Moment) -> fmt::Result {
    let version = env!("CARGO_PKG_VERSION");
    families.gauges("l4lb_build_info", "The running version; always 1.", [([("version", version)], 1)])?;
    let stages = [(Stage::Serving, "serving"), (Stage::Draining, "draining"), (Stage::Stopping, "stopping")];
    let stages = stages.map(|(stage, name)| ([("state", name)], u64::from(stage == moment.stage)));
    families.gauges("l4lb_stage", "1 for the stage of the process, 0 for the others.", stages)?;
    families.gauge(
        "l4lb_ready",
        "1 while clients should be sent here, as /ready answers.",
        u64::from(moment.is_ready),
    )?;
    families.gauge(
        "l4lb_epoch",
        "Number of the snapshot that the workers run; rises with each one published.",
        moment.snapshot.epoch,
    )?;
    let ReloadStatus { succeeded, failed, errors, last_success, .. } = &moment.reload;
    families.counter("l4lb_reloads_total", "Reloads applied.", *succeeded)?;
    families.counter("l4lb_reload_failures_total", "Reloads refused, which changed nothing.", *failed)?;
    families.gauge(
        "l4lb_reload_successful",
        "1 unless the last reload was refused.",
        u64::from(errors.is_empty()),
    )?;
    families.gauge(
        "l4lb_last_reload_timestamp_seconds",
        "Time when a reload was last applied; 0 before the first.",
        last_success.map_or(0, Timestamp::as_second),
    )?;
    families.gauge(
        "l4lb_restart_pending_keys",
        "Keys of the latest configuration that need a restart to take effect.",
        moment.restart_pending,
    )?;
    families.gauge(
        "l4lb_unresolved_backends",
        "Backends that are down because their names do not resolve.",
        moment.unresolved,
    )?;
    let [backends, sessions] = moment.removed;
    families.gauge("l4lb_removed_backends", "Removed backends that may still have sessions.", backends)?;
    families.gauge("l4lb_removed_active_sessions", "Open sessions on removed backends.", sessions)
}
