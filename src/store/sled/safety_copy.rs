//! A copy of the store's files from before sled opens them.
//!
//! sled repairs its log when it opens it: it cuts off the end that a crash left incomplete, and
//! overwrites segments that it believes to be free. It takes a read error, or a damaged header of a
//! segment, for such an end (spacejam/sled #1509, #1533), and so destroys records that could still
//! be read later. Therefore the files are copied first, and the copy is kept until the records were
//! verified with their digest. If the start is refused, the copy takes the place of the files.
//!
//! A file system with reflinks (XFS, Btrfs, bcachefs) copies in no time and takes no space for it.
//! Elsewhere the kernel copies the bytes. The copy is not synced unless it is needed.
//!
//! The replacement survives a kill at each moment: the copy is synced and gets the name
//! [`INSTALLING`] in one step, and the next start continues where the last one has stopped.

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::Path,
};

use rustix::{
    fs::{Advice, AtFlags, Mode, OFlags, fadvise, openat, renameat, unlinkat},
    io::Errno,
};

use super::marker;

/// The folder with the copy, in the store's folder.
pub(super) const COPY: &str = "before-start";
/// A copy that a start did not remove because it was killed.
pub(super) const LEFT_OVER: &str = "before-interrupted-start";
/// An empty file that a store leaves behind when it could not write or sync. The kernel then has
/// pages in its cache that are not on the disk, and takes them for clean ones.
pub(super) const SYNC_FAILED: &str = "sync-failed";
/// The folder in which a compaction writes new files.
pub(super) const COMPACTING: &str = "compacting";
/// The folder with a complete set of files that are to replace the store's files.
pub(super) const INSTALLING: &str = "installing";

/// A complete copy of the store's files.
pub(super) struct SafetyCopy {
    /// The store's folder. It is found by its handle, because a restore renames it.
    folder: OwnedFd,
}

/// Whether a file of this name belongs to the store's records. The marker file does too.
pub(super) fn is_store_file(name: &str) -> bool {
    matches!(name, "db" | "conf" | marker::NAME) || is_snapshot(name)
}

/// Whether the program or sled uses this name for a file or folder that is left over after a kill.
pub(super) fn is_temporary(name: &str) -> bool {
    is_draft(name) || matches!(name, COPY | LEFT_OVER | COMPACTING | INSTALLING | SYNC_FAILED)
}

/// Whether this is an incomplete file, which gets its name when it is complete.
pub(super) fn is_draft(name: &str) -> bool {
    name == marker::DRAFT || name.starts_with("snap.") && name.ends_with(".generating")
}

/// Whether this is a complete snapshot of sled's page table, such as `snap.0000000000000C35`.
pub(super) fn is_snapshot(name: &str) -> bool {
    let digits = name.strip_prefix("snap.").unwrap_or_default();
    digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl SafetyCopy {
    /// Copies the files of the store, and moves left-over temporary files away. Every byte is read,
    /// unless the file system shares the blocks.
    ///
    /// # Errors
    /// A file cannot be read, or there is not enough space. Nothing was changed.
    pub fn take(path: &Path) -> Result<Self, String> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let folder = openat(rustix::fs::CWD, path, flags, Mode::empty());
        let copy = Self { folder: folder.map_err(|e| io::Error::from(e).to_string())? };
        copy.forget_unwritten_pages(path).map_err(|e| format!("the file db: {e}"))?;
        copy.keep_left_over_copy(path).map_err(|e| format!("the folder {COPY}: {e}"))?;
        copy.copy_files(path).inspect_err(|_| drop(copy.remove_copy()))?;
        Ok(copy)
    }

    /// After a failed sync, has the kernel read the log from the disk again.
    fn forget_unwritten_pages(&self, path: &Path) -> io::Result<()> {
        if !path.join(SYNC_FAILED).exists() {
            return Ok(());
        }
        tracing::warn!(path = %path.display(), "the last run could not write to the store");
        Ok(fadvise(File::open(path.join("db"))?, 0, None, Advice::DontNeed)?)
    }

    /// A start that was killed has left its copy. The copy is kept until the records are verified.
    fn keep_left_over_copy(&self, path: &Path) -> io::Result<()> {
        if !path.join(COPY).exists() {
            return Ok(());
        }
        tracing::warn!(path = %path.display(), "an earlier start of the store was interrupted");
        if path.join(LEFT_OVER).exists() {
            // The older copy was made before anything could happen to the files.
            return fs::remove_dir_all(path.join(COPY));
        }
        Ok(renameat(&self.folder, COPY, &self.folder, LEFT_OVER)?)
    }

    fn copy_files(&self, path: &Path) -> Result<(), String> {
        let copy = path.join(COPY);
        let failed = |what: &str, problem: io::Error| {
            if problem.kind() != io::ErrorKind::StorageFull {
                return format!("{what}: {problem}");
            }
            let size = store_size(path).unwrap_or_default() / (1024 * 1024) + 1;
            format!(
                "there is no space for the copy of its files that a start makes first ({size} \
                 MiB): make space on the disk"
            )
        };
        let created = fs::DirBuilder::new().mode(0o700).create(&copy);
        created.map_err(|problem| {
            failed("a folder for the copy of its files cannot be created", problem)
        })?;
        for name in
            names(&self.folder).map_err(|problem| failed("the folder cannot be read", problem))?
        {
            if is_store_file(&name) {
                let copied = fs::copy(path.join(&name), copy.join(&name));
                copied.map_err(|problem| {
                    failed(&format!("the file {name} cannot be copied"), problem)
                })?;
            }
        }
        Ok(())
    }

    /// Moves the temporary files of an interrupted start out of sled's way, which would believe
    /// them.
    pub fn move_temporary_files(&self) -> io::Result<()> {
        let copy = open_folder(&self.folder, COPY)?;
        for name in names(&self.folder)?.into_iter().filter(|name| is_draft(name)) {
            renameat(&self.folder, &*name, &copy, &*name)?;
            tracing::warn!(file = name, "removed a left-over file of an interrupted start");
        }
        Ok(())
    }

    /// Removes the copy: the store's files are good.
    pub fn discard(self) {
        let remove = || {
            for name in [COPY, LEFT_OVER, COMPACTING] {
                remove_folder(&self.folder, name)?;
            }
            match unlinkat(&self.folder, SYNC_FAILED, AtFlags::empty()) {
                Err(problem) if problem != Errno::NOENT => Err(io::Error::from(problem)),
                _ => Ok(()),
            }
        };
        if let Err(problem) = remove() {
            tracing::warn!("could not remove the folder {COPY} of the store: {problem}");
        }
    }

    fn remove_copy(&self) -> io::Result<()> {
        remove_folder(&self.folder, COPY)?;
        self.restore_left_over_copy()
    }

    fn restore_left_over_copy(&self) -> io::Result<()> {
        match renameat(&self.folder, LEFT_OVER, &self.folder, COPY) {
            Err(problem) if problem != Errno::NOENT => Err(problem.into()),
            _ => Ok(()),
        }
    }

    /// Replaces the store's files by the copy. The caller has closed sled, or does not use it any
    /// more.
    pub fn put_back(self) {
        let put_back = || {
            install_from(&self.folder, COPY)?;
            self.restore_left_over_copy()
        };
        if let Err(problem) = put_back() {
            tracing::error!(
                "could not restore the store's files from the copy in its folder {COPY} or \
                 {INSTALLING}: {problem}"
            );
        }
    }
}

/// Leaves the file [`SYNC_FAILED`] behind, if the disk allows it.
pub(super) fn mark_failed_sync(path: &Path) {
    if let Err(problem) = File::create(path.join(SYNC_FAILED)) {
        tracing::warn!("could not create the file {SYNC_FAILED} of the store: {problem}");
    }
}

/// Completes a replacement that was interrupted. Returns whether there was one.
pub(super) fn continue_install(path: &Path) -> io::Result<bool> {
    if !path.join(INSTALLING).is_dir() {
        return Ok(false);
    }
    let folder = File::open(path)?;
    finish_install(&folder.into()).map(|()| true)
}

/// Replaces the store's files by those of a folder in the store's folder.
pub(super) fn install(path: &Path, name: &str) -> io::Result<()> {
    install_from(&File::open(path)?.into(), name)
}

fn install_from(folder: &OwnedFd, name: &str) -> io::Result<()> {
    sync_files(&open_folder(folder, name)?)?;
    renameat(folder, name, folder, INSTALLING)?;
    rustix::fs::fsync(folder)?;
    finish_install(folder)
}

/// Moves all files of [`INSTALLING`] into the store's folder, and removes sled's snapshots that are
/// not among them.
fn finish_install(folder: &OwnedFd) -> io::Result<()> {
    let installing = open_folder(folder, INSTALLING)?;
    let new = names(&installing)?;
    // The snapshot is moved last: while it has not been moved, all others are of the former files.
    // Without any snapshot, sled reads the whole log.
    let (snapshots, others): (Vec<_>, Vec<_>) = new.into_iter().partition(|name| is_snapshot(name));
    if others.iter().any(|name| name == "db") {
        for name in names(folder)?.into_iter().filter(|name| name.starts_with("snap.")) {
            unlinkat(folder, &*name, AtFlags::empty())?;
        }
    }
    // The log is moved last of these: as long as it is there, this step is repeated.
    let (log, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|name| name == "db");
    for name in others.into_iter().chain(log).chain(snapshots) {
        renameat(&installing, &*name, folder, &*name)?;
        rustix::fs::fsync(folder)?;
    }
    unlinkat(folder, INSTALLING, AtFlags::REMOVEDIR)?;
    Ok(rustix::fs::fsync(folder)?)
}

/// The size of the store's files in bytes.
pub(super) fn store_size(path: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if is_store_file(&entry.file_name().to_string_lossy()) {
            size += entry.metadata()?.len();
        }
    }
    Ok(size)
}

/// Removes a folder with its files, if it exists.
fn remove_folder(parent: &OwnedFd, name: &str) -> io::Result<()> {
    let folder = match open_folder(parent, name) {
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    for name in names(&folder)? {
        match unlinkat(&folder, &*name, AtFlags::empty()) {
            // sled's folder for large values, which is empty.
            Err(Errno::ISDIR) => unlinkat(&folder, &*name, AtFlags::REMOVEDIR)?,
            removed => removed?,
        }
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn open_folder(parent: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

fn names(folder: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn sync_files(folder: &OwnedFd) -> io::Result<()> {
    for name in names(folder)? {
        let file = openat(folder, &*name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::fsync(&file)?;
    }
    Ok(rustix::fs::fsync(folder)?)
}
