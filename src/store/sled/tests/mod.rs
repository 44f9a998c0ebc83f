//! Tests of what only an engine on a disk can do wrong: kills, damaged files, full disks, locks.

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::PathBuf,
    process::Command,
};

use super::{
    changes::{PendingChanges, RecordChange},
    *,
};
use crate::store::{Commit, CommitError, Expected, encode};

mod verify;

fn open(path: &Path) -> Result<SledStore, StoreError> {
    SledStore::open(path, 16)
}

fn problem(path: &Path) -> String {
    match open(path) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(StoreError::Unusable { problem, .. }) => problem,
        Err(other) => panic!("{other}"),
    }
}

fn user(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(Table::Users, number.to_be_bytes(), encode(&"x".repeat(500)));
    batch
}

/// Creates a store with the users 1 to `count`, one commit each, and copies it while it is open.
/// The copy is what `kill -9` leaves behind.
fn killed_store(folder: &Path, count: u64) -> PathBuf {
    let (store, copy) = (folder.join("first"), folder.join("killed"));
    let in_use = open(&store).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in 1..=count {
        runtime.block_on(in_use.commit(user(number))).unwrap();
    }
    copy_folder(&store, &copy);
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
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

fn count_users(store: &SledStore) -> u64 {
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
fn folder_with_other_files_is_rejected_and_unchanged() {
    for (name, expected) in
        [("notes.txt", "other files"), ("db", "incomplete"), ("conf", "incomplete")]
    {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), "text").unwrap();
        let before = listing(folder.path());
        let problem = problem(folder.path());
        assert!(problem.contains(expected), "{name}: {problem}");
        assert_eq!(listing(folder.path()), before);
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
fn sled_store_of_another_program_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let other = sled::open(folder.path()).unwrap();
    other.insert(b"other", b"1").unwrap();
    drop(other);
    assert!(problem(folder.path()).contains("number of its last commit"));
    assert!(!folder.path().join(marker::NAME).exists());
}

#[test]
fn interrupted_first_start_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    drop(sled::open(folder.path()).unwrap());
    let store = open(folder.path()).unwrap();
    assert_eq!(store.snapshot().unwrap().sequence(), 0);
}

#[test]
fn store_with_a_missing_file_is_rejected_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let store = killed_store(folder.path(), 3);
    for missing in [&["db"][..], &["conf"], &["db", "conf"]] {
        let path = folder.path().join(missing.concat());
        copy_folder(&store, &path);
        for name in missing {
            fs::remove_file(path.join(name)).unwrap();
        }
        let before = listing(&path);
        assert!(problem(&path).contains("Restore it"), "{missing:?}");
        assert_eq!(listing(&path), before);
    }
}

#[test]
fn truncated_log_is_rejected_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    let store = killed_store(folder.path(), 300);
    let end = used_length(&store);
    for part in 0..16 {
        let path = folder.path().join(part.to_string());
        copy_folder(&store, &path);
        let log = fs::OpenOptions::new().write(true).open(path.join("db")).unwrap();
        log.set_len(end * part / 16).unwrap();
        let problem = problem(&path);
        assert!(!problem.is_empty(), "{problem}");
    }
}

#[test]
fn damaged_log_is_rejected_or_yields_all_records() {
    let folder = tempfile::tempdir().unwrap();
    let store = killed_store(folder.path(), 300);
    let end = used_length(&store);
    let mut rejected = 0;
    for part in 0..32 {
        let path = folder.path().join(part.to_string());
        copy_folder(&store, &path);
        let log = fs::OpenOptions::new().read(true).write(true).open(path.join("db")).unwrap();
        let at = end * part / 32 + 17;
        let mut byte = [0];
        log.read_exact_at(&mut byte, at).unwrap();
        log.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
        match open(&path) {
            Ok(store) => assert_eq!(count_users(&store), 300, "byte {at}"),
            Err(_) => rejected += 1,
        }
    }
    assert!(rejected > 0);
}

/// The offset of the last byte of the log that is not zero.
fn used_length(store: &Path) -> u64 {
    let log = fs::read(store.join("db")).unwrap();
    log.iter().rposition(|byte| *byte != 0).unwrap() as u64
}

#[test]
fn store_without_its_last_commits_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed_store(folder.path(), 3);
    set_marker(&path, 4);
    let problem_text = problem(&path);
    assert!(problem_text.contains("the last commit was number 4 and is now 3"), "{problem_text}");
    // A smaller number is accepted: the marker file may be older than the log.
    set_marker(&path, 2);
    verify::open_and_load(&path).unwrap();
    assert_eq!(MarkerFile::read(&path), Ok(Some(3)));
    fs::write(path.join(marker::NAME), "").unwrap();
    assert!(problem(&path).contains("damaged"));
}

fn set_marker(path: &Path, number: Sequence) {
    let file = MarkerFile::open_file(path).unwrap();
    MarkerFile::with_number(file, number).unwrap();
}

/// Changes the bytes of a record directly in sled.
fn tamper(path: &Path, table: Table, key: &[u8], change: impl Fn(&mut Vec<u8>)) {
    // sled gives its lock back a moment after the last handle is dropped.
    let deadline = Instant::now() + Duration::from_secs(10);
    let db = loop {
        match sled::open(path) {
            Err(sled::Error::Io(_)) if Instant::now() < deadline => {
                std::thread::yield_now();
            }
            opened => break opened.unwrap(),
        }
    };
    let view = CommittedView::new(&db, None);
    let mut value = bucket::get(&view, table, key).unwrap().unwrap();
    change(&mut value);
    let mut changes = PendingChanges::new(view, RecordDigest::random(), None);
    changes.set(vec![RecordChange { table, key: key.to_vec(), value: Some(value) }]).unwrap();
    let mut writes = sled::Batch::default();
    changes.write(&mut writes).unwrap();
    db.apply_batch(writes).unwrap();
    db.flush().unwrap();
}

#[test]
fn damaged_record_is_named_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed_store(folder.path(), 3);
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

#[tokio::test]
async fn batch_that_expects_a_damaged_record_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = tokio::task::spawn_blocking({
        let folder = folder.path().to_owned();
        move || killed_store(&folder, 3)
    });
    let path = path.await.unwrap();
    let key = 2_u64.to_be_bytes();
    tamper(&path, Table::Users, &key, |value| value.truncate(5));
    let store = open(&path).unwrap();
    let mut batch = user(4);
    batch.expect(Table::Users, key, Expected::Present);
    let problem = store.commit(batch).await.unwrap_err();
    assert!(matches!(problem, CommitError::Store(StoreError::Damaged { .. })), "{problem:?}");
    assert_eq!(store.fault(), None, "other batches can be written");
    assert_eq!(store.commit(user(4)).await.unwrap(), 4);
}

#[test]
fn record_of_a_newer_version_is_reported_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed_store(folder.path(), 3);
    tamper(&path, Table::Users, &1_u64.to_be_bytes(), |value| value[0] = 2);
    let problem = open(&path).unwrap().get(Table::Users, &1_u64.to_be_bytes()).unwrap_err();
    assert_eq!(
        problem.to_string(),
        "the record 1 in users was written by a newer Keyward (format 2). Open the store with that \
         version, or a newer version"
    );
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
async fn waiting_batches_are_written_as_one_group() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = open(&path).unwrap();
    // The first batch is written alone while the others wait.
    let waiting: Vec<_> = (0..2000).map(|_| store.commit(user(1))).collect();
    for (number, commit) in (1..).zip(waiting) {
        assert_eq!(commit.await.unwrap(), number);
    }
    // Written one by one, the batches would take more than 2 MiB of the log.
    let written = fs::metadata(path.join("db")).unwrap().len();
    assert!(written < 512 * 1024, "{written}");
}

#[test]
fn stores_of_one_process_write_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let lock = group::WRITE_LOCK.lock();
    let mut commit = store.commit(user(1));
    let early = async { tokio::time::timeout(Duration::from_millis(200), &mut commit).await };
    runtime.block_on(early).unwrap_err();
    drop(lock);
    assert_eq!(runtime.block_on(commit).unwrap(), 1);
}

/// The environment variable with the path of the child process's store.
const CHILD: &str = "KEYWARD_TEST_CHILD";

/// A process with a file size limit simulates a full disk.
#[test]
fn write_error_is_permanent_and_successful_commits_survive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let script = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" --exact --ignored --nocapture store::sled::tests::child_on_a_full_disk";
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

    assert!(path.join(safety_copy::SYNC_FAILED).exists());
    let store = open(&path).unwrap();
    verify::load(&store).unwrap();
    assert!(!path.join(safety_copy::SYNC_FAILED).exists());
    let sequence = store.snapshot().unwrap().sequence();
    assert!(sequence >= committed, "{sequence} of {committed}");
    for number in 1..=committed {
        assert!(store.get(Table::Users, &number.to_be_bytes()).unwrap().is_some(), "{number}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(store.commit(user(1))).unwrap(), sequence + 1);
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
    // Not even an empty batch is accepted, for which there would be space.
    let again = store.commit(Batch::new()).await.unwrap_err();
    assert_eq!(again.to_string(), format!("the store stopped writing: {fault}"));
    // Reading still works.
    assert!(store.get(Table::Users, &1_u64.to_be_bytes()).unwrap().is_some());
    println!("committed {}", number - 1);
}

#[test]
fn unreadable_folder_is_reported_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/parent\0");
    problem(&path);
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser can read it.
    if fs::read_dir(&closed).is_err() {
        assert!(problem(&closed).contains("ermission"));
    }
}

#[test]
fn new_folder_is_private_and_existing_folder_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let new = folder.path().join("sub/new");
    drop(SledStore::open(&new, 16).unwrap());
    assert_eq!(mode(&new), 0o700);
    let old = folder.path().join("old");
    fs::create_dir(&old).unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o750)).unwrap();
    drop(SledStore::open(&old, 16).unwrap());
    assert_eq!(mode(&old), 0o750);
}
