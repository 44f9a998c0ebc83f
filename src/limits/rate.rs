//! The rate of one record: an atomic GCRA arrival time that all threads share.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::gcra::{Conformance, Gcra};
use crate::model::RateLimit;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// A rate limit, with the state of its bucket.
#[derive(Debug)]
pub(super) struct Rate {
    limit: RateLimit,
    gcra: Gcra,
    /// The GCRA theoretical arrival time, in ns. A time in the past means that the full burst is
    /// available.
    arrival: AtomicU64,
}

/// The outcome of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateOutcome {
    /// Whether the request is within the rate.
    pub fits: bool,
    /// The number of further requests that are available at this moment.
    pub left: u32,
    /// The time until one more request becomes available, in ns.
    pub next: u64,
}

impl Rate {
    pub fn new(limit: RateLimit) -> Self {
        let window = limit.seconds().saturating_mul(SECOND);
        // The interval is rounded up, so that the rate never exceeds the limit.
        let interval = window.div_ceil(limit.requests().into());
        let gcra = Gcra::new(interval, limit.burst().into());
        Self { limit, gcra, arrival: AtomicU64::new(0) }
    }

    /// A rate with a new limit. If the limit is unchanged, the rate keeps the state of its bucket.
    pub fn replaced(&self, limit: RateLimit) -> Self {
        let new = Self::new(limit);
        if limit == self.limit {
            new.arrival.store(self.arrival.load(Relaxed), Relaxed);
        }
        new
    }

    pub fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Takes one request, if one is available. A request beyond the rate is not counted.
    pub fn take(&self, now: u64) -> RateOutcome {
        let mut arrival = self.arrival.load(Relaxed);
        loop {
            let (outcome, next) = self.check(arrival, now);
            let Some(next) = next else { return outcome };
            match self.arrival.compare_exchange_weak(arrival, next, Relaxed, Relaxed) {
                Ok(_) => return outcome,
                Err(current) => arrival = current,
            }
        }
    }

    /// The outcome that [`Rate::take`] would return.
    pub fn peek(&self, now: u64) -> RateOutcome {
        self.check(self.arrival.load(Relaxed), now).0
    }

    /// Gives back a request that was taken, because the request was rejected later.
    pub fn give_back(&self) {
        self.arrival.fetch_sub(self.gcra.interval, Relaxed);
    }

    /// The outcome of one more request and, if it fits, the new arrival time.
    fn check(&self, arrival: u64, now: u64) -> (RateOutcome, Option<u64>) {
        let Gcra { interval, window } = self.gcra;
        match self.gcra.check(arrival, now) {
            Conformance::Exceeds(next) => (RateOutcome { fits: false, left: 0, next }, None),
            Conformance::Conforms(next_arrival) => {
                let used = next_arrival - now;
                let left = u32::try_from((window - used) / interval).unwrap_or(u32::MAX);
                // One more request becomes available when `used` has fallen to the next lower
                // multiple of the interval.
                let next = used - (used - 1) / interval * interval;
                (RateOutcome { fits: true, left, next }, Some(next_arrival))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        thread,
    };

    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> Rate {
        Rate::new(RateLimit::parse("rate_limit", text).unwrap())
    }

    /// A time long after the start of the machine.
    const NOW: u64 = 1_000_000 * SECOND;

    #[test]
    fn a_burst_passes_at_once_and_then_one_request_per_interval() {
        let rate = rate("6/1m burst 3");
        let taken = |now: u64| (0..9).filter(|_| rate.take(now).fits).count();
        assert_eq!(taken(NOW), 3);
        assert_eq!(taken(NOW + 10 * SECOND - 1), 0);
        assert_eq!(taken(NOW + 10 * SECOND), 1);
        assert_eq!(taken(NOW + 40 * SECOND), 3);
        assert_eq!(taken(NOW + 9999 * SECOND), 3);
    }

    #[test]
    fn outcome_says_what_is_left_and_when_more_comes() {
        let rate = rate("6/1m burst 3");
        let numbers = |outcome: RateOutcome| (outcome.fits, outcome.left, outcome.next / SECOND);
        assert_eq!(numbers(rate.peek(NOW)), (true, 2, 10));
        assert_eq!(numbers(rate.take(NOW)), (true, 2, 10));
        assert_eq!(numbers(rate.take(NOW + SECOND)), (true, 1, 9));
        assert_eq!(numbers(rate.take(NOW + SECOND)), (true, 0, 9));
        assert_eq!(numbers(rate.take(NOW + 4 * SECOND)), (false, 0, 6));
        assert_eq!(numbers(rate.peek(NOW + 4 * SECOND)), (false, 0, 6));
        rate.give_back();
        assert_eq!(numbers(rate.take(NOW + 4 * SECOND)), (true, 0, 6));
    }

    #[test]
    fn concurrent_requests_take_exactly_what_is_available() {
        for limit in [1, 7, 100] {
            let rate = rate(&format!("{limit}/1h"));
            let (threads, barrier, passed) = (8, Barrier::new(8), AtomicUsize::new(0));
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        barrier.wait();
                        let fit = (0..200).filter(|_| rate.take(NOW).fits).count();
                        passed.fetch_add(fit, SeqCst);
                    });
                }
            });
            assert_eq!(passed.load(SeqCst), limit);
        }
    }

    #[test]
    fn changed_limit_has_its_full_burst_and_unchanged_limit_keeps_its_state() {
        let rate = rate("1/1h");
        assert!(rate.take(NOW).fits);
        assert!(!rate.replaced(rate.limit()).take(NOW).fits);
        let other = RateLimit::parse("rate_limit", "2/1h").unwrap();
        assert!(rate.replaced(other).take(NOW).fits);
    }

    proptest! {
        /// In any period, no more requests pass than the burst and the requests that became
        /// available during the period.
        #[test]
        fn no_period_has_more_requests_than_the_rate_allows(
            requests in 1_u64..50, seconds in 1_i64..100, burst in 1_u64..20,
            steps in proptest::collection::vec(0_u64..3_000_000_000, 1..120),
        ) {
            let limit = RateLimit::new("r", requests, seconds, Some(burst)).unwrap();
            let rate = Rate::new(limit);
            let mut now = NOW;
            let mut passed = Vec::new();
            for step in steps {
                now += step;
                let peeked = rate.peek(now);
                let outcome = rate.take(now);
                prop_assert_eq!(peeked, outcome);
                if outcome.fits {
                    passed.push(now);
                } else {
                    // One more request fits exactly at the announced time, and not before.
                    prop_assert!(!rate.peek(now + outcome.next - 1).fits);
                    prop_assert!(rate.peek(now + outcome.next).fits);
                }
            }
            let window = u128::from(limit.seconds()) * u128::from(SECOND);
            for (index, first) in passed.iter().enumerate() {
                for (count, last) in passed[index..].iter().enumerate() {
                    let became_available = u128::from(last - first) * u128::from(requests) / window;
                    prop_assert!((count as u128) < u128::from(burst) + became_available);
                }
            }
        }
    }
}
