//! Credits: how many were spent in a period of the calendar, in one number that any thread can move.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::model::{Credits, Refill, Timestamp};

/// What is left of credits.
#[derive(Debug)]
pub(super) struct Purse {
    credits: Credits,
    /// The period's number, and what was spent in it.
    spent: AtomicU64,
}

/// What was spent of credits, as it is kept over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// When they come back.
    pub refill: Refill,
    /// The number of the day, week or month.
    pub period: u32,
    /// How many.
    pub credits: u32,
}

/// What a purse says of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whether one is there.
    pub fits: bool,
    /// How many are left after it.
    pub left: u32,
    /// The seconds until they come back.
    pub next: u64,
    /// The seconds of the whole period.
    pub window: u64,
}

impl Spent {
    fn pack(self) -> u64 {
        u64::from(self.period) << 32 | u64::from(self.credits)
    }

    fn unpack(number: u64, refill: Refill) -> Self {
        let half = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Self { refill, period: half(number >> 32), credits: half(number) }
    }
}

impl Purse {
    pub fn new(credits: Credits) -> Self {
        Self { credits, spent: AtomicU64::new(0) }
    }

    /// Another amount in the place of this one: what was spent in this period stays spent. Another calendar begins anew.
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

    /// What was spent so far.
    pub fn spent(&self) -> Spent {
        Spent::unpack(self.spent.load(Relaxed), self.credits.refill)
    }

    /// Takes in what was spent before the start. By another calendar it means nothing.
    pub fn restore(&self, spent: Spent) {
        if spent.refill == self.credits.refill {
            self.spent.fetch_max(spent.pack(), Relaxed);
        }
    }

    /// Spends one, if one is there.
    pub fn take(&self, now: Timestamp) -> Answer {
        let mut seen = self.spent.load(Relaxed);
        loop {
            let (answer, spent) = self.answer(seen, now);
            if !answer.fits {
                return answer;
            }
            let next = Spent { credits: spent.credits + 1, ..spent }.pack();
            match self.spent.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return answer,
                Err(other) => seen = other,
            }
        }
    }

    /// What [`Purse::take`] would say.
    pub fn look(&self, now: Timestamp) -> Answer {
        self.answer(self.spent.load(Relaxed), now).0
    }

    /// Gives back one that was spent for nothing. In another period by now: there is nothing to give back.
    pub fn give_back(&self, now: Timestamp) {
        let period = self.credits.refill.period(now).number;
        let _ = self.spent.fetch_update(Relaxed, Relaxed, |seen| {
            let spent = Spent::unpack(seen, self.credits.refill);
            let is_its_own = spent.period == period && spent.credits > 0;
            is_its_own.then(|| Spent { credits: spent.credits - 1, ..spent }.pack())
        });
    }

    fn answer(&self, seen: u64, now: Timestamp) -> (Answer, Spent) {
        let period = self.credits.refill.period(now);
        let mut spent = Spent::unpack(seen, self.credits.refill);
        // A clock that is put back a little gives nothing back. One that was far ahead does not count for years.
        if !(period.number..=period.number.saturating_add(1)).contains(&spent.period) {
            spent = Spent { period: period.number, credits: 0, ..spent };
        }
        let seconds = |from: i64, to: i64| to.saturating_sub(from).unsigned_abs();
        let answer = Answer {
            fits: spent.credits < self.credits.amount,
            left: self.credits.amount.saturating_sub(spent.credits.saturating_add(1)),
            next: seconds(now.0, period.ends.0),
            window: seconds(period.begins.0, period.ends.0),
        };
        (answer, spent)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        thread,
    };

    use super::*;

    fn purse(text: &str) -> Purse {
        Purse::new(Credits::parse("credits", text).unwrap())
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn credits_are_used_up_and_come_back_at_midnight() {
        let purse = purse("2/day");
        let evening = at("2026-03-01T23:59:50Z");
        let told = |answer: Answer| (answer.fits, answer.left, answer.next);
        assert_eq!(told(purse.look(evening)), (true, 1, 10));
        assert_eq!(told(purse.take(evening)), (true, 1, 10));
        assert_eq!(told(purse.take(evening)), (true, 0, 10));
        assert_eq!(told(purse.take(evening)), (false, 0, 10));
        purse.give_back(evening);
        assert_eq!(told(purse.take(evening)), (true, 0, 10));
        let midnight = at("2026-03-02T00:00:00Z");
        assert_eq!(told(purse.take(midnight)), (true, 1, 86_400));
        // Of yesterday there is nothing to give back.
        purse.give_back(evening);
        assert_eq!(purse.spent().credits, 1);
        // The clock is put back: what was spent today is not given again.
        assert_eq!(told(purse.take(evening)), (true, 0, 10));
        assert!(!purse.take(evening).fits);
        // It had been years ahead: that is no reason to wait for years.
        assert!(purse.take(at("2020-01-01T00:00:00Z")).fits);
    }

    #[test]
    fn a_restart_gives_nothing_back() {
        let (before, after) = (purse("5/week"), purse("5/week"));
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
        // What is kept of another calendar is not taken in.
        let monthly = purse("1/month");
        monthly.restore(Spent { credits: 9, ..before.spent() });
        assert!(monthly.take(now).fits);
    }

    #[test]
    fn many_at_once_spend_exactly_what_is_there() {
        let (purse, passed, now) = (purse("100/month"), AtomicUsize::new(0), Timestamp(1_000_000));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let fit = (0..100).filter(|_| purse.take(now).fits).count();
                    passed.fetch_add(fit, SeqCst);
                });
            }
        });
        assert_eq!((passed.load(SeqCst), purse.spent().credits), (100, 100));
    }
}
