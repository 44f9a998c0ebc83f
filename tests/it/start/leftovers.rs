//! Files that a power cut or another version left, missing permissions, and the first key under a
//! service manager.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::geteuid;
use serde_json::json;

use super::{assert_fails, end_of};
use crate::harness::{Server, Site, credential};

/// A user without rights, for tests that run as root.
const NOBODY: u32 = 65534;

fn control_file(site: &Site) -> PathBuf {
    site.path().join("data/keyward.control")
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn torn_control_file_is_no_obstacle() {
    let site = Site::new();
    site.json(&["init"]);
    for torn in ["", "{\"address\":\"127.0.0.1:80", "\0\0\0\0"] {
        write_private(&control_file(&site), torn);
        assert_eq!(site.json(&["user", "show", "admin"])["uid"], 1);
        assert!(!control_file(&site).exists(), "{torn:?} is still there");
    }
    // The server replaces it.
    write_private(&control_file(&site), "");
    let server = Server::start(site, String::new());
    server.site.json(&["user", "add", "bob"]);

    write_private(&control_file(&server.site), "");
    let parts = ["another process uses the store", "not complete", "restart the server"];
    assert_fails(&server.site, &["user", "list"], 5, &parts);
}

#[test]
fn files_of_a_newer_format_are_called_so() {
    let site = Site::new();
    site.json(&["init"]);
    let newer = "was written by a newer Keyward";
    write_private(&control_file(&site), "{\"format\":2,\"addresses\":[]}");
    assert_fails(&site, &["user", "list"], 5, &["the control file", newer]);
    // A server holds the lock of the store, so it replaces the file.
    let mut server = Server::start(site, String::new());
    assert!(server.stop().success());

    let site = server.kill();
    let export = String::from_utf8(site.run(&["export"]).stdout).unwrap();
    let lines: Vec<_> = export.lines().filter(|line| !line.starts_with("# ")).collect();
    let lines = lines.join("\n");
    let state = format!("{}\n[[teams]]\nid = \"a\"\n", lines.replace("version = 1", "version = 2"));
    fs::write(site.path().join("state.toml"), state).unwrap();
    let (code, errors) = end_of(site.command(&["apply", "state.toml"]));
    assert!(
        code == Some(4) && errors.contains("newer version of Keyward wrote this file"),
        "{errors}"
    );

    let marker = site.store().join("KEYWARD");
    let text = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, text.replace("format 2.", "format 3.")).unwrap();
    for args in [&["serve"][..], &["init"], &["user", "list"]] {
        let (code, errors) = end_of(site.command(args));
        assert_eq!(code, Some(5), "{errors}");
        assert!(errors.contains("data/keyward was written by a newer"), "{errors}");
        assert!(!errors.contains("damaged"), "{errors}");
    }
}

/// Lets a command run as a user who may not use the site's files.
fn run_without_rights(mut command: Command) -> Command {
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

#[test]
fn missing_permission_names_the_folder_and_the_user() {
    let site = Site::new();
    site.json(&["init"]);
    let user = if geteuid().is_root() { NOBODY } else { geteuid().as_raw() };
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(site.path(), 0o755);
    let data = site.path().join("data");
    for mode in [0o000, 0o755] {
        // Either the folder of all files cannot be entered, or the store's folder.
        set_mode(&data, mode);
        set_mode(&site.store(), 0o000);
        let folder = if mode == 0 { data.clone() } else { site.store() };
        for args in [&["serve"][..], &["init"], &["user", "list"]] {
            let (code, errors) = end_of(run_without_rights(site.command(args)));
            assert_eq!(code, Some(5), "{errors}");
            assert!(errors.contains(&format!("the folder {}", folder.display())), "{errors}");
            assert!(errors.contains(&format!("id {user})")), "{errors}");
            assert!(!errors.contains("left as it") && !errors.contains("changed"), "{errors}");
        }
        set_mode(&data, 0o755);
        set_mode(&site.store(), 0o700);
    }
    // A new store in a folder that this user may not write to.
    let other = Site::new();
    let owner = fs::metadata(other.path()).unwrap().uid();
    set_mode(other.path(), 0o555);
    let (code, errors) = end_of(run_without_rights(other.command(&["init"])));
    assert_eq!(code, Some(5), "{errors}");
    let place = format!("may not write to the folder {}", other.path().display());
    assert!(errors.contains(&place) && errors.contains(&format!("id {owner})")), "{errors}");
    set_mode(other.path(), 0o755);
}

/// Starts a server under a service manager, and returns the file with its first key.
fn start_as_service(site: Site, variable: &str) -> (Server, PathBuf) {
    let file = site.path().join("data/keyward.first-key");
    let mut command = site.command(&["serve"]);
    command.env(variable, "8:1234");
    (Server::start_with(site, String::new(), command), file)
}

#[test]
fn first_key_is_not_printed_into_a_journal() {
    for variable in ["INVOCATION_ID", "JOURNAL_STREAM"] {
        let (server, file) = start_as_service(Site::new(), variable);
        server.wait_for_log("data/keyward.first-key");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&file).unwrap();
        let key = text.split_whitespace().find(|word| word.starts_with("kw_")).unwrap();
        assert!(text.lines().any(|line| line.trim().starts_with("curl ")), "{text}");
        let request = server.request("GET", "/user/1").header("API-KEY", credential("admin", key));
        assert_eq!(request.send().status, 200);
        assert_eq!(server.printed(), "");
        server.forbid_key_in_log(key);
        // A later start leaves the file to the operator.
        let (server, file) = start_as_service(server.kill(), variable);
        server.wait_for_log("ready");
        assert_eq!(fs::read_to_string(file).unwrap(), text);
    }
}

#[test]
fn init_prints_the_first_key_also_under_a_service_manager() {
    let site = Site::new();
    let mut command = site.command(&["init"]);
    let output = command.env("INVOCATION_ID", "1").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("kw_"));
    assert!(!site.path().join("data/keyward.first-key").exists());
}

#[test]
fn root_is_told_to_use_the_user_of_the_server() {
    let Some(account) = passwd_name(NOBODY).filter(|_| geteuid().is_root()) else {
        // Without root, the unit test of the control file covers the message.
        return;
    };
    let site = Site::new();
    site.json(&["init"]);
    let content = json!({ "address": "127.0.0.1:1", "public": "", "key": "kwop_1", "pid": 1 });
    write_private(&control_file(&site), &content.to_string());
    std::os::unix::fs::chown(control_file(&site), Some(NOBODY), None).unwrap();
    let sudo = format!("Run: sudo -u {account} keyward");
    assert_fails(&site, &["user", "list"], 5, &["belongs to user", "id 65534", &sudo]);
}

fn passwd_name(id: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&id.to_string()))?;
    line.split(':').next().map(str::to_owned)
}
