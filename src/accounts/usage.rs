//! Writing key usage and spent credits: a background task takes the counts from memory and writes
//! them in batches.
//!
//! Deciding a request writes nothing to the store. If the process is killed, the counts that are
//! not written yet are lost. If the process stops normally, it writes them first.

use std::{future::Future, pin::pin, time::Duration};

use serde::{Deserialize, Serialize};

use super::{AccountError, Accounts};
use crate::{
    limits::{Unwritten, Used},
    model::{KeyId, Timestamp},
    store::{Batch, Table, encode, table},
};

/// The maximum number of keys in one commit. The maximum number of users is the same.
const RECORDS_PER_COMMIT: usize = 500;

/// The stored usage of a key.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct StoredUsage {
    times: u64,
    last: Timestamp,
}

impl Accounts {
    /// The number of uses of a key, and the time of the last use. `None` means that the key was
    /// never used.
    pub fn usage_of(&self, key: KeyId) -> Result<Option<Used>, AccountError> {
        let used = self.stored_usage(key)?.and(self.0.counters.unwritten(key));
        Ok((used.times > 0).then_some(used))
    }

    /// Writes the uses that were counted after the previous call. If the write fails, the next call
    /// retries it.
    pub async fn write_usage(&self) -> Result<(), AccountError> {
        // Only one call runs at a time, because each call reads the stored counts and adds to them.
        let _guard = self.0.usage_lock.lock().await;
        let mut unwritten = self.0.counters.take();
        // Neighbouring records share a page of the store, so a commit with neighbours rewrites few
        // pages.
        unwritten.keys.sort_unstable_by_key(|(id, _)| id.number());
        unwritten.users_with_spent_credits.sort_unstable();
        while !(unwritten.keys.is_empty() && unwritten.users_with_spent_credits.is_empty()) {
            let chunk = Unwritten {
                keys: split_chunk(&mut unwritten.keys),
                users_with_spent_credits: split_chunk(&mut unwritten.users_with_spent_credits),
            };
            if let Err(problem) = self.write_usage_chunk(&chunk).await {
                self.0.counters.put_back(chunk);
                self.0.counters.put_back(unwritten);
                return Err(problem);
            }
        }
        Ok(())
    }

    /// Writes the usage at this interval, and once more when `end` resolves. `end` has to resolve
    /// after the last request, so that all uses are written.
    pub async fn write_usage_periodically(
        &self,
        interval: Duration,
        end: impl Future<Output = ()>,
    ) {
        let mut end = pin!(end);
        let mut has_ended = false;
        while !has_ended {
            // Only the sleep is cancelled. A cancelled write would lose the counts that it has
            // taken from memory.
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = &mut end => has_ended = true,
            }
            if let Err(problem) = self.write_usage().await {
                tracing::warn!(%problem, "could not write the usage of keys; will retry");
            }
            let written = if has_ended {
                self.write_newest_time(0).await
            } else {
                self.write_newest_time_when_idle().await
            };
            if let Err(problem) = written {
                tracing::warn!(%problem, "could not write the newest time; will retry");
            }
        }
    }

    async fn write_usage_chunk(&self, chunk: &Unwritten) -> Result<(), AccountError> {
        let mut batch = Batch::new();
        let directory = &self.0.directory;
        for (id, used) in &chunk.keys {
            // Skip keys that were deleted after their last use.
            let Some(key) = directory.key(*id) else { continue };
            let Used { times: uses, last } = self.stored_usage(*id)?.and(*used);
            batch.put(Table::Usage, table::key(*id), encode(&StoredUsage { times: uses, last }));
            if let Some(spent) = key.bounds().and_then(|bounds| bounds.spent()) {
                batch.put(Table::Spent, table::spent(Table::Keys, id.number()), encode(&spent));
            }
        }
        for uid in &chunk.users_with_spent_credits {
            let user = directory.user(*uid);
            let bounds = user.as_ref().and_then(|user| user.bounds());
            if let Some(spent) = bounds.and_then(|bounds| bounds.spent()) {
                batch.put(Table::Spent, table::spent(Table::Users, *uid), encode(&spent));
            }
        }
        if !batch.writes.is_empty() {
            self.put_newest_time(&mut batch);
            self.store().commit(batch).await?;
        }
        Ok(())
    }

    fn stored_usage(&self, key: KeyId) -> Result<Used, AccountError> {
        let stored = self.read::<StoredUsage>(Table::Usage, &table::key(key))?;
        let StoredUsage { times: uses, last } =
            stored.map(|stored| stored.record).unwrap_or_default();
        Ok(Used { times: uses, last })
    }
}

/// Deletes a key's usage, spent credits, and the record of the last notice about its expiry.
pub(super) fn delete_key_usage(batch: &mut Batch, id: KeyId) {
    batch.delete(Table::Usage, table::key(id));
    batch.delete(Table::Warned, table::key(id));
    batch.delete(Table::Spent, table::spent(Table::Keys, id.number()));
}

/// Deletes a user's spent credits.
pub(super) fn delete_user_usage(batch: &mut Batch, uid: u64) {
    batch.delete(Table::Spent, table::spent(Table::Users, uid));
}

/// Takes at most [`RECORDS_PER_COMMIT`] items off the end of a list.
fn split_chunk<T>(all: &mut Vec<T>) -> Vec<T> {
    all.split_off(all.len().saturating_sub(RECORDS_PER_COMMIT))
}
