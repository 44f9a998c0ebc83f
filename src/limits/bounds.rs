//! The limits of one record, a rate and credits, applied to a request.

use std::sync::Arc;

use super::{
    credit::{CreditOutcome, CreditUse, Spent},
    rate::{Rate, RateOutcome},
};
use crate::model::{Credits, Mode, RateLimit, Timestamp};

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// The limits of one record, with the counts of requests. All versions of a record share the
/// counts, so a change of the record does not reset them.
#[derive(Debug)]
pub struct Bounds {
    rate: Option<Rate>,
    credits: Option<CreditUse>,
}

/// The current time on two clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The monotonic clock, in ns since an arbitrary moment.
    pub ticks: u64,
    /// The wall clock.
    pub time: Timestamp,
}

/// The state of one limit after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitStatus {
    /// `true` means that the limit is a number of credits, `false` that the limit is a rate.
    pub is_credits: bool,
    /// Whether the request is within the limit.
    pub fits: bool,
    /// The number of requests per window.
    pub quota: u32,
    /// The length of the window, in seconds.
    pub window: u64,
    /// The burst, if it differs from the quota.
    pub burst: Option<u32>,
    /// The number of requests that are left.
    pub left: u32,
    /// The time until one more request is available, in seconds, rounded up.
    pub next: u64,
}

impl Bounds {
    /// The limits of a record. `None` means the record has no limits.
    pub fn new(rate: Option<RateLimit>, credits: Option<Credits>) -> Option<Arc<Self>> {
        Self::renewed(None, rate, credits)
    }

    /// The limits of a changed record. A limit that does not change keeps its count, and so do
    /// credits whose amount changes.
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
        let old_rate = before.and_then(|before| before.rate.as_ref());
        let old_credits = before.and_then(|before| before.credits.as_ref());
        let rate =
            rate.map(|limit| old_rate.map_or_else(|| Rate::new(limit), |old| old.replaced(limit)));
        let credits = credits
            .map(|new| old_credits.map_or_else(|| CreditUse::new(new), |old| old.replaced(new)));
        Some(Arc::new(Self { rate, credits }))
    }

    /// The rate. `None` means that there is no rate limit.
    pub fn rate(&self) -> Option<RateLimit> {
        self.rate.as_ref().map(Rate::limit)
    }

    /// The credits. `None` means that there is no limit of credits.
    pub fn credits(&self) -> Option<Credits> {
        self.credits.as_ref().map(CreditUse::credits)
    }

    /// The credits spent in the current period. `None` means there is no limit of credits.
    pub fn spent(&self) -> Option<Spent> {
        self.credits.as_ref().map(CreditUse::spent)
    }

    /// Restores the credits that were spent before the start.
    pub fn restore(&self, spent: Spent) {
        if let Some(credits) = &self.credits {
            credits.restore(spent);
        }
    }

    /// Takes one request from each limit, and returns `true`. If a limit has no request left, takes
    /// nothing from any limit and returns `false`. Calls `report` with the status of each limit.
    pub fn take(&self, now: Now, mode: Mode, mut report: impl FnMut(LimitStatus)) -> bool {
        let rate = self.rate.as_ref().map(|rate| match mode {
            Mode::Live => rate_status(rate, rate.take(now.ticks)),
            Mode::DryRun => rate_status(rate, rate.peek(now.ticks)),
        });
        let has_rate = rate.is_none_or(|rate| rate.fits);
        let credits = self.credits.as_ref().map(|credits| match (mode, has_rate) {
            (Mode::Live, true) => credit_status(credits, credits.take(now.time)),
            _ => credit_status(credits, credits.peek(now.time)),
        });
        let has_credits = credits.is_none_or(|credits| credits.fits);
        if let (Some(rate), Mode::Live, true, false) = (&self.rate, mode, has_rate, has_credits) {
            rate.give_back();
        }
        rate.into_iter().chain(credits).for_each(&mut report);
        has_rate && has_credits
    }

    /// Gives back the request that [`Bounds::take`] took, because the request was rejected later.
    pub fn give_back(&self, now: Now) {
        if let Some(rate) = &self.rate {
            rate.give_back();
        }
        if let Some(credits) = &self.credits {
            credits.give_back(now.time);
        }
    }
}

fn rate_status(rate: &Rate, outcome: RateOutcome) -> LimitStatus {
    let limit = rate.limit();
    let burst = Some(limit.burst()).filter(|burst| *burst != limit.requests());
    LimitStatus {
        is_credits: false,
        fits: outcome.fits,
        quota: limit.requests(),
        window: limit.seconds(),
        burst,
        left: outcome.left,
        next: outcome.next.div_ceil(SECOND),
    }
}

fn credit_status(credits: &CreditUse, outcome: CreditOutcome) -> LimitStatus {
    LimitStatus {
        is_credits: true,
        fits: outcome.fits,
        quota: credits.credits().amount,
        window: outcome.window,
        burst: None,
        left: outcome.left,
        next: outcome.next,
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
    fn request_refused_by_one_limit_takes_nothing_of_the_other() {
        let bounds = bounds("5/1h", "2/day");
        assert_eq!((0..9).filter(|_| take(&bounds)).count(), 2);
        let mut statuses = Vec::new();
        bounds.take(NOW, Mode::DryRun, |status| statuses.push((status.fits, status.left)));
        assert_eq!(
            statuses,
            [(true, 2), (false, 0)],
            "the rate has three requests left, two after this one"
        );
        bounds.give_back(NOW);
        assert!(take(&bounds) && !take(&bounds));
    }

    #[test]
    fn dry_run_takes_nothing() {
        let bounds = bounds("1/1h", "1/day");
        assert!((0..9).all(|_| bounds.take(NOW, Mode::DryRun, |_| ())));
        assert!(take(&bounds));
        assert!(!bounds.take(NOW, Mode::DryRun, |_| ()));
    }

    #[test]
    fn changed_record_keeps_the_counts_of_its_limits() {
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
    fn status_has_the_numbers_for_clients() {
        let mut statuses = Vec::new();
        bounds("6/1m burst 3", "5/day").take(NOW, Mode::Live, |status| statuses.push(status));
        let rate = LimitStatus {
            is_credits: false,
            fits: true,
            quota: 6,
            window: 60,
            burst: Some(3),
            left: 2,
            next: 10,
        };
        assert_eq!(statuses[0], rate);
        assert_eq!((statuses[1].quota, statuses[1].window, statuses[1].left), (5, 86_400, 4));
    }
}
