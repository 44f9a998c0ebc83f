//! Reloads the scripts when a file changes.

use std::path::Path;

use super::{LoadSummary, Scripts};
use crate::{files::Changes, scripting::error::ScriptError};

/// Watches the folders of scripts and of their secrets, and reloads the scripts after changes.
/// Returns only if an error occurs. Calls `on_reload` after each reload that found changed files or
/// failed.
///
/// Changes in quick succession cause a single reload, and reloads do not overlap.
///
/// # Errors
/// Neither the folder nor its parent can be watched. In this case [`Scripts::reload`] still works.
pub async fn watch(
    scripts: Scripts,
    on_reload: impl Fn(&Result<LoadSummary, Vec<ScriptError>>) + Send,
) -> Result<(), notify::Error> {
    let Some(folder) = scripts.folder().map(Path::to_owned) else {
        return std::future::pending().await;
    };
    let mut changes = Changes::below(&folder)?;
    let mut secrets = match scripts.secrets_folder() {
        Some(folder) => Some(Changes::below(folder)?),
        None => None,
    };
    loop {
        let secret_changed = async {
            match &mut secrets {
                Some(secrets) => secrets.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changes.next() => {}
            () = secret_changed => {}
        }
        let scripts = scripts.clone();
        let reload = tokio::task::spawn_blocking(move || scripts.reload_if_changed());
        match reload.await {
            Ok(Ok(summary)) if !summary.is_new => {}
            Ok(outcome) => on_reload(&outcome),
            Err(_) => {
                tracing::error!(
                    "reloading the scripts panicked; the last good scripts stay in force"
                )
            }
        }
    }
}
