//! Each kind of record is made, read, changed and deleted, with revisions that hold.

use serde_json::{Value, json};

use crate::harness::{Answer, Server};

#[track_caller]
fn made(answer: &Answer) -> Value {
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert!(answer.header("etag").unwrap().starts_with('"'));
    assert!(answer.header("location").unwrap().starts_with("/api/v1/"));
    answer.json()
}

/// Makes a record, reads it back where `Location` says, changes it, and deletes it.
fn goes_its_way(server: &Server, list: &str, record: &Value, change: &Value, after: &Value) {
    let answer = server.manages("POST", list).json(record).send();
    let created = made(&answer);
    for (name, value) in record.as_object().unwrap() {
        if name != "password" {
            assert_eq!(&created[name], value, "{list} {name}");
        }
    }
    let place = answer.header("location").unwrap().to_owned();
    let read = server.manages("GET", &place).send();
    assert_eq!((read.status, read.json()), (200, created));
    assert_eq!(read.header("etag"), answer.header("etag"));
    let head = server.manages("HEAD", &place).send();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length").unwrap(), read.body.len().to_string());

    let first = read.header("etag").unwrap();
    let changed = server.manages("PATCH", &place).header("If-Match", first).json(change).send();
    assert_eq!(changed.status, 200, "{}", changed.body);
    for (name, value) in after.as_object().unwrap() {
        assert_eq!(&changed.json()[name], value, "{list} {name}");
    }
    // The revision that was changed is gone; the new one stays where nothing changes.
    let second = changed.header("etag").unwrap().to_owned();
    assert_ne!(first, second);
    let stale = server.manages("PATCH", &place).header("If-Match", first).json(change).send();
    assert_eq!(stale.status, 412, "{}", stale.body);
    assert!(stale.json()["detail"].as_str().unwrap().contains(&second), "{}", stale.body);
    let same = server.manages("PATCH", &place).json(&json!({})).send();
    assert_eq!((same.status, same.header("etag")), (200, Some(second.as_str())));

    assert_eq!(server.manages("DELETE", &place).header("If-Match", first).send().status, 412);
    let gone = server.manages("DELETE", &place).header("If-Match", second).send();
    assert_eq!((gone.status, gone.body.as_str()), (204, ""));
    assert_eq!(server.manages("GET", &place).send().status, 404);
    assert_eq!(server.manages("DELETE", &place).send().status, 404);
}

#[test]
fn a_user() {
    let server = Server::new();
    server.hide("battery staple");
    goes_its_way(
        &server,
        "/api/v1/users",
        &json!({
            "name": "Ann", "mail": "ann@example.com", "active": true, "roles": ["administrator"],
            "password": "battery staple", "timezone": "Europe/Berlin", "attributes": { "tenant": "a" }
        }),
        &json!({ "active": false, "mail": null, "attributes": { "tenant": null, "tier": "gold" } }),
        &json!({
            "active": false, "mail": null, "attributes": { "tier": "gold" }, "has_password": true,
            "init": "ann@example.com", "name": "Ann"
        }),
    );
}

#[test]
fn a_role() {
    let server = Server::new();
    goes_its_way(
        &server,
        "/api/v1/roles",
        &json!({ "id": "editor", "label": "Editor", "weight": -3, "is_admin": false, "permissions": ["edit", "read"] }),
        &json!({ "permissions": ["read", "write"], "weight": null }),
        &json!({ "permissions": ["read", "write"], "weight": 0 }),
    );
}

#[test]
fn an_application() {
    let server = Server::new();
    goes_its_way(
        &server,
        "/api/v1/applications",
        &json!({
            "id": "partners", "name": "Partners", "enabled": true, "is_default": false, "type": "bearer",
            "header": "Authorization", "realm": "Partners", "detail": "uniform", "key_prefix": "pa"
        }),
        &json!({ "type": "api_key", "header": "X-Key" }),
        &json!({ "type": "api_key", "header": "X-Key", "realm": "Partners" }),
    );
}

#[test]
fn a_resource_at_each_granularity() {
    let server = Server::new();
    let whole = json!({
        "id": "motd", "enabled": true, "handler": "respond", "path": "/motd", "granularity": "resource",
        "methods": ["GET"], "formats": ["any"], "authentication": ["*"],
        "permissions": { "GET": ["read"] }, "respond": { "status": 200, "content_type": "text/plain", "body": "hi" }
    });
    let change =
        json!({ "host": "a.example", "permissions": { "GET": null }, "respond": { "body": "ho" } });
    let after = json!({
        "host": "a.example", "permissions": {}, "respond": { "status": 200, "content_type": "text/plain", "body": "ho" }
    });
    goes_its_way(&server, "/api/v1/resources", &whole, &change, &after);
    let by_method = json!({
        "id": "notes", "enabled": false, "handler": "respond", "path": "/notes/{id}", "granularity": "method",
        "methods": { "GET": { "formats": ["json"], "authentication": ["anonymous"], "permissions": [] } }
    });
    let change = json!({ "methods": { "PUT": { "formats": ["json"], "authentication": ["*"] } } });
    let after = json!({ "methods": {
        "GET": { "formats": ["json"], "authentication": ["anonymous"], "permissions": [] },
        "PUT": { "formats": ["json"], "authentication": ["*"], "permissions": [] }
    } });
    goes_its_way(&server, "/api/v1/resources", &by_method, &change, &after);
}

#[test]
fn a_key_is_shown_once() {
    let server = Server::new();
    server.user("bob", &[]);
    let body = json!({ "label": "ci", "scopes": [], "networks": ["10.0.0.0/8", "192.0.2.7"], "expires": "2099-01-01T00:00:00Z" });
    let answer = server.manages("POST", "/api/v1/users/2/keys").json(&body).send();
    let created = made(&answer);
    let text = created["key"].as_str().unwrap();
    assert!(text.starts_with("kw_"));
    server.hide(text.rsplit('_').next().unwrap());
    assert_eq!(created["networks"], json!(["10.0.0.0/8", "192.0.2.7/32"]));
    assert_eq!(created["state"], "active");
    let place = answer.header("location").unwrap();
    let read = server.manages("GET", place).send();
    assert!(!read.body.contains(text.rsplit('_').next().unwrap()));
    assert!(!read.body.contains("digest"));
    assert_eq!(read.json()["last_four"].as_str(), text.get(text.len() - 4..));
    let revoked = server.manages("POST", &format!("{place}/revoke")).send();
    assert_eq!((revoked.status, &revoked.json()["state"]), (200, &json!("revoked")));
    let when = revoked.json()["revoked"].clone();
    // Again is no error, and changes nothing.
    assert_eq!(server.manages("POST", &format!("{place}/revoke")).send().json()["revoked"], when);
    assert_eq!(server.manages("POST", "/api/v1/users/99/keys").json(&json!({})).send().status, 404);
}

#[test]
fn one_application_is_the_default() {
    let server = Server::new();
    let second = json!({ "id": "second", "name": "Second", "is_default": true });
    made(&server.manages("POST", "/api/v1/applications").json(&second).send());
    let first = server.manages("GET", "/api/v1/applications/default").send().json();
    assert_eq!(first["is_default"], false);
}

#[test]
fn health_asks_for_no_key() {
    let server = Server::new();
    for (path, status) in [("/health/alive", "alive"), ("/health/ready", "ready")] {
        let asked = crate::harness::Request::new(server.admin, "GET", path).send();
        assert_eq!((asked.status, asked.json()), (200, json!({ "status": status })));
    }
    // On the listener that the world reaches there is no such thing.
    assert_eq!(server.request("GET", "/health/alive").send().status, 401);
    assert_eq!(server.request("GET", "/api/v1/users").send().status, 401);
    assert_eq!(server.asks("GET", "/api/v1/users").send().status, 404);
}
