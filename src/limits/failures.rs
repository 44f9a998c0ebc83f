//! FailureLimiter control: how often an address may bring a credential that is wrong.
//!
//! A right *key* always passes, from wherever it comes: keys cannot be guessed, so nobody is kept out by what others did. What is wrong is answered with
//! 429 in the place of its own refusal once there was too much of it. *Passwords* can be guessed, so they are not even looked at then.
//!
//! Everything is counted by address, so nobody is kept out by what was done at another one.

use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher as _,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;

use crate::model::fold;

/// Whoever counts waits only for those who count in the same part at this moment.
const PARTS: usize = 16;
/// How many are looked at to find the one that is forgotten when a part is full.
const LOOKED_AT: usize = 16;
/// Those who are told of in one time in which it is counted.
const TOLD: usize = 1024;
const SECOND: u64 = 1_000_000_000;

/// How often one may be wrong. Zero: as often as one likes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureLimits {
    /// The time in which they are counted, in seconds.
    pub seconds: u32,
    /// Wrong passwords of one user name from one address.
    pub passwords: u32,
    /// Wrong passwords from one address.
    pub passwords_per_address: u32,
    /// Wrong credentials of any kind from one address.
    pub per_address: u32,
    /// The networks whose failures are not counted.
    pub exempt: Vec<IpNet>,
    /// The most that is remembered. When there is more, what would be forgotten soonest is.
    pub entries: usize,
}

/// Failures, by who has made them.
pub(super) struct FailureLimiter {
    limits: FailureLimits,
    hasher: RandomState,
    /// Who was wrong too often lately and has been told of, until when, in nanoseconds.
    told: Mutex<HashMap<ClientKey, u64>>,
    crossed: Mutex<VecDeque<LimitExceeded>>,
    /// When each will be as if nothing had been, in nanoseconds.
    parts: Box<[Mutex<HashMap<ClientKey, u64>>; PARTS]>,
}

/// A password that somebody presents.
#[derive(Debug, Clone, Copy)]
pub struct Attempt(Option<[(ClientKey, u32); 2]>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ClientKey {
    kind: Kind,
    /// The address; of IPv6 the first half, because whoever has one address there has all of that network.
    network: u128,
    /// A hash of the user's name as it was presented, whether there is such a user or not.
    user: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Password,
    Any,
}

/// Somebody was wrong too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitExceeded {
    /// Where they come from; of IPv6 somewhere in this network of 64 bits.
    pub client: IpAddr,
    /// What was counted.
    pub limit: Limit,
    /// The user whose passwords were tried, where there is one of this name.
    pub uid: Option<u64>,
}

/// What is counted of those who are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Passwords of one user name from one address.
    Passwords,
    /// Passwords from one address.
    PasswordsOfAll,
    /// Credentials of any kind from one address.
    Credentials,
}

/// The seconds until one more may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait(pub u64);

impl FailureLimits {
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
        let parts = Box::new(std::array::from_fn(|_| Mutex::default()));
        let (told, crossed) = (Mutex::default(), Mutex::default());
        Self { limits, hasher: RandomState::new(), told, crossed, parts }
    }

    /// What is counted.
    pub fn limits(&self) -> &FailureLimits {
        &self.limits
    }

    /// Whether a password may be looked at.
    ///
    /// # Errors
    /// There were too many wrong ones from this address, of this user or of all.
    pub fn attempt(&self, client: IpAddr, user: &str, now: u64) -> Result<Attempt, Wait> {
        let limits = &self.limits;
        if self.is_exempt(client) || (limits.passwords, limits.passwords_per_address) == (0, 0) {
            return Ok(Attempt(None));
        }
        let network = network(client);
        let culprit = |user| ClientKey { kind: Kind::Password, network, user };
        let user = self.hasher.hash_one(fold(user));
        let culprits = [
            (culprit(Some(user)), limits.passwords),
            (culprit(None), limits.passwords_per_address),
        ];
        let waits = culprits.iter().filter_map(|(culprit, most)| {
            let known = *self.part(culprit).get(culprit)?;
            self.wait(known, *most, now)
        });
        match waits.max() {
            Some(wait) => Err(Wait(wait.div_ceil(SECOND))),
            None => Ok(Attempt(Some(culprits))),
        }
    }

    /// The password was wrong. It counts whatever came meanwhile: those who try many at once wait for all of them.
    pub fn failed(&self, attempt: Attempt, uid: Option<u64>, now: u64) {
        for (culprit, most) in attempt.0.into_iter().flatten().filter(|(_, most)| *most > 0) {
            let each = self.each(most);
            let mut part = self.part(&culprit);
            let known = self.entry(&mut part, culprit, now);
            *known = (*known).max(now).saturating_add(each);
            let has_crossed = self.wait(*known, most, now).is_some();
            drop(part);
            if has_crossed {
                let uid = uid.filter(|_| culprit.user.is_some());
                self.crossed(culprit, uid, now);
            }
        }
    }

    /// Notes who was wrong too often: once in the time in which it is counted.
    fn crossed(&self, culprit: ClientKey, uid: Option<u64>, now: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&culprit).is_some_and(|until| *until > now) {
            return;
        }
        if told.len() >= TOLD {
            told.retain(|_, until| *until > now);
        }
        if told.len() >= TOLD {
            return;
        }
        told.insert(culprit, now.saturating_add(u64::from(self.limits.seconds) * SECOND));
        drop(told);
        let limit = match (culprit.kind, culprit.user) {
            (Kind::Any, _) => Limit::Credentials,
            (Kind::Password, None) => Limit::PasswordsOfAll,
            (Kind::Password, Some(_)) => Limit::Passwords,
        };
        let client = IpAddr::V6(culprit.network.into()).to_canonical();
        let mut crossed = self.crossed.lock().unwrap_or_else(PoisonError::into_inner);
        if crossed.len() < TOLD {
            crossed.push_back(LimitExceeded { client, limit, uid });
        }
    }

    /// Takes out those who were wrong too often.
    pub fn take_crossed(&self) -> Vec<LimitExceeded> {
        let mut crossed = self.crossed.lock().unwrap_or_else(PoisonError::into_inner);
        crossed.drain(..).collect()
    }

    /// A credential was wrong, of whatever kind. Once there are too many it says how long that lasts, and counts no more.
    pub fn count(&self, client: IpAddr, now: u64) -> Option<Wait> {
        let most = self.limits.per_address;
        if most == 0 || self.is_exempt(client) {
            return None;
        }
        let culprit = ClientKey { kind: Kind::Any, network: network(client), user: None };
        let mut part = self.part(&culprit);
        let known = self.entry(&mut part, culprit, now);
        if let Some(wait) = self.wait(*known, most, now) {
            return Some(Wait(wait.div_ceil(SECOND)));
        }
        *known = (*known).max(now).saturating_add(self.each(most));
        let has_crossed = self.wait(*known, most, now).is_some();
        drop(part);
        if has_crossed {
            self.crossed(culprit, None, now);
        }
        None
    }

    /// Whether there were too many wrong credentials from this address.
    pub fn is_over(&self, client: IpAddr, now: u64) -> bool {
        let most = self.limits.per_address;
        if most == 0 || self.is_exempt(client) {
            return false;
        }
        let culprit = ClientKey { kind: Kind::Any, network: network(client), user: None };
        let known = self.part(&culprit).get(&culprit).copied();
        known.is_some_and(|known| self.wait(known, most, now).is_some())
    }

    fn is_exempt(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        // Of a program that does not know where its requests come from, all clients would be one.
        client.is_unspecified() || self.limits.exempt.iter().any(|one| one.contains(&client))
    }

    /// The time that one failure takes up.
    fn each(&self, most: u32) -> u64 {
        u64::from(self.limits.seconds).saturating_mul(SECOND).div_ceil(u64::from(most.max(1)))
    }

    /// How long until one more fits.
    fn wait(&self, known: u64, most: u32, now: u64) -> Option<u64> {
        let (each, taken) = (self.each(most), known.saturating_sub(now));
        let whole = each.saturating_mul(u64::from(most));
        (most > 0 && taken.saturating_add(each) > whole).then(|| taken + each - whole)
    }

    fn part(&self, culprit: &ClientKey) -> MutexGuard<'_, HashMap<ClientKey, u64>> {
        let at = self.hasher.hash_one(culprit) as usize % PARTS;
        self.parts[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A culprit's entry. When there is no place, those go that are as if nothing had been, or else one of those that would be soonest.
    fn entry<'p>(
        &self,
        part: &'p mut HashMap<ClientKey, u64>,
        culprit: ClientKey,
        now: u64,
    ) -> &'p mut u64 {
        let most = (self.limits.entries / PARTS).max(1);
        if part.len() >= most && !part.contains_key(&culprit) {
            part.retain(|_, known| *known > now);
        }
        if part.len() >= most && !part.contains_key(&culprit) {
            let soonest = part.iter().take(LOOKED_AT).min_by_key(|(_, known)| **known);
            let soonest = soonest.map(|(culprit, _)| *culprit);
            soonest.map(|culprit| part.remove(&culprit));
        }
        part.entry(culprit).or_insert(now)
    }
}

/// The client's address; of IPv6 its network.
pub(super) fn network(client: IpAddr) -> u128 {
    const HALF: u128 = u128::MAX << 64;
    match client.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address) & HALF,
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

    /// How many wrong passwords are looked at.
    fn tries(flood: &FailureLimiter, client: &str, user: &str, now: u64) -> usize {
        let looked_at = |_: &usize| {
            let attempt = flood.attempt(ip(client), user, now);
            attempt.map(|attempt| flood.failed(attempt, Some(7), now)).is_ok()
        };
        (0..50).take_while(looked_at).count()
    }

    #[test]
    fn five_wrong_passwords_are_enough() {
        let flood = FailureLimiter::new(limits());
        assert_eq!(tries(&flood, "192.0.2.1", "ann", NOW), 5);
        assert_eq!(flood.attempt(ip("192.0.2.1"), "Ann", NOW).unwrap_err(), Wait(180));
        // Another user, and the same one from elsewhere, are not kept out.
        assert_eq!(tries(&flood, "192.0.2.1", "bob", NOW), 5);
        assert_eq!(tries(&flood, "192.0.2.2", "ann", NOW), 5);
        // After a fifth of the time there is one more, and after all of it all are.
        assert_eq!(tries(&flood, "192.0.2.1", "ann", NOW + 180 * SECOND), 1);
        assert_eq!(tries(&flood, "192.0.2.1", "ann", NOW + 2000 * SECOND), 5);
    }

    #[test]
    fn who_is_wrong_too_often_is_told_of_once_in_the_time_in_which_it_is_counted() {
        let flood = FailureLimiter::new(limits());
        let client = ip("192.0.2.1");
        tries(&flood, "192.0.2.1", "ann", NOW);
        let of_ann = LimitExceeded { client, limit: Limit::Passwords, uid: Some(7) };
        assert_eq!(flood.take_crossed(), [of_ann]);
        // One more fits after a while, and is wrong too.
        assert_eq!(tries(&flood, "192.0.2.1", "ann", NOW + 180 * SECOND), 1);
        assert_eq!(flood.take_crossed(), []);
        assert_eq!(tries(&flood, "192.0.2.1", "ann", NOW + 2000 * SECOND), 5);
        assert_eq!(flood.take_crossed(), [of_ann]);
        let waits = |client| (0..200).filter_map(|_| flood.count(client, NOW)).count();
        assert_eq!(waits(client), 100);
        let of_all = LimitExceeded { client, limit: Limit::Credentials, uid: None };
        assert_eq!(flood.take_crossed(), [of_all]);
        // So many at most are remembered, whatever comes.
        for at in 0..5000_u32 {
            let client = IpAddr::from(std::net::Ipv4Addr::from(at | 0x5000_0000));
            assert!(waits(client) >= 100);
        }
        assert!(flood.take_crossed().len() <= TOLD);
    }

    #[test]
    fn many_users_are_no_way_round() {
        let flood = FailureLimiter::new(limits());
        let tried: usize =
            (0..50).map(|at| tries(&flood, "192.0.2.1", &format!("user {at}"), NOW)).sum();
        assert_eq!(tried, 20);
    }

    #[test]
    fn those_who_try_many_at_once_wait_for_all_of_them() {
        let flood = FailureLimiter::new(limits());
        let attempts: Vec<_> =
            (0..20).map(|_| flood.attempt(ip("192.0.2.1"), "ann", NOW).unwrap()).collect();
        attempts.into_iter().for_each(|attempt| flood.failed(attempt, Some(7), NOW));
        let wait = flood.attempt(ip("192.0.2.1"), "ann", NOW).unwrap_err();
        assert_eq!(wait, Wait(16 * 180));
    }

    #[test]
    fn an_address_is_told_to_wait_and_counts_no_more() {
        let flood = FailureLimiter::new(limits());
        let count = |client: &str| flood.count(ip(client), NOW);
        assert!((0..100).all(|_| count("192.0.2.1").is_none()));
        assert!((0..100).all(|_| count("192.0.2.1") == Some(Wait(9))));
        assert_eq!(count("::ffff:192.0.2.1"), Some(Wait(9)));
        assert_eq!(count("192.0.2.2"), None);
        assert!((0..500).all(|_| count("10.1.2.3").is_none()));
        assert!((0..500).all(|_| count("0.0.0.0").is_none()));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let flood = FailureLimiter::new(limits());
        let all: usize =
            (1..40).map(|at| tries(&flood, &format!("2001:db8:0:1::{at:x}"), "ann", NOW)).sum();
        assert_eq!(all, 5);
        assert_eq!(tries(&flood, "2001:db8:0:2::1", "ann", NOW), 5);
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let flood = FailureLimiter::new(limits());
        for at in 0..100_000_u32 {
            flood.count(IpAddr::from(std::net::Ipv4Addr::from(at | 0x5000_0000)), NOW);
        }
        let held: usize = flood.parts.iter().map(|part| part.lock().unwrap().len()).sum();
        assert!((1000..=1600).contains(&held), "{held}");
    }

    #[test]
    fn no_limits_are_no_limits() {
        let flood = FailureLimiter::new(FailureLimits::none());
        assert_eq!(tries(&flood, "192.0.2.1", "ann", NOW), 50);
        assert!((0..500).all(|_| flood.count(ip("192.0.2.1"), NOW).is_none()));
    }
}
