//! Notices changes of files. The folders are watched instead of the files, because editors and
//! certificate tools replace files and do not write into them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// A change is complete when no other change follows within this time. When a folder of scripts is
/// copied, the next file follows sooner.
const QUIET: Duration = Duration::from_millis(150);
/// The maximum time to wait for the end of a series of changes.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// The changes in some folders. One change is reported at once, because files may have changed
/// before the folders were watched.
pub struct Changes {
    watcher: RecommendedWatcher,
    changed: Arc<Notify>,
    folders: Vec<PathBuf>,
    mode: RecursiveMode,
}

impl Changes {
    /// Watches a folder and everything below it. If the folder is missing, its creation is a
    /// change.
    ///
    /// # Errors
    /// The folder, or its nearest existing ancestor, cannot be watched.
    pub fn below(folder: &Path) -> Result<Self, notify::Error> {
        Self::of(vec![folder.to_owned()], RecursiveMode::Recursive)
    }

    /// Watches the folders that contain these files. A change of any file in them is reported.
    ///
    /// # Errors
    /// A folder cannot be watched.
    pub fn in_folders_of<'a>(
        files: impl IntoIterator<Item = &'a Path>,
    ) -> Result<Self, notify::Error> {
        let folder = |file: &Path| match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut folders: Vec<PathBuf> = files.into_iter().map(folder).collect();
        folders.sort();
        folders.dedup();
        Self::of(folders, RecursiveMode::NonRecursive)
    }

    fn of(folders: Vec<PathBuf>, mode: RecursiveMode) -> Result<Self, notify::Error> {
        // `Notify` stores at most one notification, so a series of events is one change.
        let changed = Arc::new(Notify::new());
        let sender = changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // A read is an event too. Because a change leads to a read, reported reads would cause
            // an endless loop.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                sender.notify_one();
            }
        })?;
        let mut changes = Self { watcher, changed, folders, mode };
        changes.attach()?;
        changes.changed.notify_one();
        Ok(changes)
    }

    /// Waits until there is a change and the change is complete. Changes in quick succession count
    /// as one change.
    pub async fn next(&mut self) {
        self.changed.notified().await;
        self.settle().await;
        // A folder that was replaced or created must be watched again.
        if let Err(error) = self.attach() {
            tracing::warn!("cannot watch a folder: {error}");
        }
    }

    /// Waits until nothing has changed for [`QUIET`].
    async fn settle(&self) {
        let quiet = async {
            while tokio::time::timeout(QUIET, self.changed.notified()).await.is_ok() {
                // This pause limits how often a long series of events wakes this task.
                tokio::time::sleep(QUIET / 10).await;
            }
        };
        let _ = tokio::time::timeout(MAX_WAIT, quiet).await;
    }

    /// Watches each folder or, while it is missing, its nearest existing ancestor.
    fn attach(&mut self) -> Result<(), notify::Error> {
        for folder in &self.folders {
            if folder.is_dir() {
                // A replaced folder must be unwatched before the new one can be watched.
                let _ = self.watcher.unwatch(folder);
                self.watcher.watch(folder, self.mode)?;
                continue;
            }
            let above = folder.ancestors().skip(1).find(|above| above.is_dir());
            let above = above.unwrap_or_else(|| Path::new("."));
            let _ = self.watcher.unwatch(above);
            self.watcher.watch(above, RecursiveMode::NonRecursive)?;
        }
        Ok(())
    }
}
