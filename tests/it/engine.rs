//! The storage engines through the real program: redb as the store, conversion, and the check.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::harness::{Server, Site};

fn redb_site() -> Site {
    Site::new().with_env("KEYWARD_STORE__ENGINE", "redb")
}

/// Runs a command and returns its exit code and standard error.
fn run(site: &Site, args: &[&str]) -> (i32, String) {
    let output = site.run(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{stderr}");
    (output.status.code().unwrap(), stderr)
}

fn folder_with(data: &Path, start: &str) -> Option<String> {
    let names = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.into_string().ok()).find(|name| name.starts_with(start))
}

#[test]
fn redb_keeps_revocations_through_a_kill() {
    let server = Server::start(redb_site(), String::new());
    let bob = server.user_with_permissions("bob", &["access user profiles"]);
    let request = |server: &Server| {
        server.request("GET", "/user/1").header("API-KEY", &bob.credential).send()
    };
    assert_eq!(request(&server).status, 200);
    assert!(server.site.store().join("store.redb").exists());
    server.site.json(&["key", "revoke", &bob.id]);
    assert_ne!(request(&server).status, 200);
    let server = Server::start(server.kill(), String::new());
    assert_ne!(request(&server).status, 200);
    assert_eq!(server.site.json(&["key", "show", &bob.id])["id"], bob.id);
}

#[test]
fn store_is_converted_there_and_back() {
    let mut server = Server::new();
    let bob = server.user_with_permissions("bob", &["access user profiles"]);
    let (code, stderr) = run(&server.site, &["store", "convert", "--to", "redb"]);
    assert_eq!(code, 5, "{stderr}");
    assert!(stderr.contains("is in use: stop the server first"), "{stderr}");
    assert_eq!(run(&server.site, &["store", "check"]).0, 5);
    server.stop();
    let site = server.kill();
    let before = site.json(&["store", "check"]);
    assert_eq!((&before["engine"], &before["findings"]), (&json!("sled"), &json!([])));

    let converted = site.json(&["store", "convert", "--to", "redb"]);
    assert_eq!(converted["records"], before["records"]);
    assert_eq!(converted["sequence"], before["sequence"]);
    assert!(site.path().join(converted["former_store"].as_str().unwrap()).join("db").exists());
    // The configuration still says sled.
    let (code, stderr) = run(&site, &["user", "list"]);
    assert_eq!(code, 5, "{stderr}");
    assert!(stderr.contains("Set store.engine = \"redb\""), "{stderr}");

    let site = site.with_env("KEYWARD_STORE__ENGINE", "redb");
    let after = site.json(&["store", "check"]);
    let counts = |report: &Value| (report["records"].clone(), report["tables"].clone());
    assert_eq!(counts(&after), counts(&before));
    assert_eq!(after["engine"], "redb");
    let server = Server::start(site, String::new());
    let request = server.request("GET", "/user/1").header("API-KEY", &bob.credential);
    assert_eq!(request.send().status, 200);
    let site = server.kill();
    assert_eq!(site.json(&["store", "convert", "--to", "redb"])["records"], Value::Null);
    assert!(site.json(&["store", "convert", "--to", "sled"])["records"].is_u64());
    let site = site.with_env("KEYWARD_STORE__ENGINE", "sled");
    assert_eq!(site.json(&["user", "show", "bob"])["name"], "bob");
    assert!(folder_with(&site.path().join("data"), "keyward.before-").is_some());
    assert!(folder_with(&site.path().join("data"), "keyward.converting").is_none());
}

#[test]
fn backup_is_restored_into_the_engine_of_the_configuration() {
    let site = redb_site();
    site.json(&["init"]);
    site.json(&["user", "add", "ann"]);
    site.json(&["backup", "all.backup"]);
    site.json(&["restore", "all.backup"]);
    assert!(site.store().join("store.redb").exists());
    assert_eq!(site.json(&["user", "show", "ann"])["name"], "ann");
}

#[test]
fn damaged_store_is_refused_unchanged_and_the_check_says_why() {
    let site = redb_site();
    site.json(&["init"]);
    let file = site.store().join("store.redb");
    let mut bytes = fs::read(&file).unwrap();
    // The second page and all that follow.
    bytes[4096..].iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(&file, &bytes).unwrap();
    for args in [&["store", "check"][..], &["user", "list"], &["serve"]] {
        let (code, stderr) = run(&site, args);
        assert_ne!(code, 0, "{args:?}");
        assert!(stderr.contains("the file store.redb is damaged"), "{args:?}: {stderr}");
        assert!(stderr.contains("Restore the store from a backup"), "{args:?}: {stderr}");
        assert!(fs::read(&file).unwrap() == bytes, "{args:?}");
    }
}

#[test]
fn store_commands_need_a_store_on_the_disk() {
    let site = Site::new();
    for args in [&["store", "check"][..], &["store", "convert", "--to", "redb"]] {
        let (code, stderr) = run(&site, args);
        assert_eq!(code, 5, "{stderr}");
        assert!(stderr.contains("there is no store at"), "{stderr}");
    }
    assert_eq!(run(&site, &["store", "convert", "--to", "etcd"]).0, 2);
    let site = site.with_env("KEYWARD_STORE__ENGINE", "memory");
    assert_eq!(run(&site, &["store", "check"]).0, 2);
}
