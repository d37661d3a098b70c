//! The kernel's view of the process, under the names that every exporter uses.

use std::fmt;

use jiff::Timestamp;

use super::families::Families;
use crate::stats::{FdKind, Totals};
use crate::sys::{self, Usage};

pub(super) fn write(families: &mut Families, totals: &Totals, started: Timestamp) -> fmt::Result {
    let usage = sys::usage().inspect_err(|error| log::debug!(error:%; "metrics: /proc/self")).ok();
    descriptors(families, totals, usage.as_ref())?;
    families.gauge("process_start_time_seconds", "Start time since the Unix epoch.", started.as_second())?;
    let Some(usage) = usage else { return Ok(()) };
    let cpu = usage.cpu.as_secs_f64();
    families.counter("process_cpu_seconds_total", "Processor time used.", cpu)?;
    families.gauge("process_resident_memory_bytes", "Resident memory.", usage.resident)?;
    families.gauge("process_virtual_memory_bytes", "Mapped memory.", usage.mapped)?;
    families.gauge("process_open_fds", "Open descriptors.", usage.open_files)?;
    if let Some(max) = usage.open_files_max {
        families.gauge("process_max_fds", "Limit on open descriptors.", max)?;
    }
    families.gauge("process_threads", "Number of threads.", usage.threads)
}

/// Workers publish theirs at the end of a turn: `other` may be wrong for a moment.
fn descriptors(families: &mut Families, totals: &Totals, usage: Option<&Usage>) -> fmt::Result {
    let kinds = FdKind::ALL.map(|kind| ([("kind", kind.as_str())], totals.fds[kind.index()]));
    let of_workers: u64 = totals.fds.iter().sum();
    let other = usage.map(|usage| ([("kind", "other")], usage.open_files.saturating_sub(of_workers)));
    families.gauges(
        "l4lb_fds",
        "Open descriptors of the workers by kind, as of the end of their last turn, and all others.",
        kinds.into_iter().chain(other),
    )
}
