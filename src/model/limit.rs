//! Limits that a record can have: a rate, and credits per calendar period.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};

use super::{Timestamp, Violation, parse_span};

/// The maximum number of requests of a rate or a burst.
const MAX_REQUESTS: u32 = 1_000_000;
/// The maximum window of a rate: 366 days.
const MAX_SECONDS: u64 = 366 * 86_400;
/// The maximum number of credits.
const MAX_CREDITS: u32 = 1_000_000_000;
/// The fix for an invalid rate.
const RATE_FIX: &str = "Write 100/1m or 100/1m burst 20: the number of requests, a time span (s, m, h, d, w), and the number of requests that may come at once.";
/// The fix for invalid credits.
const CREDITS_FIX: &str = "Write 1000/day, 1000/week or 1000/month.";

/// A rate: a number of requests per window, which become available evenly, and a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    requests: u32,
    seconds: u64,
    burst: Option<u32>,
}

/// Credits: a number of requests per day, week or month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credits {
    /// The number of credits.
    pub amount: u32,
    /// The refill period.
    pub refill: Refill,
}

/// The refill period of credits, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refill {
    /// Refilled at midnight.
    Day,
    /// Refilled on Monday at midnight (ISO 8601).
    Week,
    /// Refilled on the first of the month at midnight.
    Month,
}

/// A day, week or month of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// The period's number; consecutive periods have consecutive numbers.
    pub number: u32,
    /// The first second of the period.
    pub begins: Timestamp,
    /// The first second of the next period.
    pub ends: Timestamp,
}

impl RateLimit {
    /// A limit of `requests` in `seconds`, with at most `burst` requests at once. If `burst` is
    /// `None`, all `requests` may come at once.
    ///
    /// # Errors
    /// An argument is zero or too large.
    pub fn new(
        location: &str,
        requests: u64,
        seconds: i64,
        burst: Option<u64>,
    ) -> Result<Self, Violation> {
        let reject = |message: String| Err(Violation::new(location, message, RATE_FIX));
        let in_range =
            |number: u64| u32::try_from(number).ok().filter(|n| (1..=MAX_REQUESTS).contains(n));
        let Some(requests) = in_range(requests) else {
            return reject(format!("A rate allows 1 to {MAX_REQUESTS} requests, not {requests}."));
        };
        let seconds = u64::try_from(seconds).ok().filter(|s| (1..=MAX_SECONDS).contains(s));
        let Some(seconds) = seconds else {
            return reject("The time span of a rate is 1s to 366d.".into());
        };
        let burst = match burst.map(|burst| (burst, in_range(burst))) {
            Some((burst, None)) => {
                return reject(format!("A burst is 1 to {MAX_REQUESTS} requests, not {burst}."));
            }
            Some((_, burst)) => burst.filter(|burst| *burst != requests),
            None => None,
        };
        let rate = Self { requests, seconds, burst };
        if seconds * u64::from(rate.burst()) / u64::from(requests) > MAX_SECONDS {
            return reject("Such a burst would need more than 366 days to refill.".into());
        }
        Ok(rate)
    }

    /// Parses `100/1m` or `100/1m burst 20`.
    ///
    /// # Errors
    /// The text does not have this form, or one of its numbers is zero or too large.
    pub fn parse(location: &str, text: &str) -> Result<Self, Violation> {
        let invalid = || Violation::new(location, format!("{text:?} is not a rate."), RATE_FIX);
        let words: Vec<&str> = text.split_whitespace().collect();
        let (rate, burst) = match words.as_slice() {
            [rate] => (rate, None),
            [rate, "burst", burst] => (rate, Some(parse_digits(burst).ok_or_else(invalid)?)),
            _ => return Err(invalid()),
        };
        let (requests, window) = rate.split_once('/').ok_or_else(invalid)?;
        let requests = parse_digits(requests).ok_or_else(invalid)?;
        Self::new(location, requests, parse_window(window).ok_or_else(invalid)?, burst)
    }

    /// Reads a rate from JSON: text, or `{"requests": 100, "per": "1m", "burst": 20}`.
    ///
    /// # Errors
    /// The value has none of these forms, or one of its numbers is zero or too large.
    pub fn read(location: &str, value: &Value) -> Result<Self, Violation> {
        match value {
            Value::String(text) => Self::parse(location, text),
            Value::Object(fields) => {
                reject_unknown_fields(location, fields, &["requests", "per", "burst"], RATE_FIX)?;
                let invalid = |name: &str| {
                    let message = format!("{name} is missing or invalid.");
                    Violation::new(format!("{location}.{name}"), message, RATE_FIX)
                };
                let number = |name: &str| fields.get(name).and_then(Value::as_u64);
                let requests = number("requests").ok_or_else(|| invalid("requests"))?;
                let per = match fields.get("per") {
                    Some(Value::String(text)) => parse_window(text),
                    Some(seconds) => seconds.as_i64(),
                    None => None,
                };
                let burst = match fields.get("burst") {
                    None | Some(Value::Null) => None,
                    Some(_) => Some(number("burst").ok_or_else(|| invalid("burst"))?),
                };
                Self::new(location, requests, per.ok_or_else(|| invalid("per"))?, burst)
            }
            _ => Err(Violation::new(location, "This is not a rate.", RATE_FIX)),
        }
    }

    /// The number of requests per window.
    pub fn requests(self) -> u32 {
        self.requests
    }

    /// The window, in seconds.
    pub fn seconds(self) -> u64 {
        self.seconds
    }

    /// The number of requests that may come at once.
    pub fn burst(self) -> u32 {
        self.burst.unwrap_or(self.requests)
    }

    /// Whether this limit is at least as strict as `other`.
    pub fn is_within(self, other: Self) -> bool {
        // Compares the quotients of requests and seconds without a division.
        let product = |rate: Self, window: Self| u64::from(rate.requests) * window.seconds;
        self.burst() <= other.burst() && product(self, other) <= product(other, self)
    }
}

impl Credits {
    /// A number of credits per period.
    ///
    /// # Errors
    /// `amount` is zero or too large.
    pub fn new(location: &str, amount: u64, refill: Refill) -> Result<Self, Violation> {
        let in_range = u32::try_from(amount).ok().filter(|n| (1..=MAX_CREDITS).contains(n));
        let amount = in_range.ok_or_else(|| {
            let message = format!("A limit has 1 to {MAX_CREDITS} credits, not {amount}.");
            Violation::new(location, message, CREDITS_FIX)
        })?;
        Ok(Self { amount, refill })
    }

    /// Parses `1000/day`, `1000/week` or `1000/month`.
    ///
    /// # Errors
    /// The text does not have this form, or its number is zero or too large.
    pub fn parse(location: &str, text: &str) -> Result<Self, Violation> {
        let read = text.trim().split_once('/').and_then(|(amount, refill)| {
            Some((parse_digits(amount.trim())?, Refill::parse(refill.trim())?))
        });
        let (amount, refill) = read.ok_or_else(|| {
            Violation::new(location, format!("{text:?} is not a number of credits."), CREDITS_FIX)
        })?;
        Self::new(location, amount, refill)
    }

    /// Reads credits from JSON: text, or `{"amount": 1000, "per": "day"}`.
    ///
    /// # Errors
    /// The value has none of these forms, or its number is zero or too large.
    pub fn read(location: &str, value: &Value) -> Result<Self, Violation> {
        let invalid = || Violation::new(location, "This is not a number of credits.", CREDITS_FIX);
        match value {
            Value::String(text) => Self::parse(location, text),
            Value::Object(fields) => {
                reject_unknown_fields(location, fields, &["amount", "per"], CREDITS_FIX)?;
                let amount = fields.get("amount").and_then(Value::as_u64).ok_or_else(invalid)?;
                let per = fields.get("per").and_then(Value::as_str).and_then(Refill::parse);
                Self::new(location, amount, per.ok_or_else(invalid)?)
            }
            _ => Err(invalid()),
        }
    }

    /// Whether this limit is at least as strict as `other`. Different refill periods are not
    /// comparable.
    pub fn is_within(self, other: Self) -> bool {
        self.refill == other.refill && self.amount <= other.amount
    }
}

impl Refill {
    const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The refill period with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|refill| refill.name() == name)
    }

    /// The period that contains `now`. Times before 1970 belong to the first period.
    pub fn period(self, now: Timestamp) -> Period {
        const DAY: u64 = 86_400;
        /// The number of days from Monday to 1970-01-01, which was a Thursday.
        const DAYS_BEFORE: u64 = 3;
        let days = u64::try_from(now.0).unwrap_or(0) / DAY;
        let period = |number: u64, first: u64, next: u64| Period {
            number: u32::try_from(number).unwrap_or(u32::MAX),
            begins: timestamp(first * DAY),
            ends: timestamp(next * DAY),
        };
        match self {
            Self::Day => period(days, days, days + 1),
            Self::Week => {
                let week = (days + DAYS_BEFORE) / 7;
                period(week, (week * 7).saturating_sub(DAYS_BEFORE), (week + 1) * 7 - DAYS_BEFORE)
            }
            Self::Month => {
                let (year, month) = month_of(days);
                let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                let number = (year - 1970) * 12 + month - 1;
                period(number, days_before(year, month), days_before(next_year, next))
            }
        }
    }
}

fn timestamp(seconds: u64) -> Timestamp {
    Timestamp(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// The year and month of a day since 1970, in the Gregorian calendar (Hinnant, "chrono-compatible
/// low-level date algorithms").
fn month_of(days: u64) -> (u64, u64) {
    let days = days + 719_468;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + days / 146_097 * 400 + u64::from(month <= 2), month)
}

/// The number of days from 1970 to the first of a month.
fn days_before(year: u64, month: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * march_month + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

/// Parses digits without a sign.
fn parse_digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Parses a time span into seconds. A unit without a number means one unit: `m` is `1m`.
fn parse_window(text: &str) -> Option<i64> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        parse_span(text)
    } else {
        parse_span(&format!("1{text}"))
    }
}

fn reject_unknown_fields(
    location: &str,
    fields: &Map<String, Value>,
    names: &[&str],
    fix: &str,
) -> Result<(), Violation> {
    match fields.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) => {
            let name: String = name.chars().take(64).collect();
            let location = format!("{location}.{name}");
            Err(Violation::new(location, "There is no such field.", fix))
        }
        None => Ok(()),
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60)];
        let exact_unit = units.into_iter().find(|(_, length)| self.seconds.is_multiple_of(*length));
        let (unit, length) = exact_unit.unwrap_or(("s", 1));
        write!(f, "{}/{}{unit}", self.requests, self.seconds / length)?;
        self.burst.map_or(Ok(()), |burst| write!(f, " burst {burst}"))
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.amount, self.refill.name())
    }
}

impl Serialize for RateLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Credits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RateLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::read("rate_limit", &value).map_err(|problem| D::Error::custom(problem.message))
    }
}

impl<'de> Deserialize<'de> for Credits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::read("credits", &value).map_err(|problem| D::Error::custom(problem.message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn rate_has_one_canonical_text() {
        for (text, written) in [
            ("100/1m", "100/1m"),
            ("100/60s burst 20", "100/1m burst 20"),
            ("100/m", "100/1m"),
            ("5/90s", "5/90s"),
            (" 1/7d  burst  9 ", "1/1w burst 9"),
            ("100/1m burst 100", "100/1m"),
            ("1000000/1h30m", "1000000/90m"),
        ] {
            let rate = RateLimit::parse("rate_limit", text).unwrap();
            assert_eq!(rate.to_string(), written, "{text}");
            assert_eq!(serde_json::from_value::<RateLimit>(json!(written)).unwrap(), rate);
        }
        let object = json!({ "requests": 100, "per": "1m", "burst": 20 });
        assert_eq!(RateLimit::read("r", &object).unwrap().to_string(), "100/1m burst 20");
        let object = json!({ "requests": 100, "per": 60 });
        assert_eq!(RateLimit::read("r", &object).unwrap().to_string(), "100/1m");
    }

    #[test]
    fn zero_or_malformed_rate_is_refused() {
        for bad in [
            "",
            "100",
            "0/1m",
            "100/0s",
            "100/0m",
            "100/1m burst 0",
            "-1/1m",
            "+1/1m",
            "1.5/1m",
            "100/1y",
            "100/367d",
            "1000001/1m",
            "100/1m burst 1000001",
            "100/1m burst",
            "100/ 1m",
            "100/1m limit 5",
            "1/366d burst 2",
            "99999999999999999999/1m",
            "100//1m",
            "100/-1m",
        ] {
            let problem = RateLimit::parse("rate_limit", bad).expect_err(bad);
            assert_eq!((problem.location.as_str(), problem.fix.as_str()), ("rate_limit", RATE_FIX));
        }
        for bad in [
            json!(5),
            json!({ "requests": 0, "per": "1m" }),
            json!({ "requests": 5, "per": 0 }),
            json!({ "requests": 5 }),
            json!({ "requests": 5, "per": "1m", "burst": "x" }),
            json!({ "requests": 5, "per": "1m", "bust": 5 }),
        ] {
            assert!(RateLimit::read("r", &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn credits_have_one_canonical_text_and_are_never_zero() {
        for text in ["1000/day", "1/week", "1000000000/month"] {
            assert_eq!(Credits::parse("credits", text).unwrap().to_string(), text);
        }
        let object = json!({ "amount": 5, "per": "day" });
        assert_eq!(Credits::read("credits", &object).unwrap().to_string(), "5/day");
        for bad in ["", "0/day", "5", "5/year", "5/1d", "-5/day", "1000000001/day", "/day"] {
            assert!(Credits::parse("credits", bad).is_err(), "{bad}");
        }
        for bad in [json!(5), json!({ "amount": 0, "per": "day" }), json!({ "amount": 5 })] {
            assert!(Credits::read("credits", &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stricter_limit_is_within_a_looser_one() {
        let rate = |text| RateLimit::parse("r", text).unwrap();
        assert!(rate("50/1m").is_within(rate("100/1m")));
        assert!(rate("1/1s burst 50").is_within(rate("100/1m")));
        assert!(!rate("101/1m").is_within(rate("100/1m")));
        assert!(!rate("100/1m burst 101").is_within(rate("100/1m")));
        assert!(!rate("2/1s burst 50").is_within(rate("100/1m")));
    }

    #[test]
    fn periods_follow_the_calendar() {
        let time = |text: &str| Timestamp::parse(text).unwrap();
        let period = |refill: Refill, text| {
            let period = refill.period(time(text));
            (period.begins.to_string(), period.ends.to_string())
        };
        let pair =
            |a: &str, b: &str| (format!("{a}T00:00:00+00:00"), format!("{b}T00:00:00+00:00"));
        let moment = "2024-02-29T23:59:59Z";
        assert_eq!(period(Refill::Day, moment), pair("2024-02-29", "2024-03-01"));
        // 1970-01-01 is a Thursday.
        assert_eq!(period(Refill::Week, moment), pair("2024-02-26", "2024-03-04"));
        assert_eq!(period(Refill::Month, moment), pair("2024-02-01", "2024-03-01"));
        assert_eq!(period(Refill::Month, "2026-12-31T12:00:00Z"), pair("2026-12-01", "2027-01-01"));
        assert_eq!(period(Refill::Week, "1970-01-01T00:00:00Z"), pair("1970-01-01", "1970-01-05"));
        assert_eq!(period(Refill::Month, "1970-01-01T00:00:00Z"), pair("1970-01-01", "1970-02-01"));
    }

    proptest! {
        #[test]
        fn accepted_text_round_trips(
            text in "[0-9]{0,8}/[0-9]{0,8}[smhdwy]?( burst [0-9]{0,8})?|\\PC{0,20}",
        ) {
            if let Ok(rate) = RateLimit::parse("r", &text) {
                prop_assert_eq!(RateLimit::parse("r", &rate.to_string()), Ok(rate));
                prop_assert!(rate.requests() > 0 && rate.seconds() > 0 && rate.burst() > 0);
            }
            if let Ok(credits) = Credits::parse("c", &text) {
                prop_assert_eq!(Credits::parse("c", &credits.to_string()), Ok(credits));
            }
        }

        #[test]
        fn period_contains_its_moments_and_has_no_gap_after_it(now in 0..253_402_300_000_i64) {
            for refill in Refill::ALL {
                let period = refill.period(Timestamp(now));
                prop_assert!(period.begins.0 <= now && now < period.ends.0);
                let next = refill.period(period.ends);
                prop_assert_eq!(next.number, period.number + 1);
                prop_assert_eq!(next.begins, period.ends);
                let date = period.begins.to_string();
                prop_assert!(refill != Refill::Month || &date[8..10] == "01", "{}", date);
            }
        }
    }
}
