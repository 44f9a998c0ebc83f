//! An attribute that an authentication script takes for a credential follows the rules of
//! passwords.

use serde_json::{Value, json};

use crate::harness::{Key, Response, Server, Site, credential};

/// SHA-256 of `my-own-escape-key-1` and `my-own-escape-key-2`.
const DIGESTS: [&str; 2] = [
    "ab8e24ad79c98c4055d5258c08fb089d7fa40f9ec1b7b9da5ec19747648c252c",
    "fb77e0830201d152e908d6013980d1e5099d963b4520287979d8a87c8a70b8aa",
];

/// A server with the shipped script and one that adopts keys within a scope.
fn server() -> Server {
    let site = Site::new();
    let folder = site.path().join("scripts/auth");
    std::fs::create_dir_all(&folder).unwrap();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/auth/legacy_sha256.rhai");
    std::fs::copy(shipped, folder.join("legacy_sha256.rhai")).unwrap();
    let scoped = r#"
        fn verify(req, user, credential) {
            if credential.secret != "a narrow key of another system" { return false; }
            #{ scopes: ["read"], adopt: credential.secret }
        }
        fn test_verify() {
            assert_eq(verify(test_request("GET", "/"), test_user(#{ name: "a" }),
                #{ user: "a", secret: "x" }), false);
        }
    "#;
    std::fs::write(folder.join("narrow.rhai"), scoped).unwrap();
    let server = site.start();
    server.site.json(&["app", "add", "legacy", "--type", "legacy_sha256"]);
    server.site.json(&["app", "add", "narrow", "--type", "narrow"]);
    server
}

fn patch(server: &Server, key: &Key, uid: u64, change: Value) -> Response {
    let target = format!("/api/v1/users/{uid}");
    server.admin_api_as(&key.credential, "PATCH", &target).json(&change).send()
}

#[test]
fn bound_key_cannot_set_an_attribute_that_is_a_credential() {
    let server = server();
    server.user_with_permissions("mo", &["administer users"]);
    let attributes = json!({ "attributes": { "legacy_sha256": DIGESTS[0] } });
    for bound in [
        &["--scope", "administer users"][..],
        &["--network", "127.0.0.0/8"],
        &["--application", "default"],
        &["--rate-limit", "100/1s"],
        &["--expires", "1h"],
    ] {
        let key = server.generate_key("mo", bound);
        let response = patch(&server, &key, 2, attributes.clone());
        assert_eq!(response.status, 403, "{bound:?} {}", response.body);
        assert!(response.body.contains("takes for a credential"), "{}", response.body);
        let new = json!({ "name": "eve", "attributes": { "legacy_sha256": DIGESTS[0] } });
        let created = server.admin_api_as(&key.credential, "POST", "/api/v1/users").json(&new);
        assert_eq!(created.send().status, 403, "{bound:?}");
        let other = patch(&server, &key, 2, json!({ "attributes": { "team": "blue" } }));
        assert_eq!(other.status, 200, "{bound:?} {}", other.body);
    }
    let escape = credential("mo", "my-own-escape-key-1");
    let entered = server.request("GET", "/user/2").header("AUTH-METHOD", "legacy");
    assert_eq!(entered.header("API-KEY", escape).send().status, 401);
}

#[test]
fn changed_credential_attribute_is_hidden_in_the_trail_and_ends_adopted_keys() {
    let server = server();
    let key = server.user_with_permissions("mo", &["administer users"]);
    let set = |digest: Value| {
        let change = json!({ "attributes": { "legacy_sha256": digest, "team": "blue" } });
        assert_eq!(patch(&server, &key, 2, change).status, 200);
        let newest = server.admin_api("GET", "/api/v1/audit?limit=1").send().json();
        let text = newest.to_string();
        assert!(!DIGESTS.iter().any(|digest| text.contains(digest)), "{text}");
        newest["items"][0]["after"]["attributes"].clone()
    };
    let enter = |secret: &str| {
        let request = server.request("GET", "/user/2").header("AUTH-METHOD", "legacy");
        request.header("API-KEY", credential("mo", secret)).send().status
    };
    let hidden = json!({ "legacy_sha256": "(secret)", "team": "blue" });
    assert_eq!(set(json!(DIGESTS[0])), hidden);
    assert_eq!(enter("my-own-escape-key-1"), 200);
    let adopted = || {
        let keys = server.site.json(&["key", "list", "mo"]);
        let keys = keys.as_array().unwrap().clone();
        keys.into_iter().find(|key| key["application"] == "legacy")
    };
    let deadline = std::time::Instant::now() + crate::harness::TIMEOUT;
    while adopted().is_none() {
        assert!(std::time::Instant::now() < deadline, "the key was not adopted");
    }
    assert_eq!(set(json!(DIGESTS[1])), hidden);
    assert_eq!(adopted().unwrap()["state"], "revoked");
    assert_eq!(enter("my-own-escape-key-1"), 401);
    assert_eq!(enter("my-own-escape-key-2"), 200);
}

#[test]
fn adopted_key_keeps_the_scopes_with_which_it_was_accepted() {
    let server = server();
    server.user_with_permissions("ann", &["read", "generate own api key"]);
    let sent = credential("ann", "a narrow key of another system");
    let me = || {
        let request = server.request("GET", "/user/2").header("AUTH-METHOD", "narrow");
        request.header("API-KEY", &sent).send().status
    };
    assert_eq!(me(), 200);
    let deadline = std::time::Instant::now() + crate::harness::TIMEOUT;
    let adopted = loop {
        let keys = server.site.json(&["key", "list", "ann"]);
        let keys = keys.as_array().unwrap().clone();
        if let Some(key) = keys.into_iter().find(|key| key["application"] == "narrow") {
            break key;
        }
        assert!(std::time::Instant::now() < deadline, "the key was not adopted");
    };
    assert_eq!(adopted["scopes"], json!(["read"]));
    assert_eq!(me(), 200);
}
