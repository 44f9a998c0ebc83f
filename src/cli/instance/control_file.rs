//! The control file: a running server writes it next to the store, so that the command line can
//! find the server and authenticate.
//!
//! The file contains the operator's key, so everybody who can read the file can administer the
//! server. Therefore the file has mode 0600, and the command line refuses a file that others can
//! read or that another user owns.

use std::{
    fmt::Display,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::process::{Pid, geteuid, test_kill_process};
use serde::Deserialize;
use serde_json::json;

use crate::{
    cli::{CliError, Exit},
    config::AdminListen,
    model::Secret,
};

/// The maximum size of a control file, in bytes.
const MAX_BYTES: u64 = 65_536;

/// The control file of this process. Dropping the value deletes the file.
#[derive(Debug)]
pub struct ControlFile {
    path: PathBuf,
}

impl ControlFile {
    /// Writes the control file of a server that is ready: the addresses of its admin and its public
    /// listener (`127.0.0.1:8081`, or `unix:/path`), and the operator's key. The store must be
    /// open in this process: the store's lock proves that an existing control file belongs to a
    /// server that has ended.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(
        path: &Path,
        admin: impl Display,
        public: impl Display,
        key: &Secret,
    ) -> anyhow::Result<Self> {
        let pid = std::process::id();
        let content = json!({
            "address": admin.to_string(),
            "public": public.to_string(),
            "key": key.expose(),
            "pid": pid,
        });
        let mut draft = path.as_os_str().to_owned();
        draft.push(".new");
        let draft = Path::new(&draft);
        let write = || -> io::Result<()> {
            // Remove the draft of a server that was killed before the rename below.
            match fs::remove_file(draft) {
                Err(problem) if problem.kind() != io::ErrorKind::NotFound => return Err(problem),
                _ => {}
            }
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
            file.write_all(content.to_string().as_bytes())?;
            // The rename is atomic: a reader sees the complete new file or the old one.
            fs::rename(draft, path)
        };
        write().with_context(|| format!("cannot write the control file {}", path.display()))?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for ControlFile {
    fn drop(&mut self) {
        // Another server may have replaced the file.
        if let Ok(Some(found)) = find(&self.path)
            && found.pid == std::process::id()
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The content of a control file.
#[derive(Debug)]
pub struct ControlInfo {
    /// The address of the admin listener.
    pub address: AdminListen,
    /// The operator's key.
    pub key: Secret,
    /// The id of the server's process.
    pub pid: u32,
}

#[derive(Deserialize)]
struct ControlJson {
    address: String,
    key: Secret,
    pid: u32,
}

/// Reads a control file. `None` means that there is no file.
///
/// # Errors
/// The file can be read by others, belongs to another user, or is not a valid control file.
pub fn find(path: &Path) -> Result<Option<ControlInfo>, CliError> {
    let unusable = |why: String| {
        CliError::new(Exit::Unreachable, format!("the control file {} {why}", path.display()))
    };
    let file = match File::open(path) {
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|problem| unusable(format!("cannot be read: {problem}")))?,
    };
    // Check the open file, not the path: the path may name another file by now.
    let metadata = file.metadata().map_err(|problem| unusable(problem.to_string()))?;
    check_private(metadata.mode(), metadata.uid(), geteuid().as_raw()).map_err(unusable)?;
    let mut text = zeroize::Zeroizing::new(Vec::new());
    let read = (&file).take(MAX_BYTES).read_to_end(&mut text);
    read.map_err(|problem| unusable(format!("cannot be read: {problem}")))?;
    let invalid = || unusable("is damaged. Remove the file if no server uses this store".into());
    let content: ControlJson = serde_json::from_slice(&text).map_err(|_| invalid())?;
    let address = address(&content.address).ok_or_else(invalid)?;
    Ok(Some(ControlInfo { address, key: content.key, pid: content.pid }))
}

/// Checks that the user `caller` owns a file, and that no other user has access to the file.
fn check_private(mode: u32, owner: u32, caller: u32) -> Result<(), String> {
    if owner != caller {
        return Err(format!(
            "belongs to user {owner}, but this command runs as user {caller}. Run the command as the user of the server"
        ));
    }
    if mode & 0o077 != 0 {
        let mode = mode & 0o777;
        return Err(format!(
            "can be read by others (mode {mode:04o}), who may know the key in it. Restart the server to create a new key and a new file"
        ));
    }
    Ok(())
}

fn address(text: &str) -> Option<AdminListen> {
    match text.strip_prefix("unix:") {
        Some(path) => path.starts_with('/').then(|| AdminListen::Unix(path.into())),
        None => text.parse::<SocketAddr>().ok().map(AdminListen::Tcp),
    }
}

impl ControlInfo {
    /// Whether a process with the server's process id exists. The result is meaningless if the
    /// server runs in another container.
    pub fn is_alive(&self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        // A process exists even if this user may not signal it.
        pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn write_file(folder: &Path) -> (PathBuf, ControlFile) {
        let path = folder.join("keyward.control");
        let key = Secret::new("kwop_1");
        let control = ControlFile::write(&path, "127.0.0.1:8081", "[::1]:80", &key).unwrap();
        (path, control)
    }

    #[test]
    fn control_file_is_found_and_deleted_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        assert!(find(&folder.path().join("keyward.control")).unwrap().is_none());
        let (path, control) = write_file(folder.path());
        let found = find(&path).unwrap().unwrap();
        assert_eq!(found.address, AdminListen::Tcp("127.0.0.1:8081".parse().unwrap()));
        assert_eq!((found.key.expose(), found.pid), ("kwop_1", std::process::id()));
        assert!(found.is_alive());
        assert!(!format!("{found:?}").contains("kwop_1"));
        let text: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(text["public"], "[::1]:80");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(control);
        assert!(!path.exists());
    }

    #[test]
    fn new_file_is_private_and_replaces_an_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyward.control");
        fs::write(&path, "old").unwrap();
        fs::write(folder.path().join("keyward.control.new"), "left over").unwrap();
        let (path, _control) = write_file(folder.path());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(find(&path).unwrap().is_some());
    }

    #[test]
    fn file_of_another_server_is_not_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let (path, control) = write_file(folder.path());
        let other_servers =
            fs::read_to_string(&path).unwrap().replace(&std::process::id().to_string(), "1");
        fs::write(&path, other_servers).unwrap();
        drop(control);
        assert!(path.exists());
    }

    #[test]
    fn file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _control) = write_file(folder.path());
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = find(&path).unwrap_err();
            assert_eq!(refused.exit, Exit::Unreachable, "{mode:o}");
            assert!(refused.to_string().contains("read by others"), "{refused}");
        }
        assert!(check_private(0o100_600, 1000, 1000).is_ok());
        assert!(check_private(0o100_600, 1000, 0).unwrap_err().contains("belongs to user 1000"));
    }

    #[test]
    fn invalid_control_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _control) = write_file(folder.path());
        for text in [
            "",
            "{}",
            r#"{"address":"example.com","key":"k","pid":1}"#,
            r#"{"address":"unix:relative","key":"k","pid":1}"#,
        ] {
            fs::write(&path, text).unwrap();
            assert!(find(&path).unwrap_err().to_string().contains("is damaged"), "{text}");
        }
        fs::write(&path, r#"{"address":"unix:/run/k","key":"k","pid":0}"#).unwrap();
        let found = find(&path).unwrap().unwrap();
        assert_eq!(found.address, AdminListen::Unix("/run/k".into()));
        assert!(!found.is_alive());
    }

    #[test]
    fn ended_process_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let key = Secret::new("k");
        let address = AdminListen::Unix("/x".into());
        assert!(!ControlInfo { address, key, pid }.is_alive());
    }
}
