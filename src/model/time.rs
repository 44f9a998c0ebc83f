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
        text.parse::<jiff::Timestamp>().ok().map(|time| Self(time.as_second()))
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

/// The clock: the machine's, or a fixed one that a test sets. Clones share their state.
///
/// The time never goes back: it is at least the newest time that this clock has returned or that
/// [`Clock::raise_to`] was given. A machine's clock that jumps back would otherwise make expired
/// keys valid and refill credits.
#[derive(Debug, Clone)]
pub struct Clock {
    /// The time of a fixed clock. `None` means the machine's clock.
    fixed: Option<Arc<AtomicI64>>,
    /// The newest time so far.
    newest: Arc<AtomicI64>,
}

impl Clock {
    /// A machine's clock that is behind the newest time by up to this number of seconds is not
    /// reported: such small steps are usual when a clock is synchronized.
    const TOLERANCE: i64 = 5;

    /// The machine's clock.
    pub fn system() -> Self {
        Self { fixed: None, newest: Arc::new(AtomicI64::new(i64::MIN)) }
    }

    /// A fixed clock, which changes only through [`Clock::set`].
    pub fn fixed(at: Timestamp) -> Self {
        Self { fixed: Some(Arc::new(AtomicI64::new(at.0))), ..Self::system() }
    }

    /// Sets a fixed clock, as if a machine's clock was set. Has no effect on the machine's clock.
    pub fn set(&self, at: Timestamp) {
        if let Some(seconds) = &self.fixed {
            seconds.store(at.0, Ordering::Relaxed);
        }
    }

    /// Raises the newest time, to one that was committed.
    pub fn raise_to(&self, committed: Timestamp) {
        self.newest.fetch_max(committed.0, Ordering::Relaxed);
    }

    /// Forgets the newest time, so that an earlier time of the machine's clock is believed.
    pub fn forget_newest(&self) {
        self.newest.store(i64::MIN, Ordering::Relaxed);
    }

    /// The number of seconds that the machine's clock is behind the newest time. `None` means that
    /// it is not behind, or only a little.
    pub fn seconds_behind(&self) -> Option<i64> {
        let behind = self.newest.load(Ordering::Relaxed).saturating_sub(self.wall().0);
        (behind > Self::TOLERANCE).then_some(behind)
    }

    /// The nanoseconds since an arbitrary moment, on a monotonic clock. A fixed clock returns its
    /// time in nanoseconds.
    pub fn ticks(&self) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        let to_u64 = |number: i64| u64::try_from(number).unwrap_or(0);
        match &self.fixed {
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
        match &self.fixed {
            Some(_) => self.now(),
            None => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
                self.not_before_newest(Timestamp(now.tv_sec))
            }
        }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.not_before_newest(self.wall())
    }

    /// The time that the machine's clock or the fixed clock shows.
    fn wall(&self) -> Timestamp {
        match &self.fixed {
            Some(seconds) => Timestamp(seconds.load(Ordering::Relaxed)),
            None => Timestamp(
                std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs() as i64),
            ),
        }
    }

    /// The greater of `wall` and the newest time. Most calls only read the newest time: a call
    /// writes it at most once a second, so the cores do not take its cache line from each other.
    fn not_before_newest(&self, wall: Timestamp) -> Timestamp {
        let newest = self.newest.load(Ordering::Relaxed);
        if wall.0 <= newest {
            return Timestamp(newest);
        }
        Timestamp(wall.0.max(self.newest.fetch_max(wall.0, Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn clock_that_jumps_back_stays_at_the_newest_time() {
        let clock = Clock::fixed(Timestamp(1000));
        assert_eq!((clock.now(), clock.seconds_behind()), (Timestamp(1000), None));
        clock.set(Timestamp(995));
        assert_eq!((clock.now(), clock.seconds_behind()), (Timestamp(1000), None));
        clock.set(Timestamp(400));
        assert_eq!((clock.now(), clock.roughly()), (Timestamp(1000), Timestamp(1000)));
        assert_eq!((clock.clone().now(), clock.seconds_behind()), (Timestamp(1000), Some(600)));
        clock.raise_to(Timestamp(2000));
        clock.raise_to(Timestamp(1500));
        assert_eq!((clock.now(), clock.seconds_behind()), (Timestamp(2000), Some(1600)));
        clock.set(Timestamp(2001));
        assert_eq!((clock.now(), clock.seconds_behind()), (Timestamp(2001), None));
    }

    #[test]
    fn machine_clock_behind_a_committed_time_is_not_believed() {
        let clock = Clock::system();
        let wall = clock.now();
        let ahead = wall.plus(86_400);
        clock.raise_to(ahead);
        assert_eq!((clock.now(), clock.roughly()), (ahead, ahead));
        assert!(clock.seconds_behind().is_some_and(|behind| behind > 86_000));
    }
}
