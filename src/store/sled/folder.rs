//! The store's folder: looks at the files before sled does, and opens sled in it.
//!
//! Nothing is changed before the files were looked at, except that a replacement of the files that
//! was interrupted is completed. A left-over temporary file is moved out of sled's way: sled would
//! believe it.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::{
    COMMIT_STATE, compact, failed,
    marker::{self, MarkerFile},
    safety_copy::{self, SafetyCopy},
    sled_files::{MIN_CONF_SIZE, OpenDb, check_conf, lock, make_durable, open_sled},
};
use crate::store::{
    EngineKind, RecordDigest, Sequence, StoreError, Stored, Table,
    digest::CommitState,
    disk::{RESTORE, make_folder, unusable, without_panic},
    engine::refuse_other_engine,
};

/// An open store whose records are not verified yet.
pub(super) struct Opened {
    pub db: OpenDb,
    pub log: File,
    pub marker: MarkerFile,
    pub state: CommitState,
    /// The files from before the start. `None` means that the store is new.
    pub safety_copy: Option<SafetyCopy>,
}

/// Opens the store in a folder, or creates one if the folder is missing or empty.
pub(super) fn open(path: &Path, cache_mib: u64) -> Result<Opened, StoreError> {
    let broken = |e: io::Error| unusable(path, &e);
    refuse_other_engine(path, EngineKind::Sled)?;
    if safety_copy::continue_install(path).map_err(broken)? {
        tracing::warn!(path = %path.display(), "completed the replacement of the store's files");
    }
    if is_new_store(path)? {
        return create(path, cache_mib);
    }
    let (existing, lock) = open_existing(path, cache_mib)?;
    let marker = |lock, sequence| MarkerFile::with_number(lock, sequence).map_err(broken);
    let Existing { db, state, safety_copy } = existing;
    if !compact::is_needed(path, &state).map_err(broken)? {
        let log = File::open(path.join("db")).map_err(broken)?;
        let marker = marker(lock, state.sequence)?;
        return Ok(Opened { db, log, marker, state, safety_copy: Some(safety_copy) });
    }
    compact_existing(path, cache_mib, Existing { db, state: state.clone(), safety_copy })?;
    let db = open_sled(path, cache_mib)?;
    let log = File::open(path.join("db")).map_err(broken)?;
    let marker = marker(lock, state.sequence)?;
    Ok(Opened { db, log, marker, state, safety_copy: None })
}

/// A store that sled has open, whose records are not verified yet.
struct Existing {
    db: OpenDb,
    state: CommitState,
    safety_copy: SafetyCopy,
}

/// Opens sled in the folder of an existing store. Returns the lock too.
fn open_existing(path: &Path, cache_mib: u64) -> Result<(Existing, File), StoreError> {
    let broken = |e: io::Error| unusable(path, &e);
    let marked = MarkerFile::read(path).map_err(|problem| unusable(path, &problem))?;
    let lock = lock(path, MarkerFile::open_file(path))?;
    check_conf(path).map_err(|problem| unusable(path, &problem))?;
    let safety_copy = SafetyCopy::take(path).map_err(|problem| unusable(path, &problem))?;
    let open = || -> Result<_, StoreError> {
        safety_copy.move_temporary_files().map_err(broken)?;
        let db = open_sled(path, cache_mib)?;
        let state = without_panic(path, || commit_state(path, &db))?;
        check_sequence(path, marked, state.sequence)?;
        Ok((db, state))
    };
    match open() {
        Ok((db, state)) => Ok((Existing { db, state, safety_copy }, lock)),
        Err(problem @ StoreError::Locked { .. }) => {
            safety_copy.discard();
            Err(problem)
        }
        Err(problem) => {
            safety_copy.put_back();
            Err(problem)
        }
    }
}

fn compact_existing(
    path: &Path,
    cache_mib: u64,
    Existing { db, state, safety_copy }: Existing,
) -> Result<(u64, u64), StoreError> {
    match compact::compact(path, cache_mib, db, &state) {
        Ok((before, after)) => {
            safety_copy.discard();
            let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
            tracing::info!(
                path = %path.display(),
                before_mib = mib(before),
                after_mib = mib(after),
                "compacted the store"
            );
            Ok((before, after))
        }
        Err(problem) => {
            safety_copy.put_back();
            Err(problem)
        }
    }
}

/// Opens an existing store, compacts it and closes it.
pub(super) fn open_and_compact(path: &Path, cache_mib: u64) -> Result<(u64, u64), StoreError> {
    let broken = |e: io::Error| unusable(path, &e);
    safety_copy::continue_install(path).map_err(broken)?;
    if is_new_store(path)? {
        return Err(unusable(path, &"there is no store"));
    }
    let (existing, _lock) = open_existing(path, cache_mib)?;
    compact_existing(path, cache_mib, existing)
}

/// Creates a store in a folder without one. The folder may have the files of a first start that was
/// interrupted before its first commit.
fn create(path: &Path, cache_mib: u64) -> Result<Opened, StoreError> {
    let broken = |e: io::Error| unusable(path, &e);
    make_folder(path).map_err(broken)?;
    // Two first starts at the same time would copy and restore each other's files. Some network
    // file systems have no locks of folders.
    let _lock = match lock(path, File::open(path)) {
        Err(problem @ StoreError::Locked { .. }) => return Err(problem),
        locked => locked.ok(),
    };
    if path.join(marker::NAME).exists() {
        return open(path, cache_mib);
    }
    let names = names(path).map_err(broken)?;
    let safety_copy = SafetyCopy::take(path).map_err(|problem| unusable(path, &problem))?;
    let open = || -> Result<_, StoreError> {
        safety_copy.move_temporary_files().map_err(broken)?;
        remove_incomplete_conf(path).map_err(broken)?;
        let db = open_sled(path, cache_mib)?;
        let state = without_panic(path, || commit_state(path, &db))?;
        if state.sequence > 0 {
            let problem = format!("its file {} is missing. {RESTORE}", marker::NAME);
            return Err(unusable(path, &problem));
        }
        Ok((db, state))
    };
    let (db, state) = match open() {
        Ok(opened) => opened,
        Err(problem @ StoreError::Locked { .. }) => {
            safety_copy.discard();
            return Err(problem);
        }
        Err(problem) => {
            remove_new_files(path, &names);
            safety_copy.put_back();
            return Err(problem);
        }
    };
    safety_copy.discard();
    let log = File::open(path.join("db")).map_err(broken)?;
    make_durable(path, &log).map_err(broken)?;
    let marker = MarkerFile::create(path).map_err(broken)?;
    Ok(Opened { db, log, marker, state, safety_copy: None })
}

/// Removes the settings file of a first start that was interrupted while it wrote this file: sled
/// would reject the file for ever. sled has no records before the file is complete.
fn remove_incomplete_conf(path: &Path) -> io::Result<()> {
    let has_log = fs::metadata(path.join("db")).is_ok_and(|log| log.len() > 0);
    if has_log || !path.join("conf").exists() || check_conf(path).is_ok() {
        return Ok(());
    }
    fs::remove_file(path.join("conf"))
}

/// Removes the files that sled has created in a first start that failed. A file that is left over
/// is no obstacle to the next start.
fn remove_new_files(path: &Path, before: &[String]) {
    let is_new = |name: &String| !before.contains(name);
    for name in names(path).unwrap_or_default().into_iter().filter(is_new) {
        if safety_copy::is_store_file(&name) || safety_copy::is_draft(&name) {
            let _ = fs::remove_file(path.join(name));
        } else if name == "blobs" {
            let _ = fs::remove_dir(path.join(name));
        }
    }
}

fn names(path: &Path) -> io::Result<Vec<String>> {
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    fs::read_dir(path)?.map(name).collect()
}

/// Whether a new store is to be created in the folder. An incomplete store, or a folder with other
/// files, is an error.
fn is_new_store(path: &Path) -> Result<bool, StoreError> {
    let names = match names(path) {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(unusable(path, &e)),
    };
    let has = |name: &str| names.iter().any(|found| found == name);
    if let Some(other) = names.iter().find(|name| !is_expected(name)) {
        let problem = if has(marker::NAME) {
            format!("the file {other} is not one of the store. Move it to another folder")
        } else {
            "the folder contains other files. Choose an empty folder or a new one".into()
        };
        return Err(unusable(path, &problem));
    }
    if !has(marker::NAME) {
        return is_interrupted_first_start(path, &names);
    }
    if !has("db") || !has("conf") {
        let problem = format!("files of the store are missing (db or conf). {RESTORE}");
        return Err(unusable(path, &problem));
    }
    Ok(false)
}

/// Whether the program or sled creates a file of this name in the folder.
fn is_expected(name: &str) -> bool {
    safety_copy::is_store_file(name)
        || safety_copy::is_temporary(name)
        || matches!(name, "blobs" | "lost+found")
}

/// Looks at the files of a folder without a marker file. If a first start was interrupted, sled has
/// no records, which is checked when it is open.
fn is_interrupted_first_start(path: &Path, names: &[String]) -> Result<bool, StoreError> {
    let size = |name: &str| fs::metadata(path.join(name)).map_or(0, |found| found.len());
    let has = |name: &str| names.iter().any(|found| found == name);
    let (conf, log) = (size("conf"), size("db"));
    // A first start makes its copy before it creates a file, and there is no marker file to copy.
    let copies = [safety_copy::COPY, safety_copy::LEFT_OVER].into_iter().filter(|name| has(name));
    let has_started = copies.clone().next().is_some();
    let is_incomplete = conf < MIN_CONF_SIZE as u64 && (log > 0 || conf > 0 && !has_started)
        || copies.into_iter().any(|name| path.join(name).join(marker::NAME).exists());
    if is_incomplete {
        let problem = format!(
            "it is incomplete: its file {} or conf is missing. {RESTORE}, or choose an empty folder",
            marker::NAME
        );
        return Err(unusable(path, &problem));
    }
    Ok(true)
}

/// The last commit in sled, with the digest over all records.
fn commit_state(path: &Path, db: &sled::Db) -> Result<CommitState, StoreError> {
    let Some(value) = db.get(COMMIT_STATE).map_err(failed)? else {
        if db.is_empty() {
            return Ok(CommitState { sequence: 0, digest: RecordDigest::random() });
        }
        return Err(unusable(path, &"the number of its last commit is missing"));
    };
    Stored::from_value(Table::Meta, COMMIT_STATE, &value)?.read(Table::Meta, COMMIT_STATE)
}

/// Refuses a store whose last commits are lost.
fn check_sequence(
    path: &Path,
    marked: Option<Sequence>,
    sequence: Sequence,
) -> Result<(), StoreError> {
    let Some(marked) = marked.filter(|marked| sequence < *marked) else { return Ok(()) };
    let problem = format!(
        "commits are lost: the last commit was number {marked} and is now {sequence}. {RESTORE}"
    );
    Err(unusable(path, &problem))
}
