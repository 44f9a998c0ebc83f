//! Files that an operator puts there: who may read them, and when they change.

mod changes;

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

pub use changes::Changes;
use rustix::process::geteuid;
use zeroize::Zeroizing;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Others may read it, and it holds a secret.
    #[error("it can be read by others (mode {0:04o}). Take it from them with chmod 600")]
    Exposed(u32),
    /// It has more bytes than it can have.
    #[error("it has more than {0} bytes")]
    TooLong(u64),
    /// It is a folder, a pipe or the like.
    #[error("it is no regular file")]
    NotAFile,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Who may read a file besides its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Anybody.
    All,
    /// Nobody. The group may where another user than us owns the file: that is how root lends a secret.
    OwnerAlone,
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// It is not there, is no regular file, is longer, or others than `readers` may read it.
pub fn read(path: &Path, most: u64, readers: Readers) -> Result<Zeroizing<Vec<u8>>, FileError> {
    // Asked before it is opened: to open a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(FileError::NotAFile);
    }
    let file = File::open(path)?;
    // And of the open file: the name may stand for another one by now.
    let facts = file.metadata()?;
    let is_ours = facts.uid() == geteuid().as_raw();
    if readers == Readers::OwnerAlone && is_exposed(facts.mode(), is_ours) {
        return Err(FileError::Exposed(facts.mode() & 0o777));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(FileError::TooLong(most));
    }
    Ok(bytes)
}

fn is_exposed(mode: u32, is_ours: bool) -> bool {
    let forbidden = if is_ours { 0o077 } else { 0o037 };
    mode & forbidden != 0
}

#[cfg(test)]
mod unit {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_secret_is_its_owners_alone() {
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
        let refused = read(&path, 6, Readers::OwnerAlone).unwrap_err();
        assert!(matches!(refused, FileError::Exposed(0o644)), "{refused}");
        assert_eq!(*read(&path, 6, Readers::All).unwrap(), b"s3cret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(*read(&path, 6, Readers::OwnerAlone).unwrap(), b"s3cret");
    }

    #[test]
    fn only_files_of_a_fitting_size_are_read() {
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
