//! Whether an upstream is worth asking, as its answers so far tell. Nothing is sent to find out.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use crate::model::Proxy;

/// What came of asking an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It answered, whatever it said.
    Worked,
    /// It did not.
    Failed,
}

/// What is known of an upstream.
#[derive(Debug)]
pub(super) struct Health {
    began: Instant,
    /// Failures since it last answered.
    failures: AtomicU32,
    /// Until when it is left out: milliseconds since `began`; zero: it is not.
    out_until: AtomicU64,
}

impl Health {
    pub fn new() -> Self {
        Self { began: Instant::now(), failures: AtomicU32::new(0), out_until: AtomicU64::new(0) }
    }

    /// Takes an outcome in. Returns whether the upstream is left out from now on.
    ///
    /// One that has come back is on trial: the next failure leaves it out again.
    pub fn note(&self, outcome: Outcome, settings: &Proxy, now: Instant) -> bool {
        match outcome {
            Outcome::Worked => {
                if self.failures.load(Relaxed) != 0 {
                    self.failures.store(0, Relaxed);
                    self.out_until.store(0, Relaxed);
                }
                false
            }
            Outcome::Failed => {
                let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
                let is_out = failures >= settings.eject_after;
                if is_out {
                    let pause = Duration::from_secs(settings.eject_seconds.into());
                    self.out_until.store(self.millis(now) + as_millis(pause), Relaxed);
                }
                is_out
            }
        }
    }

    /// How long it is still left out; none: it is not.
    pub fn out_for(&self, now: Instant) -> Option<Duration> {
        let until = self.out_until.load(Relaxed);
        let left = until.checked_sub(self.millis(now)).filter(|left| *left > 0)?;
        Some(Duration::from_millis(left))
    }

    fn millis(&self, now: Instant) -> u64 {
        as_millis(now.saturating_duration_since(self.began))
    }
}

fn as_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn failures_in_a_row_leave_an_upstream_out_and_time_brings_it_back_on_trial() {
        let settings = Proxy { eject_after: 2, eject_seconds: 10, ..Proxy::default() };
        let health = Health::new();
        let now = health.began;
        let note = |outcome, now| health.note(outcome, &settings, now);
        assert!(!note(Outcome::Failed, now));
        note(Outcome::Worked, now);
        assert!(!note(Outcome::Failed, now), "they were not in a row");
        assert_eq!(health.out_for(now), None);
        assert!(note(Outcome::Failed, now));
        assert_eq!(health.out_for(now), Some(Duration::from_secs(10)));
        let later = now + Duration::from_secs(10);
        assert_eq!(health.out_for(later), None);
        assert!(note(Outcome::Failed, later), "it was on trial");
        assert!(health.out_for(later).is_some());
        note(Outcome::Worked, later);
        assert_eq!(health.out_for(later), None);
    }
}
