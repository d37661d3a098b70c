//! Sources of backends.

use std::fmt;

use super::families::Families;
use crate::base::time::Instant;
use crate::control::discovery::state::SourceState;
use crate::messages::discovery::Outcome;

/// A process without sources has no such series.
pub(super) fn write(families: &mut Families, sources: &[SourceState], now: Instant) -> fmt::Result {
    if sources.is_empty() {
        return Ok(());
    }
    let names = |row: &SourceState| [("pool", row.pool.clone()), ("source", row.source.clone())];
    families.gauges(
        "l4lb_discovery_backends",
        "Backends that a source is believed to have.",
        sources.iter().map(|row| (names(row), row.backends)),
    )?;
    let counts = sources.iter().flat_map(|row| {
        let [pool, source] = names(row);
        Outcome::ALL.into_iter().zip(row.counts).map(move |(outcome, count)| {
            ([pool.clone(), source.clone(), ("outcome", outcome.as_str().to_owned())], count)
        })
    });
    families.counters(
        "l4lb_discovery_answers_total",
        "Answers of a source and failures to get one, by outcome.",
        counts,
    )?;
    let age = |row: &SourceState| (now - row.answered.unwrap_or(row.began)).as_secs_f64();
    families.gauges(
        "l4lb_discovery_age_seconds",
        "Time since the last answer of a source; before the first one, since the source began.",
        sources.iter().map(|row| (names(row), age(row))),
    )?;
    families.gauges(
        "l4lb_discovery_left_out_backends",
        "Backends that a source lists and that are not in the pool on its behalf.",
        sources.iter().map(|row| (names(row), row.left_out.len() as u64)),
    )
}
