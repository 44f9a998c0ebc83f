//! A restore over a store in which keys were revoked and users were blocked since the backup.

use std::{
    collections::HashSet,
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Key, Server, Site};

/// Runs a restore and returns its exit code and standard error.
fn restore(site: &Site, more: &[&str]) -> (i32, String) {
    let output = site.run(&[&["restore", "all.backup"], more].concat());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{stderr}");
    (output.status.code().unwrap(), stderr)
}

/// The rounds of a test that kills the program. Long runs set the variable.
pub fn kill_rounds(default: u64) -> u64 {
    let text = std::env::var("KEYWARD_TEST_KILL_ROUNDS").ok();
    text.map_or(default, |text| text.parse().unwrap())
}

/// The users and keys of a store of which a backup was made.
struct Keys {
    kept: Key,
    revoked: Key,
    of_blocked: Key,
    of_deleted: Key,
    bounded: Key,
    without_role: Key,
}

/// A server whose records were narrowed after the backup `all.backup`.
fn narrowed_after_backup() -> (Server, Keys) {
    let server = Server::new();
    let profiles = &["access user profiles"];
    let keys = Keys {
        kept: server.user_with_permissions("kept", profiles),
        revoked: server.generate_key("kept", &[]),
        of_blocked: server.user_with_permissions("blocked", profiles),
        of_deleted: server.user_with_permissions("deleted", profiles),
        bounded: server.generate_key("kept", &["--rate-limit", "1000/1m"]),
        without_role: server.user_with_permissions("without", profiles),
    };
    for key in [
        &keys.kept,
        &keys.revoked,
        &keys.of_blocked,
        &keys.of_deleted,
        &keys.bounded,
        &keys.without_role,
    ] {
        assert_eq!(status(&server, key), 200);
    }
    server.site.json(&[
        "resource",
        "add",
        "open",
        "--path",
        "/open",
        "--handler",
        "respond",
        "--method",
        "GET",
        "--authentication",
        "anonymous",
        "--format",
        "any",
        "--status",
        "204",
    ]);
    server.site.json(&["backup", "all.backup"]);
    server.site.json(&["key", "revoke", &keys.revoked.id]);
    server.site.json(&["user", "block", "blocked"]);
    assert!(server.site.run(&["user", "delete", "deleted", "--yes"]).status.success());
    server.site.json(&["key", "edit", &keys.bounded.id, "--rate-limit", "10/1m"]);
    server.site.json(&["user", "edit", "without", "--remove-role", "role-of-without"]);
    server.site.json(&["role", "edit", "role-of-blocked", "--revoke", "access user profiles"]);
    server.site.json(&["resource", "disable", "open"]);
    (server, keys)
}

/// The status of a request for a user's profile.
fn status(server: &Server, key: &Key) -> u16 {
    server.request("GET", "/user/1").header("API-KEY", &key.credential).send().status
}

fn statuses(server: &Server, keys: &Keys) -> [u16; 5] {
    [&keys.kept, &keys.revoked, &keys.of_blocked, &keys.of_deleted, &keys.without_role]
        .map(|key| status(server, key))
}

/// The state of all keys and users.
fn all_records(site: &Site) -> Vec<Value> {
    ["user", "key", "role", "app", "resource"].map(|noun| site.json(&[noun, "list"])).into()
}

#[test]
fn restore_that_would_bring_back_revoked_keys_is_refused_and_lists_them() {
    let (mut server, keys) = narrowed_after_backup();
    let narrowed = statuses(&server, &keys);
    assert_eq!(narrowed, [200, 401, 403, 404, 403]);
    assert!(server.stop().success());
    let before = all_records(&server.site);
    let (exit, stderr) = restore(&server.site, &[]);
    assert_eq!(exit, 4, "{stderr}");
    let lines = [
        format!("key {} (kept): it was revoked at 20", keys.revoked.id),
        format!("key {} (deleted): it was deleted", keys.of_deleted.id),
        format!("key {} (kept): its rate limit is 10/1m", keys.bounded.id),
        "(blocked): the user was blocked".into(),
        "(deleted): it was deleted".into(),
        "(without): the user lost the roles role-of-without".into(),
        "role role-of-blocked (A role): it lost the permissions access user profiles".into(),
        "resource open (/open): it was disabled".into(),
        "--keep-revocations".into(),
        "--bring-back".into(),
    ];
    for line in &lines {
        assert!(stderr.contains(line), "{line}: {stderr}");
    }
    assert!(!stderr.contains(&keys.kept.id), "{stderr}");
    let output = server.site.run(&["restore", "all.backup", "--output", "json"]);
    let problem: Value = serde_json::from_slice(&output.stderr).unwrap();
    let revivals = problem["revivals"].as_array().unwrap();
    assert_eq!(revivals.len(), 8, "{problem}");
    assert_eq!(revivals[0]["kind"], "key");
    assert_eq!(all_records(&server.site), before, "a refused restore changes nothing");

    // The word for it.
    let (exit, stderr) = restore(&server.site, &["--bring-back"]);
    assert!(exit == 0 && stderr.contains(&lines[0]), "{stderr}");
    let entry = &server.site.json(&["audit", "list", "--limit", "1"])[0];
    assert_eq!(entry["action"], "store.restore");
    assert_eq!((&entry["after"]["brought_back"], &entry["after"]["kept"]), (&json!(8), &json!(0)));
    let restored = Server::start(std::mem::take(&mut server.site), server.key.clone());
    assert_eq!(statuses(&restored, &keys), [200; 5]);
    assert_eq!(restored.request("GET", "/open").send().status, 204);
}

#[test]
fn restore_that_keeps_revocations_narrows_the_restored_records() {
    let (mut server, keys) = narrowed_after_backup();
    let narrowed = statuses(&server, &keys);
    server.add_user("late", &[]);
    assert!(server.stop().success());
    let (exit, stderr) = restore(&server.site, &["--keep-revocations"]);
    assert!(exit == 0 && stderr.contains("These later changes were kept:"), "{stderr}");
    let site = std::mem::take(&mut server.site);
    let actions = |limit: &str| -> HashSet<String> {
        let entries = site.json(&["audit", "list", "--limit", limit]);
        let text = |entry: &Value| {
            format!("{} {}", entry["action"].as_str().unwrap(), entry["object"].as_str().unwrap())
        };
        entries.as_array().unwrap().iter().map(text).collect()
    };
    let entries = actions("9");
    for expected in [
        format!("key.change key/{}", keys.revoked.id),
        format!("key.delete key/{}", keys.of_deleted.id),
        format!("key.change key/{}", keys.bounded.id),
        "user.change user/3".into(),
        "user.delete user/4".into(),
        "user.change user/5".into(),
        "role.change role/role-of-blocked".into(),
        "resource.change resource/open".into(),
        "store.restore store".into(),
    ] {
        assert!(entries.contains(&expected), "{expected}: {entries:?}");
    }
    assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
    let users = site.json(&["user", "list"]);
    let names = users.as_array().unwrap().iter().map(|user| user["name"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["admin", "kept", "blocked", "without"]);
    let bounded = site.json(&["key", "show", &keys.bounded.id]);
    assert_eq!(bounded["rate_limit"], "10/1m", "{bounded}");
    // The next restore of this backup is refused as well.
    assert_eq!(restore(&site, &[]).0, 4);
    let restored = Server::start(site, server.key.clone());
    assert_eq!(statuses(&restored, &keys), narrowed);
    assert_ne!(restored.request("GET", "/open").send().status, 204);
    // The numbers of the deleted and of the late user are not given to other people.
    assert_eq!(restored.add_user("next", &[]), 7);
}

#[test]
fn store_that_cannot_be_read_is_replaced_only_with_the_word_for_it() {
    let site = Site::new();
    site.json(&["init"]);
    site.json(&["backup", "all.backup"]);
    let marker = site.store().join("KEYWARD");
    let good = fs::read(&marker).unwrap();
    let refused = |more: &[&str], expected: &str| {
        let (exit, stderr) = restore(&site, more);
        assert!(exit == 5 && stderr.contains(expected), "{more:?}: {exit} {stderr}");
        assert!(stderr.contains("--replace-unreadable"), "{stderr}");
    };
    fs::write(&marker, "damaged").unwrap();
    for more in [&[][..], &["--bring-back"], &["--keep-revocations"]] {
        refused(more, "it is unknown what was revoked or blocked");
    }
    assert_eq!(fs::read(&marker).unwrap(), b"damaged");
    // The rest of a store, without the files by which it is known.
    fs::create_dir(site.path().join("moved")).unwrap();
    for name in ["db", "conf", "KEYWARD"] {
        fs::rename(site.store().join(name), site.path().join("moved").join(name)).unwrap();
    }
    fs::write(site.store().join("snap.1"), "").unwrap();
    refused(&[], "the folder contains other files");
    for name in ["db", "conf", "KEYWARD"] {
        fs::rename(site.path().join("moved").join(name), site.store().join(name)).unwrap();
    }
    fs::remove_file(site.store().join("snap.1")).unwrap();
    let (exit, stderr) = restore(&site, &["--replace-unreadable"]);
    assert_eq!(exit, 0, "{stderr}");
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 1);
    // The word for a store that cannot be read is none for revocations in a store that can.
    let id = site.json(&["key", "list"])[0]["id"].as_str().unwrap().to_owned();
    site.json(&["key", "revoke", &id]);
    let (exit, stderr) = restore(&site, &["--replace-unreadable"]);
    assert!(exit == 4 && stderr.contains(&id), "{stderr}");
    fs::write(site.store().join("KEYWARD"), good).unwrap();
}

#[test]
fn changes_of_another_store_are_not_kept() {
    let site = Site::new();
    site.json(&["init"]);
    site.json(&["backup", "all.backup"]);
    // A new store was made with the same pepper.
    fs::remove_dir_all(site.store()).unwrap();
    site.json(&["init", "--new"]);
    let (exit, stderr) = restore(&site, &["--keep-revocations"]);
    assert!(exit == 4 && stderr.contains("none of the users of this backup"), "{stderr}");
    let (exit, stderr) = restore(&site, &[]);
    assert!(exit == 4 && stderr.contains("user 1 (admin): it was deleted"), "{stderr}");
    assert_eq!(restore(&site, &["--bring-back"]).0, 0);
    assert_eq!(restore(&site, &[]).0, 0);
}

#[test]
fn long_list_is_cut_for_people_and_complete_for_programs() {
    let site = Site::new();
    site.json(&["init"]);
    let rows: String = (0..120).map(|at| format!("user{at:03},a-key-of-user-{at}\n")).collect();
    fs::write(site.path().join("rows.csv"), rows).unwrap();
    site.json(&["key", "import", "rows.csv", "--create-users"]);
    site.json(&["backup", "all.backup"]);
    fs::write(site.path().join("empty.toml"), "version = 1\n").unwrap();
    fs::remove_dir_all(site.store()).unwrap();
    site.json(&["init", "--new"]);
    let (exit, stderr) = restore(&site, &[]);
    assert_eq!(exit, 4, "{stderr}");
    let listed = stderr.lines().filter(|line| line.contains(": it was deleted")).count();
    // 120 users and keys, and the administrator with a key.
    assert!(listed == 100 && stderr.contains("and 142 more"), "{listed}: {stderr}");
    let output = site.run(&["restore", "all.backup", "--output", "json"]);
    let problem: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(problem["revivals"].as_array().unwrap().len(), 242);
}

#[test]
fn killed_restore_never_brings_back_a_revoked_key() {
    let site = Site::new();
    site.json(&["init"]);
    let rows: String = (0..300).map(|at| format!("user{at:03},a-key-of-user-{at}\n")).collect();
    fs::write(site.path().join("rows.csv"), rows).unwrap();
    site.json(&["key", "import", "rows.csv", "--create-users"]);
    site.json(&["backup", "all.backup"]);
    let key = site.json(&["key", "list", "user007"]);
    site.json(&["key", "revoke", key[0]["id"].as_str().unwrap()]);
    let revoked = |site: &Site| {
        let keys = site.json(&["key", "list"]);
        let is_revoked = |key: &&Value| key["state"] == "revoked";
        keys.as_array().unwrap().iter().filter(is_revoked).count()
    };
    assert_eq!(revoked(&site), 1);
    site.json(&["user", "add", "late"]);
    // The time of a whole restore, so that the kills are spread over it.
    let started = Instant::now();
    assert_eq!(restore(&site, &["--keep-revocations"]).0, 0);
    let whole = started.elapsed();
    let rounds = kill_rounds(10);
    for round in 0..rounds {
        let mut command = site.command(&["restore", "all.backup", "--keep-revocations"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let share = (round * 7919 % 101) as u32;
        thread::sleep(whole * share / 100 + Duration::from_micros(round * 131 % 1000));
        let _ = child.kill();
        child.wait().unwrap();
        assert_eq!(revoked(&site), 1, "round {round}");
        assert_eq!(site.json(&["audit", "verify"])["state"], "intact", "round {round}");
    }
}
