//! A rate: the generic cell rate algorithm (ITU-T I.371, annex A), one number that any thread can move.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::model::RateLimit;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// What is left of a rate.
#[derive(Debug)]
pub(super) struct Rate {
    limit: RateLimit,
    /// The time that one request takes up, in nanoseconds.
    each: u64,
    /// The time that all of a burst take up.
    whole: u64,
    /// When all that was taken will have come back. Past: nothing is taken.
    back: AtomicU64,
}

/// What a rate says of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whether it fits.
    pub fits: bool,
    /// How many would fit after it, at once.
    pub left: u32,
    /// The nanoseconds until one more fits.
    pub next: u64,
}

impl Rate {
    pub fn new(limit: RateLimit) -> Self {
        let window = limit.seconds().saturating_mul(SECOND);
        // Rounded up: never more than the limit says.
        let each = window.div_ceil(limit.requests().into());
        let whole = each.saturating_mul(limit.burst().into());
        Self { limit, each, whole, back: AtomicU64::new(0) }
    }

    /// Another limit in the place of this one: what was taken stays taken, as far as the new one knows it.
    pub fn replaced(&self, limit: RateLimit) -> Self {
        let new = Self::new(limit);
        if limit == self.limit {
            new.back.store(self.back.load(Relaxed), Relaxed);
        }
        new
    }

    pub fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Takes one, if one is there. What does not fit is not counted.
    pub fn take(&self, now: u64) -> Answer {
        let mut seen = self.back.load(Relaxed);
        loop {
            let answer = self.answer(seen, now);
            if !answer.fits {
                return answer;
            }
            let back = seen.max(now).saturating_add(self.each);
            match self.back.compare_exchange_weak(seen, back, Relaxed, Relaxed) {
                Ok(_) => return answer,
                Err(other) => seen = other,
            }
        }
    }

    /// What [`Rate::take`] would say.
    pub fn look(&self, now: u64) -> Answer {
        self.answer(self.back.load(Relaxed), now)
    }

    /// Gives back one that was taken and not used.
    pub fn give_back(&self) {
        self.back.fetch_sub(self.each, Relaxed);
    }

    fn answer(&self, seen: u64, now: u64) -> Answer {
        let taken = seen.saturating_sub(now);
        let after = taken.saturating_add(self.each);
        if after > self.whole {
            return Answer { fits: false, left: 0, next: after - self.whole };
        }
        let left = u32::try_from((self.whole - after) / self.each).unwrap_or(u32::MAX);
        // One more is back when what is taken is a whole number of them again.
        let next = after - (after - 1) / self.each * self.each;
        Answer { fits: true, left, next }
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

    /// Long after the machine was started.
    const NOW: u64 = 1_000_000 * SECOND;

    #[test]
    fn a_burst_passes_at_once_and_then_one_at_a_time() {
        let rate = rate("6/1m burst 3");
        let taken = |now: u64| (0..9).filter(|_| rate.take(now).fits).count();
        assert_eq!(taken(NOW), 3);
        assert_eq!(taken(NOW + 10 * SECOND - 1), 0);
        assert_eq!(taken(NOW + 10 * SECOND), 1);
        assert_eq!(taken(NOW + 40 * SECOND), 3);
        assert_eq!(taken(NOW + 9999 * SECOND), 3);
    }

    #[test]
    fn what_is_left_is_told() {
        let rate = rate("6/1m burst 3");
        let told = |answer: Answer| (answer.fits, answer.left, answer.next / SECOND);
        assert_eq!(told(rate.look(NOW)), (true, 2, 10));
        assert_eq!(told(rate.take(NOW)), (true, 2, 10));
        assert_eq!(told(rate.take(NOW + SECOND)), (true, 1, 9));
        assert_eq!(told(rate.take(NOW + SECOND)), (true, 0, 9));
        assert_eq!(told(rate.take(NOW + 4 * SECOND)), (false, 0, 6));
        assert_eq!(told(rate.look(NOW + 4 * SECOND)), (false, 0, 6));
        rate.give_back();
        assert_eq!(told(rate.take(NOW + 4 * SECOND)), (true, 0, 6));
    }

    #[test]
    fn many_at_once_take_exactly_what_is_there() {
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
    fn another_limit_begins_anew_and_the_same_does_not() {
        let rate = rate("1/1h");
        assert!(rate.take(NOW).fits);
        assert!(!rate.replaced(rate.limit()).take(NOW).fits);
        let other = RateLimit::parse("rate_limit", "2/1h").unwrap();
        assert!(rate.replaced(other).take(NOW).fits);
    }

    proptest! {
        /// Whenever they come, in any stretch of time no more pass than the burst and what came back meanwhile.
        #[test]
        fn no_stretch_of_time_holds_more_than_it_may(
            requests in 1_u64..50, seconds in 1_i64..100, burst in 1_u64..20,
            steps in proptest::collection::vec(0_u64..3_000_000_000, 1..120),
        ) {
            let limit = RateLimit::new("r", requests, seconds, Some(burst)).unwrap();
            let rate = Rate::new(limit);
            let mut now = NOW;
            let mut passed = Vec::new();
            for step in steps {
                now += step;
                let looked = rate.look(now);
                let said = rate.take(now);
                prop_assert_eq!(looked, said);
                if said.fits {
                    passed.push(now);
                } else {
                    // Exactly when it says, and not before.
                    prop_assert!(!rate.look(now + said.next - 1).fits);
                    prop_assert!(rate.look(now + said.next).fits);
                }
            }
            let window = u128::from(limit.seconds()) * u128::from(SECOND);
            for (at, first) in passed.iter().enumerate() {
                for (count, last) in passed[at..].iter().enumerate() {
                    let came_back = u128::from(last - first) * u128::from(requests) / window;
                    prop_assert!((count as u128) < u128::from(burst) + came_back);
                }
            }
        }
    }
}
