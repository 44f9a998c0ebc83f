//! The embedded store. sled keeps the records; this module makes its writes durable and reports its
//! failures.
//!
//! One thread writes. For each [group of batches](group) it does these steps in this order:
//! 1. It takes all batches that wait and applies them as one sled batch.
//! 2. It flushes sled's log.
//! 3. It calls `fdatasync` on its own handle of the log, because the `flush` of sled 0.34 only
//!    passes the pages to the kernel (spacejam/sled #1351, #1452).
//! 4. It writes the number of the last commit into the [marker file](marker).
//! 5. It delivers the commits to the subscribers.
//! 6. It sends the results to the writers.
//!
//! If a write or a sync fails, the store accepts no more writes: sled's own error is sticky, and a
//! page that the kernel could not write is not written by a later sync either. Readers still get
//! the [committed records](view).
//!
//! A start makes a [copy of the files](safety_copy) before sled opens them. The copy is removed
//! when the loaded records were verified with the digest of the last commit, or with the first
//! commit. If the store is closed before that, its files are put back as they were.

mod bucket;
mod changes;
mod check;
mod compact;
mod folder;
mod group;
mod safety_copy;
mod sled_files;
#[cfg(test)]
mod tests;
mod verify;
mod view;

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use bucket::CacheUse;
use check::RunningCheck;
use folder::Opened;
use group::{Group, Job};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use safety_copy::SafetyCopy;
use sled_files::OpenDb;
use tokio::sync::oneshot;
use view::{CommittedView, HiddenWrite};

use super::{
    Batch, CommitFuture, Lagged, RecordDigest, RecordRef, Sequence, Snapshot, Store, StoreError,
    Stored, Subscriber, Table, Visit, codec,
    disk::{Jobs, NOT_COMMITTED, RESTORE, panic_text, sync_marker, unusable, without_panic},
    marker::{self, MarkerFile},
    subscribers::Publisher,
};

/// The sled key with the number of the last commit and the digest over all records. The key belongs
/// to no table.
const COMMIT_STATE: &[u8] = b"\0commit";
/// After this time a write counts as failed, because sled can wait forever. Writers that come later
/// get an error. Writers that wait already get no result (so nothing is promised to them), unless
/// the write ends after all.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// The number of attempts to read without a lock, before a reader waits for the writer thread.
const OPTIMISTIC_READS: usize = 3;

/// A [`Store`] in a folder.
pub struct SledStore {
    inner: Arc<SledInner>,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// The state that the store shares with its writer thread.
struct SledInner {
    path: PathBuf,
    db: OpenDb,
    /// Our own handle of sled's log file, for syncs.
    log: File,
    publisher: Publisher,
    marker: MarkerFile,
    /// The digest over all committed records.
    digest: Mutex<RecordDigest>,
    /// The write that is not durable yet. `None` means that all of sled's records are committed.
    hidden_write: ArcSwapOption<HiddenWrite>,
    /// The files from before the start. `None` means that the records were verified or changed.
    safety_copy: Mutex<Option<SafetyCopy>>,
    /// A check of all records that has not ended yet.
    check: Mutex<Option<RunningCheck>>,
    /// A snapshot has a read lock. The writer thread has the write lock while it writes a group.
    snapshots: RwLock<()>,
    /// Why the store has stopped writing.
    fault: OnceLock<String>,
    opened: Instant,
    /// When the writer thread began to write the current group: 1 + milliseconds since `opened`.
    /// `0` means that it is not writing.
    writing_since: AtomicU64,
}

impl SledStore {
    /// Opens the store in `path`, or creates one if the folder is missing or empty. `cache_mib` is
    /// the size of sled's page cache in MiB.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has the store open. [`StoreError::Unusable`] if
    /// the folder contains anything but a complete store. Existing files are never replaced.
    pub fn open(path: &Path, cache_mib: u64) -> Result<Self, StoreError> {
        let Opened { db, log, marker, state, safety_copy } = folder::open(path, cache_mib)?;
        let inner = Arc::new(SledInner {
            path: path.to_owned(),
            db,
            log,
            publisher: Publisher::new(state.sequence),
            marker,
            digest: Mutex::new(state.digest),
            hidden_write: ArcSwapOption::empty(),
            safety_copy: Mutex::new(safety_copy),
            check: Mutex::new(None),
            snapshots: RwLock::new(()),
            fault: OnceLock::new(),
            opened: Instant::now(),
            writing_since: AtomicU64::new(0),
        });
        let (queue, jobs) = mpsc::channel();
        let writer = std::thread::Builder::new()
            .name("keyward-store".into())
            .spawn({
                let inner = inner.clone();
                move || inner.write_all(&jobs)
            })
            .map_err(|e| unusable(path, &e))?;
        Ok(Self { inner, queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)) })
    }

    /// Makes the files of a store as small as its records allow, and verifies all records. Returns
    /// the sizes before and after, in bytes.
    ///
    /// # Errors
    /// Another process has the store open, it cannot be opened, or its records are not those of the
    /// last commit. The files are then as before.
    pub fn compact(path: &Path, cache_mib: u64) -> Result<(u64, u64), StoreError> {
        folder::open_and_compact(path, cache_mib)
    }

    /// Whether `path` contains a store, complete or not.
    pub fn exists(path: &Path) -> bool {
        path.join(marker::NAME).exists() || path.join("db").exists()
    }
}

/// Waits until the queued batches are written, and releases the lock. A store whose records were
/// neither verified nor changed is put back as it was before the start.
impl Drop for SledStore {
    fn drop(&mut self) {
        drop(self.queue.lock().take());
        if let Some(writer) = self.writer.lock().take() {
            let _ = writer.join();
        }
        sync_marker(&self.inner.marker);
        let safety_copy = self.inner.safety_copy.lock().take();
        if let Some(safety_copy) = safety_copy {
            if let Err(e) = self.inner.db.flush() {
                tracing::debug!("sled: {e}");
            }
            safety_copy.put_back();
        }
    }
}

fn failed(e: sled::Error) -> StoreError {
    StoreError::Failed(e.to_string())
}

/// A position in sled's single tree: the table's byte, then the key.
fn sled_key(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table as u8], key].concat()
}

impl SledInner {
    fn write_all(&self, queue: &Receiver<Job>) {
        for first in Jobs::new(queue, &self.marker) {
            self.writing_since.store(self.millis() + 1, Relaxed);
            // sled panics on some damage. The channels of this group are then dropped, which its
            // writers receive as an error.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.write_group(first, queue))) {
                self.stop(&panic_text(panic.as_ref()));
            }
            self.writing_since.store(0, Relaxed);
        }
    }

    /// Writes a batch together with the other batches that wait.
    fn write_group(&self, first: Job, jobs: &Receiver<Job>) {
        let results = {
            let _no_snapshots = self.snapshots.write();
            let mut group = Group::new(self);
            group.add(first);
            while !group.is_full()
                && let Ok(job) = jobs.try_recv()
            {
                group.add(job);
            }
            group.write()
        };
        results.send();
    }

    /// The records without the write that is not durable.
    fn view(&self) -> CommittedView<'_> {
        CommittedView::new(&self.db, self.hidden_write.load_full())
    }

    /// Reads committed records. If the writer thread begins or ends a write in the meantime, the
    /// read is repeated.
    fn read<T>(
        &self,
        read: impl Fn(&CommittedView<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        for _ in 0..OPTIMISTIC_READS {
            let before = self.hidden_write.load_full();
            let view = CommittedView::new(&self.db, before.clone());
            let found = without_panic(&self.path, || read(&view));
            let after = self.hidden_write.load();
            if before.as_ref().map(Arc::as_ptr) == after.as_ref().map(Arc::as_ptr) {
                return found;
            }
        }
        let _no_writes = self.snapshots.read();
        without_panic(&self.path, || read(&self.view()))
    }

    /// Removes the copy of the files from before the start.
    fn keep_files(&self) {
        if let Some(copy) = self.safety_copy.lock().take() {
            copy.discard();
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }

    /// Stops the store if the current write takes too long.
    fn check_write_timeout(&self) {
        let since = self.writing_since.load(Relaxed);
        let timeout = u64::try_from(WRITE_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        if since != 0 && self.millis().saturating_sub(since) > timeout {
            self.stop(&format!("a write takes longer than {} s", WRITE_TIMEOUT.as_secs()));
        }
    }

    /// Makes all further commits fail, until the program is started again.
    fn stop(&self, problem: &str) -> StoreError {
        let fault = self.fault.get_or_init(|| {
            tracing::error!(
                problem,
                "the store stopped writing; authorization goes on from memory"
            );
            problem.to_owned()
        });
        StoreError::Failed(fault.clone())
    }
}

impl Store for SledStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        let value = self.inner.read(|view| bucket::get(view, table, key))?;
        value.map(|value| Stored::from_value(table, key, &value)).transpose()
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Stored)>, StoreError> {
        // The smallest key greater than `after` is `after` with a zero byte appended.
        let from = match after {
            Some(after) if after >= prefix => [after, &[0]].concat(),
            _ => prefix.to_vec(),
        };
        self.inner.read(|view| {
            let mut found = Vec::new();
            bucket::walk(view, table, &from, CacheUse::Keep, |key, value| {
                if !key.starts_with(prefix) || found.len() == limit {
                    return Ok(false);
                }
                found.push((key.to_vec(), Stored::from_value(table, key, value)?));
                Ok(true)
            })?;
            Ok(found)
        })
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        let no_writes = self.inner.snapshots.read();
        let view = self.inner.view();
        Ok(Box::new(SledSnapshot { inner: &self.inner, view, _no_writes: no_writes }))
    }

    fn commit(&self, batch: Batch) -> CommitFuture<'_> {
        if let Some(fault) = self.fault() {
            return Box::pin(async { Err(StoreError::Failed(fault).into()) });
        }
        let (responder, result) = oneshot::channel();
        if let Some(queue) = &*self.queue.lock() {
            // If the writer thread is gone, the job is dropped, and `responder` with it.
            let _ = queue.send(Job { batch, responder });
        }
        Box::pin(async move {
            result.await.unwrap_or_else(|_| {
                let problem = self.fault().unwrap_or_else(|| "the writer thread ended".into());
                Err(StoreError::Failed(problem).into())
            })
        })
    }

    fn subscribe(&self, after: Sequence, subscriber: Arc<dyn Subscriber>) -> Result<(), Lagged> {
        self.inner.publisher.subscribe(after, subscriber)
    }

    fn verify(&self, cancelled: &AtomicBool) -> Result<(), StoreError> {
        self.inner.verify(cancelled)
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.inner.path)
    }

    fn fault(&self) -> Option<String> {
        self.inner.check_write_timeout();
        self.inner.fault.get().cloned()
    }
}

/// A snapshot. The writer thread waits until it is dropped.
struct SledSnapshot<'a> {
    inner: &'a SledInner,
    view: CommittedView<'a>,
    _no_writes: RwLockReadGuard<'a, ()>,
}

impl Snapshot for SledSnapshot<'_> {
    fn sequence(&self) -> Sequence {
        self.inner.publisher.sequence()
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        each: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let mut each = |key: &[u8], value: &[u8]| {
            if to.is_some_and(|to| key >= to) {
                return Ok(false);
            }
            let (revision, json) = codec::decode_value(table, key, value)?;
            each(key, RecordRef { revision, json })?;
            Ok(true)
        };
        without_panic(&self.inner.path, || {
            bucket::walk(&self.view, table, from, CacheUse::Evict, &mut each)
        })
    }

    fn last_key(&self, table: Table) -> Result<Option<Vec<u8>>, StoreError> {
        without_panic(&self.inner.path, || bucket::last_key(&self.view, table))
    }

    fn empty_digest(&self) -> Option<RecordDigest> {
        Some(self.inner.digest.lock().empty())
    }

    fn verify_loaded(&self, loaded: &RecordDigest) -> Result<(), StoreError> {
        let compared = self.inner.digest.lock().compare_loaded(loaded);
        match compared {
            Ok(()) => {
                self.inner.keep_files();
                Ok(())
            }
            Err(finding) => {
                let problem = format!("{}: {finding}. {RESTORE}", NOT_COMMITTED);
                self.inner.stop(&problem);
                Err(unusable(&self.inner.path, &problem))
            }
        }
    }
}
