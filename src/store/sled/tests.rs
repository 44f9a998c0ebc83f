//! What only an engine on a disk can do wrong.

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::PathBuf,
    process::Command,
};

use super::{
    changes::{Changes, Record},
    *,
};
use crate::store::{Change, CommitError, State, encode};

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

/// Makes a store with users 1 to `count`, one commit each, and copies it while it is in use: what kill -9 leaves behind.
fn killed(folder: &Path, count: u64) -> PathBuf {
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

/// Names, sizes and contents.
fn listing(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(&path).unwrap_or_default()))
        .collect();
    all.sort();
    all
}

fn count(store: &SledStore) -> u64 {
    let mut seen = 0;
    let each = &mut |_: &[u8], _: RecordRef<'_>| {
        seen += 1;
        Ok(())
    };
    store.snapshot().unwrap().each(Table::Users, each).unwrap();
    seen
}

#[test]
fn what_was_answered_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&killed(folder.path(), 50)).unwrap();
    assert_eq!(store.snapshot().unwrap().sequence(), 50);
    assert_eq!(count(&store), 50);
}

#[test]
fn a_store_in_use_is_locked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let first = open(&path).unwrap();
    let second = open(&path).err().unwrap();
    assert!(matches!(&second, StoreError::Locked { .. }), "{second:?}");
    drop(first);
    open(&path).unwrap();
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    for name in ["letter.txt", "db", "conf"] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), "dear").unwrap();
        let before = listing(folder.path());
        assert!(problem(folder.path()).contains("other files"), "{name}");
        assert_eq!(listing(folder.path()), before);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    problem(&file);
    // An empty folder is as good as none.
    fs::create_dir(folder.path().join("empty")).unwrap();
    open(&folder.path().join("empty")).unwrap();
}

#[test]
fn a_store_of_another_program_is_not_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let other = sled::open(folder.path()).unwrap();
    other.insert(b"theirs", b"1").unwrap();
    drop(other);
    assert!(problem(folder.path()).contains("number of its last commit"));
    assert!(!folder.path().join(mark::NAME).exists());
}

#[test]
fn a_first_start_that_died_early_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    drop(sled::open(folder.path()).unwrap());
    let store = open(folder.path()).unwrap();
    assert_eq!(store.snapshot().unwrap().sequence(), 0);
}

#[test]
fn a_store_that_lost_a_file_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let killed = killed(folder.path(), 3);
    for gone in [&["db"][..], &["conf"], &["db", "conf"]] {
        let path = folder.path().join(gone.concat());
        copy_folder(&killed, &path);
        for name in gone {
            fs::remove_file(path.join(name)).unwrap();
        }
        let before = listing(&path);
        assert!(problem(&path).contains("Restore it"), "{gone:?}");
        assert_eq!(listing(&path), before);
    }
}

#[test]
fn a_log_that_was_cut_is_refused_wherever_it_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let killed = killed(folder.path(), 300);
    let end = used(&killed);
    for part in 0..16 {
        let path = folder.path().join(part.to_string());
        copy_folder(&killed, &path);
        let log = fs::OpenOptions::new().write(true).open(path.join("db")).unwrap();
        log.set_len(end * part / 16).unwrap();
        let problem = problem(&path);
        assert!(!problem.is_empty(), "{problem}");
    }
}

#[test]
fn a_log_that_was_damaged_is_refused_or_gives_everything() {
    let folder = tempfile::tempdir().unwrap();
    let killed = killed(folder.path(), 300);
    let end = used(&killed);
    let mut refused = 0;
    for part in 0..32 {
        let path = folder.path().join(part.to_string());
        copy_folder(&killed, &path);
        let log = fs::OpenOptions::new().read(true).write(true).open(path.join("db")).unwrap();
        let at = end * part / 32 + 17;
        let mut byte = [0];
        log.read_exact_at(&mut byte, at).unwrap();
        log.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
        match open(&path) {
            Ok(store) => assert_eq!(count(&store), 300, "byte {at}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
}

/// Where the log's last byte that is not zero lies.
fn used(store: &Path) -> u64 {
    let log = fs::read(store.join("db")).unwrap();
    log.iter().rposition(|byte| *byte != 0).unwrap() as u64
}

#[test]
fn a_store_that_lost_its_last_commits_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed(folder.path(), 3);
    drop(Mark::open(&path, 4).unwrap());
    let said = problem(&path);
    assert!(said.contains("its last commit was number 4 and is now 3"), "{said}");
    // What is behind is no loss: the mark may be older than the log.
    drop(Mark::open(&path, 2).unwrap());
    drop(open(&path).unwrap());
    assert_eq!(Mark::read(&path), Ok(Some(3)));
    fs::write(path.join(mark::NAME), "").unwrap();
    assert!(problem(&path).contains("damaged"));
}

/// Changes a record's bytes behind the store's back.
fn tamper(path: &Path, table: Table, key: &[u8], change: impl Fn(&mut Vec<u8>)) {
    let db = sled::open(path).unwrap();
    let mut value = bucket::get(&db, table, key).unwrap().unwrap();
    change(&mut value);
    let mut changes = Changes::new(&db);
    changes.set(vec![Record { table, key: key.to_vec(), value: Some(value) }]).unwrap();
    let mut writes = sled::Batch::default();
    changes.write(&mut writes).unwrap();
    db.apply_batch(writes).unwrap();
    db.flush().unwrap();
}

#[test]
fn a_damaged_record_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed(folder.path(), 3);
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
        let said = "the record 2 in users is damaged: its checksum is wrong";
        assert_eq!(problem.to_string(), said);
    }
}

#[tokio::test]
async fn a_batch_that_rests_on_a_damaged_record_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = tokio::task::spawn_blocking({
        let folder = folder.path().to_owned();
        move || killed(&folder, 3)
    });
    let path = path.await.unwrap();
    let key = 2_u64.to_be_bytes();
    tamper(&path, Table::Users, &key, |value| value.truncate(5));
    let store = open(&path).unwrap();
    let mut batch = user(4);
    batch.expect(Table::Users, key, State::Present);
    let problem = store.commit(batch).await.unwrap_err();
    assert!(matches!(problem, CommitError::Store(StoreError::Damaged { .. })), "{problem:?}");
    assert_eq!(store.fault(), None, "the others can be written");
    assert_eq!(store.commit(user(4)).await.unwrap(), 4);
}

#[test]
fn a_record_of_a_newer_version_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed(folder.path(), 3);
    tamper(&path, Table::Users, &1_u64.to_be_bytes(), |value| value[0] = 2);
    let problem = open(&path).unwrap().get(Table::Users, &1_u64.to_be_bytes()).unwrap_err();
    assert_eq!(
        problem.to_string(),
        "the record 1 in users is damaged: it has version 2 and this program knows 1; a newer Keyward wrote it"
    );
}

#[tokio::test]
async fn a_writer_that_panics_is_a_fault() {
    struct Bomb;
    impl Subscriber for Bomb {
        fn apply(&self, _: &Change) {
            panic!("of no use");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store")).unwrap();
    store.changes(0, Arc::new(Bomb)).unwrap();
    store.commit(user(1)).await.unwrap_err();
    let problem = store.commit(user(2)).await.unwrap_err();
    assert_eq!(problem.to_string(), "the store stopped writing: of no use");
    assert_eq!(store.fault().as_deref(), Some("of no use"));
    assert!(store.get(Table::Users, &2_u64.to_be_bytes()).unwrap().is_none());
}

#[tokio::test]
async fn batches_that_wait_are_written_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = open(&path).unwrap();
    // The first is written alone, and the others wait for it.
    let waiting: Vec<_> = (0..2000).map(|_| store.commit(user(1))).collect();
    for (number, answer) in (1..).zip(waiting) {
        assert_eq!(answer.await.unwrap(), number);
    }
    // Each on its own takes more than 2 MiB of the log.
    let written = fs::metadata(path.join("db")).unwrap().len();
    assert!(written < 512 * 1024, "{written}");
}

#[test]
fn stores_of_one_process_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let turn = group::TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut answer = store.commit(user(1));
    let early = async { tokio::time::timeout(Duration::from_millis(200), &mut answer).await };
    runtime.block_on(early).unwrap_err();
    drop(turn);
    assert_eq!(runtime.block_on(answer).unwrap(), 1);
}

/// Where the child finds its store.
const CHILD: &str = "KEYWARD_TEST_CHILD";

/// A process that may not write files beyond a size stands for a full disk.
#[test]
fn a_write_error_stays_and_nothing_that_was_answered_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let script = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" --exact --ignored --nocapture store::sled::tests::child_on_a_full_disk";
    let child = Command::new("bash")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let answered: u64 = said
        .lines()
        .find_map(|line| line.strip_prefix("answered ")?.parse().ok())
        .unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&child.stderr)));
    assert!(answered > 100, "{answered}");

    let store = open(&path).unwrap();
    let sequence = store.snapshot().unwrap().sequence();
    assert!(sequence >= answered, "{sequence} of {answered}");
    for number in 1..=answered {
        assert!(store.get(Table::Users, &number.to_be_bytes()).unwrap().is_some(), "{number}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(store.commit(user(1))).unwrap(), sequence + 1);
}

#[tokio::test]
#[ignore = "started by a_write_error_stays_and_nothing_that_was_answered_is_lost"]
async fn child_on_a_full_disk() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = open(Path::new(&path)).unwrap();
    let mut number = 1;
    let problem = loop {
        // While the first is written, the others wait, and are written together.
        let first = store.commit(Batch::new());
        let user = store.commit(user(number));
        let mut same = Batch::new();
        same.expect(Table::Users, number.to_be_bytes(), State::Missing);
        let same = store.commit(same);
        let _ = first.await;
        let (user, same) = (user.await, same.await.unwrap_err());
        match user {
            Ok(_) => assert!(matches!(same, CommitError::Conflict(_)), "{same:?}"),
            // What it conflicts with is not there after all.
            Err(problem) => {
                assert!(matches!(same, CommitError::Store(_)), "{same:?}");
                break problem;
            }
        }
        number += 1;
    };
    assert!(matches!(problem, CommitError::Store(StoreError::Failed(_))), "{problem:?}");
    let fault = store.fault().unwrap();
    // Not even what would have had room.
    let again = store.commit(Batch::new()).await.unwrap_err();
    assert_eq!(again.to_string(), format!("the store stopped writing: {fault}"));
    // Decisions and listings go on.
    assert!(store.get(Table::Users, &1_u64.to_be_bytes()).unwrap().is_some());
    println!("answered {}", number - 1);
}

#[test]
fn a_store_that_may_not_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/parent\0");
    problem(&path);
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser may read everything.
    if fs::read_dir(&closed).is_err() {
        assert!(problem(&closed).contains("ermission"));
    }
}

#[test]
fn a_new_folder_is_for_this_user_alone_and_one_that_is_there_keeps_its_mode() {
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
