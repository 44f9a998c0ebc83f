//! Loads the scripts and their secrets, with the limits of the configuration.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    accounts::Accounts,
    config::ScriptSettings,
    model::Secret,
    pipeline::TestGate,
    scripting::{self, ScriptError, ScriptTestGate, Scripts, Secrets, watch},
};

/// The maximum size of a secret, in bytes.
const MAX_SECRET_BYTES: u64 = 65_536;

/// Loads the scripts of these accounts.
///
/// # Errors
/// A script or a secret is invalid. The error lists all problems of the scripts.
pub async fn load(settings: &ScriptSettings, accounts: &Accounts) -> anyhow::Result<()> {
    let (accounts, settings) = (accounts.clone(), settings.clone());
    tokio::task::spawn_blocking(move || load_now(&settings, &accounts)).await?
}

/// Returns the accounts with scripts that are loaded when the command first creates a key or a
/// user, because a hook may reject the new record. A command that creates neither keys nor users
/// works even if the scripts are invalid.
pub fn load_lazily(settings: &ScriptSettings, accounts: Accounts) -> Accounts {
    let settings = settings.clone();
    accounts.with_lazy_scripts(Arc::new(move |accounts: &Accounts| {
        load_now(&settings, accounts).map_err(|problem| {
            format!(
                "{problem:#}\nNothing was changed: a hook may refuse new keys and users. Correct the \
                 scripts in {} (keyward script check). Keys can be revoked, and users be blocked, \
                 without the scripts",
                settings.dir.display()
            )
        })
    }))
}

fn load_now(settings: &ScriptSettings, accounts: &Accounts) -> anyhow::Result<()> {
    let secrets = read_secrets(&settings.secrets_dir)?;
    let gate: Option<Arc<dyn ScriptTestGate>> = Some(Arc::new(TestGate));
    accounts.load_scripts(&settings.dir, settings.limits.clone(), secrets, gate).map_err(
        |problems| {
            let lines: Vec<String> = problems.iter().map(ScriptError::to_string).collect();
            anyhow::anyhow!("the scripts are invalid:\n{}", lines.join("\n"))
        },
    )
}

/// Starts to listen for SIGHUP. This function must be called before the server reports that it is
/// ready, because SIGHUP ends a process that does not listen for it.
pub fn hangup_signal() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Reloads the scripts whenever a file changes and whenever SIGHUP arrives. Never returns.
pub async fn reload_on_change(scripts: Scripts, mut hangups: Signal) {
    let on_hangup = async {
        while hangups.recv().await.is_some() {
            let scripts = scripts.clone();
            if let Ok(outcome) = tokio::task::spawn_blocking(move || scripts.reload()).await {
                report(&outcome);
            }
        }
    };
    let on_change = async {
        if let Err(problem) = watch(scripts.clone(), report).await {
            tracing::error!("cannot watch the scripts: {problem}. Send SIGHUP after a change");
        }
        std::future::pending::<()>().await;
    };
    tokio::join!(on_hangup, on_change);
}

fn report(outcome: &Result<scripting::LoadSummary, Vec<ScriptError>>) {
    match outcome {
        Ok(loaded) => {
            tracing::info!(scripts = loaded.scripts, tests = loaded.tests, "scripts loaded")
        }
        Err(problems) => {
            for problem in problems {
                tracing::error!(
                    "cannot reload the scripts, so the old scripts stay in use: {problem}"
                );
            }
        }
    }
}

/// Reads the secrets of a folder. Each file contains one secret, which has the file's name. White
/// space at the end of a file is ignored.
///
/// # Errors
/// A file can be read by others, is not text, is empty, or is too long. The error never contains
/// the secret.
pub fn read_secrets(folder: &Path) -> anyhow::Result<Secrets> {
    let read = |folder: &Path| read_folder(folder).map_err(|problem| format!("{problem:#}"));
    Secrets::from_folder(folder, read).map_err(anyhow::Error::msg)
}

fn read_folder(folder: &Path) -> anyhow::Result<Vec<(String, Secret)>> {
    let entries = match fs::read_dir(folder) {
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.with_context(|| format!("scripts.secrets_dir: {}", folder.display()))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        // Kubernetes creates links in this folder, and their names begin with a dot.
        if name.starts_with('.') || path.is_dir() {
            continue;
        }
        found.push((name.to_owned(), read_secret(&path)?));
    }
    Ok(found)
}

/// Reads one secret from a file, with the rules of [`read_secrets`].
pub fn read_secret(path: &Path) -> anyhow::Result<Secret> {
    let shown = path.display();
    let metadata = fs::metadata(path).with_context(|| format!("the secret {shown}"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        bail!("the secret {shown} can be read by others (mode {mode:04o}). Run: chmod 600 {shown}");
    }
    if metadata.len() > MAX_SECRET_BYTES {
        bail!(
            "the secret {shown} has more than {MAX_SECRET_BYTES} bytes. Store one secret in each file"
        );
    }
    let text =
        zeroize::Zeroizing::new(fs::read(path).with_context(|| format!("the secret {shown}"))?);
    let text = std::str::from_utf8(&text).map_err(|_| {
        anyhow::anyhow!(
            "the secret {shown} is not UTF-8 text. Store it as base64 or hexadecimal digits"
        )
    })?;
    let text = text.trim_end();
    if text.is_empty() {
        bail!("the secret {shown} is empty");
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_or_invalid_secret_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_secrets(&folder.path().join("none")).is_ok());
        let path = folder.path().join("token");
        fs::write(&path, "s3cret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        let refused = read_secrets(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("chmod 600") && !refused.contains("s3cret"), "{refused}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_secret(&path).unwrap().expose(), "s3cret");
        for bad in [b"".as_slice(), b" \n", b"\xff"] {
            fs::write(&path, bad).unwrap();
            assert!(read_secrets(folder.path()).is_err(), "{bad:?}");
        }
    }
}
