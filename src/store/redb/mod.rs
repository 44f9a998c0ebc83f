//! The embedded store with redb: one database file with checksums, and snapshots that do not block
//! writers.
//!
//! One thread writes. For each [group of batches](group) it does these steps in this order:
//! 1. It takes all batches that wait and applies them in one transaction of redb, together with the
//!    number of the last commit.
//! 2. redb commits in two phases: it syncs the new pages, then the header that refers to them.
//! 3. It writes the number of the last commit into the [marker file](marker).
//! 4. It delivers the commits to the subscribers.
//! 5. It lets readers see the new state.
//! 6. It sends the results to the writers.
//!
//! Readers use the [view](View) of the last group that has passed all steps. So they never see a
//! group whose sync has failed. After a failure the store accepts no more writes.

mod backend;
mod file;
mod group;
#[cfg(test)]
mod tests;

use std::{
    ops::Bound,
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

use backend::FileFault;
use file::OpenFile;
use group::{Group, Job};
use parking_lot::{Mutex, RwLock};
use redb::{Database, ReadOnlyTable, ReadableDatabase as _, TableDefinition};
use tokio::sync::oneshot;

use super::{
    Batch, Commit, CommitFuture, EngineKind, Lagged, RecordDigest, RecordRef, Sequence, Snapshot,
    Store, StoreError, Stored, Subscriber, Table, Visit, codec,
    disk::{Jobs, NOT_COMMITTED, RESTORE, panic_text, sync_marker, unusable, without_panic},
    engine::{REDB_FILE, refuse_other_engine},
    marker::MarkerFile,
    subscribers::Publisher,
};

/// All records: the table's byte and the key → the value of the [codec].
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// Facts about the whole store, by name.
const STATE: TableDefinition<'_, &str, u64> = TableDefinition::new("state");
/// The number of the last commit, in [`STATE`].
const SEQUENCE: &str = "sequence";
/// The digest over all records, as JSON, by the name [`DIGEST`].
const DIGESTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("digests");
/// The only name in [`DIGESTS`].
const DIGEST: &str = "records";
/// After this time a write counts as failed, because a disk can hang forever. Writers that come
/// later get an error. Writers that wait already get their result when the write ends.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// A [`Store`] in a folder, with the engine redb.
pub struct RedbStore {
    inner: Arc<RedbInner>,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// The state that the store shares with its writer thread.
struct RedbInner {
    path: PathBuf,
    // Dropped before the database: a view ends with it.
    view: RwLock<Arc<View>>,
    database: Database,
    file_fault: FileFault,
    publisher: Publisher,
    marker: MarkerFile,
    /// Why the store has stopped writing.
    fault: OnceLock<String>,
    opened: Instant,
    /// When the writer thread began to write the current group: 1 + milliseconds since `opened`.
    /// `0` means that it is not writing.
    writing_since: AtomicU64,
}

/// The records after one commit. As long as it exists, redb keeps the pages that it needs, and the
/// file grows by what is changed meanwhile.
struct View {
    sequence: Sequence,
    /// The digest over all records.
    digest: RecordDigest,
    records: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl RedbStore {
    /// Opens the store in `path`, or creates one if the folder is missing or empty. `cache_mib` is
    /// the size of redb's page cache in MiB. Every page of the file is verified first.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has the store open. [`StoreError::Unusable`] if
    /// the folder contains anything but a complete store with this engine. No file is changed then.
    pub fn open(path: &Path, cache_mib: u64) -> Result<Self, StoreError> {
        refuse_other_engine(path, EngineKind::Redb)?;
        Self::start(path, file::open(path, cache_mib)?)
    }

    /// Makes the file of a store as small as its records allow, and verifies all records. Returns
    /// the sizes before and after, in bytes.
    ///
    /// # Errors
    /// Another process has the store open, it cannot be opened, or its records are not those of the
    /// last commit.
    pub fn compact(path: &Path, cache_mib: u64) -> Result<(u64, u64), StoreError> {
        let size = || {
            let metadata = std::fs::metadata(path.join(REDB_FILE));
            metadata.map(|metadata| metadata.len()).map_err(|e| unusable(path, &e))
        };
        let before = size()?;
        Self::open(path, cache_mib)?.verify(&AtomicBool::new(false))?;
        let OpenFile { mut database, .. } = file::open(path, cache_mib)?;
        database.compact().map_err(|e| StoreError::Failed(format!("redb: {e}")))?;
        drop(database);
        Ok((before, size()?))
    }

    fn start(path: &Path, file: OpenFile) -> Result<Self, StoreError> {
        let OpenFile { database, sequence, fault } = file;
        let digest = stored_digest(&database, sequence).map_err(|e| unusable(path, &e))?;
        let view = view(&database, sequence, digest).map_err(|e| unusable(path, &e))?;
        let marker = MarkerFile::open(path, sequence).map_err(|e| unusable(path, &e))?;
        let inner = Arc::new(RedbInner {
            path: path.to_owned(),
            view: RwLock::new(Arc::new(view)),
            database,
            file_fault: fault,
            publisher: Publisher::new(sequence),
            marker,
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
}

/// Waits until the queued batches are written, and releases the lock.
impl Drop for RedbStore {
    fn drop(&mut self) {
        drop(self.queue.lock().take());
        if let Some(writer) = self.writer.lock().take() {
            let _ = writer.join();
        }
        sync_marker(&self.inner.marker);
    }
}

fn failed(problem: impl Into<redb::Error>) -> StoreError {
    StoreError::Failed(format!("redb: {}", problem.into()))
}

fn view(
    database: &Database,
    sequence: Sequence,
    digest: RecordDigest,
) -> Result<View, redb::Error> {
    let records = database.begin_read()?.open_table(RECORDS)?;
    Ok(View { sequence, digest, records })
}

/// The digest over all records that was stored with the last commit.
fn stored_digest(database: &Database, sequence: Sequence) -> Result<RecordDigest, redb::Error> {
    let damaged = || redb::Error::Corrupted("the digest over all records is missing".into());
    if sequence == 0 {
        return Ok(RecordDigest::random());
    }
    let table = database.begin_read()?.open_table(DIGESTS)?;
    let stored = table.get(DIGEST)?.ok_or_else(damaged)?;
    serde_json::from_slice(stored.value()).map_err(|_| damaged())
}

/// A position in redb's single table of records: the table's byte, then the key.
fn record_key(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table as u8], key].concat()
}

impl RedbInner {
    fn write_all(&self, queue: &Receiver<Job>) {
        for first in Jobs::new(queue, &self.marker) {
            self.writing_since.store(self.millis() + 1, Relaxed);
            // redb panics on some damage. The channels of this group are then dropped, which its
            // writers receive as an error.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.write_group(first, queue))) {
                self.stop(&panic_text(panic.as_ref()));
            }
            self.writing_since.store(0, Relaxed);
        }
    }

    /// Writes a batch together with the other batches that wait.
    fn write_group(&self, first: Job, jobs: &Receiver<Job>) {
        if let Some(fault) = self.fault.get() {
            let _ = first.responder.send(Err(StoreError::Failed(fault.clone()).into()));
            return;
        }
        let mut group = match Group::new(self) {
            Ok(group) => group,
            Err(problem) => {
                let fault = self.stop(&problem.to_string());
                let _ = first.responder.send(Err(fault.into()));
                return;
            }
        };
        let mut added = group.add(first);
        while added.is_ok()
            && !group.is_full()
            && let Ok(job) = jobs.try_recv()
        {
            added = group.add(job);
        }
        let (mut results, written) = match added {
            Ok(()) => group.write(),
            Err(problem) => (group.results, Err(problem)),
        };
        let written = written.and_then(|(commits, digest)| self.publish(commits, digest));
        if let Err(problem) = written {
            results.fail(&self.stop(&problem));
        }
        results.send();
    }

    /// Delivers durable commits to the subscribers, then shows them to readers.
    fn publish(&self, commits: Vec<Commit>, digest: RecordDigest) -> Result<(), String> {
        let Some(last) = commits.last() else { return Ok(()) };
        let view =
            view(&self.database, last.sequence, digest).map_err(|problem| problem.to_string())?;
        commits.into_iter().for_each(|commit| self.publisher.publish(commit));
        *self.view.write() = Arc::new(view);
        Ok(())
    }

    fn view(&self) -> Arc<View> {
        self.view.read().clone()
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

    /// Stops the store, because its records are not those of the last commit.
    fn not_committed(&self, finding: &str) -> StoreError {
        let problem = format!("{NOT_COMMITTED}: {finding}. {RESTORE}");
        self.stop(&problem);
        unusable(&self.path, &problem)
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

impl View {
    /// Calls `each` with the keys and values of a table from `from` on, in the order of the keys,
    /// until it returns `false`. `path` is the store's folder, for an error.
    fn walk(
        &self,
        path: &Path,
        table: Table,
        from: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        without_panic(path, || {
            let (first, after_last) = (record_key(table, from), [table as u8 + 1]);
            for entry in self.records.range(&*first..&after_last[..]).map_err(failed)? {
                let (key, value) = entry.map_err(failed)?;
                if !each(&key.value()[1..], value.value())? {
                    break;
                }
            }
            Ok(())
        })
    }
}

impl Store for RedbStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        without_panic(&self.inner.path, || {
            let value = self.inner.view().records.get(&*record_key(table, key)).map_err(failed)?;
            value.map(|value| Stored::from_value(table, key, value.value())).transpose()
        })
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
        let mut found = Vec::new();
        self.inner.view().walk(&self.inner.path, table, &from, |key, value| {
            if !key.starts_with(prefix) || found.len() == limit {
                return Ok(false);
            }
            found.push((key.to_vec(), Stored::from_value(table, key, value)?));
            Ok(true)
        })?;
        Ok(found)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        Ok(Box::new(RedbSnapshot { inner: &self.inner, view: self.inner.view() }))
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
        let view = self.inner.view();
        let mut found = view.digest.empty();
        for table in Table::ALL {
            view.walk(&self.inner.path, table, &[], |key, value| {
                let (revision, json) = codec::decode_value(table, key, value)?;
                found.add(table, key, revision, json);
                Ok(!cancelled.load(Relaxed))
            })?;
        }
        if cancelled.load(Relaxed) {
            return Ok(());
        }
        let compared = view.digest.compare_loaded(&found).and(view.digest.compare_others(&found));
        compared.map_err(|finding| self.inner.not_committed(&finding))
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.inner.path)
    }

    fn fault(&self) -> Option<String> {
        self.inner.check_write_timeout();
        self.inner.fault.get().cloned()
    }
}

/// A snapshot. Writers do not wait for it.
struct RedbSnapshot<'a> {
    inner: &'a RedbInner,
    view: Arc<View>,
}

impl Snapshot for RedbSnapshot<'_> {
    fn sequence(&self) -> Sequence {
        self.view.sequence
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        each: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.view.walk(&self.inner.path, table, from, |key, value| {
            if to.is_some_and(|to| key >= to) {
                return Ok(false);
            }
            let (revision, json) = codec::decode_value(table, key, value)?;
            each(key, RecordRef { revision, json })?;
            Ok(true)
        })
    }

    fn last_key(&self, table: Table) -> Result<Option<Vec<u8>>, StoreError> {
        without_panic(&self.inner.path, || {
            let (first, after_last) = ([table as u8], [table as u8 + 1]);
            let bounds = (Bound::Included(&first[..]), Bound::Excluded(&after_last[..]));
            let last = self.view.records.range::<&[u8]>(bounds).map_err(failed)?.next_back();
            let last = last.transpose().map_err(failed)?;
            Ok(last.map(|(key, _)| key.value()[1..].to_vec()))
        })
    }

    fn empty_digest(&self) -> Option<RecordDigest> {
        Some(self.view.digest.empty())
    }

    fn verify_loaded(&self, loaded: &RecordDigest) -> Result<(), StoreError> {
        let compared = self.view.digest.compare_loaded(loaded);
        compared.map_err(|finding| self.inner.not_committed(&finding))
    }
}
