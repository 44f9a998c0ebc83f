//! A bound credential makes nothing that has wider bounds, not even an administrator's.

use serde_json::{Value, json};

use super::{Scene, attempt, records, send};
use crate::harness::Key;

/// The ways to bind a key, each with a key that has the same bound.
fn bounds() -> [(&'static [&'static str], Value); 6] {
    [
        (
            &["--scope", "administer users", "--scope", "generate own api key"],
            json!({ "scopes": [] }),
        ),
        (&["--network", "127.0.0.0/8"], json!({ "networks": ["127.0.0.1"] })),
        (&["--application", "default"], json!({ "application": "default" })),
        (&["--rate-limit", "1000/1s"], json!({ "rate_limit": "10/1s" })),
        (&["--credits", "1000000/day"], json!({ "credits": "1/day" })),
        (&["--expires", "2h"], json!({ "expires": "1h" })),
    ]
}

fn attempts(scene: &Scene, uid: u64, key: &Key) -> Vec<super::Attempt> {
    let friend = scene.friend;
    let row = |name: &str| {
        json!({ "digest": "clear",
            "rows": [{ "username": name, "key": "an imported key that never ends" }] })
    };
    let mut all = vec![
        attempt("POST", "/api/v1/me/keys", json!({})),
        attempt("POST", "/api/v1/me/keys", json!({ "expires": "never" })),
        attempt("POST", format!("/api/v1/users/{uid}/keys"), json!({})),
        attempt("POST", format!("/api/v1/users/{friend}/keys"), json!({})),
        attempt("POST", "/api/v1/keys/import", row("friend")),
        attempt("POST", "/api/v1/keys/generate-all", json!({})),
        attempt("POST", "/api/v1/users", json!({ "name": "eve", "password": "a new password" })),
        attempt("PATCH", format!("/api/v1/users/{uid}"), json!({ "password": "a new password" })),
        attempt(
            "PATCH",
            format!("/api/v1/users/{friend}"),
            json!({ "password": "a new password" }),
        ),
        attempt("PATCH", format!("/user/{friend}"), json!({ "pass": ["a new password"] })),
        attempt("POST", "/entity/user", json!({ "name": ["eve"], "pass": ["a new password"] })),
        attempt(
            "PATCH",
            format!("/api/v1/users/{uid}"),
            json!({ "roles": ["administrator", "strong"] }),
        ),
        attempt(
            "POST",
            "/api/v1/users/import",
            json!({ "rows": [{ "username": "eve",
                "password_digest": "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=" }] }),
        ),
        attempt("POST", "/api/v1/state", json!("version = 1\n[[users]]\nname = \"eve\"\n")),
    ];
    // The next rotation keeps the bounds, except for an end that is sent.
    for end in ["never", "3h"] {
        let target = format!("/api/v1/me/keys/{}/rotate", key.id);
        all.push(attempt("POST", target, json!({ "expires": end, "overlap": 0 })));
    }
    let on_accounts = scene.attempts_on_accounts(uid).into_iter();
    // An administrator may change the own account with every credential without scopes.
    all.extend(on_accounts.filter(|attempt| !attempt.target.ends_with(&format!("/{uid}"))));
    all
}

#[test]
fn bound_credential_of_an_administrator_makes_nothing_without_the_bound() {
    let scene = Scene::new();
    let server = &scene.server;
    server.forbid_in_log("a new password");
    let keys: Vec<(u64, Key, &[&str], Value)> = bounds()
        .into_iter()
        .enumerate()
        .map(|(number, (args, same))| {
            let name = format!("boss{number}");
            let uid = server.add_user(&name, &["--role", "administrator"]);
            (uid, server.generate_key(&name, args), args, same)
        })
        .collect();
    let before = records(server);
    for (uid, key, args, _) in &keys {
        let has_end = args.contains(&"--expires");
        for attempt in attempts(&scene, *uid, key) {
            if attempt.target.ends_with("/rotate") && attempt.target.contains("/me/") && !has_end {
                continue;
            }
            let response = send(server, key, &attempt);
            let (method, target, body) = (attempt.method, attempt.target, attempt.body);
            assert_eq!(
                response.status, 403,
                "{args:?} {method} {target} {body}: {}",
                response.body
            );
        }
        assert_eq!(records(server), before, "{args:?}");
    }
    // A key with the same bounds or narrower ones is allowed.
    for (_, key, args, same) in &keys {
        let response = send(server, key, &attempt("POST", "/api/v1/me/keys", same.clone()));
        assert_eq!(response.status, 201, "{args:?} {}", response.body);
        server.forbid_key_in_log(response.json()["key"].as_str().unwrap());
    }
}

#[test]
fn rotation_ends_no_later_than_the_key_in_use() {
    let scene = Scene::new();
    let server = &scene.server;
    server.user_with_permissions("ann", &["generate own api key"]);
    let short = server.generate_key("ann", &["--expires", "1h"]);
    let long = server.generate_key("ann", &["--expires", "90d"]);
    let end = |key: &Key| {
        server.site.json(&["key", "show", &key.id])["expires"].as_str().unwrap().to_owned()
    };
    for key in [&long, &short] {
        let target = format!("/api/v1/me/keys/{}/rotate", key.id);
        let response = send(server, &short, &attempt("POST", target, json!({})));
        assert_eq!(response.status, 201, "{}", response.body);
        let rotated = response.json();
        server.forbid_key_in_log(rotated["key"].as_str().unwrap());
        assert_eq!(rotated["expires"], json!(end(&short)), "{}", response.body);
    }
}
