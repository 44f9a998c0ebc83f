//! Time spans as people write them (`90d`, `1d12h`), and expiry times.

use jiff::{
    civil::{Date, DateTime},
    tz::Offset,
};

use super::Timestamp;

/// The error message for the person who typed the span.
const FORM: &str = "use a span such as 90d, 12h or 1d12h (s, m, h, d, w), a moment such as 2027-01-01T00:00:00Z, a day such as 2026-12-31 (to its end in UTC), or never";

/// The error message for a time that cannot be represented.
const TOO_LATE: &str =
    "the latest time is 9999-12-30T22:00:00Z: use never for a key without an end";

/// The error message for a span that is too long.
const TOO_LONG: &str =
    "a span has at most 1,000 years (365000d): use never for a key without an end";

/// The day that other systems write for "never".
const LAST_DAY: Date = Date::constant(9999, 12, 31);

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
    /// At the end of a day in UTC: the first second of the next day.
    EndOfDay(Timestamp),
}

impl Expires {
    /// Parses `never`, a span from now, a time (RFC 3339), or a day, which means its end in UTC. A
    /// time on the last day of the year 9999 means never, as in other systems.
    ///
    /// # Errors
    /// The text has none of these forms, and the error lists the possible forms. Or the time or the
    /// span is too large, and the error says the bound.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        if let Some(time) = Timestamp::parse(text) {
            return Ok(Self::At(time));
        }
        if let Some(day) = parse_day(text) {
            return match end_of(day) {
                Some(end) => Ok(Self::EndOfDay(end)),
                None if day == LAST_DAY => Ok(Self::Never),
                None => Err(TOO_LATE.to_owned()),
            };
        }
        match parse_late_time(text) {
            Some(LateTime::LastDay) => return Ok(Self::Never),
            Some(LateTime::Other) => return Err(TOO_LATE.to_owned()),
            None => {}
        }
        match parse_span(text) {
            Some(seconds) if seconds > 0 => Ok(Self::In(seconds)),
            None if has_form_of_span(text) => Err(TOO_LONG.to_owned()),
            _ => Err(FORM.to_owned()),
        }
    }

    /// The expiry time of a key that is created at `now`. `None` means that the key never expires.
    pub fn from(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::In(seconds) => Some(now.plus(seconds)),
            Self::At(time) | Self::EndOfDay(time) => Some(time),
        }
    }
}

/// Parses a day such as `2026-12-31`.
pub fn parse_day(text: &str) -> Option<Date> {
    let is_day = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    if is_day { text.parse().ok() } else { None }
}

/// The first second of a day in UTC. `None` means that this time cannot be represented.
pub fn start_of(day: Date) -> Option<Timestamp> {
    let time = Offset::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok()?;
    Some(Timestamp(time.as_second()))
}

/// The first second after a day in UTC.
fn end_of(day: Date) -> Option<Timestamp> {
    start_of(day.tomorrow().ok()?)
}

/// A time (RFC 3339) that is too late to be represented.
enum LateTime {
    /// A time on [`LAST_DAY`].
    LastDay,
    Other,
}

fn parse_late_time(text: &str) -> Option<LateTime> {
    let digits = text.trim_start_matches('+');
    let year = digits.bytes().take_while(u8::is_ascii_digit).count();
    if year > 4 && digits[year..].starts_with('-') && digits.contains('T') {
        return Some(LateTime::Other);
    }
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let is_utc = time.ends_with(['Z', 'z']);
    let clock = time.split(['Z', 'z', '+', '-']).next()?;
    if !is_utc && clock == time {
        return None;
    }
    let date = parse_day(date)?;
    format!("{date}T{clock}").parse::<DateTime>().ok()?;
    let is_last_day = date == LAST_DAY;
    (date.year() == 9999).then_some(if is_last_day { LateTime::LastDay } else { LateTime::Other })
}

/// Whether a text is numbers with units, whatever its length is.
fn has_form_of_span(text: &str) -> bool {
    let is_unit = |c: char| UNITS.iter().any(|(unit, _)| *unit == c);
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(is_unit)
        && text.chars().all(|c| c.is_ascii_digit() || is_unit(c))
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
    fn day_lasts_to_its_end_in_utc() {
        let day = Expires::parse("2026-12-31").unwrap();
        let end = Timestamp::parse("2027-01-01T00:00:00Z").unwrap();
        assert_eq!(day, Expires::EndOfDay(end));
        assert_eq!(day.from(Timestamp(0)), Some(end));
    }

    #[test]
    fn last_day_of_the_calendar_means_never_and_other_late_times_name_the_bound() {
        for text in ["9999-12-31T23:59:59Z", "9999-12-31", "9999-12-31T00:00:00+00:00"] {
            assert_eq!(Expires::parse(text), Ok(Expires::Never), "{text}");
        }
        for text in [
            "9999-12-30T23:00:00Z",
            "9999-12-30",
            "10000-01-01T00:00:00Z",
            "+010000-01-01T00:00:00Z",
        ] {
            assert_eq!(Expires::parse(text), Err(TOO_LATE.to_owned()), "{text}");
        }
        assert!(Expires::parse("9999-12-30T21:00:00Z").is_ok());
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
            "2027-02-30",
            "2027-1-1",
            "2027-01-01T00:00:00",
            "9999-12-31T25:00:00Z",
            "9é",
        ] {
            assert_eq!(Expires::parse(text), Err(FORM.to_owned()), "{text:?}");
        }
        for text in ["2000000w", "99999999999999999999d", &format!("{}w", i64::MAX)] {
            assert_eq!(Expires::parse(text), Err(TOO_LONG.to_owned()), "{text:?}");
        }
        assert_eq!(parse_span(""), None);
    }
}
