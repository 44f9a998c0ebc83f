//! Writes a store's records into a new log, which takes no more space than they need. sled never
//! gives much space back: 50 MB of records can take 600 MB after many writes.
//!
//! All records are read for it, so all of them are verified with the digest of the last commit. The
//! new files replace the old ones as a whole: see [`safety_copy`].

use std::{fs, io, path::Path};

use super::{
    COMMIT_STATE,
    bucket::{BucketRecords, EXTRA_READS},
    failed,
    group::WRITE_LOCK,
    safety_copy::{self, COMPACTING},
    sled_files::{OpenDb, open_sled},
    view::CommittedView,
};
use crate::store::{
    RecordDigest, StoreError, Table, codec,
    digest::CommitState,
    disk::{NOT_COMMITTED, RESTORE, make_folder, unusable, without_panic},
};

/// The files may take this many times the size of the records.
const MAX_FACTOR: u64 = 3;
/// The files may take this much more, in bytes: a small store is not worth the time.
const MAX_EXTRA: u64 = 64 * 1024 * 1024;
/// The size of one write, in bytes. sled can deadlock if a write is much larger: see the group.
const WRITE_SIZE: usize = 256 * 1024;

/// Whether the files take so much space that a start makes new ones.
pub(super) fn is_needed(path: &Path, state: &CommitState) -> io::Result<bool> {
    let limit = state.digest.bytes().saturating_mul(MAX_FACTOR).saturating_add(MAX_EXTRA);
    Ok(safety_copy::store_size(path)? > limit)
}

/// Replaces the files of a store by new ones with equal records. Takes the open store, which is
/// closed then. Returns the sizes before and after, in bytes.
///
/// # Errors
/// The records are not those of the last commit, or the disk fails. Then the files are as before.
pub(super) fn compact(
    path: &Path,
    cache_mib: u64,
    db: OpenDb,
    state: &CommitState,
) -> Result<(u64, u64), StoreError> {
    let broken = |e: io::Error| unusable(path, &e);
    let before = safety_copy::store_size(path).map_err(broken)?;
    let target = path.join(COMPACTING);
    match fs::remove_dir_all(&target) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(broken(e)),
        _ => {}
    }
    make_folder(&target).map_err(broken)?;
    let written = without_panic(path, || write(path, &db, &target, cache_mib, state));
    written.inspect_err(|_| drop(fs::remove_dir_all(&target)))?;
    drop(db);
    safety_copy::install(path, COMPACTING).map_err(broken)?;
    let after = safety_copy::store_size(path).map_err(broken)?;
    Ok((before, after))
}

/// Writes all entries into a new sled store in `target`, and verifies them.
fn write(
    path: &Path,
    db: &sled::Db,
    target: &Path,
    cache_mib: u64,
    state: &CommitState,
) -> Result<(), StoreError> {
    let new = open_sled(target, cache_mib)?;
    let view = CommittedView::new(db, None);
    let mut found = state.digest.empty();
    let (mut batch, mut size) = (sled::Batch::default(), 0);
    for entry in view.entries_from(&[]) {
        let (fence, bucket) = entry?;
        for _ in 0..EXTRA_READS {
            view.touch(&fence)?;
        }
        add_records(&mut found, &fence, &bucket)?;
        size += fence.len() + bucket.len();
        batch.insert(fence, bucket);
        if size >= WRITE_SIZE {
            write_batch(&new, std::mem::take(&mut batch))?;
            size = 0;
        }
    }
    write_batch(&new, batch)?;
    let (loaded, others) =
        (state.digest.compare_loaded(&found), state.digest.compare_others(&found));
    loaded
        .and(others)
        .map_err(|finding| unusable(path, &format!("{NOT_COMMITTED}: {finding}. {RESTORE}")))
}

fn write_batch(db: &sled::Db, batch: sled::Batch) -> Result<(), StoreError> {
    let _lock = WRITE_LOCK.lock();
    db.apply_batch(batch).map_err(failed)?;
    db.flush().map(drop).map_err(failed)
}

/// Adds the records of a bucket to a digest.
pub(super) fn add_records(
    digest: &mut RecordDigest,
    fence: &[u8],
    bucket: &[u8],
) -> Result<(), StoreError> {
    if fence == COMMIT_STATE {
        return Ok(());
    }
    let table = fence.first().copied().and_then(Table::from_byte);
    let table = table.ok_or_else(|| StoreError::Damaged {
        table: "(unknown)",
        key: fence.escape_ascii().to_string(),
        problem: "there is no such table".into(),
    })?;
    for record in BucketRecords::new(table, bucket) {
        let (key, value) = record?;
        let (revision, json) = codec::decode_value(table, key, value)?;
        digest.add(table, key, revision, json);
    }
    Ok(())
}
