//! Files of the operator: reading them with a check of their permissions, watching
//! them, and replacing a folder in one step.

#[cfg(feature = "watch")]
mod changes;
pub mod exchange;

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

#[cfg(feature = "watch")]
pub use changes::Changes;
use rustix::process::geteuid;
use zeroize::Zeroizing;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file contains a secret, and other users may read it.
    #[error("other users can read it (mode {0:04o}). Run chmod 600 on it")]
    Exposed(u32),
    /// The file is larger than the limit.
    #[error("it has more than {0} bytes")]
    TooLong(u64),
    /// The path names a folder, a pipe or the like.
    #[error("it is not a regular file")]
    NotAFile,
    /// Reading failed.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// The users that may read a file besides its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Everybody.
    All,
    /// Nobody. But if the file belongs to another user than the user of this process, the group may
    /// read it, because root shares a secret with a service in this way.
    OwnerOnly,
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// The file is missing, is not a regular file or has more than `limit` bytes, or users other than
/// `readers` may read it.
pub fn read(path: &Path, limit: u64, readers: Readers) -> Result<Zeroizing<Vec<u8>>, FileError> {
    // Checked before the file is opened: opening a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(FileError::NotAFile);
    }
    let file = File::open(path)?;
    // The permissions of the open file are checked, because the path may name another file by now.
    let metadata = file.metadata()?;
    let is_ours = metadata.uid() == geteuid().as_raw();
    if readers == Readers::OwnerOnly && is_exposed(metadata.mode(), is_ours) {
        return Err(FileError::Exposed(metadata.mode() & 0o777));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLong(limit));
    }
    Ok(bytes)
}

fn is_exposed(mode: u32, is_ours: bool) -> bool {
    let forbidden = if is_ours { 0o077 } else { 0o037 };
    mode & forbidden != 0
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn secret_that_others_can_read_is_refused() {
        for (mode, ours, roots) in [
            (0o600, false, false),
            (0o400, false, false),
            (0o640, true, false),
            (0o660, true, true),
            (0o604, true, true),
            (0o644, true, true),
        ] {
            assert_eq!(
                (is_exposed(mode, true), is_exposed(mode, false)),
                (ours, roots),
                "{mode:o}"
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "s3cret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = read(&path, 6, Readers::OwnerOnly).unwrap_err();
        assert!(matches!(refused, FileError::Exposed(0o644)), "{refused}");
        assert_eq!(*read(&path, 6, Readers::All).unwrap(), b"s3cret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(*read(&path, 6, Readers::OwnerOnly).unwrap(), b"s3cret");
    }

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        fs::write(&path, "1234567").unwrap();
        assert!(matches!(read(&path, 6, Readers::All), Err(FileError::TooLong(6))));
        assert!(matches!(read(folder.path(), 6, Readers::All), Err(FileError::NotAFile)));
        assert!(matches!(
            read(&folder.path().join("none"), 6, Readers::All),
            Err(FileError::Io(_))
        ));
    }
}
