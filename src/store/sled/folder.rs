//! The store's folder: finds out whether it contains a store, creates it, and opens sled in it.

use std::{
    any::Any,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

use super::{SEQUENCE, failed, marker};
use crate::store::{Sequence, StoreError, Stored, Table};

/// How long to wait until another process releases the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a new store is to be created in the folder. An incomplete store, or a folder with other
/// files, is an error.
pub(super) fn is_new_store(path: &Path) -> Result<bool, StoreError> {
    let mut entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(unusable(path, &e)),
    };
    let has = |name: &str| path.join(name).exists();
    if has("db") && has("conf") {
        // Without a marker file, a first start was interrupted. `last_commit` rejects a sled store
        // of another program.
        return Ok(!has(marker::NAME));
    }
    if has(marker::NAME) {
        let problem = "files of the store are missing (db or conf). Restore it from a backup";
        return Err(unusable(path, &problem));
    }
    if entries.next().is_some() {
        let problem = "the folder contains other files. Choose an empty folder or a new one";
        return Err(unusable(path, &problem));
    }
    Ok(true)
}

/// The number of the last commit in sled. `0` means that nothing was ever committed.
pub(super) fn last_commit(path: &Path, db: &sled::Db) -> Result<Sequence, StoreError> {
    match db.get(SEQUENCE).map_err(failed)? {
        Some(value) => {
            Stored::from_value(Table::Meta, SEQUENCE, &value)?.read(Table::Meta, SEQUENCE)
        }
        None if db.is_empty() => Ok(0),
        None => Err(unusable(path, &"the number of its last commit is missing")),
    }
}

pub(super) fn open_sled(path: &Path, cache_mib: u64) -> Result<sled::Db, StoreError> {
    let config =
        sled::Config::new().path(path).cache_capacity(cache_mib * 1024 * 1024).flush_every_ms(None);
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        // sled panics on some damaged files.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|panic| unusable(path, &panic_text(panic.as_ref())))?;
        match opened {
            Ok(db) => return Ok(db),
            Err(sled::Error::Io(e)) if is_lock_error(&e) => {
                if Instant::now() >= deadline {
                    return Err(StoreError::Locked { path: path.display().to_string() });
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(e) => return Err(unusable(path, &e)),
        }
    }
}

/// sled wraps the lock's error in an error of kind `Other` whose text mentions it.
fn is_lock_error(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock || e.to_string().contains("could not acquire lock")
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "sled panicked".into())
}

/// Creates the store's folder with access for this user only, because it contains mail addresses
/// and digests of passwords. An existing folder keeps its mode.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }
}

/// Makes the new files durable, and their names in their folders.
pub(super) fn make_durable(path: &Path, log: &File) -> io::Result<()> {
    log.sync_all()?;
    File::open(path.join("conf"))?.sync_all()?;
    File::open(path)?.sync_all()?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

pub(super) fn unusable(path: &Path, problem: &dyn ToString) -> StoreError {
    StoreError::Unusable { path: path.display().to_string(), problem: problem.to_string() }
}
