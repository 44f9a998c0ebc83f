//! Damaged files: each is refused and left as it was, or yields all records.

use super::*;

const USERS: u64 = 300;

/// A kind of damage, at an offset of the file.
struct Damage {
    name: &'static str,
    change: fn(&mut Vec<u8>, usize),
}

const DAMAGES: [Damage; 4] = [
    Damage { name: "a flipped bit", change: |bytes, at| bytes[at] ^= 0x20 },
    Damage { name: "truncation", change: |bytes, at| bytes.truncate(at) },
    Damage {
        name: "noise",
        change: |bytes, at| {
            let end = bytes.len().min(at + 4096);
            for (number, byte) in bytes[at..end].iter_mut().enumerate() {
                *byte = (number * 31 + 7) as u8;
            }
        },
    },
    Damage {
        name: "zeros",
        change: |bytes, at| {
            let end = bytes.len().min(at + 4096);
            bytes[at..end].fill(0);
        },
    },
];

/// Damages a copy of the store at places from its head to its tail. Returns how many copies were
/// refused.
fn damage_everywhere(folder: &Path, store: &Path, parts: usize) -> usize {
    let whole = fs::read(store.join(REDB_FILE)).unwrap();
    let mut rejected = 0;
    for Damage { name, change } in DAMAGES {
        for part in 0..parts {
            // The places are spread over the file, and in the header.
            let at = if part < 40 { part * 8 } else { whole.len() * part / parts + part % 4096 };
            let at = at.min(whole.len() - 1);
            let path = folder.join(format!("{name} {part}"));
            copy_folder(store, &path);
            let mut bytes = whole.clone();
            change(&mut bytes, at);
            fs::write(path.join(REDB_FILE), &bytes).unwrap();
            let before = listing(&path);
            match open(&path) {
                Ok(store) => {
                    assert_eq!(count_users(&store), USERS, "{name} at {at}");
                    assert_eq!(store.snapshot().unwrap().sequence(), USERS, "{name} at {at}");
                    for number in 1..=USERS {
                        let key = number.to_be_bytes();
                        assert!(store.get(Table::Users, &key).unwrap().is_some(), "{name} at {at}");
                    }
                }
                Err(problem) => {
                    assert!(matches!(problem, StoreError::Unusable { .. }), "{problem:?}");
                    assert!(listing(&path) == before, "{name} at {at}: the file was changed");
                    rejected += 1;
                }
            }
            fs::remove_dir_all(&path).unwrap();
        }
    }
    rejected
}

#[test]
fn damaged_file_is_refused_unchanged_or_yields_all_records() {
    let folder = tempfile::tempdir().unwrap();
    let closed = closed_store(folder.path(), USERS);
    let rejected = damage_everywhere(folder.path(), &closed, 100);
    assert!(rejected > 150, "{rejected} of 400");
}

/// The marker file is not synced with each commit. So after a power cut it can be too old to tell
/// that commits are lost; the file must tell it alone.
#[test]
fn damage_after_a_crash_never_brings_back_an_older_commit() {
    let folder = tempfile::tempdir().unwrap();
    let killed = killed_store(folder.path(), USERS);
    drop(MarkerFile::open(&killed, 0).unwrap());
    let rejected = damage_everywhere(folder.path(), &killed, 100);
    assert!(rejected > 100, "{rejected} of 400");
}

#[test]
fn missing_empty_or_foreign_file_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = closed_store(folder.path(), 3);
    let file = path.join(REDB_FILE);
    let whole = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert!(refused(&path).contains("the file store.redb is missing. Restore it from a backup"));
    for (content, reason) in [
        (Vec::new(), "damaged (it is empty)"),
        (b"text".to_vec(), "not a redb database"),
        (vec![7; 100_000], "not a redb database"),
        (whole[..4096].to_vec(), "damaged"),
    ] {
        fs::write(&file, content).unwrap();
        let problem = refused(&path);
        assert!(problem.contains(reason), "{reason}: {problem}");
    }
    fs::write(&file, whole).unwrap();
    open(&path).unwrap();
}

#[test]
fn database_of_another_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    const OTHER: TableDefinition<'_, u64, u64> = TableDefinition::new("other");
    let database = Database::create(folder.path().join(REDB_FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(OTHER).unwrap().insert(1, 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(refused(folder.path()).contains("another program"));
    assert!(!folder.path().join(marker::NAME).exists());
}

#[test]
fn read_error_is_not_called_damage() {
    // A folder in place of the file: opening it for writing fails.
    let folder = tempfile::tempdir().unwrap();
    let path = closed_store(folder.path(), 3);
    fs::remove_file(path.join(REDB_FILE)).unwrap();
    fs::create_dir(path.join(REDB_FILE)).unwrap();
    let problem = problem(&path);
    assert!(problem.contains("Is a directory") && !problem.contains("damaged"), "{problem}");
}

/// Changes the bytes of a record directly in redb.
fn tamper(path: &Path, table: Table, key: &[u8], change: impl Fn(&mut Vec<u8>)) {
    let database = Database::create(path.join(REDB_FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut records = transaction.open_table(RECORDS).unwrap();
        let at = record_key(table, key);
        let mut value = {
            use redb::ReadableTable as _;
            records.get(&*at).unwrap().unwrap().value().to_vec()
        };
        change(&mut value);
        records.insert(&*at, &*value).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn damaged_record_is_named_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = closed_store(folder.path(), 3);
    let key = 2_u64.to_be_bytes();
    tamper(&path, Table::Users, &key, |value| *value.last_mut().unwrap() ^= 1);
    let store = open(&path).unwrap();
    assert!(store.get(Table::Users, &1_u64.to_be_bytes()).unwrap().is_some());
    let each = &mut |_: &[u8], _: RecordRef<'_>| Ok(());
    for problem in [
        store.get(Table::Users, &key).unwrap_err(),
        store.scan(Table::Users, &[], None, 9).unwrap_err(),
        store.snapshot().unwrap().each(Table::Users, each).unwrap_err(),
    ] {
        let expected = "the record 2 in users is damaged: its checksum is wrong";
        assert_eq!(problem.to_string(), expected);
    }
}

#[test]
fn batch_that_expects_a_damaged_record_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = closed_store(folder.path(), 3);
    let key = 2_u64.to_be_bytes();
    tamper(&path, Table::Users, &key, |value| value.truncate(5));
    let store = open(&path).unwrap();
    let mut batch = user(4);
    batch.expect(Table::Users, key, Expected::Present);
    let problem = block_on(store.commit(batch)).unwrap_err();
    assert!(matches!(problem, CommitError::Store(StoreError::Damaged { .. })), "{problem:?}");
    assert_eq!(store.fault(), None, "other batches can be written");
    assert_eq!(block_on(store.commit(user(4))).unwrap(), 4);
}
