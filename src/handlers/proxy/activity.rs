//! The time of the last activity, shared between tasks without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

pub(super) struct LastActivity {
    start: Instant,
    /// Milliseconds from `start` to the last activity.
    millis: AtomicU64,
}

impl LastActivity {
    pub fn now() -> Self {
        Self { start: Instant::now(), millis: AtomicU64::new(0) }
    }

    pub fn touch(&self) {
        self.millis.store(as_millis(self.start.elapsed()), Relaxed);
    }

    pub fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.millis.load(Relaxed))
    }
}

/// The duration in milliseconds, but at most `u64::MAX / 4`, so that a sum of several durations
/// does not overflow.
pub(super) fn as_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(u64::MAX / 4)
}
