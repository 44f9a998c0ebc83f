//! Imported keys and passwords whose digests are slow to check, such as bcrypt.
//!
//! A key with a slow digest cannot be looked up by its digest, so it is found through its user. A
//! successful use replaces the slow digest with a digest of Keyward's, so slow digests become fewer
//! over time. A check for a user without slow digests must take as long as a check for a user who
//! has them, so Keyward then checks an example: the slow digest of another user.

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
    /// The keys with slow digests of each user, by uid.
    keys_of: NumberMap<Arc<[KeyId]>>,
    /// Held while the keys of a user are changed, because several threads load keys at a start.
    change_lock: Mutex<()>,
    /// The largest number of keys with slow digests that any user has had.
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

/// The slow digests to check when a request presents a key and names its user.
#[derive(Debug)]
pub struct SlowKeys {
    /// The user's keys with slow digests.
    pub ids: Vec<KeyId>,
    /// The slow digest of another key, for a dummy check that only takes time.
    pub example: PasswordDigest,
    /// The largest number of keys with slow digests that any user has had.
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

    /// The keys with slow digests of a user. `None` means that no user at all has a key with a slow
    /// digest.
    pub fn keys_of(&self, uid: Option<u64>) -> Option<SlowKeys> {
        let example = self.keys.example()?;
        let keys = self.keys_of.pin();
        let ids = uid.and_then(|uid| keys.get(&uid)).map(|ids| ids.to_vec()).unwrap_or_default();
        Some(SlowKeys { ids, example, max_per_user: self.max_per_user.load(Ordering::Relaxed) })
    }

    /// An example of an imported password digest. `None` means that no imported password digest is
    /// left.
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

    /// Adds the record of a key. If it replaces an older record of the key, the caller must remove
    /// the older record after this call. In the opposite order, the count could be zero in between.
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

    /// Removes the record of a key. `is_still_slow` means that the newer record of the key has a
    /// slow digest too, so the user keeps the key.
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
