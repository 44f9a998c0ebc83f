//! The health of an upstream, judged by its responses to clients' requests. Keyward sends no health
//! checks. A failing upstream is ejected: it gets no requests for some time.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::activity::as_millis;
use crate::model::Proxy;

/// The result of a request to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UpstreamResult {
    /// The upstream responded, with any status.
    Responded,
    /// The upstream did not respond.
    Failed,
}

/// The health of an upstream.
#[derive(Debug)]
pub(super) struct Health {
    start: Instant,
    /// The number of failures since the last response.
    failures: AtomicU32,
    /// The end of the ejection, in milliseconds since `start`. `0` means that the upstream is not
    /// ejected.
    ejected_until: AtomicU64,
}

impl Health {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
        }
    }

    /// Records a result. Returns whether the result ejects the upstream.
    ///
    /// After an ejection, the upstream is on probation: the next failure ejects the upstream again.
    pub fn record(&self, result: UpstreamResult, settings: &Proxy, now: Instant) -> bool {
        match result {
            UpstreamResult::Responded => {
                if self.failures.load(Relaxed) != 0 {
                    self.failures.store(0, Relaxed);
                    self.ejected_until.store(0, Relaxed);
                }
                false
            }
            UpstreamResult::Failed => {
                let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
                let is_ejected = failures >= settings.eject_after;
                if is_ejected {
                    let pause = Duration::from_secs(settings.eject_seconds.into());
                    self.ejected_until.store(self.millis(now) + as_millis(pause), Relaxed);
                }
                is_ejected
            }
        }
    }

    /// The remaining time of the ejection; `None` means not ejected.
    pub fn ejected_for(&self, now: Instant) -> Option<Duration> {
        let until = self.ejected_until.load(Relaxed);
        let left = until.checked_sub(self.millis(now)).filter(|left| *left > 0)?;
        Some(Duration::from_millis(left))
    }

    fn millis(&self, now: Instant) -> u64 {
        as_millis(now.saturating_duration_since(self.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_failures_eject_an_upstream_which_returns_on_probation() {
        let settings = Proxy { eject_after: 2, eject_seconds: 10, ..Proxy::default() };
        let health = Health::new();
        let now = health.start;
        let record = |result, now| health.record(result, &settings, now);
        assert!(!record(UpstreamResult::Failed, now));
        record(UpstreamResult::Responded, now);
        assert!(!record(UpstreamResult::Failed, now), "the failures were not consecutive");
        assert_eq!(health.ejected_for(now), None);
        assert!(record(UpstreamResult::Failed, now));
        assert_eq!(health.ejected_for(now), Some(Duration::from_secs(10)));
        let later = now + Duration::from_secs(10);
        assert_eq!(health.ejected_for(later), None);
        assert!(record(UpstreamResult::Failed, later), "the upstream was on probation");
        assert!(health.ejected_for(later).is_some());
        record(UpstreamResult::Responded, later);
        assert_eq!(health.ejected_for(later), None);
    }
}
