//! What is to be changed in buckets, and has not been written yet. It is read as it will be.

use std::{collections::BTreeMap, ops::Bound};

use super::{
    bucket::{HEAD, Records, TARGET, Wake, find, holder, walk},
    failed, place,
};
use crate::store::{StoreError, Table};

/// Changes to buckets that have not been written yet. Each bucket is looked up once: sled copies a page's directory for each look-up of this kind, and
/// what many writes touch are often neighbours.
pub(super) struct Changes<'d> {
    db: &'d sled::Db,
    /// By fence.
    buckets: BTreeMap<Vec<u8>, Bucket>,
    size: usize,
}

/// A record that is to be set, or taken away.
pub(super) struct Record {
    pub table: Table,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

struct Bucket {
    /// As it is in the store.
    bytes: Option<sled::IVec>,
    /// What is to be set or taken away.
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    end: End,
}

/// Where a bucket ends.
enum End {
    /// Not asked yet: of most buckets, one record is all that is wanted.
    Unknown,
    /// At the next one's fence.
    At(sled::IVec),
    /// There is no other behind it.
    Nowhere,
}

impl<'d> Changes<'d> {
    pub fn new(db: &'d sled::Db) -> Self {
        Self { db, buckets: BTreeMap::new(), size: 0 }
    }

    /// How many bytes are to be written.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Sets or takes away the values of records: of all, or of none when one's bucket cannot be read.
    pub fn set(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        let mut fences = Vec::with_capacity(records.len());
        for Record { table, key, .. } in &records {
            let fence = self.fence(*table, key)?;
            let bucket = &self.buckets[&fence];
            if bucket.changes.is_empty() {
                Records::of(*table, bucket.bytes()).try_for_each(|one| one.map(|_| ()))?;
            }
            fences.push(fence);
        }
        for (fence, Record { key, value, .. }) in fences.into_iter().zip(records) {
            let bucket = self.buckets.entry(fence).or_insert_with(|| Bucket::new(None));
            if bucket.changes.is_empty() {
                self.size += bucket.bytes().len();
            }
            self.size += size(&key, value.as_deref().unwrap_or_default());
            bucket.changes.insert(key, value);
        }
        Ok(())
    }

    /// The value of a record, as it will be.
    pub fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let fence = self.fence(table, key)?;
        let bucket = &self.buckets[&fence];
        match bucket.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => find(table, bucket.bytes(), key),
        }
    }

    /// Hands the records whose keys begin with `prefix`, as they will be, on to `each`: in no order, and some may come twice.
    pub fn each(
        &mut self,
        table: Table,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let fence = self.fence(table, prefix)?;
        let changed = self.changed(table, prefix);
        let mut old = |key: &[u8], value: &[u8]| {
            if changed.contains_key(key) { Ok(()) } else { each(key, value) }
        };
        if !self.buckets[&fence].holds_all(table, prefix, &mut old)? {
            walk(self.db, table, prefix, Wake::Warm, |key, value| {
                let is_below = key.starts_with(prefix);
                if is_below {
                    old(key, value)?;
                }
                Ok(is_below)
            })?;
        }
        changed.iter().try_for_each(|(key, value)| value.map_or(Ok(()), |value| each(key, value)))
    }

    /// What is to be set or taken away of the records whose keys begin with `prefix`.
    fn changed(&self, table: Table, prefix: &[u8]) -> BTreeMap<&[u8], Option<&[u8]>> {
        let place = place(table, prefix);
        let before = (Bound::Unbounded, Bound::Included(place.as_slice()));
        let first = self.buckets.range::<[u8], _>(before).next_back().map(|(fence, _)| fence);
        let from = first.map_or(place.as_slice(), Vec::as_slice);
        self.buckets
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .take_while(|(fence, _)| fence.as_slice() <= from || fence.starts_with(&place))
            .filter(|(fence, _)| fence[0] == table as u8)
            .flat_map(|(_, bucket)| {
                bucket.changes.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            })
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
            .collect()
    }

    /// The fence of the bucket that holds a place, or is to hold it.
    fn fence(&mut self, table: Table, key: &[u8]) -> Result<Vec<u8>, StoreError> {
        match self.known(&place(table, key)) {
            Some(fence) => Ok(fence),
            None => self.look_up(table, key),
        }
    }

    /// The fence of the bucket that is known to hold a place.
    fn known(&self, place: &[u8]) -> Option<Vec<u8>> {
        let before = (Bound::Unbounded, Bound::Included(place));
        let (fence, bucket) = self.buckets.range::<[u8], _>(before).next_back()?;
        let is_inside = fence[0] == place[0]
            && match &bucket.end {
                End::Unknown => false,
                End::At(end) => place < end.as_ref(),
                End::Nowhere => true,
            };
        is_inside.then(|| fence.clone())
    }

    /// The fence of the bucket that holds a key, which is known from now on.
    fn look_up(&mut self, table: Table, key: &[u8]) -> Result<Vec<u8>, StoreError> {
        let held = holder(self.db, table, key)?;
        let fence = held.as_ref().map_or_else(|| place(table, &[]), |(fence, _)| fence.to_vec());
        if let Some(bucket) = self.buckets.get_mut(&fence) {
            // Asked for a second time, it will be for a third.
            let next = self.db.get_gt(&fence).map_err(failed)?;
            bucket.end = next.map_or(End::Nowhere, |(end, _)| End::At(end));
        } else {
            self.buckets.insert(fence.clone(), Bucket::new(held.map(|(_, bytes)| bytes)));
        }
        Ok(fence)
    }

    /// Writes the buckets into a batch, those that grew too large as several.
    pub fn write(self, batch: &mut sled::Batch) -> Result<(), StoreError> {
        for (fence, bucket) in self.buckets.into_iter().filter(|(_, one)| !one.changes.is_empty()) {
            bucket.write(fence, batch)?;
        }
        Ok(())
    }
}

impl Bucket {
    fn new(bytes: Option<sled::IVec>) -> Self {
        Self { bytes, changes: BTreeMap::new(), end: End::Unknown }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }

    /// Hands the records that begin with `prefix`, as they are, on to `each`. False: there may be more in the next bucket.
    fn holds_all(
        &self,
        table: Table,
        prefix: &[u8],
        each: &mut impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        for record in Records::of(table, self.bytes()) {
            let (key, value) = record?;
            if key.starts_with(prefix) {
                each(key, value)?;
            } else if key > prefix {
                return Ok(true);
            }
        }
        Ok(match &self.end {
            End::Unknown => false,
            End::At(end) => !end.starts_with(&place(table, prefix)),
            End::Nowhere => true,
        })
    }

    fn write(&self, fence: Vec<u8>, batch: &mut sled::Batch) -> Result<(), StoreError> {
        let table = fence[0];
        let named = Table::of(table).unwrap_or(Table::Meta);
        let records: Vec<_> = Records::of(named, self.bytes()).collect::<Result<_, _>>()?;
        // Numbers are given in order, and full buckets shall stay full.
        let is_appended = match (records.last(), self.changes.first_key_value()) {
            (Some((last, _)), Some((first, _))) => *last < first.as_slice(),
            _ => true,
        };
        let records = self.merged(&records);
        if records.is_empty() {
            batch.remove(fence);
            return Ok(());
        }
        let mut at = fence;
        let mut bytes = Vec::new();
        let limit = limit(&records, is_appended);
        for (key, value) in records {
            if !bytes.is_empty() && bytes.len() + size(key, value) > limit {
                batch.insert(at, std::mem::take(&mut bytes));
                at = [&[table], key].concat();
            }
            bytes.extend_from_slice(&length(key));
            bytes.extend_from_slice(&length(value));
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        }
        batch.insert(at, bytes);
        Ok(())
    }

    /// What was there with what is changed, in the order of the keys.
    fn merged<'b>(&'b self, records: &[(&'b [u8], &'b [u8])]) -> Vec<(&'b [u8], &'b [u8])> {
        let mut merged = Vec::with_capacity(records.len() + self.changes.len());
        let mut changes = self.changes.iter().peekable();
        let take = |(key, value): (&'b Vec<u8>, &'b Option<Vec<u8>>)| {
            value.as_ref().map(|value| (key.as_slice(), value.as_slice()))
        };
        for record in records {
            while let Some(change) = changes.next_if(|(key, _)| key.as_slice() < record.0) {
                merged.extend(take(change));
            }
            match changes.next_if(|(key, _)| key.as_slice() == record.0) {
                Some(change) => merged.extend(take(change)),
                None => merged.push(*record),
            }
        }
        merged.extend(changes.filter_map(take));
        merged
    }
}

/// How large the parts of a bucket may get: full ones where records come in order, halves where they come anywhere.
fn limit(records: &[(&[u8], &[u8])], is_appended: bool) -> usize {
    let total: usize = records.iter().map(|(key, value)| size(key, value)).sum();
    if is_appended || total <= TARGET {
        return TARGET;
    }
    let parts = total.div_ceil(TARGET);
    total.div_ceil(parts) + HEAD
}

fn size(key: &[u8], value: &[u8]) -> usize {
    HEAD + key.len() + value.len()
}

/// Keys are ids, names and mail addresses, and values are bounded by [`MAX_VALUE`](crate::store::codec): both are far below 64 KiB.
fn length(part: &[u8]) -> [u8; 2] {
    u16::try_from(part.len()).expect("keys and values are below 64 KiB").to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::bucket::get, *};

    fn all(db: &sled::Db, from: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        walk(db, Table::Names, from, Wake::Warm, |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(true)
        })
        .unwrap();
        found
    }

    fn apply(db: &sled::Db, writes: &[(Vec<u8>, Option<Vec<u8>>)]) {
        let mut changes = Changes::new(db);
        let mut held: BTreeMap<_, _> = all(db, &[]).into_iter().collect();
        for (key, value) in writes {
            assert_eq!(changes.get(Table::Names, key).unwrap().as_ref(), held.get(key));
            let record = Record { table: Table::Names, key: key.clone(), value: value.clone() };
            changes.set(vec![record]).unwrap();
            match value {
                Some(value) => held.insert(key.clone(), value.clone()),
                None => held.remove(key),
            };
            assert_eq!(changes.get(Table::Names, key).unwrap(), *value);
            // Of what begins with a key, everything is found as it will be.
            for prefix in [key.as_slice(), &key[..key.len() / 2]] {
                let mut found = BTreeMap::new();
                let each = |key: &[u8], value: &[u8]| {
                    found.insert(key.to_vec(), value.to_vec());
                    Ok(())
                };
                changes.each(Table::Names, prefix, each).unwrap();
                let mut expected = held.clone();
                expected.retain(|key, _| key.starts_with(prefix));
                assert_eq!(found, expected);
            }
        }
        let mut batch = sled::Batch::default();
        changes.write(&mut batch).unwrap();
        db.apply_batch(batch).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn buckets_hold_what_a_map_holds(
            batches in prop::collection::vec(
                prop::collection::vec(
                    (prop::collection::vec(0_u8..6, 0..4), prop::option::weighted(0.7, 0_usize..900)),
                    1..40,
                ),
                1..20,
            ),
        ) {
            let db = sled::Config::new().temporary(true).open().unwrap();
            // Neighbours in other tables, which must be left alone.
            db.insert([Table::Names as u8 - 1], vec![0xff]).unwrap();
            db.insert([Table::Names as u8 + 1], vec![0xff]).unwrap();
            let mut map = BTreeMap::new();
            for batch in batches {
                let writes: Vec<_> = batch
                    .into_iter()
                    .map(|(key, size)| (key, size.map(|size| vec![b'x'; size])))
                    .collect();
                for (key, value) in &writes {
                    match value {
                        Some(value) => drop(map.insert(key.clone(), value.clone())),
                        None => drop(map.remove(key)),
                    }
                }
                apply(&db, &writes);
                let expected: Vec<_> = map.clone().into_iter().collect();
                prop_assert_eq!(&all(&db, &[]), &expected);
                for (key, _) in &writes {
                    prop_assert_eq!(&get(&db, Table::Names, key).unwrap(), &map.get(key).cloned());
                    let behind: Vec<_> = map.range(key.clone()..).map(|(k, v)| (k.clone(), v.clone())).collect();
                    prop_assert_eq!(all(&db, key), behind);
                }
            }
            for bucket in db.scan_prefix([Table::Names as u8]) {
                let (_, bucket) = bucket.unwrap();
                prop_assert!(bucket.len() <= TARGET + 900 + HEAD, "{}", bucket.len());
            }
        }
    }

    #[test]
    fn numbers_in_order_fill_their_buckets() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        for number in 0..2000_u64 {
            apply(&db, &[(number.to_be_bytes().to_vec(), Some(vec![b'x'; 88]))]);
        }
        // 100 bytes each: 20 in a bucket.
        assert_eq!(db.len(), 100);
    }

    #[test]
    fn a_bucket_that_is_cut_is_seen() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        apply(
            &db,
            &[(b"a".to_vec(), Some(b"one".to_vec())), (b"b".to_vec(), Some(b"two".to_vec()))],
        );
        let fence = place(Table::Names, &[]);
        let whole = db.get(&fence).unwrap().unwrap();
        for length in 0..whole.len() {
            db.insert(&fence, &whole[..length]).unwrap();
            let walked = walk(&db, Table::Names, &[], Wake::Warm, |_, _| Ok(true));
            // A cut between two records is the checksum's of sled's own log to see.
            assert_eq!(walked.is_ok(), [0, whole.len() / 2].contains(&length), "{length}");
        }
    }
}
