//! The control file: what a running server leaves beside the store, so that the command line finds it and is let in.
//!
//! It holds the operator's key. Whoever can read it may administer: its mode is 0600, and one that others can read, or that somebody else
//! put there, is not used.

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
    cli::{Exit, CliError},
    config::AdminListen,
    model::Secret,
};

/// The longest control file there can be.
const LONGEST: u64 = 65_536;

/// The file of this process. It goes when this goes.
#[derive(Debug)]
pub struct ControlFile {
    path: PathBuf,
}

impl ControlFile {
    /// Writes the control file of a server that is ready: the addresses of its admin and its public listener (`127.0.0.1:8081`, or
    /// `unix:/path`), and the operator's key. Call it with the store open: that is what makes a file that is there already an old one.
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
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = Path::new(&new);
        let write = || -> io::Result<()> {
            // What is left of a server that died here.
            match fs::remove_file(new) {
                Err(problem) if problem.kind() != io::ErrorKind::NotFound => return Err(problem),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
            file.write_all(content.to_string().as_bytes())?;
            // Whoever reads it finds the whole of it, or the one before.
            fs::rename(new, path)
        };
        write().with_context(|| format!("cannot write the control file {}", path.display()))?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for ControlFile {
    fn drop(&mut self) {
        // Another server may have taken its place.
        if let Ok(Some(found)) = find(&self.path)
            && found.pid == std::process::id()
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What a control file says.
#[derive(Debug)]
pub struct Found {
    /// Where the admin API listens.
    pub address: AdminListen,
    /// The operator's key.
    pub key: Secret,
    /// The server's process.
    pub pid: u32,
}

#[derive(Deserialize)]
struct Content {
    address: String,
    key: Secret,
    pid: u32,
}

/// Reads a control file; none where there is none.
///
/// # Errors
/// Others can read it, somebody else owns it, or it is no control file.
pub fn find(path: &Path) -> Result<Option<Found>, CliError> {
    let refused = |why: String| {
        CliError::new(Exit::Unreachable, format!("the control file {} {why}", path.display()))
    };
    let file = match File::open(path) {
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|problem| refused(format!("cannot be read: {problem}")))?,
    };
    // Asked of the open file: the name may stand for another one by now.
    let facts = file.metadata().map_err(|problem| refused(problem.to_string()))?;
    trusted(facts.mode(), facts.uid(), geteuid().as_raw()).map_err(refused)?;
    let mut text = zeroize::Zeroizing::new(Vec::new());
    let read = (&file).take(LONGEST).read_to_end(&mut text);
    read.map_err(|problem| refused(format!("cannot be read: {problem}")))?;
    let broken =
        || refused("holds something else. Remove it if no server runs on this store".into());
    let content: Content = serde_json::from_slice(&text).map_err(|_| broken())?;
    let address = address(&content.address).ok_or_else(broken)?;
    Ok(Some(Found { address, key: content.key, pid: content.pid }))
}

/// Whether a file with this mode and owner is ours alone.
fn trusted(mode: u32, owner: u32, us: u32) -> Result<(), String> {
    if owner != us {
        return Err(format!(
            "belongs to user {owner}, and this is user {us}. Run keyward as the user that the server runs as"
        ));
    }
    if mode & 0o077 != 0 {
        let mode = mode & 0o777;
        return Err(format!(
            "can be read by others (mode {mode:04o}), and so may be known to them. Restart the server: it makes a new one"
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

impl Found {
    /// Whether the server's process is there. One in another container has a number that means nothing here.
    pub fn is_alive(&self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        // A process that may not be signalled is there all the same.
        pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn written(folder: &Path) -> (PathBuf, ControlFile) {
        let path = folder.join("keyward.control");
        let key = Secret::new("kwop_1");
        let control = ControlFile::write(&path, "127.0.0.1:8081", "[::1]:80", &key).unwrap();
        (path, control)
    }

    #[test]
    fn what_is_written_is_found_and_goes_with_its_server() {
        let folder = tempfile::tempdir().unwrap();
        assert!(find(&folder.path().join("keyward.control")).unwrap().is_none());
        let (path, control) = written(folder.path());
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
    fn a_file_is_private_from_its_first_moment_and_replaces_an_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyward.control");
        fs::write(&path, "old").unwrap();
        fs::write(folder.path().join("keyward.control.new"), "left over").unwrap();
        let (path, _control) = written(folder.path());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(find(&path).unwrap().is_some());
    }

    #[test]
    fn another_servers_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, control) = written(folder.path());
        let theirs =
            fs::read_to_string(&path).unwrap().replace(&std::process::id().to_string(), "1");
        fs::write(&path, theirs).unwrap();
        drop(control);
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _control) = written(folder.path());
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = find(&path).unwrap_err();
            assert_eq!(refused.exit, Exit::Unreachable, "{mode:o}");
            assert!(refused.to_string().contains("read by others"), "{refused}");
        }
        assert!(trusted(0o100_600, 1000, 1000).is_ok());
        assert!(trusted(0o100_600, 1000, 0).unwrap_err().contains("belongs to user 1000"));
    }

    #[test]
    fn what_is_no_control_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _control) = written(folder.path());
        for text in [
            "",
            "{}",
            r#"{"address":"example.com","key":"k","pid":1}"#,
            r#"{"address":"unix:relative","key":"k","pid":1}"#,
        ] {
            fs::write(&path, text).unwrap();
            assert!(find(&path).unwrap_err().to_string().contains("something else"), "{text}");
        }
        fs::write(&path, r#"{"address":"unix:/run/k","key":"k","pid":0}"#).unwrap();
        let found = find(&path).unwrap().unwrap();
        assert_eq!(found.address, AdminListen::Unix("/run/k".into()));
        assert!(!found.is_alive());
    }

    #[test]
    fn a_process_that_has_ended_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let key = Secret::new("k");
        let address = AdminListen::Unix("/x".into());
        assert!(!Found { address, key, pid }.is_alive());
    }
}
