//! Verifies all records of a store with the digest of the last commit, beside the traffic.
//!
//! The start verifies the tables that decisions read. This check reads the other tables too. It
//! reads a few records at a time, and commits can change the records in between. So it remembers
//! up to which key it has come, and a commit that changes a record before that key updates the
//! digest of the check too.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use super::{
    SledInner,
    bucket::{CacheUse, walk},
    check::RunningCheck,
};
use crate::store::{
    StoreError, Table, codec,
    disk::{NOT_COMMITTED, RESTORE, unusable, without_panic},
};

/// The records that are read while commits wait: some milliseconds.
const RECORDS_PER_STEP: usize = 2000;
/// The pause after each step, so that the check takes a fraction of one core.
const PAUSE: Duration = Duration::from_millis(10);

impl SledInner {
    /// Reads all records, and compares them with the digest. Stops the store if they are not those
    /// of the last commit.
    pub(super) fn verify(&self, cancelled: &AtomicBool) -> Result<(), StoreError> {
        self.begin_check();
        let mut tables = Table::ALL;
        tables.sort_by_key(|table| *table as u8);
        for table in tables {
            while !without_panic(&self.path, || self.verify_step(table))? {
                if cancelled.load(Relaxed) {
                    return Ok(());
                }
                std::thread::sleep(PAUSE);
            }
        }
        self.finish_check()
    }

    /// Begins while no group is written: a group that knew nothing of the check would end it.
    fn begin_check(&self) {
        let _no_writes = self.snapshots.read();
        let digest = self.digest.lock().empty();
        *self.check.lock() = Some(RunningCheck::new(digest));
    }

    /// Reads some records of a table. Returns whether they were the last ones.
    fn verify_step(&self, table: Table) -> Result<bool, StoreError> {
        let _no_writes = self.snapshots.read();
        let mut running = self.check.lock();
        let Some(check) = running.as_mut() else { return Ok(true) };
        let from = check.next_key(table);
        let mut count = 0;
        walk(&self.view(), table, &from, CacheUse::Evict, |key, value| {
            let (revision, json) = codec::decode_value(table, key, value)?;
            check.add(table, key, revision, json);
            count += 1;
            Ok(count < RECORDS_PER_STEP)
        })?;
        let is_finished = count < RECORDS_PER_STEP;
        if is_finished {
            check.finish_table(table);
        }
        Ok(is_finished)
    }

    fn finish_check(&self) -> Result<(), StoreError> {
        let _no_writes = self.snapshots.read();
        let Some(check) = self.check.lock().take() else { return Ok(()) };
        let found = check.into_digest();
        let digest = self.digest.lock().clone();
        let compared = digest.compare_loaded(&found).and(digest.compare_others(&found));
        compared.map_err(|finding| {
            let problem = format!("{NOT_COMMITTED}: {finding}. {RESTORE}");
            self.stop(&problem);
            unusable(&self.path, &problem)
        })
    }
}
