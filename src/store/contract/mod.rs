//! What [`Store`] promises, as tests. Every engine runs all of them; one that keeps its records runs each check a second time, after it was
//! closed and opened again.

mod follow;
mod random;
mod trail;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use tokio::task::JoinSet;

use super::{
    Batch, CommitError, Expect, MemoryStore, Sequence, SledStore, State, Store, StoreError, Table,
    codec::{HEAD, MAX_VALUE},
    decode, encode,
};

/// Runs each function once for each engine.
macro_rules! contract {
    ($($name:ident)*) => {
        mod on_memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::store::contract::Bench::memory()).await;
            })*
        }
        mod on_sled {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::store::contract::Bench::sled()).await;
            })*
        }
    };
}
use contract;

contract! {
    a_new_store_is_empty_and_well
    a_batch_is_written_whole_or_not_at_all
    each_expectation_holds_or_the_batch_is_refused
    what_comes_below_a_key_is_seen
    a_conflict_names_the_first_expectation_that_does_not_hold
    the_sequence_grows_by_one_and_each_record_carries_its_own
    the_last_write_of_a_batch_to_a_record_counts
    writers_at_the_same_time_lose_nothing
    a_scan_gives_what_was_asked_for_in_order
    a_snapshot_is_one_moment
    a_table_can_be_walked_in_parts
    a_value_that_is_too_large_is_refused
    what_is_not_there_can_be_deleted
}

/// An engine with a store in it.
struct Bench {
    folder: Option<tempfile::TempDir>,
    store: Option<Arc<dyn Store>>,
}

impl Bench {
    fn memory() -> Self {
        Self { folder: None, store: Some(Arc::new(MemoryStore::new())) }
    }

    fn sled() -> Self {
        let mut bench = Self { folder: Some(tempfile::tempdir().unwrap()), store: None };
        bench.reopen();
        bench
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }

    /// Closes the store and opens it again, if the engine keeps its records.
    fn reopen(&mut self) {
        let Some(folder) = &self.folder else { return };
        let path: PathBuf = folder.path().join("store");
        let users = self.store.as_ref().map_or(0, Arc::strong_count);
        assert!(users < 2, "somebody still holds the store");
        self.store = None;
        self.store = Some(Arc::new(SledStore::open(&path, 16).unwrap()));
    }

    /// Checks, closes and opens, and checks again.
    fn now_and_later(&mut self, check: impl Fn(&dyn Store)) {
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

/// Every record there is: its table and key, its revision and its JSON.
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

/// A record's revision and text.
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

async fn a_new_store_is_empty_and_well(mut on: Bench) {
    on.now_and_later(|store| {
        assert_eq!(dump(store), Dump::new());
        assert_eq!(store.snapshot().unwrap().sequence(), 0);
        assert_eq!(store.fault(), None);
        assert!(store.get(Table::Users, b"").unwrap().is_none());
    });
    assert_eq!(on.put(Table::Users, b"a", "first").await, 1);
    assert_eq!(on.store().fault(), None);
}

async fn a_batch_is_written_whole_or_not_at_all(mut on: Bench) {
    let mut batch = put(Table::Users, b"a", "one");
    batch.put(Table::Names, b"one", encode(&"a")).put(Table::Meta, b"n", encode(&"1"));
    on.store().commit(batch).await.unwrap();
    let whole = dump(&**on.store());
    assert_eq!(whole.len(), 3);

    let mut batch = put(Table::Users, b"a", "two");
    batch.put(Table::Roles, b"r", encode(&"new")).delete(Table::Names, *b"one");
    batch.expect(Table::Meta, *b"n", State::Missing);
    conflict(on.store().commit(batch).await);
    on.now_and_later(|store| assert_eq!(dump(store), whole));
}

async fn each_expectation_holds_or_the_batch_is_refused(mut on: Bench) {
    let first = on.put(Table::Users, b"there", "x").await;
    on.put(Table::Users, b"other", "x").await;
    // The same key in another table is another record.
    on.put(Table::Roles, b"not there", "x").await;
    for _ in 0..2 {
        for (key, state, holds) in [
            ("there", State::Missing, false),
            ("there", State::Present, true),
            ("there", State::Revision(first), true),
            ("there", State::Revision(first + 1), false),
            ("there", State::Revision(0), false),
            ("not there", State::Missing, true),
            ("not there", State::Present, false),
            ("not there", State::Revision(first), false),
            ("not there", State::Revision(0), false),
        ] {
            let mut batch = Batch::new();
            batch.expect(Table::Users, key, state);
            let result = on.store().commit(batch).await;
            assert_eq!(result.is_ok(), holds, "{key}, {state:?}: {result:?}");
        }
        on.reopen();
    }
}

async fn what_comes_below_a_key_is_seen(mut on: Bench) {
    let asked = |prefix: &[u8], newest| {
        let mut batch = Batch::new();
        batch.expect(Table::Owners, prefix, State::Newest(newest));
        batch
    };
    let prefix = [0, 1];
    on.store().commit(asked(&prefix, 0)).await.unwrap();
    on.put(Table::Owners, &[0, 1, 7], "x").await;
    let second = on.put(Table::Owners, &[0, 1, 3], "x").await;
    // Neighbours, and the same key elsewhere, are none of its business.
    on.put(Table::Owners, &[0, 2], "x").await;
    on.put(Table::Owners, &[0, 0, 0xff], "x").await;
    on.put(Table::Keys, &[0, 1, 5], "x").await;
    on.reopen();
    for wrong in [0, second - 1, second + 1] {
        let found = conflict(on.store().commit(asked(&prefix, wrong)).await);
        assert_eq!((found.key, found.state), (prefix.to_vec(), State::Newest(wrong)));
    }
    on.store().commit(asked(&prefix, second)).await.unwrap();
    // The record itself is below its key.
    let itself = on.put(Table::Owners, &prefix, "x").await;
    conflict(on.store().commit(asked(&prefix, second)).await);
    on.store().commit(asked(&prefix, itself)).await.unwrap();
}

async fn a_conflict_names_the_first_expectation_that_does_not_hold(on: Bench) {
    on.put(Table::Users, b"a", "x").await;
    let mut batch = put(Table::Users, b"b", "new");
    batch.expect(Table::Users, *b"a", State::Present);
    batch.expect(Table::Roles, *b"r", State::Revision(7));
    batch.expect(Table::Users, *b"a", State::Missing);
    let on_what = conflict(on.store().commit(batch).await);
    assert_eq!(
        (on_what.table, on_what.key, on_what.state),
        (Table::Roles, b"r".to_vec(), State::Revision(7))
    );
    assert!(read(&**on.store(), Table::Users, b"b").is_none());
    // An expectation is about what was before the batch, not about what the batch writes.
    let mut batch = put(Table::Users, b"b", "new");
    batch.expect(Table::Users, *b"b", State::Missing);
    on.store().commit(batch).await.unwrap();
}

async fn the_sequence_grows_by_one_and_each_record_carries_its_own(mut on: Bench) {
    assert_eq!(on.put(Table::Users, b"a", "1").await, 1);
    assert_eq!(on.put(Table::Users, b"b", "2").await, 2);
    let mut refused = put(Table::Users, b"a", "never");
    refused.expect(Table::Users, *b"a", State::Missing);
    conflict(on.store().commit(refused).await);
    assert_eq!(on.store().commit(Batch::new()).await.unwrap(), 3);
    assert_eq!(on.put(Table::Users, b"a", "4").await, 4);
    on.now_and_later(|store| {
        assert_eq!(read(store, Table::Users, b"a"), Some((4, "4".into())));
        assert_eq!(read(store, Table::Users, b"b"), Some((2, "2".into())));
        assert_eq!(store.snapshot().unwrap().sequence(), 4);
        let listed = store.scan(Table::Users, b"", None, 9).unwrap();
        assert_eq!(listed.iter().map(|(_, one)| one.revision).collect::<Vec<_>>(), [4, 2]);
    });
    assert_eq!(on.put(Table::Users, b"c", "5").await, 5);
}

async fn the_last_write_of_a_batch_to_a_record_counts(mut on: Bench) {
    let mut batch = put(Table::Users, b"a", "1");
    batch.put(Table::Users, *b"a", encode(&"2"));
    batch.put(Table::Users, *b"b", encode(&"1")).delete(Table::Users, *b"b");
    on.store().commit(batch).await.unwrap();
    on.now_and_later(|store| {
        assert_eq!(read(store, Table::Users, b"a"), Some((1, "2".into())));
        assert_eq!(read(store, Table::Users, b"b"), None);
    });
}

async fn writers_at_the_same_time_lose_nothing(mut on: Bench) {
    const TASKS: u64 = 64;
    const EACH: u64 = 5;
    on.put(Table::Meta, b"counter", "0").await;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let store = on.store().clone();
        tasks.spawn(async move {
            let mut got = Vec::new();
            while (got.len() as u64) < EACH {
                let (revision, text) = read(&*store, Table::Meta, b"counter").unwrap();
                let next = text.parse::<u64>().unwrap() + 1;
                let mut batch = put(Table::Meta, b"counter", &next.to_string());
                batch.expect(Table::Meta, *b"counter", State::Revision(revision));
                match store.commit(batch).await {
                    Ok(sequence) => got.push(sequence),
                    Err(problem) => drop(conflict(Err(problem))),
                }
            }
            got
        });
    }
    let mut sequences: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (2..2 + TASKS * EACH).collect::<Vec<_>>());
    on.now_and_later(|store| {
        let last = 1 + TASKS * EACH;
        let held = read(store, Table::Meta, b"counter");
        assert_eq!(held, Some((last, (TASKS * EACH).to_string())));
        assert_eq!(store.snapshot().unwrap().sequence(), last);
    });
}

async fn a_scan_gives_what_was_asked_for_in_order(mut on: Bench) {
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
    on.store().commit(batch).await.unwrap();
    let bounds: Vec<Option<&[u8]>> =
        std::iter::once(None).chain(keys.iter().map(|key| Some(&**key))).collect();
    on.now_and_later(|store| {
        for table in Table::ALL {
            for prefix in &keys {
                for after in &bounds {
                    for limit in [0, 1, 2, usize::MAX] {
                        let asked = || format!("{table:?} {prefix:?} {after:?} {limit}");
                        let found = store.scan(table, prefix, *after, limit).unwrap();
                        let wanted = keys.iter().filter(|key| {
                            key.starts_with(prefix) && after.is_none_or(|after| &***key > after)
                        });
                        let wanted: Vec<_> = wanted.take(limit).cloned().collect();
                        let got: Vec<_> = found.iter().map(|(key, _)| key.clone()).collect();
                        assert_eq!(got, wanted, "{}", asked());
                        for (key, stored) in found {
                            let of: String = decode(table, &key, &stored.json).unwrap();
                            assert_eq!(of, table.name(), "{}", asked());
                        }
                    }
                }
            }
        }
    });
}

async fn a_snapshot_is_one_moment(on: Bench) {
    let both = |number: u64| {
        let mut batch = put(Table::Users, b"x", &number.to_string());
        batch.put(Table::Keys, *b"x", encode(&number.to_string()));
        batch
    };
    on.store().commit(both(1)).await.unwrap();
    for _ in 0..20 {
        let snapshot = on.store().snapshot().unwrap();
        let store = on.store().clone();
        // A commit may wait for the snapshot's end, so it is made elsewhere.
        let writer = tokio::spawn(async move { store.commit(both(2)).await });
        let mut seen = Vec::new();
        for table in [Table::Users, Table::Keys, Table::Users] {
            let each = &mut |key: &[u8], record: super::RecordRef<'_>| {
                seen.push((key.to_vec(), record.revision, record.json.to_vec()));
                Ok(())
            };
            snapshot.each(table, each).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let sequence = snapshot.sequence();
        drop(snapshot);
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|one| *one == seen[0] && one.1 == sequence), "{seen:?}");
        assert_eq!(writer.await.unwrap().unwrap(), sequence + 1);
    }
    // What a visitor says ends the walk.
    let snapshot = on.store().snapshot().unwrap();
    let stop = &mut |_: &[u8], _: super::RecordRef<'_>| Err(StoreError::Failed("enough".into()));
    assert_eq!(
        snapshot.each(Table::Users, stop).unwrap_err().to_string(),
        "the store stopped writing: enough"
    );
}

async fn a_table_can_be_walked_in_parts(mut on: Bench) {
    let tables = [Table::Foreign, Table::Keys, Table::Mails, Table::Usage];
    on.now_and_later(|store| {
        assert_eq!(store.snapshot().unwrap().last(Table::Keys).unwrap(), None)
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
        on.store().commit(batch).await.unwrap();
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
    on.now_and_later(|store| {
        let snapshot = store.snapshot().unwrap();
        assert_eq!(snapshot.last(Table::Mails).unwrap(), None);
        for table in [Table::Foreign, Table::Keys, Table::Usage] {
            assert_eq!(snapshot.last(table).unwrap().as_ref(), sorted.last());
            for from in bounds {
                for to in bounds.iter().copied().map(Some).chain([None]) {
                    let mut found = Vec::new();
                    let each = &mut |key: &[u8], _: super::RecordRef<'_>| {
                        found.push(key.to_vec());
                        Ok(())
                    };
                    snapshot.within(table, from, to, each).unwrap();
                    let is_in =
                        |key: &&Vec<u8>| ***key >= *from && to.is_none_or(|to| ***key < *to);
                    let wanted: Vec<_> = sorted.iter().filter(is_in).cloned().collect();
                    assert_eq!(found, wanted, "{table:?} {from:?} {to:?}");
                }
            }
        }
    });
}

async fn a_value_that_is_too_large_is_refused(mut on: Bench) {
    let json = |size: usize| vec![b' '; size];
    let mut batch = Batch::new();
    batch.put(Table::Users, *b"small", json(1));
    batch.put(Table::Users, *b"large", json(MAX_VALUE - HEAD + 1));
    let problem = on.store().commit(batch).await.unwrap_err();
    assert!(
        matches!(problem, CommitError::Store(StoreError::TooLarge { table: "users", size, limit })
            if size == limit + 1 && limit == MAX_VALUE),
        "{problem:?}"
    );
    on.now_and_later(|store| {
        assert_eq!(dump(store), Dump::new());
        assert_eq!(store.fault(), None);
    });
    let mut batch = Batch::new();
    batch.put(Table::Users, *b"large", json(MAX_VALUE - HEAD));
    assert_eq!(on.store().commit(batch).await.unwrap(), 1);
    on.now_and_later(|store| {
        let held = store.get(Table::Users, b"large").unwrap().unwrap();
        assert_eq!(held.json, json(MAX_VALUE - HEAD));
    });
}

async fn what_is_not_there_can_be_deleted(mut on: Bench) {
    on.put(Table::Users, b"a", "1").await;
    let delete = |key: &[u8]| {
        let mut batch = Batch::new();
        batch.delete(Table::Users, key);
        batch
    };
    assert_eq!(on.store().commit(delete(b"b")).await.unwrap(), 2);
    on.now_and_later(|store| assert_eq!(dump(store).len(), 1));
    assert_eq!(on.store().commit(delete(b"a")).await.unwrap(), 3);
    assert_eq!(on.store().commit(delete(b"a")).await.unwrap(), 4);
    on.now_and_later(|store| assert_eq!(dump(store), Dump::new()));
}
