//! Cache of recently read users, with the response bodies that were made of them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::{accounts::Versioned, directory::CachedUser, model::User};

/// The most users in the cache. When it is full, it is emptied and fills again.
const MOST: usize = 4096;

/// Users by uid.
///
/// An entry is valid only while the Directory has the same [`CachedUser`] object that the entry was
/// read for. Every write of a user makes a new object, after the store has written the user and
/// before the writer gets its result. So an entry is never older than the last result of a writer.
#[derive(Default)]
pub(in crate::accounts) struct UserCache(papaya::HashMap<u64, CacheEntry>);

struct CacheEntry {
    cached: Arc<CachedUser>,
    user: Arc<ReadUser>,
}

/// A user from the store, with the bytes that were made of it since.
pub struct ReadUser {
    /// The user.
    pub record: User,
    forms: [OnceLock<Bytes>; ReadUser::FORMS],
}

impl ReadUser {
    /// The number of forms that are cached for each user.
    pub const FORMS: usize = 4;

    pub(in crate::accounts) fn new(user: Versioned<User>) -> Self {
        Self { record: user.record, forms: Default::default() }
    }

    /// Returns the bytes of a form. `make` is called at the first use only. `form` is less than
    /// [`FORMS`](Self::FORMS).
    pub fn form(&self, form: usize, make: impl FnOnce(&User) -> Bytes) -> Bytes {
        self.forms[form].get_or_init(|| make(&self.record)).clone()
    }
}

impl UserCache {
    /// The user for this object of the Directory.
    pub fn get(&self, cached: &Arc<CachedUser>) -> Option<Arc<ReadUser>> {
        let entries = self.0.pin();
        let entry = entries.get(&cached.uid)?;
        Arc::ptr_eq(&entry.cached, cached).then(|| entry.user.clone())
    }

    /// Adds a user. It must be read from the store after `cached` was read from the Directory.
    pub fn insert(&self, cached: Arc<CachedUser>, user: Arc<ReadUser>) {
        let entries = self.0.pin();
        if entries.len() >= MOST {
            entries.clear();
        }
        entries.insert(cached.uid, CacheEntry { cached, user });
    }
}
