//! Reading and creating the pepper file, and reading the HMAC key of another system.
//!
//! A pepper file has 64 hexadecimal digits and the mode 0600, and lies outside the store.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    accounts::{Accounts, AccountsInner},
    files::{self, FileError, Readers},
    model::{Entropy, Pepper},
};

/// The reason why the pepper file or the HMAC key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PepperError {
    /// The pepper file is missing.
    #[error("the pepper file {} is missing. Without the pepper no key can be checked: restore the file from a backup", .0.display())]
    Missing(PathBuf),
    /// Other users of the machine can read the pepper file.
    #[error("other users can read the pepper file {} (mode {mode:04o}). Run: chmod 600 {}", .path.display(), .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// The permission bits.
        mode: u32,
    },
    /// The content of the pepper file is not a pepper.
    #[error("the pepper file {} does not contain 64 hexadecimal digits. Restore the right file from a backup", .0.display())]
    Malformed(PathBuf),
    /// The store was created with another pepper.
    #[error("the pepper in {} is not the pepper that this store was created with, so no key would match. Restore the right file from a backup", .0.display())]
    Wrong(PathBuf),
    /// The other system's HMAC key cannot be read.
    #[error("the HMAC key file {} (store.hmac_key_file) is not usable: {problem}", .path.display())]
    Hmac {
        /// The file.
        path: PathBuf,
        /// The fault.
        problem: FileError,
    },
    /// The other system's HMAC key is too short to be a secret.
    #[error("the HMAC key file {} (store.hmac_key_file) has {length} bytes, but a key has at least {MIN_HMAC_KEY_LENGTH}", .path.display())]
    ShortHmac {
        /// The file.
        path: PathBuf,
        /// The number of bytes.
        length: usize,
    },
    /// The HMAC key is not configured, but some keys cannot be checked without it.
    #[error(
        "the store has {0} imported keys with HMAC-SHA-256 digests, which cannot be checked without the other system's HMAC key. Write that key to a file, and set store.hmac_key_file to its path"
    )]
    NoHmac(usize),
    /// The pepper file cannot be read or written.
    #[error("cannot read or write the pepper file {}: {problem}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
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

/// The minimum length of an HMAC key, in bytes.
const MIN_HMAC_KEY_LENGTH: usize = 8;
/// The maximum size of an HMAC key file, in bytes.
const MAX_HMAC_FILE_SIZE: u64 = 4096;

impl Accounts {
    /// Sets the HMAC key of the system from which HMAC-SHA-256 digests were imported. The file
    /// contains the bytes of the key. A line end after the key is ignored.
    ///
    /// # Errors
    /// The file cannot be read, other users can read it, or the key is too short. It is also an
    /// error if `file` is `None` and the store has keys with HMAC-SHA-256 digests.
    pub fn with_hmac_key(self, file: Option<&Path>) -> Result<Self, PepperError> {
        let Some(path) = file else {
            return match self.directory().hmac_keys() {
                0 => Ok(self),
                count => Err(PepperError::NoHmac(count)),
            };
        };
        let read = files::read(path, MAX_HMAC_FILE_SIZE, Readers::OwnerOnly);
        let bytes = read.map_err(|problem| PepperError::Hmac { path: path.to_owned(), problem })?;
        let key = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let key = key.strip_suffix(b"\r").unwrap_or(key);
        if key.len() < MIN_HMAC_KEY_LENGTH {
            return Err(PepperError::ShortHmac { path: path.to_owned(), length: key.len() });
        }
        let pepper = self.0.pepper.clone().with_hmac_key(key);
        Ok(Self(Arc::new(AccountsInner { pepper, ..Arc::unwrap_or_clone(self.0) })))
    }
}

/// Creates a pepper file. If the file exists, it stays unchanged and the result is an error.
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
    fn pepper_file_is_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/pepper");
        assert!(matches!(read_pepper(&path), Err(PepperError::Missing(_))));
        let created = create_pepper(&path, &Entropy::system()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(read_pepper(&path).unwrap().fingerprint(), created.fingerprint());
        assert!(create_pepper(&path, &Entropy::system()).is_err());
        assert_eq!(read_pepper(&path).unwrap().fingerprint(), created.fingerprint());

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_pepper(&path), Err(PepperError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "0123").unwrap();
        let problem = read_pepper(&path).unwrap_err();
        assert!(!problem.to_string().contains("0123"), "{problem}");
    }
}
