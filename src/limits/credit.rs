//! Credits per calendar period: an atomic count of the spent credits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::model::{Credits, Refill, Timestamp};

/// A limit of credits, with the count of spent credits.
#[derive(Debug)]
pub(super) struct CreditUse {
    credits: Credits,
    /// The period's number (upper 32 bits) and the credits spent in it (lower 32 bits).
    spent: AtomicU64,
}

/// The number of credits spent in a period, in the form that the store keeps for the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// The refill period of the credits.
    pub refill: Refill,
    /// The number of the day, week or month; see [`Period::number`](crate::model::Period::number).
    pub period: u32,
    /// The number of credits spent.
    pub credits: u32,
}

/// The outcome of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CreditOutcome {
    /// Whether a credit is available.
    pub fits: bool,
    /// The number of credits that are left after the request.
    pub left: u32,
    /// The time until the next refill, in seconds.
    pub next: u64,
    /// The length of the period, in seconds.
    pub window: u64,
}

impl Spent {
    fn pack(self) -> u64 {
        u64::from(self.period) << 32 | u64::from(self.credits)
    }

    fn unpack(number: u64, refill: Refill) -> Self {
        let low_bits =
            |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Self { refill, period: low_bits(number >> 32), credits: low_bits(number) }
    }
}

impl CreditUse {
    pub fn new(credits: Credits) -> Self {
        Self { credits, spent: AtomicU64::new(0) }
    }

    /// A limit with a new amount. The credits spent in this period stay spent, unless the refill
    /// period changes.
    pub fn replaced(&self, credits: Credits) -> Self {
        let new = Self::new(credits);
        if credits.refill == self.credits.refill {
            new.spent.store(self.spent.load(Relaxed), Relaxed);
        }
        new
    }

    pub fn credits(&self) -> Credits {
        self.credits
    }

    /// The credits spent in the period of the last request.
    pub fn spent(&self) -> Spent {
        Spent::unpack(self.spent.load(Relaxed), self.credits.refill)
    }

    /// Restores the credits that were spent before the start. Has no effect if the refill period
    /// has changed since.
    pub fn restore(&self, spent: Spent) {
        if spent.refill == self.credits.refill {
            self.spent.fetch_max(spent.pack(), Relaxed);
        }
    }

    /// Spends one credit, if one is available.
    pub fn take(&self, now: Timestamp) -> CreditOutcome {
        let mut packed = self.spent.load(Relaxed);
        loop {
            let (outcome, spent) = self.check(packed, now);
            if !outcome.fits {
                return outcome;
            }
            let next = Spent { credits: spent.credits + 1, ..spent }.pack();
            match self.spent.compare_exchange_weak(packed, next, Relaxed, Relaxed) {
                Ok(_) => return outcome,
                Err(current) => packed = current,
            }
        }
    }

    /// The outcome that [`CreditUse::take`] would return.
    pub fn peek(&self, now: Timestamp) -> CreditOutcome {
        self.check(self.spent.load(Relaxed), now).0
    }

    /// Gives back the credit of a request that was rejected later, unless a new period has begun.
    pub fn give_back(&self, now: Timestamp) {
        let period = self.credits.refill.period(now).number;
        let _ = self.spent.fetch_update(Relaxed, Relaxed, |packed| {
            let spent = Spent::unpack(packed, self.credits.refill);
            let is_current = spent.period == period && spent.credits > 0;
            is_current.then(|| Spent { credits: spent.credits - 1, ..spent }.pack())
        });
    }

    /// The outcome of one more request, and the credits spent before it.
    fn check(&self, packed: u64, now: Timestamp) -> (CreditOutcome, Spent) {
        let period = self.credits.refill.period(now);
        let mut spent = Spent::unpack(packed, self.credits.refill);
        // If the clock is set back into the previous period, the spent credits of the later period
        // still count, so nothing is refilled. Only one period is tolerated: otherwise a clock that
        // was years ahead would block requests for years.
        if !(period.number..=period.number.saturating_add(1)).contains(&spent.period) {
            spent = Spent { period: period.number, credits: 0, ..spent };
        }
        let seconds = |from: i64, to: i64| to.saturating_sub(from).unsigned_abs();
        let outcome = CreditOutcome {
            fits: spent.credits < self.credits.amount,
            left: self.credits.amount.saturating_sub(spent.credits.saturating_add(1)),
            next: seconds(now.0, period.ends.0),
            window: seconds(period.begins.0, period.ends.0),
        };
        (outcome, spent)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        thread,
    };

    use super::*;

    fn credits(text: &str) -> CreditUse {
        CreditUse::new(Credits::parse("credits", text).unwrap())
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn credits_are_used_up_and_refilled_at_midnight() {
        let credits = credits("2/day");
        let evening = at("2026-03-01T23:59:50Z");
        let numbers = |outcome: CreditOutcome| (outcome.fits, outcome.left, outcome.next);
        assert_eq!(numbers(credits.peek(evening)), (true, 1, 10));
        assert_eq!(numbers(credits.take(evening)), (true, 1, 10));
        assert_eq!(numbers(credits.take(evening)), (true, 0, 10));
        assert_eq!(numbers(credits.take(evening)), (false, 0, 10));
        credits.give_back(evening);
        assert_eq!(numbers(credits.take(evening)), (true, 0, 10));
        let midnight = at("2026-03-02T00:00:00Z");
        assert_eq!(numbers(credits.take(midnight)), (true, 1, 86_400));
        // A credit that was spent yesterday cannot be given back.
        credits.give_back(evening);
        assert_eq!(credits.spent().credits, 1);
        // The clock is set back to yesterday: the credits that were spent today still count.
        assert_eq!(numbers(credits.take(evening)), (true, 0, 10));
        assert!(!credits.take(evening).fits);
        // The clock was years ahead and is set back. Requests must not be blocked for years.
        assert!(credits.take(at("2020-01-01T00:00:00Z")).fits);
    }

    #[test]
    fn spent_credits_survive_a_restart_and_a_new_amount() {
        let (before, after) = (credits("5/week"), credits("5/week"));
        let now = at("2026-03-04T12:00:00Z");
        assert!((0..3).all(|_| before.take(now).fits));
        after.restore(before.spent());
        assert_eq!((0..9).filter(|_| after.take(now).fits).count(), 2);
        let more = Credits::parse("credits", "6/week").unwrap();
        assert_eq!((0..9).filter(|_| after.replaced(more).take(now).fits).count(), 9);
        let raised = after.replaced(more);
        assert_eq!((0..9).filter(|_| raised.take(now).fits).count(), 1);
        let other = after.replaced(Credits::parse("credits", "5/day").unwrap());
        assert!(other.take(now).fits);
        // Credits of another refill period are not restored.
        let monthly = credits("1/month");
        monthly.restore(Spent { credits: 9, ..before.spent() });
        assert!(monthly.take(now).fits);
    }

    #[test]
    fn concurrent_requests_spend_exactly_what_is_available() {
        let (credits, passed, now) =
            (credits("100/month"), AtomicUsize::new(0), Timestamp(1_000_000));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let fit = (0..100).filter(|_| credits.take(now).fits).count();
                    passed.fetch_add(fit, SeqCst);
                });
            }
        });
        assert_eq!((passed.load(SeqCst), credits.spent().credits), (100, 100));
    }
}
