//! The times in tables and records.

use super::display::{Display, Times};
use crate::model::Timestamp;

/// The units of a span, and how many seconds each has.
const UNITS: [(&str, i64); 6] = [
    ("year", 31_557_600),
    ("month", 2_629_800),
    ("day", 86_400),
    ("hour", 3600),
    ("minute", 60),
    ("second", 1),
];

/// The text of a time in RFC 3339 with the suffix `Z`. `None` means that the text is not a time of
/// the API.
pub fn utc(text: &str) -> Option<String> {
    let time = text.strip_suffix("+00:00")?;
    let is_time = time.len() == 19 && Timestamp::parse(text).is_some();
    is_time.then(|| format!("{time}Z"))
}

/// The text of a cell that can be a time.
pub fn in_table(text: &str, display: &Display) -> String {
    match (display.times, Timestamp::parse(text)) {
        (Times::Relative, Some(time)) => relative(time, display.now),
        _ => utc(text).unwrap_or_else(|| text.to_owned()),
    }
}

/// A time relative to now, such as `3 days ago` or `in 2 hours`.
pub fn relative(time: Timestamp, now: Timestamp) -> String {
    let seconds = time.0.saturating_sub(now.0);
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("in {}", span(seconds)),
        _ => format!("{} ago", span(seconds.saturating_neg())),
    }
}

/// A span in its largest unit, rounded down, such as `3 days`.
pub fn span(seconds: i64) -> String {
    let fits = |(_, length): &&(&str, i64)| seconds >= *length;
    let (unit, length) = UNITS.iter().find(fits).copied().unwrap_or(("second", 1));
    match seconds / length {
        1 => format!("1 {unit}"),
        count => format!("{count} {unit}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_relative_to_now() {
        let now = Timestamp(1_000_000_000);
        for (seconds, text) in [
            (0, "now"),
            (-1, "1 second ago"),
            (-59, "59 seconds ago"),
            (-60, "1 minute ago"),
            (-3 * 86_400, "3 days ago"),
            (2 * 3600 + 5, "in 2 hours"),
            (40 * 86_400, "in 1 month"),
            (-800 * 86_400, "2 years ago"),
        ] {
            assert_eq!(relative(now.plus(seconds), now), text);
        }
    }

    #[test]
    fn only_times_of_the_api_get_the_suffix_z() {
        assert_eq!(utc("2027-01-01T00:00:00+00:00").unwrap(), "2027-01-01T00:00:00Z");
        for text in ["", "2027-01-01", "x+00:00", "2027-01-01T00:00:00+01:00", "never"] {
            assert_eq!(utc(text), None, "{text}");
        }
    }
}
