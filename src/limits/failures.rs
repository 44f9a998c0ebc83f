//! Failure limits: how often an address may present a wrong credential.
//!
//! *Keys* cannot be guessed, so a correct key always passes, even from an address that exceeds the
//! limit. From such an address, a wrong key gets a 429 instead of the usual denial. *Passwords* can
//! be guessed, so passwords from such an address are not checked at all.
//!
//! Failures are counted by address, so a client is not locked out by failures from another address.

use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher as _,
    net::IpAddr,
};

use ipnet::IpNet;
use parking_lot::{Mutex, MutexGuard};

use super::gcra::{Conformance, Gcra};
use crate::model::{client_network, fold};

/// The number of shards of the table. A thread waits only for threads that use the same shard.
const SHARDS: usize = 16;
/// The number of entries that are compared to choose the entry to evict from a full shard.
const EVICTION_SAMPLE: usize = 16;
/// The maximum number of clients that are reported per window.
const MAX_REPORTED: usize = 1024;
const SECOND: u64 = 1_000_000_000;

/// The limits of failed authentications. `0` means no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureLimits {
    /// The window, in seconds.
    pub seconds: u32,
    /// The maximum number of wrong passwords of one user name from one address, per window.
    pub passwords: u32,
    /// The maximum number of wrong passwords from one address, per window.
    pub passwords_per_address: u32,
    /// The maximum number of wrong credentials of any kind from one address, per window.
    pub per_address: u32,
    /// Networks whose failures are not counted.
    pub exempt: Vec<IpNet>,
    /// The maximum number of remembered clients. When more clients fail, clients whose entries
    /// would expire soon are forgotten.
    pub entries: usize,
}

/// Counts failures by client.
pub(super) struct FailureLimiter {
    limits: FailureLimits,
    hasher: RandomState,
    /// The clients that were reported, each with the end of its window in ns.
    reported: Mutex<HashMap<ClientKey, u64>>,
    /// The reports that nobody has taken out yet.
    exceeded: Mutex<VecDeque<LimitExceeded>>,
    /// The GCRA theoretical arrival time of each client, in ns. A time in the past means that the
    /// client has no recent failures.
    shards: Box<[Mutex<HashMap<ClientKey, u64>>; SHARDS]>,
}

/// The permission to check a password, with the counters for a wrong password. `None` means that a
/// wrong password is not counted.
#[derive(Debug, Clone, Copy)]
pub struct PasswordAttempt(Option<[(ClientKey, u32); 2]>);

/// The client whose failures an entry counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ClientKey {
    credential: CredentialKind,
    /// The address. An IPv6 address is reduced to its first 64 bits, because one client usually has
    /// a whole network of this size.
    network: u128,
    /// A hash of the presented user name, which need not exist. `None` means that the entry counts
    /// failures with any user name.
    user: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum CredentialKind {
    Password,
    Any,
}

/// The report that a client exceeded a failure limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitExceeded {
    /// The client's address, or the /64 network of an IPv6 address.
    pub client: IpAddr,
    /// The limit that was exceeded.
    pub limit: FailureKind,
    /// The user whose passwords were tried. `None` means that the tried name belongs to no user, or
    /// that the limit counts all names.
    pub uid: Option<u64>,
}

/// The kinds of failures that are counted separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Wrong passwords of one user name from one address.
    Passwords,
    /// Wrong passwords from one address.
    PasswordsOfAddress,
    /// Wrong credentials of any kind from one address.
    Credentials,
}

/// The time until the next attempt is allowed, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter(pub u64);

impl FailureLimits {
    /// The limits that the server has by default.
    pub fn usual() -> Self {
        Self {
            seconds: 900,
            passwords: 5,
            passwords_per_address: 20,
            per_address: 100,
            exempt: Vec::new(),
            entries: 65_536,
        }
    }

    /// No limits.
    pub fn none() -> Self {
        Self {
            seconds: 900,
            passwords: 0,
            passwords_per_address: 0,
            per_address: 0,
            exempt: Vec::new(),
            entries: 0,
        }
    }
}

impl FailureLimiter {
    pub fn new(limits: FailureLimits) -> Self {
        Self {
            limits,
            hasher: RandomState::new(),
            reported: Mutex::default(),
            exceeded: Mutex::default(),
            shards: Box::new(std::array::from_fn(|_| Mutex::default())),
        }
    }

    /// The limits.
    pub fn limits(&self) -> &FailureLimits {
        &self.limits
    }

    /// Whether a password may be checked.
    ///
    /// # Errors
    /// This address has sent too many wrong passwords, for this user name or for all user names.
    pub fn attempt(
        &self,
        client: IpAddr,
        user: &str,
        now: u64,
    ) -> Result<PasswordAttempt, RetryAfter> {
        let limits = &self.limits;
        if self.is_exempt(client) || (limits.passwords, limits.passwords_per_address) == (0, 0) {
            return Ok(PasswordAttempt(None));
        }
        let network = client_network(client);
        let client = |user| ClientKey { credential: CredentialKind::Password, network, user };
        let user = self.hasher.hash_one(fold(user));
        let counters =
            [(client(Some(user)), limits.passwords), (client(None), limits.passwords_per_address)];
        let waits = counters.iter().filter_map(|(client, limit)| {
            let arrival = *self.shard(client).get(client)?;
            self.wait(arrival, *limit, now)
        });
        match waits.max() {
            Some(wait) => Err(RetryAfter(wait.div_ceil(SECOND))),
            None => Ok(PasswordAttempt(Some(counters))),
        }
    }

    /// Counts a wrong password before it is checked, so that a client that sends many passwords at
    /// the same time gets no more checks than one that sends them one after the other.
    /// [`FailureLimiter::was_right`] takes the count back.
    ///
    /// # Errors
    /// Other passwords that are being checked use up the limit.
    pub fn begin(&self, attempt: PasswordAttempt, now: u64) -> Result<(), RetryAfter> {
        let counters = attempt.0.into_iter().flatten().filter(|(_, limit)| *limit > 0);
        let mut counted = Vec::new();
        for (client, limit) in counters {
            let mut shard = self.shard(&client);
            let arrival = self.entry(&mut shard, client, now);
            if let Some(wait) = self.wait(*arrival, limit, now) {
                drop(shard);
                self.take_back(counted);
                return Err(RetryAfter(wait.div_ceil(SECOND)));
            }
            *arrival = self.gcra(limit).next(*arrival, now);
            counted.push((client, limit));
        }
        Ok(())
    }

    /// Takes back what [`FailureLimiter::begin`] counted, because the password was right or could
    /// not be checked.
    pub fn was_right(&self, attempt: PasswordAttempt) {
        self.take_back(attempt.0.into_iter().flatten());
    }

    fn take_back(&self, counted: impl IntoIterator<Item = (ClientKey, u32)>) {
        for (client, limit) in counted.into_iter().filter(|(_, limit)| *limit > 0) {
            if let Some(arrival) = self.shard(&client).get_mut(&client) {
                *arrival = arrival.saturating_sub(self.gcra(limit).interval);
            }
        }
    }

    /// Reports the limits that a wrong password has used up. `uid` is its user.
    pub fn was_wrong(&self, attempt: PasswordAttempt, uid: Option<u64>, now: u64) {
        for (client, limit) in attempt.0.into_iter().flatten().filter(|(_, limit)| *limit > 0) {
            let arrival = self.shard(&client).get(&client).copied();
            if arrival.is_some_and(|arrival| self.wait(arrival, limit, now).is_some()) {
                self.report(client, uid.filter(|_| client.user.is_some()), now);
            }
        }
    }

    /// Queues a report that a client exceeded a limit, but at most one report per client and
    /// window.
    fn report(&self, client: ClientKey, uid: Option<u64>, now: u64) {
        let mut reported = self.reported.lock();
        if reported.get(&client).is_some_and(|until| *until > now) {
            return;
        }
        if reported.len() >= MAX_REPORTED {
            reported.retain(|_, until| *until > now);
        }
        if reported.len() >= MAX_REPORTED {
            return;
        }
        reported.insert(client, now.saturating_add(u64::from(self.limits.seconds) * SECOND));
        drop(reported);
        let limit = match (client.credential, client.user) {
            (CredentialKind::Any, _) => FailureKind::Credentials,
            (CredentialKind::Password, None) => FailureKind::PasswordsOfAddress,
            (CredentialKind::Password, Some(_)) => FailureKind::Passwords,
        };
        let client = IpAddr::V6(client.network.into()).to_canonical();
        let mut exceeded = self.exceeded.lock();
        if exceeded.len() < MAX_REPORTED {
            exceeded.push_back(LimitExceeded { client, limit, uid });
        }
    }

    /// Drains the queued reports.
    pub fn take_exceeded(&self) -> Vec<LimitExceeded> {
        self.exceeded.lock().drain(..).collect()
    }

    /// Counts a wrong credential of any kind. `Some` means that the limit was exceeded before, so
    /// this failure was not counted.
    pub fn count(&self, client: IpAddr, now: u64) -> Option<RetryAfter> {
        let limit = self.limits.per_address;
        if limit == 0 || self.is_exempt(client) {
            return None;
        }
        let client = ClientKey::any(client);
        let mut shard = self.shard(&client);
        let arrival = self.entry(&mut shard, client, now);
        if let Some(wait) = self.wait(*arrival, limit, now) {
            return Some(RetryAfter(wait.div_ceil(SECOND)));
        }
        *arrival = self.gcra(limit).next(*arrival, now);
        let is_exceeded = self.wait(*arrival, limit, now).is_some();
        drop(shard);
        if is_exceeded {
            self.report(client, None, now);
        }
        None
    }

    /// Takes back a failure that [`FailureLimiter::count`] counted before a check, because the
    /// check has ended. A wrong credential is counted again with its denial.
    pub fn uncount(&self, client: IpAddr) {
        let limit = self.limits.per_address;
        if limit > 0 && !self.is_exempt(client) {
            self.take_back([(ClientKey::any(client), limit)]);
        }
    }

    /// Whether this address has exceeded the limit of wrong credentials.
    pub fn is_over(&self, client: IpAddr, now: u64) -> bool {
        let limit = self.limits.per_address;
        if limit == 0 || self.is_exempt(client) {
            return false;
        }
        let client = ClientKey::any(client);
        let arrival = self.shard(&client).get(&client).copied();
        arrival.is_some_and(|arrival| self.wait(arrival, limit, now).is_some())
    }

    fn is_exempt(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        // An unspecified address means that the program around Keyward does not know the addresses
        // of its clients. If it were not exempt, all clients would count as one client.
        client.is_unspecified()
            || self.limits.exempt.iter().any(|network| network.contains(&client))
    }

    /// The rate of `limit` failures per window.
    fn gcra(&self, limit: u32) -> Gcra {
        let window = u64::from(self.limits.seconds).saturating_mul(SECOND);
        Gcra::new(window.div_ceil(u64::from(limit.max(1))), limit.into())
    }

    /// The time until one more failure is allowed, in ns. `None` means that a failure is allowed
    /// now.
    fn wait(&self, arrival: u64, limit: u32, now: u64) -> Option<u64> {
        match self.gcra(limit).check(arrival, now) {
            Conformance::Exceeds(wait) if limit > 0 => Some(wait),
            _ => None,
        }
    }

    fn shard(&self, client: &ClientKey) -> MutexGuard<'_, HashMap<ClientKey, u64>> {
        self.shards[self.hasher.hash_one(client) as usize % SHARDS].lock()
    }

    /// A client's entry, which is created if it does not exist. If the shard is full, all expired
    /// entries are evicted first; if none has expired, an entry that would expire soon is evicted.
    fn entry<'s>(
        &self,
        shard: &'s mut HashMap<ClientKey, u64>,
        client: ClientKey,
        now: u64,
    ) -> &'s mut u64 {
        let capacity = (self.limits.entries / SHARDS).max(1);
        if shard.len() >= capacity && !shard.contains_key(&client) {
            shard.retain(|_, arrival| *arrival > now);
        }
        if shard.len() >= capacity && !shard.contains_key(&client) {
            let sample = shard.iter().take(EVICTION_SAMPLE);
            let soonest = sample.min_by_key(|(_, arrival)| **arrival).map(|(client, _)| *client);
            soonest.map(|client| shard.remove(&client));
        }
        shard.entry(client).or_insert(now)
    }
}

impl ClientKey {
    /// The key of the entry that counts wrong credentials of any kind.
    fn any(client: IpAddr) -> Self {
        Self { credential: CredentialKind::Any, network: client_network(client), user: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000 * SECOND;

    fn limits() -> FailureLimits {
        FailureLimits {
            seconds: 900,
            passwords: 5,
            passwords_per_address: 20,
            per_address: 100,
            exempt: vec!["10.0.0.0/8".parse().unwrap()],
            entries: 1600,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The number of wrong passwords that are checked until the limit rejects the next password.
    fn checked(limiter: &FailureLimiter, client: &str, user: &str, now: u64) -> usize {
        let is_checked = |_: &usize| {
            let attempt = limiter.attempt(ip(client), user, now);
            let attempt = attempt.and_then(|attempt| limiter.begin(attempt, now).map(|()| attempt));
            attempt.map(|attempt| limiter.was_wrong(attempt, Some(7), now)).is_ok()
        };
        (0..50).take_while(is_checked).count()
    }

    #[test]
    fn passwords_are_not_checked_after_five_wrong_ones() {
        let limiter = FailureLimiter::new(limits());
        assert_eq!(checked(&limiter, "192.0.2.1", "ann", NOW), 5);
        assert_eq!(limiter.attempt(ip("192.0.2.1"), "Ann", NOW).unwrap_err(), RetryAfter(180));
        // Another user, and the same user from another address, are not limited.
        assert_eq!(checked(&limiter, "192.0.2.1", "bob", NOW), 5);
        assert_eq!(checked(&limiter, "192.0.2.2", "ann", NOW), 5);
        // One more password is allowed after a fifth of the window, and five after the whole
        // window.
        assert_eq!(checked(&limiter, "192.0.2.1", "ann", NOW + 180 * SECOND), 1);
        assert_eq!(checked(&limiter, "192.0.2.1", "ann", NOW + 2000 * SECOND), 5);
    }

    #[test]
    fn exceeded_limit_is_reported_once_per_window() {
        let limiter = FailureLimiter::new(limits());
        let client = ip("192.0.2.1");
        checked(&limiter, "192.0.2.1", "ann", NOW);
        let of_ann = LimitExceeded { client, limit: FailureKind::Passwords, uid: Some(7) };
        assert_eq!(limiter.take_exceeded(), [of_ann]);
        // One more password is allowed after a while, and is wrong too.
        assert_eq!(checked(&limiter, "192.0.2.1", "ann", NOW + 180 * SECOND), 1);
        assert_eq!(limiter.take_exceeded(), []);
        assert_eq!(checked(&limiter, "192.0.2.1", "ann", NOW + 2000 * SECOND), 5);
        assert_eq!(limiter.take_exceeded(), [of_ann]);
        let waits = |client| (0..200).filter_map(|_| limiter.count(client, NOW)).count();
        assert_eq!(waits(client), 100);
        let of_all = LimitExceeded { client, limit: FailureKind::Credentials, uid: None };
        assert_eq!(limiter.take_exceeded(), [of_all]);
        // The number of reports is bounded.
        for number in 0..5000_u32 {
            let client = IpAddr::from(std::net::Ipv4Addr::from(number | 0x5000_0000));
            assert!(waits(client) >= 100);
        }
        assert!(limiter.take_exceeded().len() <= MAX_REPORTED);
    }

    #[test]
    fn many_user_names_do_not_bypass_the_limit() {
        let limiter = FailureLimiter::new(limits());
        let tried: usize =
            (0..50).map(|n| checked(&limiter, "192.0.2.1", &format!("user {n}"), NOW)).sum();
        assert_eq!(tried, 20);
    }

    #[test]
    fn passwords_that_are_being_checked_count_until_they_are_right() {
        let limiter = FailureLimiter::new(limits());
        let attempts: Vec<_> =
            (0..20).map(|_| limiter.attempt(ip("192.0.2.1"), "ann", NOW).unwrap()).collect();
        let begun: Vec<bool> =
            attempts.iter().map(|attempt| limiter.begin(*attempt, NOW).is_ok()).collect();
        assert_eq!(begun.iter().filter(|begun| **begun).count(), 5);
        // A refused check takes nothing of the address's limit of 20.
        assert_eq!(checked(&limiter, "192.0.2.1", "bob", NOW), 5);
        assert!(limiter.attempt(ip("192.0.2.1"), "ann", NOW).is_err());
        limiter.was_right(attempts[0]);
        assert!(limiter.attempt(ip("192.0.2.1"), "ann", NOW).is_ok());
        // The other four were wrong.
        assert_eq!(checked(&limiter, "192.0.2.1", "ann", NOW), 1);
    }

    #[test]
    fn failures_beyond_the_limit_are_not_counted() {
        let limiter = FailureLimiter::new(limits());
        let count = |client: &str| limiter.count(ip(client), NOW);
        assert!((0..100).all(|_| count("192.0.2.1").is_none()));
        assert!((0..100).all(|_| count("192.0.2.1") == Some(RetryAfter(9))));
        assert_eq!(count("::ffff:192.0.2.1"), Some(RetryAfter(9)));
        assert_eq!(count("192.0.2.2"), None);
        assert!((0..500).all(|_| count("10.1.2.3").is_none()));
        assert!((0..500).all(|_| count("0.0.0.0").is_none()));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let limiter = FailureLimiter::new(limits());
        let all: usize =
            (1..40).map(|n| checked(&limiter, &format!("2001:db8:0:1::{n:x}"), "ann", NOW)).sum();
        assert_eq!(all, 5);
        assert_eq!(checked(&limiter, "2001:db8:0:2::1", "ann", NOW), 5);
    }

    #[test]
    fn table_size_is_bounded() {
        let limiter = FailureLimiter::new(limits());
        for number in 0..100_000_u32 {
            limiter.count(IpAddr::from(std::net::Ipv4Addr::from(number | 0x5000_0000)), NOW);
        }
        let entries: usize = limiter.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!((1000..=1600).contains(&entries), "{entries}");
    }

    #[test]
    fn zero_means_no_limit() {
        let limiter = FailureLimiter::new(FailureLimits::none());
        assert_eq!(checked(&limiter, "192.0.2.1", "ann", NOW), 50);
        assert!((0..500).all(|_| limiter.count(ip("192.0.2.1"), NOW).is_none()));
    }
}
