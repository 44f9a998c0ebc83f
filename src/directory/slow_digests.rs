//! Imported keys and passwords whose digests are slow to check, such as bcrypt.
//!
//! A slow digest cannot be an index, so such a key is found through its user. Each successful use
//! replaces a slow digest with one of ours, so in the end there are none left. For a user without
//! such a key, the check must take the same time: it compares with an example digest of another
//! user.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::{
    CachedKey, CachedUser,
    maps::{NumberMap, map},
};
use crate::model::{KeyId, PasswordDigest, Scheme};

/// All keys and passwords with slow digests.
pub(super) struct SlowDigests {
    keys_of: NumberMap<Arc<[KeyId]>>,
    /// Locked while the keys of a user are changed: at a start, several threads do so.
    change_lock: Mutex<()>,
    /// The largest number of such keys that one user has had.
    max_per_user: AtomicUsize,
    keys: DigestCount,
    passwords: DigestCount,
    hmac_keys: AtomicUsize,
}

/// The number of slow digests of keys or of passwords, with an example.
struct DigestCount {
    count: AtomicUsize,
    example: ArcSwapOption<PasswordDigest>,
}

/// The slow digests to compare with a presented key whose user is known.
#[derive(Debug)]
pub struct SlowKeys {
    /// The user's keys with slow digests.
    pub ids: Vec<KeyId>,
    /// The digest of another key, for a comparison that only takes time.
    pub example: PasswordDigest,
    /// The largest number of such keys that one user has had.
    pub max_per_user: usize,
}

impl DigestCount {
    fn new() -> Self {
        Self { count: AtomicUsize::new(0), example: ArcSwapOption::empty() }
    }

    fn add(&self, digest: &PasswordDigest) {
        if self.count.fetch_add(1, Ordering::AcqRel) == 0 {
            self.example.store(Some(Arc::new(digest.clone())));
        }
    }

    fn remove(&self) {
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

impl SlowDigests {
    pub fn new() -> Self {
        Self {
            keys_of: map(),
            change_lock: Mutex::default(),
            max_per_user: AtomicUsize::new(0),
            keys: DigestCount::new(),
            passwords: DigestCount::new(),
            hmac_keys: AtomicUsize::new(0),
        }
    }

    /// The keys of a user with slow digests. `None` means that no user has such a key.
    pub fn keys_of(&self, uid: Option<u64>) -> Option<SlowKeys> {
        let example = self.keys.example()?;
        let keys = self.keys_of.pin();
        let ids = uid.and_then(|uid| keys.get(&uid)).map(|ids| ids.to_vec()).unwrap_or_default();
        Some(SlowKeys { ids, example, max_per_user: self.max_per_user.load(Ordering::Relaxed) })
    }

    /// An imported password digest. `None` means that there is none left.
    pub fn password(&self) -> Option<PasswordDigest> {
        self.passwords.example()
    }

    pub fn hmac_keys(&self) -> usize {
        self.hmac_keys.load(Ordering::Relaxed)
    }

    pub fn add_password(&self, user: &CachedUser) {
        if let Some(digest) = user.password().filter(|digest| !digest.is_ours()) {
            self.passwords.add(digest);
        }
    }

    pub fn remove_password(&self, user: &CachedUser) {
        if user.password().is_some_and(|digest| !digest.is_ours()) {
            self.passwords.remove();
        }
    }

    /// Adds a key. If it replaces another record of the key, that one must be removed afterwards,
    /// not before: otherwise the count could be zero in between.
    pub fn add_key(&self, number: u64, key: &CachedKey) {
        if key.scheme == Scheme::HmacSha256 {
            self.hmac_keys.fetch_add(1, Ordering::Relaxed);
        }
        let Some(digest) = key.slow_digest() else { return };
        self.keys.add(digest);
        self.change(key.user, |ids| {
            ids.retain(|id| id.number() != number);
            ids.push(KeyId::from_number(number));
        });
    }

    /// Removes a key. `is_still_slow` means that it was replaced by another record of the same key
    /// with a slow digest, so the user still has the key.
    pub fn remove_key(&self, number: u64, key: &CachedKey, is_still_slow: bool) {
        if key.scheme == Scheme::HmacSha256 {
            self.hmac_keys.fetch_sub(1, Ordering::Relaxed);
        }
        if key.slow_digest().is_none() {
            return;
        }
        self.keys.remove();
        if !is_still_slow {
            self.change(key.user, |ids| ids.retain(|id| id.number() != number));
        }
    }

    fn change(&self, uid: u64, change: impl FnOnce(&mut Vec<KeyId>)) {
        let _lock = self.change_lock.lock();
        let keys = self.keys_of.pin();
        let mut ids = keys.get(&uid).map(|ids| ids.to_vec()).unwrap_or_default();
        change(&mut ids);
        self.max_per_user.fetch_max(ids.len(), Ordering::Relaxed);
        if ids.is_empty() {
            keys.remove(&uid);
        } else {
            keys.insert(uid, ids.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Digest;

    #[test]
    fn keys_that_are_added_concurrently_are_all_kept() {
        let slow = SlowDigests::new();
        let digest = PasswordDigest::new("$2b$04$example");
        let key = CachedKey::with_slow_digest(7, Digest::from_bytes([1; 32]), digest);
        let add = |from: u64| (from..from + 500).for_each(|number| slow.add_key(number, &key));
        std::thread::scope(|scope| {
            for from in [0, 500, 1000, 1500] {
                scope.spawn(move || add(from));
            }
        });
        let keys = slow.keys_of(Some(7)).unwrap();
        assert_eq!((keys.ids.len(), keys.max_per_user), (2000, 2000));
    }
}
