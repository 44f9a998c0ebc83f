//! Records lie in sled in buckets: neighbours of one table share a value.
//!
//! sled 0.34 puts at most 16 items on a page, keeps some 300 bytes in memory for each page, and reads each page on its own. With one item a
//! record, a million users took 140 MB of bookkeeping and five seconds to read; in buckets they take a tenth of both.
//!
//! ```text
//! sled's key    the table's byte, and the fence: no record in the bucket stands before it
//! sled's value  a record after another, in the order of their keys:
//!               u16 length of the key, u16 length of the value (both little-endian), key, value
//! ```
//! A bucket holds what stands between its fence and the next one. What stands before the first fence of a table belongs to a bucket whose fence
//! is the table's byte alone.

use std::cmp::Ordering;

use super::{failed, place};
use crate::store::{StoreError, Table};

/// A bucket that grows beyond so many bytes is split. Small, because the whole of it is written when one of its records changes; and so that
/// a page of 16 of them stays far below the size at which sled moves it to a file that it never syncs.
pub(super) const TARGET: usize = 2048;
/// What a record takes besides its key and value.
pub(super) const HEAD: usize = 4;

/// The records of a bucket.
pub(super) struct Records<'a> {
    table: Table,
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub fn of(table: Table, bucket: &'a [u8]) -> Self {
        Self { table, rest: bucket }
    }

    fn split(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (head, rest) = self.rest.split_first_chunk::<HEAD>()?;
        let key = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let value = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let (key, rest) = rest.split_at_checked(key)?;
        let (value, rest) = rest.split_at_checked(value)?;
        self.rest = rest;
        Some((key, value))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some(self.split().ok_or_else(|| {
            self.rest = &[];
            StoreError::Damaged {
                table: self.table.name(),
                key: "(several)".into(),
                problem: "a bucket is cut short".into(),
            }
        }))
    }
}

/// The value of a record.
pub(super) fn get(db: &sled::Db, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    match holder(db, table, key)? {
        Some((_, bucket)) => find(table, &bucket, key),
        None => Ok(None),
    }
}

/// The value of a record in a bucket.
pub(super) fn find(table: Table, bucket: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    for record in Records::of(table, bucket) {
        let (found, value) = record?;
        match found.cmp(key) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(Some(value.to_vec())),
            Ordering::Greater => break,
        }
    }
    Ok(None)
}

/// What a walk leaves in sled's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// What it has passed, as any look-up does.
    Warm,
    /// As little as there may be: everything is passed once, and not needed again.
    Cold,
}

/// How often a walk that leaves the cache cold looks at each bucket. sled notes looks in blocks of 512 for each of 256 parts of its cache, and lets go
/// of pages only when a block is full; a walk looks at each page once or twice, so a million users' pages would all stay, five times what the
/// cache may hold. With these looks it keeps to its bounds, for a tenth of the time that loading takes.
const LOOKS: usize = 3;

/// Hands the records of a table from `from` on to `each`, in the order of their keys, until it returns false.
pub(super) fn walk(
    db: &sled::Db,
    table: Table,
    from: &[u8],
    wake: Wake,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let first = match holder(db, table, from)? {
        Some((fence, _)) => fence.to_vec(),
        None => place(table, &[]),
    };
    // A bucket can be split while this goes on: its later records then come again.
    let mut last: Option<Vec<u8>> = None;
    for entry in db.range(first..) {
        let (fence, bucket) = entry.map_err(failed)?;
        if fence.first() != Some(&(table as u8)) {
            break;
        }
        if wake == Wake::Cold {
            for _ in 0..LOOKS {
                db.contains_key(&fence).map_err(failed)?;
            }
        }
        for record in Records::of(table, &bucket) {
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

/// The last key of a table.
pub(super) fn last(db: &sled::Db, table: Table) -> Result<Option<Vec<u8>>, StoreError> {
    let mut buckets = db.range([table as u8]..[table as u8 + 1]);
    let Some((_, bucket)) = buckets.next_back().transpose().map_err(failed)? else {
        return Ok(None);
    };
    let last = Records::of(table, &bucket).last().transpose()?;
    Ok(last.map(|(key, _)| key.to_vec()))
}

/// The bucket that holds a key, if it is anywhere.
pub(super) fn holder(
    db: &sled::Db,
    table: Table,
    key: &[u8],
) -> Result<Option<(sled::IVec, sled::IVec)>, StoreError> {
    db.range(place(table, &[])..=place(table, key)).next_back().transpose().map_err(failed)
}
