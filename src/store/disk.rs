//! Code that all engines with a folder share: the folder, the errors of a store that cannot be
//! used, panics of an engine, and the delayed sync of the marker file.

use std::{
    any::Any,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::{StoreError, marker::MarkerFile};

/// The end of a message about records that are lost.
pub(super) const RESTORE: &str = "Restore it from a backup";
/// The finding that the digest over all records is wrong.
pub(super) const NOT_COMMITTED: &str = "its records are not those of the last commit";
/// The time from a commit until the marker file is synced.
const MARKER_SYNC_DELAY: Duration = Duration::from_secs(1);

pub(super) fn unusable(path: &Path, problem: &dyn ToString) -> StoreError {
    StoreError::Unusable { path: path.display().to_string(), problem: problem.to_string() }
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

/// Runs a read of an engine. Engines panic if pages do not fit together.
pub(super) fn without_panic<T>(
    path: &Path,
    read: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let text = panic_text(panic.as_ref());
        Err(unusable(path, &format!("its engine cannot read it: {text}. {RESTORE}")))
    })
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "the engine panicked".into())
}

/// Receives the jobs of a writer thread, and syncs the marker file a second after a commit.
pub(super) struct Jobs<'s, T> {
    queue: &'s Receiver<T>,
    marker: &'s MarkerFile,
    /// The time of the first commit that the marker file does not have durably.
    unsynced: Option<Instant>,
}

impl<'s, T> Jobs<'s, T> {
    pub fn new(queue: &'s Receiver<T>, marker: &'s MarkerFile) -> Self {
        Self { queue, marker, unsynced: None }
    }
}

/// Waits for the next job. `None` means that the store is being closed.
impl<T> Iterator for Jobs<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            let age = self.unsynced.map(|since| since.elapsed());
            if age.is_some_and(|age| age >= MARKER_SYNC_DELAY) {
                sync_marker(self.marker);
                self.unsynced = None;
                continue;
            }
            let wait = age.map_or(Duration::MAX, |age| MARKER_SYNC_DELAY - age);
            match self.queue.recv_timeout(wait) {
                Ok(job) => {
                    self.unsynced.get_or_insert_with(Instant::now);
                    return Some(job);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

pub(super) fn sync_marker(marker: &MarkerFile) {
    if let Err(e) = marker.sync() {
        tracing::warn!("could not sync the store's marker file: {e}");
    }
}
