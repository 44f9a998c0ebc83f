//! Reloads when a file changes.

use std::path::Path;

use crate::{
    files::Changes,
    scripting::{Loaded, ScriptError, Scripts},
};

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
    let mut changes = Changes::below(&folder)?;
    loop {
        changes.next().await;
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
