//! Series over all workers together: connections, their fate, and the resources held.

use std::fmt;

use super::families::{Families, seconds};
use super::moment::Moment;
use crate::session::CloseReason;
use crate::stats::{DialFailure, PauseReason, Totals, check_latency, turn_time};

pub(super) fn write(families: &mut Families, totals: &Totals, moment: &Moment) -> fmt::Result {
    sessions(families, totals, moment.sessions_max)?;
    bytes(families, totals)?;
    dials(families, totals)?;
    accepting(families, totals)?;
    checks(families, totals, moment)?;
    loops(families, totals, moment)
}

/// accepted = active + closed, and accepted = connecting + connected + failed: on every scrape.
fn sessions(families: &mut Families, totals: &Totals, max: usize) -> fmt::Result {
    families.counter("l4lb_accepted_sessions_total", "Connections accepted.", totals.accepted)?;
    families.gauge("l4lb_active_sessions", "Open sessions.", totals.active())?;
    families.gauge("l4lb_max_sessions", "Limit on open sessions.", max as u64)?;
    let closed = CloseReason::ALL.map(|reason| ([("reason", reason.as_str())], totals.closed_for(reason)));
    families.counters("l4lb_closed_sessions_total", "Ended sessions, by reason.", closed)?;
    let decided = totals.connected + totals.failed;
    families.gauge(
        "l4lb_connecting_sessions",
        "Open sessions without a connected backend yet.",
        totals.accepted.saturating_sub(decided),
    )?;
    families.counter(
        "l4lb_connected_sessions_total",
        "Sessions that connected to a backend.",
        totals.connected,
    )?;
    families.counter(
        "l4lb_failed_sessions_total",
        "Sessions that ended before a backend had connected.",
        totals.failed,
    )
}

/// taken = given + discarded + held, each way and on every scrape.
fn bytes(families: &mut Families, totals: &Totals) -> fmt::Result {
    let [from_client, from_backend] = totals.taken;
    let [not_to_backend, not_to_client] = totals.discarded_by_direction;
    let held = |taken: u64, given: u64, discarded: u64| taken.saturating_sub(given + discarded);
    families.counter("l4lb_from_client_bytes_total", "Bytes read from clients.", from_client)?;
    families.counter("l4lb_to_backend_bytes_total", "Bytes written to backends.", totals.to_backend)?;
    families.counter(
        "l4lb_discarded_from_client_bytes_total",
        "Bytes read from clients that their backend could not accept any more.",
        not_to_backend,
    )?;
    families.gauge(
        "l4lb_held_from_client_bytes",
        "Bytes read from clients and not yet counted as written or discarded.",
        held(from_client, totals.to_backend, not_to_backend),
    )?;
    families.counter("l4lb_from_backend_bytes_total", "Bytes read from backends.", from_backend)?;
    families.counter("l4lb_to_client_bytes_total", "Bytes written to clients.", totals.to_client)?;
    families.counter(
        "l4lb_discarded_from_backend_bytes_total",
        "Bytes read from backends that their client could not accept any more.",
        not_to_client,
    )?;
    families.gauge(
        "l4lb_held_from_backend_bytes",
        "Bytes read from backends and not yet counted as written or discarded.",
        held(from_backend, totals.to_client, not_to_client),
    )?;
    headers(families, totals)
}

/// Counted apart: they are of no client.
fn headers(families: &mut Families, totals: &Totals) -> fmt::Result {
    let taken = [([("kind", "client")], totals.headers_taken), ([("kind", "local")], totals.headers_local)];
    families.counters(
        "l4lb_received_proxy_headers_total",
        "PROXY headers taken from clients: with the address of a client, or local, of a check.",
        taken,
    )?;
    families.counter(
        "l4lb_received_proxy_header_bytes_total",
        "Bytes of these headers, which count as no others.",
        totals.header_bytes_taken,
    )?;
    families.counter(
        "l4lb_proxy_headers_total",
        "PROXY headers begun in front of the bytes to a backend.",
        totals.headers,
    )?;
    families.counter(
        "l4lb_proxy_header_bytes_total",
        "Bytes of these headers, which count as no others.",
        totals.header_bytes,
    )?;
    families.counter(
        "l4lb_discarded_proxy_header_bytes_total",
        "Bytes of these headers that their backend could not accept any more.",
        totals.header_bytes_lost,
    )?;
    let [taken, given] = totals.negotiated_bytes;
    families.counters(
        "l4lb_tls_request_bytes_total",
        "Bytes of requests for TLS and of answers to them (tls = \"postgres\"), read and written, which count as no others.",
        [([("kind", "read")], taken), ([("kind", "written")], given)],
    )
}

fn dials(families: &mut Families, totals: &Totals) -> fmt::Result {
    families.counter("l4lb_dials_total", "Dials begun for sessions.", totals.dials)?;
    let failures = DialFailure::ALL.into_iter().zip(totals.dial_failures_by_cause);
    let failures = failures.map(|(cause, count)| ([("cause", cause.as_str())], count));
    families.counters("l4lb_dial_failures_total", "Failed dials for sessions, by cause.", failures)?;
    families.counter(
        "l4lb_dial_retries_total",
        "Dials after a failed one of the same session.",
        totals.retries,
    )
}

fn accepting(families: &mut Families, totals: &Totals) -> fmt::Result {
    let by_reason = |counts: [u64; PauseReason::ALL.len()]| {
        let series = PauseReason::ALL.into_iter().zip(counts);
        series.map(|(reason, count)| ([("reason", reason.as_str())], count))
    };
    families.counter("l4lb_accept_errors_total", "Errors of accept(2).", totals.accept_errors)?;
    families.counters(
        "l4lb_accept_pauses_total",
        "Pauses of accepting, by reason.",
        by_reason(totals.accept_pauses_by_reason),
    )?;
    let paused = by_reason(totals.accept_paused_nanos).map(|(labels, nanos)| (labels, seconds(nanos)));
    families.counters(
        "l4lb_accept_paused_seconds_total",
        "Time that accepting was paused, by reason, summed over workers and listeners; counted at the end of a pause.",
        paused,
    )
}

fn checks(families: &mut Families, totals: &Totals, moment: &Moment) -> fmt::Result {
    let checks = [
        ([("state", "passed")], totals.checks_passed),
        ([("state", "failed")], totals.checks_failed),
        ([("state", "deferred")], totals.checks_deferred),
    ];
    families.counters(
        "l4lb_checks_total",
        "Health checks that passed, failed, or were put off because this machine had run out of a resource.",
        checks,
    )?;
    let latency = check_latency(moment.workers());
    families.histogram(
        "l4lb_check_seconds",
        "Time from the start of a health check to its result.",
        &latency,
    )?;
    families.counter(
        "l4lb_health_transitions_total",
        "Changes of a backend's health as seen by its checks.",
        totals.transitions,
    )
}

/// Writes the loops of the workers and the resources they hold.
fn loops(families: &mut Families, totals: &Totals, moment: &Moment) -> fmt::Result {
    families.counter("l4lb_events_total", "Events reported by epoll.", totals.events)?;
    families.counter(
        "l4lb_stale_events_total",
        "Events for connections that were closed earlier in the same batch.",
        totals.stale_events,
    )?;
    families.counter(
        "l4lb_idle_events_total",
        "Events for sessions that had nothing to do.",
        totals.idle_events,
    )?;
    families.counter(
        "l4lb_lost_wakeups_total",
        "Sessions found waiting for an event that never came; must be 0.",
        totals.lost_wakeups,
    )?;
    families.counter(
        "l4lb_budget_exhausted_total",
        "Times that a session had used up its budget of a turn and was put behind the others.",
        totals.budget_exhausted,
    )?;
    let turns = turn_time(moment.workers());
    families.histogram(
        "l4lb_turn_seconds",
        "Time of a turn between two waits; one in sixteen is measured.",
        &turns,
    )?;
    families.counter("l4lb_opened_pipes_total", "Pipes opened.", totals.pipes_opened)?;
    families.counter("l4lb_closed_pipes_total", "Pipes closed.", totals.pipes_closed)?;
    families.counter(
        "l4lb_denied_pipes_total",
        "Pipes denied by the kernel: bytes were copied instead of spliced.",
        totals.pipes_denied,
    )?;
    families.counter(
        "l4lb_reclaimed_pipes_total",
        "Pipes taken from readers that had stopped for a second, for streams that found none.",
        totals.pipes_reclaimed,
    )?;
    let open = totals.pipes_opened.saturating_sub(totals.pipes_closed);
    let pooled = totals.pipes_pooled.min(open);
    let pipes = [([("state", "pooled")], pooled), ([("state", "in_use")], open - pooled)];
    families.gauges("l4lb_pipes", "Open pipes: empty ones kept for reuse, and those in use.", pipes)?;
    families.gauge(
        "l4lb_parked_buffers",
        "Buffers that hold bytes a sink did not accept.",
        totals.buffers_parked,
    )?;
    families.gauge("l4lb_armed_timers", "Armed timers.", totals.timers)
}
