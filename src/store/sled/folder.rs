//! The store's folder: whether there is a store in it, how it is made, and how sled opens it.

use std::{
    any::Any,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

use super::{SEQUENCE, failed, mark, stored};
use crate::store::{Sequence, StoreError, Table, decode};

/// How long another process may take to let go of the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Tells a place for a new store from an old one, and both from everything else.
pub(super) fn look_before_opening(path: &Path) -> Result<bool, StoreError> {
    let mut entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(unusable(path, &e.to_string())),
    };
    let has = |name: &str| path.join(name).exists();
    if has("db") && has("conf") {
        return Ok(!has(mark::NAME));
    }
    if has(mark::NAME) {
        return Err(unusable(
            path,
            "files of it are missing (db or conf). Restore it from a backup",
        ));
    }
    if entries.next().is_some() {
        return Err(unusable(
            path,
            "the folder holds other files. Choose an empty folder or a new one",
        ));
    }
    Ok(true)
}

/// The number of the last commit.
pub(super) fn last_commit(path: &Path, db: &sled::Db) -> Result<Sequence, StoreError> {
    match db.get(SEQUENCE).map_err(failed)? {
        Some(value) => decode(Table::Meta, SEQUENCE, &stored(Table::Meta, SEQUENCE, &value)?.json),
        // Nothing was ever committed.
        None if db.is_empty() => Ok(0),
        None => Err(unusable(path, "it has lost the number of its last commit")),
    }
}

pub(super) fn open_sled(path: &Path, cache_mib: u64) -> Result<sled::Db, StoreError> {
    let config =
        sled::Config::new().path(path).cache_capacity(cache_mib * 1024 * 1024).flush_every_ms(None);
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        // sled panics on some damaged files.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|panic| unusable(path, &panic_text(panic.as_ref())))?;
        match opened {
            Ok(db) => return Ok(db),
            Err(sled::Error::Io(e)) if is_lock(&e) => {
                if Instant::now() >= give_up {
                    return Err(StoreError::Locked { path: path.display().to_string() });
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(e) => return Err(unusable(path, &e.to_string())),
        }
    }
}

/// sled wraps the lock's error in one of kind `Other` whose text names it.
fn is_lock(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock || e.to_string().contains("could not acquire lock")
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "sled gave up on it".into())
}

/// Makes the store's folder, for this user alone: it holds mail addresses, and digests of passwords. One that is there keeps its mode.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// Puts the new files, and their names in their folders, on the disk.
pub(super) fn make_durable(path: &Path, log: &File) -> io::Result<()> {
    log.sync_all()?;
    File::open(path.join("conf"))?.sync_all()?;
    File::open(path)?.sync_all()?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

pub(super) fn unusable(path: &Path, problem: &str) -> StoreError {
    StoreError::Unusable { path: path.display().to_string(), problem: problem.to_owned() }
}
