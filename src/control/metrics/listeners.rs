//! Series of listeners. A removed listener has no series; a reconfigured one keeps them.

use std::fmt;

use super::families::Families;
use crate::control::status::Pauses;
use crate::pool::{Listener, Snapshot};
use crate::session::CloseReason;
use crate::stats::{ListenerReading, RefuseReason, violations_of_listener};

/// Returns the laws that do not hold.
pub(super) fn write(
    families: &mut Families,
    snapshot: &Snapshot,
    pauses: &Pauses,
) -> Result<Vec<String>, fmt::Error> {
    let all: Vec<(&Listener, ListenerReading)> =
        snapshot.listeners.iter().map(|listener| (listener.as_ref(), listener.stats().read())).collect();
    let name = |listener: &Listener| [("listener", listener.settings.name.clone())];
    let each = |read: fn(&ListenerReading) -> u64| {
        all.iter().map(move |(listener, counts)| (name(listener), read(counts)))
    };
    families.counters(
        "l4lb_listener_accepted_sessions_total",
        "Connections taken from its accept queues.",
        each(|counts| counts.accepted),
    )?;
    families.gauges(
        "l4lb_listener_active_sessions",
        "Open sessions through it.",
        each(ListenerReading::active),
    )?;
    let limits = all.iter().filter_map(|(listener, _)| {
        listener.settings.max_sessions.map(|max| (name(listener), max.get() as u64))
    });
    families.gauges("l4lb_listener_max_sessions", "Limit on its open sessions, if configured.", limits)?;
    families.gauges(
        "l4lb_listener_paused",
        "1 while an operator has paused it.",
        all.iter()
            .map(|(listener, _)| (name(listener), u64::from(pauses.contains_key(&listener.settings.name)))),
    )?;
    let closed = all.iter().flat_map(|(listener, counts)| {
        let listener = listener.settings.name.as_str();
        CloseReason::ALL.map(|reason| {
            ([("listener", listener), ("reason", reason.as_str())], counts.closed[reason.index()])
        })
    });
    families.counters(
        "l4lb_listener_closed_sessions_total",
        "Ended sessions through it, by reason.",
        closed,
    )?;
    let refused = all.iter().flat_map(|(listener, counts)| {
        let listener = listener.settings.name.as_str();
        RefuseReason::ALL.map(|reason| {
            ([("listener", listener), ("reason", reason.as_str())], counts.refused[reason.index()])
        })
    });
    families.counters(
        "l4lb_refused_total",
        "Clients turned away before they were served, by reason.",
        refused,
    )?;
    let routed = all.iter().flat_map(|(listener, _)| {
        listener.routed().map(move |(route, count)| {
            let route = route.map_or_else(|| "default".to_owned(), |index| (index + 1).to_string());
            ([("listener", listener.settings.name.clone()), ("route", route)], count)
        })
    });
    let routed: Vec<_> = routed.collect();
    if !routed.is_empty() {
        families.counters(
            "l4lb_routed_total",
            "Sessions by the route that they took, by its number in the file; default is the pool of the listener.",
            routed,
        )?;
    }
    families.counters(
        "l4lb_listener_to_backend_bytes_total",
        "Bytes of its clients written to backends.",
        each(|counts| counts.given[0]),
    )?;
    families.counters(
        "l4lb_listener_to_client_bytes_total",
        "Bytes of backends written to its clients.",
        each(|counts| counts.given[1]),
    )?;
    families.histograms(
        "l4lb_listener_connect_seconds",
        "Time from accept, or from what a client had to send first, to the connected backend, failed dials included.",
        all.iter().map(|(listener, counts)| (name(listener), &counts.connect_time)),
    )?;
    families.histograms(
        "l4lb_listener_session_seconds",
        "Time from accept to the end of a session.",
        all.iter().map(|(listener, counts)| (name(listener), &counts.duration)),
    )?;
    let of_listener = |(listener, counts): &(&Listener, ListenerReading)| {
        let name = &listener.settings.name;
        violations_of_listener(counts)
            .into_iter()
            .map(|law| format!("listener {name:?}: {law}"))
            .collect::<Vec<_>>()
    };
    Ok(all.iter().flat_map(of_listener).collect())
}
