//! Cache of recently read users, with the response bodies that were built from their records.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::{accounts::Versioned, directory::CachedUser, model::User};

/// The maximum number of users in the cache. A full cache is emptied before the next insertion.
const MAX_USERS: usize = 4096;

/// Users by uid.
///
/// An entry belongs to one [`CachedUser`] object. The entry is valid while the Directory (the copy
/// of the records in memory) still holds that object. Every write of a user puts a new object into
/// the Directory, after the store has written the user and before the writer gets its result. So a
/// reader never gets a record that is older than the last result that a writer got.
#[derive(Default)]
pub(in crate::accounts) struct UserCache(papaya::HashMap<u64, CacheEntry>);

struct CacheEntry {
    cached: Arc<CachedUser>,
    user: Arc<ReadUser>,
}

/// A user from the store, with the response bodies that were built from the record.
pub struct ReadUser {
    /// The user.
    pub record: User,
    forms: [OnceLock<Bytes>; ReadUser::FORMS],
}

impl ReadUser {
    /// The number of response bodies that are cached for each user, one for each form.
    pub const FORMS: usize = 4;

    pub(in crate::accounts) fn new(user: Versioned<User>) -> Self {
        Self { record: user.record, forms: Default::default() }
    }

    /// Returns the response body with the index `form`, which is less than [`FORMS`](Self::FORMS).
    /// The first call for a form builds the body with `make`.
    pub fn form(&self, form: usize, make: impl FnOnce(&User) -> Bytes) -> Bytes {
        self.forms[form].get_or_init(|| make(&self.record)).clone()
    }
}

impl UserCache {
    /// The cached user that belongs to this object of the Directory.
    pub fn get(&self, cached: &Arc<CachedUser>) -> Option<Arc<ReadUser>> {
        let entries = self.0.pin();
        let entry = entries.get(&cached.uid)?;
        Arc::ptr_eq(&entry.cached, cached).then(|| entry.user.clone())
    }

    /// Adds a user. The caller must read `cached` from the Directory first, and then `user` from
    /// the store.
    pub fn insert(&self, cached: Arc<CachedUser>, user: Arc<ReadUser>) {
        let entries = self.0.pin();
        if entries.len() >= MAX_USERS {
            entries.clear();
        }
        entries.insert(cached.uid, CacheEntry { cached, user });
    }
}
