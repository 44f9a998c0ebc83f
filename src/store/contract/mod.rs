//! The contract of [`Store`] as tests. Every engine runs all of them. An engine with a folder runs
//! each check a second time after the store was closed and reopened.

mod audit;
mod forgery;
mod random;
mod subscribe;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use tokio::task::JoinSet;

use super::{
    Batch, CommitError, EngineKind, Expect, Expected, MemoryStore, RecordRef, Sequence, Store,
    StoreError, Table,
    codec::{HEADER_SIZE, MAX_VALUE_SIZE},
    decode, encode, open,
};

/// Runs each function with each engine.
macro_rules! contract {
    ($($name:ident)*) => {
        mod on_memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::store::contract::TestEngine::memory()).await;
            })*
        }
        mod on_sled {
            use crate::store::EngineKind;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::store::contract::TestEngine::on_disk(EngineKind::Sled)).await;
            })*
        }
        mod on_redb {
            use crate::store::EngineKind;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::store::contract::TestEngine::on_disk(EngineKind::Redb)).await;
            })*
        }
    };
}
use contract;

contract! {
    new_store_is_empty_and_without_a_fault
    batch_is_written_completely_or_not_at_all
    batch_with_an_unmet_expectation_is_rejected
    newest_expectation_detects_writes_with_the_prefix
    conflict_names_the_first_unmet_expectation
    sequence_grows_by_one_and_is_the_revision_of_written_records
    last_write_of_a_batch_to_a_record_counts
    concurrent_writers_lose_no_updates
    scan_returns_the_requested_records_in_order
    snapshot_does_not_change
    ranges_of_a_snapshot_cover_a_table
    too_large_value_is_rejected
    deleting_a_missing_record_is_no_error
}

/// An engine with a store in it.
struct TestEngine {
    /// `None` means that the engine keeps nothing on the disk.
    folder: Option<(tempfile::TempDir, EngineKind)>,
    store: Option<Arc<dyn Store>>,
}

impl TestEngine {
    fn memory() -> Self {
        Self { folder: None, store: Some(Arc::new(MemoryStore::new())) }
    }

    fn on_disk(kind: EngineKind) -> Self {
        let folder = Some((tempfile::tempdir().unwrap(), kind));
        let mut engine = Self { folder, store: None };
        engine.reopen();
        engine
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }

    /// Closes and reopens the store, if the engine has a folder.
    fn reopen(&mut self) {
        let Some((folder, kind)) = &self.folder else { return };
        let path: PathBuf = folder.path().join("store");
        let references = self.store.as_ref().map_or(0, Arc::strong_count);
        assert!(references < 2, "the store is still in use");
        self.store = None;
        self.store = Some(open(*kind, &path, 16).unwrap());
    }

    /// Checks the store, reopens it, and checks it again.
    fn check_and_recheck(&mut self, check: impl Fn(&dyn Store)) {
        check(&**self.store());
        self.reopen();
        check(&**self.store());
    }

    async fn put(&self, table: Table, key: &[u8], value: &str) -> Sequence {
        self.store().commit(put(table, key, value)).await.unwrap()
    }
}

fn put(table: Table, key: &[u8], value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(table, key, encode(&value));
    batch
}

/// All records: table and key → revision and JSON.
type Dump = BTreeMap<(Table, Vec<u8>), (Sequence, Vec<u8>)>;

fn dump(store: &dyn Store) -> Dump {
    let mut all = Dump::new();
    for table in Table::ALL {
        for (key, stored) in store.scan(table, &[], None, usize::MAX).unwrap() {
            all.insert((table, key), (stored.revision, stored.json));
        }
    }
    all
}

/// The revision and text of a record.
fn read(store: &dyn Store, table: Table, key: &[u8]) -> Option<(Sequence, String)> {
    let stored = store.get(table, key).unwrap()?;
    Some((stored.revision, stored.read(table, key).unwrap()))
}

fn conflict(result: Result<Sequence, CommitError>) -> Expect {
    match result {
        Err(CommitError::Conflict(expect)) => expect,
        other => panic!("not a conflict: {other:?}"),
    }
}

async fn new_store_is_empty_and_without_a_fault(mut engine: TestEngine) {
    engine.check_and_recheck(|store| {
        assert_eq!(dump(store), Dump::new());
        assert_eq!(store.snapshot().unwrap().sequence(), 0);
        assert_eq!(store.fault(), None);
        assert!(store.get(Table::Users, b"").unwrap().is_none());
    });
    assert_eq!(engine.put(Table::Users, b"a", "first").await, 1);
    assert_eq!(engine.store().fault(), None);
}

async fn batch_is_written_completely_or_not_at_all(mut engine: TestEngine) {
    let mut batch = put(Table::Users, b"a", "one");
    batch.put(Table::Names, b"one", encode(&"a")).put(Table::Meta, b"n", encode(&"1"));
    engine.store().commit(batch).await.unwrap();
    let whole = dump(&**engine.store());
    assert_eq!(whole.len(), 3);

    let mut batch = put(Table::Users, b"a", "two");
    batch.put(Table::Roles, b"r", encode(&"new")).delete(Table::Names, *b"one");
    batch.expect(Table::Meta, *b"n", Expected::Missing);
    conflict(engine.store().commit(batch).await);
    engine.check_and_recheck(|store| assert_eq!(dump(store), whole));
}

async fn batch_with_an_unmet_expectation_is_rejected(mut engine: TestEngine) {
    let first = engine.put(Table::Users, b"there", "x").await;
    engine.put(Table::Users, b"other", "x").await;
    // An equal key in another table is another record.
    engine.put(Table::Roles, b"not there", "x").await;
    for _ in 0..2 {
        for (key, state, is_met) in [
            ("there", Expected::Missing, false),
            ("there", Expected::Present, true),
            ("there", Expected::Revision(first), true),
            ("there", Expected::Revision(first + 1), false),
            ("there", Expected::Revision(0), false),
            ("not there", Expected::Missing, true),
            ("not there", Expected::Present, false),
            ("not there", Expected::Revision(first), false),
            ("not there", Expected::Revision(0), false),
        ] {
            let mut batch = Batch::new();
            batch.expect(Table::Users, key, state);
            let result = engine.store().commit(batch).await;
            assert_eq!(result.is_ok(), is_met, "{key}, {state:?}: {result:?}");
        }
        engine.reopen();
    }
}

async fn newest_expectation_detects_writes_with_the_prefix(mut engine: TestEngine) {
    let expecting = |prefix: &[u8], newest| {
        let mut batch = Batch::new();
        batch.expect(Table::Owners, prefix, Expected::Newest(newest));
        batch
    };
    let prefix = [0, 1];
    engine.store().commit(expecting(&prefix, 0)).await.unwrap();
    engine.put(Table::Owners, &[0, 1, 7], "x").await;
    let second = engine.put(Table::Owners, &[0, 1, 3], "x").await;
    // Neighbouring keys and other tables do not count.
    engine.put(Table::Owners, &[0, 2], "x").await;
    engine.put(Table::Owners, &[0, 0, 0xff], "x").await;
    engine.put(Table::Keys, &[0, 1, 5], "x").await;
    engine.reopen();
    for wrong in [0, second - 1, second + 1] {
        let found = conflict(engine.store().commit(expecting(&prefix, wrong)).await);
        assert_eq!((found.key, found.state), (prefix.to_vec(), Expected::Newest(wrong)));
    }
    engine.store().commit(expecting(&prefix, second)).await.unwrap();
    // A record whose key equals the prefix counts too.
    let itself = engine.put(Table::Owners, &prefix, "x").await;
    conflict(engine.store().commit(expecting(&prefix, second)).await);
    engine.store().commit(expecting(&prefix, itself)).await.unwrap();
}

async fn conflict_names_the_first_unmet_expectation(engine: TestEngine) {
    engine.put(Table::Users, b"a", "x").await;
    let mut batch = put(Table::Users, b"b", "new");
    batch.expect(Table::Users, *b"a", Expected::Present);
    batch.expect(Table::Roles, *b"r", Expected::Revision(7));
    batch.expect(Table::Users, *b"a", Expected::Missing);
    let unmet = conflict(engine.store().commit(batch).await);
    assert_eq!(
        (unmet.table, unmet.key, unmet.state),
        (Table::Roles, b"r".to_vec(), Expected::Revision(7))
    );
    assert!(read(&**engine.store(), Table::Users, b"b").is_none());
    // Expectations refer to the state before the batch.
    let mut batch = put(Table::Users, b"b", "new");
    batch.expect(Table::Users, *b"b", Expected::Missing);
    engine.store().commit(batch).await.unwrap();
}

async fn sequence_grows_by_one_and_is_the_revision_of_written_records(mut engine: TestEngine) {
    assert_eq!(engine.put(Table::Users, b"a", "1").await, 1);
    assert_eq!(engine.put(Table::Users, b"b", "2").await, 2);
    let mut rejected = put(Table::Users, b"a", "never");
    rejected.expect(Table::Users, *b"a", Expected::Missing);
    conflict(engine.store().commit(rejected).await);
    assert_eq!(engine.store().commit(Batch::new()).await.unwrap(), 3);
    assert_eq!(engine.put(Table::Users, b"a", "4").await, 4);
    engine.check_and_recheck(|store| {
        assert_eq!(read(store, Table::Users, b"a"), Some((4, "4".into())));
        assert_eq!(read(store, Table::Users, b"b"), Some((2, "2".into())));
        assert_eq!(store.snapshot().unwrap().sequence(), 4);
        let listed = store.scan(Table::Users, b"", None, 9).unwrap();
        assert_eq!(listed.iter().map(|(_, stored)| stored.revision).collect::<Vec<_>>(), [4, 2]);
    });
    assert_eq!(engine.put(Table::Users, b"c", "5").await, 5);
}

async fn last_write_of_a_batch_to_a_record_counts(mut engine: TestEngine) {
    let mut batch = put(Table::Users, b"a", "1");
    batch.put(Table::Users, *b"a", encode(&"2"));
    batch.put(Table::Users, *b"b", encode(&"1")).delete(Table::Users, *b"b");
    engine.store().commit(batch).await.unwrap();
    engine.check_and_recheck(|store| {
        assert_eq!(read(store, Table::Users, b"a"), Some((1, "2".into())));
        assert_eq!(read(store, Table::Users, b"b"), None);
    });
}

async fn concurrent_writers_lose_no_updates(mut engine: TestEngine) {
    const TASKS: u64 = 64;
    const COMMITS_PER_TASK: u64 = 5;
    engine.put(Table::Meta, b"counter", "0").await;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let store = engine.store().clone();
        tasks.spawn(async move {
            let mut sequences = Vec::new();
            while (sequences.len() as u64) < COMMITS_PER_TASK {
                let (revision, text) = read(&*store, Table::Meta, b"counter").unwrap();
                let next = text.parse::<u64>().unwrap() + 1;
                let mut batch = put(Table::Meta, b"counter", &next.to_string());
                batch.expect(Table::Meta, *b"counter", Expected::Revision(revision));
                match store.commit(batch).await {
                    Ok(sequence) => sequences.push(sequence),
                    Err(problem) => drop(conflict(Err(problem))),
                }
            }
            sequences
        });
    }
    let mut sequences: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (2..2 + TASKS * COMMITS_PER_TASK).collect::<Vec<_>>());
    engine.check_and_recheck(|store| {
        let last = 1 + TASKS * COMMITS_PER_TASK;
        let counter = read(store, Table::Meta, b"counter");
        assert_eq!(counter, Some((last, (TASKS * COMMITS_PER_TASK).to_string())));
        assert_eq!(store.snapshot().unwrap().sequence(), last);
    });
}

async fn scan_returns_the_requested_records_in_order(mut engine: TestEngine) {
    let keys = [
        b"".as_slice(),
        b"\0",
        b"a",
        b"a\0",
        b"ab",
        b"a\xff",
        b"a\xff\xff",
        b"b",
        b"\xff",
        b"\xff\0",
        b"\xff\xff",
    ]
    .map(<[u8]>::to_vec);
    assert!(keys.is_sorted());
    let mut batch = Batch::new();
    for table in Table::ALL {
        for key in keys.iter().rev() {
            batch.put(table, key.clone(), encode(&table.name()));
        }
    }
    engine.store().commit(batch).await.unwrap();
    let bounds: Vec<Option<&[u8]>> =
        std::iter::once(None).chain(keys.iter().map(|key| Some(&**key))).collect();
    engine.check_and_recheck(|store| {
        for table in Table::ALL {
            for prefix in &keys {
                for after in &bounds {
                    for limit in [0, 1, 2, usize::MAX] {
                        let context = || format!("{table:?} {prefix:?} {after:?} {limit}");
                        let found = store.scan(table, prefix, *after, limit).unwrap();
                        let expected = keys.iter().filter(|key| {
                            key.starts_with(prefix) && after.is_none_or(|after| &***key > after)
                        });
                        let expected: Vec<_> = expected.take(limit).cloned().collect();
                        let found_keys: Vec<_> = found.iter().map(|(key, _)| key.clone()).collect();
                        assert_eq!(found_keys, expected, "{}", context());
                        for (key, stored) in found {
                            let text: String = decode(table, &key, &stored.json).unwrap();
                            assert_eq!(text, table.name(), "{}", context());
                        }
                    }
                }
            }
        }
    });
}

async fn snapshot_does_not_change(engine: TestEngine) {
    let both = |number: u64| {
        let mut batch = put(Table::Users, b"x", &number.to_string());
        batch.put(Table::Keys, *b"x", encode(&number.to_string()));
        batch
    };
    engine.store().commit(both(1)).await.unwrap();
    for _ in 0..20 {
        let snapshot = engine.store().snapshot().unwrap();
        let store = engine.store().clone();
        // The commit may wait for the end of the snapshot, so another task makes it.
        let writer = tokio::spawn(async move { store.commit(both(2)).await });
        let mut seen = Vec::new();
        for table in [Table::Users, Table::Keys, Table::Users] {
            let each = &mut |key: &[u8], record: RecordRef<'_>| {
                seen.push((key.to_vec(), record.revision, record.json.to_vec()));
                Ok(())
            };
            snapshot.each(table, each).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let sequence = snapshot.sequence();
        drop(snapshot);
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|record| *record == seen[0] && record.1 == sequence), "{seen:?}");
        assert_eq!(writer.await.unwrap().unwrap(), sequence + 1);
    }
    // An error of the callback ends the iteration.
    let snapshot = engine.store().snapshot().unwrap();
    let stop = &mut |_: &[u8], _: RecordRef<'_>| Err(StoreError::Failed("enough".into()));
    assert_eq!(
        snapshot.each(Table::Users, stop).unwrap_err().to_string(),
        "the store stopped writing: enough"
    );
}

async fn ranges_of_a_snapshot_cover_a_table(mut engine: TestEngine) {
    let tables = [Table::Foreign, Table::Keys, Table::Mails, Table::Usage];
    engine.check_and_recheck(|store| {
        assert_eq!(store.snapshot().unwrap().last_key(Table::Keys).unwrap(), None)
    });
    let keys: Vec<Vec<u8>> = (0..200_u16)
        .map(|number| (number * 3).to_be_bytes().to_vec())
        .chain([Vec::new(), vec![0], vec![2, 0xff, 0xff], vec![0xff; 9]])
        .collect();
    for table in tables {
        let mut batch = Batch::new();
        for key in keys.iter().filter(|_| table != Table::Mails) {
            batch.put(table, key.clone(), encode(&"x".repeat(key.len() * 40)));
        }
        engine.store().commit(batch).await.unwrap();
    }
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    let bounds = [
        &b""[..],
        b"\0",
        b"\0\x03",
        b"\0\x04",
        b"\x01",
        b"\x02\x55",
        b"\xff",
        &[0xff; 9],
        &[0xff; 10],
    ];
    engine.check_and_recheck(|store| {
        let snapshot = store.snapshot().unwrap();
        assert_eq!(snapshot.last_key(Table::Mails).unwrap(), None);
        for table in [Table::Foreign, Table::Keys, Table::Usage] {
            assert_eq!(snapshot.last_key(table).unwrap().as_ref(), sorted.last());
            for from in bounds {
                for to in bounds.iter().copied().map(Some).chain([None]) {
                    let mut found = Vec::new();
                    let each = &mut |key: &[u8], _: RecordRef<'_>| {
                        found.push(key.to_vec());
                        Ok(())
                    };
                    snapshot.range(table, from, to, each).unwrap();
                    let is_inside =
                        |key: &&Vec<u8>| ***key >= *from && to.is_none_or(|to| ***key < *to);
                    let expected: Vec<_> = sorted.iter().filter(is_inside).cloned().collect();
                    assert_eq!(found, expected, "{table:?} {from:?} {to:?}");
                }
            }
        }
    });
}

async fn too_large_value_is_rejected(mut engine: TestEngine) {
    let json = |size: usize| vec![b' '; size];
    let mut batch = Batch::new();
    batch.put(Table::Users, *b"small", json(1));
    batch.put(Table::Users, *b"large", json(MAX_VALUE_SIZE - HEADER_SIZE + 1));
    let problem = engine.store().commit(batch).await.unwrap_err();
    assert!(
        matches!(problem, CommitError::Store(StoreError::TooLarge { table: "users", size, limit, .. })
            if size == limit + 1 && limit == MAX_VALUE_SIZE),
        "{problem:?}"
    );
    engine.check_and_recheck(|store| {
        assert_eq!(dump(store), Dump::new());
        assert_eq!(store.fault(), None);
    });
    let mut batch = Batch::new();
    batch.put(Table::Users, *b"large", json(MAX_VALUE_SIZE - HEADER_SIZE));
    assert_eq!(engine.store().commit(batch).await.unwrap(), 1);
    engine.check_and_recheck(|store| {
        let stored = store.get(Table::Users, b"large").unwrap().unwrap();
        assert_eq!(stored.json, json(MAX_VALUE_SIZE - HEADER_SIZE));
    });
}

async fn deleting_a_missing_record_is_no_error(mut engine: TestEngine) {
    engine.put(Table::Users, b"a", "1").await;
    let delete = |key: &[u8]| {
        let mut batch = Batch::new();
        batch.delete(Table::Users, key);
        batch
    };
    assert_eq!(engine.store().commit(delete(b"b")).await.unwrap(), 2);
    engine.check_and_recheck(|store| assert_eq!(dump(store).len(), 1));
    assert_eq!(engine.store().commit(delete(b"a")).await.unwrap(), 3);
    assert_eq!(engine.store().commit(delete(b"a")).await.unwrap(), 4);
    engine.check_and_recheck(|store| assert_eq!(dump(store), Dump::new()));
}
