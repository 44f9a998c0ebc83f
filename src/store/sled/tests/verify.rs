//! Tests of the start: damage in each file is found before anything is decided, a refused start
//! changes no file, and readers see committed records only.

use super::*;
use crate::store::RecordDigest;

/// Loads all records that the start loads, as the Directory does.
pub fn load(store: &SledStore) -> Result<RecordDigest, StoreError> {
    let snapshot = store.snapshot()?;
    let mut digest = snapshot.empty_digest().unwrap();
    for table in Table::ALL.into_iter().filter(|table| table.is_loaded()) {
        snapshot.each(table, &mut |key, record| {
            digest.add(table, key, record.revision, record.json);
            Ok(())
        })?;
    }
    snapshot.verify_loaded(&digest)?;
    Ok(digest)
}

pub fn open_and_load(path: &Path) -> Result<(), StoreError> {
    load(&open(path)?).map(drop)
}

/// All files below a folder with their contents.
fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// A store that was closed and opened again, with `users` users, each changed several times since.
fn used_store(folder: &Path, users: u64) -> PathBuf {
    let path = folder.join("used");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for start in 0..2 {
        let store = open(&path).unwrap();
        load(&store).unwrap();
        for round in 0..4_u64 {
            for number in 1..=users {
                let mut batch = Batch::new();
                let record = format!("{start}{round}{}", "x".repeat(400));
                batch.put(Table::Users, number.to_be_bytes(), encode(&record));
                runtime.block_on(store.commit(batch)).unwrap();
            }
        }
    }
    path
}

#[test]
fn each_flipped_byte_is_found_or_harmless_and_a_refused_start_changes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = used_store(folder.path(), 60);
    let mut refused = 0;
    for name in ["db", "conf", "KEYWARD"] {
        let length = fs::metadata(store.join(name)).unwrap().len();
        let positions = if name == "db" { 150 } else { length };
        for number in 0..positions {
            let path = folder.path().join("damaged");
            copy_folder(&store, &path);
            let file = fs::OpenOptions::new().read(true).write(true).open(path.join(name)).unwrap();
            let offset = length * number / positions;
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
            let before = tree(&path);
            match open(&path).and_then(|store| load(&store).map(|_| store)) {
                Ok(store) => {
                    assert_eq!(count_users(&store), 60, "{name} {offset}");
                    let user = store.get(Table::Users, &1_u64.to_be_bytes()).unwrap().unwrap();
                    assert!(user.json.starts_with(b"\"13"), "{name} {offset}");
                }
                Err(_) => {
                    refused += 1;
                    assert!(tree(&path) == before, "{name} {offset} was changed");
                }
            }
            fs::remove_dir_all(&path).unwrap();
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn older_version_of_a_record_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed_store(folder.path(), 3);
    let mut older = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    {
        let store = open(&path).unwrap();
        load(&store).unwrap();
        let value =
            store.inner.read(|view| bucket::get(view, Table::Users, &2_u64.to_be_bytes())).unwrap();
        older.extend(value.unwrap());
        runtime.block_on(store.commit(user(2))).unwrap();
    }
    open_and_load(&path).unwrap();
    tamper(&path, Table::Users, &2_u64.to_be_bytes(), |value| value.clone_from(&older));
    let before = tree(&path);
    let problem = open_and_load(&path).unwrap_err().to_string();
    assert!(problem.contains("not those of the last commit"), "{problem}");
    assert!(tree(&path) == before);
}

#[test]
fn left_over_temporary_files_are_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed_store(folder.path(), 3);
    fs::write(path.join("snap.00000000000FFFFF.generating"), "incomplete").unwrap();
    fs::write(path.join("KEYWARD.new"), "").unwrap();
    fs::create_dir(path.join("before-start")).unwrap();
    fs::write(path.join("before-start/db"), "incomplete").unwrap();
    open_and_load(&path).unwrap();
    let names: Vec<_> = tree(&path).into_iter().map(|(path, _)| path).collect();
    let is_left = |name: &str| names.iter().any(|path| path.to_string_lossy().contains(name));
    assert!(!is_left("generating") && !is_left("KEYWARD.new") && !is_left("before-"), "{names:?}");
    // In a folder without a store they are no store.
    let new = folder.path().join("new");
    fs::create_dir_all(new.join("blobs")).unwrap();
    fs::write(new.join("conf"), "").unwrap();
    fs::write(new.join("snap.0000000000000000.generating"), "").unwrap();
    drop(open(&new).unwrap());
    open_and_load(&new).unwrap();
}

#[test]
fn first_start_that_was_interrupted_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let complete = folder.path().join("complete");
    drop(sled::open(&complete).unwrap());
    let conf = fs::read(complete.join("conf")).unwrap();
    // The first start was killed while it wrote the settings file, or after that.
    for length in 0..=conf.len() {
        let path = folder.path().join(length.to_string());
        fs::create_dir_all(path.join("before-start")).unwrap();
        fs::write(path.join("conf"), &conf[..length]).unwrap();
        drop(open(&path).unwrap());
        open_and_load(&path).unwrap();
    }
    // The copy of an existing store means that this is not a first start.
    let path = folder.path().join("existing");
    copy_folder(&killed_store(folder.path(), 3), &path);
    fs::remove_file(path.join("KEYWARD")).unwrap();
    fs::create_dir(path.join("before-start")).unwrap();
    fs::write(path.join("before-start/KEYWARD"), "").unwrap();
    let before = tree(&path);
    assert!(problem(&path).contains("incomplete"));
    assert!(tree(&path) == before);
}

#[test]
fn refused_first_start_leaves_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("snap.0000000000000C35"), "this is no snapshot").unwrap();
    let before = tree(&path);
    problem(&path);
    assert!(tree(&path) == before);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
}

#[test]
fn first_start_waits_for_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    fs::create_dir(&path).unwrap();
    let other = File::open(&path).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let refused = open(&path).err().unwrap();
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused:?}");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    drop(other);
    open_and_load(&path).unwrap();
}

#[test]
fn refused_start_restores_left_over_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed_store(folder.path(), 3);
    fs::write(path.join("snap.00000000000FFFFF.generating"), "incomplete").unwrap();
    fs::create_dir(path.join("before-start")).unwrap();
    fs::write(path.join("before-start/db"), "incomplete").unwrap();
    set_marker(&path, 4);
    let before = tree(&path);
    assert!(problem(&path).contains("commits are lost"));
    assert!(tree(&path) == before);
}

#[test]
fn interrupted_replacement_of_the_files_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed_store(folder.path(), 3);
    let complete = tree(&path);
    let files: Vec<_> =
        complete.iter().map(|(path, _)| path.file_name().unwrap().to_owned()).collect();
    // The moves of the replacement end after any of the files.
    for moved in 0..=files.len() {
        let copy = folder.path().join(moved.to_string());
        fs::create_dir(&copy).unwrap();
        fs::create_dir(copy.join("installing")).unwrap();
        for (number, name) in files.iter().enumerate() {
            let to = if number < moved { copy.clone() } else { copy.join("installing") };
            fs::copy(path.join(name), to.join(name)).unwrap();
        }
        let store = open(&copy).unwrap();
        load(&store).unwrap();
        assert_eq!(count_users(&store), 3, "{moved}");
    }
}

#[test]
fn store_without_its_marker_file_is_refused_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed_store(folder.path(), 3);
    fs::remove_file(path.join("KEYWARD")).unwrap();
    let before = tree(&path);
    let problem = problem(&path);
    assert!(problem.contains("KEYWARD"), "{problem}");
    assert!(tree(&path) == before);
}

#[test]
fn unknown_file_in_a_store_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed_store(folder.path(), 3);
    fs::write(path.join("notes.txt"), "").unwrap();
    let before = tree(&path);
    assert!(problem(&path).contains("notes.txt"));
    assert!(tree(&path) == before);
}

#[test]
fn store_that_is_only_opened_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed_store(folder.path(), 3);
    let before = tree(&path);
    drop(open(&path).unwrap());
    assert!(tree(&path) == before);
}

#[tokio::test]
async fn write_that_failed_is_not_seen() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store")).unwrap();
    store.commit(user(1)).await.unwrap();
    // A write of the group below that is not durable: the writer thread is interrupted before it
    // calls the subscribers.
    let inner = store.inner.clone();
    let (responder, _result) = oneshot::channel();
    let mut batch = user(1);
    batch.put(Table::Users, 2_u64.to_be_bytes(), encode(&"new"));
    let before = store.scan(Table::Users, &[], None, 9).unwrap();
    let mut group = Group::new(&inner);
    group.add(Job { batch, responder });
    group.write_without_sync();
    let seen = |found: Vec<(Vec<u8>, Stored)>| {
        found.into_iter().map(|(key, stored)| (key, stored.revision)).collect::<Vec<_>>()
    };
    let after = store.scan(Table::Users, &[], None, 9).unwrap();
    assert_eq!(seen(after), seen(before));
    assert!(store.get(Table::Users, &2_u64.to_be_bytes()).unwrap().is_none());
    assert_eq!(count_users(&store), 1);
    load(&store).unwrap();
    assert_eq!(store.snapshot().unwrap().sequence(), 1);
}

#[test]
fn compacted_store_has_equal_records_in_less_space() {
    let folder = tempfile::tempdir().unwrap();
    let path = used_store(folder.path(), 300);
    let digest = load(&open(&path).unwrap()).unwrap();
    let (before, after) = SledStore::compact(&path, 16).unwrap();
    assert!(after * 2 < before, "{before} {after}");
    let store = open(&path).unwrap();
    assert_eq!(load(&store).unwrap(), digest);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(store.commit(user(1))).unwrap(), 2401);
    drop(store);
    open_and_load(&path).unwrap();
    // A store in use is not compacted.
    let in_use = open(&path).unwrap();
    assert!(matches!(SledStore::compact(&path, 16), Err(StoreError::Locked { .. })));
    drop(in_use);
}

#[test]
fn older_index_is_found_by_the_check_and_by_a_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed_store(folder.path(), 3);
    // An index is not loaded, but compaction reads it.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut batch = Batch::new();
    batch.put(Table::Names, *b"anna", b"1".to_vec());
    runtime.block_on(open(&path).unwrap().commit(batch)).unwrap();
    let value = codec::encode_value(Table::Names, b"anna", 4, b"2").unwrap();
    tamper(&path, Table::Names, b"anna", |found| found.clone_from(&value));
    open_and_load(&path).unwrap();
    let store = open(&path).unwrap();
    load(&store).unwrap();
    let problem = store.verify(&AtomicBool::new(false)).unwrap_err().to_string();
    assert!(problem.contains("not those of the last commit"), "{problem}");
    assert!(store.fault().is_some());
    drop(store);
    let before = tree(&path);
    let problem = SledStore::compact(&path, 16).unwrap_err().to_string();
    assert!(problem.contains("not those of the last commit"), "{problem}");
    assert!(tree(&path) == before);
}

#[test]
fn check_of_all_records_runs_beside_commits() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let mut batch = Batch::new();
    for number in 0..20_000_u64 {
        batch.put(Table::Names, number.to_be_bytes(), encode(&number));
    }
    runtime.block_on(store.commit(batch)).unwrap();
    std::thread::scope(|scope| {
        let check = scope.spawn(|| store.verify(&AtomicBool::new(false)));
        let mut commits = 0;
        while !check.is_finished() || commits < 2 {
            // Changes, additions and removals before and after the place of the check.
            let mut batch = Batch::new();
            for step in 0..9_u64 {
                let number = (commits * 7 + step * 2200) % 21_000;
                if commits % 3 == 0 {
                    batch.delete(Table::Names, number.to_be_bytes());
                } else {
                    batch.put(Table::Names, number.to_be_bytes(), encode(&commits));
                }
            }
            // Tables grow at their ends, before and after the check has read them.
            for table in [Table::Applications, Table::Audit, Table::Names, Table::Warned] {
                batch.put(table, format!("\u{10ffff}{commits:09}"), encode(&commits));
            }
            runtime.block_on(store.commit(batch)).unwrap();
            commits += 1;
        }
        check.join().unwrap().unwrap();
        assert!(commits >= 2, "{commits}");
    });
    store.verify(&AtomicBool::new(false)).unwrap();
}
