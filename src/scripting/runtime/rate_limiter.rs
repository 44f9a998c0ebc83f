//! The table behind `rate_limit`: the generic cell rate algorithm (GCRA, ITU-T I.371), one number
//! per bucket, with a bounded number of buckets.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::replay_cache::short_digest;
use crate::limits::gcra::{Conformance, Gcra};

/// Buckets by a digest of their names.
pub(in crate::scripting) struct RateLimiter {
    /// The capacity, in buckets.
    capacity: usize,
    /// The GCRA theoretical arrival time of each bucket, in microseconds. A time in the past means
    /// that the bucket is empty.
    arrivals: Mutex<HashMap<[u8; 16], u64, foldhash::fast::RandomState>>,
}

/// The limit of a bucket: `count` calls in `seconds`.
#[derive(Debug, Clone, Copy)]
pub(in crate::scripting) struct BucketRate {
    pub count: u64,
    pub seconds: u64,
}

impl BucketRate {
    /// The new arrival time of the bucket if one more call at `now` conforms to the rate; `None`
    /// means that the call exceeds the rate. All times are in microseconds.
    fn admit(self, arrival: u64, now: u64) -> Option<u64> {
        let window = self.seconds.saturating_mul(1_000_000);
        // At least one microsecond per call, because an interval of zero would allow every call.
        let gcra = Gcra { interval: (window / self.count.max(1)).max(1), window };
        match gcra.check(arrival, now) {
            Conformance::Conforms(next) => Some(next),
            Conformance::Exceeds(_) => None,
        }
    }
}

impl RateLimiter {
    pub fn new(capacity: usize) -> Self {
        Self { capacity, arrivals: Mutex::default() }
    }

    /// Whether one more call at `now` (in milliseconds) is within the rate. A rejected call does
    /// not count.
    ///
    /// While the table is full, calls for new buckets are rejected. Otherwise a client could bypass
    /// the limit by using many bucket names.
    pub fn admit(&self, bucket: &str, rate: BucketRate, now: u64) -> bool {
        let (key, now) = (short_digest(bucket), now.saturating_mul(1000));
        let mut arrivals = self.arrivals.lock();
        if arrivals.len() >= self.capacity && !arrivals.contains_key(&key) {
            arrivals.retain(|_, arrival| *arrival > now);
            if arrivals.len() >= self.capacity {
                return false;
            }
        }
        let arrival = arrivals.entry(key).or_insert(now);
        let next = rate.admit(*arrival, now);
        *arrival = next.unwrap_or(*arrival);
        next.is_some()
    }

    /// The result that [`RateLimiter::admit`] would return, without counting the call.
    pub fn would_admit(&self, bucket: &str, rate: BucketRate, now: u64) -> bool {
        let now = now.saturating_mul(1000);
        let arrivals = self.arrivals.lock();
        match arrivals.get(&short_digest(bucket)) {
            Some(arrival) => rate.admit(*arrival, now).is_some(),
            None => {
                arrivals.len() < self.capacity || arrivals.values().any(|arrival| *arrival <= now)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_admits_its_count_at_once_and_then_one_call_per_interval() {
        let limiter = RateLimiter::new(10);
        let rate = BucketRate { count: 3, seconds: 30 };
        let admitted = |now| (0..5).filter(|_| limiter.admit("a", rate, now)).count();
        assert_eq!(admitted(0), 3);
        assert_eq!(admitted(9_999), 0);
        assert_eq!(admitted(10_000), 1);
        assert_eq!(admitted(40_000), 3);
        assert!(limiter.admit("b", rate, 40_000));
    }

    #[test]
    fn would_admit_counts_nothing() {
        let limiter = RateLimiter::new(1);
        let rate = BucketRate { count: 1, seconds: 10 };
        assert!((0..5).all(|_| limiter.would_admit("a", rate, 0)));
        assert!(limiter.admit("a", rate, 0));
        assert!(!limiter.would_admit("a", rate, 0) && !limiter.would_admit("b", rate, 0));
        assert!(limiter.would_admit("a", rate, 10_000) && limiter.would_admit("b", rate, 10_001));
    }

    #[test]
    fn many_names_do_not_bypass_the_limit() {
        let limiter = RateLimiter::new(2);
        let rate = BucketRate { count: 1, seconds: 10 };
        assert!(limiter.admit("a", rate, 0) && limiter.admit("b", rate, 0));
        assert!(!limiter.admit("c", rate, 0), "the table is full");
        assert!(!limiter.admit("a", rate, 0), "the bucket is still in the table");
        assert!(limiter.admit("c", rate, 10_001), "the other buckets are empty by now");
    }
}
