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
    /// Reads RFC 3339 (`2026-11-23T10:00:00Z`, any offset).
    pub fn parse(text: &str) -> Option<Self> {
        let at: jiff::Timestamp = text.parse().ok()?;
        Some(Self(at.as_second()))
    }

    /// The timestamp plus `seconds`.
    pub fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

/// RFC 3339 in UTC with a numeric offset: `1973-11-29T21:33:09+00:00`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = jiff::Timestamp::from_second(self.0).unwrap_or(jiff::Timestamp::MAX);
        let at = jiff::tz::Offset::UTC.to_datetime(at);
        // Digit by digit: an entity contains four timestamps, and `format!` would cost more than
        // the rest of it.
        let mut text = *b"0000-00-00T00:00:00+00:00";
        let mut put = |from: usize, to: usize, mut number: i16| {
            for place in text[from..to].iter_mut().rev() {
                *place = b'0' + (number % 10).unsigned_abs() as u8;
                number /= 10;
            }
        };
        // Years before year 1 would need a sign and do not occur.
        put(0, 4, at.year().max(0));
        let parts = [at.month(), at.day(), at.hour(), at.minute(), at.second()];
        for (from, number) in [5, 8, 11, 14, 17].into_iter().zip(parts) {
            put(from, from + 2, number.into());
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// The clock: the machine's, or a fixed one that a test sets.
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
        if let Some(hand) = &self.0 {
            hand.store(at.0, Ordering::Relaxed);
        }
    }

    /// Nanoseconds since an arbitrary moment, on a monotonic clock. A fixed clock derives them from
    /// its time.
    pub fn ticks(&self) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        let whole = |number: i64| u64::try_from(number).unwrap_or(0);
        match &self.0 {
            Some(hand) => whole(hand.load(Ordering::Relaxed)).saturating_mul(SECOND),
            None => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
                whole(now.tv_sec).saturating_mul(SECOND).saturating_add(whole(now.tv_nsec))
            }
        }
    }

    /// The current time, up to some milliseconds late: cheap enough for every request.
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
            Some(hand) => Timestamp(hand.load(Ordering::Relaxed)),
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
