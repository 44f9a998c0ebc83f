//! The embedded store. sled keeps the records; this file makes its writes durable and shows its failures.
//!
//! One thread writes. It takes all batches that wait, applies them [as one sled batch](group), flushes sled's log, and then calls `fdatasync` on its own
//! handle, because sled 0.34's `flush` hands the pages to the kernel and no further (spacejam/sled #1351, #1452). Only then are the
//! followers told and the writers answered, and the [mark](mark) says how far the store has come. When a write or the sync fails, nothing is written any more: sled's own error is sticky, and a
//! page that the kernel could not write is lost to a later sync.

mod bucket;
mod changes;
mod folder;
mod group;
mod mark;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bucket::Wake;
use folder::{
    last_commit, look_before_opening, make_durable, make_folder, open_sled, panic_text, unusable,
};
use group::{Group, Job};
use mark::Mark;
use tokio::sync::oneshot;

use super::{
    Batch, CommitFuture, Lagged, RecordRef, Sequence, Snapshot, Store, StoreError, Stored,
    Subscriber, Table, Visit, codec, subscribers::Publisher,
};

/// Where the number of the last commit is kept: beside the tables, in none of them.
const SEQUENCE: &[u8] = b"\0sequence";
/// How long a write may take before the store is taken for dead: sled waits without an end for what does not come. Writers that come then
/// are refused; those that wait hear nothing, which promises nothing, unless the write comes to its end after all.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);

/// A [`Store`] in a folder.
pub struct SledStore {
    shared: Arc<Shared>,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    db: sled::Db,
    /// The log file, opened by ourselves: to sync it.
    log: File,
    publisher: Publisher,
    mark: Mark,
    /// Held for reading by a snapshot, for writing while batches are applied.
    quiet: RwLock<()>,
    fault: OnceLock<String>,
    began: Instant,
    /// When the group began that is being written, in milliseconds since `began`, plus one; zero: none is.
    writing_since: AtomicU64,
}

impl SledStore {
    /// Opens the store in `path`, or makes one where there is nothing yet. `cache_mib` bounds sled's page cache.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it open; [`StoreError::Unusable`] when the folder holds anything but a whole store.
    /// What is there is never replaced.
    pub fn open(path: &Path, cache_mib: u64) -> Result<Self, StoreError> {
        let is_new = look_before_opening(path)?;
        if is_new {
            make_folder(path).map_err(|e| unusable(path, &e.to_string()))?;
        }
        let known = Mark::read(path).map_err(|problem| unusable(path, &problem))?;
        let db = open_sled(path, cache_mib)?;
        let log = File::open(path.join("db")).map_err(|e| unusable(path, &e.to_string()))?;
        if is_new {
            make_durable(path, &log).map_err(|e| unusable(path, &e.to_string()))?;
        }
        let sequence = last_commit(path, &db)?;
        if let Some(known) = known.filter(|known| sequence < *known) {
            let problem = format!(
                "it has lost what was written: its last commit was number {known} and is now {sequence}. Restore it from a backup"
            );
            return Err(unusable(path, &problem));
        }
        let mark = Mark::open(path, sequence).map_err(|e| unusable(path, &e.to_string()))?;
        let shared = Arc::new(Shared {
            db,
            log,
            publisher: Publisher::new(sequence),
            mark,
            quiet: RwLock::new(()),
            fault: OnceLock::new(),
            began: Instant::now(),
            writing_since: AtomicU64::new(0),
        });
        let (queue, jobs) = mpsc::channel();
        let writer = std::thread::Builder::new()
            .name("keyward-store".into())
            .spawn({
                let shared = shared.clone();
                move || shared.write_all(&jobs)
            })
            .map_err(|e| unusable(path, &e.to_string()))?;
        Ok(Self { shared, queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)) })
    }

    /// Whether there is a store in `path`, or what is left of one.
    pub fn exists(path: &Path) -> bool {
        path.join(mark::NAME).exists() || path.join("db").exists()
    }
}

/// Waits for the writes that were asked for, and lets go of the lock.
impl Drop for SledStore {
    fn drop(&mut self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
        if let Err(e) = self.shared.mark.sync() {
            tracing::warn!("the store's mark may be behind: {e}");
        }
    }
}

fn failed(e: sled::Error) -> StoreError {
    StoreError::Failed(e.to_string())
}

/// A key's place in sled's one tree.
fn place(table: Table, key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(1 + key.len());
    place.push(table as u8);
    place.extend_from_slice(key);
    place
}

fn read(db: &sled::Db, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError> {
    bucket::get(db, table, key)?.map(|value| stored(table, key, &value)).transpose()
}

fn stored(table: Table, key: &[u8], value: &[u8]) -> Result<Stored, StoreError> {
    let (revision, json) = codec::open(table, key, value)?;
    Ok(Stored { revision, json: json.to_vec() })
}

impl Shared {
    fn write_all(&self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            self.writing_since.store(self.millis() + 1, Relaxed);
            // sled panics on some damage. The writers of this group are answered by the end of their channels.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.write_group(first, jobs))) {
                self.stop(&panic_text(panic.as_ref()));
            }
            self.writing_since.store(0, Relaxed);
        }
    }

    /// Writes a batch, and with it what else waits.
    fn write_group(&self, first: Job, jobs: &Receiver<Job>) {
        let answers = {
            let _alone = self.quiet.write().unwrap_or_else(PoisonError::into_inner);
            let mut group = Group::new(self);
            group.take(first);
            while !group.is_full()
                && let Ok(job) = jobs.try_recv()
            {
                group.take(job);
            }
            group.write()
        };
        answers.send();
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }

    /// Ends writing when a write takes too long.
    fn look_at_the_clock(&self) {
        let since = self.writing_since.load(Relaxed);
        let patience = u64::try_from(WRITE_PATIENCE.as_millis()).unwrap_or(u64::MAX);
        if since != 0 && self.millis().saturating_sub(since) > patience {
            self.stop(&format!("a write takes longer than {} s", WRITE_PATIENCE.as_secs()));
        }
    }

    /// Ends writing for good.
    fn stop(&self, problem: &str) -> StoreError {
        let fault = self.fault.get_or_init(|| {
            tracing::error!(problem, "the store stopped writing; decisions go on from memory");
            problem.to_owned()
        });
        StoreError::Failed(fault.clone())
    }
}

impl Store for SledStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        read(&self.shared.db, table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Stored)>, StoreError> {
        // Behind `after` stands first the key with one more byte, the smallest there is.
        let from = match after {
            Some(after) if after >= prefix => [after, &[0]].concat(),
            _ => prefix.to_vec(),
        };
        let mut found = Vec::new();
        bucket::walk(&self.shared.db, table, &from, Wake::Warm, |key, value| {
            if !key.starts_with(prefix) || found.len() == limit {
                return Ok(false);
            }
            found.push((key.to_vec(), stored(table, key, value)?));
            Ok(true)
        })?;
        Ok(found)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        let quiet = self.shared.quiet.read().unwrap_or_else(PoisonError::into_inner);
        Ok(Box::new(Moment { shared: &self.shared, _quiet: quiet }))
    }

    fn commit(&self, batch: Batch) -> CommitFuture<'_> {
        if let Some(fault) = self.fault() {
            return Box::pin(async { Err(StoreError::Failed(fault).into()) });
        }
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = &*queue {
            // When the thread is gone the job is dropped, and with it `answer`.
            let _ = queue.send(Job { batch, answer });
        }
        Box::pin(async move {
            answered.await.unwrap_or_else(|_| {
                let problem =
                    self.fault().unwrap_or_else(|| "the thread that writes gave up".into());
                Err(StoreError::Failed(problem).into())
            })
        })
    }

    fn changes(&self, after: Sequence, sink: Arc<dyn Subscriber>) -> Result<(), Lagged> {
        self.shared.publisher.follow(after, sink)
    }

    fn fault(&self) -> Option<String> {
        self.shared.look_at_the_clock();
        self.shared.fault.get().cloned()
    }
}

struct Moment<'a> {
    shared: &'a Shared,
    _quiet: RwLockReadGuard<'a, ()>,
}

impl Snapshot for Moment<'_> {
    fn sequence(&self) -> Sequence {
        self.shared.publisher.sequence()
    }

    fn within(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        each: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        bucket::walk(&self.shared.db, table, from, Wake::Cold, |key, value| {
            if to.is_some_and(|to| key >= to) {
                return Ok(false);
            }
            let (revision, json) = codec::open(table, key, value)?;
            each(key, RecordRef { revision, json })?;
            Ok(true)
        })
    }

    fn last(&self, table: Table) -> Result<Option<Vec<u8>>, StoreError> {
        bucket::last(&self.shared.db, table)
    }
}
