//! The maximum number of keys in force for each user.
//!
//! A new key is refused if the user already has the maximum. The commit of the new key expects that
//! no other key was added after the count, so two simultaneous new keys cannot exceed the maximum.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use crate::{
    accounts::{AccountError, Accounts},
    store::{Batch, Expected, Sequence, Table, table},
};

/// The effect of a new key on the number of keys that its user has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::accounts) enum KeyCountChange {
    /// The user has one key more.
    Added,
    /// The new key replaces an old key, which is rejected after the overlap. During overlaps a user
    /// may have twice the maximum, so that every key can be replaced.
    Replaced,
}

/// A fixed number of locks, of which each serves many uids. A task holds its user's lock while it
/// creates a key, so that tasks of this process do not conflict and retry their commits.
#[derive(Clone, Default)]
pub(in crate::accounts) struct PerUserLock(Arc<[Mutex<()>; 32]>);

impl PerUserLock {
    /// Waits for the lock of a user. Dropping the guard releases the lock.
    pub async fn lock(&self, uid: u64) -> MutexGuard<'_, ()> {
        self.0[uid as usize % self.0.len()].lock().await
    }
}

impl Accounts {
    /// Refuses a new key if the user already has the maximum. Adds the expectation that no other
    /// key is added before the commit.
    pub(in crate::accounts) fn require_key_quota(
        &self,
        uid: u64,
        change: KeyCountChange,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        let (count, newest) = self.keys_in_force(uid)?;
        batch.expect(Table::Owners, table::user(uid), Expected::Newest(newest));
        let limit = self.0.keys_per_user;
        let max_count = match change {
            KeyCountChange::Added => limit,
            KeyCountChange::Replaced => limit.saturating_mul(2),
        };
        if count < max_count {
            return Ok(());
        }
        Err(AccountError::refused(
            format!("The user has {count} keys in force, and the limit is {limit}."),
            "Revoke an unused key, or raise limits.keys_per_user in the configuration.",
        ))
    }

    /// The number of a user's keys that are neither revoked nor expired, and the sequence of the
    /// newest commit that added a key to the user.
    pub(in crate::accounts) fn keys_in_force(
        &self,
        uid: u64,
    ) -> Result<(usize, Sequence), AccountError> {
        let now = self.0.clock.now();
        let (mut count, mut newest) = (0, 0);
        for (owner, stored) in
            self.store().scan(Table::Owners, &table::user(uid), None, usize::MAX)?
        {
            newest = newest.max(stored.revision);
            let key = table::parse_owner(&owner).and_then(|(_, id)| self.0.directory.key(id));
            // A key that was just created or deleted may be missing in the Directory. It counts.
            count += usize::from(key.is_none_or(|key| !key.is_revoked && !key.is_expired(now)));
        }
        Ok((count, newest))
    }
}
