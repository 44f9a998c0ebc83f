//! What other systems made slow to check: it cannot be an index, so it is found by its user. It becomes less with every use, until there is none.
//!
//! Where somebody has nothing of the kind, a check that is to take as long needs something to check: an example of what the others have.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use arc_swap::ArcSwapOption;

use super::{
    CachedKey, CachedUser,
    maps::{ByNumber, map},
};
use crate::model::{KeyId, PasswordDigest, Scheme};

/// Keys and passwords that are slow to check.
pub(super) struct Slow {
    keys_of: ByNumber<Arc<[KeyId]>>,
    /// Held by whoever changes a user's keys: at a start several threads do.
    changing: Mutex<()>,
    /// The most that one user has had.
    most: AtomicUsize,
    keys: Waiting,
    passwords: Waiting,
    hmac: AtomicUsize,
}

/// How many of a kind there are, with an example.
struct Waiting {
    count: AtomicUsize,
    example: ArcSwapOption<PasswordDigest>,
}

/// What has to be compared with a text whose user is named.
#[derive(Debug)]
pub struct SlowKeys {
    /// The user's keys.
    pub ids: Vec<KeyId>,
    /// What others have, for a comparison that only takes time.
    pub example: PasswordDigest,
    /// The most keys of the kind that a user has had.
    pub most: usize,
}

impl Waiting {
    fn new() -> Self {
        Self { count: AtomicUsize::new(0), example: ArcSwapOption::empty() }
    }

    fn came(&self, digest: &PasswordDigest) {
        if self.count.fetch_add(1, Ordering::AcqRel) == 0 {
            self.example.store(Some(Arc::new(digest.clone())));
        }
    }

    fn went(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.example.store(None);
        }
    }

    fn example(&self) -> Option<PasswordDigest> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.example.load().as_ref().map(|digest| PasswordDigest::clone(digest))
    }
}

impl Slow {
    pub fn new() -> Self {
        Self {
            keys_of: map(),
            changing: Mutex::default(),
            most: AtomicUsize::new(0),
            keys: Waiting::new(),
            passwords: Waiting::new(),
            hmac: AtomicUsize::new(0),
        }
    }

    pub fn keys_of(&self, uid: Option<u64>) -> Option<SlowKeys> {
        let example = self.keys.example()?;
        let keys = self.keys_of.pin();
        let ids = uid.and_then(|uid| keys.get(&uid)).map(|ids| ids.to_vec()).unwrap_or_default();
        Some(SlowKeys { ids, example, most: self.most.load(Ordering::Relaxed) })
    }

    pub fn password(&self) -> Option<PasswordDigest> {
        self.passwords.example()
    }

    pub fn hmac_keys(&self) -> usize {
        self.hmac.load(Ordering::Relaxed)
    }

    pub fn password_came(&self, member: &CachedUser) {
        if let Some(digest) = member.password().filter(|digest| !digest.is_ours()) {
            self.passwords.came(digest);
        }
    }

    pub fn password_went(&self, member: &CachedUser) {
        if member.password().is_some_and(|digest| !digest.is_ours()) {
            self.passwords.went();
        }
    }

    /// Before the one that it replaces goes, so that the count does not touch zero on the way.
    pub fn key_came(&self, number: u64, key: &CachedKey) {
        if key.scheme == Scheme::HmacSha256 {
            self.hmac.fetch_add(1, Ordering::Relaxed);
        }
        let Some(digest) = key.slow() else { return };
        self.keys.came(digest);
        self.change(key.user, |ids| {
            ids.retain(|id| id.number() != number);
            ids.push(KeyId::from_number(number));
        });
    }

    /// `stays`: another record of the same key, slow as well, is in its place.
    pub fn key_went(&self, number: u64, key: &CachedKey, stays: bool) {
        if key.scheme == Scheme::HmacSha256 {
            self.hmac.fetch_sub(1, Ordering::Relaxed);
        }
        if key.slow().is_none() {
            return;
        }
        self.keys.went();
        if !stays {
            self.change(key.user, |ids| ids.retain(|id| id.number() != number));
        }
    }

    fn change(&self, uid: u64, change: impl FnOnce(&mut Vec<KeyId>)) {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.keys_of.pin();
        let mut ids = keys.get(&uid).map(|ids| ids.to_vec()).unwrap_or_default();
        change(&mut ids);
        self.most.fetch_max(ids.len(), Ordering::Relaxed);
        match ids.is_empty() {
            true => drop(keys.remove(&uid)),
            false => drop(keys.insert(uid, ids.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Digest;

    #[test]
    fn keys_that_come_at_the_same_time_are_all_there() {
        let slow = Slow::new();
        let text = PasswordDigest::new("$2b$04$example");
        let key = CachedKey::slow_one(7, Digest::from_bytes([1; 32]), text);
        let take_in = |from: u64| (from..from + 500).for_each(|number| slow.key_came(number, &key));
        std::thread::scope(|scope| {
            for from in [0, 500, 1000, 1500] {
                scope.spawn(move || take_in(from));
            }
        });
        let keys = slow.keys_of(Some(7)).unwrap();
        assert_eq!((keys.ids.len(), keys.most), (2000, 2000));
    }
}
