//! Binds Unix sockets that only the server's own user can use, from their first moment on.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::{fs::Mode, process::umask};
use tokio::net::UnixListener;

use crate::server::BoundSocket;

/// The longest path beside which a draft still has a valid path, in bytes. The path of a Unix
/// socket has at most 107 bytes.
const MAX_PATH: usize = 90;

/// Binds a Unix socket with mode 0600.
///
/// The socket is bound in a private folder beside `path`, gets its mode, and is then moved to
/// `path`. So no other user can connect in between, whatever the umask is.
///
/// # Errors
/// Another file is at `path`, a server listens on it, or the folder cannot be written.
pub fn bind(path: &Path) -> io::Result<BoundSocket> {
    make_way(path)?;
    if path.as_os_str().len() > MAX_PATH {
        return bind_in_place(path);
    }
    let draft = Draft::new(path)?;
    let socket = draft.folder.join("s");
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    // Unlike a rename, a link never replaces a file that another program has just created. Some
    // file systems have no links.
    match fs::hard_link(&socket, path) {
        Err(problem) if problem.kind() == io::ErrorKind::AlreadyExists => return Err(problem),
        Err(_) => fs::rename(&socket, path)?,
        Ok(()) => {}
    }
    Ok(BoundSocket::Unix(listener, path.to_owned()))
}

/// Binds a socket whose path is too long for a draft beside it. The umask holds for the whole
/// process, so a file that another thread creates in this moment is private, too.
fn bind_in_place(path: &Path) -> io::Result<BoundSocket> {
    let before = umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    Ok(BoundSocket::Unix(listener?, path.to_owned()))
}

/// Removes a socket without a listener, which is left over from a killed server. Nothing else is
/// ever removed.
fn make_way(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file at this path that is not a socket; move it away, or choose another path",
        )),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(problem) if problem.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)
            }
            Err(problem) => Err(problem),
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        },
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(problem) => Err(problem),
    }
}

/// A folder that only this user may enter. Dropping the value removes the folder.
struct Draft {
    folder: std::path::PathBuf,
}

impl Draft {
    fn new(path: &Path) -> io::Result<Self> {
        let id = std::process::id();
        for attempt in 0..64 {
            let folder = path.with_file_name(format!(".k{id:x}{attempt}"));
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(Self { folder }),
                Err(problem) if problem.kind() == io::ErrorKind::AlreadyExists => {}
                Err(problem) => return Err(problem),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the folder of the socket is full of left-over folders",
        ))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.folder.join("s"));
        let _ = fs::remove_dir(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn socket_is_private_and_replaces_a_left_over_socket_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = bind(&path).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // A client reaches the socket by its final path.
        tokio::net::UnixStream::connect(&path).await.unwrap();
        let long = folder.path().join("x".repeat(100 - folder.path().as_os_str().len()));
        let _bound_in_place = bind(&long).unwrap();
        assert_eq!(fs::metadata(&long).unwrap().permissions().mode() & 0o777, 0o600);
        // A socket with a listener stays.
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        tokio::net::UnixStream::connect(&path).await.unwrap();
        drop(bound);
    }

    #[tokio::test]
    async fn file_that_is_no_socket_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (file, target) = (folder.path().join("file"), folder.path().join("target"));
        fs::write(&file, "precious").unwrap();
        assert!(bind(&file).unwrap_err().to_string().contains("not a socket"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        // A link is no socket, even if it leads to one.
        drop(std::os::unix::net::UnixListener::bind(&target).unwrap());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(bind(&link).is_err());
        assert!(target.exists() && link.exists());
        // Neither is a folder.
        assert!(bind(folder.path()).is_err());
        assert!(file.exists());
    }
}
