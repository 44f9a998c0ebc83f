//! The use of keys, and the credits that were spent: taken from memory and written down, many at a time.
//!
//! A decision writes nothing. What was not written yet is lost when the process is killed, and nothing is when it stops.

use std::{future::Future, pin::pin, time::Duration};

use serde::{Deserialize, Serialize};

use super::{AccountError, Accounts, keys::key_key};
use crate::{
    limits::{Bounds, Unwritten, Used},
    model::{KeyId, Timestamp},
    store::{Batch, CommitError, StoreError, Table, encode, spent_key},
};

/// The records of one commit.
const PART: usize = 500;

/// The use of a key, as it is kept.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Kept {
    times: u64,
    last: Timestamp,
}

impl Accounts {
    /// How often a key was used, and when last; none: never.
    pub fn usage_of(&self, key: KeyId) -> Result<Option<Used>, AccountError> {
        let used = self.kept(key)?.and(self.0.ledger.unwritten(key));
        Ok((used.times > 0).then_some(used))
    }

    /// Writes down what was used since the last time. What cannot be written is tried again with what comes next.
    pub async fn write_usage(&self) -> Result<(), AccountError> {
        // One after another: each reads what the one before has written.
        let _turn = self.0.writing_usage.lock().await;
        let mut unwritten = self.0.ledger.take();
        while !(unwritten.keys.is_empty() && unwritten.spenders.is_empty()) {
            let part = Unwritten {
                keys: last_of(&mut unwritten.keys),
                spenders: last_of(&mut unwritten.spenders),
            };
            if let Err(problem) = self.write_part(&part).await {
                self.0.ledger.put_back(part);
                self.0.ledger.put_back(unwritten);
                return Err(problem);
            }
        }
        Ok(())
    }

    /// Does so again and again, and for the last time when `end` has come: after the last request.
    pub async fn keep_usage(&self, every: Duration, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        let mut has_ended = false;
        while !has_ended {
            // A write is never broken off: what it has taken out of memory would be lost.
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = &mut end => has_ended = true,
            }
            if let Err(problem) = self.write_usage().await {
                tracing::warn!(%problem, "the use of keys was not written down");
            }
        }
    }

    async fn write_part(&self, part: &Unwritten) -> Result<(), AccountError> {
        let mut batch = Batch::new();
        let directory = &self.0.directory;
        for (id, used) in &part.keys {
            // One that is gone meanwhile has no use any more.
            let Some(key) = directory.key(*id) else { continue };
            let Used { times, last } = self.kept(*id)?.and(*used);
            batch.put(Table::Usage, key_key(*id), encode(&Kept { times, last }));
            if let Some(spent) = key.bounds().and_then(|bounds| bounds.spent()) {
                batch.put(Table::Spent, spent_key(Table::Keys, id.number()), encode(&spent));
            }
        }
        for uid in &part.spenders {
            let member = directory.user(*uid);
            let bounds: Option<&std::sync::Arc<Bounds>> =
                member.as_ref().and_then(|member| member.bounds());
            if let Some(spent) = bounds.and_then(|bounds| bounds.spent()) {
                batch.put(Table::Spent, spent_key(Table::Users, *uid), encode(&spent));
            }
        }
        if batch.writes.is_empty() {
            return Ok(());
        }
        match self.store().commit(batch).await {
            Ok(_) => Ok(()),
            Err(CommitError::Store(problem)) => Err(problem.into()),
            // It expects nothing.
            Err(CommitError::Conflict(_)) => Err(AccountError::contended()),
        }
    }

    fn kept(&self, key: KeyId) -> Result<Used, StoreError> {
        let at = key_key(key);
        let Some(stored) = self.store().get(Table::Usage, &at)? else { return Ok(Used::default()) };
        let Kept { times, last } = stored.read(Table::Usage, &at)?;
        Ok(Used { times, last })
    }
}

/// Takes a key's use, its credits, and who was told of its end away with it.
pub(super) fn forget_usage_of_key(batch: &mut Batch, key: &[u8]) {
    batch.delete(Table::Usage, key);
    batch.delete(Table::Warned, key);
    if let Ok(number) = key.try_into().map(u64::from_be_bytes) {
        batch.delete(Table::Spent, spent_key(Table::Keys, number));
    }
}

/// Takes a user's credits away with it.
pub(super) fn forget_usage_of_user(batch: &mut Batch, uid: u64) {
    batch.delete(Table::Spent, spent_key(Table::Users, uid));
}

fn last_of<T>(all: &mut Vec<T>) -> Vec<T> {
    all.split_off(all.len().saturating_sub(PART))
}
