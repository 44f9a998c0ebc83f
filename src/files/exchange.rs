//! Replacing a folder by another one in one step.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// The suffix of a former folder's name. The time in seconds and a number follow.
pub const FORMER: &str = ".before-";

/// The path with a suffix of its last part.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The folder that contains a path.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives the new folder the name of the old one, in one step if the file system supports it.
/// Returns the new name of the old folder, which has the time `now` in seconds in it. `None` means
/// that there was none.
pub fn exchange(draft: &Path, path: &Path, now: i64) -> io::Result<Option<PathBuf>> {
    let sync = || File::open(folder_of(path))?.sync_all();
    if !path.exists() {
        fs::rename(draft, path)?;
        sync()?;
        return Ok(None);
    }
    let free = |number: &u32| !with_suffix(path, &format!("{FORMER}{now}-{number}")).exists();
    let number = (1..).find(free).unwrap_or_default();
    let former_path = with_suffix(path, &format!("{FORMER}{now}-{number}"));
    // The new folder gets the old folder's future name first, so that the exchange gives both
    // folders their final names.
    fs::rename(draft, &former_path)?;
    if renameat_with(CWD, &former_path, CWD, path, RenameFlags::EXCHANGE).is_err() {
        fs::rename(&former_path, draft)?;
        fs::rename(path, &former_path)?;
        // On an error, put the old folder back: a server would create an empty store in its place.
        fs::rename(draft, path).inspect_err(|_| drop(fs::rename(&former_path, path)))?;
    }
    sync()?;
    Ok(Some(former_path))
}
