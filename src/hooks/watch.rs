//! Reloads when a file changes. The folder is watched and not its files: editors put new files in the place of old ones.

use std::{path::Path, sync::Arc, time::Duration};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::{Loaded, ScriptError, Scripts};

/// How long it must be quiet for a change to be taken as done. Copying a folder of scripts takes less between two files.
const QUIET: Duration = Duration::from_millis(150);
/// How long changes that never end are waited for.
const LONGEST: Duration = Duration::from_secs(2);

/// Watches the folder of scripts and reloads it after changes, for ever. `said` is told what each attempt came to that found changed files.
///
/// Changes within a moment are one change, however many there are, and there is one attempt at a time.
///
/// # Errors
/// The folder, or the one that it will be in, cannot be watched. A reload can then be asked for and does not come by itself.
pub async fn watch(
    scripts: Scripts,
    said: impl Fn(&Result<Loaded, Vec<ScriptError>>) + Send,
) -> Result<(), notify::Error> {
    let Some(folder) = scripts.folder().map(Path::to_owned) else {
        return std::future::pending().await;
    };
    // Holds one message however many are sent: that is what makes a storm one change.
    let changed = Arc::new(Notify::new());
    let sender = changed.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Reading a file is an event too, and a reload reads.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            sender.notify_one();
        }
    })?;
    attach(&mut watcher, &folder)?;
    // What changed between the load and now.
    changed.notify_one();
    loop {
        changed.notified().await;
        settle(&changed).await;
        // The folder may be another one by now, or have come into being.
        if let Err(error) = attach(&mut watcher, &folder) {
            tracing::warn!("the folder of scripts cannot be watched: {error}");
        }
        let loading = scripts.clone();
        let outcome = tokio::task::spawn_blocking(move || loading.reload_if_changed()).await;
        match outcome {
            Ok(outcome) if is_news(&outcome) => said(&outcome),
            Ok(_) => {}
            Err(_) => {
                tracing::error!("a reload of the scripts ended early; the last good ones stay")
            }
        }
    }
}

fn is_news(outcome: &Result<Loaded, Vec<ScriptError>>) -> bool {
    outcome.as_ref().map_or(true, |loaded| loaded.is_new)
}

/// Waits until nothing has changed for a moment.
async fn settle(changed: &Notify) {
    let quiet = async {
        while tokio::time::timeout(QUIET, changed.notified()).await.is_ok() {
            // A storm wakes this often enough as it is.
            tokio::time::sleep(QUIET / 10).await;
        }
    };
    let _ = tokio::time::timeout(LONGEST, quiet).await;
}

/// Watches the folder, or, while it is not there, the nearest one above it that is.
fn attach(watcher: &mut RecommendedWatcher, folder: &Path) -> Result<(), notify::Error> {
    if folder.is_dir() {
        // One that was replaced has to be let go before the new one can be watched.
        let _ = watcher.unwatch(folder);
        return watcher.watch(folder, RecursiveMode::Recursive);
    }
    let above = folder.ancestors().skip(1).find(|above| above.is_dir());
    let above = above.unwrap_or_else(|| Path::new("."));
    let _ = watcher.unwatch(above);
    watcher.watch(above, RecursiveMode::NonRecursive)
}
