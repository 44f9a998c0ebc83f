//! Tests of backup and restore through the command line and the admin API.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{Server, Site};

/// All records of the kinds that the command line can list.
fn all_records(site: &Site) -> Vec<Value> {
    let nouns = ["user", "key", "role", "app", "resource"];
    nouns.iter().map(|noun| site.json(&[noun, "list"])).collect()
}

/// Runs a command and returns its exit code and standard error.
fn run(site: &Site, args: &[&str]) -> (i32, String) {
    let output = site.run(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{stderr}");
    (output.status.code().unwrap(), stderr)
}

/// A new folder with a copy of the site's pepper and backup.
fn copy_of_pepper_and_backup(site: &Site) -> Site {
    let other = Site::new();
    fs::create_dir_all(other.path().join("data")).unwrap();
    for name in ["data/keyward.pepper", "all.backup"] {
        fs::copy(site.path().join(name), other.path().join(name)).unwrap();
    }
    other
}

#[test]
fn a_backup_taken_under_load_can_be_restored() {
    let server = Server::new();
    let bob = server.user_with_permissions("bob", &["access user profiles"]);
    let revoked = server.generate_key("bob", &[]);
    server.site.json(&["key", "revoke", &revoked.id]);
    let before = all_records(&server.site);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        // The server must respond to requests while the backup runs.
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                let request = server.request("GET", "/user/1").header("API-KEY", &bob.credential);
                assert_eq!(request.send().status, 200);
            }
        });
        let created = server.site.json(&["backup", "all.backup"]);
        assert!(created["records"].as_u64().unwrap() > 10, "{created}");
        is_done.store(true, Ordering::Relaxed);
    });
    let file = server.site.path().join("all.backup");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // Later changes are not in the backup, and an existing file is not overwritten.
    server.site.json(&["user", "add", "late"]);
    let bytes = fs::read(&file).unwrap();
    let (exit, stderr) = run(&server.site, &["backup", "all.backup"]);
    assert!(exit == 4 && stderr.contains("there is such a file already"), "{stderr}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
    server.site.json(&["backup", "later.backup"]);
    assert_ne!(fs::read(server.site.path().join("later.backup")).unwrap(), bytes);

    let other = copy_of_pepper_and_backup(&server.site);
    let (exit, stderr) = run(&other, &["restore", "all.backup"]);
    assert_eq!(exit, 0, "{stderr}");
    assert_eq!(all_records(&other), before);
    assert_eq!(other.json(&["audit", "list", "--limit", "1"])[0]["action"], "store.restore");
    assert_eq!(other.json(&["audit", "verify"])["state"], "intact");
    let restored = Server::start(other, server.key.clone());
    let status = |credential: &str| {
        restored.request("GET", "/user/1").header("API-KEY", credential).send().status
    };
    assert_eq!((status(&bob.credential), status(&revoked.credential)), (200, 401));
    assert_eq!(restored.request_as_admin("GET", "/user/2").send().status, 200);
    // The next UID follows the UIDs in the backup.
    assert_eq!(restored.add_user("next", &[]), 3);
}

#[test]
fn a_restore_keeps_the_previous_store() {
    let site = Site::new();
    site.json(&["init"]);
    site.json(&["backup", "all.backup"]);
    let same = site.run(&["backup", "same.backup"]);
    assert!(same.status.success());
    let read = |name: &str| fs::read(site.path().join(name)).unwrap();
    assert_eq!(read("all.backup"), read("same.backup"));
    site.json(&["user", "add", "late"]);
    let (exit, stderr) = run(&site, &["restore", "all.backup"]);
    assert!(exit == 0 && stderr.contains("The store that was there is in"), "{stderr}");
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 1);
    let entries = fs::read_dir(site.path().join("data")).unwrap();
    let previous = entries
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_str().unwrap().contains(".before-"))
        .unwrap();
    fs::remove_dir_all(site.store()).unwrap();
    fs::rename(previous, site.store()).unwrap();
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
}

#[test]
fn a_rejected_restore_changes_nothing() {
    let site = Site::new();
    site.json(&["init"]);
    site.json(&["backup", "all.backup"]);
    site.json(&["user", "add", "late"]);
    let before = all_records(&site);
    let good = fs::read(site.path().join("all.backup")).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let with_version = |start: &[u8]| [start, &good[17..]].concat();
    let newer = with_version(b"keyward backup 3\n");
    let unsealed = with_version(b"keyward backup 1\n");
    // A person without the pepper can compute the checksum again, but not the seal.
    let (records, seals) = good.split_at(good.len() - 64);
    let mut forged = records.to_vec();
    let at = forged.windows(5).position(|part| part == b"admin").unwrap();
    forged[at..at + 5].copy_from_slice(b"nimda");
    let checksum = blake3::hash(&forged);
    let forged = [&forged, &checksum.as_bytes()[..], &seals[32..]].concat();
    for (bytes, expected) in [
        (&good[..good.len() / 2], "truncated"),
        (&good[..good.len() - 1], "truncated"),
        (&flipped, "damaged"),
        (&newer, "a newer Keyward wrote the backup"),
        (&unsealed, "has no seal"),
        (&forged, "was changed after it was written"),
        (b"", "not a backup"),
        (b"PK\x03\x04 and much more", "not a backup"),
    ] {
        fs::write(site.path().join("bad.backup"), bytes).unwrap();
        for args in [&["restore", "bad.backup"][..], &["restore", "bad.backup", "--check"]] {
            let (exit, stderr) = run(&site, args);
            assert!(exit == 4 && stderr.contains(expected), "{expected}: {stderr}");
        }
        assert_eq!(all_records(&site), before);
    }
    assert_eq!(run(&site, &["restore", "none.backup"]).0, 2);
    assert_eq!(run(&site, &["restore", "all.backup", "--check"]).0, 0);
    check_without_pepper(&site, &good, &forged, &flipped);
    // A backup is rejected if the installation has another pepper.
    let other = Site::new();
    other.json(&["init"]);
    fs::copy(site.path().join("all.backup"), other.path().join("all.backup")).unwrap();
    let before_restore = all_records(&other);
    let (exit, stderr) = run(&other, &["restore", "all.backup"]);
    assert!(exit == 4 && stderr.contains("another pepper"), "{stderr}");
    assert_eq!(all_records(&other), before_restore);
    let (exit, _) = run(&Site::new(), &["restore", "all.backup"]);
    assert_eq!(exit, 5, "restore into a folder without a pepper");
    // A restore is rejected while a server runs.
    let server = Server::start(site, String::new());
    let (exit, stderr) = run(&server.site, &["restore", "all.backup"]);
    assert!(exit == 5 && stderr.contains("stop the server first"), "{stderr}");
    assert_eq!(all_records(&server.site), before);
    // The failed restores left no temporary folders.
    let names: Vec<String> = fs::read_dir(server.site.path().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().all(|name| !name.contains("before") && !name.contains("restoring")),
        "{names:?}"
    );
}

/// Without the pepper, only completeness can be checked, and only if the operator asked for that.
fn check_without_pepper(site: &Site, good: &[u8], forged: &[u8], damaged: &[u8]) {
    let pepper = site.path().join("data/keyward.pepper");
    let hidden = site.path().join("hidden");
    fs::rename(&pepper, &hidden).unwrap();
    let check = |bytes: &[u8], more: &[&str]| {
        fs::write(site.path().join("bad.backup"), bytes).unwrap();
        run(site, &[&["restore", "bad.backup", "--check"], more].concat())
    };
    let (exit, stderr) = check(good, &[]);
    let unknown = "it is unknown whether it was changed";
    assert!(
        exit == 5 && stderr.contains(unknown) && stderr.contains("--without-pepper"),
        "{stderr}"
    );
    assert!(stderr.contains("keyward.pepper is missing"), "{stderr}");
    for complete in [good, forged] {
        let (exit, stderr) = check(complete, &["--without-pepper"]);
        assert!(exit == 0 && stderr.contains("Its seal was not checked"), "{stderr}");
    }
    for more in [&[][..], &["--without-pepper"]] {
        let (exit, stderr) = check(damaged, more);
        assert!(exit == 4 && stderr.contains("damaged"), "{stderr}");
    }
    assert_eq!(run(site, &["restore", "all.backup", "--without-pepper"]).0, 2);
    fs::rename(&hidden, &pepper).unwrap();
}

#[test]
fn a_backup_names_the_files_that_it_does_not_contain() {
    let site = Site::new().with_env("KEYWARD_SCRIPTS__SECRETS_DIR", "/run/secrets");
    site.json(&["init"]);
    fs::write(site.path().join("all.backup.part"), "the rest of a killed backup").unwrap();
    let (exit, stderr) = run(&site, &["backup", "all.backup"]);
    assert_eq!(exit, 0, "{stderr}");
    let data = site.path().canonicalize().unwrap();
    for expected in [
        "all.backup.part, the rest of an interrupted backup".to_owned(),
        format!("the pepper: {}", data.join("data/keyward.pepper").display()),
        format!("the scripts: {}", data.join("scripts").display()),
        "their secrets: /run/secrets".to_owned(),
    ] {
        assert!(stderr.contains(&expected), "{expected}: {stderr}");
    }
    assert!(!site.path().join("all.backup.part").exists());
    let made = site.json(&["backup", "other.backup"]);
    assert_eq!(made["not_included"][2], "/run/secrets");
    assert_eq!(made["replaced_leftover"], false);
}

#[test]
fn a_killed_restore_leaves_either_the_old_or_the_new_store() {
    let site = Site::new();
    site.json(&["init"]);
    for name in ["a", "b", "c"] {
        site.json(&["user", "add", name]);
    }
    site.json(&["backup", "all.backup"]);
    site.json(&["user", "add", "late"]);
    for delay in [2, 4, 6, 8, 10, 12, 15, 20, 30] {
        let restore = &["restore", "all.backup"];
        let mut child =
            site.command(restore).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(delay));
        let _ = child.kill();
        child.wait().unwrap();
        let users = site.json(&["user", "list"]).as_array().unwrap().len();
        assert!([4, 5].contains(&users), "{users} after {delay} ms");
        assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
    }
    assert_eq!(run(&site, &["restore", "all.backup"]).0, 0);
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 4);
}

#[test]
fn only_the_operator_can_write_a_backup_file() {
    let server = Server::new();
    let file = server.site.path().join("x.backup");
    let body = json!({ "file": file.to_str().unwrap() });
    let response = server.admin_api("POST", "/api/v1/backup").json(&body).send();
    assert_eq!(response.status, 403, "{}", response.body);
    assert!(!file.exists());
    let control = fs::read_to_string(server.site.path().join("data/keyward.control")).unwrap();
    let control: Value = serde_json::from_str(&control).unwrap();
    let backup_as_operator = |body: Value| {
        crate::harness::Request::new(server.admin, "POST", "/api/v1/backup")
            .header("AUTH-METHOD", "keyward.operator")
            .header("Authorization", format!("Bearer {}", control["key"].as_str().unwrap()))
            .json(&body)
            .send()
    };
    assert_eq!(backup_as_operator(json!({ "file": "x.backup" })).status, 422);
    assert_eq!(backup_as_operator(json!({ "file": "/nowhere/at/all" })).status, 409);
    assert_eq!(backup_as_operator(body).status, 201);
    assert!(file.exists());
}
