//! Figures in readable form. The JSON has exact ones.

use jiff::Timestamp;
use jiff::fmt::strtime;

/// Returns bytes in the largest unit that leaves a whole number before the point.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // In tenths, cut and not rounded: 1023.99 KiB must not read 1024.0 KiB.
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10 * 1024 {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Returns seconds in their two largest useful units.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
pub(crate) fn span(seconds: f64) -> String {
    let millis = (seconds.max(0.0) * 1_000.0) as u64;
    let (seconds, minutes, hours, days) =
        (millis / 1_000, millis / 60_000, millis / 3_600_000, millis / 86_400_000);
    match seconds {
        0 => format!("{millis}ms"),
        1..10 => format!("{seconds}.{}s", millis % 1_000 / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{:02}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// Returns how long ago `then` was.
pub(crate) fn age(now: Timestamp, then: Timestamp) -> String {
    span(now.duration_since(then).as_secs_f64())
}

/// Returns a point in time, in UTC.
pub(super) fn when(time: Timestamp) -> String {
    strtime::format("%Y-%m-%d %H:%M:%SZ", time).unwrap_or_else(|_| time.to_string())
}

/// Returns a share as a percentage.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// Returns a number with its unit, in the singular or plural.
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_one_figure_behind_the_point() {
        for (count, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(bytes(count), expected);
        }
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, expected) in [
            (-1.0, "0ms"),
            (0.0, "0ms"),
            (0.25, "250ms"),
            (1.0, "1.0s"),
            (9.99, "9.9s"),
            (59.9, "59s"),
            (60.0, "1m00s"),
            (3_599.0, "59m59s"),
            (7_440.0, "2h04m"),
            (86_400.0, "1d00h"),
            (100.0 * 86_400.0 + 3_600.0, "100d01h"),
        ] {
            assert_eq!(span(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn points_in_time_are_utc() {
        let then: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        assert_eq!(when(then), "2026-01-02 03:04:05Z");
        assert_eq!(age(then + jiff::SignedDuration::from_secs(90), then), "1m30s");
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!([count(0, "session"), count(1, "session")], ["0 sessions", "1 session"]);
        assert_eq!(percent(1.0 / 3.0), "33.3%");
    }
}
