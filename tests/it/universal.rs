//! Tests of universal keys. In an application for universal keys, a client that has such a key can
//! act as any user.

use serde_json::{Value, json};

use crate::harness::{Key, Response, Server, credential};

/// A server with the application `portal`, its universal key, and some users. The user
/// `portal-owner` owns the key.
fn portal() -> (Server, Key) {
    let server = Server::new();
    server.user_with_permissions("ann", &["access user profiles", "generate own api key"]);
    server.user_with_permissions("bob", &[]);
    server.add_user("portal-owner", &[]);
    server.site.json(&["app", "add", "portal", "--key-source", "universal"]);
    let key = server.generate_key("portal-owner", &["--application", "portal", "--universal"]);
    (server, key)
}

fn send(server: &Server, application: &str, name: &str, key: &str) -> Response {
    let request = server.request("GET", "/user/1").header("AUTH-METHOD", application);
    request.header("API-KEY", credential(name, key)).send()
}

fn change(server: &Server, target: &str, change: Value) -> u16 {
    server.admin_api("PATCH", target).json(&change).send().status
}

#[test]
fn universal_key_acts_as_the_named_user_in_its_application_only() {
    let (server, key) = portal();
    let anns_key = server.generate_key("ann", &[]).text;
    let status =
        |application: &str, name: &str, key: &str| send(&server, application, name, key).status;
    assert_eq!(status("portal", "ann", &key.text), 200);
    // A universal key does not extend the permissions of the user that the client names, even if
    // this user owns the key.
    assert_eq!(status("portal", "bob", &key.text), 403);
    assert_eq!(status("portal", "portal-owner", &key.text), 403);
    assert_eq!(status("portal", "nobody", &key.text), 404);
    // Other applications reject the universal key, even for its owner. The application `portal`
    // rejects keys of single users.
    for (application, name, key) in [
        ("default", "ann", &key.text),
        ("default", "portal-owner", &key.text),
        ("portal", "ann", &anns_key),
        ("portal", "admin", &server.key),
        ("portal", "keyward.operator", &key.text),
    ] {
        assert!([401, 404].contains(&status(application, name, key)), "{application} {name}");
    }
    assert_eq!(status("default", "ann", &anns_key), 200);
    // A verify request gets the same result.
    let verify = |name: &str| {
        let request = server.verify_request("GET", "/-/verify").header("AUTH-METHOD", "portal");
        let request = request
            .header("X-Forwarded-Method", "GET")
            .header("X-Forwarded-Uri", "/user/1")
            .header("X-Forwarded-Host", "api.example")
            .header("X-Forwarded-For", "192.0.2.1");
        request.header("API-KEY", credential(name, &key.text)).send()
    };
    assert_eq!(verify("ann").status, 200, "{}", verify("ann").body);
    assert_eq!(verify("ann").header("x-keyward-user"), Some("ann"));
    assert_eq!(verify("ann").header("x-keyward-key-id"), Some(&*key.id));
    assert_eq!(verify("admin").status, 401);
}

#[test]
fn universal_key_acts_as_administrators_only_if_the_application_allows_it() {
    let (server, key) = portal();
    let admin = || send(&server, "portal", "admin", &key.text);
    admin().assert_error(401, "AUTHENTICATION_FAILED", "Sorry, you are using an invalid API Key.");
    server.site.json(&["app", "edit", "portal", "--universal-administrators", "yes"]);
    assert_eq!(admin().status, 200);
    server.site.json(&["app", "edit", "portal", "--universal-administrators", "no"]);
    assert_eq!(admin().status, 401);
}

#[test]
fn universal_key_obeys_its_scopes_networks_revocation_and_its_owners_status() {
    let (server, key) = portal();
    let status = |key: &str| send(&server, "portal", "ann", key).status;
    let narrow = server.generate_key(
        "portal-owner",
        &["--application", "portal", "--universal", "--scope", "generate own api key"],
    );
    let network_bound = server.generate_key(
        "portal-owner",
        &["--application", "portal", "--universal", "--network", "203.0.113.0/24"],
    );
    assert_eq!(
        (status(&narrow.text), status(&network_bound.text), status(&key.text)),
        (403, 401, 200)
    );
    server.site.json(&["user", "block", "portal-owner"]);
    assert_eq!(status(&key.text), 401);
    server.site.json(&["user", "unblock", "portal-owner"]);
    assert_eq!(status(&key.text), 200);
    let rotated = server.site.json(&["key", "rotate", &key.id, "--overlap", "0s"]);
    let text = rotated["key"].as_str().unwrap();
    server.forbid_key_in_log(text);
    assert_eq!((status(&key.text), status(text)), (401, 200));
    server.site.json(&["key", "revoke", rotated["id"].as_str().unwrap()]);
    assert_eq!(status(text), 401);
    // If the key source of the application becomes `per_user`, universal keys are invalid.
    let last = server.generate_key("portal-owner", &["--application", "portal", "--universal"]);
    assert_eq!(status(&last.text), 200);
    server.site.json(&["app", "edit", "portal", "--key-source", "per_user"]);
    assert_eq!(status(&last.text), 401);
}

#[test]
fn only_administrators_create_universal_keys_and_universal_keys_create_no_keys() {
    let (server, key) = portal();
    let helper = server
        .user_with_permissions("helper", &["administer users", "administer site configuration"]);
    let as_helper = |method: &str, target: &str, body: Value| {
        server.admin_api_as(&helper.credential, method, target).json(&body).send().status
    };
    let portal_user_keys = format!(
        "/api/v1/users/{}/keys",
        server.site.json(&["user", "show", "portal-owner"])["uid"]
    );
    let universal = json!({ "application": "portal", "universal": true });
    assert_eq!(as_helper("POST", &portal_user_keys, universal), 403);
    assert_eq!(as_helper("POST", &format!("/api/v1/keys/{}/rotate", key.id), json!({})), 403);
    let default = "/api/v1/applications/default";
    assert_eq!(as_helper("PATCH", default, json!({ "key_source": "universal" })), 403);
    let portal_application = "/api/v1/applications/portal";
    assert_eq!(
        as_helper("PATCH", portal_application, json!({ "universal_administrators": true })),
        403
    );
    assert_eq!(as_helper("PATCH", portal_application, json!({ "realm": "x" })), 200);

    // A universal key cannot create a key, because the new key would stay valid after a revocation
    // of the universal key.
    let as_ann = server.admin_api_as(&credential("ann", &key.text), "POST", "/api/v1/me/keys");
    assert_eq!(as_ann.header("AUTH-METHOD", "portal").json(&json!({})).send().status, 403);
    for (target, method) in [
        (&*portal_user_keys, "POST"),
        ("/api/v1/keys/generate-all", "POST"),
        ("/api/v1/keys/import", "POST"),
    ] {
        let request = server.admin_api_as(&credential("helper", &key.text), method, target);
        let body = json!({ "digest": "clear", "rows": [] });
        let body = if target.ends_with("import") { body } else { json!({}) };
        assert_eq!(
            request.header("AUTH-METHOD", "portal").json(&body).send().status,
            403,
            "{target}"
        );
    }
    // Contradictory settings are rejected.
    let post =
        |target: &str, body: Value| server.admin_api("POST", target).json(&body).send().status;
    assert_eq!(post(&portal_user_keys, json!({ "universal": true })), 422);
    assert_eq!(
        post(&portal_user_keys, json!({ "universal": true, "application": "default" })),
        422
    );
    assert_eq!(
        post("/api/v1/keys/generate-all", json!({ "universal": true, "application": "portal" })),
        422
    );
    for (source, kind) in [("universal", "basic"), ("universal", "bearer")] {
        assert_eq!(
            change(&server, portal_application, json!({ "key_source": source, "type": kind })),
            422,
            "{kind}"
        );
    }
    assert_eq!(change(&server, default, json!({ "universal_administrators": true })), 422);
    let warned = server.site.run(&[
        "key",
        "generate",
        "portal-owner",
        "--application",
        "portal",
        "--universal",
    ]);
    assert!(String::from_utf8_lossy(&warned.stderr).contains("Warning"));
}

#[test]
fn restricted_keys_cannot_set_passwords() {
    let (server, universal) = portal();
    server.user_with_permissions("helper", &["administer users"]);
    let ann = server.site.json(&["user", "show", "ann"])["uid"].clone();
    let network_bound = server.generate_key("admin", &["--network", "127.0.0.0/8"]);
    let rate_limited = server.generate_key("admin", &["--rate-limit", "1000/1m"]);
    let application_bound = server.generate_key("admin", &["--application", "default"]);
    let restricted = [
        ("portal", credential("helper", &universal.text)),
        ("default", network_bound.credential),
        ("default", rate_limited.credential),
        ("default", application_bound.credential),
    ];
    let digest = "{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=";
    for (application, credential) in &restricted {
        let status = |method: &str, target: &str, body: Value| {
            let request = server.admin_api_as(credential, method, target);
            request.header("AUTH-METHOD", application).json(&body).send().status
        };
        assert_eq!(
            status("PATCH", &format!("/api/v1/users/{ann}"), json!({ "password": "x" })),
            403
        );
        assert_eq!(status("POST", "/api/v1/users", json!({ "name": "new", "password": "x" })), 403);
        let rows = json!({ "rows": [{ "username": "new", "password_digest": digest }] });
        assert_eq!(status("POST", "/api/v1/users/import", rows), 403);
        let status = |method: &str, target: &str, body: Value| {
            let request = server.request(method, target).header("API-KEY", credential);
            request.header("AUTH-METHOD", application).json(&body).send().status
        };
        let fields = json!({ "name": [{ "value": "new" }], "pass": [{ "value": "a password" }] });
        assert_eq!(status("POST", "/entity/user?_format=json", fields), 403);
        let fields = json!({ "pass": [{ "value": "a password" }] });
        assert_eq!(status("PATCH", &format!("/user/{ann}?_format=json"), fields), 403);
    }
    // With a universal key, a client cannot set the password of the user that the client acts as.
    let change = json!({ "pass": [{ "value": "new password", "existing": "old" }] });
    let request = server.request("PATCH", &format!("/user/{ann}?_format=json"));
    let request = request.header("API-KEY", credential("ann", &universal.text));
    assert_eq!(request.header("AUTH-METHOD", "portal").json(&change).send().status, 403);
    assert_eq!(server.site.json(&["user", "list"]).as_array().unwrap().len(), 5);
    // An unrestricted key of the administrator can set passwords.
    let change = json!({ "password": "a password" });
    assert_eq!(
        server.admin_api("PATCH", &format!("/api/v1/users/{ann}")).json(&change).send().status,
        200
    );
}

#[test]
fn application_with_valid_keys_cannot_be_deleted() {
    let (server, key) = portal();
    let delete = || server.admin_api("DELETE", "/api/v1/applications/portal").send();
    let response = delete();
    assert!(
        response.status == 409 && response.body.contains("bound to the application portal: 1"),
        "{}",
        response.body
    );
    let target = format!("/api/v1/keys/{}", key.id);
    let helper = server.user_with_permissions("helper", &["administer users"]);
    let patch =
        server.admin_api_as(&helper.credential, "PATCH", &target).json(&json!({ "label": "x" }));
    assert_eq!(patch.send().status, 403);
    server.site.json(&["key", "revoke", &key.id]);
    assert_eq!(delete().status, 204);
}
