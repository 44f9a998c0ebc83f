//! Timestamps as whole seconds since 1970-01-01T00:00:00Z, and the clock.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

/// Seconds since the Unix epoch, without leap seconds.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Parses a time in RFC 3339, such as `2026-11-23T10:00:00Z`, with any offset.
    pub fn parse(text: &str) -> Option<Self> {
        let time: jiff::Timestamp = text.parse().ok()?;
        Some(Self(time.as_second()))
    }

    /// The timestamp plus `seconds`.
    pub fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

/// RFC 3339 in UTC with a numeric offset: `1973-11-29T21:33:09+00:00`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_second(self.0).unwrap_or(jiff::Timestamp::MAX);
        let date = jiff::tz::Offset::UTC.to_datetime(time);
        // The digits are written one by one. A user entity contains four timestamps, and `format!`
        // would take longer for these timestamps than for the rest of the entity.
        let mut text = *b"0000-00-00T00:00:00+00:00";
        let mut put = |from: usize, to: usize, mut number: i16| {
            for digit in text[from..to].iter_mut().rev() {
                *digit = b'0' + (number % 10).unsigned_abs() as u8;
                number /= 10;
            }
        };
        // Years before year 0 would need a sign, but no timestamp has such a year.
        put(0, 4, date.year().max(0));
        let parts = [date.month(), date.day(), date.hour(), date.minute(), date.second()];
        for (from, number) in [5, 8, 11, 14, 17].into_iter().zip(parts) {
            put(from, from + 2, number.into());
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// A clock: the machine's clock, or a fixed clock that a test sets.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A fixed clock, which changes only through [`Clock::set`].
    pub fn fixed(at: Timestamp) -> Self {
        Self(Some(Arc::new(AtomicI64::new(at.0))))
    }

    /// Sets a fixed clock. Has no effect on the machine's clock.
    pub fn set(&self, at: Timestamp) {
        if let Some(seconds) = &self.0 {
            seconds.store(at.0, Ordering::Relaxed);
        }
    }

    /// The nanoseconds since an arbitrary moment, on a monotonic clock. A fixed clock returns its
    /// time in nanoseconds.
    pub fn ticks(&self) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        let to_u64 = |number: i64| u64::try_from(number).unwrap_or(0);
        match &self.0 {
            Some(seconds) => to_u64(seconds.load(Ordering::Relaxed)).saturating_mul(SECOND),
            None => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
                to_u64(now.tv_sec).saturating_mul(SECOND).saturating_add(to_u64(now.tv_nsec))
            }
        }
    }

    /// The current time, which may be some milliseconds late. This call is cheap enough for every
    /// request.
    pub fn roughly(&self) -> Timestamp {
        match &self.0 {
            Some(_) => self.now(),
            None => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
                Timestamp(now.tv_sec)
            }
        }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Some(seconds) => Timestamp(seconds.load(Ordering::Relaxed)),
            None => Timestamp(
                std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs() as i64),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_is_formatted_with_a_numeric_offset() {
        assert_eq!(Timestamp(123_456_789).to_string(), "1973-11-29T21:33:09+00:00");
        assert_eq!(Timestamp::parse("1973-11-29T22:33:09+01:00"), Some(Timestamp(123_456_789)));
        assert_eq!(Timestamp::parse("yesterday"), None);
    }
}
