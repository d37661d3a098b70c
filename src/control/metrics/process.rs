//! The kernel's view of the process, under the names that every exporter uses.

use std::fmt;

use jiff::Timestamp;

use super::sheet::Sheet;
use crate::stats::{FdKind, Totals};
use crate::sys::{self, Usage};

pub(super) fn write(sheet: &mut Sheet, totals: &Totals, started: Timestamp) -> fmt::Result {
    let usage = sys::usage().inspect_err(|error| log::debug!(error:%; "metrics: /proc/self")).ok();
    descriptors(sheet, totals, usage.as_ref())?;
    sheet.gauge("process_start_time_seconds", "When it started, since 1970.", started.as_second())?;
    let Some(usage) = usage else { return Ok(()) };
    let cpu = usage.cpu.as_secs_f64();
    sheet.counter("process_cpu_seconds_total", "Time of processors that it has used.", cpu)?;
    sheet.gauge("process_resident_memory_bytes", "Memory that it has.", usage.resident)?;
    sheet.gauge("process_virtual_memory_bytes", "Addresses that it has mapped.", usage.mapped)?;
    sheet.gauge("process_open_fds", "Descriptors that it has open.", usage.open_files)?;
    if let Some(max) = usage.open_files_max {
        sheet.gauge("process_max_fds", "Descriptors that it may have open.", max)?;
    }
    sheet.gauge("process_threads", "Threads that it has.", usage.threads)
}

/// Workers publish theirs at the end of a turn: `other` may be wrong for a moment.
fn descriptors(sheet: &mut Sheet, totals: &Totals, usage: Option<&Usage>) -> fmt::Result {
    let kinds = FdKind::ALL.map(|kind| ([("kind", kind.as_str())], totals.fds[kind.index()]));
    let of_workers: u64 = totals.fds.iter().sum();
    let other = usage.map(|usage| ([("kind", "other")], usage.open_files.saturating_sub(of_workers)));
    sheet.gauges(
        "l4lb_fds",
        "Descriptors of the workers by kind, as of the end of their last turn, and all others.",
        kinds.into_iter().chain(other),
    )
}
