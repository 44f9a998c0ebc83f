//! Learns of changes to files. Folders are watched and not their files: editors, and whoever renews a certificate, put new files in the place
//! of old ones.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// How long it must be quiet for a change to be taken as done. Copying a folder of scripts takes less between two files.
const QUIET: Duration = Duration::from_millis(150);
/// How long changes that never end are waited for.
const LONGEST: Duration = Duration::from_secs(2);

/// Changes in some folders. The first is there at once: what changed before anybody watched.
pub struct Changes {
    watcher: RecommendedWatcher,
    changed: Arc<Notify>,
    folders: Vec<PathBuf>,
    mode: RecursiveMode,
}

impl Changes {
    /// Changes in a folder and all below it. While it is not there, its coming is one.
    ///
    /// # Errors
    /// The folder, or the one that it will be in, cannot be watched.
    pub fn below(folder: &Path) -> Result<Self, notify::Error> {
        Self::of(vec![folder.to_owned()], RecursiveMode::Recursive)
    }

    /// Changes in the folders of these files, whichever of their files it is.
    ///
    /// # Errors
    /// A folder cannot be watched.
    pub fn beside<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<Self, notify::Error> {
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
        // Holds one message however many are sent: that is what makes a storm one change.
        let changed = Arc::new(Notify::new());
        let sender = changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading a file is an event too, and whoever hears of a change reads.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                sender.notify_one();
            }
        })?;
        let mut changes = Self { watcher, changed, folders, mode };
        changes.attach()?;
        changes.changed.notify_one();
        Ok(changes)
    }

    /// Waits for a change, and until it is done. Changes within a moment are one, however many there are.
    pub async fn next(&mut self) {
        self.changed.notified().await;
        self.settle().await;
        // A folder may be another one by now, or have come into being.
        if let Err(error) = self.attach() {
            tracing::warn!("a folder cannot be watched: {error}");
        }
    }

    /// Waits until nothing has changed for a moment.
    async fn settle(&self) {
        let quiet = async {
            while tokio::time::timeout(QUIET, self.changed.notified()).await.is_ok() {
                // A storm wakes this often enough as it is.
                tokio::time::sleep(QUIET / 10).await;
            }
        };
        let _ = tokio::time::timeout(LONGEST, quiet).await;
    }

    /// Watches each folder, or, while it is not there, the nearest one above it that is.
    fn attach(&mut self) -> Result<(), notify::Error> {
        for folder in &self.folders {
            if folder.is_dir() {
                // One that was replaced has to be let go before the new one can be watched.
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
