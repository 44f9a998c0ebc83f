//! The pepper's file: 64 hexadecimal digits, mode 0600, outside the store.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use crate::model::{Entropy, Pepper};

/// What is wrong with a pepper file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PepperError {
    /// It is not there.
    #[error("the pepper file {} is missing. Without it no key can be checked: put the file back from a backup", .0.display())]
    Missing(PathBuf),
    /// Others may read it.
    #[error("the pepper file {} can be read by others (mode {mode:04o}). Run: chmod 600 {}", .path.display(), .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else.
    #[error("the pepper file {} does not hold 64 hexadecimal digits. Put the right file back from a backup", .0.display())]
    Malformed(PathBuf),
    /// The store was filled under another one.
    #[error("the pepper in {} is not the one that this store was made with: no key would match. Put the right file back from a backup", .0.display())]
    Wrong(PathBuf),
    /// It cannot be read or written.
    #[error("the pepper file {}: {problem}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        problem: io::Error,
    },
}

/// Reads a pepper file.
pub fn read_pepper(path: &Path) -> Result<Pepper, PepperError> {
    let io_error = |problem: io::Error| match problem.kind() {
        io::ErrorKind::NotFound => PepperError::Missing(path.to_owned()),
        _ => PepperError::Io { path: path.to_owned(), problem },
    };
    let mode = fs::metadata(path).map_err(io_error)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(PepperError::Exposed { path: path.to_owned(), mode });
    }
    let text = zeroize::Zeroizing::new(fs::read(path).map_err(io_error)?);
    std::str::from_utf8(&text)
        .ok()
        .and_then(Pepper::from_hex)
        .ok_or_else(|| PepperError::Malformed(path.to_owned()))
}

/// Makes a new pepper file. One that is there is left alone, and an error.
pub fn create_pepper(path: &Path, entropy: &Entropy) -> Result<Pepper, PepperError> {
    let pepper = Pepper::from_bytes(entropy.bytes());
    let write = || -> io::Result<()> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(pepper.to_hex().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|problem| PepperError::Io { path: path.to_owned(), problem })?;
    Ok(pepper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pepper_file_is_private_and_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/pepper");
        assert!(matches!(read_pepper(&path), Err(PepperError::Missing(_))));
        let made = create_pepper(&path, &Entropy::system()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(read_pepper(&path).unwrap().fingerprint(), made.fingerprint());
        assert!(create_pepper(&path, &Entropy::system()).is_err());
        assert_eq!(read_pepper(&path).unwrap().fingerprint(), made.fingerprint());

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_pepper(&path), Err(PepperError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "0123").unwrap();
        let problem = read_pepper(&path).unwrap_err();
        assert!(!problem.to_string().contains("0123"), "{problem}");
    }
}
