//! A store that forgets: for tests, examples, and programs that bring their own records at each start.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Batch, Change, CommitError, CommitFuture, Expect, Lagged, RecordRef, Sequence, Snapshot, State,
    Store, StoreError, Stored, Subscriber, Table, Visit, audit_log, codec, subscribers::Publisher,
};

type Records = BTreeMap<(Table, Vec<u8>), Arc<[u8]>>;

/// A [`Store`] in memory.
pub struct MemoryStore {
    records: Mutex<Records>,
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
        Self { records: Mutex::default(), publisher: Publisher::new(0) }
    }

    /// A store that begins with these records.
    pub(crate) fn of(batch: Batch) -> Result<Self, CommitError> {
        let store = Self::new();
        store.write(batch)?;
        Ok(store)
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, batch: Batch) -> Result<Sequence, CommitError> {
        let mut records = self.lock();
        for expect in &batch.expects {
            if !holds(&records, expect)? {
                return Err(CommitError::Conflict(expect.clone()));
            }
        }
        let sequence = self.publisher.sequence() + 1;
        let mut writes = batch.writes;
        if let Some(trace) = &batch.trace {
            writes.extend(audit_log::writes(trace, |table, key| get(&records, table, key))?);
        }
        let mut sealed = Vec::with_capacity(writes.len());
        for write in &writes {
            sealed.push(match &write.json {
                Some(json) => Some(codec::seal(write.table, &write.key, sequence, json)?),
                None => None,
            });
        }
        for (write, value) in writes.iter().zip(sealed) {
            let place = (write.table, write.key.clone());
            match value {
                Some(value) => records.insert(place, value.into()),
                None => records.remove(&place),
            };
        }
        self.publisher.publish(Change { sequence, writes });
        Ok(sequence)
    }
}

fn holds(records: &Records, expect: &Expect) -> Result<bool, StoreError> {
    if let State::Newest(wanted) = expect.state {
        let mut newest = 0;
        for ((table, key), value) in records.range((expect.table, expect.key.clone())..) {
            if *table != expect.table || !key.starts_with(&expect.key) {
                break;
            }
            newest = newest.max(codec::open(*table, key, value)?.0);
        }
        return Ok(newest == wanted);
    }
    let held = records.get(&(expect.table, expect.key.clone()));
    Ok(match (expect.state, held) {
        (State::Missing, held) => held.is_none(),
        (State::Present, held) => held.is_some(),
        (State::Revision(_), None) | (State::Newest(_), _) => false,
        (State::Revision(wanted), Some(value)) => {
            codec::open(expect.table, &expect.key, value)?.0 == wanted
        }
    })
}

fn get(records: &Records, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError> {
    records.get(&(table, key.to_vec())).map(|value| stored(table, key, value)).transpose()
}

fn stored(table: Table, key: &[u8], value: &[u8]) -> Result<Stored, StoreError> {
    let (revision, json) = codec::open(table, key, value)?;
    Ok(Stored { revision, json: json.to_vec() })
}

impl Store for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        get(&self.lock(), table, key)
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
        self.lock()
            .range((from, Bound::Unbounded))
            .take_while(|((of, key), _)| *of == table && key.starts_with(prefix))
            .take(limit)
            .map(|((_, key), value)| Ok((key.clone(), stored(table, key, value)?)))
            .collect()
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        let records = self.lock();
        Ok(Box::new(Moment { sequence: self.publisher.sequence(), records: records.clone() }))
    }

    fn commit(&self, batch: Batch) -> CommitFuture<'_> {
        Box::pin(async move { self.write(batch) })
    }

    fn changes(&self, after: Sequence, sink: Arc<dyn Subscriber>) -> Result<(), Lagged> {
        self.publisher.follow(after, sink)
    }

    fn fault(&self) -> Option<String> {
        None
    }
}

struct Moment {
    sequence: Sequence,
    records: Records,
}

impl Snapshot for Moment {
    fn sequence(&self) -> Sequence {
        self.sequence
    }

    fn within(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        each: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let all = self.records.range((table, from.to_vec())..);
        let is_inside =
            |(of, key): &(Table, Vec<u8>)| *of == table && to.is_none_or(|to| **key < *to);
        for ((_, key), value) in all.take_while(|(at, _)| is_inside(at)) {
            let (revision, json) = codec::open(table, key, value)?;
            each(key, RecordRef { revision, json })?;
        }
        Ok(())
    }

    fn last(&self, table: Table) -> Result<Option<Vec<u8>>, StoreError> {
        let mut all = self.records.keys().rev().skip_while(|(of, _)| *of > table);
        Ok(all.next().filter(|(of, _)| *of == table).map(|(_, key)| key.clone()))
    }
}
