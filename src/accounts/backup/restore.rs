//! Restoring a backup: the new store is built beside the present one and takes its place in one
//! step, after both were compared.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;

use super::compare::{self, CompareError, Comparison, Revival};
use crate::{
    accounts::{
        AccountError, Accounts, Passwords, PepperError, SetupError, read_pepper, setup::PEPPER,
    },
    files::exchange::{exchange, with_suffix},
    model::{Actor, Clock, Digest, Entropy, Pepper},
    store::{
        self, Batch, CommitError, EngineKind, Store, StoreError, Table,
        archive::{self, ArchiveError, Contents},
        audit_log::AuditVerdict,
        decode,
    },
};

/// The records of one commit during a restore.
const PART: usize = 1000;

/// The reason why a backup was not restored. The existing store is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The backup cannot be read, or is incomplete.
    #[error("{path}: {problem}", path = .path.display())]
    File {
        /// The backup.
        path: PathBuf,
        /// The error.
        problem: ArchiveError,
    },
    /// The backup belongs to a store with another pepper.
    #[error(
        "{path}: the backup belongs to another pepper than the one in {pepper}. Put its own pepper there first",
        path = .path.display(), pepper = .pepper.display()
    )]
    Pepper {
        /// The backup.
        path: PathBuf,
        /// The file with the pepper.
        pepper: PathBuf,
    },
    /// Without the pepper, only a part of the check was possible.
    #[error(
        "{path}: the backup is complete, but it is unknown whether it was changed: its seal cannot be checked. {problem}",
        path = .path.display()
    )]
    SealUnchecked {
        /// The backup.
        path: PathBuf,
        /// The fault of the pepper file.
        problem: PepperError,
    },
    /// A server uses the store.
    #[error("the store {0} is in use: stop the server first")]
    InUse(String),
    /// The restore would undo later changes of the present store, such as revocations.
    #[error(
        "the store {path} was changed after this backup: a restore would bring back or widen {count} records",
        path = .path.display(), count = .revivals.len()
    )]
    WouldRevive {
        /// The present store.
        path: PathBuf,
        /// The records, in the order of their kinds.
        revivals: Vec<Revival>,
    },
    /// The present store cannot be read, so nobody knows what was revoked in it.
    #[error(
        "the store {path} cannot be read, so it is unknown what was revoked or blocked in it since the backup: {problem}",
        path = .path.display()
    )]
    UnreadableStore {
        /// The present store.
        path: PathBuf,
        /// The reason.
        problem: StoreError,
    },
    /// Later changes were to be kept, but the present store has none of the backup's users.
    #[error(
        "the store {path} has none of the users of this backup. It is another store, so it has no later changes that could be kept",
        path = .path.display()
    )]
    OtherStore {
        /// The present store.
        path: PathBuf,
    },
    /// The later changes could not be written to the new store.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The new store or its pepper failed.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A folder cannot be changed.
    #[error("{path}: {problem}", path = .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The error.
        problem: io::Error,
    },
}

/// The treatment of changes that were made after the backup: revocations and deletions of keys,
/// blocks and deletions of users, narrower roles, scopes and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaterChanges {
    /// The restore is refused if it would undo any.
    Refuse,
    /// They are undone.
    Undo,
    /// They are applied to the restored records, each with an entry in the audit trail.
    Keep,
    /// As [`LaterChanges::Refuse`], but a store that cannot be read is replaced.
    ReplaceUnreadable,
}

/// The result of a restore.
#[derive(Debug)]
pub struct Restored {
    /// The contents of the backup.
    pub contents: Contents,
    /// The new path of the former store. `None` means that there was none.
    pub former_store: Option<PathBuf>,
    /// The records that came back or became wider or, with [`LaterChanges::Keep`], those that were
    /// kept as narrow as they were.
    pub revivals: Vec<Revival>,
    /// The verdict about the audit trail in the backup.
    pub trail: AuditVerdict,
}

/// Reads a whole backup, and checks its checksum and its seal.
///
/// # Errors
/// The backup is incomplete, was changed, belongs to another pepper, or has another version. If the
/// pepper cannot be read and the backup is complete: [`RestoreError::SealUnchecked`].
pub fn check_backup(file: &Path, pepper_file: &Path) -> Result<Contents, RestoreError> {
    match read_pepper(pepper_file) {
        Ok(pepper) => check_seal(file, &pepper, pepper_file),
        Err(problem) => {
            check_backup_completeness(file)?;
            Err(RestoreError::SealUnchecked { path: file.to_owned(), problem })
        }
    }
}

/// Reads a whole backup, and checks its checksum alone. A person may have changed the backup.
///
/// # Errors
/// The backup is incomplete, or has another version.
pub fn check_backup_completeness(file: &Path) -> Result<Contents, RestoreError> {
    let read = || archive::read(BufReader::new(File::open(file)?), None, |_, _, _| Ok(()));
    read().map_err(|problem| unreadable(file, problem))
}

fn check_seal(file: &Path, pepper: &Pepper, pepper_file: &Path) -> Result<Contents, RestoreError> {
    let mut fingerprint: Option<Digest> = None;
    let mut read = || {
        let opened = BufReader::new(File::open(file)?);
        archive::read(opened, Some(&pepper.backup_key()), |table, key, json| {
            if (table, key.as_slice()) == (Table::Meta, PEPPER) {
                fingerprint = Some(decode(table, &key, &json)?);
            }
            Ok(())
        })
    };
    let contents = read();
    // The seal of another pepper is wrong as well: the fingerprint tells which it is.
    let is_other = fingerprint != Some(pepper.fingerprint());
    if is_other && matches!(contents, Ok(_) | Err(ArchiveError::Forged)) {
        let (path, pepper) = (file.to_owned(), pepper_file.to_owned());
        return Err(RestoreError::Pepper { path, pepper });
    }
    contents.map_err(|problem| unreadable(file, problem))
}

fn unreadable(path: &Path, problem: ArchiveError) -> RestoreError {
    RestoreError::File { path: path.to_owned(), problem }
}

/// Replaces the store in `path` by the contents of a backup. The new store is built next to it and
/// takes its name in one step. The former store is kept under another name.
///
/// `later` says what happens to changes that were made after the backup.
///
/// # Errors
/// The backup is incomplete, was changed, or belongs to another pepper; a server uses the store;
/// the restore would undo later changes; or the disk fails. Then the present store is unchanged.
pub async fn restore(
    file: &Path,
    path: &Path,
    pepper_file: &Path,
    engine: EngineKind,
    cache_mib: u64,
    later: LaterChanges,
) -> Result<Restored, RestoreError> {
    let pepper = read_pepper(pepper_file).map_err(SetupError::from)?;
    let contents = check_seal(file, &pepper, pepper_file)?;
    let present = open_present(path, cache_mib, later)?;
    let comparison = match &present {
        Some(store) => compare_with(file, path, &pepper, store.clone(), later).await?,
        None => Comparison::default(),
    };
    if later == LaterChanges::Keep && comparison.users > 0 && comparison.present_users == 0 {
        return Err(RestoreError::OtherStore { path: path.to_owned() });
    }
    let is_refused = matches!(later, LaterChanges::Refuse | LaterChanges::ReplaceUnreadable);
    if is_refused && !comparison.revivals.is_empty() {
        let revivals = comparison.revivals;
        return Err(RestoreError::WouldRevive { path: path.to_owned(), revivals });
    }
    let draft = with_suffix(path, ".restoring");
    let folder = |path: &Path| {
        let path = path.to_owned();
        move |problem| RestoreError::Folder { path, problem }
    };
    match fs::remove_dir_all(&draft) {
        Err(problem) if problem.kind() != io::ErrorKind::NotFound => {
            return Err(folder(&draft)(problem));
        }
        _ => {}
    }
    let new_store = store::open(engine, &draft, cache_mib).map_err(SetupError::from)?;
    fill(file, &new_store, contents, &pepper).await?;
    let trail = finish(new_store, pepper, contents, &comparison, later).await?;
    let former_store = exchange(&draft, path, Clock::system().now().0).map_err(folder(path))?;
    // Until here no server could use the former store.
    drop(present);
    Ok(Restored { contents, former_store, revivals: comparison.revivals, trail })
}

/// Opens the present store, so that it can be compared and no server can use it. `None` means that
/// there is none, or that it cannot be read and is to be replaced.
fn open_present(
    path: &Path,
    cache_mib: u64,
    later: LaterChanges,
) -> Result<Option<Arc<dyn Store>>, RestoreError> {
    // A folder with other files may be the rest of a store: opening it says so.
    let is_empty = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => true,
        Err(problem) => {
            return Err(RestoreError::Folder { path: path.to_owned(), problem });
        }
    };
    if is_empty {
        return Ok(None);
    }
    let engine = EngineKind::of_folder(path).unwrap_or(EngineKind::Sled);
    match store::open(engine, path, cache_mib) {
        Ok(store) => Ok(Some(store)),
        Err(StoreError::Locked { path }) => Err(RestoreError::InUse(path)),
        Err(problem) => unreadable_store(path, problem, later).map(|()| None),
    }
}

fn unreadable_store(
    path: &Path,
    problem: StoreError,
    later: LaterChanges,
) -> Result<(), RestoreError> {
    if later == LaterChanges::ReplaceUnreadable {
        return Ok(());
    }
    Err(RestoreError::UnreadableStore { path: path.to_owned(), problem })
}

async fn compare_with(
    file: &Path,
    path: &Path,
    pepper: &Pepper,
    present: Arc<dyn Store>,
    later: LaterChanges,
) -> Result<Comparison, RestoreError> {
    let (source, key) = (file.to_owned(), pepper.backup_key());
    let now = Clock::system().now();
    let comparing =
        tokio::task::spawn_blocking(move || compare::compare(&source, &key, &*present, now));
    let panicked = |problem: tokio::task::JoinError| {
        CompareError::Present(StoreError::Failed(problem.to_string()))
    };
    match comparing.await.unwrap_or_else(|problem| Err(panicked(problem))) {
        Ok(comparison) => Ok(comparison),
        Err(CompareError::Archive(problem)) => Err(unreadable(file, problem)),
        Err(CompareError::Present(problem)) => {
            unreadable_store(path, problem, later).map(|()| Comparison::default())
        }
    }
}

/// Fills a new store with the records of the backup.
async fn fill(
    file: &Path,
    store: &Arc<dyn Store>,
    expected: Contents,
    pepper: &Pepper,
) -> Result<(), RestoreError> {
    let (parts, mut received) = tokio::sync::mpsc::channel::<Batch>(2);
    let (source, key) = (file.to_owned(), pepper.backup_key());
    let reading = tokio::task::spawn_blocking(move || {
        let mut batch = Batch::new();
        // The receiver is dropped only after a commit has failed, and returns that error.
        let stopped = |_| ArchiveError::Io(io::ErrorKind::BrokenPipe.into());
        let opened = BufReader::new(File::open(source)?);
        let contents = archive::read(opened, Some(&key), |table, key, json| {
            batch.put(table, key, json);
            if batch.writes.len() < PART {
                return Ok(());
            }
            parts.blocking_send(std::mem::take(&mut batch)).map_err(stopped)
        })?;
        parts.blocking_send(batch).map_err(stopped)?;
        Ok(contents)
    });
    while let Some(batch) = received.recv().await {
        store.commit(batch).await.map_err(failed)?;
    }
    // The file was read before. It must not have changed since.
    let read = reading.await.unwrap_or(Err(ArchiveError::Damaged));
    match read {
        Ok(contents) if contents == expected => Ok(()),
        Ok(_) => Err(unreadable(file, ArchiveError::Damaged)),
        Err(problem) => Err(unreadable(file, problem)),
    }
}

/// Opens the accounts of the new store, which checks its records. Then verifies its audit trail,
/// and adds entries about the restore and the later changes that are kept.
async fn finish(
    store: Arc<dyn Store>,
    pepper: Pepper,
    contents: Contents,
    comparison: &Comparison,
    later: LaterChanges,
) -> Result<AuditVerdict, RestoreError> {
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let accounts = Accounts::with(store, pepper, Passwords::new(1), clock, entropy);
    let accounts = accounts.map_err(SetupError::from)?;
    let operator = accounts.as_actor(Actor::Operator { client: IpAddr::V4(Ipv4Addr::LOCALHOST) });
    let count = |of: LaterChanges| if later == of { comparison.revivals.len() } else { 0 };
    let details = [
        ("records", json!(contents.records)),
        ("sequence", json!(contents.sequence)),
        ("blake3", json!(Digest::from_bytes(contents.blake3))),
        ("brought_back", json!(count(LaterChanges::Undo))),
        ("kept", json!(count(LaterChanges::Keep))),
    ];
    let details = details.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    let mut batch = Batch::new();
    accounts.reserve_uids(comparison, &mut batch);
    let trail = operator.record_restore(details, batch).await.map_err(SetupError::from)?;
    if later == LaterChanges::Keep {
        operator.keep_later_changes(&comparison.revivals).await?;
    }
    Ok(trail)
}

fn failed(problem: CommitError) -> RestoreError {
    let problem = match problem {
        CommitError::Store(problem) => problem,
        CommitError::Conflict(_) => StoreError::Failed("the new store is not new".into()),
    };
    SetupError::from(problem).into()
}
