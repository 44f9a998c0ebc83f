//! Notices changes of files. The folders are watched instead of the files, because editors and
//! certificate tools replace files and do not write into them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::exchange::folder_of;

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
    /// The paths that matter: files, or one folder with everything below it.
    paths: Vec<PathBuf>,
    mode: RecursiveMode,
    /// The folders that are watched now.
    watched: Vec<PathBuf>,
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

    /// Watches the folders that contain these files. A change of any file in them is reported. If
    /// a part of a path is a symbolic link, the folder of the link is watched, and the folder that
    /// it leads to.
    ///
    /// # Errors
    /// A folder cannot be watched.
    pub fn in_folders_of<'a>(
        files: impl IntoIterator<Item = &'a Path>,
    ) -> Result<Self, notify::Error> {
        let files = files.into_iter().map(Path::to_owned).collect();
        Self::of(files, RecursiveMode::NonRecursive)
    }

    fn of(paths: Vec<PathBuf>, mode: RecursiveMode) -> Result<Self, notify::Error> {
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
        let mut changes = Self { watcher, changed, paths, mode, watched: Vec::new() };
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

    /// Watches each folder or, while it is missing, its nearest existing ancestor. The links in the
    /// paths are followed anew, because they may lead elsewhere by now.
    fn attach(&mut self) -> Result<(), notify::Error> {
        let mut wanted: Vec<(PathBuf, RecursiveMode)> = Vec::new();
        for path in &self.paths {
            let mut folders = folders_of_links(path);
            if self.mode == RecursiveMode::Recursive {
                // The folder of the path itself does not matter, unless the path is a link.
                folders.pop();
                wanted.push((path.clone(), RecursiveMode::Recursive));
            }
            wanted.extend(folders.into_iter().map(|folder| (folder, RecursiveMode::NonRecursive)));
        }
        for former in std::mem::take(&mut self.watched) {
            // A replaced folder must be unwatched before the new one can be watched.
            let _ = self.watcher.unwatch(&former);
        }
        for (folder, mode) in wanted {
            let (folder, mode) = if folder.is_dir() {
                (folder, mode)
            } else {
                let above = folder.ancestors().skip(1).find(|above| above.is_dir());
                (above.unwrap_or(Path::new(".")).to_owned(), RecursiveMode::NonRecursive)
            };
            if !self.watched.contains(&folder) {
                self.watcher.watch(&folder, mode)?;
                self.watched.push(folder);
            }
        }
        Ok(())
    }
}

/// The folders in which a change can make a path lead to another file: the folder of each symbolic
/// link on the way, and last the folder in which the way ends.
fn folders_of_links(path: &Path) -> Vec<PathBuf> {
    /// The maximum number of links on a way, as in the kernel.
    const MAX_LINKS: usize = 40;
    let mut folders = Vec::new();
    let mut path = path.to_owned();
    while folders.len() < MAX_LINKS {
        let Some((link, rest)) = first_link(&path) else { break };
        let folder = folder_of(&link).to_owned();
        let Ok(target) = std::fs::read_link(&link) else { break };
        // An absolute target replaces the folder.
        path = folder.join(target).join(rest);
        folders.push(folder);
    }
    folders.push(folder_of(&path).to_owned());
    folders
}

/// The first symbolic link on the way to a path, and the rest of the way.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut parts = path.components();
    let mut before = PathBuf::new();
    while let Some(part) = parts.next() {
        before.push(part);
        if before.is_symlink() {
            return Some((before, parts.as_path().to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn every_link_on_the_way_to_a_file_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let path = |name: &str| root.join(name);
        for folder in ["acme/live", "etc", "data/1"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        fs::write(path("acme/live/c.pem"), "").unwrap();
        // A file that is a link, with a link to a folder on its way.
        symlink("live", path("acme/current")).unwrap();
        symlink("../acme/current/c.pem", path("etc/c.pem")).unwrap();
        let expected = ["etc", "etc/../acme", "etc/../acme/live"].map(path);
        assert_eq!(folders_of_links(&path("etc/c.pem")), expected);
        // Kubernetes: the link to the folder changes, and the link to the file does not.
        symlink("1", path("data/..data")).unwrap();
        symlink("..data/tls.crt", path("data/tls.crt")).unwrap();
        let expected = ["data", "data", "data/1"].map(path);
        assert_eq!(folders_of_links(&path("data/tls.crt")), expected);
        // A circle ends.
        symlink("b", path("a")).unwrap();
        symlink("a", path("b")).unwrap();
        assert!(folders_of_links(&path("a")).len() > 2);
        assert_eq!(folders_of_links(Path::new("plain.pem")), [PathBuf::from(".")]);
    }

    #[tokio::test]
    async fn change_behind_a_link_is_noticed_also_after_the_link_has_changed() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for folder in ["links", "one", "two"] {
            fs::create_dir(path(folder)).unwrap();
            fs::write(path(folder).join("c.pem"), "").unwrap();
        }
        for is_file in [true, false] {
            let link = path(if is_file { "links/link.pem" } else { "links/folder" });
            let watched = if is_file { link.clone() } else { link.join("c.pem") };
            let target =
                |folder: &str| if is_file { path(folder).join("c.pem") } else { path(folder) };
            symlink(target("one"), &link).unwrap();
            let mut changes = Changes::in_folders_of([watched.as_path()]).unwrap();
            let next = async |changes: &mut Changes| {
                tokio::time::timeout(Duration::from_secs(20), changes.next()).await.unwrap();
            };
            // The change that every new watch reports.
            next(&mut changes).await;
            for folder in ["one", "two"] {
                // As an ACME client does.
                fs::write(path(folder).join("new"), "x").unwrap();
                fs::rename(path(folder).join("new"), path(folder).join("c.pem")).unwrap();
                next(&mut changes).await;
                let draft = path("links/draft");
                symlink(target("two"), &draft).unwrap();
                fs::rename(&draft, &link).unwrap();
                next(&mut changes).await;
            }
        }
    }
}
