//! The messages of a refused start: a store without its pepper, a pepper without its store, a
//! missing permission, a store of a newer version.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, access},
    process::geteuid,
};

use super::users;
use crate::{
    accounts::{BackupSchedule, PepperError, SetupError},
    cli::{CliError, Exit},
    config::{Engine, Settings},
    store::store_exists,
};

/// The title of the marker file `KEYWARD`, before the number of its format.
const MARKER_TITLE: &str = "A Keyward store, format ";
/// The format of the marker file that this program reads.
const MARKER_FORMAT: u64 = 2;

/// Refuses to go on where the pepper file exists and the store does not.
///
/// # Errors
/// The message, with what to do.
pub fn check_store_is_there(settings: &Settings) -> Result<(), CliError> {
    let store = &settings.store;
    if store.engine == Engine::Memory || store_exists(&store.path) {
        return Ok(());
    }
    if let Some(elsewhere) = store_elsewhere(settings) {
        return Err(CliError::new(Exit::Unreachable, elsewhere));
    }
    if !store.pepper_file.exists() {
        return Ok(());
    }
    if let Some(denied) = denied(&store.path) {
        return Err(CliError::new(Exit::Unreachable, denied));
    }
    let state = match fs::read_dir(&store.path).map(|mut entries| entries.next().is_some()) {
        Ok(true) => "contains no store",
        Ok(false) => "is empty",
        Err(_) => "is missing",
    };
    let (path, pepper) = (store.path.display(), store.pepper_file.display());
    let text = format!(
        "the pepper file {pepper} is there, but the folder of its store {path} {state}. This looks \
         like a disk that is not mounted, or a mistyped path (store.path). Mount the disk, correct \
         the path, or restore the newest backup (keyward restore FILE). To begin anew with this \
         pepper, run: keyward init --new (or keyward apply --new FILE, with the records of a file)"
    );
    Err(CliError::new(Exit::Unreachable, text))
}

/// Returns the message for a store that lies where a relative path of an earlier version pointed
/// to: in the working directory, and not in the folder of the configuration file.
fn store_elsewhere(settings: &Settings) -> Option<String> {
    let former = settings.origin.store_from_working_dir.as_deref()?;
    let file = settings.origin.file.as_deref()?.display();
    store_exists(former).then(|| {
        let (path, former) = (settings.store.path.display(), former.display());
        format!(
            "there is no store at {path}, but one at {former}. Relative paths in {file} count from \
             the folder of this file, and no longer from the folder in which keyward starts. If \
             {former} is the store of this configuration, set store.path in {file} to that path. If \
             it is another server's, run this command from another folder"
        )
    })
}

/// Returns the message for a store that does not exist: where this process has looked, and how to
/// name another place.
pub fn no_store(settings: &Settings) -> String {
    let path = settings.store.path.display();
    let looked = match &settings.origin.file {
        Some(file) => format!("The configuration file is {}", file.display()),
        None => format!(
            "There is no configuration file config.toml in {} and no /etc/keyward/config.toml, so \
             the path counts from that folder",
            settings.origin.folder.display()
        ),
    };
    format!(
        "there is no store at {path}. {looked}. To use the store of a server, run this command in \
         the folder of its config.toml, or name the file: keyward --config FILE. To make a new store \
         at that path, run keyward init or keyward serve"
    )
}

/// Returns the error of a store that could not be opened, with the paths and what to do.
pub fn explained(problem: SetupError, settings: &Settings) -> CliError {
    let store = &settings.store;
    let text = match &problem {
        SetupError::Pepper(PepperError::Missing(pepper)) => {
            let (path, pepper) = (store.path.display(), pepper.display());
            format!(
                "the store {path} is there, but its pepper file {pepper} is missing. Without it no \
                 key can be checked. This looks like a disk that is not mounted, or a mistyped path \
                 (store.pepper_file). Mount the disk, correct the path, or put the pepper file back \
                 from a backup. To begin anew without any record, move the store to another place \
                 and run: keyward init --new"
            )
        }
        SetupError::Store(_) => newer_store(&store.path)
            .or_else(|| denied(&store.path))
            .unwrap_or_else(|| format!("{problem}{}", newest_backup(settings))),
        SetupError::Pepper(PepperError::Io { path, .. }) => {
            denied(path).unwrap_or_else(|| problem.to_string())
        }
        _ => problem.to_string(),
    };
    CliError::new(Exit::Unreachable, text)
}

/// Returns the sentence that names the newest usable scheduled backup, if there is one.
fn newest_backup(settings: &Settings) -> String {
    let usable = |schedule: &BackupSchedule| schedule.newest_usable(&settings.store.pepper_file);
    settings.backup.as_ref().and_then(usable).map_or_else(String::new, |newest| {
        format!(". The newest usable backup is {}", newest.display())
    })
}

/// Returns the message for a store whose marker file has a newer format.
fn newer_store(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path.join("KEYWARD")).ok()?;
    let digits = text.strip_prefix(MARKER_TITLE)?.split('.').next()?;
    let format: u64 = digits.parse().ok()?;
    (format > MARKER_FORMAT).then(|| {
        format!(
            "the store {} was written by a newer Keyward (format {format}). Open it with that \
             version, or a newer version",
            path.display()
        )
    })
}

/// Returns the message for the first folder or file on the way to `path` that this process may not
/// use as it must. `None` means that it may use all of them.
pub fn denied(path: &Path) -> Option<String> {
    let path = std::path::absolute(path).ok()?;
    let (place, need) = denied_place(&path)?;
    let us = users::shown(geteuid().as_raw());
    let owner = fs::metadata(&place).map(|metadata| users::shown(metadata.uid()));
    let owner = owner.map_or_else(|_| "another user".into(), |owner| format!("user {owner}"));
    let (path, place) = (path.display(), place.display());
    Some(format!(
        "cannot open {path}: user {us}, as which this command runs, may not {need} {place}, which \
         belongs to {owner}. Run keyward as that user, or give user {us} access"
    ))
}

/// The first place that cannot be used, and what has to be done there.
fn denied_place(path: &Path) -> Option<(PathBuf, &'static str)> {
    let may = |place: &Path, rights| access(place, rights) != Err(rustix::io::Errno::ACCESS);
    let mut folders: Vec<&Path> = path.ancestors().skip(1).collect();
    folders.reverse();
    for folder in folders {
        if !may(folder, Access::EXEC_OK) {
            return Some((folder.to_owned(), "enter the folder"));
        }
        let below = path.strip_prefix(folder).ok()?.components().next()?;
        if is_missing(&folder.join(below)) {
            let is_denied = !may(folder, Access::WRITE_OK | Access::EXEC_OK);
            return is_denied.then(|| (folder.to_owned(), "write to the folder"));
        }
    }
    if !path.is_dir() {
        return (!may(path, Access::READ_OK)).then(|| (path.to_owned(), "read the file"));
    }
    if !may(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        return Some((path.to_owned(), "read and write the folder"));
    }
    let mut files = fs::read_dir(path).ok()?.flatten().map(|entry| entry.path());
    let file = files.find(|file| !may(file, Access::READ_OK | Access::WRITE_OK))?;
    Some((file, "read and write the file"))
}

fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|problem| problem.kind() == io::ErrorKind::NotFound)
}
