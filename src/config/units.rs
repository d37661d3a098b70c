//! Durations as people write them: `500ms`, `2s`, `1m30s`, `1h`.

use std::time::Duration;

use jiff::fmt::friendly::{Spacing, SpanParser, SpanPrinter};

use super::error::Invalid;

/// Parses a duration: digits, points and units only, so no blank, no sign, no number without a unit.
pub fn parse_duration(text: &str) -> Result<Duration, Invalid> {
    let invalid = || Invalid(format!("must be a duration like 500ms, 2s, 1m30s or 1h, got {text:?}"));
    // jiff also reads "1:30:00", "2 hours, 3 minutes" and "5m ago"; one spelling is enough.
    if !text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.') {
        return Err(invalid());
    }
    SpanParser::new().parse_unsigned_duration(text).map_err(|_| invalid())
}

/// Returns the shortest spelling of `duration`.
pub fn show_duration(duration: Duration) -> String {
    let text = SpanPrinter::new().spacing(Spacing::None).unsigned_duration_to_string(&duration);
    // Not every keyboard has the sign.
    text.replace('µ', "u")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_in_their_usual_units() {
        for (text, millis) in [
            ("2s", 2_000),
            ("500ms", 500),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("1.5s", 1_500),
            ("0s", 0),
            ("24h", 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn nothing_is_guessed() {
        let surprising = [
            "",
            "5",
            "0",
            "s",
            "-2s",
            "+2s",
            "2 s",
            " 2s",
            "2S",
            "1:30",
            "1y",
            "1mo",
            "1w",
            "1d",
            "2s1h",
            "2s ago",
            "inf",
            "1e3s",
            "99999999999999999999s",
            "PT2S",
            "2s2s",
            ".5s",
        ];
        for text in surprising {
            assert!(parse_duration(text).is_err(), "{text:?} gave {:?}", parse_duration(text));
        }
    }

    #[test]
    fn a_shown_duration_reads_back() {
        for millis in [0, 1, 500, 1_000, 1_500, 60_000, 90_000, 3_600_000, 5_400_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&show_duration(duration)), Ok(duration), "{}", show_duration(duration));
        }
        assert_eq!(show_duration(Duration::from_secs(90)), "1m30s");
        assert_eq!(show_duration(Duration::from_micros(50)), "50us");
        assert_eq!(parse_duration("50us"), Ok(Duration::from_micros(50)));
    }
}
