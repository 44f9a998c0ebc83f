//! Power cuts and failed syncs, through the trait below redb.

use std::{
    fs::File,
    io,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
};

use redb::{StorageBackend, backends::FileBackend};

use super::{super::backend::GuardedBackend, *};

/// A change of the file.
#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
    Sync,
}

/// The changes of a file, in order.
type Log = Arc<Mutex<Vec<Change>>>;

/// Records all changes, and can fail.
#[derive(Debug)]
struct TestStorage {
    inner: FileBackend,
    log: Log,
    /// How many syncs succeed before one fails.
    good_syncs: Arc<AtomicU32>,
}

impl StorageBackend for TestStorage {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.log.lock().push(Change::Length(length));
        self.inner.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.good_syncs.fetch_sub(1, SeqCst) == 0 {
            return Err(io::Error::other("the disk failed"));
        }
        self.inner.sync_data()?;
        self.log.lock().push(Change::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.log.lock().push(Change::Write(offset, data.to_vec()));
        self.inner.write(offset, data)
    }
}

/// A store on a file whose changes are recorded.
fn recorded_store(path: &Path, sequence: Sequence) -> (RedbStore, Log, Arc<AtomicU32>) {
    let file = File::options().read(true).write(true).open(path.join(REDB_FILE)).unwrap();
    let (log, good_syncs) = (Log::default(), Arc::new(AtomicU32::new(u32::MAX)));
    let storage = TestStorage {
        inner: FileBackend::new(file).unwrap(),
        log: log.clone(),
        good_syncs: good_syncs.clone(),
    };
    let backend = GuardedBackend::new(storage);
    let fault = backend.fault();
    let database = Database::builder().create_with_backend(backend).unwrap();
    let store = RedbStore::start(path, OpenFile { database, sequence, fault }).unwrap();
    (store, log, good_syncs)
}

/// The file after the first `done` changes, when the power fails: all synced changes are there, and
/// of the others those that `survives` chooses.
fn after_power_cut(
    start: &[u8],
    log: &[Change],
    done: usize,
    survives: &mut dyn FnMut() -> bool,
) -> Vec<u8> {
    let synced = log[..done].iter().rposition(|change| matches!(change, Change::Sync)).unwrap_or(0);
    let mut bytes = start.to_vec();
    for (at, change) in log[..done].iter().enumerate() {
        match change {
            _ if at > synced && !survives() => {}
            Change::Write(offset, data) => {
                let (from, to) = (*offset as usize, *offset as usize + data.len());
                bytes.resize(bytes.len().max(to), 0);
                bytes[from..to].copy_from_slice(data);
            }
            Change::Length(length) => bytes.resize(*length as usize, 0),
            Change::Sync => {}
        }
    }
    bytes
}

#[test]
fn power_cut_at_any_moment_loses_no_answered_commit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    drop(store_in(&path, 5));
    let start = fs::read(path.join(REDB_FILE)).unwrap();
    let (store, log, _) = recorded_store(&path, 5);
    // After how many changes each commit was answered.
    let mut answered = vec![(0, 5)];
    for number in 6..=30 {
        block_on(store.commit(user(number))).unwrap();
        answered.push((log.lock().len(), number));
    }
    drop(store);
    let log = log.lock().clone();
    let mut random = 1_u64;
    let mut coin = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        random >> 63 == 1
    };
    for done in 0..=log.len() {
        let bytes = after_power_cut(&start, &log, done, &mut coin);
        let cut = folder.path().join(format!("cut {done}"));
        fs::create_dir(&cut).unwrap();
        fs::write(cut.join(REDB_FILE), bytes).unwrap();
        // The marker file of the moment when the store was opened: it is synced only then.
        drop(MarkerFile::open(&cut, 5).unwrap());
        let answered = answered.iter().filter(|(changes, _)| *changes <= done);
        let last = answered.map(|(_, number)| *number).max().unwrap();
        let store = open(&cut).unwrap_or_else(|problem| panic!("after {done} changes: {problem}"));
        let sequence = store.snapshot().unwrap().sequence();
        assert!(sequence >= last && sequence <= last + 1, "after {done}: {sequence} of {last}");
        assert_eq!(count_users(&store), sequence, "after {done} changes");
        drop(store);
        fs::remove_dir_all(&cut).unwrap();
    }
}

/// The key that a decision would look up must not be revoked for readers, and the trail must not
/// say so, as long as the revocation is not durable.
#[test]
fn commit_whose_sync_failed_is_not_shown_and_writes_nothing_later() {
    // redb syncs the new pages, then the header.
    for good in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        drop(store_in(&path, 3));
        let (store, log, good_syncs) = recorded_store(&path, 3);
        good_syncs.store(good, SeqCst);
        let mut revoke = Batch::new();
        revoke.put(Table::Users, 1_u64.to_be_bytes(), encode(&"revoked"));
        revoke.delete(Table::Users, 2_u64.to_be_bytes());
        let problem = block_on(store.commit(revoke)).unwrap_err();
        assert_eq!(problem.to_string(), "the store stopped writing: the disk failed");
        assert_eq!(store.fault().as_deref(), Some("the disk failed"));
        let changes = log.lock().len();
        assert_eq!(count_users(&store), 3);
        let first = store.get(Table::Users, &1_u64.to_be_bytes()).unwrap().unwrap();
        assert_eq!((first.revision, first.json), (1, encode(&"x".repeat(500))));
        assert_eq!(store.scan(Table::Users, &[], None, 9).unwrap().len(), 3);
        assert_eq!(store.snapshot().unwrap().sequence(), 3);
        assert!(block_on(store.commit(user(4))).is_err());
        drop(store);
        assert_eq!(log.lock().len(), changes, "nothing is written after the failure");
        // The next start shows the revocation completely or not at all.
        let store = open(&path).unwrap();
        let sequence = store.snapshot().unwrap().sequence();
        assert_eq!(count_users(&store), if sequence == 3 { 3 } else { 2 });
        assert_eq!(sequence == 3, good == 0, "the header was not written before the first sync");
    }
}
