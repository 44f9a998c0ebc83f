//! What is counted of all requests together, by one clock.

use std::{net::IpAddr, sync::Arc};

use super::{
    Attempt, Denial, DenialLimits, FailureLimits, LimitExceeded, Now, Rest, Untold, Unwritten,
    Used, Wait, denial_log::Denials, failures::FailureLimiter, usage::Usage,
};
use crate::model::{Clock, KeyId};

/// The uses and the denials that are to be written, and the failures. A cheap handle.
#[derive(Clone)]
pub struct Counters(Arc<Inner>);

struct Inner {
    clock: Clock,
    usage: Usage,
    flood: FailureLimiter,
    denials: Denials,
}

impl Counters {
    /// An empty one.
    pub fn new(clock: Clock, failures: FailureLimits, denials: DenialLimits) -> Self {
        let (usage, flood) = (Usage::new(), FailureLimiter::new(failures));
        Self(Arc::new(Inner { clock, usage, flood, denials: Denials::new(denials) }))
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        Now { ticks: self.0.clock.ticks(), time: self.0.clock.roughly() }
    }

    /// A key was used.
    pub fn used(&self, key: KeyId) {
        self.0.usage.count(key, self.0.clock.roughly());
    }

    /// A user has spent credits.
    pub fn spent(&self, uid: u64) {
        self.0.usage.spent(uid);
    }

    /// What is not written yet of a key's use.
    pub fn unwritten(&self, key: KeyId) -> Used {
        self.0.usage.of(key)
    }

    /// Takes out all that is to be written.
    pub fn take(&self) -> Unwritten {
        self.0.usage.take()
    }

    /// Takes back what could not be written.
    pub fn put_back(&self, unwritten: Unwritten) {
        for (key, used) in unwritten.keys {
            self.0.usage.add(key, used);
        }
        unwritten.spenders.into_iter().for_each(|uid| self.0.usage.spent(uid));
    }

    /// Whether a password may be looked at.
    ///
    /// # Errors
    /// There were too many wrong ones from this address.
    pub fn attempt(&self, client: IpAddr, user: &str) -> Result<Attempt, Wait> {
        self.0.flood.attempt(client, user, self.0.clock.ticks())
    }

    /// The password was wrong; `uid` is the user's, where there is one of the name.
    pub fn failed(&self, attempt: Attempt, uid: Option<u64>) {
        self.0.flood.failed(attempt, uid, self.0.clock.ticks());
    }

    /// Whether there were too many wrong credentials from this address.
    pub fn is_over(&self, client: IpAddr) -> bool {
        self.0.flood.is_over(client, self.0.clock.ticks())
    }

    /// A credential was wrong, of whatever kind. None: what is wrong is told.
    pub fn count_failure(&self, client: IpAddr) -> Option<Wait> {
        self.0.flood.count(client, self.0.clock.ticks())
    }

    /// Takes out those who were wrong too often.
    pub fn take_crossed(&self) -> Vec<LimitExceeded> {
        self.0.flood.take_crossed()
    }

    /// What is counted of failures, and what is told of denials.
    pub fn limits(&self) -> (FailureLimits, DenialLimits) {
        (self.0.flood.limits().clone(), self.0.denials.limits())
    }

    /// A request was refused.
    pub fn denied(&self, denial: Denial<'_>) {
        self.0.denials.count(denial, self.now());
    }

    /// Takes out at most so many denials that are to be written, and those that are told together when it is time.
    pub fn take_denials(&self, most: usize, rest: Rest) -> Untold {
        self.0.denials.take(most, rest, self.now())
    }

    /// Takes back those that could not be written.
    pub fn put_back_denials(&self, untold: Untold) {
        self.0.denials.put_back(untold);
    }
}
