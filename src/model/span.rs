//! Time spans as people write them (`90d`, `1d12h`), and expiry times.

use super::Timestamp;

/// The error message for the person who typed the span.
const FORM: &str = "use a span such as 90d, 12h or 1d12h (s, m, h, d, w), or a moment such as 2027-01-01T00:00:00Z";

/// The units of a span. There are no months and years, because the length of a month or a year
/// varies.
const UNITS: [(char, i64); 5] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400), ('w', 604_800)];

/// When a new key will expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expires {
    /// Never.
    Never,
    /// After this many seconds.
    In(i64),
    /// At this time.
    At(Timestamp),
}

impl Expires {
    /// Parses `never`, a span from now, or a time (RFC 3339).
    ///
    /// # Errors
    /// The text has none of these forms. The error lists the possible forms.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        if let Some(time) = Timestamp::parse(text) {
            return Ok(Self::At(time));
        }
        let seconds = parse_span(text).filter(|seconds| *seconds > 0);
        seconds.map(Self::In).ok_or_else(|| FORM.to_owned())
    }

    /// The expiry time of a key that is created at `now`. `None` means that the key never expires.
    pub fn from(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::In(seconds) => Some(now.plus(seconds)),
            Self::At(time) => Some(time),
        }
    }
}

/// Parses a span, one or more numbers with units, into seconds. `None` means that the text is not a
/// span, or that the span is more than a thousand years, because times that far in the future
/// cannot be formatted.
pub fn parse_span(text: &str) -> Option<i64> {
    const LONGEST: i64 = 1000 * 365 * 86_400;
    let mut total: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let unit = rest[end..].chars().next()?;
        let (_, length) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        let number: i64 = rest[..end].parse().ok()?;
        total = total.checked_add(number.checked_mul(length)?)?;
        rest = &rest[end + unit.len_utf8()..];
    }
    (!text.is_empty() && total <= LONGEST).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_is_relative_and_time_is_absolute() {
        let now = Timestamp(1000);
        for (text, seconds) in
            [("1s", 1), ("5m", 300), ("12h", 43_200), ("90d", 7_776_000), ("1d12h", 129_600)]
        {
            assert_eq!(Expires::parse(text).unwrap().from(now), Some(now.plus(seconds)), "{text}");
        }
        let time = Expires::parse("2027-01-01T00:00:00Z").unwrap().from(now).unwrap();
        assert_eq!(time.to_string(), "2027-01-01T00:00:00+00:00");
        assert_eq!(Expires::parse("never").unwrap().from(now), None);
        assert_eq!(parse_span("0s"), Some(0));
    }

    #[test]
    fn malformed_expiry_is_refused() {
        for text in [
            "",
            "0d",
            "d",
            "90",
            "90x",
            "-1d",
            "1.5d",
            "1d ",
            "soon",
            "Never",
            "2027-01-01",
            "9é",
            "2000000w",
        ] {
            assert_eq!(Expires::parse(text), Err(FORM.to_owned()), "{text:?}");
        }
        assert!(Expires::parse(&format!("{}w", i64::MAX)).is_err());
        assert_eq!(parse_span(""), None);
    }
}
