//! The table behind `rate_limit`: the generic cell rate algorithm (GCRA, ITU-T I.371), one number
//! per bucket, with a bounded number of buckets.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::{
    quota::{Owner, Quotas},
    replay_cache::short_digest,
};
use crate::limits::gcra::{Conformance, Gcra};

/// The minimum time between two searches for empty buckets, in microseconds.
const SWEEP_INTERVAL: u64 = 1_000_000;

/// Buckets by a digest of their names.
pub(in crate::scripting) struct RateLimiter(Mutex<Buckets>);

struct Buckets {
    buckets: HashMap<[u8; 16], Bucket, foldhash::fast::RandomState>,
    quotas: Quotas,
    /// When empty buckets may be removed again, in microseconds.
    next_sweep: u64,
}

struct Bucket {
    /// The GCRA theoretical arrival time in microseconds. A time in the past means that the bucket
    /// is empty.
    arrival: u64,
    owner: Owner,
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
    /// A table for so many buckets.
    pub fn new(capacity: usize) -> Self {
        let (buckets, quotas) = (HashMap::default(), Quotas::new(capacity));
        Self(Mutex::new(Buckets { buckets, quotas, next_sweep: 0 }))
    }

    /// Whether one more call at `now` (in milliseconds) is within the rate. A rejected call does
    /// not count.
    ///
    /// While the owner's share of the table is full, calls for new buckets are rejected. Otherwise
    /// a client could bypass the limit by using many bucket names.
    pub fn admit(&self, bucket: &str, rate: BucketRate, now: u64, owner: Owner) -> bool {
        let (key, now) = (short_digest(bucket), now.saturating_mul(1000));
        let mut table = self.0.lock();
        if let Some(bucket) = table.buckets.get_mut(&key) {
            let next = rate.admit(bucket.arrival, now);
            bucket.arrival = next.unwrap_or(bucket.arrival);
            return next.is_some();
        }
        if table.quotas.is_full(owner) {
            table.sweep(now);
            if table.quotas.is_full(owner) {
                return false;
            }
        }
        let next = rate.admit(now, now);
        table.quotas.add(owner);
        table.buckets.insert(key, Bucket { arrival: next.unwrap_or(now), owner });
        next.is_some()
    }

    /// The result that [`RateLimiter::admit`] would return, without counting the call.
    pub fn would_admit(&self, bucket: &str, rate: BucketRate, now: u64, owner: Owner) -> bool {
        let now = now.saturating_mul(1000);
        let table = self.0.lock();
        match table.buckets.get(&short_digest(bucket)) {
            Some(bucket) => rate.admit(bucket.arrival, now).is_some(),
            None => {
                !table.quotas.is_full(owner)
                    || table.buckets.values().any(|bucket| bucket.arrival <= now)
            }
        }
    }

    /// The number of buckets.
    pub fn len(&self) -> usize {
        self.0.lock().buckets.len()
    }
}

impl Buckets {
    /// Removes empty buckets, but not at each call, because this takes long.
    fn sweep(&mut self, now: u64) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now.saturating_add(SWEEP_INTERVAL);
        let quotas = &mut self.quotas;
        self.buckets.retain(|_, bucket| {
            let is_used = bucket.arrival > now;
            if !is_used {
                quotas.remove(bucket.owner);
            }
            is_used
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { script: 1, client: None };

    #[test]
    fn a_bucket_admits_its_count_at_once_and_then_one_call_per_interval() {
        let limiter = RateLimiter::new(10);
        let rate = BucketRate { count: 3, seconds: 30 };
        let admitted = |now| (0..5).filter(|_| limiter.admit("a", rate, now, OWNER)).count();
        assert_eq!(admitted(0), 3);
        assert_eq!(admitted(9_999), 0);
        assert_eq!(admitted(10_000), 1);
        assert_eq!(admitted(40_000), 3);
        assert!(limiter.admit("b", rate, 40_000, OWNER));
    }

    #[test]
    fn would_admit_counts_nothing() {
        let limiter = RateLimiter::new(4);
        let rate = BucketRate { count: 1, seconds: 10 };
        let would_admit = |bucket, now| limiter.would_admit(bucket, rate, now, OWNER);
        assert!((0..5).all(|_| would_admit("a", 0)));
        assert!(limiter.admit("a", rate, 0, OWNER));
        assert!(!would_admit("a", 0) && !would_admit("b", 0));
        assert!(would_admit("a", 10_000) && would_admit("b", 10_001));
    }

    #[test]
    fn many_names_do_not_bypass_the_limit() {
        let limiter = RateLimiter::new(8);
        let rate = BucketRate { count: 1, seconds: 10 };
        let admit = |bucket, now| limiter.admit(bucket, rate, now, OWNER);
        assert!(admit("a", 0) && admit("b", 0));
        assert!(!admit("c", 0), "the share is full");
        assert!(!admit("a", 0), "the bucket is still in the table");
        let other = Owner { script: 2, client: None };
        assert!(limiter.admit("d", rate, 0, other), "another script has its own share");
        assert!(admit("c", 10_001), "the other buckets are empty by now");
    }
}
