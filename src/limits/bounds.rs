//! The rate and the credits of one record, and what they say of a request.

use crate::model::Mode;
use std::sync::Arc;

use super::{
    credit::{self, Purse, Spent},
    rate::{self, Rate},
};
use crate::model::{Credits, RateLimit, Timestamp};

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// The limits of one record, with what was taken of them. Shared by all that is made of the record, and handed on when it changes.
#[derive(Debug)]
pub struct Bounds {
    rate: Option<Rate>,
    purse: Option<Purse>,
}

/// What time it is, twice.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// On a clock that is never put back, in nanoseconds from some moment.
    pub ticks: u64,
    /// On the calendar.
    pub time: Timestamp,
}

/// What one limit says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Whether it is one of credits; else of a rate.
    pub is_credits: bool,
    /// Whether the request is within it.
    pub fits: bool,
    /// What there is of it in its time.
    pub quota: u32,
    /// The seconds of that time.
    pub window: u64,
    /// How many may come at once, where that is another number.
    pub burst: Option<u32>,
    /// How many are left.
    pub left: u32,
    /// The seconds until there are more, rounded up; where none is left, until one is.
    pub next: u64,
}

impl Bounds {
    /// The limits of a record; none where it has none.
    pub fn new(rate: Option<RateLimit>, credits: Option<Credits>) -> Option<Arc<Self>> {
        Self::renewed(None, rate, credits)
    }

    /// The limits of a record that was changed. What was taken of those that stay is taken of them still.
    pub fn renewed(
        before: Option<&Arc<Self>>,
        rate: Option<RateLimit>,
        credits: Option<Credits>,
    ) -> Option<Arc<Self>> {
        if rate.is_none() && credits.is_none() {
            return None;
        }
        if let Some(before) = before.filter(|one| (one.rate(), one.credits()) == (rate, credits)) {
            return Some(before.clone());
        }
        let (old_rate, old_purse) = match before {
            Some(before) => (before.rate.as_ref(), before.purse.as_ref()),
            None => (None, None),
        };
        let rate =
            rate.map(|limit| old_rate.map_or_else(|| Rate::new(limit), |old| old.replaced(limit)));
        let purse =
            credits.map(|new| old_purse.map_or_else(|| Purse::new(new), |old| old.replaced(new)));
        Some(Arc::new(Self { rate, purse }))
    }

    /// The rate.
    pub fn rate(&self) -> Option<RateLimit> {
        self.rate.as_ref().map(Rate::limit)
    }

    /// The credits.
    pub fn credits(&self) -> Option<Credits> {
        self.purse.as_ref().map(Purse::credits)
    }

    /// What was spent of the credits, if there are any.
    pub fn spent(&self) -> Option<Spent> {
        self.purse.as_ref().map(Purse::spent)
    }

    /// Takes in what was spent of the credits before the start.
    pub fn restore(&self, spent: Spent) {
        if let Some(purse) = &self.purse {
            purse.restore(spent);
        }
    }

    /// Takes one of each limit, or of none when one of them has none left, and tells each what it says.
    pub fn take(&self, now: Now, taken: Mode, mut tell: impl FnMut(Reading)) -> bool {
        let rate = self.rate.as_ref().map(|rate| match taken {
            Mode::Live => reading_of_rate(rate, rate.take(now.ticks)),
            Mode::DryRun => reading_of_rate(rate, rate.look(now.ticks)),
        });
        let has_rate = rate.is_none_or(|rate| rate.fits);
        let purse = self.purse.as_ref().map(|purse| match (taken, has_rate) {
            (Mode::Live, true) => reading_of_purse(purse, purse.take(now.time)),
            _ => reading_of_purse(purse, purse.look(now.time)),
        });
        let has_credits = purse.is_none_or(|purse| purse.fits);
        if let (Some(rate), Mode::Live, true, false) = (&self.rate, taken, has_rate, has_credits) {
            rate.give_back();
        }
        rate.into_iter().chain(purse).for_each(&mut tell);
        has_rate && has_credits
    }

    /// Gives back what [`Bounds::take`] has taken, because the request did not pass after all.
    pub fn give_back(&self, now: Now) {
        if let Some(rate) = &self.rate {
            rate.give_back();
        }
        if let Some(purse) = &self.purse {
            purse.give_back(now.time);
        }
    }
}

fn reading_of_rate(rate: &Rate, answer: rate::Answer) -> Reading {
    let limit = rate.limit();
    let burst = Some(limit.burst()).filter(|burst| *burst != limit.requests());
    Reading {
        is_credits: false,
        fits: answer.fits,
        quota: limit.requests(),
        window: limit.seconds(),
        burst,
        left: answer.left,
        next: answer.next.div_ceil(SECOND),
    }
}

fn reading_of_purse(purse: &Purse, answer: credit::Answer) -> Reading {
    Reading {
        is_credits: true,
        fits: answer.fits,
        quota: purse.credits().amount,
        window: answer.window,
        burst: None,
        left: answer.left,
        next: answer.next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now { ticks: 1_000_000 * SECOND, time: Timestamp(1_000_000) };

    fn bounds(rate: &str, credits: &str) -> Arc<Bounds> {
        let rate = RateLimit::parse("rate_limit", rate).ok();
        Bounds::new(rate, Credits::parse("credits", credits).ok()).unwrap()
    }

    fn take(bounds: &Bounds) -> bool {
        bounds.take(NOW, Mode::Live, |_| ())
    }

    #[test]
    fn what_one_limit_refuses_is_not_taken_of_the_other() {
        let bounds = bounds("5/1h", "2/day");
        assert_eq!((0..9).filter(|_| take(&bounds)).count(), 2);
        let mut said = Vec::new();
        bounds.take(NOW, Mode::DryRun, |reading| said.push((reading.fits, reading.left)));
        assert_eq!(said, [(true, 2), (false, 0)], "three of the rate are left");
        bounds.give_back(NOW);
        assert!(take(&bounds) && !take(&bounds));
    }

    #[test]
    fn a_look_takes_nothing() {
        let bounds = bounds("1/1h", "1/day");
        assert!((0..9).all(|_| bounds.take(NOW, Mode::DryRun, |_| ())));
        assert!(take(&bounds));
        assert!(!bounds.take(NOW, Mode::DryRun, |_| ()));
    }

    #[test]
    fn a_change_hands_on_what_was_taken() {
        let before = bounds("1/1h", "2/day");
        assert!(take(&before));
        let same = Bounds::renewed(Some(&before), before.rate(), before.credits()).unwrap();
        assert!(Arc::ptr_eq(&before, &same));
        let rate_alone = Bounds::renewed(Some(&before), before.rate(), None).unwrap();
        assert!(!take(&rate_alone));
        assert!(Bounds::renewed(Some(&before), None, None).is_none());
        let credits_alone = Bounds::renewed(Some(&before), None, before.credits()).unwrap();
        assert!(take(&credits_alone) && !take(&credits_alone));
    }

    #[test]
    fn a_reading_says_what_clients_are_told() {
        let mut said = Vec::new();
        bounds("6/1m burst 3", "5/day").take(NOW, Mode::Live, |reading| said.push(reading));
        let rate = Reading {
            is_credits: false,
            fits: true,
            quota: 6,
            window: 60,
            burst: Some(3),
            left: 2,
            next: 10,
        };
        assert_eq!(said[0], rate);
        assert_eq!((said[1].quota, said[1].window, said[1].left), (5, 86_400, 4));
    }
}
