//! The contract of [`Store`] as checks, for the engine of a program. The macro
//! [`store_contract!`](crate::store_contract) makes a test of each.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    accounts::{Accounts, NewUser, Passwords},
    model::{Clock, Entropy, Pepper, Timestamp},
    store::{
        Batch, Commit, CommitError, Expected, Sequence, Store, Subscriber, Table,
        audit_log::AuditVerdict, encode,
    },
};

/// Makes a test of each part of the contract of [`Store`](crate::Store). The argument is an async
/// function that opens the store in a folder; it is called again to reopen the store. The calling
/// crate needs tokio with `macros` and `rt-multi-thread`.
///
/// ```
/// use std::{path::PathBuf, sync::Arc};
/// use keyward::{RedbStore, Store};
///
/// async fn open(folder: PathBuf) -> Arc<dyn Store> {
///     Arc::new(RedbStore::open(&folder.join("store"), 16).unwrap())
/// }
/// keyward::store_contract!(open);
/// ```
#[macro_export]
macro_rules! store_contract {
    ($open:expr) => {
        $crate::store_contract! { @tests $open;
            batch_is_written_completely_or_not_at_all
            expectations_are_checked
            sequence_grows_by_one_and_is_the_revision
            last_write_of_a_batch_counts
            bytes_of_a_record_are_kept
            scan_returns_records_in_order
            snapshot_does_not_change
            subscribers_get_every_commit_before_its_writer
            concurrent_writers_lose_no_update
            records_survive_reopening
            audit_trail_is_kept
        }
    };
    (@tests $open:expr; $($name:ident)*) => {
        mod store_contract {
            use super::*;
            $(#[::tokio::test(flavor = "multi_thread")]
            async fn $name() {
                $crate::testing::contract::$name($open).await;
            })*
        }
    };
}

/// An empty folder, which is deleted at the end of a check.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("keyward-contract-{}", uuid::Uuid::now_v7()));
        if let Err(problem) = std::fs::create_dir_all(&path) {
            panic!("cannot create {}: {problem}", path.display());
        }
        Self(path)
    }

    fn path(&self) -> PathBuf {
        Path::new(&self.0).to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays behind disturbs no later check.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn put(table: Table, key: &[u8], value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(table, key, encode(&value));
    batch
}

async fn commit(store: &dyn Store, batch: Batch) -> Sequence {
    match store.commit(batch).await {
        Ok(sequence) => sequence,
        Err(problem) => panic!("the batch is valid, but it was not committed: {problem}"),
    }
}

fn get(store: &dyn Store, table: Table, key: &[u8]) -> Option<(Sequence, Vec<u8>)> {
    let stored = store.get(table, key).unwrap_or_else(|problem| panic!("cannot read: {problem}"));
    stored.map(|stored| (stored.revision, stored.json))
}

fn sequence(store: &dyn Store) -> Sequence {
    match store.snapshot() {
        Ok(snapshot) => snapshot.sequence(),
        Err(problem) => panic!("cannot take a snapshot: {problem}"),
    }
}

fn scan(store: &dyn Store, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Vec<u8>> {
    let found = store.scan(Table::Users, prefix, after, limit);
    let found = found.unwrap_or_else(|problem| panic!("cannot scan: {problem}"));
    found.into_iter().map(|(key, _)| key).collect()
}

/// A batch with an unmet expectation writes nothing, and the error names the expectation.
pub async fn batch_is_written_completely_or_not_at_all(
    open: impl AsyncFn(PathBuf) -> Arc<dyn Store>,
) {
    let folder = Folder::new();
    let store = open(folder.path()).await;
    let before = commit(&*store, put(Table::Users, b"a", "1")).await;
    let mut batch = put(Table::Users, b"a", "2");
    batch.put(Table::Keys, b"k", encode(&"3"));
    batch.expect(Table::Users, b"a".as_slice(), Expected::Present);
    batch.expect(Table::Users, b"b".as_slice(), Expected::Present);
    match store.commit(batch).await {
        Err(CommitError::Conflict(expect)) => assert_eq!(expect.key, b"b"),
        other => panic!("a batch with an unmet expectation must conflict, and not be {other:?}"),
    }
    assert_eq!(get(&*store, Table::Users, b"a"), Some((before, encode(&"1"))));
    assert_eq!(get(&*store, Table::Keys, b"k"), None, "a part of a refused batch was written");
    assert_eq!(sequence(&*store), before, "a refused batch has used up a number");
    assert_eq!(store.fault(), None, "a conflict is no fault");
}

/// All kinds of expectations hold at the time of the write.
pub async fn expectations_are_checked(open: impl AsyncFn(PathBuf) -> Arc<dyn Store>) {
    let folder = Folder::new();
    let store = open(folder.path()).await;
    let first = commit(&*store, put(Table::Users, b"ab", "1")).await;
    let second = commit(&*store, put(Table::Users, b"ac", "1")).await;
    for (key, state, is_met) in [
        (b"ab".as_slice(), Expected::Present, true),
        (b"ab", Expected::Missing, false),
        (b"x", Expected::Missing, true),
        (b"x", Expected::Present, false),
        (b"ab", Expected::Revision(first), true),
        (b"ab", Expected::Revision(second), false),
        (b"x", Expected::Revision(first), false),
        (b"a", Expected::Newest(second), true),
        (b"a", Expected::Newest(first), false),
        (b"ab", Expected::Newest(first), true),
        (b"x", Expected::Newest(0), true),
        (b"", Expected::Newest(0), false),
    ] {
        let mut batch = put(Table::Meta, b"contract", "x");
        batch.expect(Table::Users, key, state);
        let result = store.commit(batch).await;
        assert_eq!(result.is_ok(), is_met, "{} {state:?}", key.escape_ascii());
    }
}

/// Each batch has the next number, and each record that it wrote has this number.
pub async fn sequence_grows_by_one_and_is_the_revision(
    open: impl AsyncFn(PathBuf) -> Arc<dyn Store>,
) {
    let folder = Folder::new();
    let store = open(folder.path()).await;
    let before = sequence(&*store);
    for step in 1..=3 {
        let mut batch = put(Table::Users, b"a", "x");
        batch.put(Table::Keys, b"b", encode(&step));
        assert_eq!(commit(&*store, batch).await, before + step, "the number of the batch");
        assert_eq!(sequence(&*store), before + step, "the number of the snapshot");
        for (table, key) in [(Table::Users, b"a"), (Table::Keys, b"b")] {
            let revision = get(&*store, table, key).map(|(revision, _)| revision);
            assert_eq!(revision, Some(before + step), "the revision in {}", table.name());
        }
    }
}

/// The last write of a batch to a record counts, and a deletion of nothing is no error.
pub async fn last_write_of_a_batch_counts(open: impl AsyncFn(PathBuf) -> Arc<dyn Store>) {
    let folder = Folder::new();
    let store = open(folder.path()).await;
    let mut batch = put(Table::Users, b"a", "1");
    batch.delete(Table::Users, b"a".as_slice()).put(Table::Users, b"a".as_slice(), encode(&"2"));
    batch.put(Table::Users, b"b".as_slice(), encode(&"1")).delete(Table::Users, b"b".as_slice());
    batch.delete(Table::Users, b"nothing".as_slice());
    commit(&*store, batch).await;
    assert_eq!(get(&*store, Table::Users, b"a").map(|(_, json)| json), Some(encode(&"2")));
    assert_eq!(get(&*store, Table::Users, b"b"), None);
}

/// A record has the bytes that were written, also after reopening.
pub async fn bytes_of_a_record_are_kept(open: impl AsyncFn(PathBuf) -> Arc<dyn Store>) {
    let folder = Folder::new();
    let mut store = open(folder.path()).await;
    let json = br#"{ "b":1.0,  "a" : "\u00e9\/" , "B":[ ] }"#.to_vec();
    let mut batch = Batch::new();
    batch.put(Table::Users, b"\x00\xff".as_slice(), json.clone());
    commit(&*store, batch).await;
    let read = |store: &dyn Store| get(store, Table::Users, b"\x00\xff").map(|(_, json)| json);
    assert_eq!(read(&*store), Some(json.clone()));
    if store.keeps_records() {
        drop(store);
        store = open(folder.path()).await;
        assert_eq!(read(&*store), Some(json));
    }
}

/// A scan returns the records with the prefix, in the order of their keys.
pub async fn scan_returns_records_in_order(open: impl AsyncFn(PathBuf) -> Arc<dyn Store>) {
    let folder = Folder::new();
    let store = open(folder.path()).await;
    for key in [b"b2".as_slice(), b"a", b"b1", b"b", b"c\xff", b"b\x00"] {
        commit(&*store, put(Table::Users, key, "x")).await;
    }
    commit(&*store, put(Table::Keys, b"b0", "another table")).await;
    let all: [&[u8]; 6] = [b"a", b"b", b"b\x00", b"b1", b"b2", b"c\xff"];
    assert_eq!(scan(&*store, b"", None, usize::MAX), all);
    assert_eq!(scan(&*store, b"b", None, 3), all[1..4]);
    assert_eq!(scan(&*store, b"b", Some(b"b\x00"), usize::MAX), all[3..5]);
    assert_eq!(scan(&*store, b"b", Some(b"b2"), 1), [b""; 0]);
    assert_eq!(scan(&*store, b"", None, 0), [b""; 0]);
}

/// A snapshot shows the records after one commit, whatever is written later.
pub async fn snapshot_does_not_change(open: impl AsyncFn(PathBuf) -> Arc<dyn Store>) {
    let folder = Folder::new();
    let store = open(folder.path()).await;
    let mut batch = put(Table::Users, b"a", "1");
    batch.put(Table::Users, b"b".as_slice(), encode(&"1"));
    let number = commit(&*store, batch).await;
    let snapshot = store.snapshot().unwrap_or_else(|problem| panic!("no snapshot: {problem}"));
    let mut seen = Vec::new();
    let read = snapshot.each(Table::Users, &mut |key, record| {
        seen.push((key.to_vec(), record.revision, record.json.to_vec()));
        Ok(())
    });
    assert!(read.is_ok(), "{read:?}");
    let one = encode(&"1");
    assert_eq!(seen, [(b"a".to_vec(), number, one.clone()), (b"b".to_vec(), number, one)]);
    assert_eq!(snapshot.sequence(), number);
    assert_eq!(snapshot.last_key(Table::Users).ok().flatten().as_deref(), Some(b"b".as_slice()));
    assert_eq!(snapshot.last_key(Table::Roles).ok().flatten(), None);
    let mut part = Vec::new();
    let read = snapshot.range(Table::Users, b"b", Some(b"c"), &mut |key, _| {
        part.push(key.to_vec());
        Ok(())
    });
    assert!(read.is_ok() && part == [b"b"], "{read:?} {part:?}");
}

#[derive(Default)]
struct Received(Mutex<Vec<Commit>>);

impl Subscriber for Received {
    fn apply(&self, commit: &Commit) {
        self.0.lock().push(commit.clone());
    }
}

/// Subscribers receive each commit once, in order, with all writes, before the writer gets its
/// number. A subscriber that asks for a later commit than the last one is refused.
pub async fn subscribers_get_every_commit_before_its_writer(
    open: impl AsyncFn(PathBuf) -> Arc<dyn Store>,
) {
    let folder = Folder::new();
    let store = open(folder.path()).await;
    let start = sequence(&*store);
    let received = Arc::new(Received::default());
    assert!(store.subscribe(start, received.clone()).is_ok(), "no commit is missing");
    assert!(store.subscribe(start + 1, Arc::new(Received::default())).is_err(), "a later commit");
    for step in 1..=3 {
        let mut batch = Batch::new();
        batch.put(Table::Meta, b"contract".as_slice(), encode(&step));
        commit(&*store, batch).await;
        let numbers: Vec<_> = received.0.lock().iter().map(|commit| commit.sequence).collect();
        assert_eq!(numbers, (start + 1..=start + step).collect::<Vec<_>>());
    }
    let accounts = accounts(store.clone());
    if let Err(problem) = accounts.first_start().await {
        panic!("the first records were not written: {problem}");
    }
    let all = received.0.lock();
    let tables: BTreeSet<_> = all.iter().flat_map(|one| &one.writes).map(|one| one.table).collect();
    assert!(tables.contains(&Table::Audit), "subscribers get no writes of the audit trail");
}

/// Writers that each expect the revision that they have read lose no update.
pub async fn concurrent_writers_lose_no_update(open: impl AsyncFn(PathBuf) -> Arc<dyn Store>) {
    const WRITERS: u64 = 4;
    const UPDATES: u64 = 8;
    let folder = Folder::new();
    let store = open(folder.path()).await;
    let mut batch = Batch::new();
    batch.put(Table::Meta, b"count".as_slice(), encode(&0_u64));
    commit(&*store, batch).await;
    let add = async |store: Arc<dyn Store>| {
        loop {
            let Some((revision, json)) = get(&*store, Table::Meta, b"count") else { return };
            let count: u64 = serde_json::from_slice(&json).unwrap_or_default();
            let mut batch = Batch::new();
            batch.put(Table::Meta, b"count".as_slice(), encode(&(count + 1)));
            batch.expect(Table::Meta, b"count".as_slice(), Expected::Revision(revision));
            if store.commit(batch).await.is_ok() {
                return;
            }
        }
    };
    let writers = (0..WRITERS).map(|_| async {
        for _ in 0..UPDATES {
            add(store.clone()).await;
        }
    });
    futures_util::future::join_all(writers).await;
    let count = get(&*store, Table::Meta, b"count").map(|(_, json)| json);
    assert_eq!(count, Some(encode(&(WRITERS * UPDATES))), "an update was lost");
}

/// After reopening, the records, their revisions and the sequence are those of before.
pub async fn records_survive_reopening(open: impl AsyncFn(PathBuf) -> Arc<dyn Store>) {
    let folder = Folder::new();
    let store = open(folder.path()).await;
    if !store.keeps_records() {
        return;
    }
    let first = commit(&*store, put(Table::Users, b"a", "1")).await;
    let mut batch = put(Table::Users, b"b", "2");
    batch.put(Table::Keys, b"gone".as_slice(), encode(&"x"));
    let second = commit(&*store, batch).await;
    let mut batch = Batch::new();
    batch.delete(Table::Keys, b"gone".as_slice());
    let last = commit(&*store, batch).await;
    drop(store);
    let store = open(folder.path()).await;
    assert_eq!(get(&*store, Table::Users, b"a"), Some((first, encode(&"1"))));
    assert_eq!(get(&*store, Table::Users, b"b"), Some((second, encode(&"2"))));
    assert_eq!(get(&*store, Table::Keys, b"gone"), None, "a deleted record came back");
    assert_eq!(sequence(&*store), last);
    assert_eq!(commit(&*store, put(Table::Users, b"c", "3")).await, last + 1);
}

fn accounts(store: Arc<dyn Store>) -> Accounts {
    let (pepper, clock) = (Pepper::from_bytes([7; 32]), Clock::fixed(Timestamp(1_800_000_000)));
    match Accounts::with(store, pepper, Passwords::new(1), clock, Entropy::system()) {
        Ok(accounts) => accounts.with_audit_entries(4),
        Err(problem) => panic!("the accounts do not open: {problem}"),
    }
}

/// The store writes the entries of the audit trail with each batch, and removes the oldest ones.
/// The trail is intact, also after reopening.
pub async fn audit_trail_is_kept(open: impl AsyncFn(PathBuf) -> Arc<dyn Store>) {
    let folder = Folder::new();
    let store = open(folder.path()).await;
    let keeps_records = store.keeps_records();
    let accounts_now = accounts(store);
    let mut entries = 0;
    for step in 0..6 {
        let changed = if step == 0 {
            accounts_now.first_start().await.map(drop)
        } else {
            let new = NewUser { name: format!("user-{step}"), status: true, ..NewUser::default() };
            accounts_now.unbounded().create_user(new).await.map(drop)
        };
        assert!(changed.is_ok(), "change {step}: {changed:?}");
        entries += 1;
        check_trail(&accounts_now, entries).await;
    }
    drop(accounts_now);
    if keeps_records {
        check_trail(&accounts(open(folder.path()).await), entries).await;
    }
}

/// Checks that the trail is intact, and that its last entry has this number.
async fn check_trail(accounts: &Accounts, last: u64) {
    match accounts.verify_audit().await {
        Ok(AuditVerdict::Intact { first, end }) => {
            assert_eq!(end.number, last, "the store does not write all entries of the audit trail");
            assert_eq!(first, last.saturating_sub(3).max(1), "old entries were not removed");
        }
        Ok(AuditVerdict::Tampered { number, problem }) => {
            panic!("the audit trail is not what was written: {problem} (entry {number})")
        }
        Err(problem) => panic!("the audit trail cannot be read: {problem}"),
    }
}
