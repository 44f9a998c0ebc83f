//! Counters that all requests share: uses of keys, failures and denials, on one clock.

use std::{net::IpAddr, sync::Arc};

use super::{
    DenialLimits, DeniedRequest, FailureLimits, LimitExceeded, Now, PasswordAttempt,
    PendingDenials, RetryAfter, SummaryDue, Unwritten, Used, denial_log::DenialLog,
    failures::FailureLimiter, usage::Usage,
};
use crate::model::{Clock, KeyId};

/// A cheap handle to three counters: the uses of keys and the denials that are not yet written to
/// the store, and the recent failures of clients.
#[derive(Clone)]
pub struct Counters(Arc<Tables>);

struct Tables {
    clock: Clock,
    usage: Usage,
    failures: FailureLimiter,
    denials: DenialLog,
}

impl Counters {
    /// Empty counters.
    pub fn new(clock: Clock, failures: FailureLimits, denials: DenialLimits) -> Self {
        Self(Arc::new(Tables {
            clock,
            usage: Usage::new(),
            failures: FailureLimiter::new(failures),
            denials: DenialLog::new(denials),
        }))
    }

    /// The current time.
    pub fn now(&self) -> Now {
        Now { ticks: self.0.clock.ticks(), time: self.0.clock.roughly() }
    }

    /// Counts a use of a key.
    pub fn used(&self, key: KeyId) {
        self.0.usage.count(key, self.0.clock.roughly());
    }

    /// Remembers that a user has spent credits, so that the user's count is written to the store.
    pub fn spent(&self, uid: u64) {
        self.0.usage.spent(uid);
    }

    /// The uses of a key that are not yet written to the store.
    pub fn unwritten(&self, key: KeyId) -> Used {
        self.0.usage.of(key)
    }

    /// Takes out all uses that are not yet written to the store.
    pub fn take(&self) -> Unwritten {
        self.0.usage.take()
    }

    /// Puts back uses that could not be written.
    pub fn put_back(&self, unwritten: Unwritten) {
        for (key, used) in unwritten.keys {
            self.0.usage.add(key, used);
        }
        unwritten.users_with_spent_credits.into_iter().for_each(|uid| self.0.usage.spent(uid));
    }

    /// Whether a password may be checked.
    ///
    /// # Errors
    /// This address has sent too many wrong passwords.
    pub fn attempt(&self, client: IpAddr, user: &str) -> Result<PasswordAttempt, RetryAfter> {
        self.0.failures.attempt(client, user, self.0.clock.ticks())
    }

    /// Counts a wrong password before it is checked.
    ///
    /// # Errors
    /// Other passwords of this address that are being checked use up the limit.
    pub fn begin(&self, attempt: PasswordAttempt) -> Result<(), RetryAfter> {
        self.0.failures.begin(attempt, self.0.clock.ticks())
    }

    /// Takes back the count of a password that was right or could not be checked.
    pub fn was_right(&self, attempt: PasswordAttempt) {
        self.0.failures.was_right(attempt);
    }

    /// Reports the limits that a wrong password has used up. A `uid` of `None` means that no user
    /// has the presented name.
    pub fn was_wrong(&self, attempt: PasswordAttempt, uid: Option<u64>) {
        self.0.failures.was_wrong(attempt, uid, self.0.clock.ticks());
    }

    /// Whether this address has exceeded the limit of wrong credentials.
    pub fn is_over(&self, client: IpAddr) -> bool {
        self.0.failures.is_over(client, self.0.clock.ticks())
    }

    /// Counts a wrong credential of any kind. `None` means that the limit is not exceeded.
    pub fn count_failure(&self, client: IpAddr) -> Option<RetryAfter> {
        self.0.failures.count(client, self.0.clock.ticks())
    }

    /// Takes back a failure that was counted before a check, because the check has ended.
    pub fn uncount_failure(&self, client: IpAddr) {
        self.0.failures.uncount(client);
    }

    /// Takes out the queued reports about clients that exceeded a failure limit.
    pub fn take_exceeded(&self) -> Vec<LimitExceeded> {
        self.0.failures.take_exceeded()
    }

    /// The limits of failures and of logged denials.
    pub fn limits(&self) -> (FailureLimits, DenialLimits) {
        (self.0.failures.limits().clone(), self.0.denials.limits())
    }

    /// Whether a failure limit counts by the client's address.
    pub fn counts_failures(&self) -> bool {
        let limits = self.0.failures.limits();
        limits.passwords > 0 || limits.passwords_per_address > 0 || limits.per_address > 0
    }

    /// Counts a denied request.
    pub fn denied(&self, denial: DeniedRequest<'_>) {
        self.0.denials.count(denial, self.now());
    }

    /// Takes out at most `max` entries that are not yet written and, if the summary is due, the
    /// summary.
    pub fn take_denials(&self, max: usize, summary_due: SummaryDue) -> PendingDenials {
        self.0.denials.take(max, summary_due, self.now())
    }

    /// Puts back denials that could not be written.
    pub fn put_back_denials(&self, pending: PendingDenials) {
        self.0.denials.put_back(pending);
    }
}
