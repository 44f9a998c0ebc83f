//! Group commit: several batches are written in one transaction of redb.

use redb::{ReadableTable as _, Table as RedbTable};
use tokio::sync::oneshot;

use super::{DIGEST, DIGESTS, RECORDS, RedbInner, SEQUENCE, STATE, record_key};
use crate::store::{
    Batch, Commit, CommitError, Expect, Expected, RecordDigest, Sequence, StoreError, Stored,
    Table, audit_log, codec, encode,
};

/// The most batches in a group.
const MAX_BATCHES: usize = 1024;
/// A group with at least this many bytes of records accepts no more batches: a group is kept in
/// memory until it is written.
const FULL_GROUP_BYTES: usize = 4 * 1024 * 1024;

type CommitResult = Result<Sequence, CommitError>;

/// A queued batch, with the channel for its result.
pub(super) struct Job {
    pub batch: Batch,
    pub responder: oneshot::Sender<CommitResult>,
}

/// Batches that are written together.
pub(super) struct Group<'s> {
    store: &'s RedbInner,
    transaction: redb::WriteTransaction,
    /// The number of the last commit, those of this group included.
    sequence: Sequence,
    /// The digest over all records, those of this group included.
    digest: RecordDigest,
    bytes: usize,
    commits: Vec<Commit>,
    /// The results of all batches, failed ones included.
    pub results: GroupResults,
}

/// The results of a group's batches, to be sent to their writers.
#[derive(Default)]
pub(super) struct GroupResults(Vec<(oneshot::Sender<CommitResult>, CommitResult)>);

impl GroupResults {
    /// Makes every batch fail. Conflicts fail too: they may be conflicts with batches that are not
    /// written now.
    pub fn fail(&mut self, fault: &StoreError) {
        self.0.iter_mut().for_each(|(_, result)| *result = Err(fault.clone().into()));
    }

    pub fn push(&mut self, responder: oneshot::Sender<CommitResult>, result: CommitResult) {
        self.0.push((responder, result));
    }

    pub fn send(self) {
        for (responder, result) in self.0 {
            // Sending fails if the writer has dropped the future. The batch is written all the
            // same.
            let _ = responder.send(result);
        }
    }
}

/// Why a batch was not added to its group.
enum Rejected {
    /// The batch alone fails. It has changed nothing.
    Batch(CommitError),
    /// The transaction is in an unknown state.
    Group(String),
}

impl<E: Into<CommitError>> From<E> for Rejected {
    fn from(problem: E) -> Self {
        Self::Batch(problem.into())
    }
}

fn broken(problem: impl Into<redb::Error>) -> Rejected {
    Rejected::Group(problem.into().to_string())
}

impl<'s> Group<'s> {
    pub fn new(store: &'s RedbInner) -> Result<Self, redb::Error> {
        let mut transaction = store.database.begin_write()?;
        transaction.set_durability(redb::Durability::Immediate)?;
        // With one phase, redb takes a last commit whose pages are damaged for one that a crash
        // has interrupted, and opens the commit before. With two phases it reports the damage.
        transaction.set_two_phase_commit(true);
        Ok(Self {
            store,
            transaction,
            sequence: store.publisher.sequence(),
            digest: store.view().digest.clone(),
            bytes: 0,
            commits: Vec::new(),
            results: GroupResults::default(),
        })
    }

    pub fn is_full(&self) -> bool {
        self.results.0.len() >= MAX_BATCHES || self.bytes >= FULL_GROUP_BYTES
    }

    /// Adds a batch, completely or not at all. Its expectations see the writes of the batches
    /// before it in the group.
    ///
    /// # Errors
    /// The whole group fails.
    pub fn add(&mut self, job: Job) -> Result<(), String> {
        let (result, outcome) = match self.apply(job.batch) {
            Ok(sequence) => (Ok(sequence), Ok(())),
            Err(Rejected::Batch(problem)) => (Err(problem), Ok(())),
            Err(Rejected::Group(text)) => (Err(StoreError::Failed(text.clone()).into()), Err(text)),
        };
        self.results.push(job.responder, result);
        outcome
    }

    fn apply(&mut self, batch: Batch) -> Result<Sequence, Rejected> {
        if let Some(fault) = self.store.fault.get() {
            return Err(StoreError::Failed(fault.clone()).into());
        }
        let table = self.transaction.open_table(RECORDS).map_err(broken)?;
        let mut records = Records { table, digest: &mut self.digest };
        for expect in &batch.expects {
            if !records.meet(expect)? {
                return Err(CommitError::Conflict(expect.clone()).into());
            }
        }
        let Batch { mut writes, audit, .. } = batch;
        if let Some(append) = &audit {
            let read = |table: Table, key: &[u8]| {
                records.get(table, key).map_err(|rejected| match rejected {
                    Rejected::Batch(CommitError::Store(problem)) => problem,
                    Rejected::Batch(problem) => StoreError::Failed(problem.to_string()),
                    Rejected::Group(text) => StoreError::Failed(text),
                })
            };
            writes.extend(audit_log::writes(append, read)?);
        }
        let sequence = self.sequence + 1;
        // Encode all values first: an error must leave the records unchanged.
        let mut values = Vec::with_capacity(writes.len());
        for write in &writes {
            let json = write.json.as_deref();
            let value =
                json.map(|json| codec::encode_value(write.table, &write.key, sequence, json));
            values.push(value.transpose()?);
        }
        for (write, value) in writes.iter().zip(&values) {
            records.change(write.table, &write.key, value.as_deref())?;
            self.bytes += write.key.len() + value.as_ref().map_or(0, Vec::len);
        }
        self.sequence = sequence;
        self.commits.push(Commit { sequence, writes });
        Ok(sequence)
    }

    /// Makes the group durable. Returns its commits. After an error it is unknown whether they are
    /// on the disk.
    pub fn write(self) -> (GroupResults, Result<(Vec<Commit>, RecordDigest), String>) {
        let Self { store, transaction, sequence, digest, commits, results, .. } = self;
        let written = write_durably(store, transaction, sequence, &digest, commits);
        (results, written.map(|commits| (commits, digest)))
    }
}

fn write_durably(
    store: &RedbInner,
    transaction: redb::WriteTransaction,
    sequence: Sequence,
    digest: &RecordDigest,
    commits: Vec<Commit>,
) -> Result<Vec<Commit>, String> {
    let text = |problem: redb::Error| problem.to_string();
    if commits.is_empty() {
        transaction.abort().map_err(|e| text(e.into()))?;
        return Ok(commits);
    }
    {
        let mut state = transaction.open_table(STATE).map_err(|e| text(e.into()))?;
        state.insert(SEQUENCE, sequence).map_err(|e| text(e.into()))?;
        let mut digests = transaction.open_table(DIGESTS).map_err(|e| text(e.into()))?;
        digests.insert(DIGEST, &*encode(digest)).map_err(|e| text(e.into()))?;
    }
    transaction.commit().map_err(|e| text(e.into()))?;
    if let Some(problem) = store.file_fault.get() {
        return Err(problem.clone());
    }
    store.marker.set(sequence).map_err(|e| e.to_string())?;
    Ok(commits)
}

/// The records as the transaction sees them.
struct Records<'t, 'd> {
    table: RedbTable<'t, &'static [u8], &'static [u8]>,
    digest: &'d mut RecordDigest,
}

impl Records<'_, '_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Stored>, Rejected> {
        let value = self.table.get(&*record_key(table, key)).map_err(broken)?;
        Ok(value.map(|value| Stored::from_value(table, key, value.value())).transpose()?)
    }

    fn meet(&self, expect: &Expect) -> Result<bool, Rejected> {
        let revision = match expect.state {
            Expected::Newest(_) => self.newest(expect.table, &expect.key)?,
            _ => self.get(expect.table, &expect.key)?.map(|stored| stored.revision),
        };
        Ok(expect.state.is_met_by(revision))
    }

    /// The highest revision of all records whose keys begin with `prefix`.
    fn newest(&self, table: Table, prefix: &[u8]) -> Result<Option<Sequence>, Rejected> {
        let prefix = record_key(table, prefix);
        let mut newest = None;
        for entry in self.table.range(&*prefix..).map_err(broken)? {
            let (key, value) = entry.map_err(broken)?;
            if !key.value().starts_with(&prefix) {
                break;
            }
            let (revision, _) = codec::decode_value(table, &key.value()[1..], value.value())?;
            newest = newest.max(Some(revision));
        }
        Ok(newest)
    }

    /// Changes one record, and the digest with it. `after` is the new value. `None` means that the
    /// record is deleted.
    fn change(&mut self, table: Table, key: &[u8], after: Option<&[u8]>) -> Result<(), Rejected> {
        let position = record_key(table, key);
        let before = match after {
            Some(after) => self.table.insert(&*position, after).map_err(broken)?,
            None => self.table.remove(&*position).map_err(broken)?,
        };
        let before = before.as_ref().map(|value| value.value());
        self.digest.replace(table, key, before, after);
        Ok(())
    }
}
