//! Backups, from the outside.

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

/// Everything that can be listed.
fn all(site: &Site) -> Vec<Value> {
    let nouns = ["user", "key", "role", "app", "resource"];
    nouns.iter().map(|noun| site.json(&[noun, "list"])).collect()
}

fn code(site: &Site, args: &[&str]) -> (i32, String) {
    let output = site.run(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().unwrap(), said)
}

/// A folder with the pepper of another, and a copy of its backup.
fn beside(site: &Site) -> Site {
    let other = Site::new();
    fs::create_dir_all(other.path().join("data")).unwrap();
    for name in ["data/keyward.pepper", "all.backup"] {
        fs::copy(site.path().join(name), other.path().join(name)).unwrap();
    }
    other
}

#[test]
fn what_is_backed_up_while_everybody_works_is_put_back() {
    let server = Server::new();
    let bob = server.user_with("bob", &["access user profiles"]);
    let gone = server.key("bob", &[]);
    server.site.json(&["key", "revoke", &gone.id]);
    let before = all(&server.site);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Whoever asks is answered; whoever writes waits a little.
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                let asked = server.request("GET", "/user/1").header("API-KEY", &bob.credential);
                assert_eq!(asked.send().status, 200);
            }
        });
        let made = server.site.json(&["backup", "all.backup"]);
        assert!(made["records"].as_u64().unwrap() > 10, "{made}");
        is_done.store(true, Ordering::Relaxed);
    });
    let file = server.site.path().join("all.backup");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // What comes later is not in it; a file that is there is left alone.
    server.site.json(&["user", "add", "late"]);
    let held = fs::read(&file).unwrap();
    let (exit, said) = code(&server.site, &["backup", "all.backup"]);
    assert!(exit == 4 && said.contains("there is such a file already"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), held);
    server.site.json(&["backup", "later.backup"]);
    assert_ne!(fs::read(server.site.path().join("later.backup")).unwrap(), held);

    let other = beside(&server.site);
    let (exit, said) = code(&other, &["restore", "all.backup"]);
    assert_eq!(exit, 0, "{said}");
    assert_eq!(all(&other), before);
    assert_eq!(other.json(&["audit", "list", "--limit", "1"])[0]["action"], "store.restore");
    assert_eq!(other.json(&["audit", "verify"])["state"], "intact");
    let restored = Server::start(other, server.key.clone());
    let status = |credential: &str| {
        restored.request("GET", "/user/1").header("API-KEY", credential).send().status
    };
    assert_eq!((status(&bob.credential), status(&gone.credential)), (200, 401));
    assert_eq!(restored.asks("GET", "/user/2").send().status, 200);
    // Numbers go on where they were.
    assert_eq!(restored.user("next", &[]), 3);
}

#[test]
fn the_store_that_was_there_is_kept_aside() {
    let site = Site::new();
    site.json(&["init"]);
    site.json(&["backup", "all.backup"]);
    let same = site.run(&["backup", "same.backup"]);
    assert!(same.status.success());
    let read = |name: &str| fs::read(site.path().join(name)).unwrap();
    assert_eq!(read("all.backup"), read("same.backup"));
    site.json(&["user", "add", "late"]);
    let (exit, said) = code(&site, &["restore", "all.backup"]);
    assert!(exit == 0 && said.contains("The store that was there is in"), "{said}");
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 1);
    let aside = fs::read_dir(site.path().join("data")).unwrap();
    let aside = aside
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_str().unwrap().contains(".before-"))
        .unwrap();
    fs::remove_dir_all(site.store()).unwrap();
    fs::rename(aside, site.store()).unwrap();
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
}

#[test]
fn what_is_not_whole_or_not_ours_changes_nothing() {
    let site = Site::new();
    site.json(&["init"]);
    site.json(&["backup", "all.backup"]);
    site.json(&["user", "add", "late"]);
    let before = all(&site);
    let good = fs::read(site.path().join("all.backup")).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let newer = [b"keyward backup 2\n", &good[17..]].concat();
    for (bytes, says) in [
        (&good[..good.len() / 2], "cut short"),
        (&good[..good.len() - 1], "cut short"),
        (&flipped, "damaged"),
        (&newer, "a newer Keyward wrote it"),
        (b"", "not a backup"),
        (b"PK\x03\x04 and much more", "not a backup"),
    ] {
        fs::write(site.path().join("bad.backup"), bytes).unwrap();
        for args in [&["restore", "bad.backup"][..], &["restore", "bad.backup", "--check"]] {
            let (exit, said) = code(&site, args);
            assert!(exit == 4 && said.contains(says), "{says}: {said}");
        }
        assert_eq!(all(&site), before);
    }
    assert_eq!(code(&site, &["restore", "none.backup"]).0, 2);
    assert_eq!(code(&site, &["restore", "all.backup", "--check"]).0, 0);
    // Another installation's.
    let other = Site::new();
    other.json(&["init"]);
    fs::copy(site.path().join("all.backup"), other.path().join("all.backup")).unwrap();
    let theirs = all(&other);
    let (exit, said) = code(&other, &["restore", "all.backup"]);
    assert!(exit == 4 && said.contains("another pepper"), "{said}");
    assert_eq!(all(&other), theirs);
    let (exit, _) = code(&Site::new(), &["restore", "all.backup"]);
    assert_eq!(exit, 5, "without any pepper");
    // While a server runs.
    let server = Server::start(site, String::new());
    let (exit, said) = code(&server.site, &["restore", "all.backup"]);
    assert!(exit == 5 && said.contains("stop the server first"), "{said}");
    assert_eq!(all(&server.site), before);
    // Nothing of all this is left lying about.
    let names: Vec<String> = fs::read_dir(server.site.path().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().all(|name| !name.contains("before") && !name.contains("restoring")),
        "{names:?}"
    );
}

#[test]
fn a_restore_that_is_killed_leaves_the_one_store_or_the_other() {
    let site = Site::new();
    site.json(&["init"]);
    for name in ["a", "b", "c"] {
        site.json(&["user", "add", name]);
    }
    site.json(&["backup", "all.backup"]);
    site.json(&["user", "add", "late"]);
    for patience in [2, 4, 6, 8, 10, 12, 15, 20, 30] {
        let restore = &["restore", "all.backup"];
        let mut child =
            site.command(restore).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(patience));
        let _ = child.kill();
        child.wait().unwrap();
        let users = site.json(&["user", "list"]).as_array().unwrap().len();
        assert!([4, 5].contains(&users), "{users} after {patience} ms");
        assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
    }
    assert_eq!(code(&site, &["restore", "all.backup"]).0, 0);
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 4);
}

#[test]
fn only_the_person_at_the_machine_has_files_written() {
    let server = Server::new();
    let file = server.site.path().join("x.backup");
    let body = json!({ "file": file.to_str().unwrap() });
    let answer = server.manages("POST", "/api/v1/backup").json(&body).send();
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert!(!file.exists());
    let control = fs::read_to_string(server.site.path().join("data/keyward.control")).unwrap();
    let control: Value = serde_json::from_str(&control).unwrap();
    let ask = |body: Value| {
        crate::harness::Request::new(server.admin, "POST", "/api/v1/backup")
            .header("AUTH-METHOD", "keyward.operator")
            .header("Authorization", format!("Bearer {}", control["key"].as_str().unwrap()))
            .json(&body)
            .send()
    };
    assert_eq!(ask(json!({ "file": "x.backup" })).status, 422);
    assert_eq!(ask(json!({ "file": "/nowhere/at/all" })).status, 409);
    assert_eq!(ask(body).status, 201);
    assert!(file.exists());
}
