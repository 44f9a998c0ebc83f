//! The store's folder: creates the database file, locks it, and checks it before it is opened.
//!
//! A start changes nothing before it knows that the file is whole. So the file is opened twice. The
//! first time, [redb writes to memory only](super::backend): it verifies the checksum of every page
//! and, after a crash, repairs what it finds. Only a file that passes is opened for writing.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _, backends::FileBackend};

use super::{
    DIGESTS, RECORDS, SEQUENCE, STATE,
    backend::{FileFault, GuardedBackend},
};
use crate::store::{
    Sequence, StoreError,
    disk::{make_folder, panic_text, unusable},
    engine::REDB_FILE as NAME,
    marker::{self, MarkerFile},
};

/// The name of the database file while it is created.
const DRAFT: &str = "store.redb.new";
/// How long to wait until another process releases the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// redb's cache during the check, which reads every page in turn.
const CHECK_CACHE: usize = 16 * 1024 * 1024;

/// An open database file.
pub(super) struct OpenFile {
    pub database: Database,
    /// The number of the last commit.
    pub sequence: Sequence,
    pub fault: FileFault,
}

/// Locks, checks and opens the database in `path`, or creates one if the folder is missing or
/// empty. A file that is refused is not changed.
pub(super) fn open(path: &Path, cache_mib: u64) -> Result<OpenFile, StoreError> {
    let file = lock(path)?;
    let marked = MarkerFile::read(path).map_err(|problem| unusable(path, &problem))?;
    let found = run_redb(path, || check(&file))?;
    match marked {
        Some(marked) if found.sequence < marked => {
            let problem = format!(
                "commits are lost: the last commit was number {marked} and is now {}. Restore it \
                 from a backup",
                found.sequence
            );
            return Err(unusable(path, &problem));
        }
        // A first start was interrupted before it wrote the marker file.
        None if !found.is_empty => {
            let problem = format!(
                "the file {} is missing, which tells whether the last commits are there. Put it \
                 back, or restore the store from a backup",
                marker::NAME
            );
            return Err(unusable(path, &problem));
        }
        _ => {}
    }
    let cache = usize::try_from(cache_mib * 1024 * 1024).unwrap_or(usize::MAX);
    let (database, fault) = run_redb(path, || {
        let backend = GuardedBackend::new(storage(&file)?);
        let fault = backend.fault();
        let database = Database::builder().set_cache_size(cache).create_with_backend(backend)?;
        Ok((database, fault))
    })?;
    if let Some(problem) = fault.get() {
        return Err(StoreError::Failed(format!("{}: {problem}", path.join(NAME).display())));
    }
    Ok(OpenFile { database, sequence: found.sequence, fault })
}

/// The content of a file that was checked.
struct Checked {
    sequence: Sequence,
    /// Nothing was ever committed.
    is_empty: bool,
}

/// The file as storage of redb. It keeps the lock of `file`.
fn storage(file: &File) -> Result<FileBackend, redb::Error> {
    Ok(FileBackend::new(file.try_clone()?)?)
}

/// Verifies every page and reads the number of the last commit, without a change of the file.
fn check(file: &File) -> Result<Checked, redb::Error> {
    let backend = GuardedBackend::check_only(storage(file)?)?;
    // An empty file would be taken for a new database.
    if file.metadata()?.len() == 0 {
        return Err(redb::Error::Corrupted("it is empty".into()));
    }
    let database = Database::builder()
        .set_cache_size(CHECK_CACHE)
        .set_check_integrity_on_open(true)
        .create_with_backend(backend)?;
    let transaction = database.begin_read()?;
    let sequence = last_commit(&transaction)?;
    let is_empty = sequence == 0 && transaction.open_table(RECORDS)?.is_empty()?;
    Ok(Checked { sequence, is_empty })
}

/// The number of the last commit. `0` means that nothing was ever committed.
pub(super) fn last_commit(transaction: &redb::ReadTransaction) -> Result<Sequence, redb::Error> {
    Ok(transaction.open_table(STATE)?.get(SEQUENCE)?.map_or(0, |value| value.value()))
}

/// Opens and locks the database file. Creates it if the folder is missing or empty.
fn lock(path: &Path) -> Result<File, StoreError> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        let name = if is_new_store(path)? { DRAFT } else { NAME };
        if name == DRAFT {
            make_folder(path).map_err(|e| unusable(path, &e))?;
        }
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .create(name == DRAFT)
            .truncate(false)
            .mode(0o600)
            .open(path.join(name));
        let file = match options {
            // Another process has just given the draft its final name.
            Err(e) if e.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => continue,
            opened => opened.map_err(|e| unusable(path, &format!("the file {name}: {e}")))?,
        };
        match file.try_lock() {
            // Another process may have renamed or removed the file before it was locked.
            Ok(()) if !is_named(&file, &path.join(name)) => continue,
            Ok(()) if name == DRAFT => {
                run_redb(path, || create(path, &file))?;
                return Ok(file);
            }
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { path: path.display().to_string() });
            }
            Err(TryLockError::Error(e)) => {
                return Err(unusable(path, &format!("the file {name} cannot be locked: {e}")));
            }
        }
    }
}

fn is_named(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// Whether a new store is to be created in the folder. An incomplete store, or a folder with other
/// files, is an error.
fn is_new_store(path: &Path) -> Result<bool, StoreError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(unusable(path, &e)),
    };
    if path.join(NAME).exists() {
        return Ok(false);
    }
    if path.join(marker::NAME).exists() {
        let problem = format!("the file {NAME} is missing. Restore it from a backup");
        return Err(unusable(path, &problem));
    }
    for entry in entries {
        let name = entry.map_err(|e| unusable(path, &e))?.file_name();
        // The draft of a first start that was interrupted.
        if name != DRAFT && name != NAME {
            let problem = "the folder contains other files. Choose an empty folder or a new one";
            return Err(unusable(path, &problem));
        }
    }
    Ok(true)
}

/// Writes an empty database into the locked draft and gives it its final name. So a file with that
/// name is always complete.
fn create(path: &Path, draft: &File) -> Result<(), redb::Error> {
    draft.set_len(0)?;
    let backend = GuardedBackend::new(storage(draft)?);
    let fault = backend.fault();
    let database = Database::builder().create_with_backend(backend)?;
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.open_table(RECORDS)?;
    transaction.open_table(STATE)?;
    transaction.open_table(DIGESTS)?;
    transaction.commit()?;
    database.close()?;
    if let Some(problem) = fault.get() {
        return Err(io::Error::other(problem.clone()).into());
    }
    draft.sync_all()?;
    fs::rename(path.join(DRAFT), path.join(NAME))?;
    File::open(path)?.sync_all()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok(File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?)
}

/// Runs redb, which panics on some damage, and names the file in the error.
fn run_redb<T>(path: &Path, run: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|problem| unusable(path, &describe(problem))),
        Err(panic) => Err(unusable(path, &damaged(&panic_text(panic.as_ref())))),
    }
}

fn describe(problem: redb::Error) -> String {
    use redb::Error as E;
    match problem {
        E::Io(e) if e.kind() == io::ErrorKind::InvalidData => format!(
            "the file {NAME} is not a redb database. Put the store's own file back, or restore \
             the store from a backup"
        ),
        E::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => damaged("it is truncated"),
        E::Io(e) => format!("the file {NAME} cannot be read or written: {e}"),
        E::Corrupted(text) => damaged(&text),
        E::UpgradeRequired(version) => format!(
            "the file {NAME} has format {version} of redb, which this Keyward does not support. \
             Use the Keyward that wrote it"
        ),
        E::TableDoesNotExist(_) | E::TableTypeMismatch { .. } | E::TableIsMultimap(_) => format!(
            "the file {NAME} is the database of another program. Choose an empty folder or a new \
             one"
        ),
        other => format!("the file {NAME}: {other}"),
    }
}

fn damaged(text: &str) -> String {
    format!("the file {NAME} is damaged ({text}). Restore the store from a backup")
}
