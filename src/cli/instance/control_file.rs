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

use super::{refusals, users};
use crate::{
    cli::{CliError, Exit},
    config::ListenAddress,
    model::Secret,
};

/// The maximum size of a control file, in bytes.
const MAX_BYTES: u64 = 65_536;
/// The version of the file's format. A file without a version has version 1.
const FORMAT: u64 = 1;

/// The control file of this process. Dropping the value deletes the file.
#[derive(Debug)]
pub struct ControlFile {
    path: PathBuf,
}

impl ControlFile {
    /// Writes the control file of a server that is ready: the addresses of its admin listener, of
    /// the command line's socket, of its public listener and of its verify listener
    /// (`127.0.0.1:8081`, or `unix:/path`), and the operator's key. The store must be open in this
    /// process: the store's lock proves that an existing control file belongs to a server that has
    /// ended.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(
        path: &Path,
        admin: impl Display,
        socket: Option<String>,
        public: impl Display,
        verify: Option<&str>,
        key: &Secret,
    ) -> anyhow::Result<Self> {
        let pid = std::process::id();
        let content = json!({
            "format": FORMAT,
            "address": admin.to_string(),
            "socket": socket,
            "public": public.to_string(),
            "verify": verify,
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
            // Otherwise the file could be empty after a power cut.
            file.sync_all()?;
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
        if let Ok(ControlState::Found(found)) = find(&self.path)
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
    pub address: ListenAddress,
    /// The socket that is for the command line alone. `None` means that there is none.
    pub socket: Option<ListenAddress>,
    /// The address of the public listener. `None` means that the file has no such address.
    pub public: Option<ListenAddress>,
    /// The operator's key.
    pub key: Secret,
    /// The id of the server's process.
    pub pid: u32,
}

/// The state of a control file.
#[derive(Debug)]
pub enum ControlState {
    /// No file.
    Missing,
    /// An empty file, or one with other content, for example after a power cut. Only the store's
    /// lock tells whether a server runs.
    Unreadable,
    /// A complete control file.
    Found(ControlInfo),
}

#[derive(Deserialize)]
struct ControlJson {
    address: String,
    socket: Option<String>,
    public: Option<String>,
    key: Secret,
    pid: u32,
}

/// The part of a control file that every version has.
#[derive(Deserialize)]
struct FormatJson {
    #[serde(default)]
    format: u64,
}

/// Reads a control file.
///
/// # Errors
/// Others can read the file, another user owns it, this user may not read it, or a newer Keyward
/// wrote it.
pub fn find(path: &Path) -> Result<ControlState, CliError> {
    let unusable = |why: String| {
        CliError::new(Exit::Unreachable, format!("the control file {} {why}", path.display()))
    };
    let file = match File::open(path) {
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => {
            return Ok(ControlState::Missing);
        }
        Err(problem) if problem.kind() == io::ErrorKind::PermissionDenied => {
            let text = owner_problem(path).map(unusable).or_else(|| {
                let denied = refusals::denied(path)?;
                Some(CliError::new(Exit::Unreachable, denied))
            });
            return Err(text.unwrap_or_else(|| unusable(format!("cannot be read: {problem}"))));
        }
        opened => opened.map_err(|problem| unusable(format!("cannot be read: {problem}")))?,
    };
    // Check the open file, not the path: the path may name another file by now.
    let metadata = file.metadata().map_err(|problem| unusable(problem.to_string()))?;
    check_private(metadata.mode(), metadata.uid(), geteuid().as_raw()).map_err(unusable)?;
    let mut text = zeroize::Zeroizing::new(Vec::new());
    let read = (&file).take(MAX_BYTES).read_to_end(&mut text);
    read.map_err(|problem| unusable(format!("cannot be read: {problem}")))?;
    if serde_json::from_slice(&text).is_ok_and(|FormatJson { format }| format > FORMAT) {
        let why = "was written by a newer Keyward. Run the keyward command of that version";
        return Err(unusable(why.into()));
    }
    Ok(parse(&text).map_or(ControlState::Unreadable, ControlState::Found))
}

fn parse(text: &[u8]) -> Option<ControlInfo> {
    let ControlJson { address: admin, socket, public, key, pid } =
        serde_json::from_slice(text).ok()?;
    let socket = match socket {
        Some(socket) => Some(address(&socket)?),
        None => None,
    };
    let public = public.and_then(|public| address(&public));
    Some(ControlInfo { address: address(&admin)?, socket, public, key, pid })
}

/// Why this user may not read the file, if another user owns it.
fn owner_problem(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    check_private(metadata.mode(), metadata.uid(), geteuid().as_raw()).err()
}

/// Checks that the user `us` owns a file and that no other user has access to it.
fn check_private(mode: u32, owner: u32, us: u32) -> Result<(), String> {
    if owner != us {
        let fix = match users::name(owner) {
            Some(name) if us == 0 => format!("Run: sudo -u {name} keyward …"),
            None if us == 0 => format!("Run: sudo -u '#{owner}' keyward …"),
            _ => "Run it as the user of the server".into(),
        };
        let (owner, us) = (users::shown(owner), users::shown(us));
        return Err(format!("belongs to user {owner}, but this command runs as user {us}. {fix}"));
    }
    if mode & 0o077 != 0 {
        let mode = mode & 0o777;
        return Err(format!(
            "can be read by others (mode {mode:04o}), who may know the key in it. Restart the server to create a new key and a new file"
        ));
    }
    Ok(())
}

fn address(text: &str) -> Option<ListenAddress> {
    match text.strip_prefix("unix:") {
        Some(path) => path.starts_with('/').then(|| ListenAddress::Unix(path.into())),
        None => text.parse::<SocketAddr>().ok().map(ListenAddress::Tcp),
    }
}

impl ControlInfo {
    /// The addresses to try, in this order: the socket first, which only this user can fill.
    pub fn addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        self.socket.iter().chain([&self.address])
    }

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
        let control =
            ControlFile::write(&path, "127.0.0.1:8081", None, "[::1]:80", None, &key).unwrap();
        (path, control)
    }

    fn found(path: &Path) -> ControlInfo {
        match find(path).unwrap() {
            ControlState::Found(found) => found,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn control_file_is_found_and_deleted_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = find(&folder.path().join("keyward.control")).unwrap();
        assert!(matches!(nothing, ControlState::Missing));
        let (path, control) = write_file(folder.path());
        let found = found(&path);
        assert_eq!(found.address, ListenAddress::Tcp("127.0.0.1:8081".parse().unwrap()));
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
        found(&path);
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
        assert!(check_private(0o100_600, 1000, 0).unwrap_err().contains("id 1000"));
    }

    #[test]
    fn torn_or_foreign_file_is_unreadable() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _control) = write_file(folder.path());
        for text in [
            "",
            "{}",
            r#"{"address":"example.com","key":"k","pid":1}"#,
            r#"{"address":"unix:relative","key":"k","pid":1}"#,
            r#"{"address":"127.0.0.1:1","socket":"relative","key":"k","pid":1}"#,
        ] {
            fs::write(&path, text).unwrap();
            assert!(matches!(find(&path), Ok(ControlState::Unreadable)), "{text}");
        }
        fs::write(&path, r#"{"address":"unix:/run/k","key":"k","pid":0}"#).unwrap();
        let found = found(&path);
        assert_eq!(found.address, ListenAddress::Unix("/run/k".into()));
        assert!(!found.is_alive());
    }

    #[test]
    fn file_of_a_newer_version_is_called_so() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _control) = write_file(folder.path());
        fs::write(&path, r#"{"format":2,"listener":{"admin":"127.0.0.1:1"}}"#).unwrap();
        let problem = find(&path).unwrap_err().to_string();
        assert!(problem.contains("was written by a newer Keyward"), "{problem}");
    }

    #[test]
    fn root_is_told_the_user_of_the_server() {
        let problem = check_private(0o100_600, 4_000_000, 0).unwrap_err();
        assert!(problem.contains("Run: sudo -u '#4000000' keyward …"), "{problem}");
        let problem = check_private(0o100_600, 0, 4_000_000).unwrap_err();
        assert!(problem.contains("belongs to user root (id 0)"), "{problem}");
        assert!(problem.ends_with("Run it as the user of the server"), "{problem}");
    }

    #[test]
    fn ended_process_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let key = Secret::new("k");
        let address = ListenAddress::Unix("/x".into());
        assert!(!ControlInfo { address, socket: None, public: None, key, pid }.is_alive());
    }
}
