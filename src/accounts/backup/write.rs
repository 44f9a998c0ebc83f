//! Writes a backup file: under a temporary name, locked, synced, read again, and then renamed.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, BufReader, BufWriter, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, OFlags, RenameFlags, renameat_with},
    io::Errno,
};

use crate::{
    accounts::{AccountError, OperatorWriter},
    files::exchange::{folder_of, with_suffix},
    model::BackupKey,
    store::{
        Cancel, Store,
        archive::{self, ArchiveError, Contents},
    },
};

/// The end of a backup's name while it is written.
pub(super) const PART: &str = ".part";
/// The attempts to open a temporary file that other processes rename or remove meanwhile.
const OPEN_ATTEMPTS: u32 = 10;

/// A backup that was written.
#[derive(Debug, Clone, Copy)]
pub struct WrittenBackup {
    /// The contents.
    pub contents: Contents,
    /// Whether a temporary file of an interrupted attempt was there, and was replaced.
    pub replaced_leftover: bool,
}

/// The limits of one attempt to write a backup.
#[derive(Debug, Default)]
pub(super) struct WriteLimits {
    /// Set by another thread to end the attempt.
    pub is_stopped: Cancel,
    /// The longest time for which changes may wait. `None` means no limit.
    pub longest_wait: Option<Duration>,
}

impl OperatorWriter<'_> {
    /// Writes all records to a new file that only its owner can read. Decisions continue meanwhile;
    /// changes wait.
    ///
    /// Only the operator may do this: for other clients it would be a way to write files with the
    /// server's rights.
    ///
    /// # Errors
    /// The file exists already, another process is writing it, or it cannot be written. Then no
    /// file is left behind.
    pub async fn backup(&self, file: PathBuf) -> Result<WrittenBackup, AccountError> {
        let (store, key) = (self.0.store.clone(), self.0.pepper.backup_key());
        let limits = Arc::new(WriteLimits::default());
        let _stopped_with_the_request = limits.is_stopped.on_drop();
        let limits = limits.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let fix = "Name a new file in a folder that the server can write to.";
            let refuse = |problem: &dyn std::fmt::Display| {
                AccountError::refused(format!("{}: {problem}.", file.display()), fix)
            };
            if file.exists() {
                return Err(refuse(&"there is such a file already"));
            }
            match write(&*store, &key, &file, &limits) {
                Ok(written) => Ok(written),
                Err(ArchiveError::Store(problem)) => Err(problem.into()),
                Err(problem) => Err(refuse(&problem)),
            }
        });
        let panicked = |_| AccountError::refused("The backup was not written.", "Try again.");
        writing.await.map_err(panicked)?
    }
}

/// Writes under another name first, so that a file with this name is always complete.
pub(super) fn write(
    store: &dyn Store,
    key: &BackupKey,
    file: &Path,
    limits: &WriteLimits,
) -> Result<WrittenBackup, ArchiveError> {
    let draft = with_suffix(file, PART);
    let (out, replaced_leftover) = open_draft(&draft)?;
    let write_and_check = || -> Result<Contents, ArchiveError> {
        out.set_permissions(Permissions::from_mode(0o600))?;
        out.set_len(0)?;
        let contents = write_records(store, key, &out, limits)?;
        // After the snapshot is gone, so that changes do not wait for the disk.
        out.sync_all()?;
        // Read the file once, while the backup can still be repeated.
        let read = archive::read(BufReader::new(File::open(&draft)?), Some(key), |_, _, _| {
            limits.check(None).map_err(ArchiveError::from)
        })?;
        if read != contents {
            return Err(ArchiveError::Damaged);
        }
        rename_to_new(&draft, file)?;
        File::open(folder_of(file))?.sync_all()?;
        Ok(contents)
    };
    let contents = write_and_check().inspect_err(|_| drop(fs::remove_file(&draft)))?;
    Ok(WrittenBackup { contents, replaced_leftover })
}

fn write_records(
    store: &dyn Store,
    key: &BackupKey,
    out: &File,
    limits: &WriteLimits,
) -> Result<Contents, ArchiveError> {
    let snapshot = store.snapshot()?;
    let deadline = limits.longest_wait.map(|longest| Instant::now() + longest);
    archive::write(&*snapshot, BufWriter::new(LimitedWriter { out, limits, deadline }), key)
}

/// Opens the temporary file, and locks it for as long as it is open. Returns whether it was left
/// over: a file that exists and is not locked belongs to an attempt that was killed.
fn open_draft(draft: &Path) -> io::Result<(File, bool)> {
    for _ in 0..OPEN_ATTEMPTS {
        let mut options = OpenOptions::new();
        // A link would lead to a file that is not ours.
        let no_links = OFlags::NOFOLLOW.bits().cast_signed();
        options.read(true).write(true).mode(0o600).custom_flags(no_links);
        let (file, is_leftover) = match options.clone().create_new(true).open(draft) {
            Ok(file) => (file, false),
            Err(problem) if problem.kind() == io::ErrorKind::AlreadyExists => {
                match options.open(draft) {
                    Ok(file) => (file, true),
                    Err(problem) if problem.kind() == io::ErrorKind::NotFound => continue,
                    Err(problem) => return Err(in_draft(draft, &problem)),
                }
            }
            Err(problem) => return Err(problem),
        };
        lock(&file).map_err(|problem| in_draft(draft, &problem))?;
        if is_still_named(&file, draft) {
            return Ok((file, is_leftover));
        }
    }
    Err(in_draft(draft, &"other processes keep replacing it"))
}

fn in_draft(draft: &Path, problem: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("the temporary file {}: {problem}", draft.display()))
}

/// Locks a temporary file, or finds out that another process is writing it.
pub(super) fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::new(io::ErrorKind::WouldBlock, "another process is writing it now"))
        }
        // Some network file systems have no locks.
        Err(TryLockError::Error(problem)) if problem.kind() != io::ErrorKind::Unsupported => {
            Err(problem)
        }
        _ => Ok(()),
    }
}

/// Whether the path still leads to this file: another process may have renamed or removed it before
/// it was locked.
fn is_still_named(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// Renames a file, and never replaces another one.
fn rename_to_new(draft: &Path, file: &Path) -> io::Result<()> {
    match renameat_with(CWD, draft, CWD, file, RenameFlags::NOREPLACE) {
        // Some network file systems cannot do this in one step.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::hard_link(draft, file)?;
            fs::remove_file(draft)
        }
        renamed => Ok(renamed?),
    }
}

impl WriteLimits {
    fn check(&self, deadline: Option<Instant>) -> io::Result<()> {
        if self.is_stopped.is_cancelled() {
            return Err(io::Error::other("the server stops, or the client has left"));
        }
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            let text = "the folder is too slow: changes have to wait while a backup is written";
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        Ok(())
    }
}

/// Writes until the attempt is stopped or its time is up.
struct LimitedWriter<'a> {
    out: &'a File,
    limits: &'a WriteLimits,
    deadline: Option<Instant>,
}

impl Write for LimitedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.limits.check(self.deadline)?;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
