//! Batches that are written together: as one write of sled's, with one sync.
//!
//! sled begins a new piece of its log with each write and each flush, and a piece at the end of each segment (512 KiB). The pieces are written by
//! seven threads that all stores of a process share. When each of them waits for the lock of the segments' accountant, and the one who holds it
//! waits for the eighth to cut the file, nobody goes on for ever (spacejam/sled #1412; #1269 mends it, and was never released). So a group is one
//! write, it has few bytes, and [one group at a time](TURN) is written in a process: there are never as many pieces under way. A batch that changes more
//! than a megabyte on its own is written as it is, and can still meet with it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use super::{
    SEQUENCE, Shared,
    changes::{Changes, Record},
    stored,
};
use crate::store::{
    Batch, Change, CommitError, Expect, Sequence, State, StoreError, Table, Write, audit_log,
    codec, encode,
};

/// The most batches that share one sync.
const MOST: usize = 1024;
/// A group with so many bytes takes no more. sled writes up to three times as many, because it writes pages anew.
const ENOUGH: usize = 512 * 1024;
/// Held while a group is written.
pub(super) static TURN: Mutex<()> = Mutex::new(());

/// Who waits for a batch.
type Answer = oneshot::Sender<Result<Sequence, CommitError>>;

/// A batch on its way.
pub(super) struct Job {
    pub batch: Batch,
    pub answer: Answer,
}

/// What is to be written at once.
pub(super) struct Group<'s> {
    shared: &'s Shared,
    changes: Changes<'s>,
    /// The number of the last batch that is in it, or of the last one before.
    sequence: Sequence,
    taken: Vec<Change>,
    answers: Vec<(Answer, Result<Sequence, CommitError>)>,
}

impl<'s> Group<'s> {
    pub fn new(shared: &'s Shared) -> Self {
        Self {
            shared,
            changes: Changes::new(&shared.db),
            sequence: shared.publisher.sequence(),
            taken: Vec::new(),
            answers: Vec::new(),
        }
    }

    pub fn is_full(&self) -> bool {
        self.answers.len() >= MOST || self.changes.size() >= ENOUGH
    }

    /// Takes a batch in, whole or not at all. It sees what those before it change.
    pub fn take(&mut self, job: Job) {
        let result = self.apply(job.batch);
        self.answers.push((job.answer, result));
    }

    fn apply(&mut self, batch: Batch) -> Result<Sequence, CommitError> {
        if let Some(fault) = self.shared.fault.get() {
            return Err(StoreError::Failed(fault.clone()).into());
        }
        for expect in &batch.expects {
            if !self.holds(expect)? {
                return Err(CommitError::Conflict(expect.clone()));
            }
        }
        let Batch { mut writes, trace, .. } = batch;
        if let Some(trace) = &trace {
            writes.extend(audit_log::writes(trace, |table, key| {
                let value = self.changes.get(table, key)?;
                value.map(|value| stored(table, key, &value)).transpose()
            })?);
        }
        let sequence = self.sequence + 1;
        let records = writes.iter().map(|write| record(write, sequence));
        self.changes.set(records.collect::<Result<_, _>>()?)?;
        self.sequence = sequence;
        self.taken.push(Change { sequence, writes });
        Ok(sequence)
    }

    fn holds(&mut self, expect: &Expect) -> Result<bool, StoreError> {
        if let State::Newest(wanted) = expect.state {
            return Ok(self.newest(expect.table, &expect.key)? == wanted);
        }
        let value = self.changes.get(expect.table, &expect.key)?;
        let held = value.map(|value| stored(expect.table, &expect.key, &value)).transpose()?;
        Ok(match (expect.state, held) {
            (State::Missing, held) => held.is_none(),
            (State::Present, held) => held.is_some(),
            (State::Revision(wanted), held) => held.is_some_and(|stored| stored.revision == wanted),
            (State::Newest(_), _) => false,
        })
    }

    /// The last commit that wrote a record whose key begins with `prefix`; 0: there is none.
    fn newest(&mut self, table: Table, prefix: &[u8]) -> Result<Sequence, StoreError> {
        let mut newest = 0;
        self.changes.each(table, prefix, |key, value| {
            newest = newest.max(codec::open(table, key, value)?.0);
            Ok(())
        })?;
        Ok(newest)
    }

    /// Writes it and tells the followers. What is returned is said to the writers when snapshots are possible again.
    pub fn write(self) -> Answers {
        let Self { shared, changes, sequence, taken, mut answers } = self;
        if !taken.is_empty() {
            let written = write_down(shared, changes, sequence);
            match written.map_err(|problem| shared.stop(&problem)) {
                Ok(()) => taken.into_iter().for_each(|change| shared.publisher.publish(change)),
                // One that was refused may have been refused for what was not written after all.
                Err(fault) => {
                    answers.iter_mut().for_each(|(_, result)| *result = Err(fault.clone().into()));
                }
            }
        }
        Answers(answers)
    }
}

/// What the writers of a group are told.
pub(super) struct Answers(Vec<(Answer, Result<Sequence, CommitError>)>);

impl Answers {
    pub fn send(self) {
        for (answer, result) in self.0 {
            // A writer that went away does not hear it; the write stands.
            let _ = answer.send(result);
        }
    }
}

/// Brings changes to the disk.
fn write_down(shared: &Shared, changes: Changes<'_>, sequence: Sequence) -> Result<(), String> {
    let mut whole = sled::Batch::default();
    changes.write(&mut whole).map_err(|e| e.to_string())?;
    let number = codec::seal(Table::Meta, SEQUENCE, sequence, &encode(&sequence));
    whole.insert(SEQUENCE, number.map_err(|e| e.to_string())?);
    {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        shared.db.apply_batch(whole).map_err(|e| e.to_string())?;
        shared.db.flush().map_err(|e| e.to_string())?;
    }
    shared.log.sync_data().map_err(|e| e.to_string())?;
    shared.mark.set(sequence).map_err(|e| e.to_string())
}

/// A record as it lies in a bucket.
fn record(write: &Write, sequence: Sequence) -> Result<Record, StoreError> {
    let json = write.json.as_deref();
    let value =
        json.map(|json| codec::seal(write.table, &write.key, sequence, json)).transpose()?;
    Ok(Record { table: write.table, key: write.key.clone(), value })
}
