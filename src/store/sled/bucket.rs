//! Buckets: several neighbouring records of one table share one value in sled.
//!
//! sled 0.34 puts at most 16 items on a page, keeps some 300 bytes in memory for each page, and
//! reads each page separately. With one item a record, a million users took 140 MB of bookkeeping
//! and five seconds to read; buckets take a tenth of both.
//!
//! ```text
//! sled's key    the table's byte, then the fence: no record in the bucket has a smaller key
//! sled's value  the records in the order of their keys, each as:
//!               u16 length of the key, u16 length of the value (both little-endian), key, value
//! ```
//! A bucket contains the records from its fence up to the next fence. Records before the first
//! fence of a table go into a bucket whose sled key is the table's byte alone.

use std::{cmp::Ordering, ops::Bound};

use super::{sled_key, view::CommittedView};
use crate::store::{StoreError, Table};

/// A bucket larger than this (in bytes) is split. The size is small for two reasons: a change of
/// one record rewrites the whole bucket; and a page of 16 buckets must stay far below the size at
/// which sled moves it to a separate file, which it never syncs.
pub(super) const MAX_BUCKET_SIZE: usize = 2048;
/// The size of a record in addition to its key and value.
pub(super) const RECORD_OVERHEAD: usize = 4;

/// Iterates over the records of a bucket: their keys and values.
pub(super) struct BucketRecords<'a> {
    table: Table,
    rest: &'a [u8],
}

impl<'a> BucketRecords<'a> {
    pub fn new(table: Table, bucket: &'a [u8]) -> Self {
        Self { table, rest: bucket }
    }

    fn split_record(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (lengths, rest) = self.rest.split_first_chunk::<RECORD_OVERHEAD>()?;
        let key_length = usize::from(u16::from_le_bytes([lengths[0], lengths[1]]));
        let value_length = usize::from(u16::from_le_bytes([lengths[2], lengths[3]]));
        let (key, rest) = rest.split_at_checked(key_length)?;
        let (value, rest) = rest.split_at_checked(value_length)?;
        self.rest = rest;
        Some((key, value))
    }
}

impl<'a> Iterator for BucketRecords<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some(self.split_record().ok_or_else(|| {
            self.rest = &[];
            StoreError::Damaged {
                table: self.table.name(),
                key: "(several)".into(),
                problem: "a bucket is truncated".into(),
            }
        }))
    }
}

/// The value of a record.
pub(super) fn get(
    view: &CommittedView<'_>,
    table: Table,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    match find_bucket(view, table, key)? {
        Some((_, bucket)) => find(table, &bucket, key),
        None => Ok(None),
    }
}

/// The value of a record in this bucket.
pub(super) fn find(table: Table, bucket: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    for record in BucketRecords::new(table, bucket) {
        let (found, value) = record?;
        match found.cmp(key) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(Some(value.to_vec())),
            Ordering::Greater => break,
        }
    }
    Ok(None)
}

/// How a walk affects sled's page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CacheUse {
    /// The pages stay in the cache, as after any read.
    Keep,
    /// The cache may evict the pages soon: the walk reads everything once.
    Evict,
}

/// How many additional reads of each bucket a walk with [`CacheUse::Evict`] makes. sled records
/// reads in blocks of 512 for each of the 256 parts of its cache, and evicts pages only when a
/// block is full. A walk reads each page only once or twice, so the pages of a million users would
/// all stay in the cache: five times its configured size. With the additional reads the cache keeps
/// to its size, for a tenth of the loading time.
pub(super) const EXTRA_READS: usize = 3;

/// Calls `each` with the records of a table whose keys are `from` or greater, in the order of the
/// keys, until it returns `false`.
pub(super) fn walk(
    view: &CommittedView<'_>,
    table: Table,
    from: &[u8],
    cache: CacheUse,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let first = match find_bucket(view, table, from)? {
        Some((fence, _)) => fence.to_vec(),
        None => sled_key(table, &[]),
    };
    // If a bucket is split during the walk, its later records are met a second time: skip them.
    let mut last: Option<Vec<u8>> = None;
    for entry in view.entries_from(&first) {
        let (fence, bucket) = entry?;
        if fence.first() != Some(&(table as u8)) {
            break;
        }
        if cache == CacheUse::Evict {
            for _ in 0..EXTRA_READS {
                view.touch(&fence)?;
            }
        }
        for record in BucketRecords::new(table, &bucket) {
            let (key, value) = record?;
            if key < from || last.as_deref().is_some_and(|last| key <= last) {
                continue;
            }
            if !each(key, value)? {
                return Ok(());
            }
            let last = last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key);
        }
    }
    Ok(())
}

/// The greatest key of a table.
pub(super) fn last_key(
    view: &CommittedView<'_>,
    table: Table,
) -> Result<Option<Vec<u8>>, StoreError> {
    let next_table = [table as u8 + 1];
    let end = Bound::Excluded(next_table.as_slice());
    let Some((_, bucket)) = view.last_entry(&sled_key(table, &[]), end)? else {
        return Ok(None);
    };
    let last = BucketRecords::new(table, &bucket).last().transpose()?;
    Ok(last.map(|(key, _)| key.to_vec()))
}

/// The sled key and value of the bucket to which a key belongs. `None` means that no bucket of the
/// table has its fence at or before the key.
pub(super) fn find_bucket(
    view: &CommittedView<'_>,
    table: Table,
    key: &[u8],
) -> Result<Option<(sled::IVec, sled::IVec)>, StoreError> {
    view.last_entry(&sled_key(table, &[]), Bound::Included(&sled_key(table, key)))
}
