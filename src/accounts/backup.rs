//! Backups: a whole store in one file, written while everybody works, and put back while nobody does.
//!
//! The pepper is not in it. Without its pepper a backup opens nothing, so the two belong in different places.

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

use super::{AccountError, Accounts, Passwords, SetupError, read_pepper, setup::PEPPER};
use crate::{
    model::{Act, Actor, Clock, Digest, Entropy, Pepper},
    store::{
        Batch, CommitError, SledStore, Store as _, StoreError, Table,
        archive::{self, ArchiveError, Contents},
        decode,
    },
};

/// The records of one commit while a backup is put back.
const PART: usize = 1000;

/// Why a backup could not be put back. The store is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The backup cannot be read, or is not whole.
    #[error("{path}: {problem}", path = .path.display())]
    File {
        /// The backup.
        path: PathBuf,
        /// What is the matter.
        problem: ArchiveError,
    },
    /// It is of a store with another pepper.
    #[error(
        "{path}: it was made with another pepper than the one in {pepper}. Put the pepper that belongs to it there first",
        path = .path.display(), pepper = .pepper.display()
    )]
    Pepper {
        /// The backup.
        path: PathBuf,
        /// The file with the pepper.
        pepper: PathBuf,
    },
    /// A server has the store.
    #[error("the store {0} is in use: stop the server first")]
    InUse(String),
    /// The new store, or its pepper.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A folder.
    #[error("{path}: {problem}", path = .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is the matter.
        problem: io::Error,
    },
}

/// What was put back.
#[derive(Debug)]
pub struct Restored {
    /// What the backup held.
    pub contents: Contents,
    /// Where the store that was there is now.
    pub aside: Option<PathBuf>,
}

impl Accounts {
    /// Writes all records to a new file that only its owner can read. Decisions go on meanwhile; changes wait.
    ///
    /// # Errors
    /// The file is there already or cannot be written. No file is left then.
    pub async fn backup(&self, file: PathBuf) -> Result<Contents, AccountError> {
        let store = self.0.store.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let fix = "Name a new file in a folder that the server can write to.";
            let refused = |problem: &dyn std::fmt::Display| {
                AccountError::refused(format!("{}: {problem}.", file.display()), fix)
            };
            if file.exists() {
                return Err(refused(&"there is such a file already"));
            }
            match write(&*store, &file) {
                Ok(contents) => Ok(contents),
                Err(ArchiveError::Store(problem)) => Err(problem.into()),
                Err(problem) => Err(refused(&problem)),
            }
        });
        let gave_up = |_| AccountError::refused("The backup was not written.", "Try again.");
        writing.await.map_err(gave_up)?
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The file has its name only when it is whole.
fn write(store: &dyn crate::store::Store, file: &Path) -> Result<Contents, ArchiveError> {
    let draft = with_end(file, ".part");
    let _ = fs::remove_file(&draft);
    let whole = || -> Result<Contents, ArchiveError> {
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        let contents = archive::write(&*store.snapshot()?, BufWriter::new(&mut out))?;
        out.sync_all()?;
        // What was written is what is read: once, while it can still be made again.
        let read = archive::read(BufReader::new(File::open(&draft)?), |_, _, _| Ok(()))?;
        if read != contents {
            return Err(ArchiveError::Damaged);
        }
        renameat_with(CWD, &draft, CWD, file, RenameFlags::NOREPLACE).map_err(io::Error::from)?;
        File::open(folder_of(file))?.sync_all()?;
        Ok(contents)
    };
    whole().inspect_err(|_| drop(fs::remove_file(&draft)))
}

/// Reads a backup to its end: what it holds, and the fingerprint of its pepper.
///
/// # Errors
/// It is not whole, or of a newer version.
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

/// Makes the store in `path` what the backup says. The new store is made beside it and takes its place in one step; the one that was there is
/// kept.
///
/// # Errors
/// The backup is not whole, or of another pepper; a server has the store; the disk fails. The store is as it was then.
pub async fn restore(
    file: &Path,
    path: &Path,
    pepper_file: &Path,
    cache_mib: u64,
) -> Result<Restored, RestoreError> {
    let pepper = read_pepper(pepper_file).map_err(SetupError::from)?;
    let (contents, fingerprint) = check_backup(file)?;
    if fingerprint != Some(pepper.fingerprint()) {
        let (path, pepper) = (file.to_owned(), pepper_file.to_owned());
        return Err(RestoreError::Pepper { path, pepper });
    }
    let held = hold(path, cache_mib)?;
    let draft = with_end(path, ".restoring");
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
    fill(file, &draft, contents, pepper, cache_mib).await?;
    let aside = exchange(&draft, path).map_err(folder(path))?;
    drop(held);
    Ok(Restored { contents, aside })
}

/// Keeps servers away from the store that is there. One that cannot be opened is what a backup is for.
fn hold(path: &Path, cache_mib: u64) -> Result<Option<SledStore>, RestoreError> {
    if !SledStore::exists(path) {
        return Ok(None);
    }
    match SledStore::open(path, cache_mib) {
        Ok(store) => Ok(Some(store)),
        Err(StoreError::Locked { path }) => Err(RestoreError::InUse(path)),
        Err(_) => Ok(None),
    }
}

async fn fill(
    file: &Path,
    draft: &Path,
    expected: Contents,
    pepper: Pepper,
    cache_mib: u64,
) -> Result<(), RestoreError> {
    let store = Arc::new(SledStore::open(draft, cache_mib).map_err(SetupError::from)?);
    let (parts, mut received) = tokio::sync::mpsc::channel::<Batch>(2);
    let source = file.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let mut batch = Batch::new();
        // Whoever takes the parts has met with an error of its own when they are not taken any more.
        let gone = |_| ArchiveError::Io(io::ErrorKind::BrokenPipe.into());
        let contents = archive::read(BufReader::new(File::open(source)?), |table, key, json| {
            batch.put(table, key, json);
            match batch.writes.len() < PART {
                true => Ok(()),
                false => parts.blocking_send(std::mem::take(&mut batch)).map_err(gone),
            }
        })?;
        parts.blocking_send(batch).map_err(gone)?;
        Ok(contents)
    });
    while let Some(batch) = received.recv().await {
        store.commit(batch).await.map_err(failed)?;
    }
    // It was whole a moment ago; it must be the same now.
    let read = reading.await.unwrap_or(Err(ArchiveError::Damaged));
    match read {
        Ok(contents) if contents == expected => {}
        Ok(_) => return Err(unreadable(file, ArchiveError::Damaged)),
        Err(problem) => return Err(unreadable(file, problem)),
    }
    tell(store, pepper, expected).await
}

/// Opens the accounts of the new store, so that it is known to be one, and writes down where it came from.
async fn tell(
    store: Arc<SledStore>,
    pepper: Pepper,
    contents: Contents,
) -> Result<(), RestoreError> {
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let accounts = Accounts::with(store, pepper, Passwords::new(1), clock, entropy);
    let accounts = accounts.map_err(SetupError::from)?;
    let here = Actor::Operator { client: IpAddr::V4(Ipv4Addr::LOCALHOST) };
    let known = json!({
        "records": contents.records,
        "sequence": contents.sequence,
        "blake3": Digest::from_bytes(contents.blake3),
    });
    let act = Act::other("store.restore", "store", known);
    accounts.acting(here).commit(Batch::new(), act).await.map_err(failed)?;
    Ok(())
}

fn failed(problem: CommitError) -> RestoreError {
    let problem = match problem {
        CommitError::Store(problem) => problem,
        CommitError::Conflict(_) => StoreError::Failed("the new store is not new".into()),
    };
    SetupError::from(problem).into()
}

/// Puts the new store in the place of the old one, in one step where the file system can, and the old one aside.
fn exchange(draft: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let sync = || File::open(folder_of(path))?.sync_all();
    if !path.exists() {
        fs::rename(draft, path)?;
        sync()?;
        return Ok(None);
    }
    let now = Clock::system().now().0;
    let free = |number: &u32| !with_end(path, &format!(".before-{now}-{number}")).exists();
    let number = (1..).find(free).unwrap_or_default();
    let aside = with_end(path, &format!(".before-{now}-{number}"));
    // Under the name that the old one gets, so that it has it from the moment of the exchange on.
    fs::rename(draft, &aside)?;
    if renameat_with(CWD, &aside, CWD, path, RenameFlags::EXCHANGE).is_err() {
        fs::rename(&aside, draft)?;
        fs::rename(path, &aside)?;
        // A store that is nowhere would be begun anew.
        fs::rename(draft, path).inspect_err(|_| drop(fs::rename(&aside, path)))?;
    }
    sync()?;
    Ok(Some(aside))
}
