//! Tests of what only an engine on a disk can do wrong: kills, power cuts, damaged files, full
//! disks, locks.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use super::*;
use crate::store::{CommitError, Expected, encode, engine::REDB_FILE, marker, open as open_engine};

mod damage;
mod power_cut;

fn open(path: &Path) -> Result<RedbStore, StoreError> {
    RedbStore::open(path, 16)
}

fn problem(path: &Path) -> String {
    match open(path) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(StoreError::Unusable { problem, .. }) => problem,
        Err(other) => panic!("{other}"),
    }
}

/// Checks that the store is refused, that its files are byte for byte what they were, and returns
/// the problem.
fn refused(path: &Path) -> String {
    let before = listing(path);
    let problem = problem(path);
    assert!(listing(path) == before, "{}: {problem}: a file was changed", path.display());
    problem
}

fn user(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(Table::Users, number.to_be_bytes(), encode(&"x".repeat(500)));
    batch
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Creates a store with the users 1 to `count`, one commit each.
fn store_in(path: &Path, count: u64) -> RedbStore {
    let store = open(path).unwrap();
    for number in 1..=count {
        block_on(store.commit(user(number))).unwrap();
    }
    store
}

/// A copy of a store that was made while it was open: what `kill -9` leaves behind.
fn killed_store(folder: &Path, count: u64) -> PathBuf {
    let (path, copy) = (folder.join("first"), folder.join("killed"));
    let in_use = store_in(&path, count);
    copy_folder(&path, &copy);
    drop(in_use);
    copy
}

/// A store that was closed.
fn closed_store(folder: &Path, count: u64) -> PathBuf {
    let path = folder.join("closed");
    drop(store_in(&path, count));
    path
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The files of a folder with their content.
fn listing(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(&path).unwrap_or_default()))
        .collect();
    all.sort();
    all
}

fn count_users(store: &RedbStore) -> u64 {
    let mut count = 0;
    let each = &mut |_: &[u8], _: RecordRef<'_>| {
        count += 1;
        Ok(())
    };
    store.snapshot().unwrap().each(Table::Users, each).unwrap();
    count
}

#[test]
fn successful_commits_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&killed_store(folder.path(), 50)).unwrap();
    assert_eq!(store.snapshot().unwrap().sequence(), 50);
    assert_eq!(count_users(&store), 50);
    assert_eq!(block_on(store.commit(user(51))).unwrap(), 51);
}

#[test]
fn open_store_cannot_be_opened_a_second_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let first = open(&path).unwrap();
    let second = open(&path).err().unwrap();
    assert!(matches!(&second, StoreError::Locked { .. }), "{second:?}");
    drop(first);
    open(&path).unwrap();
}

#[test]
fn two_first_starts_at_once_create_one_store() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let results: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..4)
                .map(|number| {
                    let path = &path;
                    scope.spawn(move || {
                        let store = open(path)?;
                        block_on(store.commit(user(number))).unwrap();
                        Ok(())
                    })
                })
                .collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        let opened = results.iter().filter(|result| result.is_ok()).count() as u64;
        for result in results {
            assert!(matches!(result, Ok(()) | Err(StoreError::Locked { .. })), "{result:?}");
        }
        assert_eq!(count_users(&open(&path).unwrap()), opened);
    }
}

#[test]
fn folder_with_other_files_is_rejected_and_unchanged() {
    for name in ["notes.txt", "db", "conf"] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), "text").unwrap();
        assert!(refused(folder.path()).contains("other files"), "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    problem(&file);
    // An empty folder is accepted.
    fs::create_dir(folder.path().join("empty")).unwrap();
    open(&folder.path().join("empty")).unwrap();
}

#[test]
fn store_of_another_engine_is_rejected_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for (made, opened) in
        [(EngineKind::Sled, EngineKind::Redb), (EngineKind::Redb, EngineKind::Sled)]
    {
        let path = folder.path().join(made.name());
        drop(open_engine(made, &path, 16).unwrap());
        let before = listing(&path);
        let problem = open_engine(opened, &path, 16).err().unwrap().to_string();
        let (made, opened) = (made.name(), opened.name());
        for expected in [
            format!("it is a store of the engine {made}"),
            format!("Set store.engine = \"{made}\""),
            format!("keyward store convert --to {opened}"),
        ] {
            assert!(problem.contains(&expected), "{problem}");
        }
        assert!(listing(&path) == before);
    }
    assert!(problem(&folder.path().join("sled")).contains("engine sled"));
}

#[test]
fn interrupted_first_start_can_be_repeated() {
    // Killed before the marker file was written.
    let folder = tempfile::tempdir().unwrap();
    let path = closed_store(folder.path(), 0);
    fs::remove_file(path.join(marker::NAME)).unwrap();
    assert_eq!(open(&path).unwrap().snapshot().unwrap().sequence(), 0);
    // Killed while the database file was written.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("store.redb.new"), [0; 5000]).unwrap();
    assert_eq!(open(folder.path()).unwrap().snapshot().unwrap().sequence(), 0);
    assert!(!folder.path().join("store.redb.new").exists());
}

#[test]
fn store_without_its_marker_file_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    for path in [killed_store(folder.path(), 1), closed_store(folder.path(), 1)] {
        fs::remove_file(path.join(marker::NAME)).unwrap();
        assert!(refused(&path).contains("the file KEYWARD is missing"));
    }
}

#[test]
fn store_without_its_last_commits_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed_store(folder.path(), 3);
    drop(MarkerFile::open(&path, 4).unwrap());
    let problem_text = refused(&path);
    assert!(problem_text.contains("the last commit was number 4 and is now 3"), "{problem_text}");
    // A smaller number is accepted: the marker file may be older than the database.
    drop(MarkerFile::open(&path, 2).unwrap());
    drop(open(&path).unwrap());
    assert_eq!(MarkerFile::read(&path), Ok(Some(3)));
    fs::write(path.join(marker::NAME), "").unwrap();
    assert!(refused(&path).contains("the file KEYWARD is damaged"));
}

#[tokio::test]
async fn panic_of_the_writer_thread_stops_the_store() {
    struct Panicking;
    impl Subscriber for Panicking {
        fn apply(&self, _: &Commit) {
            panic!("subscriber panicked");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store")).unwrap();
    store.subscribe(0, Arc::new(Panicking)).unwrap();
    store.commit(user(1)).await.unwrap_err();
    let problem = store.commit(user(2)).await.unwrap_err();
    assert_eq!(problem.to_string(), "the store stopped writing: subscriber panicked");
    assert_eq!(store.fault().as_deref(), Some("subscriber panicked"));
    assert!(store.get(Table::Users, &2_u64.to_be_bytes()).unwrap().is_none());
}

#[tokio::test]
async fn snapshot_does_not_block_writers() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store")).unwrap();
    store.commit(user(1)).await.unwrap();
    let snapshot = store.snapshot().unwrap();
    for number in 2..=20 {
        store.commit(user(number)).await.unwrap();
    }
    assert_eq!(snapshot.sequence(), 1);
    assert_eq!(snapshot.last_key(Table::Users).unwrap().unwrap(), 1_u64.to_be_bytes());
    assert_eq!(store.snapshot().unwrap().sequence(), 20);
}

#[test]
fn file_does_not_grow_with_the_number_of_commits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = store_in(&path, 10);
    let size = || fs::metadata(path.join(REDB_FILE)).unwrap().len();
    let mut sizes = Vec::new();
    for _ in 0..4 {
        for _ in 0..300 {
            block_on(store.commit(user(5))).unwrap();
        }
        sizes.push(size());
    }
    assert!(sizes[3] <= sizes[0], "{sizes:?}");
    drop(store);
}

#[test]
fn new_folder_is_private_and_existing_folder_keeps_its_mode() {
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let new = folder.path().join("sub/new");
    drop(open(&new).unwrap());
    assert_eq!((mode(&new), mode(&new.join(REDB_FILE))), (0o700, 0o600));
    let old = folder.path().join("old");
    fs::create_dir(&old).unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o750)).unwrap();
    drop(open(&old).unwrap());
    assert_eq!(mode(&old), 0o750);
}

#[test]
fn unreadable_folder_is_reported_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    problem(&folder.path().join("missing/parent\0"));
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser can read it.
    if fs::read_dir(&closed).is_err() {
        assert!(problem(&closed).contains("ermission"));
    }
}

/// The environment variable with the path of the child process's store.
const CHILD: &str = "KEYWARD_TEST_CHILD";

/// A process with a file size limit simulates a full disk.
#[test]
fn write_error_is_permanent_and_successful_commits_survive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let script = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" --exact --ignored --nocapture store::redb::tests::child_on_a_full_disk";
    let child = Command::new("bash")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, &path)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&child.stdout);
    let committed: u64 = stdout
        .lines()
        .find_map(|line| line.strip_prefix("committed ")?.parse().ok())
        .unwrap_or_else(|| panic!("{stdout}{}", String::from_utf8_lossy(&child.stderr)));
    assert!(committed > 100, "{committed}");

    let store = open(&path).unwrap();
    let sequence = store.snapshot().unwrap().sequence();
    assert!(sequence >= committed, "{sequence} of {committed}");
    for number in 1..=committed {
        assert!(store.get(Table::Users, &number.to_be_bytes()).unwrap().is_some(), "{number}");
    }
    assert_eq!(block_on(store.commit(user(1))).unwrap(), sequence + 1);
}

#[tokio::test]
#[ignore = "started by write_error_is_permanent_and_successful_commits_survive"]
async fn child_on_a_full_disk() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = open(Path::new(&path)).unwrap();
    let mut number = 1;
    let problem = loop {
        // While the first batch is written, the other two wait, so they are written as one group.
        let first = store.commit(Batch::new());
        let user = store.commit(user(number));
        let mut same = Batch::new();
        same.expect(Table::Users, number.to_be_bytes(), Expected::Missing);
        let same = store.commit(same);
        let _ = first.await;
        let (user, same) = (user.await, same.await.unwrap_err());
        match user {
            Ok(_) => assert!(matches!(same, CommitError::Conflict(_)), "{same:?}"),
            // The record of the conflict was not written, so the conflict is reported as a failure.
            Err(problem) => {
                assert!(matches!(same, CommitError::Store(_)), "{same:?}");
                break problem;
            }
        }
        number += 1;
    };
    assert!(matches!(problem, CommitError::Store(StoreError::Failed(_))), "{problem:?}");
    let fault = store.fault().unwrap();
    assert!(fault.contains("File too large"), "{fault}");
    // Not even an empty batch is accepted, for which there would be space.
    let again = store.commit(Batch::new()).await.unwrap_err();
    assert_eq!(again.to_string(), format!("the store stopped writing: {fault}"));
    // Reading still works, and shows committed records only.
    for committed in 1..number {
        assert!(store.get(Table::Users, &committed.to_be_bytes()).unwrap().is_some());
    }
    assert!(store.get(Table::Users, &number.to_be_bytes()).unwrap().is_none());
    assert_eq!(count_users(&store), number - 1);
    println!("committed {}", number - 1);
}
