//! Changes of records that are collected before they are written to their buckets. Reads see the
//! changes.

use std::{collections::BTreeMap, ops::Bound};

use super::{
    bucket::{BucketRecords, CacheUse, MAX_BUCKET_SIZE, RECORD_OVERHEAD, find, find_bucket, walk},
    check::RunningCheck,
    sled_key,
    view::{CommittedView, HiddenWrite},
};
use crate::store::{RecordDigest, StoreError, Table};

/// Changes of buckets that are not written yet.
///
/// Each bucket is looked up once, because sled copies a page's directory for each such look-up, and
/// many writes touch neighbouring records.
pub(super) struct PendingChanges<'d> {
    view: CommittedView<'d>,
    /// The digest over all records, changes included.
    digest: RecordDigest,
    check: Option<RunningCheck>,
    /// The buckets that were looked up, by fence: the bucket's sled key.
    buckets: BTreeMap<Vec<u8>, Bucket>,
    size: usize,
}

/// A new value of a record. `None` means that the record is deleted.
pub(super) struct RecordChange {
    pub table: Table,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

struct Bucket {
    /// The bucket as it is in sled. `None` means that it does not exist there.
    bytes: Option<sled::IVec>,
    /// The new values by record key. `None` means that the record is deleted.
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    end: BucketEnd,
}

/// Where a bucket ends.
enum BucketEnd {
    /// Not looked up yet: of most buckets, only one record is needed.
    Unknown,
    /// At this fence of the next bucket.
    At(sled::IVec),
    /// Nowhere: it is the last bucket.
    Nowhere,
}

impl<'d> PendingChanges<'d> {
    /// No changes. `digest` is the digest over the stored records.
    pub fn new(view: CommittedView<'d>, digest: RecordDigest, check: Option<RunningCheck>) -> Self {
        Self { view, digest, check, buckets: BTreeMap::new(), size: 0 }
    }

    /// The digest over all records, changes included, and the running check.
    pub fn digests(&self) -> (RecordDigest, Option<RunningCheck>) {
        (self.digest.clone(), self.check.clone())
    }

    /// How many bytes are to be written, roughly: the changed buckets and the new values.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Adds changes: all of them, or none if one of the buckets cannot be read.
    pub fn set(&mut self, changes: Vec<RecordChange>) -> Result<(), StoreError> {
        let mut fences = Vec::with_capacity(changes.len());
        for RecordChange { table, key, .. } in &changes {
            let fence = self.fence(*table, key)?;
            let bucket = &self.buckets[&fence];
            if bucket.changes.is_empty() {
                BucketRecords::new(*table, bucket.bytes())
                    .try_for_each(|record| record.map(|_| ()))?;
            }
            fences.push(fence);
        }
        for (fence, RecordChange { table, key, value }) in fences.into_iter().zip(changes) {
            let bucket = self.buckets.entry(fence).or_insert_with(|| Bucket::new(None));
            if bucket.changes.is_empty() {
                self.size += bucket.bytes().len();
            }
            let before = bucket.get(table, &key)?;
            self.digest.replace(table, &key, before.as_deref(), value.as_deref());
            if let Some(check) = &mut self.check {
                check.replace(table, &key, before.as_deref(), value.as_deref());
            }
            self.size += record_size(&key, value.as_deref().unwrap_or_default());
            bucket.changes.insert(key, value);
        }
        Ok(())
    }

    /// The value of a record, changes included.
    pub fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let fence = self.fence(table, key)?;
        self.buckets[&fence].get(table, key)
    }

    /// Calls `each` with the records whose keys begin with `prefix`, changes included. The order is
    /// undefined, and a record may come twice.
    pub fn each(
        &mut self,
        table: Table,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let fence = self.fence(table, prefix)?;
        let changed = self.changed(table, prefix);
        let mut each_unchanged = |key: &[u8], value: &[u8]| {
            if changed.contains_key(key) { Ok(()) } else { each(key, value) }
        };
        if !self.buckets[&fence].each_with_prefix(table, prefix, &mut each_unchanged)? {
            walk(&self.view, table, prefix, CacheUse::Keep, |key, value| {
                let has_prefix = key.starts_with(prefix);
                if has_prefix {
                    each_unchanged(key, value)?;
                }
                Ok(has_prefix)
            })?;
        }
        changed.iter().try_for_each(|(key, value)| value.map_or(Ok(()), |value| each(key, value)))
    }

    /// The changes of records whose keys begin with `prefix`.
    fn changed(&self, table: Table, prefix: &[u8]) -> BTreeMap<&[u8], Option<&[u8]>> {
        let start = sled_key(table, prefix);
        let up_to_start = (Bound::Unbounded, Bound::Included(start.as_slice()));
        let first = self.buckets.range::<[u8], _>(up_to_start).next_back().map(|(fence, _)| fence);
        let from = first.map_or(start.as_slice(), Vec::as_slice);
        self.buckets
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .take_while(|(fence, _)| fence.as_slice() <= from || fence.starts_with(&start))
            .filter(|(fence, _)| fence[0] == table as u8)
            .flat_map(|(_, bucket)| {
                bucket.changes.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            })
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
            .collect()
    }

    /// The fence of the bucket to which a key belongs. The bucket is in `buckets` afterwards.
    fn fence(&mut self, table: Table, key: &[u8]) -> Result<Vec<u8>, StoreError> {
        match self.known_fence(&sled_key(table, key)) {
            Some(fence) => Ok(fence),
            None => self.look_up(table, key),
        }
    }

    /// The fence of the bucket to which a sled key belongs, if `buckets` suffices to tell.
    fn known_fence(&self, key: &[u8]) -> Option<Vec<u8>> {
        let up_to_key = (Bound::Unbounded, Bound::Included(key));
        let (fence, bucket) = self.buckets.range::<[u8], _>(up_to_key).next_back()?;
        let is_inside = fence[0] == key[0]
            && match &bucket.end {
                BucketEnd::Unknown => false,
                BucketEnd::At(end) => key < end.as_ref(),
                BucketEnd::Nowhere => true,
            };
        is_inside.then(|| fence.clone())
    }

    /// Looks up the bucket to which a key belongs, and adds it to `buckets`.
    fn look_up(&mut self, table: Table, key: &[u8]) -> Result<Vec<u8>, StoreError> {
        let found = find_bucket(&self.view, table, key)?;
        let fence =
            found.as_ref().map_or_else(|| sled_key(table, &[]), |(fence, _)| fence.to_vec());
        if let Some(bucket) = self.buckets.get_mut(&fence) {
            // After a second look-up, a third one is likely: find out where the bucket ends.
            let next = self.view.entry_after(&fence)?;
            bucket.end = next.map_or(BucketEnd::Nowhere, |(end, _)| BucketEnd::At(end));
        } else {
            self.buckets.insert(fence.clone(), Bucket::new(found.map(|(_, bytes)| bytes)));
        }
        Ok(fence)
    }

    /// Adds the changed buckets to a sled batch. Buckets that became too large are split. Returns
    /// the values that the batch replaces.
    pub fn write(self, batch: &mut sled::Batch) -> Result<HiddenWrite, StoreError> {
        let mut hidden = HiddenWrite::new();
        for (fence, bucket) in self.buckets {
            if bucket.changes.is_empty() {
                continue;
            }
            for new_fence in bucket.write(&fence, batch)? {
                hidden.insert(new_fence, None);
            }
            hidden.insert(fence, bucket.bytes);
        }
        Ok(hidden)
    }
}

impl Bucket {
    fn new(bytes: Option<sled::IVec>) -> Self {
        Self { bytes, changes: BTreeMap::new(), end: BucketEnd::Unknown }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }

    /// Calls `each` with the stored records whose keys begin with `prefix`. `false` means that the
    /// next bucket may contain more of them.
    fn each_with_prefix(
        &self,
        table: Table,
        prefix: &[u8],
        each: &mut impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        for record in BucketRecords::new(table, self.bytes()) {
            let (key, value) = record?;
            if key.starts_with(prefix) {
                each(key, value)?;
            } else if key > prefix {
                return Ok(true);
            }
        }
        Ok(match &self.end {
            BucketEnd::Unknown => false,
            BucketEnd::At(end) => !end.starts_with(&sled_key(table, prefix)),
            BucketEnd::Nowhere => true,
        })
    }

    /// The value of a record, changes included.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => find(table, self.bytes(), key),
        }
    }

    /// Adds the bucket to a sled batch. Returns the fences of the buckets that are split off.
    fn write(&self, fence: &[u8], batch: &mut sled::Batch) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut new_fences = Vec::new();
        let Some((first_change, _)) = self.changes.first_key_value() else {
            return Ok(new_fences);
        };
        let table_byte = fence[0];
        let table = Table::from_byte(table_byte).unwrap_or(Table::Meta);
        let records: Vec<_> = BucketRecords::new(table, self.bytes()).collect::<Result<_, _>>()?;
        let is_appended = records.last().is_none_or(|(last, _)| *last < first_change.as_slice());
        let records = self.merged(&records);
        if records.is_empty() {
            batch.remove(fence);
            return Ok(new_fences);
        }
        let mut fence = fence.to_vec();
        let mut bytes = Vec::new();
        let limit = size_limit(&records, is_appended);
        for (key, value) in records {
            if !bytes.is_empty() && bytes.len() + record_size(key, value) > limit {
                batch.insert(fence, std::mem::take(&mut bytes));
                fence = [&[table_byte], key].concat();
                new_fences.push(fence.clone());
            }
            bytes.extend_from_slice(&length(key));
            bytes.extend_from_slice(&length(value));
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        }
        batch.insert(fence, bytes);
        Ok(new_fences)
    }

    /// The stored records with the changes applied, in the order of the keys.
    fn merged<'b>(&'b self, records: &[(&'b [u8], &'b [u8])]) -> Vec<(&'b [u8], &'b [u8])> {
        let mut merged: BTreeMap<_, _> = records.iter().copied().collect();
        for (key, value) in &self.changes {
            match value {
                Some(value) => merged.insert(key.as_slice(), value.as_slice()),
                None => merged.remove(key.as_slice()),
            };
        }
        merged.into_iter().collect()
    }
}

/// The maximum size of the parts of a bucket. Records that are appended in order, such as those
/// with numbers as keys, fill their buckets. Other records are spread evenly, so that each part has
/// room for further ones.
fn size_limit(records: &[(&[u8], &[u8])], is_appended: bool) -> usize {
    let total: usize = records.iter().map(|(key, value)| record_size(key, value)).sum();
    if is_appended || total <= MAX_BUCKET_SIZE {
        return MAX_BUCKET_SIZE;
    }
    let parts = total.div_ceil(MAX_BUCKET_SIZE);
    total.div_ceil(parts) + RECORD_OVERHEAD
}

fn record_size(key: &[u8], value: &[u8]) -> usize {
    RECORD_OVERHEAD + key.len() + value.len()
}

/// The length of a key or value. Keys are ids, names and mail addresses, and values are bounded by
/// [`MAX_VALUE_SIZE`](crate::store::codec): both are far below 64 KiB.
fn length(part: &[u8]) -> [u8; 2] {
    u16::try_from(part.len()).expect("keys and values are below 64 KiB").to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{super::bucket::get, *};

    fn records_from(db: &sled::Db, from: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        walk(&CommittedView::new(db, None), Table::Names, from, CacheUse::Keep, |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(true)
        })
        .unwrap();
        found
    }

    fn apply(db: &sled::Db, writes: &[(Vec<u8>, Option<Vec<u8>>)]) {
        let view = CommittedView::new(db, None);
        let mut changes = PendingChanges::new(view.clone(), RecordDigest::random(), None);
        let mut expected: BTreeMap<_, _> = records_from(db, &[]).into_iter().collect();
        for (key, value) in writes {
            assert_eq!(changes.get(Table::Names, key).unwrap().as_ref(), expected.get(key));
            let change =
                RecordChange { table: Table::Names, key: key.clone(), value: value.clone() };
            changes.set(vec![change]).unwrap();
            match value {
                Some(value) => expected.insert(key.clone(), value.clone()),
                None => expected.remove(key),
            };
            assert_eq!(changes.get(Table::Names, key).unwrap(), *value);
            // A search by prefix finds all records, changes included.
            for prefix in [key.as_slice(), &key[..key.len() / 2]] {
                let mut found = BTreeMap::new();
                let each = |key: &[u8], value: &[u8]| {
                    found.insert(key.to_vec(), value.to_vec());
                    Ok(())
                };
                changes.each(Table::Names, prefix, each).unwrap();
                let mut with_prefix = expected.clone();
                with_prefix.retain(|key, _| key.starts_with(prefix));
                assert_eq!(found, with_prefix);
            }
        }
        let mut batch = sled::Batch::default();
        let before = buckets(&view);
        let hidden = changes.write(&mut batch).unwrap();
        db.apply_batch(batch).unwrap();
        let view_without_write = CommittedView::new(db, Some(Arc::new(hidden)));
        assert_eq!(buckets(&view_without_write), before);
    }

    fn buckets(view: &CommittedView<'_>) -> Vec<(sled::IVec, sled::IVec)> {
        view.entries_from(&[]).collect::<Result<_, _>>().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn buckets_behave_like_a_map(
            batches in prop::collection::vec(
                prop::collection::vec(
                    (prop::collection::vec(0_u8..6, 0..4), prop::option::weighted(0.7, 0_usize..900)),
                    1..40,
                ),
                1..20,
            ),
        ) {
            let db = sled::Config::new().temporary(true).open().unwrap();
            // Records of the neighbouring tables, which must not be touched.
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
                prop_assert_eq!(&records_from(&db, &[]), &expected);
                for (key, _) in &writes {
                    prop_assert_eq!(&get(&CommittedView::new(&db, None), Table::Names, key).unwrap(), &map.get(key).cloned());
                    let rest: Vec<_> =
                        map.range(key.clone()..).map(|(k, v)| (k.clone(), v.clone())).collect();
                    prop_assert_eq!(records_from(&db, key), rest);
                }
            }
            for bucket in db.scan_prefix([Table::Names as u8]) {
                let (_, bucket) = bucket.unwrap();
                prop_assert!(bucket.len() <= MAX_BUCKET_SIZE + 900 + RECORD_OVERHEAD, "{}", bucket.len());
            }
        }
    }

    #[test]
    fn records_appended_in_order_fill_their_buckets() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        for number in 0..2000_u64 {
            apply(&db, &[(number.to_be_bytes().to_vec(), Some(vec![b'x'; 88]))]);
        }
        // Each record has 100 bytes, so a bucket has 20 records.
        assert_eq!(db.len(), 100);
    }

    #[test]
    fn truncated_bucket_is_detected() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        apply(
            &db,
            &[(b"a".to_vec(), Some(b"one".to_vec())), (b"b".to_vec(), Some(b"two".to_vec()))],
        );
        let fence = sled_key(Table::Names, &[]);
        let whole = db.get(&fence).unwrap().unwrap();
        for length in 0..whole.len() {
            db.insert(&fence, &whole[..length]).unwrap();
            let view = CommittedView::new(&db, None);
            let walked = walk(&view, Table::Names, &[], CacheUse::Keep, |_, _| Ok(true));
            // A truncation between two records is detected by the checksum of sled's own log.
            assert_eq!(walked.is_ok(), [0, whole.len() / 2].contains(&length), "{length}");
        }
    }
}
