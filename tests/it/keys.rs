//! The life of a key, from the outside.

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

use crate::harness::{PATIENCE, Server, Site, credential};

/// Runs a command with something on its standard input.
fn piped(site: &Site, args: &[&str], input: &[u8]) -> Output {
    let mut child = site
        .command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that wants none may be gone.
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
fn a_rotation_lets_both_in_until_its_overlap_ends() {
    let server = Server::new();
    let old = server.user_with("bob", &["access user profiles"]);
    let new = server.site.json(&["key", "rotate", &old.id, "--overlap", "2s"]);
    let begun = Instant::now();
    let (id, key) = (new["id"].as_str().unwrap(), new["key"].as_str().unwrap());
    server.hide(key.rsplit('_').next().unwrap());
    assert_eq!(new["replaces"]["id"], old.id.as_str());
    assert_eq!(new["replaces"]["rotated"]["to"], id);
    assert_eq!(status(&server, "bob", key), 200);
    let first = status(&server, "bob", &old.text);
    assert!(first == 200 || begun.elapsed() > Duration::from_secs(1), "{first}");
    while status(&server, "bob", &old.text) == 200 {
        assert!(begun.elapsed() < PATIENCE, "the overlap does not end");
        thread::sleep(Duration::from_millis(20));
    }
    server.request("GET", "/user/1").header("API-KEY", &old.credential).send().refuses(
        401,
        "AUTHENTICATION_FAILED",
        "The API key has expired.",
    );
    assert_eq!(status(&server, "bob", key), 200);
}

#[test]
fn a_rotation_with_wrong_words_is_refused_and_changes_nothing() {
    let server = Server::new();
    server.user("bob", &[]);
    let key = server.key("bob", &["--expires", "1h"]);
    let target = format!("/api/v1/keys/{}/rotate", key.id);
    let rotate = |body: Value| server.manages("POST", &target).json(&body).send();
    for (body, place) in [
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
        let answer = rotate(body.clone());
        assert_eq!(answer.status, 422, "{body}: {}", answer.body);
        assert_eq!(answer.json()["errors"][0]["location"], place, "{body}");
        assert!(answer.json()["errors"][0]["fix"].as_str().is_some_and(|fix| !fix.is_empty()));
    }
    assert_eq!(
        server.manages("GET", "/api/v1/users/2/keys").send().json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let answer = rotate(json!({ "overlap": "1m", "expires": "90d" }));
    assert_eq!(answer.status, 201, "{}", answer.body);
    server.hide(answer.json()["key"].as_str().unwrap().rsplit('_').next().unwrap());
    assert_eq!(
        answer.header("location").unwrap(),
        format!("/api/v1/keys/{}", answer.json()["id"].as_str().unwrap())
    );
    assert_eq!(rotate(json!({})).status, 409);
    server.site.json(&["key", "revoke", &key.id]);
    assert_eq!(rotate(json!({})).status, 409);
    assert_eq!(
        server.manages("POST", "/api/v1/keys/00000000/rotate").json(&json!({})).send().status,
        404
    );
}

#[test]
fn nobody_rotates_a_key_that_they_could_not_make() {
    let server = Server::new();
    let helper = server.user_with("helper", &["administer users", "read"]);
    let rotate = |who: &str, id: &str| {
        let target = format!("/api/v1/keys/{id}/rotate");
        let asked = crate::harness::Request::new(server.admin, "POST", &target);
        asked.header("API-KEY", who).json(&json!({})).send()
    };
    let admins = server.site.json(&["key", "list", "admin"]);
    let answer = rotate(&helper.credential, admins[0]["id"].as_str().unwrap());
    assert_eq!(answer.status, 403, "{}", answer.body);
    // A key with scopes would get one without.
    let scoped = server.key("helper", &["--scope", "administer users"]);
    assert_eq!(rotate(&scoped.credential, &helper.id).status, 403);
    let wider = server.key("helper", &["--scope", "administer users", "--scope", "read"]);
    assert_eq!(rotate(&scoped.credential, &wider.id).status, 403);
    let answer = rotate(&scoped.credential, &scoped.id);
    assert_eq!(answer.status, 201, "{}", answer.body);
    server.hide(answer.json()["key"].as_str().unwrap().rsplit('_').next().unwrap());
    let reader = server.user_with("reader", &["read"]);
    assert_eq!(rotate(&reader.credential, &reader.id).status, 403);
}

#[test]
fn a_pasted_key_is_shown_rotated_and_revoked_and_never_repeated() {
    let server = Server::new();
    let key = server.user_with("bob", &["access user profiles"]);
    let pasted = format!("{}\n", key.text);
    let output = piped(&server.site, &["key", "show", "-", "--output", "json"], pasted.as_bytes());
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["id"], key.id.as_str());
    assert!(!text(&output.stdout).contains(&key.text));
    let mut damaged = key.text.clone().into_bytes();
    damaged[15] = if damaged[15] == b'a' { b'b' } else { b'a' };
    for wrong in [&damaged[..], b"hunter2", b"", b"\xff\xfe"] {
        let output = piped(&server.site, &["key", "revoke", "-"], wrong);
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stderr);
        assert!(wrong.is_empty() || !said.contains(&*String::from_utf8_lossy(wrong)), "{said}");
    }
    // As an argument it is refused, and not repeated.
    let output = server.site.run(&["key", "revoke", &key.text]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!text(&output.stderr).contains(&key.text));
    assert_eq!(status(&server, "bob", &key.text), 200);
    let output = piped(&server.site, &["key", "revoke", "-"], pasted.as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(status(&server, "bob", &key.text), 401);
}

#[test]
fn keys_are_found_in_files_without_a_store() {
    let server = Server::new();
    let one = server.user_with("bob", &[]);
    server.application(json!({ "key_prefix": "acme" }));
    let two = server.key("bob", &[]);
    assert!(two.text.starts_with("acme_"));
    // Nothing is there but the files: no store, no configuration.
    let site = Site::new().with("KEYWARD_LIMITS__HEADERS", "nonsense");
    let put = |name: &str, text: &[u8]| {
        let path = site.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("a/clean.txt", b"nothing here, not even kw_00000000_000000000000000000000000000000000000");
    assert!(site.run(&["key", "scan", "a"]).status.success());
    put("a/b/.env", format!("X=1\nKEY={}\n", one.text).as_bytes());
    put("a/curl.log", format!("> API-KEY: {}\n", two.credential).as_bytes());
    put("a/image", &[&[0xff, 0, 0xd8][..], two.text.as_bytes(), &[0xfe]].concat());
    std::os::unix::fs::symlink(".", site.path().join("a/loop")).unwrap();
    let output = site.run(&["key", "scan", "a"]);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    let last = |key: &str| key[key.len() - 4..].to_owned();
    let expected = format!(
        "a/b/.env:2:5: {} kw…{}\na/curl.log:1:12: {} acme…{} (in a credential in Base64)\na/image:1:4: {} acme…{}\n",
        one.id,
        last(&one.text),
        two.id,
        last(&two.text),
        two.id,
        last(&two.text)
    );
    assert_eq!(text(&output.stdout), expected);
    assert!(text(&output.stderr).contains("3 keys were found"), "{}", text(&output.stderr));
    for path in ["a/b", "a/curl.log"] {
        let output = site.run(&["key", "scan", path, "--output", "json"]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found.as_array().unwrap().len(), 1);
        assert!(!text(&output.stdout).contains(&one.text));
    }
    let output = piped(&site, &["key", "scan", "--output", "json"], one.text.as_bytes());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found[0]["file"], &found[0]["id"]), (&json!("-"), &json!(one.id)));
    let output = site.run(&["key", "scan", "a/clean.txt", "a/missing"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("a/missing cannot be read"), "{}", text(&output.stderr));
}

#[test]
fn rotation_under_load_loses_no_request() {
    let server = Server::new();
    let key = server.user_with("busy", &["access user profiles"]);
    let current = Mutex::new(key.text.clone());
    let (is_over, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // Whoever has read it goes on with it for a while, as clients do.
                    let text = current.lock().unwrap().clone();
                    for _ in 0..3 {
                        let asks = server.request("GET", "/user/1");
                        let answer = asks.header("API-KEY", credential("busy", &text)).send();
                        assert_eq!(answer.status, 200, "{}", answer.body);
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut id = key.id.clone();
        for _ in 0..30 {
            let target = format!("/api/v1/keys/{id}/rotate");
            let made = server.manages("POST", &target).json(&json!({ "overlap": "1h" })).send();
            assert_eq!(made.status, 201, "{}", made.body);
            let made = made.json();
            id = made["id"].as_str().unwrap().to_owned();
            let text = made["key"].as_str().unwrap();
            server.hide_key(text);
            *current.lock().unwrap() = text.to_owned();
            thread::sleep(Duration::from_millis(10));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) > 100, "{asked:?}");
}
