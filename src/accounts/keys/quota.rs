//! How many keys a user may have.
//!
//! The keys are counted, and the commit happens only if none has come since: two that are made at one moment cannot both be the last one.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use crate::{
    accounts::{AccountError, Accounts, users::uid_key},
    model::KeyId,
    store::{Batch, Sequence, State, Table},
};

/// What a new key adds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::accounts) enum Growth {
    /// One more.
    More,
    /// Another goes when its overlap ends. As many again may be on their way out: a user who has as many keys as there may be can still
    /// replace each of them.
    Replaced,
}

/// Whoever makes a key for a user waits for those who do the same at this moment: in this process nobody has to try again.
#[derive(Clone, Default)]
pub(in crate::accounts) struct Turns(Arc<[Mutex<()>; 32]>);

impl Turns {
    /// Waits for one's turn. It ends when the guard is dropped.
    pub async fn of(&self, uid: u64) -> MutexGuard<'_, ()> {
        self.0[uid as usize % self.0.len()].lock().await
    }
}

impl Accounts {
    /// Refuses a key too many, and asks that no other comes before the commit.
    pub(in crate::accounts) fn within_quota(
        &self,
        uid: u64,
        growth: Growth,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        let (held, newest) = self.keys_in_force(uid)?;
        batch.expect(Table::Owners, uid_key(uid), State::Newest(newest));
        let limit = self.0.keys_per_user;
        let most = match growth {
            Growth::More => limit,
            Growth::Replaced => limit.saturating_mul(2),
        };
        if held < most {
            return Ok(());
        }
        Err(AccountError::refused(
            format!("The user has {held} keys in force, and there may be {limit}."),
            "Revoke one that is not used, or raise limits.keys_per_user in the configuration.",
        ))
    }

    /// How many keys of a user are neither revoked nor past their end, and the commit that made the last of all.
    pub(in crate::accounts) fn keys_in_force(
        &self,
        uid: u64,
    ) -> Result<(usize, Sequence), AccountError> {
        let now = self.0.clock.now();
        let (mut held, mut newest) = (0, 0);
        for (owner, stored) in self.store().scan(Table::Owners, &uid_key(uid), None, usize::MAX)? {
            newest = newest.max(stored.revision);
            let number = u64::from_be_bytes(owner[8..].try_into().unwrap_or_default());
            // One that has only just come or gone may not be in the Directory: it counts.
            let key = self.0.directory.key(KeyId::from_number(number));
            held += usize::from(key.is_none_or(|key| !key.is_revoked && !key.has_ended(now)));
        }
        Ok((held, newest))
    }
}
