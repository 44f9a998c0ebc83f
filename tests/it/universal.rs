//! Universal keys: one key acts as any user whom its client names, where an application was made for it.

use serde_json::{Value, json};

use crate::harness::{Answer, Key, Server, credential};

/// A server with the application `portal`, its universal key, and some users.
fn portal() -> (Server, Key) {
    let server = Server::new();
    server.user_with("ann", &["access user profiles", "generate own api key"]);
    server.user_with("bob", &[]);
    server.user("portal", &[]);
    server.site.json(&["app", "add", "portal", "--key-source", "universal"]);
    let key = server.key("portal", &["--application", "portal", "--universal"]);
    (server, key)
}

fn asks(server: &Server, application: &str, name: &str, key: &str) -> Answer {
    let request = server.request("GET", "/user/1").header("AUTH-METHOD", application);
    request.header("API-KEY", credential(name, key)).send()
}

fn change(server: &Server, target: &str, change: Value) -> u16 {
    server.manages("PATCH", target).json(&change).send().status
}

#[test]
fn it_acts_as_whom_its_client_names_and_in_its_application_alone() {
    let (server, key) = portal();
    let own = server.key("ann", &[]).text;
    let status =
        |application: &str, name: &str, key: &str| asks(&server, application, name, key).status;
    assert_eq!(status("portal", "ann", &key.text), 200);
    // It gives nobody more than they have, and the one who answers for it no more than the others.
    assert_eq!(status("portal", "bob", &key.text), 403);
    assert_eq!(status("portal", "portal", &key.text), 403);
    assert_eq!(status("portal", "nobody", &key.text), 404);
    // Elsewhere it is nobody's, not even its owner's; and there, nobody's own key is taken.
    for (application, name, key) in [
        ("default", "ann", &key.text),
        ("default", "portal", &key.text),
        ("portal", "ann", &own),
        ("portal", "admin", &server.key),
        ("portal", "keyward.operator", &key.text),
    ] {
        assert!([401, 404].contains(&status(application, name, key)), "{application} {name}");
    }
    assert_eq!(status("default", "ann", &own), 200);
    // What a proxy asks gets the same.
    let verify = |name: &str| {
        let request = server.request("GET", "/-/verify").header("AUTH-METHOD", "portal");
        let request = request
            .header("X-Forwarded-Method", "GET")
            .header("X-Forwarded-Uri", "/user/1")
            .header("X-Forwarded-For", "192.0.2.1");
        request.header("API-KEY", credential(name, &key.text)).send()
    };
    assert_eq!(verify("ann").status, 200, "{}", verify("ann").body);
    assert_eq!(verify("ann").header("x-keyward-user"), Some("ann"));
    assert_eq!(verify("ann").header("x-keyward-key-id"), Some(&*key.id));
    assert_eq!(verify("admin").status, 401);
}

#[test]
fn administrators_are_left_out_unless_the_operator_says_so() {
    let (server, key) = portal();
    let admin = || asks(&server, "portal", "admin", &key.text);
    admin().refuses(401, "AUTHENTICATION_FAILED", "Sorry, you are using an invalid API Key.");
    server.site.json(&["app", "edit", "portal", "--universal-administrators", "yes"]);
    assert_eq!(admin().status, 200);
    server.site.json(&["app", "edit", "portal", "--universal-administrators", "no"]);
    assert_eq!(admin().status, 401);
}

#[test]
fn it_ends_with_its_scopes_its_revocation_and_its_owner() {
    let (server, key) = portal();
    let status = |key: &str| asks(&server, "portal", "ann", key).status;
    let narrow = server.key(
        "portal",
        &["--application", "portal", "--universal", "--scope", "generate own api key"],
    );
    let far = server
        .key("portal", &["--application", "portal", "--universal", "--network", "203.0.113.0/24"]);
    assert_eq!((status(&narrow.text), status(&far.text), status(&key.text)), (403, 401, 200));
    server.site.json(&["user", "block", "portal"]);
    assert_eq!(status(&key.text), 401);
    server.site.json(&["user", "unblock", "portal"]);
    assert_eq!(status(&key.text), 200);
    let rotated = server.site.json(&["key", "rotate", &key.id, "--overlap", "0s"]);
    let text = rotated["key"].as_str().unwrap();
    server.hide_key(text);
    assert_eq!((status(&key.text), status(text)), (401, 200));
    server.site.json(&["key", "revoke", rotated["id"].as_str().unwrap()]);
    assert_eq!(status(text), 401);
    // With the source of the application all of them end.
    let last = server.key("portal", &["--application", "portal", "--universal"]);
    assert_eq!(status(&last.text), 200);
    server.site.json(&["app", "edit", "portal", "--key-source", "per_user"]);
    assert_eq!(status(&last.text), 401);
}

#[test]
fn only_an_administrator_makes_them_and_they_make_no_keys() {
    let (server, key) = portal();
    let helper = server.user_with("helper", &["administer users", "administer site configuration"]);
    let as_helper = |method: &str, target: &str, body: Value| {
        server.manages_as(&helper.credential, method, target).json(&body).send().status
    };
    let portal =
        format!("/api/v1/users/{}/keys", server.site.json(&["user", "show", "portal"])["uid"]);
    let universal = json!({ "application": "portal", "universal": true });
    assert_eq!(as_helper("POST", &portal, universal), 403);
    assert_eq!(as_helper("POST", &format!("/api/v1/keys/{}/rotate", key.id), json!({})), 403);
    let default = "/api/v1/applications/default";
    assert_eq!(as_helper("PATCH", default, json!({ "key_source": "universal" })), 403);
    let its = "/api/v1/applications/portal";
    assert_eq!(as_helper("PATCH", its, json!({ "universal_administrators": true })), 403);
    assert_eq!(as_helper("PATCH", its, json!({ "realm": "x" })), 200);

    // Who has one cannot make itself a key that outlives it.
    let as_ann = server.manages_as(&credential("ann", &key.text), "POST", "/api/v1/me/keys");
    assert_eq!(as_ann.header("AUTH-METHOD", "portal").json(&json!({})).send().status, 403);
    for (target, method) in
        [(&*portal, "POST"), ("/api/v1/keys/generate-all", "POST"), ("/api/v1/keys/import", "POST")]
    {
        let request = server.manages_as(&credential("helper", &key.text), method, target);
        let body = json!({ "digest": "clear", "rows": [] });
        let body = if target.ends_with("import") { body } else { json!({}) };
        assert_eq!(
            request.header("AUTH-METHOD", "portal").json(&body).send().status,
            403,
            "{target}"
        );
    }
    // What makes no sense is refused.
    let manages =
        |target: &str, body: Value| server.manages("POST", target).json(&body).send().status;
    assert_eq!(manages(&portal, json!({ "universal": true })), 422);
    assert_eq!(manages(&portal, json!({ "universal": true, "application": "default" })), 422);
    assert_eq!(
        manages("/api/v1/keys/generate-all", json!({ "universal": true, "application": "portal" })),
        422
    );
    for (source, kind) in [("universal", "basic"), ("universal", "bearer")] {
        assert_eq!(
            change(&server, its, json!({ "key_source": source, "type": kind })),
            422,
            "{kind}"
        );
    }
    assert_eq!(change(&server, default, json!({ "universal_administrators": true })), 422);
    let warned =
        server.site.run(&["key", "generate", "portal", "--application", "portal", "--universal"]);
    assert!(String::from_utf8_lossy(&warned.stderr).contains("Warning"));
}

#[test]
fn with_a_bound_key_no_password_is_set() {
    let (server, universal) = portal();
    server.user_with("helper", &["administer users"]);
    let ann = server.site.json(&["user", "show", "ann"])["uid"].clone();
    let bound = server.key("admin", &["--network", "127.0.0.0/8"]);
    let limited = server.key("admin", &["--rate-limit", "1000/1m"]);
    let for_one = server.key("admin", &["--application", "default"]);
    let ways = [
        ("portal", credential("helper", &universal.text)),
        ("default", bound.credential),
        ("default", limited.credential),
        ("default", for_one.credential),
    ];
    let digest = "{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=";
    for (application, credential) in &ways {
        let asks = |method: &str, target: &str, body: Value| {
            let request = server.manages_as(credential, method, target);
            request.header("AUTH-METHOD", application).json(&body).send().status
        };
        assert_eq!(asks("PATCH", &format!("/api/v1/users/{ann}"), json!({ "password": "x" })), 403);
        assert_eq!(asks("POST", "/api/v1/users", json!({ "name": "new", "password": "x" })), 403);
        let rows = json!({ "rows": [{ "username": "new", "password_digest": digest }] });
        assert_eq!(asks("POST", "/api/v1/users/import", rows), 403);
        let asks = |method: &str, target: &str, body: Value| {
            let request = server.request(method, target).header("API-KEY", credential);
            request.header("AUTH-METHOD", application).json(&body).send().status
        };
        let fields = json!({ "name": [{ "value": "new" }], "pass": [{ "value": "a password" }] });
        assert_eq!(asks("POST", "/entity/user?_format=json", fields), 403);
        let fields = json!({ "pass": [{ "value": "a password" }] });
        assert_eq!(asks("PATCH", &format!("/user/{ann}?_format=json"), fields), 403);
    }
    // Nor one of the very user that a universal key acts as.
    let own = json!({ "pass": [{ "value": "new password", "existing": "old" }] });
    let request = server.request("PATCH", &format!("/user/{ann}?_format=json"));
    let request = request.header("API-KEY", credential("ann", &universal.text));
    assert_eq!(request.header("AUTH-METHOD", "portal").json(&own).send().status, 403);
    assert_eq!(server.site.json(&["user", "list"]).as_array().unwrap().len(), 5);
    // What the key is bound to by its user or its owner stays free to do.
    let free = json!({ "password": "a password" });
    assert_eq!(
        server.manages("PATCH", &format!("/api/v1/users/{ann}")).json(&free).send().status,
        200
    );
}

#[test]
fn an_application_with_keys_is_not_deleted() {
    let (server, key) = portal();
    let delete = || server.manages("DELETE", "/api/v1/applications/portal").send();
    let said = delete();
    assert!(
        said.status == 409 && said.body.contains("bound to the application portal: 1"),
        "{}",
        said.body
    );
    let target = format!("/api/v1/keys/{}", key.id);
    let helper = server.user_with("helper", &["administer users"]);
    let patch =
        server.manages_as(&helper.credential, "PATCH", &target).json(&json!({ "label": "x" }));
    assert_eq!(patch.send().status, 403);
    server.site.json(&["key", "revoke", &key.id]);
    assert_eq!(delete().status, 204);
}
