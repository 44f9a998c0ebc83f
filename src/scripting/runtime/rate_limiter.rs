//! `rate_limit`: the generic cell rate algorithm (ITU-T I.371), one number a bucket, in a table that cannot grow without end.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Buckets, by a digest of their names.
pub(in crate::scripting) struct Rates {
    most: usize,
    /// When each bucket will be empty again, in microseconds.
    empties: Mutex<HashMap<[u8; 16], u64, foldhash::fast::RandomState>>,
}

/// How often, in what time.
#[derive(Debug, Clone, Copy)]
pub(in crate::scripting) struct Rate {
    pub count: u64,
    pub seconds: u64,
}

impl Rates {
    pub fn new(most: usize) -> Self {
        Self { most, empties: Mutex::default() }
    }

    /// Whether one more is within the rate. What is refused does not count.
    ///
    /// When all places of the table are in use, a new bucket is refused: letting it pass would make the limit one that is
    /// switched off by many names.
    pub fn admit(&self, bucket: &str, rate: Rate, now: u64) -> bool {
        let now = now.saturating_mul(1000);
        let window = rate.seconds.saturating_mul(1_000_000);
        // The time that one takes up; at least the smallest there is, or the limit would be none.
        let each = (window / rate.count.max(1)).max(1);
        let key = super::replay_cache::short_digest(bucket);
        let mut empties = self.empties.lock().unwrap_or_else(PoisonError::into_inner);
        if empties.len() >= self.most && !empties.contains_key(&key) {
            empties.retain(|_, empty| *empty > now);
            if empties.len() >= self.most {
                return false;
            }
        }
        let empty = empties.entry(key).or_insert(now);
        let next = (*empty).max(now).saturating_add(each);
        let fits = next - now <= window;
        if fits {
            *empty = next;
        }
        fits
    }

    /// What [`Rates::admit`] would say. Nothing is counted.
    pub fn would_admit(&self, bucket: &str, rate: Rate, now: u64) -> bool {
        let now = now.saturating_mul(1000);
        let window = rate.seconds.saturating_mul(1_000_000);
        let each = (window / rate.count.max(1)).max(1);
        let empties = self.empties.lock().unwrap_or_else(PoisonError::into_inner);
        match empties.get(&super::replay_cache::short_digest(bucket)) {
            Some(empty) => (*empty).max(now).saturating_add(each) - now <= window,
            None => empties.len() < self.most || empties.values().any(|empty| *empty <= now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_takes_its_count_at_once_and_then_one_at_a_time() {
        let rates = Rates::new(10);
        let rate = Rate { count: 3, seconds: 30 };
        let taken = |now| (0..5).filter(|_| rates.admit("a", rate, now)).count();
        assert_eq!(taken(0), 3);
        assert_eq!(taken(9_999), 0);
        assert_eq!(taken(10_000), 1);
        assert_eq!(taken(40_000), 3);
        assert!(rates.admit("b", rate, 40_000));
    }

    #[test]
    fn a_look_says_what_would_be_and_counts_nothing() {
        let rates = Rates::new(1);
        let rate = Rate { count: 1, seconds: 10 };
        assert!((0..5).all(|_| rates.would_admit("a", rate, 0)));
        assert!(rates.admit("a", rate, 0));
        assert!(!rates.would_admit("a", rate, 0) && !rates.would_admit("b", rate, 0));
        assert!(rates.would_admit("a", rate, 10_000) && rates.would_admit("b", rate, 10_001));
    }

    #[test]
    fn many_names_do_not_switch_the_limit_off() {
        let rates = Rates::new(2);
        let rate = Rate { count: 1, seconds: 10 };
        assert!(rates.admit("a", rate, 0) && rates.admit("b", rate, 0));
        assert!(!rates.admit("c", rate, 0), "full");
        assert!(!rates.admit("a", rate, 0), "not forgotten");
        assert!(rates.admit("c", rate, 10_001), "the others are empty by now");
    }
}
