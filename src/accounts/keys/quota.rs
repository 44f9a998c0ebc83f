//! The limit of keys for each user.
//!
//! The keys are counted, and the commit expects that no key was added since. So two simultaneous
//! new keys cannot both be the last one that is allowed.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use crate::{
    accounts::{AccountError, Accounts},
    store::{Batch, Expected, Sequence, Table, table},
};

/// The effect of a new key on the count of its user's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::accounts) enum KeyCountChange {
    /// The user has one key more.
    Added,
    /// The key replaces another, which expires at the end of the overlap. During overlaps a user
    /// may have twice the limit, so that every key can be replaced.
    Replaced,
}

/// Locks for creating keys, shared between users by uid. A task that creates a key for a user waits
/// for the others of this process, so that none of them has to attempt its commit again.
#[derive(Clone, Default)]
pub(in crate::accounts) struct PerUserLock(Arc<[Mutex<()>; 32]>);

impl PerUserLock {
    /// Waits for the lock of a user. It is released when the guard is dropped.
    pub async fn lock(&self, uid: u64) -> MutexGuard<'_, ()> {
        self.0[uid as usize % self.0.len()].lock().await
    }
}

impl Accounts {
    /// Refuses a key above the user's limit. Adds the expectation that no other key is added before
    /// the commit.
    pub(in crate::accounts) fn require_key_quota(
        &self,
        uid: u64,
        change: KeyCountChange,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        let (count, newest) = self.keys_in_force(uid)?;
        batch.expect(Table::Owners, table::user(uid), Expected::Newest(newest));
        let limit = self.0.keys_per_user;
        let most = match change {
            KeyCountChange::Added => limit,
            KeyCountChange::Replaced => limit.saturating_mul(2),
        };
        if count < most {
            return Ok(());
        }
        Err(AccountError::refused(
            format!("The user has {count} keys in force, and the limit is {limit}."),
            "Revoke one that is not used, or raise limits.keys_per_user in the configuration.",
        ))
    }

    /// The number of a user's keys that are neither revoked nor expired, and the newest commit that
    /// added a key to the user.
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
            // The Directory may lack a key that was just created or deleted: such a key counts.
            count += usize::from(key.is_none_or(|key| !key.is_revoked && !key.is_expired(now)));
        }
        Ok((count, newest))
    }
}
