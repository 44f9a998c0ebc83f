//! Each kind of record can be created, read, changed and deleted, and a change with a stale
//! revision is rejected.

use serde_json::{Value, json};

use crate::harness::{Response, Server};

/// Checks a 201 response and returns the record in its body.
#[track_caller]
fn created_record(response: &Response) -> Value {
    assert_eq!(response.status, 201, "{}", response.body);
    assert!(response.header("etag").unwrap().starts_with('"'));
    assert!(response.header("location").unwrap().starts_with("/api/v1/"));
    response.json()
}

/// Creates a record, reads the record at the URL in `Location`, changes and deletes it. `after` has
/// the fields that are expected after the change.
fn check_record_lifecycle(
    server: &Server,
    list: &str,
    record: &Value,
    change: &Value,
    after: &Value,
) {
    let response = server.admin_api("POST", list).json(record).send();
    let created = created_record(&response);
    for (name, value) in record.as_object().unwrap() {
        if name != "password" {
            assert_eq!(&created[name], value, "{list} {name}");
        }
    }
    let location = response.header("location").unwrap().to_owned();
    let read = server.admin_api("GET", &location).send();
    assert_eq!((read.status, read.json()), (200, created));
    assert_eq!(read.header("etag"), response.header("etag"));
    let head = server.admin_api("HEAD", &location).send();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length").unwrap(), read.body.len().to_string());

    let old_etag = read.header("etag").unwrap();
    let changed =
        server.admin_api("PATCH", &location).header("If-Match", old_etag).json(change).send();
    assert_eq!(changed.status, 200, "{}", changed.body);
    for (name, value) in after.as_object().unwrap() {
        assert_eq!(&changed.json()[name], value, "{list} {name}");
    }
    // A change with the old revision is rejected. An empty change does not create a new revision.
    let new_etag = changed.header("etag").unwrap().to_owned();
    assert_ne!(old_etag, new_etag);
    let stale =
        server.admin_api("PATCH", &location).header("If-Match", old_etag).json(change).send();
    assert_eq!(stale.status, 412, "{}", stale.body);
    assert!(stale.json()["detail"].as_str().unwrap().contains(&new_etag), "{}", stale.body);
    let unchanged = server.admin_api("PATCH", &location).json(&json!({})).send();
    assert_eq!((unchanged.status, unchanged.header("etag")), (200, Some(new_etag.as_str())));

    let stale = server.admin_api("DELETE", &location).header("If-Match", old_etag).send();
    assert_eq!(stale.status, 412);
    let deleted = server.admin_api("DELETE", &location).header("If-Match", new_etag).send();
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    assert_eq!(server.admin_api("GET", &location).send().status, 404);
    assert_eq!(server.admin_api("DELETE", &location).send().status, 404);
}

#[test]
fn a_user_can_be_created_read_changed_and_deleted() {
    let server = Server::new();
    server.forbid_in_log("battery staple");
    check_record_lifecycle(
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
fn a_role_can_be_created_read_changed_and_deleted() {
    let server = Server::new();
    check_record_lifecycle(
        &server,
        "/api/v1/roles",
        &json!({ "id": "editor", "label": "Editor", "weight": -3, "is_admin": false, "permissions": ["edit", "read"] }),
        &json!({ "permissions": ["read", "write"], "weight": null }),
        &json!({ "permissions": ["read", "write"], "weight": 0 }),
    );
}

#[test]
fn an_application_can_be_created_read_changed_and_deleted() {
    let server = Server::new();
    check_record_lifecycle(
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
fn a_resource_of_each_granularity_can_be_created_read_changed_and_deleted() {
    let server = Server::new();
    let by_resource = json!({
        "id": "motd", "enabled": true, "handler": "respond", "path": "/motd", "granularity": "resource",
        "methods": ["GET"], "formats": ["any"], "authentication": ["*"],
        "permissions": { "GET": ["read"] }, "respond": { "status": 200, "content_type": "text/plain", "body": "hi" }
    });
    let change =
        json!({ "host": "a.example", "permissions": { "GET": null }, "respond": { "body": "ho" } });
    let after = json!({
        "host": "a.example", "permissions": {}, "respond": { "status": 200, "content_type": "text/plain", "body": "ho" }
    });
    check_record_lifecycle(&server, "/api/v1/resources", &by_resource, &change, &after);
    let forwarding = json!({
        "id": "app", "enabled": true, "handler": "proxy", "path": "/app/{*rest}", "granularity": "resource",
        "methods": ["GET"], "formats": ["any"], "authentication": ["*"],
        "proxy": { "upstreams": ["http://127.0.0.1:9000"], "protocol": "http1", "preserve_host": false,
            "keep_credential": false, "upgrades": ["websocket"], "forwarded": ["x-forwarded-for", "x-real-ip"],
            "connect_seconds": 5, "response_seconds": 60, "idle_seconds": 300, "eject_after": 3, "eject_seconds": 10 }
    });
    let mut after = json!({ "proxy": forwarding["proxy"] });
    after["proxy"]["forwarded"] = json!([]);
    let change = json!({ "proxy": { "forwarded": [] } });
    check_record_lifecycle(&server, "/api/v1/resources", &forwarding, &change, &after);
    let by_method = json!({
        "id": "notes", "enabled": false, "handler": "respond", "path": "/notes/{id}", "granularity": "method",
        "methods": { "GET": { "formats": ["json"], "authentication": ["anonymous"], "permissions": [] } }
    });
    let change = json!({ "methods": { "PUT": { "formats": ["json"], "authentication": ["*"] } } });
    let after = json!({ "methods": {
        "GET": { "formats": ["json"], "authentication": ["anonymous"], "permissions": [] },
        "PUT": { "formats": ["json"], "authentication": ["*"], "permissions": [] }
    } });
    check_record_lifecycle(&server, "/api/v1/resources", &by_method, &change, &after);
}

#[test]
fn a_key_is_shown_only_when_it_is_created() {
    let server = Server::new();
    server.add_user("bob", &[]);
    let body = json!({ "label": "ci", "scopes": [], "networks": ["10.0.0.0/8", "192.0.2.7"], "expires": "2099-01-01T00:00:00Z" });
    let response = server.admin_api("POST", "/api/v1/users/2/keys").json(&body).send();
    let created = created_record(&response);
    let text = created["key"].as_str().unwrap();
    assert!(text.starts_with("kw_"));
    server.forbid_in_log(text.rsplit('_').next().unwrap());
    assert_eq!(created["networks"], json!(["10.0.0.0/8", "192.0.2.7/32"]));
    assert_eq!(created["state"], "active");
    let location = response.header("location").unwrap();
    let read = server.admin_api("GET", location).send();
    assert!(!read.body.contains(text.rsplit('_').next().unwrap()));
    assert!(!read.body.contains("digest"));
    assert_eq!(read.json()["last_four"].as_str(), text.get(text.len() - 4..));
    let revoked = server.admin_api("POST", &format!("{location}/revoke")).send();
    assert_eq!((revoked.status, &revoked.json()["state"]), (200, &json!("revoked")));
    let revoked_at = revoked.json()["revoked"].clone();
    // A second revocation succeeds and keeps the time of the first revocation.
    assert_eq!(
        server.admin_api("POST", &format!("{location}/revoke")).send().json()["revoked"],
        revoked_at
    );
    assert_eq!(
        server.admin_api("POST", "/api/v1/users/99/keys").json(&json!({})).send().status,
        404
    );
}

#[test]
fn a_new_default_application_replaces_the_old_default() {
    let server = Server::new();
    let second = json!({ "id": "second", "name": "Second", "is_default": true });
    created_record(&server.admin_api("POST", "/api/v1/applications").json(&second).send());
    let first = server.admin_api("GET", "/api/v1/applications/default").send().json();
    assert_eq!(first["is_default"], false);
}

#[test]
fn health_checks_need_no_key_and_exist_only_on_the_admin_listener() {
    let server = Server::new();
    for (path, status) in [("/health/alive", "alive"), ("/health/ready", "ready")] {
        let request = crate::harness::Request::new(server.admin, "GET", path).send();
        assert_eq!((request.status, request.json()), (200, json!({ "status": status })));
    }
    // The public listener serves neither the health checks nor the admin API.
    assert_eq!(server.request("GET", "/health/alive").send().status, 401);
    assert_eq!(server.request("GET", "/api/v1/users").send().status, 401);
    assert_eq!(server.request_as_admin("GET", "/api/v1/users").send().status, 404);
}
