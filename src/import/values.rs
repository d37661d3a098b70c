//! Numbers and times as HAProxy writes them.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::ranges::TIMEOUT;

/// Returns the number that `word` is. Fails when it is missing or outside of `range`.
pub(super) fn number<T: TryFrom<u64>>(word: Option<&str>, range: RangeInclusive<u64>) -> Result<T, String> {
    let word = word.unwrap_or_default();
    let number: Option<u64> = word.parse().ok();
    let number = number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| format!("must be a number from {} to {}, got {word:?}", range.start(), range.end()))
}

/// Returns the time that `word` is, in HAProxy's units; without one it is in milliseconds.
pub(super) fn time(word: Option<&str>) -> Result<Duration, String> {
    let word = word.unwrap_or_default();
    let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (figure, unit) = word.split_at(digits);
    let micros: Option<u64> = match unit {
        "us" => Some(1),
        "" | "ms" => Some(1_000),
        "s" => Some(1_000_000),
        "m" => Some(60_000_000),
        "h" => Some(3_600_000_000),
        "d" => Some(86_400_000_000),
        _ => None,
    };
    let total =
        figure.parse::<u64>().ok().zip(micros).and_then(|(figure, micros)| figure.checked_mul(micros));
    let time = total.map(Duration::from_micros).filter(|time| TIMEOUT.contains(time));
    time.ok_or_else(|| format!("must be a time from 1ms to a year like 500ms or 2s, got {word:?}"))
}
