//! Writing key usage and spent credits: counts are taken from memory and written in batches.
//!
//! Decisions write nothing. Counts that are not written yet are lost when the process is killed,
//! but not when it stops.

use std::{future::Future, pin::pin, time::Duration};

use serde::{Deserialize, Serialize};

use super::{AccountError, Accounts};
use crate::{
    limits::{Unwritten, Used},
    model::{KeyId, Timestamp},
    store::{Batch, Table, encode, table},
};

/// The most keys, and the most users, of one commit.
const PART: usize = 500;

/// The stored usage of a key.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct StoredUsage {
    times: u64,
    last: Timestamp,
}

impl Accounts {
    /// How often a key was used, and when last. `None` means never.
    pub fn usage_of(&self, key: KeyId) -> Result<Option<Used>, AccountError> {
        let used = self.stored_usage(key)?.and(self.0.counters.unwritten(key));
        Ok((used.times > 0).then_some(used))
    }

    /// Writes the usage since the last call. If the write fails, the next call retries it.
    pub async fn write_usage(&self) -> Result<(), AccountError> {
        // One call at a time, because each adds to the numbers that the last one has written.
        let _guard = self.0.usage_lock.lock().await;
        let mut unwritten = self.0.counters.take();
        while !(unwritten.keys.is_empty() && unwritten.spenders.is_empty()) {
            let part = Unwritten {
                keys: split_part(&mut unwritten.keys),
                spenders: split_part(&mut unwritten.spenders),
            };
            if let Err(problem) = self.write_usage_part(&part).await {
                self.0.counters.put_back(part);
                self.0.counters.put_back(unwritten);
                return Err(problem);
            }
        }
        Ok(())
    }

    /// Writes the usage at this interval, and a last time when `end` resolves, after the last
    /// request.
    pub async fn write_usage_periodically(&self, every: Duration, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        let mut has_ended = false;
        while !has_ended {
            // A write is never cancelled: the counts that it has taken would be lost.
            tokio::select! {
                () = tokio::time::sleep(every) => {}
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

    async fn write_usage_part(&self, part: &Unwritten) -> Result<(), AccountError> {
        let mut batch = Batch::new();
        let directory = &self.0.directory;
        for (id, used) in &part.keys {
            // Skip keys that were deleted since.
            let Some(key) = directory.key(*id) else { continue };
            let Used { times, last } = self.stored_usage(*id)?.and(*used);
            batch.put(Table::Usage, table::key(*id), encode(&StoredUsage { times, last }));
            if let Some(spent) = key.bounds().and_then(|bounds| bounds.spent()) {
                batch.put(Table::Spent, table::spent(Table::Keys, id.number()), encode(&spent));
            }
        }
        for uid in &part.spenders {
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
        let StoredUsage { times, last } = stored.map(|stored| stored.record).unwrap_or_default();
        Ok(Used { times, last })
    }
}

/// Deletes a key's usage, its spent credits, and the record of its expiry notifications.
pub(super) fn delete_key_usage(batch: &mut Batch, id: KeyId) {
    batch.delete(Table::Usage, table::key(id));
    batch.delete(Table::Warned, table::key(id));
    batch.delete(Table::Spent, table::spent(Table::Keys, id.number()));
}

/// Deletes a user's spent credits.
pub(super) fn delete_user_usage(batch: &mut Batch, uid: u64) {
    batch.delete(Table::Spent, table::spent(Table::Users, uid));
}

fn split_part<T>(all: &mut Vec<T>) -> Vec<T> {
    all.split_off(all.len().saturating_sub(PART))
}
