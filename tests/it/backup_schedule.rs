//! Backups that the server writes by itself, beside the traffic.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{
    harness::{Request, Server, Site, TIMEOUT},
    restore::kill_rounds,
};

/// The scheduled backups of a site and their temporary files, sorted by name.
fn files(site: &Site) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.path().join("data/keyward.backups"));
    let mut found: Vec<PathBuf> =
        entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn is_part(path: impl AsRef<Path>) -> bool {
    path.as_ref().extension().is_some_and(|end| end == "part")
}

fn wait_until(what: &str, is_done: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The body of the readiness check, which must be positive.
fn ready(server: &Server) -> serde_json::Value {
    let response = Request::new(server.admin, "GET", "/health/ready").send();
    assert_eq!(response.status, 200);
    response.json()
}

#[test]
fn server_writes_backups_and_keeps_the_newest() {
    let site =
        Site::new().with_env("KEYWARD_BACKUP__EVERY", "1s").with_env("KEYWARD_BACKUP__KEEP", "2");
    let mut server = site.start();
    server.wait_for_log("removed an old backup");
    assert!(server.stop().success());
    let found = files(&server.site);
    assert!(found.len() == 2 && !found.iter().any(is_part), "{found:?}");
    for file in &found {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        let checked = server.site.json(&["restore", file.to_str().unwrap(), "--check"]);
        assert_eq!(checked["seal"], "right");
    }
    // With a new backup in the folder, a start writes none. The newest one is what matters.
    let site = std::mem::take(&mut server.site).with_env("KEYWARD_BACKUP__EVERY", "1h");
    let server = Server::start(site, server.key.clone());
    assert_eq!(ready(&server)["status"], "ready");
    for file in &files(&server.site) {
        fs::remove_file(file).unwrap();
    }
    let site = server.kill();
    let server = Server::start(site, String::new());
    wait_until("the first backup is written soon after the start", || {
        files(&server.site).iter().any(|file| !is_part(file))
    });
    server.wait_for_log("backup written");
}

#[test]
fn error_of_a_damaged_store_names_the_newest_usable_backup() {
    let site = Site::new().with_env("KEYWARD_BACKUP__EVERY", "1s");
    let mut server = site.start();
    wait_until("two backups are written", || {
        files(&server.site).iter().filter(|file| !is_part(file)).count() > 1
    });
    assert!(server.stop().success());
    let backups = files(&server.site);
    // The newest backup was changed, so the one before it is the newest usable one.
    let (newest, before) = (&backups[backups.len() - 1], &backups[backups.len() - 2]);
    let mut bytes = fs::read(newest).unwrap();
    bytes[100] ^= 1;
    fs::write(newest, bytes).unwrap();
    fs::write(server.site.store().join("KEYWARD"), "damaged").unwrap();
    let output = server.site.run(&["user", "list"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    let name = before.file_name().unwrap().to_str().unwrap();
    assert!(errors.contains("The newest usable backup is") && errors.contains(name), "{errors}");
}

#[test]
fn failed_backup_is_logged_retried_and_shown_in_readiness() {
    let site = Site::new()
        .with_env("KEYWARD_BACKUP__EVERY", "1s")
        .with_env("KEYWARD_BACKUP__DIR", "not-mounted");
    let server = site.start();
    let folder = server.site.path().join("not-mounted").display().to_string();
    server.wait_for_log(&format!(
        "backups cannot be written: the folder {folder} (backup.dir): No such"
    ));
    server.wait_for_log(&format!("could not write a backup: the folder {folder}"));
    wait_until("readiness shows the failure", || ready(&server)["backup_problem"].is_string());
    let checked = server.site.run(&["healthcheck"]);
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(
        checked.status.success() && text.contains("backup was not written: the folder"),
        "{text}"
    );
    fs::create_dir(server.site.path().join("not-mounted")).unwrap();
    wait_until("the backup is retried", || ready(&server)["backup_problem"].is_null());
    server.wait_for_log("backup written");
}

#[test]
fn killed_backup_leaves_only_whole_backups_and_its_rest_is_removed() {
    const ROWS: usize = 3000;
    let site = Site::new();
    site.json(&["init"]);
    let rows: String = (0..ROWS).map(|at| format!("user{at:04},a-key-of-user-{at}\n")).collect();
    fs::write(site.path().join("rows.csv"), rows).unwrap();
    site.json(&["key", "import", "rows.csv", "--create-users"]);
    let mut site = site.with_env("KEYWARD_BACKUP__EVERY", "1s");
    let mut leftovers = 0;
    for round in 0..kill_rounds(5) {
        let had_leftover = files(&site).iter().any(is_part);
        let server = Server::start(site, String::new());
        if had_leftover {
            server.wait_for_log("removed the rest of an interrupted backup");
            leftovers += 1;
        }
        let before = files(&server.site).len();
        wait_until("a backup is being written", || {
            files(&server.site).iter().any(is_part) || files(&server.site).len() > before
        });
        thread::sleep(Duration::from_millis(round * 97 % 60));
        site = server.kill();
        for file in files(&site).iter().filter(|file| !is_part(file)) {
            site.json(&["restore", file.to_str().unwrap(), "--check"]);
        }
    }
    // At least one kill came while a backup was written.
    assert!(leftovers > 0 || files(&site).iter().any(is_part));
}
