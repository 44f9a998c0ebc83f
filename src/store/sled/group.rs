//! Group commit: several batches are written as one write of sled, with one sync.
//!
//! # Why groups are small and written one at a time
//! sled starts a new piece of its log with each write and each flush, and at the end of each
//! segment (512 KiB). Seven threads, shared by all stores of a process, write the pieces. If all
//! seven wait for the lock of the segment accountant, and the thread that has this lock waits for
//! an eighth thread to truncate the file, all wait forever (spacejam/sled #1412; the fix, #1269,
//! was never released).
//!
//! So a group is one write, it has few bytes, and a process writes [one group at a
//! time](WRITE_LOCK): then there are never enough pieces at the same time. A single batch that
//! changes more than a megabyte is still written as it is, and can still cause the deadlock.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    COMMIT_STATE, SledInner,
    changes::{PendingChanges, RecordChange},
    check::RunningCheck,
    safety_copy,
    view::CommittedView,
};
use crate::store::{
    Batch, Commit, CommitError, Expect, Expected, RecordDigest, Sequence, StoreError, Stored,
    Table, Write, audit_log, codec, digest::CommitState, encode,
};

/// The most batches in a group.
const MAX_BATCHES: usize = 1024;
/// A group with at least this many bytes accepts no more batches. sled writes up to three times as
/// many bytes, because it rewrites pages.
const FULL_GROUP_BYTES: usize = 512 * 1024;
/// Held while a group is written.
pub(super) static WRITE_LOCK: Mutex<()> = Mutex::new(());

type CommitResult = Result<Sequence, CommitError>;

/// A queued batch, with the channel for its result.
pub(super) struct Job {
    pub batch: Batch,
    pub responder: oneshot::Sender<CommitResult>,
}

/// Batches that are written together.
pub(super) struct Group<'s> {
    store: &'s SledInner,
    changes: PendingChanges<'s>,
    /// The number of the last commit, those of this group included.
    sequence: Sequence,
    commits: Vec<Commit>,
    /// The results of all batches, failed ones included.
    results: Vec<(oneshot::Sender<CommitResult>, CommitResult)>,
}

impl<'s> Group<'s> {
    pub fn new(store: &'s SledInner) -> Self {
        Self {
            store,
            changes: PendingChanges::new(
                CommittedView::new(&store.db, None),
                store.digest.lock().clone(),
                store.check.lock().clone(),
            ),
            sequence: store.publisher.sequence(),
            commits: Vec::new(),
            results: Vec::new(),
        }
    }

    pub fn is_full(&self) -> bool {
        self.results.len() >= MAX_BATCHES || self.changes.size() >= FULL_GROUP_BYTES
    }

    /// Adds a batch, completely or not at all. Its expectations see the writes of the batches
    /// before it in the group.
    pub fn add(&mut self, job: Job) {
        let result = self.apply(job.batch);
        self.results.push((job.responder, result));
    }

    fn apply(&mut self, batch: Batch) -> CommitResult {
        if let Some(fault) = self.store.fault.get() {
            return Err(StoreError::Failed(fault.clone()).into());
        }
        for expect in &batch.expects {
            if !self.is_met(expect)? {
                return Err(CommitError::Conflict(expect.clone()));
            }
        }
        let Batch { mut writes, audit, .. } = batch;
        if let Some(append) = &audit {
            writes.extend(audit_log::writes(append, |table, key| self.get(table, key))?);
        }
        let sequence = self.sequence + 1;
        let changes = writes.iter().map(|write| record_change(write, sequence));
        self.changes.set(changes.collect::<Result<_, _>>()?)?;
        self.sequence = sequence;
        self.commits.push(Commit { sequence, writes });
        Ok(sequence)
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        let value = self.changes.get(table, key)?;
        value.map(|value| Stored::from_value(table, key, &value)).transpose()
    }

    fn is_met(&mut self, expect: &Expect) -> Result<bool, StoreError> {
        let revision = match expect.state {
            Expected::Newest(_) => self.newest(expect.table, &expect.key)?,
            _ => self.get(expect.table, &expect.key)?.map(|stored| stored.revision),
        };
        Ok(expect.state.is_met_by(revision))
    }

    /// The highest revision of all records whose keys begin with `prefix`.
    fn newest(&mut self, table: Table, prefix: &[u8]) -> Result<Option<Sequence>, StoreError> {
        let mut newest = None;
        self.changes.each(table, prefix, |key, value| {
            newest = newest.max(Some(codec::decode_value(table, key, value)?.0));
            Ok(())
        })?;
        Ok(newest)
    }

    /// Makes the group durable, then delivers its commits to the subscribers. The caller sends the
    /// returned results to the writers after it has allowed snapshots again.
    pub fn write(self) -> GroupResults {
        let Self { store, changes, sequence, commits, mut results } = self;
        if !commits.is_empty() {
            let failed = |problem: String| {
                safety_copy::mark_failed_sync(&store.path);
                store.stop(&problem)
            };
            match write_durably(store, changes, sequence).map_err(failed) {
                Ok((digest, check)) => {
                    *store.digest.lock() = digest;
                    *store.check.lock() = check;
                    store.hidden_write.store(None);
                    commits.into_iter().for_each(|commit| store.publisher.publish(commit));
                }
                // Conflicts fail too: they may be conflicts with batches that are not written now.
                Err(fault) => {
                    results.iter_mut().for_each(|(_, result)| *result = Err(fault.clone().into()));
                }
            }
        }
        GroupResults(results)
    }
}

#[cfg(test)]
impl Group<'_> {
    /// Writes the group and leaves it as it is before the sync.
    pub fn write_without_sync(self) {
        write_to_sled(self.store, self.changes, self.sequence).unwrap();
    }
}

/// The results of a group's batches, to be sent to their writers.
pub(super) struct GroupResults(Vec<(oneshot::Sender<CommitResult>, CommitResult)>);

impl GroupResults {
    pub fn send(self) {
        for (responder, result) in self.0 {
            // Sending fails if the writer has dropped the future. The batch is written all the
            // same.
            let _ = responder.send(result);
        }
    }
}

/// Writes and syncs the changes. Returns the digest over all records, and the running check. After
/// an error it is unknown which of the changes are on the disk, and readers still get the values
/// from before.
fn write_durably(
    store: &SledInner,
    changes: PendingChanges<'_>,
    sequence: Sequence,
) -> Result<(RecordDigest, Option<RunningCheck>), String> {
    let digests = write_to_sled(store, changes, sequence)?;
    store.log.sync_data().map_err(|e| e.to_string())?;
    store.marker.set(sequence).map_err(|e| e.to_string())?;
    Ok(digests)
}

fn write_to_sled(
    store: &SledInner,
    changes: PendingChanges<'_>,
    sequence: Sequence,
) -> Result<(RecordDigest, Option<RunningCheck>), String> {
    let (digest, check) = changes.digests();
    let state = CommitState { sequence, digest };
    let mut batch = sled::Batch::default();
    let hidden_write = changes.write(&mut batch).map_err(|e| e.to_string())?;
    let value = codec::encode_value(Table::Meta, COMMIT_STATE, sequence, &encode(&state));
    batch.insert(COMMIT_STATE, value.map_err(|e| e.to_string())?);
    store.keep_files();
    store.hidden_write.store(Some(Arc::new(hidden_write)));
    let _lock = WRITE_LOCK.lock();
    store.db.apply_batch(batch).map_err(|e| e.to_string())?;
    store.db.flush().map_err(|e| e.to_string())?;
    Ok((state.digest, check))
}

/// A write with the encoded value of its record.
fn record_change(write: &Write, sequence: Sequence) -> Result<RecordChange, StoreError> {
    let json = write.json.as_deref();
    let value = json
        .map(|json| codec::encode_value(write.table, &write.key, sequence, json))
        .transpose()?;
    Ok(RecordChange { table: write.table, key: write.key.clone(), value })
}
