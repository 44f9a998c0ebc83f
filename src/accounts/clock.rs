//! The newest time that was committed: the program's clock never returns an earlier time.
//!
//! The time is stored with each write of key usage and, while nothing is used, once an hour and at
//! the end. Each audit entry has a time too. So after a restart with a clock that was set back, the
//! clock is late by at most the interval of the usage writes, or by an hour without any request.

use std::{
    pin::pin,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{AccountError, Accounts};
use crate::{
    model::{AuditEntry, AuditKey, Timestamp},
    store::{
        Batch, Store, StoreError, Table,
        audit_log::{self, ChainEntry, TrailError},
        decode, encode, table,
    },
};

/// The record in `meta` with the [`NewestTime`].
const NEWEST_TIME: &[u8] = b"newest-time";
/// The time is stored alone if no usage was written for this number of seconds.
const IDLE_INTERVAL: i64 = 3600;
/// How often the machine's clock is compared with the newest time.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The newest time that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NewestTime {
    /// The newest time.
    pub time: Timestamp,
    /// Audit entries up to this number may have later times, which are ignored: the operator has
    /// decided that the machine's clock was ahead when they were written.
    #[serde(default)]
    pub ignored_entries: u64,
}

impl NewestTime {
    /// Reads the newest time: the stored one, or the time of the last audit entry.
    pub fn read(store: &dyn Store, key: &AuditKey) -> Result<Self, StoreError> {
        let stored = match store.get(Table::Meta, NEWEST_TIME)? {
            Some(stored) => stored.read(Table::Meta, NEWEST_TIME)?,
            None => Self { time: Timestamp(i64::MIN), ignored_entries: 0 },
        };
        let Some(last) = last_entry(store, key)? else { return Ok(stored) };
        if last.number <= stored.ignored_entries {
            return Ok(stored);
        }
        let entry: Option<AuditEntry> =
            decode(Table::Audit, &table::audit(last.number), &last.json).ok();
        let time = entry.map_or(stored.time, |entry| entry.time.max(stored.time));
        Ok(Self { time, ..stored })
    }
}

/// The last entry of the audit trail. `None` means that there is none, or that it cannot be read,
/// which the verification of the trail reports.
fn last_entry(store: &dyn Store, key: &AuditKey) -> Result<Option<ChainEntry>, StoreError> {
    match audit_log::newest_first(store, key, None, 1) {
        Ok(page) => Ok(page.entries.into_iter().next()),
        Err(TrailError::Store(problem)) => Err(problem),
        Err(_) => Ok(None),
    }
}

impl Accounts {
    /// Adds the current time to a batch.
    pub(super) fn put_newest_time(&self, batch: &mut Batch) {
        let ignored_entries = self.0.ignored_entries.load(Relaxed);
        let newest = NewestTime { time: self.0.clock.now(), ignored_entries };
        batch.put(Table::Meta, NEWEST_TIME, encode(&newest));
    }

    /// Stores the current time, unless it was stored less than `age` seconds ago.
    pub(super) async fn write_newest_time(&self, age: i64) -> Result<(), AccountError> {
        let stored = self.read::<NewestTime>(Table::Meta, NEWEST_TIME)?;
        let is_recent =
            stored.is_some_and(|stored| self.0.clock.now() < stored.record.time.plus(age));
        if is_recent {
            return Ok(());
        }
        let mut batch = Batch::new();
        self.put_newest_time(&mut batch);
        self.store().commit(batch).await?;
        Ok(())
    }

    /// Stores the current time if nothing else did for an hour.
    pub(super) async fn write_newest_time_when_idle(&self) -> Result<(), AccountError> {
        self.write_newest_time(IDLE_INTERVAL).await
    }

    /// Believes the machine's clock although it is behind the newest time: that time was wrong,
    /// because the clock was ahead. Returns the newest time until now.
    pub async fn accept_machine_clock(&self) -> Result<Timestamp, AccountError> {
        let newest = self.0.clock.now();
        let last = last_entry(self.store(), &self.0.pepper.audit_key())?;
        self.0.clock.forget_newest();
        self.0.ignored_entries.store(last.map_or(0, |entry| entry.number), Relaxed);
        self.write_newest_time(i64::MIN).await?;
        Ok(newest)
    }

    /// Logs when the machine's clock falls behind the newest time, and when it has caught up, until
    /// `end` resolves.
    pub async fn watch_clock(&self, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        let mut behind_since = None;
        loop {
            self.check_clock(&mut behind_since);
            tokio::select! {
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
                () = &mut end => return,
            }
        }
    }

    fn check_clock(&self, behind_since: &mut Option<Instant>) {
        let newest = self.0.clock.now();
        match (self.0.clock.seconds_behind(), *behind_since) {
            (Some(seconds), None) => {
                *behind_since = Some(Instant::now());
                tracing::warn!(
                    seconds,
                    %newest,
                    "the machine's clock is behind the newest time that was seen or stored; \
                     keys expire and credits are refilled by the newest time until the clock has \
                     caught up. Set the clock. If the newest time is wrong, because the clock was \
                     ahead, restart once with: keyward serve --accept-clock"
                );
            }
            (None, Some(since)) => {
                *behind_since = None;
                let after = since.elapsed().as_secs();
                tracing::warn!(after, "the machine's clock has caught up with the newest time");
            }
            _ => {}
        }
    }
}
