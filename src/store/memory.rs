//! A store in memory: for tests, examples, and programs that create their records at each start.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, atomic::AtomicBool},
};

use parking_lot::Mutex;

use super::{
    Batch, Commit, CommitError, CommitFuture, Expect, Expected, Lagged, RecordDigest, RecordRef,
    Sequence, Snapshot, Store, StoreError, Stored, Subscriber, Table, Visit, audit_log, codec,
    subscribers::Publisher,
};

type Records = BTreeMap<(Table, Vec<u8>), Arc<[u8]>>;

/// Encoded values by table and key, and their digest.
#[derive(Clone)]
struct MemoryRecords {
    records: Records,
    digest: RecordDigest,
}

/// A [`Store`] in memory. Its records are lost when it is dropped.
pub struct MemoryStore {
    records: Mutex<MemoryRecords>,
    publisher: Publisher,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        let (records, digest) = (Records::new(), RecordDigest::random());
        Self {
            records: Mutex::new(MemoryRecords { records, digest }),
            publisher: Publisher::new(0),
        }
    }

    /// A store whose first commit is this batch.
    pub(crate) fn with_records(batch: Batch) -> Result<Self, CommitError> {
        let store = Self::new();
        store.write(batch)?;
        Ok(store)
    }

    fn write(&self, batch: Batch) -> Result<Sequence, CommitError> {
        let mut stored = self.records.lock();
        let MemoryRecords { records, digest } = &mut *stored;
        for expect in &batch.expects {
            if !is_met(records, expect)? {
                return Err(CommitError::Conflict(expect.clone()));
            }
        }
        let sequence = self.publisher.sequence() + 1;
        let mut writes = batch.writes;
        if let Some(append) = &batch.audit {
            writes.extend(audit_log::writes(append, |table, key| get(records, table, key))?);
        }
        // Encode all values first: an error must leave the records unchanged.
        let mut values = Vec::with_capacity(writes.len());
        for write in &writes {
            values.push(match &write.json {
                Some(json) => Some(codec::encode_value(write.table, &write.key, sequence, json)?),
                None => None,
            });
        }
        for (write, value) in writes.iter().zip(values) {
            let key = (write.table, write.key.clone());
            let after: Option<Arc<[u8]>> = value.map(Arc::from);
            let before = match &after {
                Some(value) => records.insert(key, value.clone()),
                None => records.remove(&key),
            };
            digest.replace(write.table, &write.key, before.as_deref(), after.as_deref());
        }
        self.publisher.publish(Commit { sequence, writes });
        Ok(sequence)
    }
}

fn is_met(records: &Records, expect: &Expect) -> Result<bool, StoreError> {
    let first = (expect.table, expect.key.clone());
    let revision = if matches!(expect.state, Expected::Newest(_)) {
        let mut newest = None;
        for ((table, key), value) in records.range(first..) {
            if *table != expect.table || !key.starts_with(&expect.key) {
                break;
            }
            newest = newest.max(Some(codec::decode_value(*table, key, value)?.0));
        }
        newest
    } else {
        get(records, expect.table, &expect.key)?.map(|stored| stored.revision)
    };
    Ok(expect.state.is_met_by(revision))
}

fn get(records: &Records, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError> {
    let value = records.get(&(table, key.to_vec()));
    value.map(|value| Stored::from_value(table, key, value)).transpose()
}

impl Store for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        get(&self.records.lock().records, table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Stored)>, StoreError> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded((table, after.to_vec())),
            _ => Bound::Included((table, prefix.to_vec())),
        };
        self.records
            .lock()
            .records
            .range((from, Bound::Unbounded))
            .take_while(|((of, key), _)| *of == table && key.starts_with(prefix))
            .take(limit)
            .map(|((_, key), value)| Ok((key.clone(), Stored::from_value(table, key, value)?)))
            .collect()
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        let records = self.records.lock();
        let sequence = self.publisher.sequence();
        Ok(Box::new(MemorySnapshot { sequence, stored: records.clone() }))
    }

    fn commit(&self, batch: Batch) -> CommitFuture<'_> {
        Box::pin(async move { self.write(batch) })
    }

    fn subscribe(&self, after: Sequence, subscriber: Arc<dyn Subscriber>) -> Result<(), Lagged> {
        self.publisher.subscribe(after, subscriber)
    }

    fn verify(&self, _cancelled: &AtomicBool) -> Result<(), StoreError> {
        let MemoryRecords { records, digest } = self.records.lock().clone();
        let mut found = digest.empty();
        for ((table, key), value) in &records {
            found.replace(*table, key, None, Some(value));
        }
        let compared = digest.compare_loaded(&found).and(digest.compare_others(&found));
        compared.map_err(StoreError::Failed)
    }

    fn fault(&self) -> Option<String> {
        None
    }

    fn keeps_records(&self) -> bool {
        false
    }
}

struct MemorySnapshot {
    sequence: Sequence,
    stored: MemoryRecords,
}

impl Snapshot for MemorySnapshot {
    fn sequence(&self) -> Sequence {
        self.sequence
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        each: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let records = self.stored.records.range((table, from.to_vec())..);
        let is_inside =
            |(of, key): &(Table, Vec<u8>)| *of == table && to.is_none_or(|to| **key < *to);
        for ((_, key), value) in records.take_while(|(at, _)| is_inside(at)) {
            let (revision, json) = codec::decode_value(table, key, value)?;
            each(key, RecordRef { revision, json })?;
        }
        Ok(())
    }

    fn last_key(&self, table: Table) -> Result<Option<Vec<u8>>, StoreError> {
        let mut keys = self.stored.records.keys().rev().skip_while(|(of, _)| *of > table);
        Ok(keys.next().filter(|(of, _)| *of == table).map(|(_, key)| key.clone()))
    }

    fn empty_digest(&self) -> Option<RecordDigest> {
        Some(self.stored.digest.empty())
    }

    fn verify_loaded(&self, loaded: &RecordDigest) -> Result<(), StoreError> {
        self.stored.digest.compare_loaded(loaded).map_err(StoreError::Failed)
    }
}
