//! Writing and restoring backups. A backup is a whole store in one file. It is written while the
//! server runs, and restored while it does not.
//!
//! The pepper is not in the backup. Without the pepper no key in a backup can be checked, so keep
//! the two in different places.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter},
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use super::{
    AccountError, Accounts, OperatorWriter, Passwords, SetupError, read_pepper, setup::PEPPER,
};
use crate::{
    files::exchange::{exchange, folder_of, with_suffix},
    model::{Act, Actor, Clock, Digest, Entropy, Pepper},
    store::{
        Batch, CommitError, EngineKind, Store, StoreError, Table,
        archive::{self, ArchiveError, Contents},
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
    /// A server uses the store.
    #[error("the store {0} is in use: stop the server first")]
    InUse(String),
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

/// The result of a restore.
#[derive(Debug)]
pub struct Restored {
    /// The contents of the backup.
    pub contents: Contents,
    /// The new path of the former store. `None` means that there was none.
    pub former_store: Option<PathBuf>,
}

impl OperatorWriter<'_> {
    /// Writes all records to a new file that only its owner can read. Decisions continue meanwhile;
    /// changes wait.
    ///
    /// Only the operator may do this: for other clients it would be a way to write files with the
    /// server's rights.
    ///
    /// # Errors
    /// The file exists already or cannot be written. Then no file is left behind.
    pub async fn backup(&self, file: PathBuf) -> Result<Contents, AccountError> {
        let store = self.0.store.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let fix = "Name a new file in a folder that the server can write to.";
            let refuse = |problem: &dyn std::fmt::Display| {
                AccountError::refused(format!("{}: {problem}.", file.display()), fix)
            };
            if file.exists() {
                return Err(refuse(&"there is such a file already"));
            }
            match write(&*store, &file) {
                Ok(contents) => Ok(contents),
                Err(ArchiveError::Store(problem)) => Err(problem.into()),
                Err(problem) => Err(refuse(&problem)),
            }
        });
        let panicked = |_| AccountError::refused("The backup was not written.", "Try again.");
        writing.await.map_err(panicked)?
    }
}

/// Writes under another name first, so that a file with this name is always complete.
fn write(store: &dyn Store, file: &Path) -> Result<Contents, ArchiveError> {
    let draft = with_suffix(file, ".part");
    let _ = fs::remove_file(&draft);
    let write_and_check = || -> Result<Contents, ArchiveError> {
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        let contents = archive::write(&*store.snapshot()?, BufWriter::new(&mut out))?;
        out.sync_all()?;
        // Read the file once, while the backup can still be repeated.
        let read = archive::read(BufReader::new(File::open(&draft)?), |_, _, _| Ok(()))?;
        if read != contents {
            return Err(ArchiveError::Damaged);
        }
        renameat_with(CWD, &draft, CWD, file, RenameFlags::NOREPLACE).map_err(io::Error::from)?;
        File::open(folder_of(file))?.sync_all()?;
        Ok(contents)
    };
    write_and_check().inspect_err(|_| drop(fs::remove_file(&draft)))
}

/// Reads a whole backup. Returns its contents and the fingerprint of its pepper.
///
/// # Errors
/// The backup is incomplete, or its version is newer than this program.
pub fn check_backup(file: &Path) -> Result<(Contents, Option<Digest>), RestoreError> {
    let mut fingerprint = None;
    let opened = File::open(file).map_err(|problem| unreadable(file, problem.into()))?;
    let contents = archive::read(BufReader::new(opened), |table, key, json| {
        if (table, key.as_slice()) == (Table::Meta, PEPPER) {
            fingerprint = Some(decode(table, &key, &json)?);
        }
        Ok(())
    });
    Ok((contents.map_err(|problem| unreadable(file, problem))?, fingerprint))
}

fn unreadable(path: &Path, problem: ArchiveError) -> RestoreError {
    RestoreError::File { path: path.to_owned(), problem }
}

/// Replaces the store in `path` by the contents of a backup. The new store, with this engine, is
/// built next to it and takes its name in one step. The former store is kept under another name.
///
/// # Errors
/// The backup is incomplete or belongs to another pepper, a server uses the store, or the disk
/// fails. Then the existing store is unchanged.
pub async fn restore(
    file: &Path,
    path: &Path,
    pepper_file: &Path,
    engine: EngineKind,
    cache_mib: u64,
) -> Result<Restored, RestoreError> {
    let pepper = read_pepper(pepper_file).map_err(SetupError::from)?;
    let (contents, fingerprint) = check_backup(file)?;
    if fingerprint != Some(pepper.fingerprint()) {
        let (path, pepper) = (file.to_owned(), pepper_file.to_owned());
        return Err(RestoreError::Pepper { path, pepper });
    }
    let lock = lock_store(path, cache_mib)?;
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
    let new = crate::store::open(engine, &draft, cache_mib).map_err(SetupError::from)?;
    fill(file, new, contents, pepper).await?;
    let former_store = exchange(&draft, path, Clock::system().now().0).map_err(folder(path))?;
    drop(lock);
    Ok(Restored { contents, former_store })
}

/// Opens the existing store, so that no server can use it. A store that cannot be opened is not an
/// error, because a restore replaces it.
fn lock_store(path: &Path, cache_mib: u64) -> Result<Option<Arc<dyn Store>>, RestoreError> {
    let Some(engine) = EngineKind::of_folder(path) else { return Ok(None) };
    match crate::store::open(engine, path, cache_mib) {
        Ok(store) => Ok(Some(store)),
        Err(StoreError::Locked { path }) => Err(RestoreError::InUse(path)),
        Err(_) => Ok(None),
    }
}

async fn fill(
    file: &Path,
    store: Arc<dyn Store>,
    expected: Contents,
    pepper: Pepper,
) -> Result<(), RestoreError> {
    let (parts, mut received) = tokio::sync::mpsc::channel::<Batch>(2);
    let source = file.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let mut batch = Batch::new();
        // The receiver is dropped only after a commit has failed, and returns that error.
        let stopped = |_| ArchiveError::Io(io::ErrorKind::BrokenPipe.into());
        let contents = archive::read(BufReader::new(File::open(source)?), |table, key, json| {
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
        Ok(contents) if contents == expected => {}
        Ok(_) => return Err(unreadable(file, ArchiveError::Damaged)),
        Err(problem) => return Err(unreadable(file, problem)),
    }
    write_audit_entry(store, pepper, expected).await
}

/// Opens the accounts of the new store, which checks its records, and adds an audit entry about the
/// restore.
async fn write_audit_entry(
    store: Arc<dyn Store>,
    pepper: Pepper,
    contents: Contents,
) -> Result<(), RestoreError> {
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let accounts = Accounts::with(store, pepper, Passwords::new(1), clock, entropy);
    let accounts = accounts.map_err(SetupError::from)?;
    let operator = Actor::Operator { client: IpAddr::V4(Ipv4Addr::LOCALHOST) };
    let details = json!({
        "records": contents.records,
        "sequence": contents.sequence,
        "blake3": Digest::from_bytes(contents.blake3),
    });
    let act = Act::other("store.restore", "store", details);
    accounts.as_actor(operator).commit(Batch::new(), act, Vec::new()).await.map_err(failed)?;
    Ok(())
}

fn failed(problem: CommitError) -> RestoreError {
    let problem = match problem {
        CommitError::Store(problem) => problem,
        CommitError::Conflict(_) => StoreError::Failed("the new store is not new".into()),
    };
    SetupError::from(problem).into()
}
