//! Scripts as the configuration names them: their limits, their secrets, and how they come to be loaded.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    accounts::Accounts,
    config::ScriptSettings,
    model::Secret,
    pipeline::TestGate,
    scripting::{self, ScriptLimits, ScriptError, ScriptTestGate, Scripts, Secrets, watch},
};

/// The most bytes of a secret.
const LONGEST: u64 = 65_536;

/// What scripts may use.
pub fn limits(settings: &ScriptSettings) -> ScriptLimits {
    let seconds = |number: usize| Duration::from_secs(number as u64);
    let millis = |number: usize| Duration::from_millis(number as u64);
    ScriptLimits {
        operations: settings.operations as u64,
        time: millis(settings.call_milliseconds),
        blocking_operations: settings.blocking_operations as u64,
        blocking_time: millis(settings.blocking_milliseconds),
        blocking_calls: settings.blocking_calls,
        blocking_queue: settings.blocking_queue,
        test_time: seconds(settings.test_seconds),
        call_levels: settings.call_levels,
        expression_depth: settings.expression_depth,
        string_bytes: settings.string_bytes,
        array_items: settings.array_items,
        map_entries: settings.map_entries,
        variables: settings.variables,
        functions: settings.functions,
        script_bytes: settings.script_bytes,
        files: settings.files,
        log_lines: settings.log_lines,
        notes: settings.notes,
        rate_buckets: settings.rate_buckets,
        replay_ids: settings.replay_ids,
        strikes: settings.strikes,
        strike_window: seconds(settings.strike_seconds),
        cool_down: seconds(settings.cool_down_seconds),
    }
}

/// Loads the scripts of these accounts.
///
/// # Errors
/// All that is wrong with them, and with their secrets.
pub async fn load(settings: &ScriptSettings, accounts: &Accounts) -> anyhow::Result<()> {
    let (accounts, settings) = (accounts.clone(), settings.clone());
    tokio::task::spawn_blocking(move || load_now(&settings, &accounts)).await?
}

/// The same accounts, whose scripts are loaded when the first key or user is made: nobody may be passed over who would refuse it, and a command
/// that makes none works without them.
pub fn load_late(settings: &ScriptSettings, accounts: Accounts) -> Accounts {
    let settings = settings.clone();
    accounts.with_lazy_scripts(Arc::new(move |accounts: &Accounts| {
        load_now(&settings, accounts).map_err(|problem| format!("{problem:#}"))
    }))
}

fn load_now(settings: &ScriptSettings, accounts: &Accounts) -> anyhow::Result<()> {
    let (limits, secrets) = (limits(settings), secrets(&settings.secrets_dir)?);
    let gate: Option<Arc<dyn ScriptTestGate>> = Some(Arc::new(TestGate));
    accounts.load_scripts(&settings.dir, limits, secrets, gate).map_err(|problems| {
        let shown: Vec<String> = problems.iter().map(ScriptError::to_string).collect();
        anyhow::anyhow!("the scripts are not in order:\n{}", shown.join("\n"))
    })
}

/// SIGHUP, from now on. Asked for before anybody is told that the server is ready: it would end a process that does not listen for it.
pub fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Loads the scripts again when a file changes, and on SIGHUP. For ever.
pub async fn follow(scripts: Scripts, mut hangups: Signal) {
    let asked = async {
        while hangups.recv().await.is_some() {
            let scripts = scripts.clone();
            if let Ok(outcome) = tokio::task::spawn_blocking(move || scripts.reload()).await {
                report(&outcome);
            }
        }
    };
    let watched = async {
        if let Err(problem) = watch(scripts.clone(), report).await {
            tracing::error!("the scripts cannot be watched: {problem}. Send SIGHUP after a change");
        }
        std::future::pending::<()>().await;
    };
    tokio::join!(asked, watched);
}

fn report(outcome: &Result<scripting::LoadSummary, Vec<ScriptError>>) {
    match outcome {
        Ok(loaded) => {
            tracing::info!(scripts = loaded.scripts, tests = loaded.tests, "scripts loaded")
        }
        Err(problems) => {
            for problem in problems {
                tracing::error!("the scripts stay as they were: {problem}");
            }
        }
    }
}

/// Reads the secrets: each file of the folder is one, by its name. White space at its end is passed over.
///
/// # Errors
/// A file that others can read, that is no text, or that is too long. None of them shows what it holds.
pub fn secrets(folder: &Path) -> anyhow::Result<Secrets> {
    let entries = match fs::read_dir(folder) {
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(Secrets::default()),
        read => read.with_context(|| format!("scripts.secrets_dir: {}", folder.display()))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        // Kubernetes keeps its own links here, whose names begin so.
        if name.starts_with('.') || path.is_dir() {
            continue;
        }
        found.push((name.to_owned(), secret(&path)?));
    }
    Ok(Secrets::new(found))
}

/// Reads one of them.
pub fn secret(path: &Path) -> anyhow::Result<Secret> {
    let shown = path.display();
    let facts = fs::metadata(path).with_context(|| format!("the secret {shown}"))?;
    let mode = facts.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        bail!("the secret {shown} can be read by others (mode {mode:04o}). Run: chmod 600 {shown}");
    }
    if facts.len() > LONGEST {
        bail!("the secret {shown} has more than {LONGEST} bytes. Keep one secret in it");
    }
    let text =
        zeroize::Zeroizing::new(fs::read(path).with_context(|| format!("the secret {shown}"))?);
    let text = std::str::from_utf8(&text).map_err(|_| {
        anyhow::anyhow!("the secret {shown} is no text. Keep it as base64 or hexadecimal digits")
    })?;
    let text = text.trim_end();
    if text.is_empty() {
        bail!("the secret {shown} is empty");
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(secrets(&folder.path().join("none")).is_ok());
        let path = folder.path().join("token");
        fs::write(&path, "s3cret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        let refused = secrets(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("chmod 600") && !refused.contains("s3cret"), "{refused}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(secret(&path).unwrap().expose(), "s3cret");
        for bad in [b"".as_slice(), b" \n", b"\xff"] {
            fs::write(&path, bad).unwrap();
            assert!(secrets(folder.path()).is_err(), "{bad:?}");
        }
    }
}
