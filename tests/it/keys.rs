//! Tests of the life cycle of keys: rotation, commands that take a pasted key, and `key scan`.

use std::{
    io::Write as _,
    process::{Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Server, Site, TIMEOUT, credential};

/// Runs a command with this standard input.
fn run_with_stdin(site: &Site, args: &[&str], input: &[u8]) -> Output {
    let mut child = site
        .command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The write may fail, because the command may end without reading its standard input.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn status(server: &Server, name: &str, key: &str) -> u16 {
    server.request("GET", "/user/1").header("API-KEY", credential(name, key)).send().status
}

#[test]
fn both_keys_work_until_the_overlap_of_a_rotation_ends() {
    let server = Server::new();
    let old = server.user_with_permissions("bob", &["access user profiles"]);
    let new = server.site.json(&["key", "rotate", &old.id, "--overlap", "2s"]);
    let started = Instant::now();
    let (id, key) = (new["id"].as_str().unwrap(), new["key"].as_str().unwrap());
    server.forbid_in_log(key.rsplit('_').next().unwrap());
    assert_eq!(new["replaces"]["id"], old.id.as_str());
    assert_eq!(new["replaces"]["rotated"]["to"], id);
    assert_eq!(status(&server, "bob", key), 200);
    let old_status = status(&server, "bob", &old.text);
    assert!(old_status == 200 || started.elapsed() > Duration::from_secs(1), "{old_status}");
    while status(&server, "bob", &old.text) == 200 {
        assert!(started.elapsed() < TIMEOUT, "the overlap does not end");
        thread::sleep(Duration::from_millis(20));
    }
    server.request("GET", "/user/1").header("API-KEY", &old.credential).send().assert_error(
        401,
        "AUTHENTICATION_FAILED",
        "The API key has expired.",
    );
    assert_eq!(status(&server, "bob", key), 200);
}

#[test]
fn invalid_rotation_is_rejected_and_changes_nothing() {
    let server = Server::new();
    server.add_user("bob", &[]);
    let key = server.generate_key("bob", &["--expires", "1h"]);
    let target = format!("/api/v1/keys/{}/rotate", key.id);
    let rotate = |body: Value| server.admin_api("POST", &target).json(&body).send();
    for (body, location) in [
        (json!({ "overlap": -1 }), "overlap"),
        (json!({ "overlap": "-1h" }), "overlap"),
        (json!({ "overlap": "2h" }), "overlap"),
        (json!({ "overlap": 3700 }), "overlap"),
        (json!({ "overlap": 0.5 }), "overlap"),
        (json!({ "overlap": true }), "overlap"),
        (json!({ "expires": "yesterday" }), "expires"),
        (json!({ "expires": "2001-01-01T00:00:00Z" }), "expires"),
        (json!({ "expiry": "1h" }), "expiry"),
    ] {
        let response = rotate(body.clone());
        assert_eq!(response.status, 422, "{body}: {}", response.body);
        assert_eq!(response.json()["errors"][0]["location"], location, "{body}");
        assert!(response.json()["errors"][0]["fix"].as_str().is_some_and(|fix| !fix.is_empty()));
    }
    assert_eq!(
        server.admin_api("GET", "/api/v1/users/2/keys").send().json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let response = rotate(json!({ "overlap": "1m", "expires": "90d" }));
    assert_eq!(response.status, 201, "{}", response.body);
    server.forbid_in_log(response.json()["key"].as_str().unwrap().rsplit('_').next().unwrap());
    assert_eq!(
        response.header("location").unwrap(),
        format!("/api/v1/keys/{}", response.json()["id"].as_str().unwrap())
    );
    assert_eq!(rotate(json!({})).status, 409);
    server.site.json(&["key", "revoke", &key.id]);
    assert_eq!(rotate(json!({})).status, 409);
    assert_eq!(
        server.admin_api("POST", "/api/v1/keys/00000000/rotate").json(&json!({})).send().status,
        404
    );
}

#[test]
fn caller_cannot_rotate_a_key_that_it_could_not_create() {
    let server = Server::new();
    let helper = server.user_with_permissions("helper", &["administer users", "read"]);
    let rotate = |credential: &str, id: &str| {
        let target = format!("/api/v1/keys/{id}/rotate");
        let request = crate::harness::Request::new(server.admin, "POST", &target);
        request.header("API-KEY", credential).json(&json!({})).send()
    };
    let admin_keys = server.site.json(&["key", "list", "admin"]);
    let response = rotate(&helper.credential, admin_keys[0]["id"].as_str().unwrap());
    assert_eq!(response.status, 403, "{}", response.body);
    // A key with scopes cannot rotate a key without scopes.
    let scoped = server.generate_key("helper", &["--scope", "administer users"]);
    assert_eq!(rotate(&scoped.credential, &helper.id).status, 403);
    let wider = server.generate_key("helper", &["--scope", "administer users", "--scope", "read"]);
    assert_eq!(rotate(&scoped.credential, &wider.id).status, 403);
    let response = rotate(&scoped.credential, &scoped.id);
    assert_eq!(response.status, 201, "{}", response.body);
    server.forbid_in_log(response.json()["key"].as_str().unwrap().rsplit('_').next().unwrap());
    let reader = server.user_with_permissions("reader", &["read"]);
    assert_eq!(rotate(&reader.credential, &reader.id).status, 403);
}

#[test]
fn pasted_key_is_shown_and_revoked_but_never_printed() {
    let server = Server::new();
    let key = server.user_with_permissions("bob", &["access user profiles"]);
    let pasted = format!("{}\n", key.text);
    let output =
        run_with_stdin(&server.site, &["key", "show", "-", "--output", "json"], pasted.as_bytes());
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["id"], key.id.as_str());
    assert!(!text(&output.stdout).contains(&key.text));
    let mut damaged = key.text.clone().into_bytes();
    damaged[15] = if damaged[15] == b'a' { b'b' } else { b'a' };
    for wrong in [&damaged[..], b"hunter2", b"", b"\xff\xfe"] {
        let output = run_with_stdin(&server.site, &["key", "revoke", "-"], wrong);
        assert_eq!(output.status.code(), Some(2));
        let stderr = text(&output.stderr);
        assert!(wrong.is_empty() || !stderr.contains(&*String::from_utf8_lossy(wrong)), "{stderr}");
    }
    // A command with a key as its argument is rejected, and does not print the key.
    let output = server.site.run(&["key", "revoke", &key.text]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!text(&output.stderr).contains(&key.text));
    assert_eq!(status(&server, "bob", &key.text), 200);
    let output = run_with_stdin(&server.site, &["key", "revoke", "-"], pasted.as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(status(&server, "bob", &key.text), 401);
}

#[test]
fn key_scan_finds_keys_in_files_without_a_store() {
    let server = Server::new();
    let first = server.user_with_permissions("bob", &[]);
    server.patch_application(json!({ "key_prefix": "acme" }));
    let second = server.generate_key("bob", &[]);
    assert!(second.text.starts_with("acme_"));
    // The scan works without a store and with an invalid configuration.
    let site = Site::new().with_env("KEYWARD_LIMITS__HEADERS", "nonsense");
    let write_file = |name: &str, text: &[u8]| {
        let path = site.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write_file(
        "a/clean.txt",
        b"nothing here, not even kw_00000000_000000000000000000000000000000000000",
    );
    assert!(site.run(&["key", "scan", "a"]).status.success());
    write_file("a/b/.env", format!("X=1\nKEY={}\n", first.text).as_bytes());
    write_file("a/curl.log", format!("> API-KEY: {}\n", second.credential).as_bytes());
    write_file("a/image", &[&[0xff, 0, 0xd8][..], second.text.as_bytes(), &[0xfe]].concat());
    std::os::unix::fs::symlink(".", site.path().join("a/loop")).unwrap();
    let output = site.run(&["key", "scan", "a"]);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    let last_four = |key: &str| key[key.len() - 4..].to_owned();
    let expected = format!(
        "a/b/.env:2:5: {} kw…{}\na/curl.log:1:12: {} acme…{} (in a Base64 credential)\na/image:1:4: {} acme…{}\n",
        first.id,
        last_four(&first.text),
        second.id,
        last_four(&second.text),
        second.id,
        last_four(&second.text)
    );
    assert_eq!(text(&output.stdout), expected);
    assert!(text(&output.stderr).contains("3 keys were found"), "{}", text(&output.stderr));
    for path in ["a/b", "a/curl.log"] {
        let output = site.run(&["key", "scan", path, "--output", "json"]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found.as_array().unwrap().len(), 1);
        assert!(!text(&output.stdout).contains(&first.text));
    }
    let output = run_with_stdin(&site, &["key", "scan", "--output", "json"], first.text.as_bytes());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found[0]["file"], &found[0]["id"]), (&json!("-"), &json!(first.id)));
    let output = site.run(&["key", "scan", "a/clean.txt", "a/missing"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("a/missing cannot be read"), "{}", text(&output.stderr));
}

#[test]
fn rotation_under_load_loses_no_request() {
    let server = Server::new();
    let key = server.user_with_permissions("busy", &["access user profiles"]);
    let current = Mutex::new(key.text.clone());
    let (is_over, responses) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // Each client uses a key for three requests, even if the key is rotated after
                    // the first request.
                    let text = current.lock().unwrap().clone();
                    for _ in 0..3 {
                        let request = server.request("GET", "/user/1");
                        let response = request.header("API-KEY", credential("busy", &text)).send();
                        assert_eq!(response.status, 200, "{}", response.body);
                        responses.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut id = key.id.clone();
        for _ in 0..30 {
            let target = format!("/api/v1/keys/{id}/rotate");
            let created =
                server.admin_api("POST", &target).json(&json!({ "overlap": "1h" })).send();
            assert_eq!(created.status, 201, "{}", created.body);
            let created = created.json();
            id = created["id"].as_str().unwrap().to_owned();
            let text = created["key"].as_str().unwrap();
            server.forbid_key_in_log(text);
            *current.lock().unwrap() = text.to_owned();
            thread::sleep(Duration::from_millis(10));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(responses.load(Ordering::Relaxed) > 100, "{responses:?}");
}
